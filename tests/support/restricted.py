"""A file system that can do as little as a network one: FUSE over a folder, with what it refuses chosen by the test.

    with restricted(tmp_path / "disk", tmp_path / "mnt", Limits(hard_links=False)):
        …                       # tmp_path / "mnt" shows tmp_path / "disk"

Served by a process of its own, `python -m tests.support.restricted`. Several of them over
one folder are several machines that have it mounted: each caches, and locks, for itself.
"""

from __future__ import annotations

import ctypes.util
import errno
import os
import stat
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import msgspec
import pytest

from argosy.linux import mounts, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

START_S = 20.0
_NOW, _OMIT = (1 << 30) - 1, (1 << 30) - 2  # UTIME_NOW, UTIME_OMIT in tv_nsec
_STAT = ("st_ino", "st_mode", "st_nlink", "st_rdev", "st_size", "st_blocks", "st_blksize")


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the file system does not do. By default: as NFS with root squashed, at its least helpful."""

    #: (user, group) that all files seem to have, any chown is refused; None: they have owners
    owner: tuple[int, int] | None = (0, 0)
    #: "refused": ENOLCK; "unsupported": EOPNOTSUPP; "local": granted, but seen on this machine alone
    locks: Literal["refused", "unsupported", "local"] = "refused"
    xattrs: bool = False
    hard_links: bool = True
    symlinks: bool = True
    modes: bool = True
    devices: bool = False
    folder_sync: bool = False
    #: seconds to which times are rounded down
    grain_s: int = 1
    #: seconds for which names (absent ones too) and attributes are believed without asking again
    cache_s: float = 0


@contextmanager
def restricted(disk: Path, place: Path, limits: Limits | None = None) -> Iterator[Path]:
    """Show *disk* at *place* (both are made) until the block ends."""
    require_fuse()
    for folder in (disk, place):
        folder.mkdir(parents=True, exist_ok=True)
    server = start(disk, place, limits or Limits())
    try:
        yield place
    finally:
        stop(server, place)


def require_fuse() -> None:
    """Skip where there is none, or no right to mount it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a file system")
    if not os.path.exists("/dev/fuse") or ctypes.util.find_library("fuse3") is None:
        pytest.skip("no FUSE")


def start(disk: Path, place: Path, limits: Limits) -> subprocess.Popen[bytes]:
    """The server; it has mounted when this returns, and ends when *place* is unmounted."""
    before = os.stat(place).st_dev
    chosen = msgspec.json.encode(limits).decode()
    folder = Path(__file__).resolve().parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{folder}:{folder / 'src'}"}
    words = (sys.executable, "-m", "tests.support.restricted", str(disk), str(place), chosen)
    server = subprocess.Popen(words, env=environment, cwd=folder)
    deadline = time.monotonic() + START_S
    while os.stat(place).st_dev == before:
        assert server.poll() is None, f"the file system ended with {server.returncode}"
        assert time.monotonic() < deadline, "the file system does not come"
        time.sleep(0.01)
    return server


def stop(server: subprocess.Popen[bytes], place: Path) -> None:
    """Unmount; the server ends with the last file that is open in it."""
    mounts.unmount(str(place))
    try:
        server.wait(START_S)
    finally:
        server.kill()
        server.wait()


