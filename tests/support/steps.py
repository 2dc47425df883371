"""Run a program, see each step that it takes on the files beneath a folder, and make any one of them go wrong.

    done = watched(command("pull", name), environ, beneath=root)      # done.steps: what it did
    done = watched(…, at=7, fate="ENOSPC")                            # the seventh fails
    done = watched(…, at=7, fate="KILL")                              # all its processes are killed instead

A step is a system call of any process or thread of the program, on a file or a name
beneath the folder: the kernel asks us before it does it (seccomp user notification,
seccomp_unotify(2)), so what is tested is the program as it is, and no other writing (to
pipes, terminals, /proc) counts. Needs root or no_new_privs, Linux 5.5, x86-64 or arm64.
"""

from __future__ import annotations

import ctypes
import errno
import fcntl
import os
import platform
import select
import signal
import socket
import struct
import time
from typing import TYPE_CHECKING, Literal, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Collection, Mapping, Sequence
    from pathlib import Path

Fate = Literal["ENOSPC", "EIO", "KILL"]

#: {name: (number on x86-64, number on arm64, what of its arguments names the file)}; arguments: "f" a descriptor,
#: "p" a path, "d" a folder's descriptor and the path behind it, "-" something else. -1: there is no such call.
_CALLS: Mapping[str, tuple[int, int, str]] = {
    "write": (1, 64, "f"),
    "pwrite64": (18, 68, "f"),
    "writev": (20, 66, "f"),
    "fsync": (74, 82, "f"),
    "fdatasync": (75, 83, "f"),
    "ftruncate": (77, 46, "f"),
    "fchmod": (91, 52, "f"),
    "syncfs": (306, 267, "f"),
    "copy_file_range": (326, 285, "--f"),
    "rename": (82, -1, "-p"),
    "renameat": (264, 38, "--d"),
    "renameat2": (316, 276, "--d"),
    "link": (86, -1, "-p"),
    "linkat": (265, 37, "--d"),
    "mkdir": (83, -1, "p"),
    "mkdirat": (258, 34, "d"),
    "rmdir": (84, -1, "p"),
    "unlink": (87, -1, "p"),
    "unlinkat": (263, 35, "d"),
    "symlinkat": (266, 36, "-d"),
    "symlink": (88, -1, "-p"),
    "utimensat": (280, 88, "d"),
    "openat": (257, 56, "d"),
    "read": (0, 63, "f"),
    "pread64": (17, 67, "f"),
}
READING = frozenset({"read", "pread64"})
CHANGING = frozenset(_CALLS) - READING
_SECCOMP = {"x86_64": 317, "aarch64": 277}
_RECEIVE, _SEND = 0xC0502100, 0xC0182101  # SECCOMP_IOCTL_NOTIF_RECV, _SEND
_NOTICE = struct.Struct("<QIIiIQ6Q")  # struct seccomp_notif
_ANSWER = struct.Struct("<QqiI")  # struct seccomp_notif_resp
_GO_ON = 1  # SECCOMP_USER_NOTIF_FLAG_CONTINUE
_AT_FDCWD = 0xFFFFFF9C
_libc = ctypes.CDLL(None, use_errno=True)


class Step(NamedTuple):
    """One system call, and the path that it is about, relative to the folder."""

    call: str
    path: str


class Watched(NamedTuple):
    """How the program ended. *status* is negative where a signal ended it."""

    status: int
    output: str
    error: str
    steps: tuple[Step, ...]
    #: the step that went wrong, if it came to it
    failed: Step | None


def watched(
    words: Sequence[str],
    environ: Mapping[str, str],
    *,
    beneath: Path,
    scratch: Path,
    at: int | None = None,
    fate: Fate = "EIO",
    calls: Collection[str] = CHANGING,
    timeout_s: float = 60,
) -> Watched:
    """Run *words*; step number *at* (from 1) of those of *calls* meets its *fate*. *scratch* takes its output."""
    pid, listener_fd = _started(words, environ, scratch, calls)
    watch = _Watch(listener_fd, pid, str(beneath), at, fate)
    try:
        watch.attend(time.monotonic() + timeout_s)
    finally:
        os.close(listener_fd)
        _kill(pid)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    texts = [(scratch / name).read_text(errors="replace") for name in ("stdout", "stderr")]
    return Watched(status, texts[0], texts[1], tuple(watch.steps), watch.failed)


def _started(
    words: Sequence[str], environ: Mapping[str, str], scratch: Path, calls: Collection[str]
) -> tuple[int, int]:
    """(process, descriptor on which the kernel asks)"""
    code = _filter(calls)
    outputs = [os.open(scratch / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600) for name in ("stdout", "stderr")]
    ours, theirs = socket.socketpair()
    pid = os.fork()
    if not pid:
        try:
            os.setsid()
            null = os.open(os.devnull, os.O_RDONLY)
            for fd, number in ((null, 0), (outputs[0], 1), (outputs[1], 2)):
                os.dup2(fd, number)
            socket.send_fds(theirs, [b"x"], [_listen(code)])
            os.execve(words[0], list(words), dict(environ))
        finally:
            os._exit(127)
    theirs.close()
    for fd in outputs:
        os.close(fd)
    _, fds, _, _ = socket.recv_fds(ours, 1, 1)
    ours.close()
    if not fds:
        os.waitpid(pid, 0)
        raise OSError("this kernel gives no seccomp notifications")
    return pid, fds[0]


