"""diff CONTAINER: what a container's program has changed, as `docker diff` tells it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from ..layer.compare import compare
from ..layer.tree_reader import TreeReader
from ..layer.view import ImageView
from .contents import opened, shown
from .progress import silent

if TYPE_CHECKING:
    from ..oci.image import Image
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .progress import Progress


class ContainerChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path: A was added, C changed, D deleted; of a deleted folder the folder alone."""

    kind: Literal["A", "C", "D"]
    path: str


def changes(
    image: Image, folder: str, *, snapshotter: Snapshotter, blobs: BlobStore, progress: Progress = silent
) -> tuple[ContainerChange, ...]:
    """What the writable layer in a container's *folder* changes of its *image*, by path.

    The folder in which something came or went counts as changed, as with Docker. A
    program that runs may go on writing meanwhile.
    Raises as `contents.opened` does.
    """
    with (
        opened(image, snapshotter=snapshotter, blobs=blobs, progress=progress) as (before,),
        TreeReader(f"{folder}/upper", live=True) as upper,
    ):
        after = ImageView([*before.layers, upper])
        kinds: dict[bytes, Literal["A", "C", "D"]] = {}
        gone: set[bytes] = set()  # folders that are none any more
        for change in compare(before, after):
            parent = change.path.rpartition(b"/")[0]
            if change.before is not None and change.before.parts and not (change.after and change.after.parts):
                gone.add(change.path)
            if parent in gone or (change.letter == "C" and not change.aspects):
                continue
            kinds[change.path] = change.letter
            if parent and change.letter != "C":
                kinds.setdefault(parent, "C")
    return tuple(ContainerChange(kind=kind, path=shown(path)) for path, kind in sorted(kinds.items()))
