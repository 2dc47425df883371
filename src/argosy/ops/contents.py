"""Images opened for looking inside: their files can be found and read, and nothing is mounted."""

from __future__ import annotations

from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from ..layer.view import ImageView
from .progress import silent
from .unpack import ensure_layers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..layer.contents import LayerContents
    from ..oci.digest import Digest
    from ..oci.image import Image
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .progress import Progress


@contextmanager
def opened(
    *images: Image, snapshotter: Snapshotter, blobs: BlobStore, progress: Progress = silent
) -> Iterator[tuple[ImageView, ...]]:
    """A view of each image; a layer that several have is one LayerContents. Layers without a snapshot get one.

    Raises NotFound (blob-unknown), Corrupt, Exhausted; see ensure_layers.
    """
    for image in images:
        ensure_layers(image, snapshotter=snapshotter, blobs=blobs, progress=progress)
    with ExitStack() as open_layers:
        contents: dict[Digest, LayerContents] = {}
        for image in images:
            for diff_id in image.config.diff_ids:
                if diff_id not in contents:
                    contents[diff_id] = open_layers.enter_context(snapshotter.contents(diff_id))
        yield tuple(ImageView([contents[diff_id] for diff_id in image.config.diff_ids]) for image in images)


def shown(path: bytes) -> str:
    """A path of an image as text, absolute; bytes that are no UTF-8 as \\xNN."""
    return "/" + path.decode(errors="backslashreplace")
