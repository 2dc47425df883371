"""prune: remove what no name and no container needs. Also the last step of rmi.

First what may go is gathered, then prune_plan.py decides, then `execute` removes what still may go: everything is
looked at once more, under the locks that store/gc.py argues with.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, Corrupt, NotFound
from ..linux import room
from ..linux.files import remove_tree
from ..oci.digest import Digest
from ..oci.image import Image
from ..store import gc, uses
from ..store.gc import Reached
from . import build_cache, leftovers
from . import containers as containers_ops
from .compressed import give_up
from .parallel import in_parallel
from .prune_plan import Plan, Supply
from .selection import Selection, seconds
from .space import needed, together
from .supervisors import is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from ..runtime.oci_runtime import OciRuntime
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import Container, ContainerStore
    from ..store.refs import RefStore
    from .compressed import Spare
    from .space import Held, Inventory

_REMOVALS = 8  # files at once: what takes the time is the disk, which is asked for the blocks that they had


class Scope(msgspec.Struct, frozen=True, kw_only=True):
    """Which sorts of things a prune is about."""

    #: stopped ones
    containers: bool = False
    images: bool = True
    #: images with names too, if no container uses them
    all_images: bool = False
    #: interrupted downloads, and what dead processes left
    leftovers: bool = False
    build_cache: bool = False


class Freed(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal gave back."""

    #: ids
    containers: tuple[str, ...] = ()
    #: names that were taken from images, in familiar form
    untagged: tuple[str, ...] = ()
    #: images that are no more
    images: tuple[Digest, ...] = ()
    blobs: tuple[Digest, ...] = ()
    #: layers whose snapshot was removed
    layers: tuple[Digest, ...] = ()
    #: of interrupted downloads
    parts: int = 0
    leftovers: tuple[str, ...] = ()
    #: blobs that were given up while their layers stay
    compressed: tuple[Digest, ...] = ()
    #: bytes on the disk
    size: int = 0


def supply(
    inventory: Inventory,
    scope: Scope,
    selection: Selection,
    *,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    spares: tuple[Spare, ...] = (),
) -> Supply:
    """What of a store may go. Raises Corrupt when an image or a record is damaged: what it needs is not known then."""
    if inventory.damaged or refs.damaged() or containers.damaged():
        needed(refs, containers, blobs)  # fails with better words
    stopped = tuple(each for each in inventory.containers if scope.containers and _is_stopped(each, selection))
    ended = {container.id for container in stopped}
    images = [image for image in inventory.images if scope.images and ended.issuperset(image.containers)]
    images = [image for image in images if (scope.all_images or image.is_dangling) and _takes(selection, image, blobs)]
    others = scope.leftovers and not selection.by_label
    keep = together(image.needs for image in inventory.images)
    return Supply(
        containers=stopped,
        container_sizes={each.id: container_size(containers, each) for each in stopped},
        images=tuple(images),
        loose=Reached(blobs=frozenset(), diff_ids=frozenset()) if selection.by_label else inventory.unneeded(keep),
        parts=tuple(part for part in gc.parts_of(blobs) if others and _is_left(part, inventory, selection)),
        leftovers=tuple(
            each for each in leftovers.find(blobs.root) if others and selection.takes(each.touched, _no_labels)
        ),
        spares=spares,
        build_cache=build_cache.size(blobs.root) if scope.build_cache and selection.is_everything else 0,
    )


def _is_stopped(container: Container, selection: Selection) -> bool:
    if container.status != "exited" and not (container.status == "created" and container.pid is None):
        return False
    return selection.takes(seconds(container.created), lambda: container.labels)


def _takes(selection: Selection, image: Held, blobs: BlobStore) -> bool:
    if selection.is_everything:
        return True
    if not image.names:  # only containers know it
        return False
    first = image.names[0]

    def labels() -> Mapping[str, str]:
        try:
            return Image(first.manifest, blobs).config.labels
        except NotFound:
            return {}

    return selection.takes(seconds(first.created), labels)


def _is_left(part: gc.Part, inventory: Inventory, selection: Selection) -> bool:
    return (
        not part.busy and part.touched_ns < inventory.before_ns and selection.takes(part.touched_ns / 1e9, _no_labels)
    )


def _no_labels() -> Mapping[str, str]:
    return {}


