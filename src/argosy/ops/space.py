"""What a store holds and what each thing takes on the disk: one look, from which df and prune reckon.

Sizes are allocated bytes. Nothing is changed by looking, except that the sizes of
unpacked layers are remembered.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt
from ..linux import room
from ..oci.digest import Digest
from ..store import gc, uses
from ..store.gc import Reached
from ..store.records import Container
from ..store.refs import RefRecord, file_name
from .selection import seconds

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import ContainerStore
    from ..store.refs import RefStore

_NOTHING = Reached(blobs=frozenset(), diff_ids=frozenset())


class Piece(msgspec.Struct, frozen=True, kw_only=True):
    """A blob or a layer on the disk."""

    #: bytes
    size: int
    #: when it was last written or claimed, by the file system's clock
    touched_ns: int


class Held(msgspec.Struct, frozen=True, kw_only=True):
    """An image that a name or a container keeps."""

    image_id: Digest
    #: none when only containers keep it
    names: tuple[RefRecord, ...]
    #: ids of those made from it
    containers: tuple[str, ...]
    #: all that it is made of; None when it is damaged, for that is not known then
    reached: Reached | None
    #: seconds since the epoch; when it was last run, tagged or pulled
    last_used: float
    #: bytes on the disk of its names' records
    size: int

    @property
    def is_dangling(self) -> bool:
        """Whether no name is left that a person would type."""
        return all(record.is_untagged for record in self.names)

    @property
    def title(self) -> str:
        """For people: its names, or its id."""
        names = [record.reference.familiar() for record in self.names if not record.is_untagged]
        return ", ".join(names) or f"<none> ({self.image_id.short})"

    @property
    def needs(self) -> Reached:
        return self.reached or _NOTHING


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """The images, containers, blobs and layers of a store at one moment."""

    images: tuple[Held, ...]
    containers: tuple[Container, ...]
    #: {blob: what it takes}; a dropped one stands here with its record
    blobs: Mapping[Digest, Piece]
    layers: Mapping[Digest, Piece]
    #: what was last touched before this moment is nobody's work, see gc.py
    before_ns: int

    @property
    def damaged(self) -> tuple[Held, ...]:
        return tuple(image for image in self.images if image.reached is None)

    def size_of(self, reached: Reached) -> int:
        """Bytes on the disk of what is here of *reached*."""
        blobs = sum(self.blobs[digest].size for digest in reached.blobs if digest in self.blobs)
        return blobs + sum(self.layers[diff_id].size for diff_id in reached.diff_ids if diff_id in self.layers)

    def unneeded(self, keep: Reached) -> Reached:
        """What is here and neither in *keep* nor anybody's work."""
        return Reached(
            blobs=_idle(self.blobs, keep.blobs, self.before_ns),
            diff_ids=_idle(self.layers, keep.diff_ids, self.before_ns),
        )


class Ledger:
    """How many images need each blob and layer, so that giving one up tells what that frees."""

    def __init__(self, inventory: Inventory) -> None:
        self._inventory = inventory
        self._blobs = Counter(digest for image in inventory.images for digest in image.needs.blobs)
        self._layers = Counter(diff_id for image in inventory.images for diff_id in image.needs.diff_ids)

    def alone(self, image: Held) -> Reached:
        """What is here that no other image needs; blobs only that nobody is at work with."""
        needs = image.needs
        return Reached(
            blobs=frozenset(digest for digest in needs.blobs if self._blobs[digest] == 1 and self._may_go(digest)),
            diff_ids=frozenset(
                diff_id
                for diff_id in needs.diff_ids
                if self._layers[diff_id] == 1 and diff_id in self._inventory.layers
            ),
        )

    def give_up(self, image: Held) -> Reached:
        """As alone; and from now on as if the image were not there."""
        freed = self.alone(image)
        self._blobs.subtract(image.needs.blobs)
        self._layers.subtract(image.needs.diff_ids)
        return freed

    def _may_go(self, digest: Digest) -> bool:
        piece = self._inventory.blobs.get(digest)
        return piece is not None and piece.touched_ns < self._inventory.before_ns


