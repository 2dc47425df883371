"""A tar file that can be sought in: its headers are read once, content only when somebody asks for it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, cast

from ..layer.archive import entries
from .files import Slice, missing
from .names import Names, refuse_holes

if TYPE_CHECKING:
    from typing import BinaryIO

    from ..oci.digest import Digest

_HEADERS = 1 << 16  # bytes read at once while only headers are wanted
_END = 512  # bytes of zeros; every tar that was written to its end has two such blocks there


class TarFile:
    """The members of the uncompressed tar that *fd* stands at the beginning of. The caller closes *fd*, later.

    Making it raises what layer.archive says about broken archives, and what Names does.
    """

    def __init__(self, fd: int) -> None:
        self._fd = fd
        start = os.lseek(fd, 0, os.SEEK_CUR)
        self._end = os.fstat(fd).st_size
        #: (first byte in the file, size) of each regular file
        self._names: Names[tuple[int, int]] = Names()
        headers = _Headers(fd, start, self._end)
        for entry in entries(cast("BinaryIO", headers)):
            if entry.kind == "file":
                refuse_holes(entry)
                self._names.add(entry, (start + entry.offset, entry.stored))
                headers.pass_over(start + entry.offset, entry.stored)
            elif entry.kind in ("symlink", "hardlink"):
                self._names.add_link(entry)

    def is_whole(self) -> bool:
        return os.pread(self._fd, _END, max(self._end - _END, 0)) == bytes(_END)

    def size(self, name: str) -> int | None:
        place = self._names.find(name)
        return None if place is None else place[1]

    def digest(self, name: str) -> Digest | None:
        return None

    def open(self, name: str) -> BinaryIO:
        place = self._names.find(name)
        if place is None:
            raise missing(name)
        return cast("BinaryIO", Slice(self._fd, *place))

    def close(self) -> None:
        """The file is the caller's."""


class _Headers:
    """The file for a reader that never seeks: what it will skip is made of zeros, not read from the disk."""

    def __init__(self, fd: int, start: int, end: int) -> None:
        self._fd = fd
        self._at = start
        self._end = end
        self._skipped = (0, 0)  # from byte, up to byte

    def pass_over(self, start: int, size: int) -> None:
        self._skipped = (start, start + size)

    def read(self, count: int) -> bytes:
        first, last = self._skipped
        if first <= self._at < min(last, self._end):
            data = bytes(min(count, min(last, self._end) - self._at))
        else:
            data = os.pread(self._fd, min(count, _HEADERS), self._at)
        self._at += len(data)
        return data


class Tail:
    """A stream that remembers how it ended: a tar that was cut between two members looks like a shorter one."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._last = b""

    @property
    def has_end_mark(self) -> bool:
        return self._last == bytes(_END)

    def read(self, count: int) -> bytes:
        data = self._stream.read(count)
        if data:
            self._last = data[-_END:] if len(data) >= _END else (self._last + data)[-_END:]
        return data
