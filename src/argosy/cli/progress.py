"""Progress for people and programs: a line a layer that lives on a terminal, plain lines, JSON lines, or nothing.

rich is imported, and its thread started, when the first work begins and there is a
terminal to draw on: a pull forks before that.
"""

from __future__ import annotations

import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

from ..ops.progress import WAITING, Advanced, Finished, Noted, Started, Waiting, Warned
from . import output
from .board import Board, final, frame, in_words

if TYPE_CHECKING:
    from argparse import ArgumentParser
    from collections.abc import Callable, Iterator
    from typing import TypeGuard

    from rich.live import Live
    from rich.text import Text

    from ..ops.progress import Event, Progress
    from .host import Host

MODES = ("auto", "tty", "plain", "json", "none")
_FRAMES_A_SECOND = 10
_JSON_STEP_S = 0.25  # between two lines about one layer that moves
_PLAIN_STEP_S = 30.0  # between two lines about the whole: a job's log shows that it is alive


def add_option(parser: ArgumentParser) -> None:
    """--progress, for a verb that has -q as well."""
    parser.add_argument(
        "--progress",
        metavar="MODE",
        choices=MODES,
        default="auto",
        help="auto, tty, plain, json (lines) or none (default: auto, by whether there is a terminal)",
    )


@contextmanager
def reporter(
    *, quiet: bool, host: Host, to_stdout: bool = False, mode: str = "auto", keep: bool = True
) -> Iterator[Progress]:
    """What shows a verb's events while the block runs; on stderr unless the progress is what was asked for.

    *mode* is one of MODES; *quiet* leaves warnings only. Equal warnings (of several
    layers) are shown once. Without *keep* nothing of what was drawn stays.
    """
    stream = sys.stdout if to_stdout else sys.stderr
    if mode == "auto":
        is_terminal = host.stdout_is_terminal if to_stdout else host.stderr_is_terminal
        mode = "tty" if is_terminal and host.can_draw and not host.debug else "plain"
    if quiet or stream is None:
        yield _once(_quiet)
    elif mode == "none":
        yield _once(_say)
    elif mode == "json":
        yield _once(_Json(stream, host.now).tell)
    elif mode == "plain":
        yield _once(_Plain(stream).tell)
    else:
        with _Drawn(stream, keep=keep) as drawn:
            yield _once(drawn.tell)


def json_event(now: str, name: str, status: str, **more: object) -> str:
    """One line of `--progress json`."""
    return output.json_line({"current": None, "id": name, "status": status, "time": now, "total": None, **more})


def _once(tell: Progress) -> Progress:
    """Warnings and notes once each, whoever has them."""
    said: set[str] = set()

    def once(event: Event) -> None:
        if isinstance(event, Warned | Noted):
            if event.text in said:
                return
            said.add(event.text)
        tell(event)

    return once


def _quiet(event: Event) -> None:
    if isinstance(event, Warned):
        output.warning(event.text)


def _say(event: Event) -> None:
    _quiet(event)
    if isinstance(event, Noted):
        output.note(f"note: {event.text}")


def _tells_why(event: Event) -> TypeGuard[Waiting]:
    """Whether *event* is about something that waits for more than its turn."""
    return isinstance(event, Waiting) and event.why != WAITING


class _Plain:
    """«1a2b3c4d5e6f: Pull complete», one after the other, for logs; what takes long says how far it is."""

    def __init__(self, stream: TextIO, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board()
        self._sampled = self._told = clock()

    def tell(self, event: Event) -> None:
        with self._lock:
            now = self._clock()
            _say(event)
            self._board.tell(event, now)
            if isinstance(event, Finished):
                self._write(f"{event.id}: {event.status}")
            elif _tells_why(event):
                self._write(f"{event.id}: {event.why}")
            elif isinstance(event, Advanced) and now - self._sampled >= 1:
                self._sampled = now
                self._board.sample(now)
                self._tell_of_all(now)

    def _tell_of_all(self, now: float) -> None:
        if now - self._told < _PLAIN_STEP_S or (total := self._board.total(now)) is None:
            return
        self._told = now
        what, amount = total
        self._write(f"{what}: {', '.join(filter(None, in_words(amount, now)))}")

    def _write(self, line: str) -> None:
        self._stream.write(f"{output.printable(line)}\n")
        self._stream.flush()


class _Json:
    """An object a line and an event; those of moving bytes a few a second."""

    def __init__(self, stream: TextIO, stamp: Callable[[], str], clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._stamp = stamp
        self._clock = clock
        self._lock = threading.Lock()
        self._board = Board()
        #: {id: when it was last told of}
        self._told: dict[str, float] = {}

    def tell(self, event: Event) -> None:
        with self._lock:
            now = self._clock()
            self._board.tell(event, now)
            if isinstance(event, Warned | Noted):
                status = "Warning" if isinstance(event, Warned) else "Note"
                self._write(json_event(self._stamp(), "", status, text=event.text))
            elif not isinstance(event, Advanced) or now - self._told.get(event.id, 0.0) >= _JSON_STEP_S:
                self._told[event.id] = now
                self._write(self._line(event.id))

    def _line(self, name: str) -> str:
        line = self._board.lines[name]
        current = line.amount.done if line.amount is not None else line.total if line.is_done else None
        return json_event(self._stamp(), name, line.what, current=current, total=line.total)

    def _write(self, line: str) -> None:
        self._stream.write(line)
        self._stream.flush()


class _Drawn:
    """One line a layer, redrawn ten times a second until the block ends; then all of them stay."""

    def __init__(self, stream: TextIO, *, keep: bool) -> None:
        self._stream = stream
        self._keep = keep
        self._board = Board()
        self._lock = threading.Lock()  # of the board; never held while something is written
        self._starting = threading.Lock()
        self._live: Live | None = None

    def tell(self, event: Event) -> None:
        if isinstance(event, Warned | Noted):
            self._say(event)
            return
        with self._lock:
            self._board.tell(event, time.monotonic())
        if self._live is None and (isinstance(event, Started | Advanced) or _tells_why(event)):
            self._start()

    def _say(self, event: Warned | Noted) -> None:
        if self._live is None:
            _say(event)
            return
        word = "warning" if isinstance(event, Warned) else "note"
        self._live.console.print(f"{word}: {output.printable(event.text)}", markup=False, soft_wrap=True)

    def _start(self) -> None:
        from rich.console import Console
        from rich.live import Live

        with self._starting:
            if self._live is not None:
                return
            console = Console(file=self._stream, force_terminal=True, no_color=True, highlight=False, emoji=False)
            live = Live(
                console=console,
                get_renderable=lambda: self._frame(console.size.width, console.size.height),
                refresh_per_second=_FRAMES_A_SECOND,
                transient=True,
                redirect_stdout=False,
                redirect_stderr=False,
            )
            live.start()
            self._live = live

    def _frame(self, width: int, height: int) -> Text:
        from rich.text import Text

        now = time.monotonic()
        with self._lock:
            self._board.sample(now)
            lines = frame(self._board, width, height - 1, now)
        return Text("\n".join(lines), no_wrap=True, overflow="crop")

    def __enter__(self) -> _Drawn:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._live is not None:
            self._live.stop()
        if self._keep:
            self._stream.write("".join(f"{line}\n" for line in final(self._board)))
            self._stream.flush()
