"""Attend a container that runs in the foreground: pass signals on, relay a terminal, wait for the end.

One loop on descriptors: the runtime's pidfd, the signals that arrived, and with
`-t` the terminal on both sides. The terminal's mode is put back on every way out.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from ..linux import processes

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

#: What is passed on to the container. Not SIGTSTP: Ctrl-Z stops us, and the container runs on.
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
    signal.SIGCONT,
)
_CHUNK = 1 << 16  # bytes a read from a terminal; its buffer holds 4 KiB


class Console:
    """Our end of the container's pseudo-terminal, which the runtime sends over a socket in *folder*."""

    runtime_fd = None

    def __init__(self, folder: str) -> None:
        self._folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        import socket  # 2.5 ms that only a terminal needs

        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A socket's path holds 107 bytes; through a descriptor any store folder fits, for the runtime too.
        self.path = f"/proc/{os.getpid()}/fd/{self._folder_fd}/console"
        self._listener.bind(self.path)
        self._listener.listen(1)
        self.listener_fd = self._listener.fileno()
        self.terminal_fd: int | None = None

    def accept(self) -> int:
        """Take the terminal from the runtime; called when the listener is readable."""
        import socket

        connection, _ = self._listener.accept()
        with connection:
            _, fds, _, _ = socket.recv_fds(connection, _CHUNK, 1)
        self.terminal_fd = fds[0]
        os.set_inheritable(fds[0], False)
        return fds[0]

    def close(self) -> None:
        self._listener.close()
        os.close(self._folder_fd)
        if self.terminal_fd is not None:
            os.close(self.terminal_fd)
            self.terminal_fd = None

    def __enter__(self) -> Console:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


class RelayedConsole:
    """A terminal between us and a runtime that relays the container's own one, as runc does in the foreground.

    runc insists on standing at a terminal then; it stands at ours, which changes no byte.
    """

    path = listener_fd = None

    def __init__(self) -> None:
        import tty

        self.terminal_fd, self.runtime_fd = os.openpty()
        tty.setraw(self.runtime_fd)

    def close(self) -> None:
        os.close(self.terminal_fd)
        os.close(self.runtime_fd)


@contextmanager
def caught_signals() -> Iterator[int]:
    """From here on FORWARDED and SIGWINCH arrive as bytes on the descriptor that this gives, instead of ending us.

    What our caller told us to ignore stays ignored: nohup means the container too.
    """
    reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    previous_fd = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    wanted = [number for number in (*FORWARDED, signal.SIGWINCH) if signal.getsignal(number) != signal.SIG_IGN]
    previous = {number: signal.signal(number, _ignore) for number in wanted}
    try:
        yield reader
    finally:
        signal.set_wakeup_fd(previous_fd)
        for number, handler in previous.items():
            signal.signal(number, handler)
        os.close(reader)
        os.close(writer)


def run(
    command: tuple[str, ...],
    *,
    env: Mapping[str, str],
    signals_fd: int,
    stdin_fd: int | None,
    console: Console | RelayedConsole | None = None,
) -> int:
    """Start the runtime's foreground command and attend it; its exit status (128 + n for signals).

    *stdin_fd* is the container's standard input (None: /dev/null); with *console* it
    is relayed and set to raw mode when it is a terminal.
    """
    with ExitStack() as stack:
        if console is not None and console.runtime_fd is not None:
            fds = dict.fromkeys((0, 1, 2), console.runtime_fd)
        else:
            fds = {0: stdin_fd if stdin_fd is not None and console is None else _null(stack)}
        pid = processes.spawn(command, env=env, fds=fds, new_group=True)
        pidfd = os.pidfd_open(pid)
        stack.callback(os.close, pidfd)
        if console is not None:
            _relay(pid, pidfd, signals_fd, console, stdin_fd, stack)
        else:
            _attend(pid, pidfd, signals_fd)
        return processes.wait(pid)


