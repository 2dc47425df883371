"""A cold pull until `run` could start: argosy, podman, docker, skopeo with umoci, and the floor.

Every run begins with a new store and dropped caches. The registry's files are then
read once, for all sides alike: a registry is another machine, and its disk is not the
client's (--cold-registry leaves them on the disk, for all sides again). Old stores are
removed at the end, or when the disk is full, and then comes a rest: for half a minute
after a large removal ext4 makes new files many times slower.
"""

from __future__ import annotations

import os
import shutil
import sys
import time
from contextlib import nullcontext
from pathlib import Path
from statistics import median
from subprocess import CalledProcessError
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree

from . import made_images, peers
from .figures import Figure, measure, ratio
from .peers import DOCKER, OURS, PODMAN, Engine

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .figures import Options, Taken
    from .made_images import Facts, Served
    from .peers import Side

ROUNDS = 5
FLOOR = "floor: inflate and hash, a process a layer"
#: {image: how many times the floor a pull may take}
IMAGES = {made_images.CUDA: 1.5, made_images.SMALL: 2.5}
REST_S = 40  # after a removal; ext4 shuns inodes that were freed in the last 35 s


def main(folder: Path, options: Options) -> Iterator[bool]:
    sides = peers.sides()
    print()
    with made_images.served(*IMAGES, by=options.registry) as registry:
        for image, limit in IMAGES.items():
            facts = made_images.facts(registry, image)
            print(f"Cold pull of {image.about}: {facts} (ratios of wall time)")
            print(f"  from {_source(options)}; a new store and dropped caches for every run", flush=True)
            rounds = _Rounds(registry, facts, folder / "pulling", is_registry_cold=options.is_registry_cold)
            rounds.run(registry.reference(image), sides, options.rounds or ROUNDS)
            yield from _ratios(rounds.figures, limit)


def _source(options: Options) -> str:
    name = "docker-registry" if options.registry == "docker" else "argosy registry serve"
    return f"{name}, its files {'on the disk' if options.is_registry_cold else 'in the page cache'}"


def _ratios(figures: Mapping[str, Figure], limit: float) -> Iterator[bool]:
    wall = {name: median(figure.wall) for name, figure in figures.items()}
    ours, floor = wall.pop(OURS), wall.pop(FLOOR)
    _print_processor_time(figures)
    for name in (PODMAN, DOCKER):
        if name in wall:
            yield ratio(f"argosy pull to {name} pull", ours, wall[name], 0.25)
    if wall:
        fastest = min(wall, key=lambda name: wall[name])
        yield ratio(f"argosy pull to the fastest peer ({fastest})", ours, wall[fastest], 0.3)
    yield ratio("argosy pull to the floor", ours, floor, limit)


def _print_processor_time(figures: Mapping[str, Figure]) -> None:
    """What a busy machine changes least, for information."""
    ours = median(figures[OURS].processor)
    others = {name.partition(":")[0]: ours / median(figure.processor) for name, figure in figures.items()}
    print(
        "  argosy's processor time: "
        + ", ".join(f"{of:.2f} of {name}'s" for name, of in others.items() if name != OURS)
    )


class _Rounds:
    """All sides in turns, each from the same start."""

    def __init__(self, registry: Served, facts: Facts, folder: Path, *, is_registry_cold: bool) -> None:
        self.figures: dict[str, Figure] = {}
        self._layers = [registry.file(layer.digest) for layer in facts.layers]
        self._is_registry_cold = is_registry_cold
        self._folder = folder
        #: bytes of one store at most: blobs, the tars or their files, a block begun for each
        self._store_size = sum(layer.size for layer in facts.layers) + facts.uncompressed_size + 4096 * facts.files

    def run(self, reference: str, sides: Mapping[str, Side], rounds: int) -> None:
        """Measure *rounds* times and print; the stores are gone afterwards."""
        syncing: dict[str, list[float]] = {}
        left = {FLOOR: self._floor(), **sides}
        for number in range(rounds):
            self._make_room(len(sides))
            for place, (name, side) in enumerate(left.copy().items()):
                try:
                    with side(reference, self._folder / f"{number}-{place}") as engine:
                        taken, sync_ms = self._taken(engine)
                except CalledProcessError as error:
                    if name in (OURS, FLOOR):
                        raise
                    print(f"without {name}: {error}")
                    del left[name]
                    continue
                self.figures.setdefault(name, Figure(name)).add(taken)
                syncing.setdefault(name, []).append(sync_ms)
        for name, figure in self.figures.items():
            print(f"{figure.line()}   then sync {median(syncing[name]):.0f} ms", flush=True)
        self._remove()

    def _taken(self, engine: Engine) -> tuple[Taken, float]:
        """(of the pull, milliseconds of a sync right after it)."""
        drop_caches()
        if not self._is_registry_cold:
            for layer in self._layers:
                _read(layer)
        taken = engine.pull()
        began = time.perf_counter()
        os.sync()
        return taken, (time.perf_counter() - began) * 1e3

    def _floor(self) -> Side:
        """A side that keeps nothing."""
        command = (sys.executable, "-I", str(Path(__file__).with_name("floor.py")), *map(str, self._layers))
        engine = Engine(lambda: measure(command, peers.ENVIRONMENT), None)
        return lambda reference, folder: nullcontext(engine)

    def _make_room(self, stores: int) -> None:
        if shutil.disk_usage(self._folder.parent).free < 2**30 + stores * self._store_size:
            self._remove()

    def _remove(self) -> None:
        if self._folder.exists():
            remove_tree(self._folder)
            os.sync()
            time.sleep(REST_S)


def drop_caches() -> None:
    os.sync()
    Path("/proc/sys/vm/drop_caches").write_text("3")


def _read(path: Path) -> None:
    with path.open("rb", buffering=0) as stream:
        while stream.read(1 << 20):
            pass
