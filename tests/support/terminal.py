"""A terminal for tests: a pseudo-terminal of any size, and what stands on its screen after the bytes that came.

    with running(command, environ, columns=80, rows=24) as terminal:
        terminal.until(lambda: "Total" in terminal.text)
        terminal.resize(40, 10)
        status = terminal.wait()
        terminal.screen, terminal.history   # lines that are shown, lines that have left at the top

It knows what rich and we use: text, CR, LF, cursor up, erase, and nothing else; anything else fails.
"""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

_TOKEN = re.compile(r"\x1b\[([0-9;?]*)([A-Za-z])|([\r\n\x08\x07])|([^\x00-\x1f]+)|(.)", re.DOTALL)
_PATIENCE_S = 60.0


class Screen:
    """Lines of characters and a cursor; a line that is full goes on in the next, as on any terminal."""

    def __init__(self, columns: int, rows: int) -> None:
        self.columns = columns
        self.rows = rows
        self.lines = [""]
        #: lines that have left at the top
        self.history: list[str] = []
        self.row = self.column = 0

    def resize(self, columns: int, rows: int) -> None:
        """As xterm: what is too long is cut, the cursor stays on its line."""
        self.columns, self.rows = columns, rows
        self.lines = [line[:columns] for line in self.lines]
        self._scroll()

    def feed(self, text: str) -> None:
        for match in _TOKEN.finditer(text):
            number, command, control, words, other = match.groups()
            if words is not None:
                self._write(words)
            elif control is not None:
                self._control(control)
            elif command is not None:
                self._command(command, number)
            else:
                raise AssertionError(f"the terminal was sent {other!r}")

    def _write(self, text: str) -> None:
        for char in text:
            if self.column >= self.columns:
                self._control("\n")
                self.column = 0
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1

    def _control(self, char: str) -> None:
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
            self._scroll()

    def _command(self, command: str, number: str) -> None:
        if command == "A":
            self.row = max(self.row - int(number or 1), 0)
        elif command == "K":
            kept = 0 if number == "2" else self.column
            self.lines[self.row] = self.lines[self.row][:kept]
        elif not (command in "hl" and number == "?25") and command != "m":
            raise AssertionError(f"the terminal was sent the command {number}{command}")

    def _scroll(self) -> None:
        while len(self.lines) > self.rows:
            self.history.append(self.lines.pop(0))
            self.row = max(self.row - 1, 0)


class Terminal:
    """A program on a pseudo-terminal."""

    def __init__(self, pid: int, fd: int, columns: int, rows: int) -> None:
        self._pid = pid
        self._fd = fd
        self._rest = b""
        self.display = Screen(columns, rows)
        #: the screen after each piece that came
        self.frames: list[list[str]] = []
        self.raw = b""

    @property
    def screen(self) -> list[str]:
        return [line.rstrip() for line in self.display.lines]

    @property
    def history(self) -> list[str]:
        return [line.rstrip() for line in self.display.history]

    @property
    def text(self) -> str:
        return "\n".join(self.screen)

    def resize(self, columns: int, rows: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        self.display.resize(columns, rows)

    def until(self, condition: Callable[[], bool]) -> None:
        """Read until *condition*; an error when the program ends or a minute passes before that."""
        deadline = time.monotonic() + _PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited in vain, on the screen is:\n{self.text}"
            assert self._read(), f"the program has ended, on the screen is:\n{self.text}"

    def wait(self) -> int:
        """Read to the end; the exit status."""
        while self._read():
            pass
        pid, self._pid = self._pid, 0
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def kill(self) -> None:
        """End the program. Idempotent."""
        pid, self._pid = self._pid, 0
        if pid:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)

    def close(self) -> None:
        self.kill()
        os.close(self._fd)

    def _read(self) -> bool:
        if not select.select([self._fd], [], [], _PATIENCE_S)[0]:
            return True
        try:
            data = os.read(self._fd, 65536)
        except OSError:  # the last process on the other side has closed it
            return False
        self.raw += data
        whole, self._rest = _whole(self._rest + data)
        self.display.feed(whole)
        self.frames.append(self.screen)
        return bool(data)


def _whole(data: bytes) -> tuple[str, bytes]:
    """(text, an escape sequence or a character of which the end is still to come)"""
    cut = len(data)
    start = data.rfind(b"\x1b")
    if start >= 0 and not re.match(rb"\x1b\[[0-9;?]*[A-Za-z]", data[start:]):
        cut = start
    while cut:
        try:
            return data[:cut].decode(), data[cut:]
        except UnicodeDecodeError:
            cut -= 1
    return "", data


@contextmanager
def running(
    command: Sequence[str], environ: Mapping[str, str], *, columns: int = 80, rows: int = 24
) -> Iterator[Terminal]:
    """The program on a terminal of this size; it is killed if it is still there at the end."""
    pid, fd = pty.fork()
    if pid == 0:
        fcntl.ioctl(1, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))
        os.execve(command[0], list(command), dict(environ))
    terminal = Terminal(pid, fd, columns, rows)
    try:
        yield terminal
    finally:
        terminal.close()
