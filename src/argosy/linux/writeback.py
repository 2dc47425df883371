"""Bytes that pass through a file once: written to the disk on their way, then let go from memory.

A pull would fill the page cache with layers and blobs otherwise. It would push out what
others have there, reach a job's memory limit, and leave all of the disk's work for
later. Memory that was just let go is also the cheapest to take: in a virtual machine
that gives free memory back to its host, 2.2 GB written took 4.7 s of a processor, and
0.5 s so.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing import Protocol

    class HasFileno(Protocol):
        def fileno(self) -> int: ...


_STEP = 8 << 20  # bytes between two looks at what may leave memory
_LAG = 32 << 20  # bytes: a stretch is looked at until it is this far behind, for the disk needs time
_SHARE = 0.25  # of the time at most is spent on waiting for a queue that the disk does not empty as fast
_PATIENCE_S = 0.2


class Behind:
    """What lies behind a place in *file* that moves forward.

    The kernel begins to write a stretch when it is told of it first, and frees it when
    it is told again and finds it written. What a slow disk has not written by then
    stays in memory; and where even telling takes long, nothing is told any more.
    """

    def __init__(self, file: HasFileno) -> None:
        self._file = file
        self._position = 0
        self._began = time.monotonic()
        self._spent = 0.0

    def moved(self, position: int) -> None:
        """Everything before *position* has been used."""
        if position - self._position < _STEP:
            return
        before = time.monotonic()
        if self._spent > max(_PATIENCE_S, _SHARE * (before - self._began)):
            return
        start = max(self._position - _LAG, 0)
        with suppress(OSError):  # an advice that some file systems do not know
            os.posix_fadvise(self._file.fileno(), start, position - start, os.POSIX_FADV_DONTNEED)
        self._position = position
        self._spent += time.monotonic() - before
