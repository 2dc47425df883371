"""commit: a container's writable layer becomes a new image on top of its own.

The layer comes from the overlay's upper folder alone, so the cost follows what
changed, not what the image holds. What a launch added (driver files, mount points)
is in the generated layer below and never gets here.
"""

from __future__ import annotations

import errno
import os
from functools import partial
from typing import TYPE_CHECKING

from ..layer import diff
from ..layer.sink import LayerSink
from ..layer.writer import ArchiveWriter
from ..linux import paths
from ..oci.config import History
from ..oci.descriptor import OCI_LAYER_GZIP, Descriptor
from ..oci.image import Image
from .compose import compose
from .execution import execution_of
from .instructions import changed
from .rootfs import files_at_rest, image_view, workspace
from .unpack import ensure_layers

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..layer.sink import LayerDigests
    from ..oci.config import ImageConfig
    from ..oci.reference import Reference
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import Container
    from ..store.refs import RefStore


def commit(
    container: Container,
    reference: Reference | None,
    *,
    folder: str,
    upper: str,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    created: str,
    author: str = "",
    message: str = "",
    changes: Iterable[str] = (),
    rootless: bool = False,
) -> Image:
    """Make an image of *container* (its record, folder and writable layer) and name it *reference*; gives the image.

    Without a reference the image is listed as <none>. A container that changed
    nothing gives an image with the same layers and one more step of history.
    *created* is RFC 3339; *changes* are instructions of a Dockerfile. The reference is
    set last. The process is in a private mount namespace, in which the image is looked at.

    Raises InvalidInput (change-invalid), NotFound when the container's own image has lost blobs, Exhausted.
    """
    base = Image(container.manifest, blobs)
    config = changed(base.config.with_(execution=execution_of(container, base.config)), changes)
    ensure_layers(base, snapshotter=snapshotter, blobs=blobs)
    with (
        workspace(folder) as place,
        image_view(snapshotter, base.config.diff_ids, place, userxattr=rootless) as (image_fd, _),
    ):
        layer = _write_layer(upper, blobs, partial(_has_folder, image_fd))
    config = _with_step(config, container, layer[1] if layer else None, created, author, message)
    below = tuple(each.in_oci_terms for each in base.manifest.layers)
    layers = below if layer is None else (*below, layer[0])
    return compose(config, layers, reference, blobs=blobs, refs=refs, snapshotter=snapshotter)


def _has_folder(image_fd: int, path: bytes) -> bool:
    """Whether the image has a folder of exactly that name: what a new folder must then hide."""
    try:
        os.close(paths.open_beneath_nofollow(image_fd, os.fsdecode(path), os.O_PATH | os.O_DIRECTORY))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # absent, a file, or behind a link
            return False
        raise
    return True


def _write_layer(
    upper: str, blobs: BlobStore, lower_has: Callable[[bytes], bool]
) -> tuple[Descriptor, LayerDigests] | None:
    """The upper folder as a compressed layer in the store; None when it holds no change."""
    upper_fd = paths.open_root(upper)
    try:
        with files_at_rest():
            changes = list(diff.upper_entries(upper_fd, lower_has=lower_has))
            if not changes:
                return None
            with blobs.ingest() as ingest:
                sink = LayerSink(ingest)
                with ArchiveWriter(sink) as archive:
                    diff.write_entries(archive, changes)
                digests = sink.close()
                return ingest.commit(media_type=OCI_LAYER_GZIP), digests
    finally:
        os.close(upper_fd)


def _with_step(
    config: ImageConfig, container: Container, layer: LayerDigests | None, created: str, author: str, message: str
) -> ImageConfig:
    """One more step of history, and one more layer unless nothing has changed."""
    step = History(
        created=created,
        created_by=" ".join(container.command),
        author=author,
        comment=message,
        empty_layer=layer is None,
    )
    return config.with_(
        diff_ids=config.diff_ids if layer is None else (*config.diff_ids, layer.diff_id),
        history=(*config.history, step),
        created=created,
        author=author or None,
    )
