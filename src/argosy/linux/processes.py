"""Processes: start, wait, name for good, and put their ends into words.

Programs are started by posix_spawn, without the subprocess module (its import
costs 10 ms of a start).
"""

from __future__ import annotations

import errno
import fcntl
import os
import select
import signal
import stat
import time
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

from ..errors import NotFound, RuntimeFailed, Unavailable
from . import lifetimes

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

#: Where system programs are that a user's PATH often lacks (runc is in /usr/sbin on Debian).
SYSTEM_FOLDERS = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
_KEPT_LINES = 10  # last lines of a failed program that its error shows


class Completed(Struct, frozen=True, kw_only=True):
    """How a program ended and what it said."""

    argv: tuple[str, ...]
    #: 0…255; 128 + n when signal n ended it.
    status: int
    stdout: bytes = b""
    stderr: bytes = b""

    def check(self, doing: str = "") -> Completed:
        """Itself when the status is 0; else RuntimeFailed with the program's last lines and the command."""
        if self.status == 0:
            return self
        said = (self.stderr or self.stdout).decode(errors="replace").rstrip().splitlines()[-_KEPT_LINES:]
        raise RuntimeFailed(
            f"{doing or os.path.basename(self.argv[0])} failed: {describe_status(self.status)}",
            code="program-failed",
            context="\n".join([*said, f"command: {command_line(self.argv)}"]),
            status=self.status,
        )


#: what can be known of a process that may be another host's
Fate = Literal["alive", "dead", "unknown"]


class Process(Struct, frozen=True, kw_only=True):
    """One process among those of all hosts, named for good."""

    #: the host's name, for people
    host: str
    #: id of the host's start, of which *start* counts; no two hosts share one
    boot: str
    #: number of the pid namespace in which *pid* means something
    space: int
    pid: int
    start: int

    @classmethod
    def own(cls) -> Process:
        """This one."""
        pid = os.getpid()
        return cls(
            host=os.uname().nodename,
            boot=lifetimes.boot_id(),
            space=lifetimes.pid_space(),
            pid=pid,
            start=lifetimes.start_time(pid) or 0,
        )

    def fate(self) -> Fate:
        """What has become of it; unknown from another host, from after a boot, and from another pid namespace."""
        if self.boot != lifetimes.boot_id() or self.space != lifetimes.pid_space():
            return "unknown"
        return "alive" if lifetimes.is_alive(self.pid, self.start) or _is_hidden(self.pid) else "dead"


def exit_status(wait_status: int) -> int:
    """The shell's number for what waitpid returned: the exit status, or 128 + signal."""
    code = os.waitstatus_to_exitcode(wait_status)
    return 128 - code if code < 0 else code


def describe_status(status: int) -> str:
    """«exit status 3», «killed by SIGKILL (137)»."""
    if 128 < status < 128 + signal.NSIG:
        return f"killed by {signal_name(status - 128)} ({status})"
    return f"exit status {status}"


def signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"SIGRTMIN+{number - signal.SIGRTMIN}" if number >= signal.SIGRTMIN else f"signal {number}"


def command_line(argv: Iterable[str]) -> str:
    """What to type in a shell to run it again."""
    import shlex

    return shlex.join(argv)


def find_program(name: str, *, path: str, extra_folders: Sequence[str] = ()) -> str | None:
    """The first executable *name* in *extra_folders*, then *path* (as $PATH), then the system's folders.

    A name with a slash is taken as it is. None when there is none.
    """
    if "/" in name:
        return name if _is_program(name) else None
    for folder in (*extra_folders, *path.split(":"), *SYSTEM_FOLDERS):
        candidate = os.path.join(folder, name)
        if folder.startswith("/") and _is_program(candidate):
            return candidate
    return None


def spawn(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    fds: Mapping[int, int] | None = None,
    new_session: bool = False,
    new_group: bool = False,
) -> int:
    """Start a program and return its pid.

    With *new_group* the terminal's signals (Ctrl-C) reach us alone, to pass on.

    *fds* is {descriptor in the program: descriptor here}; what it does not name is
    closed, but 0, 1 and 2 are inherited. Signals are at their defaults and unblocked.
    Raises NotFound (code "program-not-found") or RuntimeFailed ("program-not-executable").
    """
    lifted = _lifted(fds or {})
    try:
        actions = [(os.POSIX_SPAWN_DUP2, here, there) for there, here in lifted.items()]
        group: dict[str, Any] = {"setpgroup": 0} if new_group else {}
        return os.posix_spawn(
            argv[0],
            list(argv),
            env,
            file_actions=actions,
            setsid=new_session,
            setsigmask=(),
            setsigdef=_DEFAULTS,
            **group,
        )
    except OSError as error:
        raise _not_started(argv, error) from error
    finally:
        for fd in lifted.values():
            os.close(fd)


