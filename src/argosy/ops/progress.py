"""What a verb tells while it works: small values, given to a callable.

The callable may be called from several threads at once, and must return quickly;
cli/progress.py draws the events, tests collect them in a list.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import msgspec


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
