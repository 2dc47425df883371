"""df: what the store takes on the disk, by sort and by image, and how much of it could be given back."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..linux import room
from ..oci.digest import ALGORITHMS
from ..store import gc
from ..store.records import Container
from . import build_cache, leftovers
from .prune import container_size, local_size
from .space import Held, Ledger, together

if TYPE_CHECKING:
    from ..store.blobs import BlobStore
    from ..store.records import ContainerStore
    from .prune_plan import Plan
    from .space import Inventory

_LOOKED_AT = ("blobs", "dropped", "layers")  # folders that an Inventory has looked through
_OTHERS = ("cache", "registry", "bin")


class Sort(msgspec.Struct, frozen=True, kw_only=True):
    """One sort of things: a line of `df`."""

    type: str
    total: int
    active: int
    #: bytes on the disk
    size: int
    #: of these, what nothing needs
    reclaimable: int


class ImageUse(msgspec.Struct, frozen=True, kw_only=True):
    """One image; bytes on the disk."""

    image: Held
    #: compressed blobs, documents, unpacked layers and records, those that other images need too included
    on_disk: int
    #: what removing this image alone gives back; nothing while containers use it
    alone: int


class Usage(msgspec.Struct, frozen=True, kw_only=True):
    """The whole store."""

    sorts: tuple[Sort, ...]
    images: tuple[ImageUse, ...]
    #: (container, bytes on the disk)
    containers: tuple[tuple[Container, int], ...]
    parts: tuple[gc.Part, ...]
    #: (what, bytes on the disk)
    leftovers: tuple[tuple[str, int], ...]
    #: bytes on the disk of everything, the folder of a registry and caches included
    size: int
    #: of the file system, for this user
    free: int


def usage(inventory: Inventory, *, containers: ContainerStore, blobs: BlobStore) -> Usage:
    """What *inventory* takes, and what lies beside it. Walks containers, caches and leftovers."""
    sizes = tuple((container, container_size(containers, container)) for container in inventory.containers)
    parts = gc.parts_of(blobs)
    rubbish = _leftovers(inventory, blobs, containers)
    status = os.statvfs(blobs.root)
    return Usage(
        sorts=(
            _images(inventory),
            _containers(sizes),
            Sort(type="Local Volumes", total=0, active=0, size=0, reclaimable=0),
            _build_cache(blobs),
            _downloads(parts, inventory),
            rubbish[0],
        ),
        images=_uses(inventory),
        containers=sizes,
        parts=parts,
        leftovers=rubbish[1],
        size=store_size(inventory, blobs),
        free=status.f_bavail * status.f_frsize,
    )


def store_size(inventory: Inventory, blobs: BlobStore) -> int:
    """Bytes on the disk of everything in the store's folder, and of writable layers that this machine has elsewhere."""
    known = sum(piece.size for pieces in (inventory.blobs, inventory.layers) for piece in pieces.values())
    places = [os.path.join(blobs.root, name, algorithm) for name in _LOOKED_AT for algorithm in ("", *ALGORITHMS)]
    known += sum(map(room.of_file, places)) + sum(map(local_size, inventory.containers))
    return known + room.of_tree(blobs.root, skip=_LOOKED_AT)


def _images(inventory: Inventory) -> Sort:
    """Reclaimable is what all images without a container give back when they go together."""
    used = [image for image in inventory.images if image.containers]
    needed, kept = (together(image.needs for image in images) for images in (inventory.images, used))
    return Sort(
        type="Images",
        total=len(inventory.images),
        active=len(used),
        size=inventory.size_of(needed) + sum(image.size for image in inventory.images),
        reclaimable=inventory.size_of(needed.without(kept))
        + sum(image.size for image in inventory.images if not image.containers),
    )


