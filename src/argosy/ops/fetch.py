"""A blob from a registry into an assembly: over one connection, or over several when it is large.

The threads here only move bytes; whoever reads the assembly does so meanwhile.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Cancelled
from ..remote.messages import CHUNK

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..oci.descriptor import Descriptor
    from ..remote.repository import Repository
    from ..store.assembly import Assembly, Range
    from .parallel import Check

#: Bytes that one request asks for. A request costs a round trip and often a redirect: at 100 MB/s and 50 ms, a seventh.
PIECE = 32 * 2**20
_LEAST, _MOST = 1 << 16, 1 << 20  # bytes a read
_QUICK_S, _SLOW_S = 0.01, 0.2
_FAREWELL_S = 2.0  # for threads that sit in a stalled connection; they end with the process


@contextmanager
def fetching(
    descriptor: Descriptor,
    assembly: Assembly,
    *,
    repository: Repository,
    connections: int,
    piece: int = PIECE,
    check: Check = lambda: None,
    advanced: Callable[[int], None] = lambda count: None,
) -> Iterator[None]:
    """While the block runs, what *assembly* misses is fetched by threads, at most *connections* at once,
    each request for *piece* bytes.

    What goes wrong is raised by the assembly's reader and commit. *advanced* is told, by
    one thread at a time, how many bytes have arrived. Leaving the block ends the threads.
    """
    fetch = _Fetch(descriptor, assembly, repository, connections, piece, check, advanced)
    fetch.begin()
    try:
        yield
    finally:
        fetch.end()


class _Fetch:
    def __init__(
        self,
        descriptor: Descriptor,
        assembly: Assembly,
        repository: Repository,
        connections: int,
        piece: int,
        check: Check,
        advanced: Callable[[int], None],
    ) -> None:
        self._descriptor = descriptor
        self._assembly = assembly
        self._repository = repository
        self._check = check
        self._advanced = advanced
        self._guard = threading.Lock()
        self._stopped = False
        self._left = pieces(assembly.missing(), piece if connections > 1 else descriptor.size)
        self._most = min(connections, len(self._left))
        self._threads: list[threading.Thread] = []

    def begin(self) -> None:
        """The first thread; the others come once the other side has shown that it sends parts."""
        if self._left:
            self._add_threads(1)

    def end(self) -> None:
        self._stopped = True
        for thread in tuple(self._threads):
            thread.join(_FAREWELL_S)

    def _add_threads(self, count: int) -> None:
        with self._guard:
            for _ in range(len(self._threads), count):
                thread = threading.Thread(target=self._labour, name="fetch", daemon=True)
                self._threads.append(thread)
                thread.start()

    def _labour(self) -> None:
        try:
            while (piece := self._next()) is not None:
                self._fetch(piece)
        except BaseException as error:  # not ours to judge: the assembly's reader raises it
            self._assembly.fail(error)
            self._stopped = True

    def _next(self) -> Range | None:
        with self._guard:
            return self._left.popleft() if self._left else None

    def _fetch(self, piece: Range) -> None:
        start, end = piece
        with self._repository.stream(self._descriptor, offset=start, end=end) as stream:
            if stream.is_partial:
                self._add_threads(self._most)
            elif self._left:  # the other side sends all of it, whatever it is asked for: let it
                with self._guard:
                    self._left.clear()
                stream.extend(self._descriptor.size)
            writer, size, began = self._assembly.writer(start), CHUNK, time.monotonic()
            try:
                while data := stream.read(size):
                    self._go_on()
                    writer.write(data)
                    with self._guard:
                        self._advanced(len(data))
                    now = time.monotonic()
                    size, began = sized(size, now - began), now
            finally:
                writer.close()

    def _go_on(self) -> None:
        if self._stopped:
            raise Cancelled("the transfer was stopped", code="cancelled")
        self._check()


def sized(size: int, took_s: float) -> int:
    """How many bytes to read next, when *size* bytes took so long: calls cost time, and news should be fresh. Pure."""
    if took_s < _QUICK_S:
        return min(size * 2, _MOST)
    return max(size // 2, _LEAST) if took_s > _SLOW_S else size


def pieces(missing: list[Range], size: int) -> deque[Range]:
    """*missing* cut into pieces of at most *size* bytes, in order. Pure."""
    return deque((at, min(at + size, end)) for start, end in missing for at in range(start, end, max(size, 1)))
