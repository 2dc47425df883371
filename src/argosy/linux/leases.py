"""Locks for file systems on which flock does not reach everybody: a file that names who holds it.

A lease is the file `<path>.lease`, made with all its content by hard-linking it to its name (O_EXCL
where there are no links), which one process alone can do, also over NFS. It names its holder: host,
boot, pid namespace, pid, start time, and a random word. Whoever finds one waits, unless
the holder is gone:

- A holder of this boot and pid namespace is looked up. It is gone when no process has
  its pid and start time. As long as it lives, stopped or slow, nobody takes its lease. What a killed
  process has asked of the file system may still be on its way, to be done later (the
  removal of a blob, or of this lease), so its lease is given up DRAIN_S after it was found dead.
- Of any other nothing can be known. It is given up when the lease has not changed for
  EXPIRY_S by the clock of the one who waits; clocks of different hosts are never compared.
  Leases that last are therefore renewed (their time is set) every RENEW_S by a thread.

Why there are not two holders:

1.  A lease comes into being by one exclusive operation, so of many that try at once one gets it.
2.  It is removed by its holder, or by one who has found the holder gone. The latter first takes
    the lease `<path>.lease.lease` by these same rules and then looks again, so that what
    it removes is what it has judged, not what another waiter has made meanwhile. One who dies in there
    leaves a lease that is given up as any other is; each level needs one more death
    within microseconds.
3.  A holder on another host that was stopped or cut off for EXPIRY_S may be
    taken for gone, and go on later. It does not remove a lease that it has held, or last renewed, for longer
    than half of that, and `require` then refuses; callers ask right before a step that cannot be
    taken back. Long work is done under names that no other node uses (locks.own_name), so
    that even a request that the network delivers late hits nothing of others.

Shared locks are exclusive here. A file system whose clients see a removed file for long
(NFS) is asked anew by opening the file, as its close-to-open rule promises.
"""

from __future__ import annotations

import errno
import math
import os
import threading
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Unavailable
from . import processes

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import StrPath

    from .processes import Fate

SUFFIX = ".lease"
EXPIRY_S = 90.0  # seconds; longer than the 60 for which NFS may show an old time (acregmax), and RENEW_S
RENEW_S = 15.0
DRAIN_S = 2.0  # seconds; requests reach a server, and are done there, within milliseconds
_LITTER_S = 3600.0
_LIMIT = 4096  # bytes of a lease
_NO_LINKS = (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS)
_GONE = (errno.ENOENT, errno.ESTALE)
_FULL = (errno.ENOSPC, errno.EDQUOT)


class Lease:
    """A lease that is held; `take` gets one. `release` it."""

    def __init__(self, path: str, text: bytes) -> None:
        self._path = path
        self._text = text
        self._pid = os.getpid()
        self.renewed = _now()

    def require(self) -> None:
        """Raise Unavailable (code lease-lost) when others may have taken this lease for abandoned."""
        if _now() - self.renewed > EXPIRY_S / 2:
            raise Unavailable(
                "this process was stopped for so long that others may have gone on in its place",
                code="lease-lost",
                context=f"{self._path} was last renewed {_now() - self.renewed:.0f} s ago",
                hint="do it again",
            )

    def renew(self) -> None:
        """Show that the holder lives; nothing when others have taken the lease."""
        began = _now()
        with suppress(OSError):
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
            try:
                if os.read(fd, _LIMIT) == self._text:
                    os.utime(fd)
                    self.renewed = began
            finally:
                os.close(fd)

    def release(self) -> None:
        """Let others have it. Idempotent; nothing in a child that was forked meanwhile."""
        if not self._path or self._pid != os.getpid():
            return
        _renewer.drop(self)
        path, self._path = self._path, ""
        if _now() - self.renewed < EXPIRY_S / 2:
            _unlink(path)


def take(
    path: StrPath,
    *,
    timeout_s: float | None = None,
    lasting: bool = False,
    waiting: Callable[[], None] = lambda: None,
) -> Lease:
    """Get the lease of *path*, a name that need not exist. A *lasting* one is renewed by a thread until its release.

    *timeout_s* None waits for ever, 0 not at all; then Unavailable (code locked).
    *waiting* is called once, when somebody else has it. Raises OSError.
    """
    text = msgspec.json.encode(_Holder(process=processes.Process.own(), word=os.urandom(8).hex()))
    place = os.fspath(path) + SUFFIX
    wait = _Wait(place, timeout_s, 0.2 if lasting else 0.05, waiting)
    lease = Lease(place, text)
    while not (_make(place, text) or wait.until_free(text)):
        lease = Lease(place, text)
    if lasting:
        _renewer.add(lease)
    return lease


def tidy(folder: StrPath) -> None:
    """Remove the leases in *folder* that dead holders left and nobody has wanted for an hour."""
    latest = time.time() - _LITTER_S
    for name in os.listdir(folder):
        path = os.path.join(folder, name)
        with suppress(FileNotFoundError):
            if SUFFIX not in name or os.lstat(path).st_mtime > latest:
                continue
            if not name.endswith(SUFFIX):  # somebody died while making one
                os.unlink(path)
            elif (found := _look(path)) is not None and _fate(found) != "alive":
                _break(path, found)