def execute(
    plan: Plan,
    *,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    snapshotter: Snapshotter,
    runtime: Callable[[], OciRuntime],
) -> Freed:
    """Remove what *plan* holds and what still may go: what was named, used or taken up meanwhile stays.

    Raises Corrupt when an image has been damaged meanwhile; nothing has been removed then.
    """
    needed(refs, containers, blobs)
    removed, container_size = _remove_containers(plan, containers, runtime)
    forgotten, untagged, names_size = _forget_images(plan, refs, containers)
    parts = gc.remove_parts(plan.parts)
    rubbish = leftovers.remove(blobs.root, plan.leftovers)
    cache = build_cache.remove(blobs.root) if plan.build_cache else 0
    content = Reached(blobs=plan.blobs, diff_ids=plan.layers)
    freed = _remove(content, lambda: needed(refs, containers, blobs), blobs, snapshotter, plan.before_ns)
    dropped = give_up(plan.compressed, blobs=blobs, snapshotter=snapshotter)
    return Freed(
        containers=removed,
        untagged=untagged,
        images=forgotten,
        blobs=freed.blobs,
        layers=freed.layers,
        parts=parts.parts,
        leftovers=tuple(each.name for each in rubbish),
        compressed=dropped.blobs,
        size=container_size
        + names_size
        + parts.size
        + sum(each.size for each in rubbish)
        + cache
        + freed.size
        + dropped.size,
    )


def _remove_containers(
    plan: Plan, containers: ContainerStore, runtime: Callable[[], OciRuntime]
) -> tuple[tuple[str, ...], int]:
    removed, size = [], 0
    for container in plan.containers:
        taken = container_size(containers, container)
        try:
            containers_ops.remove(container.id, containers=containers, runtime=runtime)
        except (NotFound, Conflict):  # it was removed, or started, meanwhile
            continue
        removed.append(container.id)
        size += taken
    return tuple(removed), size


def container_size(containers: ContainerStore, container: Container) -> int:
    """Bytes on the disk of a container: its folder, its name's file, its writable layer where this machine has that."""
    name = os.path.join(containers.root, "names", container.name)
    size = room.of_tree(containers.folder(container.id)) + (room.of_file(name) if container.name else 0)
    return size + local_size(container)


def local_size(container: Container) -> int:
    """Bytes of a writable layer that does not lie in the store, but on a disk of this machine."""
    return room.of_tree(container.local) if container.local and not is_elsewhere(container) else 0


def _forget_images(
    plan: Plan, refs: RefStore, containers: ContainerStore
) -> tuple[tuple[Digest, ...], tuple[str, ...], int]:
    """(images that no name leads to now, names taken, bytes of their records)."""
    used = {record.image_id for record in containers.list(strict=True)}
    forgotten, untagged, size = [], [], 0
    for image in plan.images:
        if image.image_id in used:  # by a container that is younger than the plan
            continue
        for record in image.names:
            if refs.find_exact(record.reference) == record and refs.delete(record.reference):
                untagged += [] if record.is_untagged else [record.reference.familiar()]
        size += image.size
        uses.forget(refs.root, image.image_id)
        forgotten.append(image.image_id)
    return tuple(forgotten), tuple(untagged), size


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
        before_ns = gc.idle_before_ns(blobs)
        return _remove(candidates, lambda: needed(refs, containers, blobs), blobs, snapshotter, before_ns)
    except Corrupt:
        return Freed()


def _remove(
    candidates: Reached, keep: Callable[[], Reached], blobs: BlobStore, snapshotter: Snapshotter, before_ns: int
) -> Freed:
    """Blobs first: a layer that stands for one that somebody has claimed meanwhile stays, see 6 in store/gc.py."""
    swept = gc.set_aside(blobs, candidates.blobs, keep, before_ns=before_ns)
    loose = candidates.diff_ids - keep().diff_ids - blobs.dropped.layers()
    layers: dict[Digest, int] = {}

    def remove_layer(diff_id: Digest) -> None:
        with suppress(NotFound):  # gone meanwhile
            layers[diff_id] = snapshotter.room(diff_id)
        snapshotter.remove(diff_id)

    work = [partial(remove_tree, path) for path in swept.files]
    work += [partial(remove_layer, diff_id) for diff_id in loose if snapshotter.has(diff_id)]
    in_parallel(lambda remove, check: remove(), work, limit=_REMOVALS)
    return Freed(blobs=swept.blobs, layers=tuple(sorted(layers)), size=swept.size + sum(layers.values()))
