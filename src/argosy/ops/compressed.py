"""Compressed blobs of layers that are unpacked: which can be given up, and giving them up.

A blob goes only if it can be had again: a registry was asked for it and has it, or
its layer's tar was compressed once more and gave the same bytes. The rest stays.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error, NotFound, Unavailable
from ..layer import recipes
from ..linux import room
from ..oci import wire
from ..oci.digest import Digest
from ..oci.image import Image, Layer
from ..oci.reference import Reference
from ..store.dropped import Dropped
from ..store.gc import Swept
from ..store.makers import now_ns
from .parallel import in_parallel
from .progress import Finished, Started, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from ..remote.repository import Repository
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .parallel import Check
    from .progress import Progress
    from .space import Held, Inventory

    Connect = Callable[[Reference], Repository]


class Spare(msgspec.Struct, frozen=True, kw_only=True):
    """A compressed blob that can go because its layer stays, and how it can be had again."""

    record: Dropped
    #: the images that it belongs to, for people
    title: str
    #: bytes on the disk that giving it up frees
    size: int
    #: when the blob was last written or claimed
    touched_ns: int

    @property
    def digest(self) -> Digest:
        return self.record.descriptor.digest


class Spares(msgspec.Struct, frozen=True, kw_only=True):
    """What could be given up, and what must stay though its layer is unpacked."""

    spares: tuple[Spare, ...] = ()
    #: blobs that nothing would bring back, and their bytes on the disk
    kept: tuple[Digest, ...] = ()
    kept_size: int = 0


def find_spares(
    inventory: Inventory,
    images: Iterable[Held],
    *,
    blobs: BlobStore,
    snapshotter: Snapshotter,
    connect: Connect,
    progress: Progress = silent,
) -> Spares:
    """The blobs of *images* that can be given up. Reads them and their layers, and asks their names' registries."""
    work = _Search(inventory, blobs, snapshotter, connect, progress)
    in_parallel(work.judge, sorted(work.candidates(images), key=lambda each: -each.layer.descriptor.size))
    return Spares(
        spares=tuple(sorted(work.spares, key=lambda spare: (spare.title, spare.digest))),
        kept=tuple(sorted(work.kept)),
        kept_size=sum(inventory.blobs[digest].size for digest in work.kept),
    )


def give_up(spares: Iterable[Spare], *, blobs: BlobStore, snapshotter: Snapshotter) -> Swept:
    """Remove the blobs of *spares* that nobody has touched since, and whose layer is still here.

    Layer and record are durable before the blob goes.
    """
    removed, size, ingest = [], 0, os.path.join(blobs.root, "ingest")
    for spare in spares:
        snapshotter.sync(spare.record.diff_id)
        with blobs.collecting() as lock:
            if not snapshotter.has(spare.record.diff_id) or _touched_ns(blobs, spare.digest) != spare.touched_ns:
                continue
            blobs.dropped.add(msgspec.structs.replace(spare.record, dropped_ns=now_ns(ingest)))
            record = blobs.dropped.path(spare.digest)
            os.utime(record, ns=(spare.touched_ns, spare.touched_ns))  # nobody's work, as the blob was
            lock.require()
            size += blobs.delete(spare.digest) - room.of_file(record)
            removed.append(spare.digest)
    return Swept(blobs=tuple(sorted(removed)), size=size)


def _touched_ns(blobs: BlobStore, digest: Digest) -> int | None:
    try:
        return os.stat(blobs.path(digest)).st_mtime_ns
    except FileNotFoundError:
        return None


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    layer: Layer
    title: str
    #: of the images that have it
    names: tuple[Reference, ...]


class _Search:
    def __init__(
        self,
        inventory: Inventory,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        connect: Connect,
        progress: Progress,
    ) -> None:
        self._inventory = inventory
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._connect = connect
        self._progress = progress
        #: registries that did not answer: they are asked once
        self._silent: set[str] = set()
        self.spares: list[Spare] = []
        self.kept: list[Digest] = []

    def candidates(self, images: Iterable[Held]) -> Iterator[_Candidate]:
        """Each blob once that is here and nobody's work, whose layer is unpacked."""
        seen: set[Digest] = set()
        for image in images:
            for layer in self._layers(image):
                digest = layer.descriptor.digest
                if digest in seen or not self._is_spare(layer):
                    continue
                seen.add(digest)
                users = [held for held in self._inventory.images if digest in held.needs.blobs]
                names = [record.reference for held in users for record in held.names if not record.is_untagged]
                yield _Candidate(layer=layer, title="; ".join(held.title for held in users), names=tuple(names))

    def _layers(self, image: Held) -> Iterator[Layer]:
        manifests = {record.manifest.digest: record.manifest for record in image.names}
        for container in self._inventory.containers:
            if container.id in image.containers:
                manifests[container.manifest.digest] = container.manifest
        for manifest in manifests.values():
            with suppress(NotFound, Corrupt):  # it was removed meanwhile, or lacks something: then it keeps its blobs
                yield from Image(manifest, self._blobs).layers

    def _is_spare(self, layer: Layer) -> bool:
        piece = self._inventory.blobs.get(layer.descriptor.digest)
        if piece is None or piece.touched_ns >= self._inventory.before_ns or not self._snapshotter.has(layer.diff_id):
            return False
        return self._blobs.stat(layer.descriptor.digest) == layer.descriptor.size

    def judge(self, candidate: _Candidate, check: Check) -> None:
        """Find out how a blob could be had again; one that goes meanwhile, or whose layer is cut, is passed over."""
        descriptor = candidate.layer.descriptor
        self._progress(Started(descriptor.digest.short, descriptor.size, "Checking"))
        origins = tuple(self._origins(descriptor.digest, candidate.names))
        try:
            recipe = self._recipe(candidate.layer, check)
        except (NotFound, Corrupt):
            return
        if not origins and recipe is None:
            self.kept.append(descriptor.digest)
            self._progress(Finished(descriptor.digest.short, "Kept"))
            return
        record = Dropped(
            descriptor=descriptor,
            diff_id=candidate.layer.diff_id,
            origins=origins,
            recipe=str(recipe or ""),
            dropped_ns=time.time_ns(),
        )
        size = room.of_file(self._blobs.path(descriptor.digest)) - self._size_of(record)
        if size > 0:
            touched_ns = self._inventory.blobs[descriptor.digest].touched_ns
            self.spares.append(Spare(record=record, title=candidate.title, size=size, touched_ns=touched_ns))
        self._progress(Finished(descriptor.digest.short, "Checked"))

    def _origins(self, digest: Digest, names: tuple[Reference, ...]) -> Iterator[Reference]:
        """One name of each repository that has the blob."""
        asked = set()
        for name in names:
            if name.name in asked or name.registry in self._silent:
                continue
            asked.add(name.name)
            try:
                if self._connect(name).has_blob(digest):
                    yield name
            except Unavailable:
                self._silent.add(name.registry)
            except Error:  # no such repository, or not for us
                continue

    def _recipe(self, layer: Layer, check: Check) -> recipes.Recipe | None:
        tar = self._snapshotter.open_tar(layer.diff_id)
        if tar is None:
            return None
        with tar, self._blobs.stream(layer.descriptor) as blob:
            size = os.fstat(tar.fileno()).st_size
            return recipes.find(blob, layer.descriptor.digest, tar, size=size, check=check)

    def _size_of(self, record: Dropped) -> int:
        """Bytes on the disk of a record that is still to be written: whole blocks of the file system."""
        block = os.statvfs(self._blobs.root).f_frsize or 1
        return -(-len(wire.encode(record)) // block) * block