class _Folder:
    """What mfusepy calls for each request; paths begin with «/»."""

    use_ns = True

    def __init__(self, disk: str, limits: Limits) -> None:
        self._disk = disk
        self._limits = limits
        if limits.locks != "local":
            self.flock = self.lock = self._refuse_lock
        if limits.xattrs:
            self.setxattr, self.getxattr = self._setxattr, self._getxattr
            self.listxattr, self.removexattr = self._listxattr, self._removexattr

    def _at(self, path: str) -> str:
        return self._disk + path

    # ---- looking

    def getattr(self, path: str, fh: int | None = None) -> dict[str, Any]:  # Any: numbers of stat
        found = os.lstat(self._at(path)) if fh is None else os.fstat(fh)
        grain = self._limits.grain_s * 10**9 or 1
        times = {f"st_{name}": getattr(found, f"st_{name}_ns") // grain * grain for name in ("atime", "mtime", "ctime")}
        owners = self._limits.owner or (found.st_uid, found.st_gid)
        owner = dict(zip(("st_uid", "st_gid"), owners, strict=True))
        return {**{name: getattr(found, name) for name in _STAT}, **times, **owner}

    def statfs(self, path: str) -> dict[str, int]:
        found = os.statvfs(self._at(path))
        return {name: getattr(found, name) for name in dir(found) if name.startswith("f_") and name != "f_fsid"}

    def readlink(self, path: str) -> str:
        return os.readlink(self._at(path))

    def readdir(self, path: str, fh: int) -> list[tuple[str, dict[str, int], int]]:
        with os.scandir(self._at(path)) as found:
            entries = [(each.name, each.inode(), _type(each)) for each in found]
        entries += [(name, 1, stat.S_IFDIR) for name in (".", "..")]
        return [(name, {"st_ino": number, "st_mode": mode}, 0) for name, number, mode in entries]

    def opendir(self, path: str) -> int:
        os.stat(self._at(path))  # it may have gone by another machine's hand
        return 0

    def releasedir(self, path: str, fh: int) -> None:
        pass

    # ---- names

    def mkdir(self, path: str, mode: int) -> None:
        os.mkdir(self._at(path), mode)

    def rmdir(self, path: str) -> None:
        os.rmdir(self._at(path))

    def unlink(self, path: str) -> None:
        os.unlink(self._at(path))

    def rename(self, old: str, new: str) -> None:
        os.rename(self._at(old), self._at(new))

    def symlink(self, path: str, text: str) -> None:
        self._need(self._limits.symlinks)
        os.symlink(text, self._at(path))

    def link(self, path: str, existing: str) -> None:
        self._need(self._limits.hard_links)
        os.link(self._at(existing), self._at(path), follow_symlinks=False)

    def mknod(self, path: str, mode: int, device: int) -> None:
        self._need(self._limits.devices or not (stat.S_ISCHR(mode) or stat.S_ISBLK(mode)))
        os.mknod(self._at(path), mode, device)

    # ---- attributes

    def chmod(self, path: str, mode: int) -> None:
        self._need(self._limits.modes)
        os.chmod(self._at(path), mode)

    def chown(self, path: str, uid: int, gid: int) -> None:
        self._need(self._limits.owner is None)
        os.chown(self._at(path), uid, gid, follow_symlinks=False)

    def utimens(self, path: str, times: tuple[int, int]) -> None:
        os.utime(self._at(path), ns=times, follow_symlinks=False)

    def _setxattr(self, path: str, name: str, value: bytes, flags: int) -> None:
        os.setxattr(self._at(path), name, value, flags, follow_symlinks=False)

    def _getxattr(self, path: str, name: str) -> bytes:
        return os.getxattr(self._at(path), name, follow_symlinks=False)

    def _listxattr(self, path: str) -> list[str]:
        return os.listxattr(self._at(path), follow_symlinks=False)

    def _removexattr(self, path: str, name: str) -> None:
        os.removexattr(self._at(path), name, follow_symlinks=False)

    # ---- content

    def create(self, path: str, mode: int, flags: int) -> int:
        return os.open(self._at(path), flags & ~os.O_APPEND | os.O_CREAT, mode)

    def open(self, path: str, flags: int) -> int:
        return os.open(self._at(path), flags & ~(os.O_NOFOLLOW | os.O_APPEND))

    def read(self, path: str, size: int, offset: int, fh: int) -> bytes:
        return os.pread(fh, size, offset)

    def write(self, path: str, data: bytes, offset: int, fh: int) -> int:
        return os.pwrite(fh, data, offset)

    def truncate(self, path: str, length: int, fh: int | None = None) -> None:
        os.truncate(self._at(path) if fh is None else fh, length)

    def fsync(self, path: str, datasync: int, fh: int) -> None:
        os.fsync(fh)

    def fsyncdir(self, path: str, datasync: int, fh: int) -> None:
        if not self._limits.folder_sync:
            raise OSError(errno.EINVAL, "no fsync of folders")

    def release(self, path: str, fh: int) -> None:
        os.close(fh)

    def _refuse_lock(self, *request: object) -> None:
        raise OSError(errno.ENOLCK if self._limits.locks == "refused" else errno.EOPNOTSUPP, "no locks here")

    def _need(self, given: bool) -> None:
        if not given:
            raise OSError(errno.EPERM, "not on this file system")


def _type(entry: os.DirEntry[str]) -> int:
    if entry.is_dir(follow_symlinks=False):
        return stat.S_IFDIR
    return stat.S_IFLNK if entry.is_symlink() else stat.S_IFREG


def serve(disk: str, place: str, limits: Limits) -> None:
    """Mount and answer until somebody unmounts."""
    from mfusepy import FUSE

    class Server(FUSE):  # type: ignore[misc]  # mfusepy is untyped
        def rename_fuse_3(self, old: bytes, new: bytes, flags: int) -> int:
            if flags:
                return -errno.EINVAL
            self.rename_fuse_2(old, new)
            return 0

        def utimens_fuse_3(self, path: bytes, pair: Any, handle: Any) -> int:  # Any: ctypes pointers
            now = time.time_ns()
            found = os.lstat(disk.encode() + path)
            kept = (found.st_atime_ns, found.st_mtime_ns)
            asked = (pair.contents.actime, pair.contents.modtime)
            times = [
                {_NOW: now, _OMIT: old}.get(each.tv_nsec, each.tv_sec * 10**9 + each.tv_nsec)
                for each, old in zip(asked, kept, strict=True)
            ]
            self.operations.utimens(os.fsdecode(path), tuple(times))
            return 0

    flags = ("foreground", "nothreads", "allow_other", "default_permissions", "use_ino", "suid", "dev")
    cache = dict.fromkeys(("attr_timeout", "entry_timeout", "negative_timeout"), limits.cache_s)
    Server(_Folder(disk, limits), place, fsname="restricted", **dict.fromkeys(flags, True), **cache)


if __name__ == "__main__":
    syscalls.prctl(syscalls.PR_SET_PDEATHSIG, 9)
    serve(sys.argv[1], sys.argv[2], msgspec.json.decode(sys.argv[3], type=Limits))
