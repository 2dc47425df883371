"""One layer from a registry to its snapshot, in one pass: fetched, hashed, inflated, hashed again, written, indexed.

Each stage runs in a thread of its own, as fast as the slowest of them. The compressed
blob is kept beside the snapshot; what has arrived of it survives whatever interrupts.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import Cancelled, Corrupt, Error
from ..layer import archive, erofs  # noqa: F401  # loaded before the fork, once for all workers: 13 ms
from ..layer.compression import decompressed
from ..snapshots.ahead import ReadAhead
from .fetch import fetching
from .parallel import processors
from .progress import DOWNLOADING, Advanced, Finished, Observed, Started, Waiting
from .unpack import ensure_layer, named, warn_of

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from ..oci.descriptor import Descriptor
    from ..oci.image import Layer
    from ..remote.repository import Repository
    from ..snapshots import Snapshotter
    from ..store.assembly import Assembly
    from ..store.blobs import BlobStore
    from .parallel import Check
    from .progress import Event, Progress

_AHEAD = 1 << 18  # bytes a read of compressed data; as layer/compression.py reads them
_DEPTH = 8
_TOO_FEW = 2  # processors for three threads a layer


class Bringer:
    """Brings layers of one repository; its methods are called in several threads or processes at once."""

    def __init__(self, *, repository: Repository, blobs: BlobStore, snapshotter: Snapshotter, connections: int) -> None:
        self._repository = repository
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._connections = connections

    def layer(self, layer: Layer, check: Check, progress: Progress) -> None:
        """Make sure that blob and snapshot of *layer* are here.

        Raises NotFound, Unavailable, Unauthorized, Corrupt, Exhausted. What has arrived stays, unless
        it is not what was promised: then it is fetched from elsewhere, where there are mirrors.
        """
        name, has_snapshot = layer.descriptor.digest.short, self._snapshotter.has
        was_here = self._bring(
            layer.descriptor, progress, lambda assembly: self._receive(layer, assembly, check, progress)
        )
        if was_here and has_snapshot(layer.diff_id):
            return progress(Finished(name, "Already exists"))
        ensure_layer(layer, snapshotter=self._snapshotter, blobs=self._blobs, progress=progress, check=check)
        return progress(Finished(name, "Pull complete"))

    def blob(self, descriptor: Descriptor, check: Check, progress: Progress) -> None:
        """Make sure that a blob is here, whatever it is."""

        def receive(assembly: Assembly) -> None:
            passage = _Passage(descriptor, assembly.present, progress, extracts=False)
            with self._fetching(descriptor, assembly, check, passage):
                _commit(assembly)
                passage.ends()

        self._bring(descriptor, progress, receive)

    def _bring(self, descriptor: Descriptor, progress: Progress, receive: Callable[[Assembly], None]) -> bool:
        """Whether the blob was here; if not, *receive* has brought it.

        What an earlier attempt left, or what a mirror sent, may be damaged, which only the digest of
        the whole tells; then all of it is fetched once more, or from elsewhere.
        """
        while True:
            with self._blobs.assemble(descriptor, lambda: progress(_waiting(descriptor))) as assembly:
                if assembly.complete:
                    return True
                is_taken_up = assembly.present > 0
                try:
                    receive(assembly)
                    return False
                except Corrupt:
                    if assembly.complete or not (is_taken_up or self._repository.distrust(descriptor)):
                        raise

    def _receive(self, layer: Layer, assembly: Assembly, check: Check, progress: Progress) -> None:
        passage = _Passage(layer.descriptor, assembly.present, progress)
        with self._fetching(layer.descriptor, assembly, check, passage):
            if not self._snapshotter.has(layer.diff_id):
                self._apply(layer, assembly, check, passage)
                warn_of(layer, snapshotter=self._snapshotter, progress=progress)
            _commit(assembly)
            passage.ends()

    def _fetching(
        self, descriptor: Descriptor, assembly: Assembly, check: Check, passage: _Passage
    ) -> AbstractContextManager[None]:
        return fetching(
            descriptor,
            assembly,
            repository=self._repository,
            connections=self._connections,
            check=check,
            advanced=passage.arrived,
        )

    def _apply(self, layer: Layer, assembly: Assembly, check: Check, passage: _Passage) -> None:
        """From the growing blob to the snapshot. Of a bad blob that is said, of a good blob with bad content this."""
        with _read_ahead(assembly.open()) as blob:
            stream = Observed(blob, layer.descriptor.digest.short, passage.consumed, check)
            try:
                self._snapshotter.apply(layer.diff_id, decompressed(cast("BinaryIO", stream)))
                return
            except Cancelled:
                raise
            except Error as error:
                fault = error
        _commit(assembly)  # raises what is wrong with the blob, if anything is
        raise named(fault, layer.descriptor.digest) from fault


def _read_ahead(blob: BinaryIO) -> AbstractContextManager[BinaryIO]:
    """*blob*, read and hashed in a thread of its own where there is a processor for it: on two it costs 4 %."""
    if processors() <= _TOO_FEW:
        return blob
    return cast("AbstractContextManager[BinaryIO]", ReadAhead(blob, chunk=_AHEAD, depth=_DEPTH))


def _commit(assembly: Assembly) -> None:
    try:
        assembly.commit()
    except Corrupt:
        assembly.discard()
        raise


def _waiting(descriptor: Descriptor) -> Waiting:
    return Waiting(descriptor.digest.short, descriptor.size, "Waiting for another argosy")


class _Passage:
    """What people see of one layer: bytes that arrive, and when all have, bytes that have been worked on."""

    def __init__(self, descriptor: Descriptor, present: int, progress: Progress, *, extracts: bool = True) -> None:
        self._name = descriptor.digest.short
        self._size = descriptor.size
        self._progress = progress
        self._extracts = extracts
        self._guard = threading.Lock()
        self._arrived = present
        self._consumed = 0
        progress(Started(self._name, self._size, DOWNLOADING, present))
        self._tell_if_whole()

    def arrived(self, count: int) -> None:
        with self._guard:
            self._count(min(count, self._size - self._arrived))

    def ends(self) -> None:
        """All has arrived, though the thread that brought the last bytes may not have said so yet."""
        with self._guard:
            self._count(self._size - self._arrived)

    def _count(self, count: int) -> None:
        if count > 0:
            self._arrived += count
            self._progress(Advanced(self._name, count))
            self._tell_if_whole()

    def _tell_if_whole(self) -> None:
        if self._arrived >= self._size:
            self._progress(Finished(self._name, "Download complete"))
            if self._extracts:
                self._progress(Started(self._name, self._size, "Extracting", self._consumed))

    def consumed(self, event: Event) -> None:
        assert isinstance(event, Advanced)
        with self._guard:
            self._consumed += event.count
            if self._arrived >= self._size:
                self._progress(Advanced(self._name, event.count))
