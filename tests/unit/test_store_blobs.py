"""BlobStore and Ingest: what is stored is what was promised, or nothing."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, Exhausted, InvalidInput, NotFound
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.store.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

DATA = bytes(range(256)) * 40
BLOB = Descriptor.of(DATA, "application/x-test")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "not" / "yet")


def parts(store: BlobStore) -> list[str]:
    return sorted(name for name in os.listdir(store.root / "ingest") if name.endswith(".part"))


def test_put_stores_exactly_these_bytes_read_only(store: BlobStore) -> None:
    assert store.put(DATA, "application/x-test") == BLOB
    path = store.path(BLOB.digest)
    assert (path.read_bytes(), stat.S_IMODE(path.stat().st_mode)) == (DATA, 0o444)
    assert (store.stat(BLOB.digest), list(store.walk()), parts(store)) == (len(DATA), [BLOB.digest], [])


def test_put_twice_is_put_once(store: BlobStore) -> None:
    first = store.put(DATA, "application/x-test")
    inode = store.path(BLOB.digest).stat().st_ino
    assert store.put(DATA, "application/x-test") == first
    assert store.path(BLOB.digest).stat().st_ino == inode


def test_the_empty_blob_is_a_blob(store: BlobStore) -> None:
    empty = store.put(b"", "application/x-test")
    with store.open(empty) as stream:
        assert stream.read() == b""


def test_open_reads_from_an_offset(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    with store.open(BLOB, offset=1000) as stream:
        assert stream.read() == DATA[1000:]


def test_open_of_an_unknown_blob_says_where_it_looked(store: BlobStore) -> None:
    with pytest.raises(NotFound) as caught:
        store.open(BLOB)
    assert caught.value.code == "blob-unknown"
    assert caught.value.context == f"looked for {store.path(BLOB.digest)}"


def test_a_flipped_bit_is_found_at_the_last_read(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    path = store.path(BLOB.digest)
    path.chmod(0o644)
    path.write_bytes(bytes([DATA[0] ^ 1]) + DATA[1:])
    with store.open(BLOB) as stream, pytest.raises(Corrupt) as caught:
        stream.read()
    assert caught.value.code == "digest-mismatch"


@pytest.mark.parametrize("length", [0, 1, len(DATA) - 1, len(DATA) + 1])
def test_a_wrong_size_is_found_when_opening(store: BlobStore, length: int) -> None:
    store.put(DATA, "application/x-test")
    path = store.path(BLOB.digest)
    path.chmod(0o644)
    path.write_bytes((DATA + b"x")[:length])
    for offset in (0, 1):
        with pytest.raises(Corrupt) as caught:
            store.open(BLOB, offset=offset)
        assert (caught.value.code, caught.value.message) == ("size-mismatch", f"blob {BLOB.digest} is damaged")


def test_a_blob_of_wrong_size_is_replaced_by_the_next_ingest(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    path = store.path(BLOB.digest)
    path.chmod(0o644)
    path.write_bytes(DATA[:7])
    assert not store.claim(BLOB)
    store.put(DATA, "application/x-test")
    assert path.read_bytes() == DATA


def test_an_interrupted_ingest_leaves_nothing(store: BlobStore) -> None:
    with store.ingest(BLOB) as part:
        part.write(DATA[:5000])
        assert len(parts(store)) == 1
    assert (store.stat(BLOB.digest), parts(store)) == (None, [])


def test_a_wrong_digest_leaves_nothing(store: BlobStore) -> None:
    with store.ingest(BLOB) as part:
        part.write(b"\0" * len(DATA))
        with pytest.raises(Corrupt) as caught:
            part.commit()
    assert (caught.value.code, store.stat(BLOB.digest), parts(store)) == ("digest-mismatch", None, [])


def test_an_ingest_of_what_is_here_only_commits(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    with store.ingest(BLOB) as part:
        assert (part.complete, part.offset, part.commit()) == (True, len(DATA), BLOB)


def test_writing_past_the_promised_size_is_refused_and_leaves_nothing(store: BlobStore) -> None:
    with store.ingest(BLOB) as part, pytest.raises(Corrupt) as caught:
        part.write(DATA + b"x")
    assert (caught.value.code, parts(store)) == ("size-mismatch", [])


def test_committing_too_early_is_refused_and_writing_may_go_on(store: BlobStore) -> None:
    with store.ingest(BLOB) as part:
        part.write(DATA[:10])
        with pytest.raises(Corrupt) as caught:
            part.commit()
        part.write(DATA[10:])
        part.commit()
    assert (caught.value.code, caught.value.context) == ("size-mismatch", f"ends after 10 of {len(DATA)} bytes")
    assert (store.claim(BLOB), parts(store)) == (True, [])


def test_abort_leaves_nothing(store: BlobStore) -> None:
    with store.ingest(BLOB) as part:
        part.write(DATA[:10])
        part.abort()
        part.abort()
    assert parts(store) == []


def test_an_ended_ingest_takes_no_more(store: BlobStore) -> None:
    with store.ingest(BLOB) as part:
        part.abort()
        with pytest.raises(InvalidInput) as caught:
            part.write(b"x")
    assert caught.value.code == "ingest-ended"


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_content_of_unknown_digest_is_named_by_its_own(store: BlobStore, algorithm: str) -> None:
    with store.ingest(algorithm=algorithm) as part:
        part.write(DATA)
        found = part.commit(media_type="application/x-test")
    expected = Descriptor(media_type="application/x-test", digest=Digest.of(DATA, algorithm), size=len(DATA))
    assert (found, list(store.walk()), parts(store)) == (expected, [expected.digest], [])


def test_an_ingest_of_unknown_digest_leaves_no_part(store: BlobStore) -> None:
    with store.ingest() as part:
        part.write(DATA)
    assert parts(store) == []


@pytest.mark.parametrize("algorithm", ["sha256", "sha512"])
def test_a_digest_told_at_the_end_is_checked(store: BlobStore, algorithm: str) -> None:
    right = Digest.of(DATA, algorithm)
    with store.ingest() as part:
        part.write(DATA)
        assert part.commit(digest=right).digest == right
    with store.ingest() as part:
        part.write(DATA + b"x")
        with pytest.raises(Corrupt) as caught:
            part.commit(digest=right)
    assert (caught.value.code, parts(store)) == ("digest-mismatch", [])


def test_an_unknown_algorithm_is_refused(store: BlobStore) -> None:
    with pytest.raises(InvalidInput) as caught:
        store.ingest(algorithm="md5")
    assert caught.value.code == "digest-unsupported"


def test_a_blob_that_cannot_fit_is_refused_before_the_transfer(store: BlobStore) -> None:
    huge = Descriptor(media_type="application/x-test", digest=BLOB.digest, size=1 << 60)
    with pytest.raises(Exhausted) as caught:
        store.ingest(huge)
    assert (caught.value.code, parts(store)) == ("disk-full", [])
    assert caught.value.context.startswith(f"{1 << 60} more bytes are needed, ")
    assert caught.value.context.endswith(f" are free in {store.root}")


def test_delete_gives_the_bytes_freed_and_is_idempotent(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    on_disk = os.stat(store.path(BLOB.digest)).st_blocks * 512
    assert (store.delete(BLOB.digest), store.delete(BLOB.digest), list(store.walk())) == (on_disk, 0, [])


def test_walk_passes_over_what_is_no_blob(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    (store.root / "blobs/sha256/README").write_text("?")
    (store.root / "blobs/sha256" / BLOB.digest.hex.upper()).write_text("?")
    assert list(store.walk()) == [BLOB.digest]


def test_claim_makes_a_blob_young(store: BlobStore) -> None:
    store.put(DATA, "application/x-test")
    os.utime(store.path(BLOB.digest), (1, 1))
    assert store.claim(BLOB)
    assert store.path(BLOB.digest).stat().st_mtime > 1e9


def test_an_empty_store_has_no_blobs(store: BlobStore) -> None:
    assert (list(store.walk()), store.stat(BLOB.digest), store.claim(BLOB)) == ([], None, False)
