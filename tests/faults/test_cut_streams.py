"""Streams that end too early, at every byte or every boundary: always an error, never a layer, an image or a name."""

from __future__ import annotations

import gzip
import io
import itertools
import os
from typing import TYPE_CHECKING, cast

import pytest
from msgspec.structs import replace

from argosy.errors import Corrupt, Error
from argosy.layer.archive import entries
from argosy.layer.compression import decompressed
from argosy.oci.digest import Digest
from support import flaky as faults
from support.archives import archive, file, folder, hardlink, pax, symlink
from support.flaky import flaky
from support.hostile import assert_one_error, say
from support.images import compress, random_image
from support.layers import snapshotter_of
from support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from support.registry import RunningRegistry
    from support.web import Reply, Seen

TAR = archive(
    folder(b"d"),
    pax((b"path", b"d/" + b"n" * 90), (b"mtime", b"1.5")),
    file(b"d/n", b"x" * 700),
    symlink(b"s", b"t"),
    hardlink(b"h", b"d/" + b"n" * 90),
    file(b"e", b"y" * 512),
)
FORMS = {
    "gzip": compress(TAR, "gzip"),
    "gzip in members": gzip.compress(TAR[:1000], mtime=0) + gzip.compress(TAR[1000:], mtime=0),
    "zstd": compress(TAR, "zstd"),
}


def boundaries(tar: bytes) -> list[int]:
    """Where headers, data and padding begin and end, and the bytes beside these places."""
    reader = entries(io.BytesIO(tar))
    edges = {edge for entry in reader for edge in (entry.offset, entry.offset + entry.stored, reader.position)}
    edges |= set(range(0, len(tar), 512))
    return sorted({place for edge in edges for place in (edge - 1, edge, edge + 1) if 0 <= place < len(tar)})


@pytest.mark.parametrize("form", FORMS)
def test_a_compressed_stream_that_is_cut_at_any_byte_is_corrupt(form: str) -> None:
    whole = FORMS[form]
    for end in range(1, len(whole)):
        if form == "gzip in members" and end == len(gzip.compress(TAR[:1000], mtime=0)):
            continue  # a whole member: the tar inside is what is cut, see below
        with pytest.raises(Corrupt) as caught:
            read_whole(cast("BinaryIO", io.BytesIO(whole[:end])))
        assert caught.value.code.startswith(("compression-", "archive-")), end


def read_whole(stream: BinaryIO) -> None:
    inner = decompressed(stream)
    found = list(entries(inner))
    assert found
    while inner.read(1 << 16):
        pass


@pytest.mark.parametrize("kind", ["erofs", "unpacked"])
def test_a_layer_that_is_cut_anywhere_leaves_no_layer(tmp_path: Path, kind: str) -> None:
    snapshotter = snapshotter_of(kind, tmp_path)
    for end in boundaries(TAR):
        with pytest.raises(Corrupt):
            snapshotter.apply(Digest.of(TAR), io.BytesIO(TAR[:end]))
        assert not snapshotter.has(Digest.of(TAR))
        assert os.listdir(tmp_path / "tmp") == [], end
    snapshotter.apply(Digest.of(TAR), io.BytesIO(TAR))
    snapshotter.verify(Digest.of(TAR))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("cut") / "registry", expected_stderr=None) as running:
        yield running


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.parametrize("says_length", [True, False])
def test_an_answer_that_is_cut_names_nothing(
    registry: RunningRegistry, tmp_path: Path, says_length: bool, pytestconfig: pytest.Config
) -> None:
    """Manifest, config and layers in turn, at their first and last bytes and between; then all is well again."""
    image = random_image(tmp_path / "image", layers=1, size=3000)
    registry.push(image, "cut/app", "1")
    parts = [
        ("manifests/1", image.descriptor.size),
        *((f"blobs/{c.digest}", c.size) for c in image.manifest.children()),
    ]
    places = (0, 0.5, 0.999) if pytestconfig.getoption("--whole") else (0.5,)
    with flaky(registry.address) as proxy:
        name = f"{proxy.address}/cut/app:1"
        for number, ((path, size), part) in enumerate(itertools.product(parts, places)):
            root, at = tmp_path / f"store-{number}", int(size * part)

            def cut(seen: Seen, reply: Reply, path: str = path, at: int = at) -> Reply:
                if not seen.path.endswith(path):
                    return reply
                return replace(reply, cut=at) if says_length else replace(reply, body=reply.body[:at], length=-1)

            proxy.fault = cut
            said = say(root, "pull", "-q", name)
            if said.status:
                assert_one_error(said, 1, said.code)
                assert say(root, "images", "-aq").output == ""
            else:  # taken up where it broke, again and again
                assert path.startswith("blobs/")
            assert say(root, "check").status == 0
            proxy.fault = faults.none
            assert say(root, "pull", "-q", name)[:2] == (0, f"{name}\n"), (path, at)
            assert say(root, "check").status == 0


def test_the_boundaries_are_those_of_the_archive() -> None:
    """Else the loops above would look at fewer places than they say."""
    assert len(boundaries(TAR)) > 30
    with pytest.raises(Error):
        read_whole(cast("BinaryIO", io.BytesIO(TAR[:-1500])))
