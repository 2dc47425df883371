"""A few things at once, with threads (transfers and decompression release the interpreter lock) or with processes.

The first error ends everything that is under way. Nothing of threading is
imported before it is needed.
"""

from __future__ import annotations

import os
import sys
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from ..errors import Cancelled
from .progress import Coalesced

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from threading import Event, Thread

    from .progress import Progress

    #: raises Cancelled when the others have been told to stop; to be called between pieces of work
    Check = Callable[[], None]

Item = TypeVar("Item")

LIMIT = 4  # at once; more make a registry refuse us and a disk seek
_FEWEST = 2  # processes on a machine with fewer processors: one waits for the network now and then
_LOOK_S = 0.1  # how soon the failure of one thread is noticed while we wait for another
_FAREWELL_S = 2.0  # how long we wait for threads that sit in a stalled connection; they end with the process


def in_parallel(work: Callable[[Item, Check], None], items: Iterable[Item], *, limit: int = LIMIT) -> None:
    """Do *work* for each item, begun in the order given, at most *limit* at once.

    Raises the first error there was; what was not begun by then stays undone, and
    the others are told to stop through their *check*.
    """
    waiting = deque(items)
    if len(waiting) < 2:
        for item in waiting:
            work(item, lambda: None)
        return
    _run_threads(work, waiting, min(limit, len(waiting)))


def in_processes(work: Callable[[Item, Check, Progress], None], items: Iterable[Item], *, progress: Progress) -> None:
    """As in_parallel, each item in one of a few processes: for work that needs the interpreter itself.

    *progress* is called in this process. A process that has threads cannot fork; there the
    work is done by threads of its own.
    """
    waiting = list(items)
    if has_threads():
        in_parallel(lambda item, check: work(item, check, progress), waiting)
    elif waiting:
        from ..linux.workers import run_workers

        crew = min(len(waiting), max(_FEWEST, min(processors(), LIMIT)))
        run_workers(lambda item, tell: work(item, lambda: None, Coalesced(tell)), waiting, crew, progress)


def processors() -> int:
    """How many this process may use."""
    return len(os.sched_getaffinity(0))


def has_threads() -> bool:
    """Whether other threads run, beside which nothing should fork."""
    threading = sys.modules.get("threading")
    return threading is not None and threading.active_count() > 1


def _run_threads(work: Callable[[Item, Check], None], waiting: deque[Item], count: int) -> None:
    import threading

    stop = threading.Event()
    failures: list[BaseException] = []

    def check() -> None:
        if stop.is_set():
            raise Cancelled("another part failed", code="cancelled")

    def labour() -> None:
        while not stop.is_set() and waiting:
            try:
                item = waiting.popleft()
            except IndexError:  # another thread took the last item
                return
            try:
                work(item, check)
            except BaseException as error:
                failures.append(error)
                stop.set()

    threads = [threading.Thread(target=labour, daemon=True) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        _await(threads, stop)
    finally:
        stop.set()
        for thread in threads:
            thread.join(_FAREWELL_S)
    if failures:
        raise failures[0]


def _await(threads: list[Thread], stop: Event) -> None:
    for thread in threads:
        while thread.is_alive() and not stop.is_set():
            thread.join(_LOOK_S)
