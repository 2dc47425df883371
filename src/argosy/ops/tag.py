"""tag: another name for an image that is here."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.image import Image
from ..store import gc

if TYPE_CHECKING:
    from ..oci.reference import Reference
    from ..store.blobs import BlobStore
    from ..store.refs import RefRecord, RefStore


def tag(source: str, target: Reference, *, refs: RefStore, blobs: BlobStore) -> RefRecord:
    """Make *target* mean the image *source* (a name, an id or the start of one).

    Raises NotFound (tag-unknown), InvalidInput (target with a digest), Unavailable when
    the image is being removed at this moment, NotFound or Corrupt for a damaged image.
    """
    if target.digest is not None:
        raise InvalidInput(
            f"cannot tag as {target.familiar()}",
            code="reference-has-digest",
            context="a name with a digest means the same for ever; a tag is what you give",
            hint=f"argosy tag {source} {target.familiar_name}:TAG",
        )
    record = refs.lookup(source)
    image = Image(record.manifest, blobs)
    needs = (*image.manifest.children(), record.manifest, record.descriptor)
    return gc.publish(target, record.descriptor, summary=record.summary, needs=needs, blobs=blobs, refs=refs)
