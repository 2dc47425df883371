"""`make bench`: the figures of the project, each a ratio to a peer or to the floor.

All sides of a comparison run in turns in this one process, so a noisy machine is
noisy for all of them. Printed are the median and the quartiles of wall time, and
the median of processor time (all children waited for included).
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from statistics import median, quantiles
from typing import TYPE_CHECKING

from ..support.processes import version_line
from . import listing, running

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

PYTHON = sys.executable


class Figure:
    """What one side of a comparison took: milliseconds of wall and of processor time, one pair a round."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.wall: list[float] = []
        self.processor: list[float] = []

    def line(self) -> str:
        low, _, high = quantiles(self.wall, n=4)
        return (
            f"  {self.name:<44} {median(self.wall):8.1f} ms  ({low:.1f} to {high:.1f})"
            f"   processor {median(self.processor):7.1f} ms   n={len(self.wall)}"
        )


def measure(command: Sequence[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """(wall, processor) milliseconds of one run. Raises CalledProcessError when it fails."""
    null = os.open(os.devnull, os.O_RDWR)
    try:
        actions = [(os.POSIX_SPAWN_DUP2, null, fd) for fd in (0, 1)]
        began = time.perf_counter()
        pid = os.posix_spawn(command[0], list(command), environment, file_actions=actions)
        _, status, usage = os.wait4(pid, 0)
        wall = time.perf_counter() - began
    finally:
        os.close(null)
    if status != 0:
        raise subprocess.CalledProcessError(os.waitstatus_to_exitcode(status), list(command))
    return wall * 1e3, (usage.ru_utime + usage.ru_stime) * 1e3


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
            wall, processor = measure(command, environment)
            if number:
                figures[name].wall.append(wall)
                figures[name].processor.append(processor)
    for figure in figures.values():
        print(figure.line(), flush=True)
    return figures


def ratio(what: str, ours: float, theirs: float, limit: float) -> bool:
    found = ours / theirs
    print(f"  => {what}: {found:.2f} (at most {limit:g}) {'reached' if found <= limit else 'MISSED'}\n", flush=True)
    return found <= limit


def main() -> int:
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    print(f"load {os.getloadavg()[0]:.1f}; " + "; ".join(version_line(name) for name in ("crun", "runc", "podman")))
    print()
    folder = Path(tempfile.mkdtemp(prefix="argosy-bench-"))
    try:
        reached = [*listing.main(folder, compare, ratio), *running.main(folder, compare, ratio)]
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(reached)} of {len(reached)} figures reached")
    return 0 if all(reached) else 1


if __name__ == "__main__":
    sys.exit(main())
