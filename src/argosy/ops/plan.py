"""What a pull would do: which layers would move, from where, how long that takes, and whether there is room."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Error
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.image import read_manifest
from ..oci.manifest import Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store.speeds import Speed
from .fit import Judgement

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..remote.repository import Repository
    from ..store.blobs import BlobStore
    from ..store.refs import RefStore
    from ..store.speeds import Speeds
    from .fit import Fit
    from .pull import Found


class PlannedLayer(msgspec.Struct, frozen=True, kw_only=True):
    """One layer of the image, or (without a diff-id) a blob of another platform."""

    digest: Digest
    size: int
    to_fetch: int
    #: of its uncompressed tar, where that is still to be made
    unpacked: int = 0
    #: other images here that have it
    shared_with: tuple[str, ...] = ()

    @property
    def state(self) -> Literal["here", "shared", "begun", "missing"]:
        if self.to_fetch:
            return "missing" if self.to_fetch == self.size else "begun"
        return "shared" if self.shared_with else "here"


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """The answer to --dry-run."""

    reference: Reference
    descriptor: Descriptor
    platform: Platform
    layers: tuple[PlannedLayer, ...]
    #: host[:port] that would be asked
    source: str
    #: of earlier pulls from there
    speed: Speed | None
    judgement: Judgement

    @property
    def seconds(self) -> float | None:
        """What the transfer would take; None when no speed is known."""
        return None if self.speed is None else self.judgement.needs.to_fetch / self.speed.bytes_per_s

    @property
    def free_after(self) -> int | None:
        room, needs = self.judgement.room, self.judgement.needs
        return None if room.free is None else max(room.free - needs.size, 0)


def make_plan(
    reference: Reference,
    found: Found,
    *,
    repository: Repository,
    blobs: BlobStore,
    refs: RefStore,
    fit: Fit,
    speeds: Speeds,
) -> Plan:
    """What a pull of *found* would do now. Writes nothing; may ask for the ends of blobs."""
    judgement = fit.judge(reference.familiar(), found, repository.tail)
    source = repository.source.partition("/")[0]
    names = _names_by_layer(refs, blobs, reference)
    layers = [
        PlannedLayer(
            digest=need.descriptor.digest,
            size=need.descriptor.size,
            to_fetch=need.to_fetch,
            unpacked=need.unpacked,
            shared_with=names.get(need.descriptor.digest, ()),
        )
        for need in judgement.needs.layers
    ]
    layers += [PlannedLayer(digest=blob.digest, size=blob.size, to_fetch=blob.size) for blob in judgement.needs.rest]
    return Plan(
        reference=reference,
        descriptor=found.documents[0].descriptor,
        platform=found.config.platform,
        layers=tuple(layers),
        source=source,
        speed=speeds.find(source),
        judgement=judgement,
    )


def _names_by_layer(refs: RefStore, blobs: BlobStore, own: Reference) -> Mapping[Digest, tuple[str, ...]]:
    """{layer: images here that have it, sorted}; one small file is read for each image."""
    images: dict[Descriptor, list[str]] = {}
    for record in refs.list():
        if record.reference != own:
            name = record.image_id.short if record.is_untagged else record.reference.familiar()
            images.setdefault(record.manifest, []).append(name)
    found: dict[Digest, list[str]] = {}
    for manifest, names in images.items():
        for digest in _layers_of(manifest, blobs):
            found.setdefault(digest, []).extend(names)
    return {digest: tuple(sorted(names)) for digest, names in found.items()}


def _layers_of(manifest: Descriptor, blobs: BlobStore) -> set[Digest]:
    try:
        document = read_manifest(manifest, blobs)
    except Error:  # check's business
        return set()
    return {layer.digest for layer in document.layers} if isinstance(document, Manifest) else set()
