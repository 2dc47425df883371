"""What is done already costs nearly nothing: `pull` of an image that is here, `push` of one that the registry has.

Requests are counted by a proxy before the registry; times are taken without it.
"""

from __future__ import annotations

from statistics import median
from typing import TYPE_CHECKING

from argosy.linux.files import remove_tree

from ..support.flaky import flaky
from . import made_images
from .figures import at_most, compare, measure
from .peers import ARGOSY, ENVIRONMENT

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..support.web import Seen
    from .figures import Options

ROUNDS = 11
IMAGE = made_images.CUDA
REQUESTS = 2
PROCESSOR_MS = 150


def main(folder: Path, options: Options) -> Iterator[bool]:
    store = folder / "repeating"
    command = (ARGOSY, "--root", str(store))
    with made_images.served(IMAGE, by=options.registry) as registry:
        reference = registry.reference(IMAGE)
        measure((*command, "pull", "-q", reference), ENVIRONMENT)
        print(f"What is done already, with {IMAGE.about}")
        sides = {f"argosy {verb}": (*command, verb, "-q", reference) for verb in ("pull", "push")}
        figures = compare(sides, rounds=options.rounds or ROUNDS, environment=ENVIRONMENT)
        processor = median(figures["argosy pull"].processor)
        yield at_most("processor time of a pull of what is here", processor, PROCESSOR_MS, " ms")
        with flaky(registry.address) as proxy:
            through = f"{proxy.address}/{IMAGE.name}"
            measure((*command, "pull", "-q", through), ENVIRONMENT)
            seen = _seen_by(proxy.site.seen, (*command, "pull", "-q", through))
            yield at_most("requests of a pull of what is here", len(seen), REQUESTS)
            seen = _seen_by(proxy.site.seen, (*command, "push", "-q", through))
            sent = sum(len(request.body) for request in seen if "/blobs/" in request.path)
            print(f"  a push of what the registry has: {len(seen)} requests")
            yield at_most("bytes of blobs sent by a push of what the registry has", sent, 0)
    remove_tree(store)


def _seen_by(seen: list[Seen], command: tuple[str, ...]) -> list[Seen]:
    """The requests that *command* makes, printed."""
    seen.clear()
    measure(command, ENVIRONMENT)
    for request in seen:
        print(f"  {request.line}")
    return seen.copy()
