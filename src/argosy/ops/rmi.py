"""rmi: take names from images; an image that loses its last one goes, with all that nothing else needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, Corrupt, InvalidInput
from ..oci.digest import Digest
from ..oci.reference import Reference
from ..store import gc
from ..store.gc import Reached
from . import prune

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import Container, ContainerStore
    from ..store.refs import RefRecord, RefStore


class Removed(msgspec.Struct, frozen=True, kw_only=True):
    """What `rmi` did, in the order in which Docker tells it."""

    #: names, in familiar form
    untagged: tuple[str, ...]
    #: the image id, then its layers from the top, as far as they went
    deleted: tuple[Digest, ...]
    #: bytes given back
    size: int


def rmi(
    name: str,
    *,
    force: bool = False,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    snapshotter: Snapshotter,
) -> Removed:
    """Remove one name of an image, or by id all of them.

    With *force* also where containers use the image: what they need then stays until
    the last of them is removed.

    Raises NotFound (tag-unknown), Conflict (image-in-use).
    """
    removing = refs.resolve(name) or (refs.lookup(name),)  # raises tag-unknown: listed, but gone meanwhile
    names = refs.resolve(removing[0].image_id)
    left = [record for record in names if record not in removing]
    users = [record for record in containers.list() if record.image_id == removing[0].image_id]
    if not force:
        _refuse_if_used(name, removing, left, users)
    candidates = _content(removing, blobs)
    for record in removing:
        refs.delete(record.reference)
    untagged = _untagged(removing, left)
    if left:
        return Removed(untagged=untagged, deleted=(), size=0)
    freed = prune.free(
        candidates,
        refs=refs,
        containers=containers,
        blobs=blobs,
        snapshotter=snapshotter,
    )
    image_id = removing[0].image_id
    deleted = () if users else (image_id, *freed.layers)
    return Removed(untagged=untagged, deleted=deleted, size=freed.size)


def _refuse_if_used(
    name: str, removing: Sequence[RefRecord], left: Sequence[RefRecord], users: Sequence[Container]
) -> None:
    short = removing[0].image_id.short
    if users and not left:
        user = users[0]
        what = (
            f"unable to delete {short} (must be forced)"
            if _is_id(name, removing)
            else f'unable to remove repository reference "{name}" (must force)'
        )
        state = "running" if user.status == "running" else "stopped"
        raise Conflict(
            f"conflict: {what} - {state} container {user.id[:12]} is using its referenced image {short}",
            code="image-in-use",
            context="used by " + ", ".join(f"{user.name} ({user.id[:12]})" for user in users[:8]),
            hint=f"argosy rm {user.name}, or argosy rmi -f {name}",
        )
    if len({record.reference.name for record in removing}) > 1:
        raise Conflict(
            f"conflict: unable to delete {short} (must be forced) - image is referenced in multiple repositories",
            code="image-in-use",
            context="its names: " + ", ".join(record.reference.familiar() for record in removing),
            hint=f"name one of them, or argosy rmi -f {name} for all",
        )


def _is_id(name: str, records: Sequence[RefRecord]) -> bool:
    try:
        return all(record.reference != Reference.parse(name) for record in records)
    except InvalidInput:
        return True


def _content(removing: Sequence[RefRecord], blobs: BlobStore) -> Reached:
    """All that the image is made of; of a damaged one, what its record still tells."""
    try:
        return gc.reachable(gc.roots(removing, ()), blobs)
    except Corrupt:
        known = {digest for r in removing for digest in (r.descriptor.digest, r.manifest.digest, r.image_id)}
        return Reached(blobs=frozenset(known), diff_ids=frozenset())


def _untagged(removing: Sequence[RefRecord], left: Sequence[RefRecord]) -> tuple[str, ...]:
    """Docker's lines: each tag, and name@digest with the last tag of a repository."""
    staying = {record.reference.name for record in left}
    lines = []
    for record in removing:
        if record.is_untagged:
            continue
        lines.append(record.reference.familiar())
        last = f"{record.reference.familiar_name}@{record.descriptor.digest}"
        if record.reference.name not in staying and last not in lines:
            lines.append(last)
    return tuple(lines)
