"""A few processes of our own that work side by side and tell their parent what they do.

Python's interpreter lock lets one thread at a time read archives and build indexes;
processes have a lock each. They are forked, so they know all that their parent knew,
and end with it (PR_SET_PDEATHSIG), also when it is killed.
"""

from __future__ import annotations

import os
import pickle
import select
import signal
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, TypeVar

from ..errors import RuntimeFailed
from . import syscalls
from .processes import describe_status, exit_status

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import NoReturn

    #: what a worker tells: any value that pickles
    Tell = Callable[[Any], None]

Item = TypeVar("Item")

_LENGTH = struct.Struct("<I")
_READ = 1 << 16  # bytes a read of a pipe
_LARGEST_BLOCK = 1 << 25  # bytes; workers pass blocks of up to a megabyte from thread to thread
_MOST_UNUSED = 1 << 26


def run_workers(work: Callable[[Item, Tell], None], items: Sequence[Item], count: int, told: Tell) -> None:
    """Do *work* for each item in one of *count* processes, begun in the order given; *told* gets what they tell.

    The first exception that a worker ends with ends the others and is raised here. The
    caller has no threads: a fork copies only the one that calls it, and locks as they are.
    """
    crew = _Crew(work, items)
    try:
        for _ in range(count):
            crew.hire()
        crew.attend(told)
    finally:
        crew.dismiss()


class _Crew:
    def __init__(self, work: Callable[[Item, Tell], None], items: Sequence[Item]) -> None:
        self._work = work
        self._items = items
        self._waiting = deque(range(len(items)))
        #: {descriptor that its messages come from: worker}
        self._workers: dict[int, _Worker] = {}

    def hire(self) -> None:
        worker = _Worker()
        worker.start(lambda: self._labour(worker))
        self._workers[worker.messages_fd] = worker
        self._employ(worker)

    def attend(self, told: Tell) -> None:
        """Hear the workers until all items are done."""
        poll = select.poll()
        for fd in self._workers:
            poll.register(fd, select.POLLIN)
        while any(worker.busy for worker in self._workers.values()):
            for fd, _ in poll.poll():
                for kind, value in self._workers[fd].messages():
                    if kind == "told":
                        told(value)
                    elif kind == "failed":
                        raise value
                    else:
                        self._employ(self._workers[fd])

    def dismiss(self) -> None:
        """End all workers, whatever they are doing: what they leave can be taken up."""
        for worker in self._workers.values():
            worker.end()

    def _employ(self, worker: _Worker) -> None:
        worker.busy = bool(self._waiting)
        if self._waiting:
            worker.command(self._waiting.popleft())

    def _labour(self, worker: _Worker) -> None:
        """What a worker does with its life."""
        for other in self._workers.values():
            other.forget()
        for number in worker.commands():
            try:
                self._work(self._items[number], lambda value: worker.send(("told", value)))
            except BaseException as error:
                worker.send(("failed", error))
                return
            worker.send(("done", number))


class _Worker:
    """One forked process and the two pipes to it. Its methods belong to the parent or to the child, as they say."""

    def __init__(self) -> None:
        self.pid = 0
        self.busy = False
        self._pending = b""
        self._commands_fd, self._command_fd = os.pipe()
        self.messages_fd, self._message_fd = os.pipe()

    def start(self, labour: Callable[[], None]) -> None:
        """Parent: fork; the child does *labour* and ends."""
        parent = os.getpid()
        self.pid = os.fork()
        if not self.pid:
            self._live(labour, parent)
        os.close(self._commands_fd)
        os.close(self._message_fd)

    def command(self, number: int) -> None:
        """Parent: name the item that comes next."""
        os.write(self._command_fd, _LENGTH.pack(number))

    def messages(self) -> list[tuple[str, Any]]:
        """Parent: what has come in. Raises RuntimeFailed (worker-died) when nothing more can."""
        data = os.read(self.messages_fd, _READ)
        if not data:
            raise self._died()
        self._pending += data
        found = []
        while len(self._pending) >= _LENGTH.size:
            end = _LENGTH.size + _LENGTH.unpack_from(self._pending)[0]
            if len(self._pending) < end:
                break
            found.append(pickle.loads(self._pending[_LENGTH.size : end]))
            self._pending = self._pending[end:]
        return found

    def end(self) -> None:
        """Parent: kill it and wait for it. Idempotent."""
        self.forget()
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)
            os.waitpid(self.pid, 0)
            self.pid = 0

    def forget(self) -> None:
        """Close the parent's ends. Idempotent."""
        for fd in (self._command_fd, self.messages_fd):
            if fd >= 0:
                os.close(fd)
        self._command_fd = self.messages_fd = -1

    def commands(self) -> Any:  # an iterator of item numbers; mypy cannot see that iter() ends
        """Child: the items that the parent names."""
        while len(raw := os.read(self._commands_fd, _LENGTH.size)) == _LENGTH.size:
            yield _LENGTH.unpack(raw)[0]

    def send(self, message: tuple[str, Any]) -> None:
        """Child: tell the parent; from one thread at a time."""
        raw = pickle.dumps(message)
        view = memoryview(_LENGTH.pack(len(raw)) + raw)
        while view:
            view = view[os.write(self._message_fd, view) :]

    def _live(self, labour: Callable[[], None], parent: int) -> NoReturn:
        status = 1
        try:
            signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal's Ctrl-C is for the parent, which then ends us
            syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGKILL)
            syscalls.keep_memory(_LARGEST_BLOCK, _MOST_UNUSED)
            if os.getppid() == parent:
                self.forget()
                labour()
                status = 0
        finally:
            os._exit(status)  # not through the parent's exit handlers and half-written buffers

    def _died(self) -> RuntimeFailed:
        _, status = os.waitpid(self.pid, 0)
        self.pid = 0
        return RuntimeFailed(
            "a process of this command ended before its work",
            code="worker-died",
            context=describe_status(exit_status(status)),
            hint="was it out of memory? dmesg tells; what is done stays done, so try again",
        )