class _Holder(msgspec.Struct, frozen=True, kw_only=True):
    process: processes.Process
    word: str


class _Found(msgspec.Struct, frozen=True, kw_only=True):
    """A lease that somebody has, as it was seen."""

    text: bytes
    mtime_ns: int


class _Wait:
    """Waiting for a lease; what was seen of its holders, and for how long."""

    def __init__(self, path: str, timeout_s: float | None, slowest_s: float, waiting: Callable[[], None]) -> None:
        self._path = path
        self._timeout_s = timeout_s
        self._slowest_s = slowest_s
        self._waiting: Callable[[], None] | None = waiting
        self._began = self._since = _now()
        #: what was there, and what was known of its holder, since *_since*
        self._seen: tuple[_Found, Fate] | None = None
        self._pause = 0.001

    def until_free(self, own: bytes) -> bool:
        """Wait until nobody has the lease; true when it turns out to be *own*: made, but the answer was lost."""
        found = _look(self._path)
        if found is None:  # freed since we tried; or NFS does not show yet what is there
            self._sleep(None)
        while found is not None and found.text != own:
            seen = found, _fate(found)
            if seen != self._seen:
                self._seen, self._since = seen, _now()
            if _now() - self._since >= _patience_s(seen[1]):
                _break(self._path, found)
            else:
                self._sleep(found)
            found = _look(self._path)
        return found is not None

    def _sleep(self, found: _Found | None) -> None:
        if self._timeout_s is not None and _now() - self._began >= self._timeout_s:
            raise _locked(self._path, found, self._timeout_s)
        waiting, self._waiting = self._waiting, None
        if waiting is not None:
            waiting()
        time.sleep(self._pause)
        self._pause = min(self._pause * 2, self._slowest_s)


def _make(path: str, text: bytes) -> bool:
    """Make the lease with all its content; False where there is one."""
    aside = f"{path}.{os.urandom(6).hex()}"
    try:
        _write_new(aside, text)
        os.link(aside, path, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
    else:
        return True
    finally:
        _unlink(aside)
    try:
        _write_new(path, text)  # who dies between the two steps in there leaves an empty lease, which expires
    except FileExistsError:
        return False
    return True


def _write_new(path: str, text: bytes) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        os.write(fd, text)
    except OSError as error:
        if error.errno not in _FULL:  # an empty lease holds as well, and who frees space needs one
            raise
    finally:
        with suppress(OSError):  # NFS tells of the full disk here
            os.close(fd)


def _look(path: str) -> _Found | None:
    """What is there now; opened rather than looked up, see above. None when it is gone."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    try:
        return _Found(text=os.read(fd, _LIMIT), mtime_ns=os.fstat(fd).st_mtime_ns)
    except OSError as error:
        if error.errno in _GONE:
            return None
        raise
    finally:
        os.close(fd)


def _patience_s(fate: Fate) -> float:
    """For how long a lease is respected that does not change."""
    return {"alive": math.inf, "dead": DRAIN_S, "unknown": EXPIRY_S}[fate]


def _fate(found: _Found) -> Fate:
    try:
        return msgspec.json.decode(found.text, type=_Holder).process.fate()
    except msgspec.MsgspecError:  # being written where there are no links, or by one who died then
        return "unknown"


def _break(path: str, found: _Found) -> None:
    """Remove a lease that was found abandoned, unless it is not that one any more."""
    right = take(path)
    try:
        if _look(path) == found:
            right.require()
            _unlink(path)
    finally:
        right.release()


def _locked(path: str, found: _Found | None, timeout_s: float) -> Unavailable:
    try:
        process = msgspec.json.decode(found.text if found else b"", type=_Holder).process
        holder = f"process {process.pid} on {process.host} has it"
    except msgspec.MsgspecError:
        holder = "somebody has it"
    return Unavailable(
        f"{path.removesuffix(SUFFIX)} is locked by another process",
        code="locked",
        context=f"{holder}; waited {timeout_s:g} s",
        hint="try again when the other argosy command has ended",
    )


class _Renewer:
    """The thread that renews this process's lasting leases; it lives while there are any."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._leases: list[Lease] = []
        self._thread: threading.Thread | None = None

    def add(self, lease: Lease) -> None:
        with self._changed:
            self._leases.append(lease)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="leases", daemon=True)
                self._thread.start()

    def drop(self, lease: Lease) -> None:
        thread = None
        with self._changed:
            if lease in self._leases:
                self._leases.remove(lease)
                if not self._leases:
                    thread, self._thread = self._thread, None
                    self._changed.notify_all()
        if thread is not None:
            thread.join()

    def _is_over(self) -> bool:
        return self._thread is not threading.current_thread()

    def _work(self) -> None:
        while True:
            with self._changed:
                if self._changed.wait_for(self._is_over, RENEW_S):
                    return
                leases = tuple(self._leases)
            for lease in leases:
                lease.renew()


_renewer = _Renewer()


def _forget() -> None:
    """In a forked child, which holds nothing of what its parent holds."""
    global _renewer
    _renewer = _Renewer()


os.register_at_fork(after_in_child=_forget)


def _now() -> float:
    """Seconds, those included in which the machine slept."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
