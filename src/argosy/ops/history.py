"""history: how an image came to be, newest step first."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..oci.image import Image, Layer

MISSING = "<missing>"


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the history."""

    #: the image id for the newest step, «<missing>» for the others, as Docker has it
    id: str
    #: RFC 3339, may be empty
    created: str
    created_by: str
    #: bytes of the layer, 0 for a step that changed only the config
    size: int
    comment: str
    diff_id: Digest | None


def history(image: Image, *, usage: Callable[[Digest], int | None]) -> tuple[Step, ...]:
    """The steps of *image*, newest first. *usage* gives the size of an unpacked layer where it is known.

    Layers that the config's history leaves out (it is optional) appear as steps of their own.
    Raises NotFound and Corrupt for a damaged image.
    """
    layers = list(image.layers)
    steps: list[Step] = []
    for entry in image.config.history:
        layer = layers.pop(0) if layers and not entry.empty_layer else None
        steps.append(_step(entry.created, entry.created_by, entry.comment, layer, usage))
    steps += [_step(image.config.created, "", "", layer, usage) for layer in layers]
    steps.reverse()
    if steps:
        steps[0] = msgspec.structs.replace(steps[0], id=str(image.id))
    return tuple(steps)


def _step(
    created: str, created_by: str, comment: str, layer: Layer | None, usage: Callable[[Digest], int | None]
) -> Step:
    size = 0
    if layer is not None:
        known = usage(layer.diff_id)
        size = layer.descriptor.size if known is None else known
    return Step(
        id=MISSING,
        created=created,
        created_by=created_by,
        size=size,
        comment=comment,
        diff_id=layer.diff_id if layer is not None else None,
    )
