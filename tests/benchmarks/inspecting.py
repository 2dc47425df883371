"""What people ask about images that are here: times alone, of the verbs that this version has."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree

from . import made_images
from .figures import compare, measure
from .peers import ARGOSY, ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .figures import Options

ROUNDS = 5
IMAGES = (made_images.CUDA, made_images.SMALL)


def main(folder: Path, options: Options) -> Iterator[bool]:
    store = folder / "inspecting"
    command = (ARGOSY, "--root", str(store))
    with made_images.served(*IMAGES, by=options.registry) as registry:
        larger, smaller = (registry.reference(image) for image in IMAGES)
        for reference in (larger, smaller):
            measure((*command, "pull", "-q", reference), ENVIRONMENT)
    asked = (("history", larger), ("image", "du", larger), ("diff", larger, smaller), ("system", "df"), ("check",))
    sides = {f"argosy {' '.join(words)}": (*command, *words) for words in asked if _is_known(words)}
    print(f"Questions about two images here, {larger} and {smaller} (no figures to reach)")
    compare(sides, rounds=options.rounds or ROUNDS, environment=ENVIRONMENT)
    print()
    remove_tree(store)
    yield from ()


def _is_known(words: tuple[str, ...]) -> bool:
    verb = [word for word in words if os.sep not in word]
    return subprocess.run((ARGOSY, *verb, "--help"), capture_output=True, check=False).returncode == 0
