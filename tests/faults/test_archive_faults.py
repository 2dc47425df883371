"""Archives that are cut, damaged or made to do harm: one error, no name changes, and the next load succeeds."""

from __future__ import annotations

import gzip
import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import Corrupt, Error, Exhausted, InvalidInput, NotFound, Unsupported
from argosy.linux import mounts
from argosy.linux.files import write_atomic
from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.image import Image
from argosy.oci.manifest import encode_index
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.oci.wire import encode
from argosy.ops.settle import settle
from argosy.store import unsettled
from support.archives import END, file, folder, hardlink, header, symlink
from support.forked import in_child
from support.image_archives import (
    Shelf,
    docker_document,
    docker_members,
    layout_members,
    pieces_of,
    tar_of,
    whole,
    with_links,
)
from support.images import Layout, config_json, random_image
from support.stores import Program, argosy, command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from support.images import RandomImage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners of layers)")
OLD = "latest:latest"


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image", size=3000)


@pytest.fixture
def old(tmp_path: Path) -> bytes:
    """An archive of another image under the same name as the others here."""
    return tar_of(layout_members(random_image(tmp_path / "old", size=2000, seed=9).layout))


@pytest.fixture(params=["a file", "a stream"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "a stream")


def members_of(form: str, image: RandomImage) -> dict[str, bytes]:
    """*image*, of which *form* is the archive's kind, under the name OLD."""
    if form == "layout":
        return layout_members(image.layout)
    return docker_members(image, OLD, compressed=form == "Docker's, compressed")


FORMS = pytest.mark.parametrize("form", ["layout", "Docker's", "Docker's, compressed"])


def refused(shelf: Shelf, archive: bytes, *, streamed: bool) -> Error:
    """The error that *archive* gives; what the names mean is as before.

    Of a file several processes read; those that are ended by another's error leave parts for the next sweep.
    """
    before = shelf.refs.list()
    with pytest.raises(Error) as caught:
        shelf.load(archive, streamed=streamed)
    assert shelf.refs.list() == before
    assert not (streamed and list((shelf.root / "ingest").glob("*.part")))
    return caught.value


# ---- cut off


def cuts(members: Mapping[str, bytes]) -> Iterator[int]:
    """Before each member, in its header, behind it, in its data and in its padding."""
    at = 0
    for piece in pieces_of(members):
        yield from (at, at + 100, at + 512)
        if len(piece) > 512:
            yield from (at + 513, at + len(piece) - 512, at + len(piece) - 1)
        at += len(piece)


@FORMS
def test_an_archive_that_is_cut_anywhere_changes_no_name(
    tmp_path: Path, image: RandomImage, old: bytes, form: str, streamed: bool
) -> None:
    """Documents come last here, so that whatever is missing is needed; a cut in padding alone loses nothing."""
    members = members_of(form, image)
    last = {"index.json", "oci-layout", "manifest.json", "repositories"}
    members = dict(sorted(members.items(), key=lambda item: item[0] in last))
    archive = tar_of(members)
    shelf = Shelf(tmp_path / "store")
    shelf.load(old, streamed=False)
    for cut in sorted(set(cuts(members))):
        error = refused(shelf, archive[:cut], streamed=streamed) if cut < needed(members) else None
        assert error is None or isinstance(error, Corrupt | NotFound | InvalidInput), (cut, error)
    shelf.load(archive, streamed=streamed)
    assert shelf.names() == [OLD]
    assert shelf.image_id(OLD) == image.manifest.config.digest


def needed(members: Mapping[str, bytes]) -> int:
    """Bytes of the archive up to the last member that an image needs: behind it are those that nothing asks for."""
    names = list(members)
    while names[-1].rpartition("/")[2] in ("repositories", "oci-layout", "json", "VERSION"):
        names.pop()
    return sum(map(len, pieces_of({name: members[name] for name in names})))


@FORMS
def test_a_cut_behind_documents_that_come_first_is_seen_too(
    tmp_path: Path, image: RandomImage, form: str, streamed: bool
) -> None:
    members = dict(reversed(members_of(form, image).items()))
    shelf, archive = Shelf(tmp_path / "store"), tar_of(members)
    for cut in sorted(each for each in set(cuts(members)) if each < needed(members)):
        refused(shelf, archive[:cut], streamed=streamed)
    assert shelf.names() == []


def test_a_compressed_archive_that_is_cut_anywhere_changes_no_name(tmp_path: Path, image: RandomImage) -> None:
    archive = gzip.compress(tar_of(members_of("Docker's", image)))
    shelf = Shelf(tmp_path / "store")
    for cut in range(1, len(archive) - 1, max(1, len(archive) // 60)):
        refused(shelf, archive[:cut], streamed=True)
    shelf.load(archive, streamed=True)
    assert shelf.names() == [OLD]


def test_what_a_cut_took_from_an_index_is_no_platform_that_was_left_out(tmp_path: Path, streamed: bool) -> None:
    """Half an index is the common case in a whole archive, and a lie in one that was cut."""
    layout = Layout(tmp_path / "layout")
    names = (Platform.host().architecture, "riscv64")
    images = [
        random_image(layout.folder, seed=seed, platform=Platform(os="linux", architecture=name))
        for seed, name in enumerate(names)
    ]
    pairs = zip(images, names, strict=True)
    index = encode_index(
        tuple(replace(each.descriptor, platform=Platform(os="linux", architecture=name)) for each, name in pairs)
    )
    layout.put(index.raw, media.OCI_INDEX)
    layout.publish(index.descriptor)
    members = layout_members(layout)
    last = {f"blobs/sha256/{each.digest.hex}" for each in (images[1].descriptor, *images[1].manifest.children())}
    members = dict(sorted(members.items(), key=lambda item: item[0] in last))
    without = {name: data for name, data in members.items() if name not in last}
    shelf = Shelf(tmp_path / "store")
    at = sum(map(len, pieces_of(without)))
    error = refused(shelf, tar_of(members)[:at], streamed=streamed)
    assert (type(error), error.code) == (Corrupt, "archive-truncated")
    shelf.load(tar_of(without), streamed=streamed)
    assert shelf.names() == [OLD]


# ---- damaged


@FORMS
def test_a_byte_that_is_wrong_in_any_blob_changes_no_name(
    tmp_path: Path, image: RandomImage, old: bytes, form: str, streamed: bool
) -> None:
    """Each in a store of its own: what is here already is not read again, and is right."""
    members = members_of(form, image)
    documents = {"index.json", "oci-layout", "manifest.json", "repositories"}
    blobs = [name for name in members if name not in documents and not name.endswith(("/json", "/VERSION"))]
    for number, (name, share) in enumerate((name, share) for name in blobs for share in (0, 0.5, 1)):
        data = members[name]
        place = int((len(data) - 1) * share)
        damaged = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        shelf = Shelf(tmp_path / f"store{number}")
        shelf.load(old, streamed=False)
        error = refused(shelf, tar_of({**members, name: damaged}), streamed=streamed)
        assert isinstance(error, Corrupt | Unsupported), (name, place, error)
        shelf.load(tar_of(members), streamed=streamed)
        assert shelf.image_id(OLD) == image.manifest.config.digest


@FORMS
def test_a_member_that_is_missing_is_named(tmp_path: Path, image: RandomImage, form: str, streamed: bool) -> None:
    members = members_of(form, image)
    shelf = Shelf(tmp_path / "store")
    for name in members:
        if name in ("oci-layout", "repositories") or name.endswith(("/json", "/VERSION")):
            continue
        error = refused(shelf, tar_of({key: value for key, value in members.items() if key != name}), streamed=streamed)
        assert isinstance(error, NotFound | InvalidInput), (name, error)
        told = f"{error.message} {error.context}"
        assert name.rpartition("/")[2].removesuffix(".json") in told or error.code == "not-an-image-archive", told
    shelf.load(tar_of(members), streamed=streamed)


def test_layers_that_are_not_what_the_config_promises_are_refused_though_a_snapshot_is_there(
    tmp_path: Path, image: RandomImage, streamed: bool
) -> None:
    """The true layer was unpacked before: its snapshot must not vouch for another blob."""
    shelf = Shelf(tmp_path / "store")
    shelf.load(tar_of(layout_members(image.layout)), streamed=False)
    members = docker_members(image, "liar:1", compressed=True)
    members[f"{0:064x}/layer.tar"] = gzip.compress(b"x" * 2000)
    error = refused(shelf, tar_of(members), streamed=streamed)
    assert (type(error), error.code) == (Corrupt, "digest-mismatch")
    assert shelf.names() == [OLD]


# ---- made to do harm


def config_of(*tars: bytes) -> bytes:
    return config_json(tars, Platform.host())


LAYER = tar_of({"file": b"content"})
DOCKER = {
    "layer.tar": LAYER,
    "config.json": config_of(LAYER),
    "manifest.json": docker_document("config.json", ["layer.tar"], (OLD,)),
}


MANY = tuple(f"box:{number}" for number in range(100_000))


def document_naming(config: str, *layers: str) -> bytes:
    return tar_of({**DOCKER, "manifest.json": docker_document(config, list(layers), (OLD,))})


def big_header(name: bytes, size: int) -> bytes:
    return header(name, b"0", size=size)


HOSTILE: dict[str, tuple[bytes, type[Error], str]] = {
    "a config above the archive": (document_naming("../../etc/passwd", "layer.tar"), Corrupt, "archive-path-escapes"),
    "a layer above the archive": (document_naming("config.json", "../layer.tar"), Corrupt, "archive-path-escapes"),
    "an absolute layer": (document_naming("config.json", "/etc/passwd"), NotFound, "archive-member-missing"),
    "a name with a NUL": (document_naming("config.json", "layer.tar\0x"), Corrupt, "archive-name-invalid"),
    "a layer that is not there": (document_naming("config.json", "nothing.tar"), NotFound, "archive-member-missing"),
    "a layer that is a folder": (
        folder(b"d/") + document_naming("config.json", "d"),
        NotFound,
        "archive-member-missing",
    ),
    "a layer that is a device": (
        header(b"null", b"3", major=1, minor=3) + document_naming("config.json", "null"),
        NotFound,
        "archive-member-missing",
    ),
    "a layer that is a fifo": (
        header(b"pipe", b"6") + document_naming("config.json", "pipe"),
        NotFound,
        "archive-member-missing",
    ),
    "more layers than the config has": (
        document_naming("config.json", "layer.tar", "layer.tar"),
        Corrupt,
        "layers-mismatch",
    ),
    "a link to a file of ours": (
        with_links(
            {**DOCKER, "manifest.json": docker_document("config.json", ["link"], (OLD,))}, {"link": "/etc/passwd"}
        ),
        Corrupt,
        "archive-path-escapes",
    ),
    "a link that climbs out": (
        with_links(
            {**DOCKER, "manifest.json": docker_document("config.json", ["link"], (OLD,))}, {"link": "../layer.tar"}
        ),
        Corrupt,
        "archive-path-escapes",
    ),
    "links in a circle": (
        with_links({**DOCKER, "manifest.json": docker_document("config.json", ["a"], (OLD,))}, {"a": "b", "b": "a"}),
        Corrupt,
        "archive-link-loop",
    ),
    "a hard link to a file of ours": (
        hardlink(b"link", b"/etc/passwd") + document_naming("config.json", "link"),
        NotFound,
        "archive-member-missing",
    ),
    "a member above the archive": (file(b"../out", b"x") + tar_of(DOCKER), Corrupt, "archive-path-escapes"),
    "two documents": (
        file(b"manifest.json", b"[]") + tar_of(DOCKER),
        Corrupt,
        "archive-duplicate",
    ),
    "a layer that is no archive": (
        tar_of({**DOCKER, "layer.tar": b"x" * 600, "config.json": config_of(b"x" * 600)}),
        Corrupt,
        "archive-damaged",
    ),
    "a layer with a path that escapes": (
        tar_of(
            {
                **DOCKER,
                "layer.tar": file(b"../../out", b"x") + END,
                "config.json": config_of(file(b"../../out", b"x") + END),
            }
        ),
        Corrupt,
        "archive-path-escapes",
    ),
    "a layer in bzip2": (tar_of({**DOCKER, "layer.tar": b"BZh91AY" + bytes(600)}), Unsupported, "layer-compression"),
    "a config that is none": (tar_of({**DOCKER, "config.json": b"[1]"}), Corrupt, "config-invalid"),
    "a config of nested lists": (tar_of({**DOCKER, "config.json": b"[" * 200_000}), Corrupt, "config-invalid"),
    "a document of nested lists": (tar_of({"manifest.json": b"[" * 200_000}), Corrupt, "manifest-invalid"),
    "a million names": (
        tar_of(
            {**DOCKER, "manifest.json": docker_document("config.json", ["layer.tar"], tuple(map(str, range(10**5))))}
        ),
        Corrupt,
        "archive-limit",
    ),
    "a document too large": (
        tar_of({**DOCKER, "manifest.json": b" " * (1 << 24) + b"[]"}),
        Corrupt,
        "archive-document-too-large",
    ),
    "a blob with a name that is no digest": (
        tar_of({"blobs/sha256/abc": b"x", **DOCKER}),
        Corrupt,
        "digest-invalid",
    ),
    "a blob that is another one": (
        tar_of({f"blobs/sha256/{Digest.of(b'a').hex}": b"b", **DOCKER}),
        Corrupt,
        "digest-mismatch",
    ),
    "an index of itself": (
        tar_of({"index.json": b'{"schemaVersion":2,"manifests":[{"mediaType":"x","digest":"sha256:00","size":1}]}'}),
        Corrupt,
        "manifest-invalid",
    ),
    "an image and an index in one": (
        tar_of({"manifest.json": b'{"schemaVersion":2,"config":{},"layers":[],"manifests":[]}'}),
        Corrupt,
        "manifest-ambiguous",
    ),
    "another layout's version": (
        tar_of({"index.json": b'{"schemaVersion":2,"manifests":[]}', "oci-layout": b'{"imageLayoutVersion":"9"}'}),
        Unsupported,
        "layout-version",
    ),
}
#: What only a stream looks at: in a file nothing asks for these members.
ONLY_STREAMED = {"a blob with a name that is no digest", "a blob that is another one"}


@pytest.mark.parametrize(
    ("what", "streamed"),
    [(what, True) for what in HOSTILE] + [(what, False) for what in HOSTILE if what not in ONLY_STREAMED],
)
def test_what_is_made_to_do_harm_is_refused(tmp_path: Path, old: bytes, what: str, streamed: bool) -> None:
    archive, kind, code = HOSTILE[what]
    shelf = Shelf(tmp_path / "store")
    shelf.load(old, streamed=False)
    error = refused(shelf, archive, streamed=streamed)
    assert (type(error), error.code) == (kind, code)
    shelf.load(tar_of(DOCKER), streamed=streamed)
    assert shelf.names() == [OLD]


def test_members_that_no_image_needs_do_no_harm(tmp_path: Path, streamed: bool) -> None:
    """Devices, links out of the archive, and names that are odd are passed over, and nothing is made of them."""
    odd = (
        header(b"dev/null", b"3", major=1, minor=3)
        + header(b"dev/sda", b"4", major=8)
        + header(b"pipe", b"6")
        + symlink(b"etc", b"/etc")
        + file(b"etc/passwd", b"gone")
        + hardlink(b"hard", b"/etc/passwd")
        + file(b"\xff\xfe", b"not UTF-8")
        + file(b"x" * 90 + b"/" * 3 + b"y", b"slashes")
    )
    shelf = Shelf(tmp_path / "store")
    shelf.load(odd + tar_of(DOCKER), streamed=streamed)
    assert shelf.names() == [OLD]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["store"]


def test_equal_blobs_may_come_twice(tmp_path: Path, image: RandomImage, streamed: bool) -> None:
    members = layout_members(image.layout)
    twice = b"".join(pieces_of({name: data for name, data in members.items() if name.startswith("blobs/")}))
    shelf = Shelf(tmp_path / "store")
    shelf.load(twice + tar_of(members), streamed=streamed)
    assert whole(shelf, image)


def test_a_million_members_are_refused_soon(tmp_path: Path) -> None:
    many = b"".join(file(b"%d" % number) for number in range(140_000))
    error = refused(Shelf(tmp_path / "store"), many + END, streamed=True)
    assert (type(error), error.code) == (Corrupt, "archive-limit")


def test_indexes_that_name_each_other_a_thousand_times_are_soon_done_with(tmp_path: Path, image: RandomImage) -> None:
    """Each level names the next one a thousand times: 10^9 images, if each were looked at."""
    layout, top = image.layout, image.descriptor
    for _ in range(3):
        index = encode_index((top,) * 1000)
        top = layout.put(index.raw, media.OCI_INDEX)
    layout.publish(top)
    shelf = Shelf(tmp_path / "store")
    shelf.load(tar_of(layout_members(layout)), streamed=True)
    assert shelf.image_id(OLD) == image.manifest.config.digest


def test_indexes_too_deep_are_refused(tmp_path: Path, image: RandomImage) -> None:
    layout, top = image.layout, image.descriptor
    for _ in range(7):
        top = layout.put(encode_index((top,)).raw, media.OCI_INDEX)
    layout.publish(top)
    error = refused(Shelf(tmp_path / "store"), tar_of(layout_members(layout)), streamed=False)
    assert (type(error), error.code) == (Corrupt, "index-too-deep")


@pytest.mark.parametrize("name", ["blobs/sha256/" + Digest.of(b"a").hex, "layer.tar"])
def test_a_member_that_promises_more_than_there_is_costs_nothing(tmp_path: Path, name: str, streamed: bool) -> None:
    """An exabyte by its header: the disk is asked first, and what is read ends soon."""
    archive = big_header(name.encode(), 1 << 60) + b"x" * 5000
    error = refused(Shelf(tmp_path / "store"), archive, streamed=streamed)
    assert isinstance(error, Corrupt | Exhausted)


def test_a_sparse_member_is_not_written_out(tmp_path: Path, streamed: bool) -> None:
    """Eight gigabytes of holes for half a kilobyte."""
    no_extents = bytes(41 + 24 * 4 + 1)
    sparse = header(b"layer.tar", b"S", tail=no_extents + b"%011o\0" % (8**11 - 1))
    error = refused(Shelf(tmp_path / "store"), sparse + tar_of(DOCKER), streamed=streamed)
    assert (type(error), error.code) == (Corrupt, "archive-sparse")


def test_a_bomb_costs_disk_up_to_its_end_and_leaves_nothing(tmp_path: Path) -> None:
    """64 MB of zeros in 64 kB, under the name of another blob."""
    size = 1 << 26
    member = big_header(b"blobs/sha256/" + Digest.of(b"a").hex.encode(), size) + bytes(size)
    archive = gzip.compress(member + tar_of(DOCKER), 6)
    shelf = Shelf(tmp_path / "store")
    error = refused(shelf, archive, streamed=True)
    assert (type(error), error.code) == (Corrupt, "digest-mismatch")
    assert sum(path.stat().st_size for path in shelf.root.rglob("*") if path.is_file()) < 100_000


# ---- disks and processes


@pytest.mark.parametrize("size", [200_000, 700_000, 1_300_000])
def test_a_full_disk_is_one_error_and_no_name(tmp_path: Path, size: int, streamed: bool) -> None:
    archive = tar_of(docker_members(random_image(tmp_path / "image", size=800_000, layers=1), OLD))
    small = tar_of(docker_members(random_image(tmp_path / "small", size=1000, layers=1, seed=2), "small:1"))

    def inside() -> tuple[str, list[str]]:
        mounts.private_namespace()
        root = tmp_path / "disk"
        root.mkdir()
        mounts.Tmpfs(target=str(root), size=size).execute()
        shelf = Shelf(root / "store")
        (tmp_path / "archive.tar").write_bytes(archive)
        with pytest.raises(Exhausted) as caught:
            load_from(shelf, archive, tmp_path, streamed=streamed)
        load_from(shelf, small, tmp_path, streamed=streamed)
        return caught.value.code, shelf.names()

    assert in_child(inside) == ("disk-full", ["small:1"])


def load_from(shelf: Shelf, archive: bytes, outside: Path, *, streamed: bool) -> None:
    """As Shelf.load, with the archive on another disk."""
    from argosy.archives.opening import opened
    from argosy.ops.load import Watch
    from argosy.ops.progress import silent

    if streamed:
        shelf.load(archive, streamed=True)
        return
    (outside / "archive.tar").write_bytes(archive)
    with opened(str(outside / "archive.tar"), blobs=shelf.blobs, observer=Watch(silent)) as files:
        shelf.take(files)


def test_a_load_that_is_killed_leaves_no_lie(tmp_path: Path) -> None:
    """SIGKILL at several moments of a stream; the next load succeeds, and `check` finds nothing."""
    archive = tar_of(docker_members(random_image(tmp_path / "image", size=2_000_000, layers=3), "box:1"))
    here = Program(tmp_path / "store")
    for share in (0.1, 0.5, 0.9, 1.0):
        read_end, write_end = os.pipe()
        with subprocess.Popen(command("load", "-q"), env=environment(here.root), stdin=read_end) as child:
            os.close(read_end)
            with open(write_end, "wb", buffering=0) as pipe:
                pipe.write(archive[: int(len(archive) * share)])
                time.sleep(0.1)
                child.send_signal(signal.SIGKILL)
                child.wait()
        assert "0 damaged" in here("check")
    assert argosy(here.root, "load", "-q", stdin=archive).stdout == b"Loaded image: box:1\n"
    assert "0 damaged" in here("check")


@FORMS
def test_a_power_cut_after_a_load_leaves_no_name_of_a_damaged_image(
    tmp_path: Path, image: RandomImage, old: bytes, form: str, streamed: bool
) -> None:
    """Nothing is waited for, so all that came must be listed; see store/unsettled.py."""
    shelf = Shelf(tmp_path / "store")
    shelf.load(old, streamed=streamed)
    before = shelf.image_id(OLD)
    shelf.load(tar_of(members_of(form, image)), streamed=streamed)
    marks = dict(unsettled.walk(shelf.root))
    listed = [mark for mark in marks.values() if mark is not None]
    assert set(shelf.blobs.walk()) <= {digest for mark in listed for digest in mark.blobs}
    assert set(shelf.snapshotter.walk()) <= {diff_id for mark in listed for diff_id in mark.layers}
    for path, mark in marks.items():
        assert mark is not None
        write_atomic(path, encode(replace(mark, boot="11111111-2222-3333-4444-555555555555")))
    lost = Image(shelf.refs.get(Reference.parse(OLD)).manifest, shelf.blobs).manifest.layers[0]
    os.unlink(shelf.blobs.path(lost.digest))
    settle(blobs=shelf.blobs, refs=shelf.refs, snapshotter=shelf.snapshotter)
    assert shelf.image_id(OLD) == before


def test_two_loads_of_one_archive_at_once_both_succeed(tmp_path: Path, image: RandomImage) -> None:
    path = tmp_path / "a.tar"
    path.write_bytes(tar_of(members_of("layout", image)))
    words = command("load", "-q", "-i", str(path))
    children = [
        subprocess.Popen(words, env=environment(tmp_path / "store"), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        for _ in range(4)
    ]
    said = [child.communicate(timeout=60) for child in children]
    assert said == [(f"Loaded image: {OLD}\n".encode(), b"")] * 4
    assert "0 damaged" in Program(tmp_path / "store")("check")
