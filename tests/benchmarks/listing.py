"""Start-up: `--help`, `images` with 1,000 tagged images, `ps` with 1,000 containers, against the interpreter alone."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import TYPE_CHECKING

from argosy.store.records import Container, ContainerStore

from ..support.images import random_image
from ..support.stores import load_image
from .figures import compare, ratio
from .peers import ARGOSY

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..support.images import RandomImage
    from .figures import Options

ROUNDS = 31
COUNT = 1000
SETTLED_S = 3  # the derived listing is trusted once the folder's time is two seconds old; see store/listing.py


def main(folder: Path, options: Options) -> Iterator[bool]:
    root = folder / "listing"
    image = random_image(folder / "image")
    load_image(root, image, *(f"registry.example/team{n % 10}/image{n}:v{n % 7}" for n in range(COUNT)))
    _make_containers(root, image)
    time.sleep(SETTLED_S)
    sides = {
        "python -I -c pass": (sys.executable, "-I", "-c", "pass"),
        "argosy --help": (ARGOSY, "--help"),
        f"argosy images ({COUNT} tagged)": (ARGOSY, "images"),
        f"argosy ps -a ({COUNT} containers)": (ARGOSY, "ps", "-a"),
    }
    print("Start-up (ratios of processor time)")
    environment = {"ARGOSY_ROOT": str(root), "PATH": "/usr/bin:/bin"}
    figures = compare(sides, rounds=options.rounds or ROUNDS, environment=environment)
    floor, help_, images, ps = (median(figure.processor) for figure in figures.values())
    yield ratio("argosy --help to python -I -c pass", help_, floor, 1.8)
    yield ratio("argosy images to python -I -c pass", images, floor, 4)
    yield ratio("argosy ps -a to python -I -c pass", ps, floor, 4)


def _make_containers(root: Path, image: RandomImage) -> None:
    """They have ended: what runs cannot be made up."""
    store = ContainerStore(root)
    for number in range(COUNT):
        minute = f"2026-11-23T{number // 60:02}:{number % 60:02}"
        store.create(
            Container(
                id=f"{number:064x}",
                name=f"container-{number}",
                image=f"registry.example/team{number % 10}/image{number}:v{number % 7}",
                manifest=image.descriptor,
                image_id=image.manifest.config.digest,
                created=f"{minute}:00Z",
                command=("python3", "train.py", "--epochs", str(number)),
                status="exited",
                started=f"{minute}:01Z",
                finished=f"{minute}:02Z",
                exit_code=number % 3,
            )
        )
