"""Which layers images share, in the sizes that `images` shows: those of the uncompressed layers."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

import msgspec

from ..errors import Error
from ..oci.image import Image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from ..oci.digest import Digest
    from ..oci.image import ContentSource
    from ..store.records import Container
    from ..store.refs import RefRecord


class Share(msgspec.Struct, frozen=True, kw_only=True):
    """What of an image others have too; bytes of uncompressed layers."""

    shared: int
    unique: int
    #: containers made from it
    containers: int


def shares(
    refs: Iterable[RefRecord],
    containers: Iterable[Container],
    *,
    source: ContentSource,
    layer_size: Callable[[Digest], int | None],
) -> Mapping[Digest, Share]:
    """{image id: its share}, for every named image that is not damaged. Reads a manifest and a config an image.

    *layer_size* gives None for a layer that is not unpacked; it counts with what the image says of all its layers.
    """
    records = {record.image_id: record for record in refs}
    looked = {image_id: _layers(record, source) for image_id, record in records.items()}
    layers = {image_id: diff_ids for image_id, diff_ids in looked.items() if diff_ids is not None}
    users = Counter(diff_id for diff_ids in layers.values() for diff_id in diff_ids)
    used = Counter(container.image_id for container in containers)
    sizes = {diff_id: layer_size(diff_id) or 0 for diff_id, count in users.items() if count > 1}
    found = {}
    for image_id, diff_ids in layers.items():
        shared = sum(sizes.get(diff_id, 0) for diff_id in diff_ids)
        unique = max(records[image_id].size - shared, 0)
        found[image_id] = Share(shared=shared, unique=unique, containers=used[image_id])
    return found


def _layers(record: RefRecord, source: ContentSource) -> frozenset[Digest] | None:
    try:
        return frozenset(Image(record.manifest, source).config.diff_ids)
    except Error:  # damaged: what it shares is not known
        return None