def _filter(calls: Collection[str]) -> bytes:
    """A BPF program that asks about *calls* and lets everything else pass."""
    column = ("x86_64", "aarch64").index(platform.machine())
    numbers = [_CALLS[name][column] for name in sorted(calls) if _CALLS[name][column] >= 0]
    code = [struct.pack("<HBBI", 0x20, 0, 0, 0)]  # load seccomp_data.nr
    for place, number in enumerate(numbers):
        code.append(struct.pack("<HBBI", 0x15, len(numbers) - place, 0, number))  # equal: to the last line
    code.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000))  # SECCOMP_RET_ALLOW
    code.append(struct.pack("<HBBI", 0x06, 0, 0, 0x7FC00000))  # SECCOMP_RET_USER_NOTIF
    return b"".join(code)


def _listen(code: bytes) -> int:
    """Install the filter; gives the descriptor of its listener."""
    buffer = ctypes.create_string_buffer(code, len(code))
    program = ctypes.create_string_buffer(struct.pack("<HxxxxxxQ", len(code) // 8, ctypes.addressof(buffer)), 16)
    if os.geteuid() != 0:
        _libc.prctl(38, 1, 0, 0, 0)  # PR_SET_NO_NEW_PRIVS
    # SECCOMP_SET_MODE_FILTER with SECCOMP_FILTER_FLAG_NEW_LISTENER
    fd: int = _libc.syscall(_SECCOMP[platform.machine()], 1, 8, program)
    if fd < 0:
        raise OSError(ctypes.get_errno(), "seccomp")
    return fd


class _Watch:
    def __init__(self, listener_fd: int, pid: int, folder: str, at: int | None, fate: Fate) -> None:
        self._listener_fd = listener_fd
        self._pid = pid
        self._folder = folder.rstrip("/") + "/"
        self._at = at
        self._fate = fate
        column = ("x86_64", "aarch64").index(platform.machine())
        self._names = {row[column]: name for name, row in _CALLS.items() if row[column] >= 0}
        self.steps: list[Step] = []
        self.failed: Step | None = None

    def attend(self, deadline: float) -> None:
        """Answer the kernel until no process of the program is left."""
        poll = select.poll()
        poll.register(self._listener_fd, select.POLLIN)
        while True:
            found = poll.poll(max(0, deadline - time.monotonic()) * 1000)
            if not found:
                raise TimeoutError(f"the program did not end; its last steps: {self.steps[-5:]}")
            if found[0][1] & select.POLLIN:
                self._answer()
            else:
                return

    def _answer(self) -> None:
        notice = bytearray(_NOTICE.size)
        try:
            fcntl.ioctl(self._listener_fd, _RECEIVE, notice)
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EINTR):  # it was killed meanwhile
                return
            raise
        ticket, pid, _, number, _, _, *arguments = _NOTICE.unpack(notice)
        failure = self._judge(pid, self._names[number], arguments)
        answer = _ANSWER.pack(ticket, 0, -failure, 0) if failure else _ANSWER.pack(ticket, 0, 0, _GO_ON)
        try:
            fcntl.ioctl(self._listener_fd, _SEND, answer)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise

    def _judge(self, pid: int, call: str, arguments: list[int]) -> int:
        """The errno that the call fails with; 0 to let it pass."""
        try:
            path = _path(pid, _CALLS[call][2], arguments)
        except OSError:  # it has ended, or closed the descriptor
            return 0
        if not path.startswith(self._folder) or "/mounts/" in path or not _is_change(call, arguments):
            return 0  # mounts/ is in memory, and the runtime's
        step = Step(call, path.removeprefix(self._folder).removesuffix(" (deleted)"))
        self.steps.append(step)
        if len(self.steps) != self._at:
            return 0
        self.failed = step
        if self._fate == "KILL":
            _kill(self._pid)
            return errno.EINTR
        return errno.ENOSPC if self._fate == "ENOSPC" else errno.EIO


def _is_change(call: str, arguments: list[int]) -> bool:
    """Opening a file is a step only where it makes one."""
    return call != "openat" or bool(arguments[2] & os.O_CREAT)


def _path(pid: int, shape: str, arguments: list[int]) -> str:
    at = len(shape) - 1
    if shape[at] == "f":
        return os.readlink(f"/proc/{pid}/fd/{arguments[at] & 0xFFFFFFFF}")
    folder, text = "cwd", arguments[at]
    if shape[at] == "d":
        fd, text = arguments[at] & 0xFFFFFFFF, arguments[at + 1]
        folder = "cwd" if fd == _AT_FDCWD else f"fd/{fd}"
    name = _text(pid, text) if text else ""  # utimensat of a descriptor has none
    if name.startswith("/proc/self/fd/"):
        return os.readlink(f"/proc/{pid}/{name.removeprefix('/proc/self/')}".rstrip("/"))
    return name if name.startswith("/") else os.path.join(os.readlink(f"/proc/{pid}/{folder}"), name).rstrip("/")


def _text(pid: int, address: int) -> str:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as memory:
        data = b""
        while b"\0" not in data and len(data) < 4096:
            memory.seek(address + len(data))
            more = memory.read(4096 - (address + len(data)) % 4096)  # to the end of its page
            if not more:
                raise ProcessLookupError(f"process {pid} has ended")
            data += more
    return os.fsdecode(data.partition(b"\0")[0])


def _kill(pid: int) -> None:
    """All processes of the session that *pid* leads, also those with a process group of their own."""
    for name in os.listdir("/proc"):
        if name.isdecimal():
            try:
                with open(f"/proc/{name}/stat", "rb") as file:
                    session = int(file.read().rpartition(b")")[2].split()[3])
            except (OSError, IndexError):
                continue
            if session == pid:
                try:
                    os.kill(int(name), signal.SIGKILL)
                except ProcessLookupError:
                    continue