def look(*, refs: RefStore, containers: ContainerStore, blobs: BlobStore, snapshotter: Snapshotter) -> Inventory:
    """The whole store; reads every record, manifest and config, and looks at every blob and layer."""
    before_ns = gc.idle_before_ns(blobs)
    records = containers.list()
    return Inventory(
        images=_images(refs, records, blobs),
        containers=records,
        blobs=_blobs(blobs),
        layers={found: _layer(found, snapshotter) for found in snapshotter.walk()},
        before_ns=before_ns,
    )


def needed(refs: RefStore, containers: ContainerStore, blobs: BlobStore) -> Reached:
    """What every name and container of this store needs. Raises Corrupt when a document or a record cannot be read."""
    records = containers.list(strict=True)
    reached = gc.reachable(gc.roots(refs.list(strict=True), records), blobs)
    mounted = frozenset(diff_id for record in records for diff_id in record.diff_ids)
    return Reached(blobs=reached.blobs, diff_ids=reached.diff_ids | mounted)


def together(parts: Iterable[Reached]) -> Reached:
    """All that any of *parts* has."""
    parts = tuple(parts)
    return Reached(
        blobs=frozenset().union(*(part.blobs for part in parts)),
        diff_ids=frozenset().union(*(part.diff_ids for part in parts)),
    )


def _images(refs: RefStore, containers: tuple[Container, ...], blobs: BlobStore) -> tuple[Held, ...]:
    named: dict[Digest, list[RefRecord]] = {}
    for record in refs.list():
        named.setdefault(record.image_id, []).append(record)
    used: dict[Digest, list[Container]] = {}
    for container in containers:
        used.setdefault(container.image_id, []).append(container)
    runs = uses.last(refs.root)
    return tuple(
        _held(image_id, named.get(image_id, []), used.get(image_id, []), runs.get(image_id, 0.0), refs, blobs)
        for image_id in sorted({*named, *used})
    )


def _held(
    image_id: Digest,
    names: list[RefRecord],
    users: list[Container],
    run: float,
    refs: RefStore,
    blobs: BlobStore,
) -> Held:
    try:
        reached: Reached | None = gc.reachable(gc.roots(names, users), blobs)
    except Corrupt:
        reached = None
    if reached is not None:
        mounted = frozenset(diff_id for container in users for diff_id in container.diff_ids)
        reached = Reached(blobs=reached.blobs, diff_ids=reached.diff_ids | mounted)
    files = [os.path.join(refs.root, "refs", file_name(record.reference)) for record in names]
    return Held(
        image_id=image_id,
        names=tuple(names),
        containers=tuple(container.id for container in users),
        reached=reached,
        last_used=max((run, *(seconds(record.updated) or 0.0 for record in names))),
        size=sum(map(room.of_file, files)),
    )


def _blobs(blobs: BlobStore) -> dict[Digest, Piece]:
    found = {}
    for digest in {*blobs.walk(), *blobs.dropped.walk()}:
        size = touched_ns = 0
        for path in (blobs.path(digest), blobs.dropped.path(digest)):
            try:
                status = os.lstat(path)
            except FileNotFoundError:
                continue
            size, touched_ns = size + room.of(status), max(touched_ns, status.st_mtime_ns)
        found[digest] = Piece(size=size, touched_ns=touched_ns)
    return found


def _layer(diff_id: Digest, snapshotter: Snapshotter) -> Piece:
    return Piece(size=snapshotter.room(diff_id), touched_ns=snapshotter.touched_ns(diff_id))


def _idle(pieces: Mapping[Digest, Piece], keep: frozenset[Digest], before_ns: int) -> frozenset[Digest]:
    return frozenset(digest for digest, piece in pieces.items() if digest not in keep and piece.touched_ns < before_ns)
