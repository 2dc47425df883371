"""Where a driver is looked for: four folders, so that a test host is a folder.

Names below a root are resolved as a process with that root would (linux/paths.py):
the absolute links of a driver root stay inside it. What cannot be reached counts
as absent, since every question here is «is it there?».
"""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import InvalidInput
from ..linux import paths

if TYPE_CHECKING:
    from collections.abc import Callable

_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.EACCES, errno.EPERM, errno.ELOOP, errno.ENXIO, errno.ENODEV, errno.EINVAL)
_T = TypeVar("_T")
_TEXT_LIMIT = 1 << 20  # bytes of a file of procfs or sysfs


class DriverRoots(msgspec.Struct, frozen=True, kw_only=True):
    """The folders that stand for «/» (driver files), /dev, /proc and /sys of a host."""

    driver: Path
    dev: Path
    proc: Path
    sys: Path

    @classmethod
    def host(cls) -> DriverRoots:
        """This machine as it is."""
        return cls(driver=Path("/"), dev=Path("/dev"), proc=Path("/proc"), sys=Path("/sys"))

    @classmethod
    def at(cls, folder: Path) -> DriverRoots:
        """A host that is a folder. What it has no dev, proc or sys folder for is this machine's.

        So /run/nvidia/driver of a driver container works beside a made-up host.
        """
        own = {name: folder / name for name in ("dev", "proc", "sys")}
        return cls(driver=folder, **{name: path if path.is_dir() else Path("/", name) for name, path in own.items()})

    @classmethod
    def under(cls, folder: Path) -> DriverRoots:
        """`at`, but «/» is this machine. Raises InvalidInput when there is no such folder."""
        if folder == Path("/"):
            return cls.host()
        if not folder.is_dir():
            raise InvalidInput(
                f"no folder {str(folder)!r} to look for the driver in",
                code="driver-root-invalid",
                hint="name the folder that stands for / of the driver, as /run/nvidia/driver",
            )
        return cls.at(folder)

    @property
    def has_real_devices(self) -> bool:
        """Whether nodes are this machine's own, so that only real devices of the right driver count."""
        return self.dev == Path("/dev")

    @property
    def has_real_module(self) -> bool:
        """Whether what is said about the kernel module is about this machine's kernel."""
        return self.proc == Path("/proc")


class Folder:
    """One root; every name beneath it is «/»-like, and absent means None or ()."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def real(self, name: str) -> str | None:
        """The path on this machine of what *name* leads to after all links."""
        fd = self._open(name, os.O_PATH)
        if fd is None:
            return None
        try:
            return os.readlink(f"/proc/self/fd/{fd}")
        finally:
            os.close(fd)

    def status(self, name: str) -> os.stat_result | None:
        """stat of what *name* leads to."""
        fd = self._open(name, os.O_PATH)
        if fd is None:
            return None
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def names(self, folder: str) -> tuple[str, ...]:
        """Names in a folder, sorted."""
        fd = self._open(folder, os.O_RDONLY | os.O_DIRECTORY)
        if fd is None:
            return ()
        try:
            return tuple(sorted(os.listdir(fd)))
        finally:
            os.close(fd)

    def link(self, name: str) -> str | None:
        """The text of the link *name*."""
        return self._with_root(lambda fd: paths.readlink(fd, name))

    def read(self, name: str, limit: int = _TEXT_LIMIT) -> bytes | None:
        """A regular file of at most *limit* bytes; a larger one, or another kind of file, counts as absent."""
        try:
            return self._with_root(lambda fd: paths.read_file_in_root(fd, name, limit))
        except InvalidInput:
            return None

    def text(self, name: str) -> str | None:
        data = self.read(name)
        return None if data is None else data.decode(errors="replace")

    def shown(self, name: str) -> str:
        """How to name a file to the user."""
        return os.path.join(self.path, name.lstrip("/"))

    def _open(self, name: str, flags: int) -> int | None:
        return self._with_root(lambda fd: paths.open_in_root(fd, name, flags | os.O_CLOEXEC))

    def _with_root(self, act: Callable[[int], _T]) -> _T | None:
        """What *act* gives for a descriptor of the root; None when the file (or the root) is not there."""
        try:
            fd = paths.open_root(self.path)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return None
        try:
            return act(fd)
        except OSError as error:
            if error.errno not in _ABSENT:
                raise
            return None
        finally:
            os.close(fd)
