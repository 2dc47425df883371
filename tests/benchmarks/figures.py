"""What a side of a comparison took, how it is printed, and what has to be reached."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from statistics import median, quantiles
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from resource import struct_rusage


class Options(NamedTuple):
    """What the command line asked for."""

    #: None leaves each part its own number
    rounds: int | None = None
    #: who serves the images: "argosy" or "docker"
    registry: str = "argosy"
    #: leave the registry's files on the disk before a pull
    is_registry_cold: bool = False


class Taken(NamedTuple):
    """Milliseconds."""

    wall: float
    processor: float


class Figure:
    """What one side took, one pair a round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wall: list[float] = []
        self.processor: list[float] = []

    def add(self, taken: Taken) -> None:
        self.wall.append(taken.wall)
        self.processor.append(taken.processor)

    def line(self) -> str:
        low, _, high = quantiles(self.wall, n=4) if len(self.wall) > 1 else self.wall * 3
        return (
            f"  {self.name:<44} {median(self.wall):8.1f} ms  ({low:.1f} to {high:.1f})"
            f"   processor {median(self.processor):7.1f} ms   n={len(self.wall)}"
        )


def measure(command: Sequence[str], environment: Mapping[str, str]) -> Taken:
    """One run, with all children that it waited for. Raises CalledProcessError when it fails."""
    began = time.perf_counter()
    with running(command, environment) as pid:
        usage = wait(pid, command)
    return Taken((time.perf_counter() - began) * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3)


@contextmanager
def running(command: Sequence[str], environment: Mapping[str, str]) -> Iterator[int]:
    """Start *command* without input or output and give its pid; an error or interrupt in the block ends it."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
        # A group of its own: an interrupt comes to us alone, and we end all of it.
        pid = os.posix_spawn(command[0], list(command), environment, file_actions=actions, setpgroup=0)
    finally:
        os.close(null)
    try:
        yield pid
    except BaseException:
        with suppress(ProcessLookupError, ChildProcessError):
            os.killpg(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        raise


def wait(pid: int, command: Sequence[str]) -> struct_rusage:
    """What the kernel counted of *pid*, now ended. Raises CalledProcessError when it failed."""
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), list(command))
    return usage


def compare(
    sides: Mapping[str, Sequence[str]], *, rounds: int, environment: Mapping[str, str], rest_s: float = 0
) -> dict[str, Figure]:
    """Run every side once a round, after one round that does not count; print and give the figures.

    *rest_s* seconds pass before each run.
    """
    figures = {name: Figure(name) for name in sides}
    for number in range(rounds + 1):
        for name, command in sides.items():
            time.sleep(rest_s)
            taken = measure(command, environment)
            if number:
                figures[name].add(taken)
    for figure in figures.values():
        print(figure.line(), flush=True)
    return figures


def ratio(what: str, ours: float, theirs: float, limit: float) -> bool:
    return at_most(what, ours / theirs, limit)


def at_most(what: str, found: float, limit: float, unit: str = "") -> bool:
    shown = f"{found:.2f}" if isinstance(found, float) else str(found)
    print(f"  => {what}: {shown}{unit} (at most {limit:g}) {'reached' if found <= limit else 'MISSED'}\n", flush=True)
    return found <= limit
