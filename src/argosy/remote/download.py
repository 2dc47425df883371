"""A blob as a stream that survives lost connections: it goes on by Range from where it stopped.

A registry (or a proxy before it) that ignores Range sends the blob from its start;
what is here already is then read and thrown away.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import Corrupt, Unavailable
from .faults import is_passing
from .messages import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.descriptor import Descriptor
    from .messages import HttpResponse
    from .transport import Transport

_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/(\d+|\*)")

#: Bytes of one connection after which it counts as good; who sends ten and breaks off would keep us for ever.
_PROGRESS = 64 * 1024


class BlobReader:
    """The bytes of one blob from *offset* to *end*. Checks the size; who reads all of it checks the digest around it.

    *fetch* sends one GET for the bytes from a position to another and gives an answer
    with status 200 or 206, or raises.
    """

    def __init__(
        self,
        descriptor: Descriptor,
        offset: int,
        end: int,
        fetch: Callable[[int, int], HttpResponse],
        transport: Transport,
    ) -> None:
        self._descriptor = descriptor
        self._end = end
        self._fetch = fetch
        self._transport = transport
        self._position = offset
        self._failures = 0  # in a row, with next to nothing between them
        self._resumed = offset  # where the connection that is open began
        self._response: HttpResponse | None = None
        #: the other side sends the part that it was asked for, so that others may ask for others
        self.is_partial = False
        if offset < end or offset == 0:
            self._connect()

    def read(self, count: int = -1) -> bytes:
        """Up to *count* bytes; none at the end. Raises Corrupt (size-mismatch), Unavailable."""
        if count is None or count < 0:
            return b"".join(iter(lambda: self.read(CHUNK), b""))
        while self._response is not None and count:
            # At the end one byte more is asked for, so that a blob that is too long does not pass.
            wanted = min(count, max(self._end - self._position, 1))
            try:
                data = self._response.body.read(wanted)
            except Unavailable as error:
                self._go_on(error)
                continue
            if data:
                return self._counted(data)
            if self._position == self._end:
                self.close()
                break
            self._go_on(self._cut_short())
        return b""

    def extend(self, end: int) -> None:
        """Go on to *end*: for a stream that is not partial, which has the rest of the blob anyway."""
        self._end = end

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def close(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            response.close()

    def __enter__(self) -> BlobReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _counted(self, data: bytes) -> bytes:
        self._position += len(data)
        if self._position - self._resumed >= min(_PROGRESS, self._descriptor.size // 16):
            self._failures = 0
        if self._position == self._end < self._descriptor.size and not self.is_partial:
            self.close()  # the rest of the blob follows, and nobody asked for it
        elif self._position > self._end:
            self.close()
            raise self._damaged(f"longer than the {self._end} bytes promised")
        return data

    def _go_on(self, error: Unavailable | Corrupt) -> None:
        """Connect again where the stream broke; raises *error* when that has failed too often."""
        self.close()
        self._failures += 1
        if isinstance(error, Unavailable) and not is_passing(error):
            raise error
        if not self._transport.waited(self._failures):
            raise error
        self._connect()

    def _connect(self) -> None:
        self._resumed = self._position
        response = self._fetch(self._position, self._end)
        self._response = response
        start, stop, total = _extent(response)
        self.is_partial = stop is not None and stop <= self._end
        if total is not None and total != self._descriptor.size:
            self.close()
            raise self._damaged(f"the registry has {total} bytes, {self._descriptor.size} are promised")
        if start > self._position:
            self.close()
            raise self._damaged(f"asked for the bytes from {self._position} on, got those from {start} on")
        self._skip(response, self._position - start)

    def _skip(self, response: HttpResponse, count: int) -> None:
        while count:
            try:
                data = response.body.read(min(CHUNK, count))
            except Unavailable as error:
                return self._go_on(error)
            if not data:
                return self._go_on(self._cut_short())
            count -= len(data)
        return None

    def _cut_short(self) -> Corrupt:
        return self._damaged(f"ends after {self._position} of {self._descriptor.size} bytes")

    def _damaged(self, why: str) -> Corrupt:
        return Corrupt(f"blob {self._descriptor.digest} is damaged", code="size-mismatch", context=why)


def _extent(response: HttpResponse) -> tuple[int, int | None, int | None]:
    """(first byte that is sent, byte after the last where it is said, size of the whole blob where it is said)."""
    if response.status == 206:
        match = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", "").strip())
        if match is None:
            response.close()
            raise Corrupt(f"{response.url} sends a part without saying which", code="range-invalid")
        return int(match[1]), int(match[2]) + 1, None if match[3] == "*" else int(match[3])
    length = response.headers.get("content-length", "")
    return 0, None, int(length) if length.isdecimal() else None
