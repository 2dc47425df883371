"""export: the files of a container, its image's and its own in one tar."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..layer import diff
from ..layer.archive import entries
from ..layer.compression import decompressed
from ..layer.folder import folder_on_disk
from ..layer.writer import ArchiveWriter
from ..linux import paths
from ..oci.image import Image
from .rootfs import container_view, files_at_rest, workspace
from .unpack import ensure_layers

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..layer.compression import Sink
    from ..layer.diff import Found
    from ..oci.image import ContentSource
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import Container

    #: {path: (uid, gid)}
    Owners = dict[bytes, tuple[int, int]]


def export(
    container: Container,
    out: Sink,
    *,
    folder: str,
    upper: str,
    blobs: BlobStore,
    snapshotter: Snapshotter,
    rootless: bool = False,
    content: ContentSource | None = None,
) -> None:
    """Write the root of *container* (its record, folder and writable layer) into *out* as a tar, ordered by names.

    What a launch brings (driver, mount points, volumes) is not in it. Of a running
    container the files are as they are found; one that grows is cut, one that goes is
    left out. The process is in a private mount namespace. *content* is where blobs are
    read, the store itself by default.

    Raises Conflict (file-changed), NotFound when the image has lost blobs.
    """
    image = Image(container.manifest, blobs)
    ensure_layers(image, snapshotter=snapshotter, blobs=blobs)
    os.makedirs(upper, exist_ok=True)
    owners = _owners_in_layers(image, snapshotter, content or blobs) if rootless else {}
    with (
        files_at_rest(),
        workspace(folder) as place,
        container_view(snapshotter, image.config.diff_ids, upper, place, userxattr=rootless) as root_fd,
        ArchiveWriter(out) as archive,
    ):
        found = diff.tree_entries(root_fd)
        for each in _with_owners(found, owners, upper) if owners else found:
            _write(archive, each)


def _write(archive: ArchiveWriter, found: Found) -> None:
    try:
        data = found.open()
    except FileNotFoundError:  # the container's program has removed it since
        return
    try:
        archive.add(found.entry, _Cut(data, found.entry.size) if data is not None else None)
    finally:
        if data is not None:
            data.close()


class _Cut:
    """A file's first *size* bytes: it may have grown since its header was made."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file = file
        self._left = size

    def read(self, count: int) -> bytes:
        data = self._file.read(min(count, self._left))
        self._left -= len(data)
        return data


def _owners_in_layers(image: Image, snapshotter: Snapshotter, content: ContentSource) -> Owners:
    """Who owns what by the image's own word; nothing where the unpacked layers could keep that.

    A user with one id has unpacked everything as that one. The layers are read for it once more.
    """
    if not any(snapshotter.warnings(layer.diff_id) for layer in image.layers):
        return {}
    owners: Owners = {}
    for layer in image.layers:
        with decompressed(content.open(layer.descriptor)) as tar:
            owners |= {entry.path: (entry.uid, entry.gid) for entry in entries(tar)}
    return owners


def _with_owners(found: Iterator[Found], owners: Owners, upper: str) -> Iterator[Found]:
    """*found* with *owners*, except what the container has made or changed: that belongs to whom it belongs there."""
    upper_fd = paths.open_root(upper)
    try:
        for each in found:
            owner = owners.get(each.entry.path)
            if owner is not None and folder_on_disk(upper_fd, each.entry.path) is False:
                each.entry = msgspec.structs.replace(each.entry, uid=owner[0], gid=owner[1])
            yield each
    finally:
        os.close(upper_fd)
