"""Archives of images made by hand, as other programs write them, and a store to load them into.

Nothing here uses the package's own writer.
"""

from __future__ import annotations

import io
import json
import os
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING

from argosy.archives.opening import opened
from argosy.archives.outer import uncompressed
from argosy.archives.received import Received
from argosy.linux.features import probe
from argosy.oci.reference import Reference
from argosy.ops.load import Watch, load
from argosy.ops.progress import silent
from argosy.snapshots import choose
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore

from .archives import END, file, folder, symlink

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from argosy.archives.files import Files
    from argosy.linux.features import HostFeatures
    from argosy.oci.platform import Platform
    from argosy.ops.load import Loaded
    from argosy.ops.progress import Progress

    from .images import Layout, RandomImage


def tar_of(members: Mapping[str, bytes]) -> bytes:
    """Files in the order given, with their folders before them, as a whole archive."""
    return b"".join(pieces_of(members)) + END


def pieces_of(members: Mapping[str, bytes]) -> list[bytes]:
    """The members of such an archive, header and data of each together."""
    found: list[bytes] = []
    made: set[str] = set()
    for name, data in members.items():
        parts = name.split("/")[:-1]
        for depth in range(1, len(parts) + 1):
            path = "/".join(parts[:depth])
            if path not in made:
                made.add(path)
                found.append(folder(path.encode() + b"/"))
        found.append(file(name.encode(), data))
    return found


def docker_members(image: RandomImage, *names: str, compressed: bool = False) -> dict[str, bytes]:
    """As `docker save` wrote it up to version 24, documents last: a folder a layer, named by no digest."""
    members: dict[str, bytes] = {}
    layers = []
    for number, (tar, layer) in enumerate(zip(image.tars, image.manifest.layers, strict=True)):
        place = f"{number:064x}"
        members[f"{place}/VERSION"] = b"1.0"
        members[f"{place}/json"] = json.dumps({"id": place}).encode()
        members[f"{place}/layer.tar"] = image.layout.read(layer.digest) if compressed else tar
        layers.append(f"{place}/layer.tar")
    config = f"{image.manifest.config.digest.hex}.json"
    members[config] = image.layout.read(image.manifest.config.digest)
    members["manifest.json"] = docker_document(config, layers, names)
    members["repositories"] = json.dumps(
        {name.partition(":")[0]: {name.partition(":")[2]: "0"} for name in names}
    ).encode()
    return members


def docker_document(config: str, layers: list[str], names: tuple[str, ...] = ()) -> bytes:
    return json.dumps([{"Config": config, "RepoTags": list(names) or None, "Layers": layers}]).encode()


def layout_members(layout: Layout) -> dict[str, bytes]:
    """The files of an OCI layout, in the order of their names."""
    paths = sorted(path for path in layout.folder.rglob("*") if path.is_file())
    return {path.relative_to(layout.folder).as_posix(): path.read_bytes() for path in paths}


def with_links(members: Mapping[str, bytes], links: Mapping[str, str]) -> bytes:
    """An archive with symbolic links behind its files."""
    return b"".join(
        (*pieces_of(members), *(symlink(name.encode(), text.encode()) for name, text in links.items()), END)
    )


@cache
def _features() -> HostFeatures:
    return probe(folder="/tmp", path=os.environ["PATH"])


class Shelf:
    """A store in this process, to load into."""

    def __init__(self, root: Path) -> None:
        root.mkdir(parents=True, exist_ok=True)
        self.root = root
        self.blobs, self.refs = BlobStore(root), RefStore(root)
        self.snapshotter = choose(root, _features())

    def load(
        self, archive: bytes, *, streamed: bool, platform: Platform | None = None, progress: Progress = silent
    ) -> tuple[Loaded, ...]:
        """From a file on disk, or as a stream that comes by once."""
        with self._files(archive, streamed=streamed) as files:
            return self.take(files, platform=platform, progress=progress)

    def take(
        self, files: Files, *, platform: Platform | None = None, progress: Progress = silent
    ) -> tuple[Loaded, ...]:
        return load(
            files,
            blobs=self.blobs,
            refs=self.refs,
            snapshotter=self.snapshotter,
            platform=platform,
            progress=progress,
        )

    def names(self) -> list[str]:
        return [record.reference.familiar() for record in self.refs.list() if not record.is_untagged]

    def image_id(self, name: str) -> str:
        return self.refs.get(Reference.parse(name)).image_id

    @contextmanager
    def _files(self, archive: bytes, *, streamed: bool) -> Iterator[Files]:
        if streamed:
            yield Received(uncompressed(io.BytesIO(archive)), self.blobs, Watch(silent))
            return
        path = self.root / "archive-to-load"
        path.write_bytes(archive)
        try:
            with opened(str(path), blobs=self.blobs, observer=Watch(silent)) as files:
                yield files
        finally:
            path.unlink()


def whole(shelf: Shelf, image: RandomImage) -> bool:
    """Whether all blobs of *image* and its unpacked layers are here, each as it was made."""
    for descriptor, raw in image.blobs():
        with shelf.blobs.open(descriptor) as stream:
            assert stream.read() == raw
    return all(shelf.snapshotter.has(diff_id) for diff_id in image.diff_ids)
