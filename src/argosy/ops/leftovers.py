"""What dead processes left in tmp/: told by their locks, or by age where something has none."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict
from ..linux import leases, room
from ..linux.locks import idle
from ..linux.removal import remove_large_tree
from ..snapshots.folders import MADE, REMOVED
from ..store import gc

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed import StrPath


class Leftover(msgspec.Struct, frozen=True, kw_only=True):
    """Something in tmp/ that no living process works on."""

    name: str
    #: bytes on the disk
    size: int
    #: seconds since the epoch
    touched: float


def find(root: StrPath) -> tuple[Leftover, ...]:
    """Those that may go now, sorted by name."""
    return tuple(_found(root, time.time() - gc.GRACE_S))


def names(root: StrPath) -> tuple[str, ...]:
    """All that is in tmp/ but leases, in work or not; sorted."""
    try:
        return tuple(sorted(name for name in os.listdir(os.path.join(root, "tmp")) if leases.SUFFIX not in name))
    except FileNotFoundError:
        return ()


def remove(root: StrPath, found: Iterable[Leftover]) -> tuple[Leftover, ...]:
    """Remove what nobody has taken up since it was found, and leases of the dead; gives what went."""
    for folder in ("tmp", "ingest"):
        with suppress(FileNotFoundError):
            leases.tidy(os.path.join(root, folder))
    return tuple(leftover for leftover in found if _removed(os.path.join(root, "tmp", leftover.name), leftover))


def _found(root: StrPath, oldest: float) -> Iterator[Leftover]:
    for name in names(root):
        path = os.path.join(root, "tmp", name)
        with suppress(FileNotFoundError), idle(path) as fd:
            touched = os.lstat(path).st_mtime
            if fd is not None and (touched < oldest or _has_lock(name)):
                yield Leftover(name=name, size=room.of_tree(path), touched=touched)


def _removed(path: str, leftover: Leftover) -> bool:
    """False when it is in work, or something is left: NFS keeps files that somebody has open."""
    with suppress(FileNotFoundError), idle(path) as fd:
        if fd is None or os.fstat(fd).st_mtime != leftover.touched:
            return False
        try:
            remove_large_tree(path)
        except Conflict as error:
            if error.code != "folder-not-empty":
                raise
            return False
        return True
    return False


def _has_lock(name: str) -> bool:
    """Whether a lock tells that somebody is at work with it; of what is being removed nobody minds who removes it.

    Where leases are used it has its node's name before its own.
    """
    return name.rpartition("@")[2].startswith((MADE, REMOVED))