def _attend(pid: int, pidfd: int, signals_fd: int) -> None:
    poll = select.poll()
    poll.register(pidfd, select.POLLIN)
    poll.register(signals_fd, select.POLLIN)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        if signals_fd in ready:
            _forward(pid, signals_fd)
        if pidfd in ready:
            return


def _relay(
    pid: int,
    pidfd: int,
    signals_fd: int,
    console: Console | RelayedConsole,
    stdin_fd: int | None,
    stack: ExitStack,
) -> None:
    """As _attend, and move bytes between our terminal and the container's until it has ended and said everything."""
    poll = select.poll()
    for fd in (pidfd, signals_fd):
        poll.register(fd, select.POLLIN)

    def connect(terminal_fd: int) -> None:
        copy_size(1, terminal_fd)
        poll.register(terminal_fd, select.POLLIN)
        if stdin_fd is not None:
            if os.isatty(stdin_fd):
                stack.enter_context(raw_mode(stdin_fd))
            poll.register(stdin_fd, select.POLLIN)

    if isinstance(console, Console):
        poll.register(console.listener_fd, select.POLLIN)
    else:
        connect(console.terminal_fd)
    while True:
        ready = {fd for fd, _ in poll.poll()}
        terminal_fd = console.terminal_fd
        if signals_fd in ready and signal.SIGWINCH in _forward(pid, signals_fd) and terminal_fd is not None:
            copy_size(1, terminal_fd)
            if isinstance(console, RelayedConsole):
                os.kill(pid, signal.SIGWINCH)  # it copies the size on to the container's
        if isinstance(console, Console) and console.listener_fd in ready:
            poll.unregister(console.listener_fd)
            connect(console.accept())
        elif terminal_fd is not None and terminal_fd in ready and not _pump(terminal_fd, 1):
            poll.unregister(terminal_fd)
        if stdin_fd is not None and stdin_fd in ready and terminal_fd is not None and not _pump(stdin_fd, terminal_fd):
            poll.unregister(stdin_fd)
            with suppress(OSError):
                os.write(terminal_fd, b"\x04")  # end of file, as the line discipline spells it
        if pidfd in ready:
            _drain(terminal_fd)
            return


def _drain(terminal_fd: int | None) -> None:
    """What the program wrote last is still in the terminal's buffer."""
    if terminal_fd is None:
        return
    os.set_blocking(terminal_fd, False)
    while data := _read(terminal_fd):
        _write(1, data)


def _pump(source_fd: int, target_fd: int) -> bool:
    """Move what is there; False at the end."""
    data = _read(source_fd)
    if data:
        _write(target_fd, data)
    return data != b""


def _read(fd: int) -> bytes | None:
    """What is there, empty at the end (a terminal whose other side is closed says EIO); None when nothing is."""
    try:
        return os.read(fd, _CHUNK)
    except BlockingIOError:
        return None
    except OSError:
        return b""


def _write(fd: int, data: bytes) -> None:
    """All of *data*, also where another program on our terminal has made it non-blocking for everybody."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            poll = select.poll()
            poll.register(fd, select.POLLOUT)
            poll.poll()


def _forward(pid: int, signals_fd: int) -> set[int]:
    """Pass on what arrived; the runtime hands it to the container's first process."""
    arrived = set(os.read(signals_fd, 4096))
    for number in arrived & set(FORWARDED):
        with suppress(ProcessLookupError):
            os.kill(pid, number)
    return arrived


def copy_size(source_fd: int, target_fd: int) -> None:
    """Give the container's terminal the size of ours; without a terminal nothing changes."""
    import termios

    with suppress(OSError, termios.error):
        termios.tcsetwinsize(target_fd, termios.tcgetwinsize(source_fd))


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Keys go through as they are typed; the mode is put back whatever happens."""
    import termios
    import tty

    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSANOW)
        yield
    finally:
        termios.tcsetattr(fd, termios.TCSADRAIN, before)


def _null(stack: ExitStack) -> int:
    fd = os.open("/dev/null", os.O_RDONLY | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return fd


def _ignore(number: int, frame: object) -> None:
    """The wake-up descriptor carries the news."""
