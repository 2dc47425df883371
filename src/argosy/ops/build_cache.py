"""What the catalogue keeps between builds: downloads and records in cache/, all to be had again."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Unavailable
from ..linux import room
from ..linux.files import remove_tree
from ..linux.locks import locked

if TYPE_CHECKING:
    from _typeshed import StrPath

#: folders in cache/; the lock of builds lies in the last
_FOLDERS = ("wheels", "apt", "catalog")
_LOCK = "lock"


def size(root: StrPath) -> int:
    """Bytes on the disk that `remove` frees."""
    return sum(map(room.of_tree, _things(root)))


def count(root: StrPath) -> int:
    """How many wheels, packages and records there are."""
    return len(_things(root))


def remove(root: StrPath) -> int:
    """Remove it, unless a build is at work with it; gives the bytes that this freed."""
    folder = os.path.join(root, "cache", _FOLDERS[-1])
    if not os.path.isdir(folder):  # no build has been here
        return 0
    try:
        with locked(os.path.join(folder, _LOCK), timeout_s=0):
            return _removed(_things(root))
    except Unavailable:
        return 0


def _removed(paths: list[str]) -> int:
    freed = 0
    for path in paths:
        freed += room.of_tree(path)
        remove_tree(path)
    return freed


def _things(root: StrPath) -> list[str]:
    """All but the lock, whose holder must not lose it."""
    found = []
    for folder in (os.path.join(root, "cache", name) for name in _FOLDERS):
        with suppress(FileNotFoundError):
            found += [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name != _LOCK]
    return found
