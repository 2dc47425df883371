"""How fast earlier pulls from each host were: `cache/speeds.json`, deletable at any time."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from ..errors import Error

if TYPE_CHECKING:
    from _typeshed import StrPath

LEAST = 1_000_000  # bytes; of smaller transfers the time is that of the requests
_MOST_HOSTS = 64
_WEIGHT = 0.5  # of the last pull against those before it


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """A moving average, and when it moved last (RFC 3339)."""

    bytes_per_s: float
    updated: str


class Speeds:
    """The records of a store. Of two processes that note at the same time the last one is believed."""

    def __init__(self, root: StrPath) -> None:
        self._path = os.path.join(root, "cache", "speeds.json")

    def find(self, host: str) -> Speed | None:
        """None when nothing was measured with *host* yet."""
        return self._read().get(host)

    def note(self, host: str, size: int, seconds: float) -> None:
        """*size* bytes came in *seconds*; too few of them say nothing. Never fails: it is a cache."""
        if size < LEAST or seconds <= 0:
            return
        known = self._read()
        before = known.pop(host, None)
        now = size / seconds
        speed = now if before is None else before.bytes_per_s * (1 - _WEIGHT) + now * _WEIGHT
        known[host] = Speed(bytes_per_s=speed, updated=time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()))
        self._write(dict(list(known.items())[-_MOST_HOSTS:]))

    def _read(self) -> dict[str, Speed]:
        try:
            with open(self._path, "rb", buffering=0) as file:
                found = msgspec.json.decode(file.read(), type=dict[str, Speed])
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
            return {}
        return {host: speed for host, speed in found.items() if 0 < speed.bytes_per_s < float("inf")}

    def _write(self, known: dict[str, Speed]) -> None:
        from ..linux.files import write_atomic

        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            write_atomic(self._path, msgspec.json.encode(known), sync=False)
        except (OSError, Error):
            return
