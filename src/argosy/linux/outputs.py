"""What a user asked to be written somewhere: complete under its name, or not there at all.

Written beside its place and renamed, so a failure leaves what was there before. A pipe
or a device is written to as it is.
"""

from __future__ import annotations

import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import Conflict, InvalidInput, NotFound
from .files import remove_tree, reporting, sync_folder, translate

if TYPE_CHECKING:
    from collections.abc import Iterator

_BUFFER = 1 << 20  # bytes; headers of archives are small, and a pipe takes more at once


@contextmanager
def output_file(path: str, *, mode: int = 0o600) -> Iterator[BinaryIO]:
    """A file that is at *path*, synced, when the block ends; links at *path* are followed.

    Raises what the kernel says, as NotFound and so on, BrokenPipeError as it is.
    """
    path = _place(path)
    if os.path.isdir(path):
        raise InvalidInput(
            f"cannot write {path}: it is a folder",
            code="is-a-folder",
            hint=f"name a file in it, as in {path}/archive.tar",
        )
    if os.path.exists(path) and not stat.S_ISREG(os.stat(path).st_mode):
        with reporting("write", path):
            fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
        with buffered(fd, path) as file:
            yield file
        return
    aside = _aside(path)
    with reporting("write", path):
        fd = os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with buffered(fd, path) as file:
            yield file
            file.flush()
            os.fsync(fd)
        with reporting("write", path):
            os.rename(aside, path)
            sync_folder(os.path.dirname(path))
    except BaseException:
        with suppress(OSError):
            os.unlink(aside)
        raise


@contextmanager
def output_folder(path: str) -> Iterator[str]:
    """An empty folder, for the block to fill, that is at *path* when it ends. Raises Conflict (folder-not-empty)."""
    path = _place(path)
    if os.path.isdir(path) and os.listdir(path):
        raise Conflict(
            f"{path} is not empty",
            code="folder-not-empty",
            hint="name a folder that does not exist, or remove this one",
        )
    aside = _aside(path)
    with reporting("make", path):
        os.mkdir(aside, 0o755)
    try:
        yield aside
        with reporting("write", path):
            os.rename(aside, path)
            sync_folder(os.path.dirname(path))
    except BaseException:
        remove_tree(aside)
        raise


@contextmanager
def buffered(fd: int, name: str, *, close: bool = True) -> Iterator[BinaryIO]:
    """*fd* for writing all that is given. OSErrors of writing are reported for *name*, BrokenPipeError as it is."""
    file = open(fd, "wb", buffering=_BUFFER, closefd=close)
    try:
        yield cast("BinaryIO", _Reported(file, name))
    except BaseException:
        with suppress(OSError):  # what was written so far is of no use
            file.close()
        raise
    with _reported(name):
        file.close()


class _Reported:
    """A file whose faults name it; what is written to it comes from elsewhere, whose faults are others."""

    def __init__(self, file: BinaryIO, name: str) -> None:
        self._file = file
        self._name = name

    def write(self, data: bytes) -> int:
        with _reported(self._name):
            return self._file.write(data)

    def flush(self) -> None:
        with _reported(self._name):
            self._file.flush()


@contextmanager
def _reported(name: str) -> Iterator[None]:
    try:
        yield
    except BrokenPipeError:  # whoever read has seen enough, which is no fault
        raise
    except OSError as error:
        raise translate(error, "write", name) from error


def _place(path: str) -> str:
    """*path* without links. Raises NotFound (no-such-file) when the folder that it is to be in is not there."""
    path = os.path.realpath(path)
    folder = os.path.dirname(path)
    if not os.path.lexists(folder):
        raise NotFound(
            f"cannot write {path}",
            code="no-such-file",
            context=f"there is no folder {folder}",
            hint=f"mkdir -p {folder}",
        )
    return path


def _aside(path: str) -> str:
    """A hidden name beside *path* that nobody else takes."""
    folder, name = os.path.split(path)
    return os.path.join(folder, f".{name[:200]}.{os.getpid()}.{os.urandom(4).hex()}")
