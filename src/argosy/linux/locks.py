"""Which lock keeps processes apart: flock where it reaches all of them, a lease elsewhere.

`locked` is for short changes under a lock file; `hold` for a file or folder that one
process works on for long, alone. flock is quick, and the kernel drops it with its holder.
"""

from __future__ import annotations

import errno
import fcntl
import os
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Unavailable
from . import syscalls
from .files import reporting
from .lifetimes import pid_space

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from _typeshed import StrPath

    from .leases import Lease

#: What a file system without flock says to it (NFS without lockd, Lustre without «-o flock»).
NO_FLOCK = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})
#: File systems that several hosts may share, but whose flock may be seen by one host alone. Nothing tells a
#: program whether it is, and all that share a store must lock alike, so what counts is the kind alone.
#: Not here: CephFS, GFS2 and OCFS2, whose flock always is the cluster's, and all that one host has to itself.
_LOCAL_FLOCK = frozenset(
    {
        0x6969,  # NFS: with «nolock» or «local_lock=flock», and before Linux 2.6.12
        0x517B,  # SMB
        0xFF534D42,  # CIFS: with «nobrl»
        0xFE534D42,  # SMB 2 and later
        0x65735546,  # FUSE (sshfs, s3fs, GlusterFS, JuiceFS, virtiofs …): unless the server asks for it
        0x0BD00BD0,  # Lustre: with «localflock»
        0x47504653,  # GPFS (Spectrum Scale)
        0x19830326,  # BeeGFS: unless tuneUseGlobalFileLocks
        0xAAD7AAEA,  # PanFS
        0x01021997,  # 9p: QEMU's server grants everything
        0x5346414F,  # OpenAFS: readers only
        0x6B414653,  # kAFS
        0x73757245,  # Coda
        0x786F4256,  # VirtualBox's shared folders
    }
)
_FIRST_SPACE = 0xEFFFFFFC  # number of the pid namespace that a machine starts with: PROC_PID_INIT_INO
#: A work file without a lock that has not been written to for so long is nobody's. Seconds.
_IDLE_S = 3600.0


class Lock:
    """A lock that is held; `require` before a step that cannot be taken back."""

    def __init__(self, lease: Lease | None = None) -> None:
        self._lease = lease

    def require(self) -> None:
        """Raise Unavailable (code lease-lost) when it may not be ours any more."""
        if self._lease is not None:
            self._lease.require()


@contextmanager
def locked(
    path: StrPath, *, shared: bool = False, lasting: bool = False, timeout_s: float | None = None
) -> Iterator[Lock]:
    """Keep others out of what the lock file *path* stands for, which is made when absent and never removed.

    The lock ends with the process. *lasting* is for what may take longer than some seconds.
    *timeout_s* None waits for ever, 0 not at all; then Unavailable (code locked).
    """
    place = os.fspath(path)
    with reporting("lock", path):
        has_flock = flock_reaches_all(os.path.dirname(place))
        fd = os.open(place, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600) if has_flock else -1
    if fd >= 0:
        try:
            if _is_flocked(fd, place, fcntl.LOCK_SH if shared else fcntl.LOCK_EX, timeout_s):
                yield Lock()
                return
        finally:
            os.close(fd)
    from . import leases

    with reporting("lock", path):
        lease = leases.take(place, timeout_s=timeout_s, lasting=lasting)
    try:
        yield Lock(lease)
    finally:
        lease.release()


def flock_reaches_all(place: str | int) -> bool:
    """Whether flock on the file system of *place* (a path or a descriptor) keeps all away who can see the file."""
    path = f"/proc/self/fd/{place}" if isinstance(place, int) else place or "."
    return syscalls.statfs_type(path) not in _LOCAL_FLOCK


class Held(Lock):
    """An open file or folder that this process has to itself until `release`."""

    def __init__(self, path: str, fd: int, lease: Lease | None = None) -> None:
        super().__init__(lease)
        self.path = path
        self.fd = fd

    @property
    def is_named(self) -> bool:
        """Whether *path* is (still) a name of what is held."""
        return is_named(self.fd, self.path)

    def release(self) -> None:
        """Close it and let others have it. Idempotent."""
        fd, self.fd = self.fd, -1
        if fd >= 0:
            if self._lease is None:  # closing alone keeps it where a process forked meanwhile has it too
                fcntl.flock(fd, fcntl.LOCK_UN)
            os.close(fd)
            if self._lease is not None:
                self._lease.release()


