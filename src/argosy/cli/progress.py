"""Progress for people: a line a layer that lives on a terminal, plain lines elsewhere, nothing when quiet.

rich is imported only where there is a terminal to draw on.
"""

from __future__ import annotations

import sys
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from ..ops.progress import Advanced, Finished, Started, Warned
from . import output

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich import progress as rich_progress

    from ..ops.progress import Event, Progress
    from .host import Host


@contextmanager
def reporter(*, quiet: bool, host: Host, to_stdout: bool = False) -> Iterator[Progress]:
    """What draws a verb's events while the block runs; on stderr unless the progress is what was asked for.

    Equal warnings (of several layers) are drawn once.
    """
    stream = sys.stdout if to_stdout else sys.stderr
    if quiet:
        yield _warnings_once(_quiet)
    elif host.stdout_is_terminal if to_stdout else host.stderr_is_terminal:
        with _Drawn(stream, colour=host.colour) as drawn:
            yield _warnings_once(drawn.tell)
    else:
        yield _warnings_once(_Lines(stream).tell)


def _warnings_once(tell: Progress) -> Progress:
    said: set[str] = set()

    def once(event: Event) -> None:
        if isinstance(event, Warned):
            if event.text in said:
                return
            said.add(event.text)
        tell(event)

    return once


def _quiet(event: Event) -> None:
    if isinstance(event, Warned):
        output.warning(event.text)


class _Lines:
    """«1a2b3c4d5e6f: Pull complete», one after the other, for logs."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Warned):
                output.warning(event.text)
            elif isinstance(event, Finished):
                self._stream.write(f"{event.id}: {event.status}\n")
                self._stream.flush()


class _Drawn:
    """One line a layer, redrawn ten times a second until the block ends."""

    def __init__(self, stream: TextIO, *, colour: bool) -> None:
        from rich.console import Console
        from rich.progress import BarColumn, Progress, Task, TextColumn
        from rich.text import Text

        class Bar(BarColumn):
            """A bar while bytes move; a layer that waits or is done needs none."""

            def render(self, task: Task) -> Any:  # rich's own types of renderables
                return super().render(task) if task.fields["amount"] else Text()

        self._lock = threading.Lock()
        #: {id: rich's task}
        self._tasks: dict[str, rich_progress.TaskID] = {}
        self._progress = Progress(
            TextColumn("{task.fields[name]}: {task.description:<18}", markup=False),
            Bar(bar_width=30),
            TextColumn("{task.fields[amount]}", markup=False),
            console=Console(file=stream, no_color=not colour, highlight=False),
            redirect_stdout=False,
            redirect_stderr=False,
        )

    def tell(self, event: Event) -> None:
        with self._lock:
            if isinstance(event, Warned):
                self._progress.console.print(f"warning: {output.printable(event.text)}", markup=False)
            elif isinstance(event, Started):
                self._start(event)
            elif isinstance(event, Advanced):
                self._advance(event)
            else:
                self._finish(event)

    def _start(self, event: Started) -> None:
        task = self._task(event.id)
        self._progress.reset(task, total=event.total, description=event.what, name=event.id, amount="")

    def _advance(self, event: Advanced) -> None:
        task = self._task(event.id)
        self._progress.advance(task, event.count)
        self._progress.update(task, amount=self._amount(task))

    def _finish(self, event: Finished) -> None:
        task = self._task(event.id)
        self._progress.update(task, description=event.status, completed=1, total=1, amount="")

    def _task(self, name: str) -> rich_progress.TaskID:
        if name not in self._tasks:
            self._tasks[name] = self._progress.add_task("Waiting", total=None, name=name, amount="")
        return self._tasks[name]

    def _amount(self, task: rich_progress.TaskID) -> str:
        found = next(each for each in self._progress.tasks if each.id == task)
        done = output.human_size(int(found.completed))
        return f"{done}/{output.human_size(int(found.total))}" if found.total else done

    def __enter__(self) -> _Drawn:
        self._progress.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._progress.stop()
