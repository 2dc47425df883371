"""Regular files by name, wherever they are kept: the contract of all sources, and a folder on disk.

Names are relative, «/» between their parts, without «.» and «..». What a name leads to
is not believed to be anything: documents are read with a limit, content is checked
against its digest by whoever asked for it.
"""

from __future__ import annotations

import errno
import io
import os
import stat
from typing import TYPE_CHECKING, Protocol, cast

from ..errors import Corrupt, InvalidInput, NotFound
from ..linux.files import reporting, translate
from ..linux.paths import open_beneath_nofollow, open_root

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import StrPath, WriteableBuffer

    from ..oci.digest import Digest

_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Files(Protocol):
    """What images are read from. Threads may ask at the same time."""

    def is_whole(self) -> bool:
        """Whether the end was seen: a tar that was cut between two members looks like a shorter one."""

    def size(self, name: str) -> int | None:
        """Bytes of a regular file; None when there is none of that name."""

    def digest(self, name: str) -> Digest | None:
        """SHA-256 of a file whose bytes have been seen; None when that would mean to read it."""

    def open(self, name: str) -> BinaryIO:
        """The file from its first byte, for the caller to close. Raises NotFound (archive-member-missing)."""

    def close(self) -> None: ...


def read_document(files: Files, name: str, limit: int) -> bytes | None:
    """A small file as bytes; None when there is none. Raises Corrupt (archive-document-too-large)."""
    size = files.size(name)
    if size is None:
        return None
    if size > limit:
        raise Corrupt(
            f"{name} of the archive is too large",
            code="archive-document-too-large",
            context=f"{size} bytes; the limit is {limit}",
        )
    with files.open(name) as stream:
        return b"".join(iter(lambda: stream.read(limit), b""))


def missing(name: str) -> NotFound:
    return NotFound(
        f"the archive does not hold {name!r}",
        code="archive-member-missing",
        hint="it is damaged or not complete; save it again",
    )


class Folder:
    """A folder that somebody else may have written: no link in it is followed."""

    def __init__(self, path: StrPath) -> None:
        with reporting("read", path):
            self._fd = open_root(path)
        self._path = os.fspath(path)

    def is_whole(self) -> bool:
        return True

    def size(self, name: str) -> int | None:
        fd = self._find(name)
        if fd is None:
            return None
        try:
            return os.fstat(fd).st_size
        finally:
            os.close(fd)

    def digest(self, name: str) -> Digest | None:
        return None

    def open(self, name: str) -> BinaryIO:
        fd = self._find(name)
        if fd is None:
            raise missing(name)
        return cast("BinaryIO", open(fd, "rb", buffering=0))

    def close(self) -> None:
        os.close(self._fd)

    def _find(self, name: str) -> int | None:
        try:
            fd = open_beneath_nofollow(self._fd, name, _FILE)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ENOTDIR):
                return None
            if error.errno == errno.ELOOP:
                raise self._refused(name, "it is a link, or lies behind one") from error
            raise translate(error, "read", f"{self._path}/{name}") from error
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            os.close(fd)
            raise self._refused(name, "it is no regular file")
        return fd

    def _refused(self, name: str, why: str) -> InvalidInput:
        return InvalidInput(
            f"{self._path}/{name} is not read",
            code="not-a-regular-file",
            context=why,
            hint=f"cp -rL {self._path} COPY makes files of links that you trust",
        )


class Slice(io.RawIOBase):
    """*size* bytes of an open file from *start* on; several may be read at once. Never closes *fd*."""

    def __init__(self, fd: int, start: int, size: int) -> None:
        self._fd = fd
        self._at = start
        self._end = start + size

    def readable(self) -> bool:
        return True

    def read(self, count: int | None = -1) -> bytes:
        left = self._end - self._at
        data = os.pread(self._fd, left if count is None or count < 0 else min(count, left), self._at)
        self._at += len(data)
        return data

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view))
        view[: len(data)] = data
        return len(data)
