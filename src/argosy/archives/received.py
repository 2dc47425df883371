"""A tar that comes by once, through a pipe: each file goes into the store as it passes, by its content.

Docker's archives name their layers in a document that may come last, so what a file is
is not known when it passes. Nothing is written twice: a layer is in its place then,
whatever it turns out to be. What no image needs stays without a name, and is swept
as other leftovers are.
"""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import Corrupt, InvalidInput
from ..layer.archive import entries
from ..linux.lifetimes import boot_id
from ..oci.descriptor import Descriptor
from ..oci.digest import CHUNK, Digest
from ..store import unsettled
from ..store.blobs import OCTETS
from ..store.unsettled import Mark
from .files import missing
from .names import Names, refuse_holes
from .tar import Tail

if TYPE_CHECKING:
    from typing import Protocol

    from ..layer.archive import ArchiveReader
    from ..layer.entry import Entry
    from ..store.blobs import BlobStore

    class Observer(Protocol):
        """Is told what goes by, a file after the other."""

        def begun(self, name: str, size: int) -> None: ...
        def advanced(self, name: str, count: int) -> None: ...
        def ended(self, name: str, *, was_here: bool) -> None: ...


_BLOB = re.compile(r"blobs/(sha256|sha384|sha512)/([0-9a-f]+)")
_SMALL = 1 << 16  # bytes of a file that is held in memory: most are of no use to an image
_HELD = 1 << 25  # bytes of all those together


class Received:
    """The files of the uncompressed tar *stream*, which is read to its end but not closed.

    Making it raises Corrupt (digest-mismatch for a file whose name promises another
    content; what layer.archive and Names say), Exhausted.
    """

    def __init__(self, stream: BinaryIO, blobs: BlobStore, observer: Observer) -> None:
        self._blobs = blobs
        self._observer = observer
        #: what is small and in memory, or the descriptor of a blob
        self._names: Names[bytes | Descriptor] = Names()
        self._held = 0
        self._tail = Tail(stream)
        archive = entries(cast("BinaryIO", self._tail))
        for entry in archive:
            if entry.kind == "file":
                refuse_holes(entry)
                self._names.add(entry, self._place(entry, archive))
            elif entry.kind in ("symlink", "hardlink"):
                self._names.add_link(entry)

    def is_whole(self) -> bool:
        return self._tail.has_end_mark

    def size(self, name: str) -> int | None:
        place = self._names.find(name)
        return place.size if isinstance(place, Descriptor) else None if place is None else len(place)

    def digest(self, name: str) -> Digest | None:
        place = self._names.find(name)
        return place.digest if isinstance(place, Descriptor) else None if place is None else Digest.of(place)

    def open(self, name: str) -> BinaryIO:
        place = self._names.find(name)
        if place is None:
            raise missing(name)
        return io.BytesIO(place) if isinstance(place, bytes) else self._blobs.open(place)

    def close(self) -> None:
        """Nothing is held open."""

    def _place(self, entry: Entry, archive: ArchiveReader) -> bytes | Descriptor:
        name = entry.path.decode(errors="replace")
        promised = _promised(name, entry.size)
        if promised is None and entry.size <= min(_SMALL, _HELD - self._held):
            self._held += entry.size
            return archive.read()
        self._observer.begun(name, entry.size)
        with self._blobs.ingest(promised) as part:
            was_here = part.complete and entry.size > 0
            while data := archive.read(CHUNK):
                if not was_here:
                    part.write(data)
                self._observer.advanced(name, len(data))
            if not was_here:
                # It is not waited for, and what waits to be written when the power goes may be lost.
                unsettled.begin(self._blobs.root, Mark(boot=boot_id(), blobs=(part.digest,)))
            descriptor = part.commit(media_type=OCTETS, sync=False)
        self._observer.ended(name, was_here=was_here)
        return descriptor


def _promised(name: str, size: int) -> Descriptor | None:
    """What the name of a layout's blob promises."""
    match = _BLOB.fullmatch(name)
    if match is None:
        return None
    try:
        return Descriptor(media_type=OCTETS, digest=Digest.parse(f"{match[1]}:{match[2]}"), size=size)
    except InvalidInput as error:
        raise Corrupt(f"the archive holds {name!r}", code="digest-invalid", context=error.context) from error
