"""Start-up: `--help`, and `images` with 1,000 tagged images, against the interpreter alone."""

from __future__ import annotations

import sys
import time
from statistics import median
from typing import TYPE_CHECKING

from ..support.images import random_image
from ..support.stores import load_image
from .figures import compare, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ROUNDS = 31
IMAGES = 1000
SETTLED_S = 3  # the derived listing is trusted once the folder's time is two seconds old; see store/listing.py


def main(folder: Path, rounds: int | None) -> Iterator[bool]:
    root = folder / "listing"
    image = random_image(folder / "image")
    load_image(root, image, *(f"registry.example/team{n % 10}/image{n}:v{n % 7}" for n in range(IMAGES)))
    time.sleep(SETTLED_S)
    program = str(_program())
    sides = {
        "python -I -c pass": (sys.executable, "-I", "-c", "pass"),
        "argosy --help": (program, "--help"),
        f"argosy images ({IMAGES} tagged)": (program, "images"),
    }
    print("Start-up (ratios of processor time)")
    figures = compare(sides, rounds=rounds or ROUNDS, environment={"ARGOSY_ROOT": str(root), "PATH": "/usr/bin:/bin"})
    floor, help_, images = (median(figure.processor) for figure in figures.values())
    yield ratio("argosy --help to python -I -c pass", help_, floor, 1.8)
    yield ratio("argosy images to python -I -c pass", images, floor, 4)


def _program() -> Path:
    from pathlib import Path

    return Path(sys.executable).parent / "argosy"