def _containers(sizes: tuple[tuple[Container, int], ...]) -> Sort:
    return Sort(
        type="Containers",
        total=len(sizes),
        active=sum(container.status == "running" for container, _ in sizes),
        size=sum(size for _, size in sizes),
        reclaimable=sum(size for container, size in sizes if container.status == "exited"),
    )


def _build_cache(blobs: BlobStore) -> Sort:
    size = build_cache.size(blobs.root)
    return Sort(type="Build Cache", total=build_cache.count(blobs.root), active=0, size=size, reclaimable=size)


def _downloads(parts: tuple[gc.Part, ...], inventory: Inventory) -> Sort:
    idle = [part for part in parts if not part.busy and part.touched_ns < inventory.before_ns]
    return Sort(
        type="Interrupted Downloads",
        total=len(parts),
        active=len(parts) - len(idle),
        size=sum(part.size for part in parts),
        reclaimable=sum(part.size for part in idle),
    )


def _leftovers(
    inventory: Inventory, blobs: BlobStore, containers: ContainerStore
) -> tuple[Sort, tuple[tuple[str, int], ...]]:
    """Blobs and layers that no image needs, what lies in tmp/, and damaged containers that check has set aside.

    What somebody is at work with counts as active. While an image is damaged nothing can
    be told apart from what it needs.
    """
    keep = together(image.needs for image in inventory.images)
    idle = inventory.unneeded(keep)
    loose = {
        **{f"blob {digest}": piece.size for digest, piece in inventory.blobs.items() if digest not in keep.blobs},
        **{f"layer {found}": piece.size for found, piece in inventory.layers.items() if found not in keep.diff_ids},
    }
    dead = {each.name: each.size for each in leftovers.find(blobs.root)}
    made = {f"tmp/{each}": room.of_tree(os.path.join(blobs.root, "tmp", each)) for each in leftovers.names(blobs.root)}
    aside = {os.path.relpath(path, blobs.root): room.of_tree(path) for path in containers.aside()}
    found = {**loose, **made, **aside}
    free_count = len(idle.blobs) + len(idle.diff_ids) + len(dead)
    reclaimable = inventory.size_of(idle) + sum(dead.values())
    if inventory.damaged:
        free_count = reclaimable = 0
    return (
        Sort(
            type="Leftovers",
            total=len(found),
            active=len(found) - free_count,
            size=sum(found.values()),
            reclaimable=reclaimable,
        ),
        tuple(sorted(found.items())),
    )


def _uses(inventory: Inventory) -> tuple[ImageUse, ...]:
    ledger = Ledger(inventory)
    return tuple(
        ImageUse(
            image=image,
            on_disk=inventory.size_of(image.needs) + image.size,
            alone=0 if image.containers else inventory.size_of(ledger.alone(image)) + image.size,
        )
        for image in inventory.images
    )


def holders(
    inventory: Inventory, plan: Plan, left: int, *, containers: ContainerStore, blobs: BlobStore
) -> tuple[tuple[str, int], ...]:
    """(what, bytes on the disk) of the *left* bytes that the store takes after *plan*, the largest first."""
    gone, removed = {image.image_id for image in plan.images}, {container.id for container in plan.containers}
    staying = [image for image in inventory.images if image.image_id not in gone]
    used, unused = ([image for image in staying if bool(image.containers) == wanted] for wanted in (True, False))
    needs = together(image.needs for image in used)
    found = {
        "images that containers use": inventory.size_of(needs),
        "other images": inventory.size_of(together(image.needs for image in unused).without(needs)),
        "containers": sum(
            container_size(containers, container) for container in inventory.containers if container.id not in removed
        ),
        **{f"{name}/": room.of_tree(os.path.join(blobs.root, name)) for name in _OTHERS},
    }
    if plan.build_cache:
        found["cache/"] -= build_cache.size(blobs.root)
    found["content in work, and the rest"] = left - sum(found.values())
    return tuple(sorted(((what, size) for what, size in found.items() if size > 0), key=lambda each: -each[1]))
