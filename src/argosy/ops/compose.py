"""A config and layers that were made here become an image with a name: the last steps of commit and import."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..oci.descriptor import OCI_MANIFEST
from ..oci.image import Image
from ..oci.manifest import encode_manifest
from ..store import gc
from ..store.refs import Summary, untagged
from .progress import silent
from .unpack import ensure_layers

if TYPE_CHECKING:
    from ..oci.config import ImageConfig
    from ..oci.descriptor import Descriptor
    from ..oci.reference import Reference
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.refs import RefStore
    from .progress import Progress


def compose(
    config: ImageConfig,
    layers: tuple[Descriptor, ...],
    reference: Reference | None,
    *,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    progress: Progress = silent,
) -> Image:
    """Make the manifest of *config* and *layers*, which are in *blobs*, unpack and name it; gives the image.

    Without a *reference* it is listed as <none>. The name is set last.
    """
    described = blobs.put(config.raw, config.descriptor.media_type)
    manifest = encode_manifest(described, layers)
    image = Image(blobs.put(manifest.raw, OCI_MANIFEST), blobs)
    ensure_layers(image, snapshotter=snapshotter, blobs=blobs, progress=progress)
    size = sum(snapshotter.usage(diff_id) for diff_id in config.diff_ids)
    summary = Summary(manifest=image.descriptor, image_id=image.id, created=config.created, size=size)
    name, needs = reference or untagged(image.descriptor.digest), (*manifest.children(), image.descriptor)
    gc.publish(name, image.descriptor, summary=summary, needs=needs, blobs=blobs, refs=refs)
    return image
