"""What a side of a comparison took, how it is printed, and the ratio that has to be reached."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from contextlib import suppress
from statistics import median, quantiles
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from resource import struct_rusage


class Figure:
    """What one side took: milliseconds of wall and of processor time, one pair a round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wall: list[float] = []
        self.processor: list[float] = []

    def add(self, taken: tuple[float, float]) -> None:
        self.wall.append(taken[0])
        self.processor.append(taken[1])

    def line(self) -> str:
        low, _, high = quantiles(self.wall, n=4) if len(self.wall) > 1 else self.wall * 3
        return (
            f"  {self.name:<44} {median(self.wall):8.1f} ms  ({low:.1f} to {high:.1f})"
            f"   processor {median(self.processor):7.1f} ms   n={len(self.wall)}"
        )


def measure(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """(wall, processor) milliseconds of one run, of all children that it waited for. Raises CalledProcessError."""
    wall, usage = run(command, environment)
    return wall, (usage.ru_utime + usage.ru_stime) * 1e3


def run(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, struct_rusage]:
    """(wall milliseconds, what the kernel counted). An interrupted benchmark ends what it started."""
    null = os.open(os.devnull, os.O_RDWR)
    pid = 0
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
        began = time.perf_counter()
        pid = os.posix_spawn(command[0], list(command), environment, file_actions=actions, setpgroup=0)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - began
    except BaseException:
        if pid:
            _end_group(pid)
        raise
    finally:
        os.close(null)
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), list(command))
    return wall * 1e3, usage


def _end_group(pid: int) -> None:
    with suppress(ProcessLookupError, ChildProcessError):
        os.killpg(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


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
    found = ours / theirs
    print(f"  => {what}: {found:.2f} (at most {limit:g}) {'reached' if found <= limit else 'MISSED'}\n", flush=True)
    return found <= limit
