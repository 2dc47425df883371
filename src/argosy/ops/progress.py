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


class Started(msgspec.Struct, frozen=True):
    """Work on *id* begins (again, with other words): *what* is «Downloading», «Extracting», …"""

    id: str
    #: bytes to come, None when unknown
    total: int | None
    what: str


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


Event: TypeAlias = Started | Advanced | Finished | Warned
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
