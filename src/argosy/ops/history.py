"""history: how an image came to be, newest step first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, NotFound, Unsupported
from ..layer.compression import decompressed
from ..oci.digest import Digest
from .parallel import in_parallel

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..oci.config import History
    from ..oci.image import Image, Layer
    from .parallel import Check

MISSING = "<missing>"
_PIECE = 1 << 20  # bytes that are inflated at once, to be counted


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history."""

    #: the image id for the newest step, «<missing>» for the others, as Docker has it
    id: str
    #: RFC 3339, may be empty
    created: str
    created_by: str
    #: bytes of the layer, uncompressed; 0 for a step that changed only the config, None where nobody can tell
    size: int | None
    comment: str
    diff_id: Digest | None


def history(image: Image, *, usage: Callable[[Digest], int | None]) -> tuple[Step, ...]:
    """The steps of *image*, newest first. *usage* gives the size of an unpacked layer where it is known.

    What it does not know is counted: the blob is read and inflated.
    Layers that the config's history leaves out (it is optional) appear as steps of their own.
    Raises NotFound and Corrupt for a damaged image.
    """
    sizes = layer_sizes(image.layers, usage=usage)
    steps: list[Step] = []
    for entry, layer in reversed(_paired(image)):
        step = Step(
            id=MISSING if steps else str(image.id),
            created=entry.created if entry is not None else image.config.created,
            created_by=entry.created_by if entry is not None else "",
            size=0 if layer is None else sizes[layer.diff_id],
            comment=entry.comment if entry is not None else "",
            diff_id=layer.diff_id if layer is not None else None,
        )
        steps.append(step)
    return tuple(steps)


def layer_commands(image: Image) -> tuple[str, ...]:
    """What made each layer, lowest first; "" where the history leaves it out. Raises as history."""
    return tuple("" if entry is None else entry.created_by for entry, layer in _paired(image) if layer is not None)


def layer_sizes(layers: Sequence[Layer], *, usage: Callable[[Digest], int | None]) -> Mapping[Digest, int | None]:
    """Uncompressed bytes of each layer; None for one that is neither unpacked nor here as a whole blob."""
    sizes = {layer.diff_id: usage(layer.diff_id) for layer in layers}

    def count(layer: Layer, check: Check) -> None:
        sizes[layer.diff_id] = _counted(layer, check)

    in_parallel(count, {layer.diff_id: layer for layer in layers if sizes[layer.diff_id] is None}.values())
    return sizes


def _counted(layer: Layer, check: Check) -> int | None:
    total = 0
    try:
        with layer.open() as blob, decompressed(blob) as tar:
            while piece := tar.read(_PIECE):
                check()
                total += len(piece)
    except (NotFound, Corrupt, Unsupported):  # `check` and `run` say what is wrong with it
        return None
    return total


def _paired(image: Image) -> list[tuple[History | None, Layer | None]]:
    """Entries of the history and layers that belong together, oldest first; either may be missing."""
    layers = list(image.layers)
    pairs: list[tuple[History | None, Layer | None]] = [
        (entry, layers.pop(0) if layers and not entry.empty_layer else None) for entry in image.config.history
    ]
    return [*pairs, *((None, layer) for layer in layers)]
