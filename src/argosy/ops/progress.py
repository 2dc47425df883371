"""What a verb tells while it works: small values, given to a callable.

The callable may be called from several threads at once, and must return quickly;
cli/progress.py draws the events, tests collect them in a list.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, TypeAlias

import msgspec

if TYPE_CHECKING:
    from typing import BinaryIO

    from .parallel import Check


_PAUSE_S = 0.1  # between two reports of bytes
DOWNLOADING, WAITING = "Downloading", "Waiting"


class Waiting(msgspec.Struct, frozen=True):
    """Work on *id*, of *total* bytes, is still to begin: *why* is WAITING while it is just others' turn.

    That may be told before a verb forks: nobody starts a thread for it.
    """

    id: str
    total: int | None = None
    why: str = WAITING


class Started(msgspec.Struct, frozen=True):
    """Work on *id* begins (again, with other words): *what* is «Downloading», «Extracting», …"""

    id: str
    #: bytes in all, None when unknown
    total: int | None
    what: str
    #: bytes that an earlier attempt has done
    done: int = 0


class Advanced(msgspec.Struct, frozen=True):
    """*count* more bytes of *id* are done."""

    id: str
    count: int


class Finished(msgspec.Struct, frozen=True):
    """Work on *id* has ended well: *status* is «Pull complete», «Layer already exists», …"""

    id: str
    status: str


class Warned(msgspec.Struct, frozen=True):
    """Something that the user should know, and may change."""

    text: str


class Noted(msgspec.Struct, frozen=True):
    """Something that is good to know, and for nobody to change."""

    text: str


Event: TypeAlias = Waiting | Started | Advanced | Finished | Warned | Noted
Progress: TypeAlias = Callable[[Event], None]


def silent(event: Event) -> None:
    """For those who want to hear nothing."""


class Coalesced:
    """Tells *progress* of bytes ten times a second, of everything else at once, from one thread at a time."""

    def __init__(self, progress: Progress) -> None:
        import threading

        self._progress = progress
        self._guard = threading.Lock()
        self._counts: dict[str, int] = {}
        self._told = 0.0

    def __call__(self, event: Event) -> None:
        with self._guard:
            if not isinstance(event, Advanced):
                self._tell()
                self._progress(event)
                return
            self._counts[event.id] = self._counts.get(event.id, 0) + event.count
            if time.monotonic() - self._told > _PAUSE_S:
                self._tell()

    def _tell(self) -> None:
        for name, count in self._counts.items():
            self._progress(Advanced(name, count))
        self._counts.clear()
        self._told = time.monotonic()


class Observed:
    """A stream that tells how much of it was read, and ends when *check* says so. Closing it closes the one below."""

    def __init__(self, stream: BinaryIO, name: str, progress: Progress, check: Check) -> None:
        self._stream = stream
        self._name = name
        self._progress = progress
        self._check = check

    def read(self, count: int = -1) -> bytes:
        self._check()
        data = self._stream.read(count)
        if data:
            self._progress(Advanced(self._name, len(data)))
        return data

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> Observed:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class Meter:
    """Passes every event on. *size* is bytes that came, *seconds* the time in which at least one download ran."""

    def __init__(self, progress: Progress, clock: Callable[[], float] = time.monotonic) -> None:
        import threading

        self._progress = progress
        self._clock = clock
        self._lock = threading.Lock()
        #: {id: bytes that its download is to bring}
        self._running: dict[str, int] = {}
        self._since = 0.0
        self.size = 0
        self.seconds = 0.0

    def __call__(self, event: Event) -> None:
        if isinstance(event, Started | Finished):
            with self._lock:
                self._end(event.id, self._clock())
                if isinstance(event, Started) and event.what == DOWNLOADING:
                    self._begin(event, self._clock())
        self._progress(event)

    def _begin(self, event: Started, now: float) -> None:
        if not self._running:
            self._since = now
        self._running[event.id] = (event.total or 0) - event.done

    def _end(self, name: str, now: float) -> None:
        if name not in self._running:
            return
        self.size += self._running.pop(name)
        if not self._running:
            self.seconds += now - self._since
