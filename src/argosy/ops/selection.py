"""Which images and containers a prune may take: Docker's filters until, label and label!, as a value."""

from __future__ import annotations

import re
from datetime import datetime
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from .images import has_label

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

FILTERS = frozenset({"until", "label", "label!"})
#: units of Go's time.ParseDuration, in seconds
_UNITS = {"ns": 1e-9, "us": 1e-6, "µs": 1e-6, "μs": 1e-6, "ms": 1e-3, "s": 1.0, "m": 60.0, "h": 3600.0}
_STEP = re.compile(r"(\d+\.?\d*|\.\d+)(ns|us|µs|μs|ms|s|m|h)")


class Selection(msgspec.Struct, frozen=True, kw_only=True):
    """What must hold of a thing that goes; all of it by default."""

    #: seconds since the epoch; things made later stay
    until: float | None = None
    #: KEY or KEY=VALUE; all must hold
    labels: tuple[str, ...] = ()
    #: things of which all of these hold stay
    not_labels: tuple[str, ...] = ()

    @classmethod
    def parse(cls, filters: Mapping[str, Sequence[str]], *, now: float) -> Selection:
        """Of {key: values}, the keys being FILTERS. Raises InvalidInput (filter-invalid)."""
        moments = filters.get("until", ())
        if len(moments) > 1:
            raise InvalidInput("more than one until filter specified", code="filter-invalid", hint="give one")
        return cls(
            until=parse_moment(moments[0], now=now) if moments else None,
            labels=tuple(filters.get("label", ())),
            not_labels=tuple(filters.get("label!", ())),
        )

    @property
    def is_everything(self) -> bool:
        return self == Selection()

    @property
    def by_label(self) -> bool:
        """Whether only what has labels can be meant: no leftovers."""
        return bool(self.labels or self.not_labels)

    def takes(self, made: float | None, labels: Callable[[], Mapping[str, str]]) -> bool:
        """Whether a thing made at *made* (None: nobody knows, so long ago) with these labels goes."""
        if self.until is not None and made is not None and made > self.until:
            return False
        if not self.by_label:
            return True
        found = labels()
        if not all(has_label(found, text) for text in self.labels):
            return False
        return not (self.not_labels and all(has_label(found, text) for text in self.not_labels))


def parse_moment(text: str, *, now: float) -> float:
    """Seconds since the epoch of «24h» ago, of an RFC 3339 time or date (local time without a zone), of Unix seconds.

    Raises InvalidInput (filter-invalid). Source: docker/docker api/types/time GetTimestamp.
    """
    length = _duration(text)
    if length is not None:
        return now - length
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    try:
        return datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError, OSError) as error:
        raise InvalidInput(
            f"not a time: {text!r}",
            code="filter-invalid",
            context="until takes a length of time, a date, a time or Unix seconds",
            hint="until=24h, until=2026-11-23, until=2026-11-23T16:00:00Z, until=1795449600",
        ) from error


def seconds(stamp: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None when it is none (or Go's zero time)."""
    try:
        moment = datetime.fromisoformat(stamp)
        return moment.timestamp() if moment.year > 1 else None
    except (ValueError, OverflowError, OSError):
        return None


def _duration(text: str) -> float | None:
    """Seconds of Go's «1h30m»; None when it is none."""
    steps = _STEP.findall(text)
    if not steps or "".join(number + unit for number, unit in steps) != text:
        return None
    return float(sum(float(number) * _UNITS[unit] for number, unit in steps))
