"""`make bench`: the figures of the project, each a ratio to a peer or to the floor.

    python -m tests.benchmarks [--rounds N] [PART…]

All sides of a comparison run in turns in this one process, so a noisy machine is
noisy for all of them. Printed are the median and the quartiles of wall time, and
the median of processor time (all children waited for included).
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import signal
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..support.processes import version_line
from . import inspecting, listing, memory, pulling, removing, repeating, running
from .figures import Options

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: {part: what measures it, in a folder of its own}
PARTS: dict[str, Callable[[Path, Options], Iterator[bool]]] = {
    "listing": listing.main,
    "running": running.main,
    "pulling": pulling.main,
    "memory": memory.main,
    "repeating": repeating.main,
    "removing": removing.main,
    "inspecting": inspecting.main,
}
#: Those that drop caches, enter mount namespaces or start a daemon.
NEEDS_ROOT = frozenset({"pulling", "removing"})
#: Programs that scripts/setup unpacks rather than installs; the machine's own come first.
PEERS = Path(__file__).resolve().parents[2] / ".tools/peers/usr"


def main() -> int:
    parts, options = _arguments()
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # what was begun is ended and removed
    os.environ["PATH"] += f":{PEERS}/bin:{PEERS}/sbin"
    print(
        f"{platform.machine()}, {os.cpu_count()} cores, Linux {platform.release()}, Python {platform.python_version()}"
    )
    peers = ("crun", "runc", "podman", "skopeo", "umoci", "dockerd")
    print(f"load {os.getloadavg()[0]:.1f}; " + "; ".join(map(version_line, peers)))
    print()
    folder = Path(tempfile.mkdtemp(prefix="argosy-bench-"))
    reached: list[bool] = []
    try:
        for part in parts or PARTS:
            if part in NEEDS_ROOT and os.geteuid() != 0:
                print(f"without {part}: it needs root\n")
                continue
            reached += PARTS[part](folder, options)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print(f"{sum(reached)} of {len(reached)} figures reached")
    return 0 if all(reached) else 1


def _arguments() -> tuple[list[str], Options]:
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks")
    parser.add_argument("parts", metavar="PART", nargs="*", choices=[*PARTS, []], help=f"{', '.join(PARTS)}; or all")
    parser.add_argument("--rounds", type=int, help="instead of each part's own number")
    parser.add_argument("--registry", choices=("argosy", "docker"), default="argosy", help="who serves the images")
    parser.add_argument("--cold-registry", action="store_true", help="leave the registry's files on its disk")
    args = parser.parse_args()
    options = Options(rounds=args.rounds, registry=args.registry, is_registry_cold=args.cold_registry)
    return args.parts, options


if __name__ == "__main__":
    sys.exit(main())
