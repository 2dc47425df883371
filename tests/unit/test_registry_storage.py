"""The registry's disk without a server: sessions that others continue, locks, and what a crash leaves."""

from __future__ import annotations

import os
import resource
import signal
import time
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, Exhausted, InvalidInput, NotFound
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.registry import sessions
from argosy.registry.sessions import Uploads
from argosy.registry.storage import Storage
from support.forked import in_child

if TYPE_CHECKING:
    from pathlib import Path

DATA = b"some bytes of a layer"
DIGEST = Digest.of(DATA)
MANIFEST = Descriptor.of(b"{}", media.OCI_MANIFEST)


def test_an_upload_is_continued_by_another_process_with_nothing_in_memory(tmp_path: Path) -> None:
    first, second = Uploads(tmp_path), Uploads(tmp_path)
    session = first.create("a")
    upload = first.open("a", session)
    upload.append([DATA[:5], DATA[5:9]])
    upload.close()
    assert second.offset("a", session) == 9
    upload = second.open("a", session)
    upload.append([DATA[9:]])
    upload.commit(Storage(tmp_path).blobs, DIGEST)
    assert Storage(tmp_path).blobs.path(DIGEST).read_bytes() == DATA
    assert os.listdir(tmp_path / "uploads") == []


def test_a_running_digest_that_another_process_outdated_is_not_used(tmp_path: Path) -> None:
    first, second = Uploads(tmp_path), Uploads(tmp_path)
    session = first.create("a")
    for owner, piece in ((first, DATA[:5]), (second, DATA[5:9]), (first, DATA[9:])):
        upload = owner.open("a", session)
        upload.append([piece])
        upload.close()
    upload = first.open("a", session)
    upload.commit(Storage(tmp_path).blobs, DIGEST)
    assert Storage(tmp_path).blobs.stat(DIGEST) == len(DATA)


def test_only_one_writes_to_an_upload(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    session = uploads.create("a")
    upload = uploads.open("a", session)
    with pytest.raises(Conflict, match="another request is writing") as caught:
        uploads.open("a", session)
    assert caught.value.code == "upload-busy"
    upload.discard()
    upload.discard()
    with pytest.raises(NotFound):
        uploads.open("a", session)


def test_an_upload_with_other_bytes_is_refused_and_removed(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    upload = uploads.open("a", uploads.create("a"))
    upload.append([DATA])
    with pytest.raises(InvalidInput) as caught:
        upload.commit(Storage(tmp_path).blobs, Digest.of(b"other"))
    assert (caught.value.code, caught.value.context) == (
        "digest-mismatch",
        f"{len(DATA)} bytes with digest {DIGEST} arrived",
    )
    assert os.listdir(tmp_path / "uploads") == []
    assert list(Storage(tmp_path).blobs.walk()) == []


def test_nothing_is_written_once_an_upload_is_closed(tmp_path: Path) -> None:
    """A request that was cancelled closes the file; its thread may come late and must not hit another file."""
    uploads = Uploads(tmp_path)
    session = uploads.create("a")
    upload = uploads.open("a", session)
    upload.close()
    with pytest.raises(NotFound):
        upload.append([DATA])
    with pytest.raises(NotFound):
        upload.commit(Storage(tmp_path).blobs, DIGEST)
    assert uploads.offset("a", session) == 0


def test_a_crumbling_upload_arrives_whole(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    upload = uploads.open("a", uploads.create("a"))
    data = os.urandom(5000)
    upload.append([data[place : place + 1] for place in range(len(data))])
    upload.commit(Storage(tmp_path).blobs, Digest.of(data))


def test_old_uploads_are_swept_and_young_ones_stay(tmp_path: Path) -> None:
    uploads = Uploads(tmp_path)
    uploads.sweep()
    old, young = uploads.create("a"), uploads.create("a")
    past = time.time() - sessions.SESSION_LIFE_S - 60
    os.utime(next((tmp_path / "uploads").glob(f"{old}*")), (past, past))
    uploads.sweep()
    assert uploads.offset("a", young) == 0
    with pytest.raises(NotFound):
        uploads.offset("a", old)


def test_memory_of_running_digests_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sessions, "HASHERS", 2)
    uploads = Uploads(tmp_path)
    ids = [uploads.create("a") for _ in range(4)]
    for session in ids:
        upload = uploads.open("a", session)
        upload.append([DATA])
        upload.close()
    for session in ids:
        upload = uploads.open("a", session)
        upload.commit(Storage(tmp_path).blobs, DIGEST)


def test_names_list_only_what_ever_held_a_manifest(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    assert list(storage.names()) == []
    for name in ("b", "a/b/c", "a-b", "a/b"):
        storage.repository(name).link_manifest(MANIFEST)
    storage.repository("blobs/only").link_blob(DIGEST)
    assert list(storage.names()) == ["a-b", "a/b", "a/b/c", "b"]


def test_names_come_in_the_order_of_their_bytes_from_any_place_on(tmp_path: Path) -> None:
    """«-» and «.» sort before «/», digits and letters after it; folders do not."""
    storage = Storage(tmp_path)
    names = sorted(["a", "a-b", "a.b", "a/b", "a/b/c", "a/b-c", "a/b0", "a0", "a_b", "ab", "b/c/d"])
    for name in names:
        storage.repository(name).link_manifest(MANIFEST)
    for after in ("", *names, "a/", "a/b/c/d", "a00", "b", "zz"):
        assert list(storage.names(after=after)) == [name for name in names if name > after]


def test_a_tag_whose_manifest_is_gone_names_nothing(tmp_path: Path) -> None:
    """What a crash between the two removals of a deletion may leave."""
    repository = Storage(tmp_path).repository("a")
    repository.link_manifest(MANIFEST)
    repository.set_tag("latest", MANIFEST)
    assert repository.tag("latest") == MANIFEST
    repository.unlink_manifest(MANIFEST.digest)
    assert repository.tag("latest") is None


def test_a_link_without_its_blob_holds_nothing(tmp_path: Path) -> None:
    storage = Storage(tmp_path)
    repository = storage.repository("a")
    repository.link_blob(DIGEST)
    assert repository.blob_size(DIGEST) is None
    storage.blobs.put(DATA, "x")
    assert repository.blob_size(DIGEST) == len(DATA)


def test_half_written_links_are_not_listed(tmp_path: Path) -> None:
    repository = Storage(tmp_path).repository("a")
    repository.link_manifest(MANIFEST)
    repository.set_tag("latest", MANIFEST)
    (tmp_path / "repositories/a/_tags/.latest.1.aaaa").write_bytes(b"")
    assert repository.tags() == ["latest"]


def test_a_full_disk_takes_the_last_block_back(tmp_path: Path) -> None:
    """The client can free space and continue where it was; here a file size limit plays the disk."""

    def inside() -> object:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, resource.RLIM_INFINITY))
        uploads = Uploads(tmp_path)
        session = uploads.create("a")
        upload = uploads.open("a", session)
        upload.append([bytes(8_000)])
        try:
            upload.append([bytes(1_000), bytes(7_000)])
        except Exhausted as error:
            found = (error.code, upload.offset, uploads.offset("a", session))
        resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        upload.append([bytes(7_000)])
        upload.commit(Storage(tmp_path).blobs, Digest.of(bytes(15_000)))
        return found

    assert in_child(inside) == ("file-too-large", 8_000, 8_000)
