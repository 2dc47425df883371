"""prune: remove what no name and no container needs. Also the last step of rmi and rm."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, Corrupt, NotFound
from ..linux.files import remove_tree
from ..linux.locks import idle
from ..oci.digest import Digest
from ..store import gc
from ..store.gc import Reached

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import ContainerStore
    from ..store.refs import RefStore


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal gave back."""

    #: names of images without one that went with it
    images: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    #: layers whose snapshot was removed
    layers: tuple[Digest, ...] = ()
    #: parts of interrupted transfers
    parts: int = 0
    #: bytes
    size: int = 0


def needed(refs: RefStore, containers: ContainerStore, blobs: BlobStore) -> Reached:
    """What every name and container of this store needs. Raises Corrupt when a document or a record cannot be read."""
    records = containers.list(strict=True)
    reached = gc.reachable(gc.roots(refs.list(strict=True), records), blobs)
    mounted = frozenset(diff_id for record in records for diff_id in record.diff_ids)
    return Reached(blobs=reached.blobs, diff_ids=reached.diff_ids | mounted)


def free(
    candidates: Reached,
    *,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    snapshotter: Snapshotter,
) -> Freed:
    """Remove at once what of *candidates* nothing needs any more.

    The names are gone already. Blobs that somebody is at work with stay for a later
    prune. While another image is damaged nothing is freed,
    because what it needs is unknown; `check --repair` comes first.
    """
    try:
        loose = candidates.without(needed(refs, containers, blobs))
    except Corrupt:
        return Freed()
    layers, layer_bytes = _remove_layers(loose.diff_ids, snapshotter)
    swept = gc.remove(blobs, loose.blobs, lambda: needed(refs, containers, blobs))
    return Freed(blobs=swept.blobs, layers=layers, size=layer_bytes + swept.size)


def prune(
    *,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    snapshotter: Snapshotter,
    unused: bool = False,
    grace_s: float = gc.GRACE_S,
    told: Callable[[str], None] = lambda name: None,
) -> Freed:
    """Forget images without a name (with *unused* all without a container), and remove what nothing needs.

    What was touched in the last *grace_s* seconds stays: somebody may be at work on it.
    Raises Corrupt when an image is damaged; then nothing is removed.
    """
    needed(refs, containers, blobs)  # fails before the first name is forgotten
    in_use = {record.image_id for record in containers.list(strict=True)}
    forgotten = []
    for record in refs.list():
        if record.image_id not in in_use and (unused or record.is_untagged):
            refs.delete(record.reference)
            forgotten.append(record.image_id)
            if not record.is_untagged:
                told(record.reference.familiar())
    keep = needed(refs, containers, blobs)
    layers, layer_bytes = _remove_layers(
        (found for found in snapshotter.walk() if found not in keep.diff_ids), snapshotter
    )
    swept = gc.sweep(blobs, lambda: needed(refs, containers, blobs), grace_s=grace_s)
    remove_leftovers(blobs.root, grace_s=grace_s)
    return Freed(
        images=tuple(sorted(set(forgotten))),
        blobs=swept.blobs,
        layers=layers,
        parts=swept.parts,
        size=layer_bytes + swept.size,
    )


def remove_leftovers(root: str | os.PathLike[str], *, grace_s: float) -> tuple[str, ...]:
    """Remove what dead processes left in tmp/; gives the names."""
    import time

    folder, latest = os.path.join(root, "tmp"), time.time() - grace_s
    removed = []
    for name in leftovers(root):
        path = os.path.join(folder, name)
        with suppress(FileNotFoundError), idle(path) as fd:
            if fd is not None and os.fstat(fd).st_mtime <= latest and _removed(path):
                removed.append(name)
    return tuple(removed)


def _removed(path: str) -> bool:
    """False when something is left: NFS keeps files that somebody has open."""
    try:
        remove_tree(path)
    except Conflict as error:
        if error.code != "folder-not-empty":
            raise
        return False
    return True


def leftovers(root: str | os.PathLike[str]) -> tuple[str, ...]:
    """Names in tmp/, sorted."""
    try:
        return tuple(sorted(os.listdir(os.path.join(root, "tmp"))))
    except FileNotFoundError:
        return ()


def _remove_layers(diff_ids: Iterable[Digest], snapshotter: Snapshotter) -> tuple[tuple[Digest, ...], int]:
    removed, size = [], 0
    for diff_id in diff_ids:
        if not snapshotter.has(diff_id):
            continue
        with suppress(NotFound, Corrupt):  # gone meanwhile, or damaged: no reason to keep it
            size += snapshotter.usage(diff_id)
        snapshotter.remove(diff_id)
        removed.append(diff_id)
    return tuple(sorted(removed)), size
