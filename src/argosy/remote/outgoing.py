"""A blob on its way out: any stretch of its bytes, as often as it takes, hashed once while they pass.

An upload that breaks goes on where the registry stands, somewhere before what was read
here. The digest's state is kept every MARK bytes, so that little is read again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from ..errors import Corrupt
from ..oci.digest import Digest
from .messages import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.digest import Hasher

    #: opens a blob at a byte; nobody below checks the digest
    OpenBlob = Callable[[int], BinaryIO]

MARK = 16 * 2**20  # bytes; what is read once more after a break at worst, a hundredth of a second


class Watch:
    """Hears how a transfer goes; this one does nothing about it. Whatever is raised ends the transfer."""

    def stands(self, position: int) -> None:
        """The next byte to be sent is that at *position*: told whenever it changes, to an earlier one too."""

    def waits(self) -> None:
        """Another process sends this blob; told ten times a second until it has ended."""


#: for transfers that nobody watches
IDLE = Watch()


class Outgoing:
    """The bytes of one blob. The last of them are held back until the digest of all is right.

    *remedy* is what to type when it is not. Not for several threads at once.
    """

    def __init__(self, descriptor: Descriptor, open_blob: OpenBlob, watch: Watch, *, remedy: str = "") -> None:
        self.descriptor = descriptor
        self.watch = watch
        self._open_blob = open_blob
        self._remedy = remedy
        self._stream: BinaryIO | None = None
        self._position = 0
        self._hasher = descriptor.digest.hasher(size=descriptor.size)
        #: (byte, digest's state before it), in order; the first is (0, nothing)
        self._marks: list[tuple[int, Hasher]] = [(0, self._hasher.copy())]

    def stretch(self, start: int, end: int) -> BinaryIO:
        """The bytes from *start* to before *end*; closing it leaves the blob open for the next stretch.

        Raises NotFound, Corrupt (digest-mismatch, size-mismatch: before the last byte is given out).
        """
        self._go_to(start)
        self.watch.stands(start)
        return cast("BinaryIO", _Stretch(self, end))

    def read(self, count: int, end: int) -> bytes:
        """Up to *count* bytes, none at *end*."""
        data = self._next(min(count, end - self._position))
        if data:
            self.watch.stands(self._position)
        return data

    def close(self) -> None:
        stream, self._stream = self._stream, None
        if stream is not None:
            stream.close()

    def __enter__(self) -> Outgoing:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _go_to(self, start: int) -> None:
        if self._stream is not None and self._position == start:
            return
        self.close()
        self._position, known = next(mark for mark in reversed(self._marks) if mark[0] <= start)
        self._hasher = known.copy()
        self._stream = self._open_blob(self._position)
        while self._position < start:
            self._next(min(CHUNK, start - self._position))

    def _next(self, count: int) -> bytes:
        if count <= 0 or self._stream is None:
            return b""
        data = self._stream.read(count)
        if not data:
            raise self._damaged("size-mismatch", f"it ends after {self._position} of {self.descriptor.size} bytes")
        self._hasher.update(data)
        self._position += len(data)
        if self._position == self.descriptor.size:
            self._check()
        elif self._position >= self._marks[-1][0] + MARK:
            self._marks.append((self._position, self._hasher.copy()))
        return data

    def _check(self) -> None:
        found = Digest.from_hasher(self._hasher, self.descriptor.digest.algorithm)
        if found != self.descriptor.digest:
            raise self._damaged("digest-mismatch", f"its bytes have digest {found}; it was not sent to its end")

    def _damaged(self, code: str, why: str) -> Corrupt:
        return Corrupt(f"blob {self.descriptor.digest} is damaged", code=code, context=why, hint=self._remedy)


class _Stretch:
    """What one request carries."""

    def __init__(self, blob: Outgoing, end: int) -> None:
        self._blob = blob
        self._end = end

    def read(self, count: int, /) -> bytes:
        return self._blob.read(count, self._end)

    def close(self) -> None:
        pass
