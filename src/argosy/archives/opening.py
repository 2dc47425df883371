"""From what a user typed to the files of an archive: a folder, a tar on disk, or a stream that comes by once."""

from __future__ import annotations

import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, cast

from ..linux.files import reporting
from .files import Folder
from .outer import MAGIC_SIZE, compression_of_archive, uncompressed
from .received import Received
from .tar import TarFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..store.blobs import BlobStore
    from .files import Files
    from .received import Observer


@contextmanager
def opened(place: str, *, blobs: BlobStore, observer: Observer) -> Iterator[Files]:
    """The files of the archive at *place*: a folder, a file, or «-» for the standard input.

    A tar on disk is looked through without reading its content. A compressed one, or
    one from a pipe, goes into *blobs* while it is read, which *observer* is told of.

    Raises what the kernel says about *place*, as NotFound and so on; Corrupt.
    """
    with ExitStack() as stack:
        if place != "-" and os.path.isdir(place):
            files: Files = Folder(place)
        else:
            fd = _open(place, stack)
            if stat.S_ISREG(os.fstat(fd).st_mode) and _is_plain(fd):
                files = TarFile(fd)
            else:
                stream = uncompressed(cast("BinaryIO", open(fd, "rb", buffering=0, closefd=False)))
                files = Received(stream, blobs, observer)
        stack.callback(files.close)
        yield files


def _open(place: str, stack: ExitStack) -> int:
    if place == "-":
        return 0
    with reporting("read", place):
        fd = os.open(place, os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _is_plain(fd: int) -> bool:
    return compression_of_archive(os.pread(fd, MAGIC_SIZE, os.lseek(fd, 0, os.SEEK_CUR))) == "none"
