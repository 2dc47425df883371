"""`rmi` of an image of 30,000 files and more, with all its layers, against podman's and docker's.

For information, what the file system takes for our files alone: one without a journal
that is mounted with `discard` gives each file's blocks back before unlink returns.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree

from . import made_images, peers
from .figures import Figure, measure, ratio
from .peers import OURS
from .pulling import drop_caches

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .figures import Options

ROUNDS = 3
FLOOR = "rm -r of argosy's store"
IMAGE = made_images.CUDA


def main(folder: Path, options: Options) -> Iterator[bool]:
    sides = peers.sides()
    print(f"\nRemoval of {IMAGE.about} that was pulled, with its layers (ratios of wall time)", flush=True)
    figures: dict[str, Figure] = {}
    with made_images.served(IMAGE, by=options.registry) as registry:
        for number in range(options.rounds or ROUNDS):
            store = folder / f"removing/{number}-floor"
            with peers.argosy(registry.reference(IMAGE), store) as engine:
                engine.pull()
                drop_caches()
                figures.setdefault(FLOOR, Figure(FLOOR)).add(measure(("/bin/rm", "-r", str(store)), peers.ENVIRONMENT))
            for name, side in sides.items():
                with side(registry.reference(IMAGE), folder / f"removing/{number}-{name.replace(' ', '-')}") as engine:
                    if engine.remove is None:
                        continue
                    engine.pull()
                    drop_caches()  # nobody removes an image in the minute of its pull
                    figures.setdefault(name, Figure(name)).add(engine.remove())
    remove_tree(folder / "removing")
    for figure in figures.values():
        print(figure.line())
    wall = {name: median(figure.wall) for name, figure in figures.items()}
    ours = wall.pop(OURS)
    del wall[FLOOR]
    fastest = min(wall, key=lambda name: wall[name])
    yield ratio(f"argosy rmi to the fastest peer ({fastest})", ours, wall[fastest], 0.1)