def hold(
    path: str,
    flags: int,
    *,
    lock: str = "",
    timeout_s: float | None = None,
    waiting: Callable[[], None] = lambda: None,
) -> Held:
    """Open *path* with *flags* and keep all away who do the same, until the result is released.

    Its holder may remove or rename it: what is given has this name. Where leases are used
    theirs is that of *lock*, by default *path*. *timeout_s* as for `locked`; *waiting* is called
    once when others have it. Raises Unavailable (code locked), OSError as open.
    """
    if flock_reaches_all(os.path.dirname(path)):
        held = _hold_by_flock(path, flags, timeout_s, waiting)
        if held is not None:
            return held
    from . import leases

    lease = leases.take(lock or path, timeout_s=timeout_s, lasting=True, waiting=waiting)
    try:
        return Held(path, _open(path, flags), lease)
    except BaseException:
        lease.release()
        raise


def flock(fd: int, kind: int) -> None:
    """flock, refused with ENOLCK where it would not keep all away who can see the file. Raises OSError."""
    if not flock_reaches_all(fd):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))
    fcntl.flock(fd, kind)


def is_named(fd: int, path: str) -> bool:
    """Whether *path* is (still) a name of the open file or folder *fd*."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ESTALE):
            return False
        raise


def own_name(path: str, folder: str) -> str:
    """*path*; where leases are used, the name for it that this node, or pid namespace, alone uses. *folder* exists."""
    if flock_reaches_all(folder):
        return path
    above, name = os.path.split(path)
    node, space = os.uname().nodename.replace("/", "_")[:64], pid_space()
    return os.path.join(above, f"{node}@{name}" if space == _FIRST_SPACE else f"{node}+{space}@{name}")


@contextmanager
def idle(path: str) -> Iterator[int | None]:
    """A descriptor of the work file or folder *path*, and until the block ends nobody will `hold` it.

    None when somebody does, and when it is gone. What has no lock where flock is missing (a blob
    being written) counts as idle when it has not changed for an hour.
    """
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno not in (errno.ENOENT, errno.ESTALE, errno.ELOOP):
            raise
        yield None
        return
    try:
        with _idle(fd, path) as is_idle:
            yield fd if is_idle and is_named(fd, path) else None
    finally:
        os.close(fd)


@contextmanager
def _idle(fd: int, path: str) -> Iterator[bool]:
    if flock_reaches_all(fd):
        try:
            if _is_flocked(fd, path, fcntl.LOCK_EX, 0):
                yield True
                return
        except Unavailable:
            yield False
            return
    above, name = os.path.split(path)
    _, is_own, lock = name.partition("@")
    if not is_own:
        yield time.time() - os.fstat(fd).st_mtime > _IDLE_S
        return
    from . import leases

    try:
        lease = leases.take(os.path.join(above, lock), timeout_s=0)
    except Unavailable:
        yield False
        return
    try:
        yield True
    finally:
        lease.release()


def _hold_by_flock(path: str, flags: int, timeout_s: float | None, waiting: Callable[[], None]) -> Held | None:
    """None where there is no flock."""
    while True:
        held = Held(path, _open(path, flags))
        try:
            if not _is_flocked(held.fd, path, fcntl.LOCK_EX, timeout_s, waiting):
                os.close(held.fd)
                return None
            if held.is_named:  # the one before us may have renamed or removed what we waited for
                return held
        except BaseException:
            os.close(held.fd)
            raise
        held.release()


def _open(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)


def _is_flocked(
    fd: int, path: str, kind: int, timeout_s: float | None, waiting: Callable[[], None] | None = None
) -> bool:
    """Wait for the lock; False where there is no flock. Raises Unavailable (code locked)."""
    try:
        if timeout_s is None and waiting is None:
            fcntl.flock(fd, kind)
        else:
            _wait(fd, path, kind, timeout_s, waiting)
    except OSError as error:
        if error.errno not in NO_FLOCK:
            raise
        return False
    return True


def _wait(fd: int, path: str, kind: int, timeout_s: float | None, waiting: Callable[[], None] | None) -> None:
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pause = 0.001
    while True:
        try:
            return fcntl.flock(fd, kind | fcntl.LOCK_NB)
        except BlockingIOError as error:
            if deadline is not None and time.monotonic() >= deadline:
                raise Unavailable(
                    f"{path} is locked by another process",
                    code="locked",
                    context=f"waited {timeout_s:g} s",
                    hint="try again when the other argosy command has ended",
                ) from error
        if waiting is not None:
            waiting()
        if deadline is None:
            return fcntl.flock(fd, kind)
        time.sleep(pause)
        pause = min(pause * 2, 0.05)
