"""`argosy pull` until `run` could start, against podman, docker, skopeo with umoci, and the floor.

Every run begins with a new store and dropped caches; then the registry's files are
read once, for all sides alike: a registry is another machine, and its disk is not the
client's. Old stores are removed when an image is done with, since ext4 makes new files
many times slower in the seconds after a large removal.
"""

from __future__ import annotations

import os
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree
from argosy.store.blobs import BlobStore

from . import made_images, pull_sides
from .figures import Figure, measure, ratio

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .pull_sides import Pull, Side

ROUNDS = 5
SIDES: dict[str, Side] = {
    "argosy pull": pull_sides.argosy,
    "podman pull": pull_sides.podman,
    "docker pull": pull_sides.docker,
    "skopeo copy + umoci unpack": pull_sides.skopeo_and_umoci,
}
FLOOR = "floor: inflate and hash, a process a layer"
OURS = "argosy pull"
#: {image: how many times the floor a pull may take}
IMAGES = {made_images.CUDA: 1.5, made_images.SMALL: 2.5}
_SETTLE_S = 40  # after a removal; ext4 shuns inodes that were freed in the last 35 s


def main(folder: Path, rounds: int | None) -> Iterator[bool]:
    with made_images.served(*IMAGES) as (address, registry):
        for image, limit in IMAGES.items():
            facts = made_images.facts(address, image)
            print(f"Pull of {image.about}: {facts} (ratios of wall time)")
            print("  new store, caches dropped, then the registry's files read once; the same for all sides")
            layers = [BlobStore(registry).path(layer.digest) for layer in facts.layers]
            figures = _rounds(f"{address}/{image.name}", layers, folder / "pulling", rounds or ROUNDS)
            yield from _ratios({name: median(figure.wall) for name, figure in figures.items()}, limit)


def _ratios(wall: dict[str, float], limit: float) -> Iterator[bool]:
    ours, floor = wall.pop(OURS), wall.pop(FLOOR)
    for name in ("podman pull", "docker pull"):
        if name in wall:
            yield ratio(f"{OURS} to {name}", ours, wall[name], 0.25)
    if wall:
        fastest = min(wall, key=lambda name: wall[name])
        yield ratio(f"{OURS} to the fastest peer ({fastest})", ours, wall[fastest], 0.3)
    yield ratio(f"{OURS} to the floor", ours, floor, limit)


def _rounds(reference: str, layers: list[Path], folder: Path, rounds: int) -> dict[str, Figure]:
    figures: dict[str, Figure] = {}
    settling: dict[str, list[float]] = {}
    for number in range(rounds):
        for place, (name, side) in enumerate({FLOOR: _floor(layers), **SIDES}.items()):
            try:
                with side(reference, folder / f"{number}-{place}") as pull:
                    taken = _taken(pull, layers)
            except FileNotFoundError as error:
                print(f"  {name}: {error.filename} is missing")
                continue
            figures.setdefault(name, Figure(name)).add(taken)
            settling.setdefault(name, []).append(_timed(os.sync))
    for name, figure in figures.items():
        print(f"{figure.line()}   then sync {median(settling[name]):.0f} ms", flush=True)
    _remove(folder)
    return figures


def _taken(pull: Pull, layers: list[Path]) -> tuple[float, float]:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")
    for layer in layers:
        with layer.open("rb", buffering=0) as stream:
            while stream.read(1 << 20):
                pass
    return pull()


def _floor(layers: list[Path]) -> Side:
    """A side that keeps nothing."""
    program = str(Path(__file__).with_name("floor.py"))
    command = (sys.executable, "-I", program, *map(str, layers))
    return lambda reference, folder: nullcontext(lambda: measure(command, pull_sides.ENVIRONMENT))


def _remove(folder: Path) -> None:
    remove_tree(folder)
    os.sync()
    time.sleep(_SETTLE_S)


def _timed(act: Callable[[], object]) -> float:
    began = time.perf_counter()
    act()
    return (time.perf_counter() - began) * 1e3
