"""Uploads that were begun and not finished: where they went, kept for the next process.

One small file a blob and repository, in a folder that may be deleted at any time. Its
lock is held for as long as the upload goes on, so that two processes that push the
same layer send it once. An upload's address may be as good as a password: the files
are for this user alone, and no message shows one.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..linux.locks import flock, is_named
from ..oci.digest import Digest
from ..oci.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Callable

LIFE_S = 7 * 86400  # seconds; registries forget uploads by then, distribution's and ours among them
_LIMIT = 64 * 1024  # bytes of a file of ours
_LOOK_S = 0.1  # between two looks whether another process has finished


class _Record(msgspec.Struct, frozen=True):
    #: registry/repository@digest
    blob: str
    location: str


class Unfinished:
    """A folder of such records. Any number of processes may share it; without a folder nothing is kept."""

    def __init__(self, folder: str | None = None) -> None:
        self._folder = folder

    def take(self, repository: str, digest: Digest, waiting: Callable[[], None] = lambda: None) -> Place:
        """The record of one upload, ours until it is closed; *repository* is registry/repository.

        While another process has it, *waiting* is called ten times a second, and may
        raise. Where nothing can be kept (read-only, no locks) the upload goes on without.
        """
        blob = f"{repository}@{digest}"
        if self._folder is None:
            return Place(blob)
        path = os.path.join(self._folder, f"{Digest.of(blob.encode()).hex[:32]}.json")
        with suppress(OSError):
            os.makedirs(self._folder, mode=0o700, exist_ok=True)
            return self._open(blob, path, waiting)
        return Place(blob)

    def _open(self, blob: str, path: str, waiting: Callable[[], None]) -> Place:
        waited = False
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
                if is_named(fd, path):  # else its owner removed it when the upload ended
                    place, fd = Place(blob, path, fd, waited=waited), -1
                    return place
            except OSError as error:
                if error.errno not in (errno.EAGAIN, errno.EACCES):
                    raise
            finally:
                if fd >= 0:
                    os.close(fd)
            waited = True
            waiting()
            time.sleep(_LOOK_S)

    def sweep(self) -> None:
        """Remove what is too old to be of use."""
        if self._folder is None:
            return
        oldest = time.time() - LIFE_S
        with suppress(OSError):  # a folder that is not there, a file that another sweep took
            for name in os.listdir(self._folder):
                path = os.path.join(self._folder, name)
                if os.lstat(path).st_mtime < oldest:
                    os.unlink(path)


class Place:
    """One upload's record, locked. Leaving the block lets go of it; the address stays until it is forgotten."""

    def __init__(self, blob: str, path: str = "", fd: int = -1, *, waited: bool = False) -> None:
        self._blob = blob
        self._path = path
        self._fd = fd
        #: another process had it, and may have finished the upload
        self.waited = waited
        #: where an earlier process sent the blob's bytes; None when there is nothing to go on with
        self.location = self._read()

    def keep(self, location: str) -> None:
        """A process after this one may go on at *location*. Not synced: a power cut costs a second upload."""
        self._write(encode(_Record(self._blob, location)))
        self.location = location

    def forget(self) -> None:
        """The upload has ended, or leads nowhere. Idempotent."""
        self._write(b"")
        self.location = None

    def close(self) -> None:
        """Idempotent."""
        fd, self._fd = self._fd, -1
        if fd < 0:
            return
        with suppress(OSError):
            if self.location is None and is_named(fd, self._path):
                os.unlink(self._path)
        os.close(fd)  # and with it the lock

    def __enter__(self) -> Place:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _read(self) -> str | None:
        if self._fd < 0:
            return None
        try:
            record = decode(os.pread(self._fd, _LIMIT, 0), _Record)
        except (OSError, msgspec.MsgspecError, UnicodeDecodeError):  # new, or cut short by a full disk
            return None
        return record.location if record.blob == self._blob else None

    def _write(self, data: bytes) -> None:
        if self._fd < 0:
            return
        with suppress(OSError):  # then the next process begins anew
            os.ftruncate(self._fd, 0)
            os.pwrite(self._fd, data, 0)


#: keeps nothing, for uploads that nobody will go on with
NOWHERE = Unfinished()
