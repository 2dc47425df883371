"""Who is at work in a store: every process that writes or claims content holds a lock for as long as it lives.

A maker's file in `ingest/` is made, or taken over from a dead one, before its first
blob, so everything that it needs was touched later than the file. The kernel drops
the lock with the process, whichever namespaces that was in. What nobody alive can
have touched need not wait for a grace period: see gc.py.
"""

from __future__ import annotations

import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

from ..linux.locks import NO_FLOCK, flock_reaches_all, is_named
from .derived import COARSEST_NS

if TYPE_CHECKING:
    from collections.abc import Iterator

SUFFIX = ".maker"
CLOCK = "collector.lock"  # usually there, see BlobStore.publishing: its new time takes no space on a full disk


def register(folder: str) -> int | None:
    """Count as a maker until the descriptor that this gives is closed, by the caller or by the kernel.

    None where flock does not reach everybody, or no file can be made: sweeps then go by
    the grace period, or `gc.publish` finds what they took.
    """
    try:
        if not flock_reaches_all(folder):
            return None
        for path in (*_files(folder), *(_new(folder) for _ in range(8))):  # others may be quicker
            with suppress(BlockingIOError):
                fd = _lock(path, fcntl.LOCK_EX, os.O_CREAT)
                if fd is not None:
                    os.utime(fd)  # a file that is taken over has its last maker's time
                    return fd
    except OSError:
        return None
    return None


def began_ns(folder: str) -> int | None:
    """When the oldest living maker began, by the file system's clock; now when there is none.

    Files of dead makers go. None where nothing can be told: where flock does not reach
    everybody (if it is missing, the file of a maker stays, so that this is found out).
    """
    now = now_ns(folder)  # before the look: whoever begins after it has a later time
    try:
        return min((now, *_living(folder))) if flock_reaches_all(folder) else None
    except FileNotFoundError:  # nobody has ever been at work here
        return now
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return None


def _living(folder: str) -> Iterator[int]:
    """When each began that is alive, or that we may not look at."""
    for path in _files(folder):
        try:
            fd = _lock(path, fcntl.LOCK_SH)  # several may look at the same time
        except (BlockingIOError, PermissionError):
            with suppress(FileNotFoundError):
                yield os.stat(path).st_mtime_ns
            continue
        if fd is not None:
            with suppress(OSError):  # a store that is only read
                os.unlink(path)
            os.close(fd)


def _lock(path: str, kind: int, flags: int = 0) -> int | None:
    """The locked file; None when it is gone. Raises BlockingIOError when somebody alive has it, and any OSError."""
    try:
        fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW | flags, 0o600)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        if is_named(fd, path):
            return fd
    except BaseException:
        os.close(fd)
        raise
    os.close(fd)
    return None


def now_ns(folder: str) -> int:
    """The file system's clock, which may be another host's: told by a file's new time."""
    try:
        fd = os.open(os.path.join(folder, CLOCK), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.utime(fd)
            return os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
    except OSError:  # no maker has been here, or we may not write
        return time.time_ns() - COARSEST_NS


def _files(folder: str) -> list[str]:
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(SUFFIX))
    except FileNotFoundError:
        return []


def _new(folder: str) -> str:
    return os.path.join(folder, f"{os.urandom(8).hex()}{SUFFIX}")
