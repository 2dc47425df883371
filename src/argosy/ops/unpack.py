"""Layers that are here as blobs become snapshots: decompressed and applied, several at once.

For images that came without (loaded, built elsewhere, snapshots deleted); a pull makes
its snapshots while the blobs arrive. A snapshot is a cache of a blob.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import Cancelled, Error, NotFound
from ..layer.compression import decompressed
from ..linux.lifetimes import boot_id
from ..store import unsettled
from ..store.unsettled import Mark
from .parallel import in_processes
from .progress import Finished, Observed, Started, Warned, silent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.digest import Digest
    from ..oci.image import Image, Layer
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .parallel import Check
    from .progress import Progress


def ensure_layers(image: Image, *, snapshotter: Snapshotter, blobs: BlobStore, progress: Progress = silent) -> None:
    """Make sure that every layer of *image* has its snapshot. Idempotent; costs one look a layer when all have.

    Raises NotFound (blob-unknown), Corrupt (digests, archive), Exhausted.
    """
    layers = {layer.diff_id: layer for layer in image.layers if not snapshotter.has(layer.diff_id)}
    if not layers:
        return
    unsettled.begin(blobs.root, Mark(boot=boot_id(), layers=tuple(layers)))

    def work(layer: Layer, check: Check, progress: Progress) -> None:
        ensure_layer(layer, snapshotter=snapshotter, blobs=blobs, progress=progress, check=check)
        progress(Finished(layer.descriptor.digest.short, "Extracted"))

    in_processes(work, largest_first(layers.values()), progress=progress)


def largest_first(layers: Iterable[Layer]) -> list[Layer]:
    """The order in which several at once take the least time."""
    return sorted(layers, key=lambda layer: -layer.descriptor.size)


def ensure_layer(
    layer: Layer,
    *,
    snapshotter: Snapshotter,
    blobs: BlobStore,
    progress: Progress = silent,
    check: Check = lambda: None,
) -> None:
    """As ensure_layers, for one layer; what its snapshot cannot be made of is said with the blob's name."""
    if snapshotter.has(layer.diff_id):
        return
    descriptor = layer.descriptor
    progress(Started(descriptor.digest.short, descriptor.size, "Extracting"))
    with Observed(layer.open(), descriptor.digest.short, progress, check) as blob:
        try:
            snapshotter.apply(layer.diff_id, decompressed(cast("BinaryIO", blob)))
        except Cancelled:
            raise
        except Error as error:
            raise named(error, descriptor.digest) from error
    warn_of(layer, snapshotter=snapshotter, progress=progress)


def warn_of(layer: Layer, *, snapshotter: Snapshotter, progress: Progress) -> None:
    """Tell what could not be kept of a layer."""
    try:
        warnings = snapshotter.warnings(layer.diff_id)
    except NotFound:  # a prune took the layer again before its image had a name; pull makes it anew then
        return
    for text in warnings:
        progress(Warned(text))


def named(error: Error, digest: Digest) -> Error:
    """Which layer it was: the archive's reader and the disk know only their own part."""
    if digest in error.message or digest in error.context:
        return error
    context = f"{error.message}: {error.context}" if error.context else error.message
    kind = type(error)
    return kind(f"layer {digest} cannot be unpacked", code=error.code, context=context, hint=error.hint)
