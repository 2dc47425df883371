"""A stream read ahead by a thread, so that decompressing runs beside hashing, writing and parsing.

isal, zstd, hashlib and file writes release the interpreter lock. A layer of 57,000
entries, 545 MB from gzip, became an EROFS snapshot in 1.3 s instead of 1.9 s
(2 cores; decompressing alone takes 0.75 s).
"""

from __future__ import annotations

import queue
import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import BinaryIO

CHUNK = 1 << 20  # bytes; small ones pass the interpreter lock about too often
_DEPTH = 8  # chunks in flight


class ReadAhead:
    """Gives the bytes of *stream*, which the caller still closes, after `close`.

    What *stream* raises is raised by `read`. Leaving the block early stops the thread
    at its next chunk and waits for it.
    """

    def __init__(self, stream: BinaryIO, *, chunk: int = CHUNK, depth: int = _DEPTH) -> None:
        self._stream = stream
        self._chunk = chunk
        self._chunks: queue.SimpleQueue[bytes | BaseException] = queue.SimpleQueue()
        #: one for each chunk that may be read now; two simple queues cost a tenth of one that is bounded
        self._leave: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(depth):
            self._leave.put(None)
        self._stopped = False
        self._rest = b""
        self._ended = False
        self._thread = threading.Thread(target=self._fill, name="read-ahead", daemon=True)
        self._thread.start()

    def read(self, count: int = -1) -> bytes:
        """At most *count* bytes (any number if negative), none at the end."""
        data = self._rest or self._next()
        if 0 <= count < len(data):
            data, self._rest = data[:count], data[count:]
        else:
            self._rest = b""
        return data

    def close(self) -> None:
        self._stopped = True
        self._leave.put(None)  # it may be waiting for leave to read
        self._thread.join()

    def __enter__(self) -> ReadAhead:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _next(self) -> bytes:
        if self._ended:
            return b""
        chunk = self._chunks.get()
        if isinstance(chunk, BaseException):
            self._ended = True
            raise chunk
        self._ended = not chunk
        self._leave.put(None)
        return chunk

    def _fill(self) -> None:
        try:
            while True:
                self._leave.get()
                if self._stopped:
                    return
                chunk = self._stream.read(self._chunk)
                self._chunks.put(chunk)
                if not chunk:
                    return
        except BaseException as error:  # not ours to judge; read raises it where the caller is
            self._chunks.put(error)
