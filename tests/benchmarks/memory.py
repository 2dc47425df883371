"""The most memory that a pull uses, whatever the image: the process and all below it, shared pages divided (PSS)."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree

from . import made_images
from .figures import at_most, running, wait
from .peers import ARGOSY, ENVIRONMENT, children

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .figures import Options

LIMIT_MB = 200
IMAGES = (made_images.CUDA, made_images.SMALL, made_images.EMPTY, made_images.EMPTY_TWICE)
_PAUSE_S = 0.01  # between two looks, each of which takes about a millisecond a process


def main(folder: Path, options: Options) -> Iterator[bool]:
    print("Memory of a pull: the highest sum over its processes (PSS, looked at all the time)")
    store = folder / "memory"
    with made_images.served(*IMAGES, by=options.registry) as registry:
        for image in IMAGES:
            command = (ARGOSY, "--root", str(store), "pull", "-q", registry.reference(image))
            peak, largest = peak_memory(command)
            print(f"  {image.about}: {peak / 1e6:.0f} MB; largest process {largest / 1e6:.0f} MB (its highest RSS)")
            yield at_most(f"MB of memory for {image.about}", round(peak / 1e6), LIMIT_MB)
    remove_tree(store)


def peak_memory(command: tuple[str, ...]) -> tuple[int, int]:
    """(highest sum of PSS over the tree, highest RSS of a single process), bytes."""
    peak = 0
    with running(command, ENVIRONMENT) as pid:
        while not _has_ended(pid):
            peak = max(peak, _tree_pss(pid))
            time.sleep(_PAUSE_S)
        return peak, wait(pid, command).ru_maxrss * 1024


def _has_ended(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def _tree_pss(pid: int) -> int:
    """Bytes; 0 for a process that is gone meanwhile."""
    try:
        rollup = Path(f"/proc/{pid}/smaps_rollup").read_text()
        below = children(pid)
    except (FileNotFoundError, ProcessLookupError):
        return 0
    own = sum(int(line.split()[1]) for line in rollup.splitlines() if line.startswith("Pss:"))
    return own * 1024 + sum(map(_tree_pss, below))
