"""The standard library's reading of an HTTP answer, made safe against peers that are slow, broken or hostile.

Three things are added to http.client: bytes must come at a pace, a head that breaks
off is no head, and what came before a fault is given before the fault is raised.
"""

from __future__ import annotations

import http.client
import io
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from socket import socket

_LEAST_PACE = 256  # bytes a second; the slowest line that anybody pulls images over has ten times that


class Answer(http.client.HTTPResponse):
    """One answer on a connection; its time-out is the socket's."""

    def __init__(self, sock: socket, *args: Any, **options: Any) -> None:
        super().__init__(sock, *args, **options)
        self._paced = _Paced(self.fp.detach(), sock.gettimeout())
        self.fp = _Reader(self._paced)

    def begin(self) -> None:
        super().begin()
        self._paced.is_head = False

    def read(self, amt: int | None = None) -> bytes:
        self._paced.is_fresh = True
        return super().read(amt)

    def _read_next_chunk_size(self) -> int:
        """The standard library takes «-1», and then reads all that comes into memory (as of Python 3.14)."""
        size: int = super()._read_next_chunk_size()  # type: ignore[misc]  # private there
        if size < 0:
            raise ValueError("negative size")
        return size


class _Paced(io.RawIOBase):
    """What comes from a socket, for as long as it comes at a pace.

    A time-out for each read lets a peer that sends a byte a minute hold us for
    ever. Only waiting is counted, so whoever reads slowly is not blamed on the peer.
    """

    def __init__(self, raw: io.RawIOBase, limit_s: float | None) -> None:
        self._raw = raw
        self._limit_s = limit_s
        self._waited_s = 0.0
        self._received = 0
        #: raised by the next read
        self._fault: OSError | None = None
        self.is_head = True
        #: nothing was given yet to the read that goes on
        self.is_fresh = True

    def readinto(self, buffer: Any, /) -> int:  # a buffer has no name in typing before Python 3.12
        """A fault in the midst of a body looks like the end of it first: the reader above gives what it has."""
        if self._fault is not None:
            raise self._fault
        try:
            count = self._received_into(buffer)
        except OSError as error:
            if self.is_head or self.is_fresh:
                raise
            self._fault = error
            return 0
        self.is_fresh = self.is_fresh and not count
        return count

    def _received_into(self, buffer: Any) -> int:
        began = time.monotonic()
        count: int = self._raw.readinto(buffer) or 0
        self._waited_s += time.monotonic() - began
        self._received += count
        if self._limit_s is not None and count and self._waited_s > self._limit_s:
            if self._received < self._limit_s * _LEAST_PACE:
                raise TimeoutError(f"{self._received} bytes in {self._waited_s:.0f} seconds")
            self._waited_s, self._received = 0.0, 0
        return count

    def readable(self) -> bool:
        return True

    def fileno(self) -> int:
        return self._raw.fileno()

    def close(self) -> None:
        self._raw.close()
        super().close()


class _Reader(io.BufferedReader):
    """Lines of a head are whole: the standard library takes half of one, when the connection ends there."""

    def __init__(self, raw: _Paced) -> None:
        super().__init__(raw)
        self._paced = raw
        self._lines = 0

    def readline(self, size: int | None = -1, /) -> bytes:
        line = super().readline(size)
        is_cut = not line.endswith(b"\n") and (size is None or size < 0 or len(line) < size)
        if self._paced.is_head and is_cut and (line or self._lines):
            raise ConnectionError("the answer breaks off in its head")
        self._lines += 1
        return line
