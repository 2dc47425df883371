"""A layer's tar on its way in: hashed, and if wanted copied, while somebody parses it."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

from ..errors import Corrupt
from ..linux.writeback import Behind
from ..oci.digest import Digest

if TYPE_CHECKING:
    from typing import BinaryIO, Protocol

    class Source(Protocol):
        def read(self, count: int, /) -> bytes: ...


class Intake(io.RawIOBase):
    """Reads *tar*; every byte also goes into the digest and into *copy*. `verify` at the end."""

    def __init__(self, tar: Source, diff_id: Digest, copy: BinaryIO | None = None) -> None:
        self._tar = tar
        self._diff_id = diff_id
        self._copy = copy
        self._hasher = diff_id.hasher()
        if copy is not None:
            self._behind = Behind(copy)
        self.size = 0  # bytes so far

    def readable(self) -> bool:
        return True

    def read(self, count: int | None = -1) -> bytes:
        data = self._tar.read(-1 if count is None else count)
        self._hasher.update(data)
        self.size += len(data)
        if self._copy is not None:
            view = memoryview(data)
            while view:
                view = view[self._copy.write(view) :]
            self._behind.moved(self.size)
        return data

    def verify(self) -> None:
        """Raise Corrupt (digest-mismatch) unless all that was read is the layer. The tar has been read to its end."""
        found = Digest.from_hasher(self._hasher, self._diff_id.algorithm)
        if found != self._diff_id:
            raise Corrupt(
                f"layer {self._diff_id} is damaged",
                code="digest-mismatch",
                context=f"its {self.size} uncompressed bytes have digest {found}",
            )