def run_program(
    argv: Sequence[str],
    *,
    env: Mapping[str, str],
    stdin: bytes = b"",
    limit: int = 1 << 20,
    timeout_s: float | None = None,
    fds: Mapping[int, int] | None = None,
) -> Completed:
    """Run a program to its end; the last *limit* bytes of each output are kept.

    It ends when the program does, even if a grandchild keeps the outputs open.
    *fds* as in spawn, and may take 0, 1 or 2 away from us. Over *timeout_s* it is
    killed and Unavailable (code "program-timeout") raised. Its status is not
    judged: see Completed.check.
    """
    given = dict(fds or {})
    pipes = {there: os.pipe2(os.O_CLOEXEC) for there in (1, 2) if there not in given}
    open_fds = [end for pipe in pipes.values() for end in pipe]
    try:
        if 0 not in given:
            given[0] = _input(stdin)
            open_fds.append(given[0])
        pid = spawn(argv, env=env, fds=given | {there: pipe[1] for there, pipe in pipes.items()})
        for _, write_end in pipes.values():
            os.close(write_end)
            open_fds.remove(write_end)
        outputs = {pipe[0]: _Tail(limit) for pipe in pipes.values()}
        status = _attend(pid, outputs, argv, timeout_s)
    finally:
        for fd in open_fds:
            os.close(fd)
    said = {there: outputs[pipe[0]].value() for there, pipe in pipes.items()}
    return Completed(argv=tuple(argv), status=status, stdout=said.get(1, b""), stderr=said.get(2, b""))


def wait(pid: int) -> int:
    """Wait for a child to end; its exit status (128 + n for signals)."""
    return exit_status(os.waitpid(pid, 0)[1])


def wait_pidfd(pidfd: int, timeout_s: float | None = None) -> bool:
    """Wait until the process ends, child or not; False when the time is over."""
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else max(0, timeout_s * 1000)))


_DEFAULTS = tuple(number for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT, signal.SIGTERM, signal.SIGHUP))


class _Tail:
    """The last bytes of a stream."""

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self._data = bytearray()

    def add(self, chunk: bytes) -> None:
        self._data += chunk
        if len(self._data) > 2 * self._limit:
            del self._data[: -self._limit]

    def value(self) -> bytes:
        return bytes(self._data[-self._limit :]) if self._limit else b""


def _attend(pid: int, outputs: dict[int, _Tail], argv: Sequence[str], timeout_s: float | None) -> int:
    """Read outputs until the program ends, then what is left in the pipes; reaps it in every case."""
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    pidfd = os.pidfd_open(pid)
    try:
        poll = select.poll()
        for fd in (pidfd, *outputs):
            os.set_blocking(fd, False)
            poll.register(fd, select.POLLIN)
        while True:
            left = None if deadline is None else max(0.0, deadline - time.monotonic()) * 1000
            ready = {fd for fd, _ in poll.poll(left)}
            if not ready:
                raise _too_slow(argv, timeout_s or 0)
            for fd in ready & outputs.keys():
                if not _drain(fd, outputs[fd]):
                    poll.unregister(fd)
            if pidfd in ready:
                for fd in outputs:
                    _drain(fd, outputs[fd])
                return wait(pid)
    except BaseException:  # Ctrl-C included: no child is left behind
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        os.waitpid(pid, 0)
        raise
    finally:
        os.close(pidfd)


def _drain(fd: int, tail: _Tail) -> bool:
    """Read what is there; False at the end of the stream."""
    while True:
        try:
            chunk = os.read(fd, 1 << 16)
        except BlockingIOError:
            return True
        if not chunk:
            return False
        tail.add(chunk)


def _too_slow(argv: Sequence[str], timeout_s: float) -> Unavailable:
    return Unavailable(
        f"{os.path.basename(argv[0])} did not end within {timeout_s:g} s",
        code="program-timeout",
        context=f"command: {command_line(argv)}",
    )


def _input(data: bytes) -> int:
    """A descriptor to read *data* from; a file in memory, so that nobody has to feed a pipe."""
    if not data:
        return os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    fd = os.memfd_create("stdin", os.MFD_CLOEXEC)
    view = memoryview(data)
    while view:
        view = view[os.write(fd, view) :]
    os.lseek(fd, 0, os.SEEK_SET)
    return fd


def _lifted(fds: Mapping[int, int]) -> dict[int, int]:
    """Duplicates above all targets, so that no dup2 overwrites the source of a later one."""
    floor = max(fds, default=2) + 1
    lifted: dict[int, int] = {}
    try:
        for there, here in fds.items():
            lifted[there] = fcntl.fcntl(here, fcntl.F_DUPFD_CLOEXEC, floor)
    except BaseException:
        for fd in lifted.values():
            os.close(fd)
        raise
    return lifted


def _not_started(argv: Sequence[str], error: OSError) -> Exception:
    context = f"command: {command_line(argv)}"
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return NotFound(f"no program {argv[0]}", code="program-not-found", context=context)
    return RuntimeFailed(
        f"cannot start {argv[0]}: {error.strerror}", code="program-not-executable", context=context, exit_status=126
    )


def _is_program(path: str) -> bool:
    try:
        return stat.S_ISREG(os.stat(path).st_mode) and os.access(path, os.X_OK)
    except OSError:
        return False


def _is_hidden(pid: int) -> bool:
    """Whether the process exists though /proc does not show it (mounted with hidepid)."""
    if lifetimes.start_time(pid) is not None:
        return False
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
