"""What is still needed, and the removal of the rest.

`reachable` is pure over a ContentSource; `sweep` deletes. A blob's time tells whether
somebody is at work with it: writing and claiming set it to now, `publish` sets it
back to SETTLED_NS once a name leads to the blob. Why deleting is safe while others pull, build
and tag, without stopping them:

1.  Content comes before its name. Whoever makes an image writes or claims each blob,
    children first, and publishes the reference last.
2.  `sweep` is given what the references reach, and deletes what is neither reached nor
    young. A blob that only a later reference needs has been written or claimed by the
    maker of that reference, so it is young; unless making took longer than the grace
    period, or another maker settled the blob and its name was removed again meanwhile. For these cases
    `publish` claims everything once more immediately before it sets the name, and fails cleanly
    when something has gone.
3.  A claim between sweep's look at the time and its unlink would be lost. So claims and
    names are set under a shared lock (`BlobStore.publishing`) and deletions happen
    under the exclusive one (`collecting`), each held for milliseconds. Readers take neither.
4.  A sweep that dies has removed unneeded blobs only. A maker that dies leaves young blobs
    and parts without a name, which a sweep takes when the grace period is over.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import NotFound, Unavailable
from ..linux.locks import is_abandoned, is_named
from ..oci import descriptor as media
from ..oci.digest import Digest
from ..oci.image import Image, read_manifest
from ..oci.manifest import Manifest
from .blobs import JOURNAL, PART

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.descriptor import Descriptor
    from ..oci.image import ContentSource
    from ..oci.reference import Reference
    from .blobs import BlobStore
    from .records import Container
    from .refs import RefRecord, RefStore, Summary

SETTLED_NS = 10**9  # 1970-01-01T00:00:01Z: older than any work in progress
GRACE_S = 24 * 3600.0  # seconds; longer than any pull that a person waits for


class Reached(msgspec.Struct, frozen=True, kw_only=True):
    """What a set of images needs."""

    blobs: frozenset[Digest]
    #: layers by the digest of their tar, which is how snapshots are named
    diff_ids: frozenset[Digest]

    def without(self, other: Reached) -> Reached:
        return Reached(blobs=self.blobs - other.blobs, diff_ids=self.diff_ids - other.diff_ids)


class Swept(msgspec.Struct, frozen=True, kw_only=True):
    """What a removal has freed."""

    blobs: tuple[Digest, ...] = ()
    parts: int = 0
    size: int = 0


def roots(refs: Iterable[RefRecord], containers: Iterable[Container]) -> tuple[Descriptor, ...]:
    """What must stay: every named image as it was pulled, and the image under every container."""
    found = {}
    for record in refs:
        found[record.descriptor.digest] = record.descriptor
        found[record.manifest.digest] = record.manifest
    for container in containers:
        found[container.manifest.digest] = container.manifest
    return tuple(found.values())


def reachable(starts: Iterable[Descriptor], source: ContentSource) -> Reached:
    """Everything below *starts*, they included; what is absent (other platforms of an index) reaches nothing.

    Raises Corrupt when a document cannot be read: what it needs is unknown then, and
    nothing must be deleted on such a basis.
    """
    blobs: set[Digest] = set()
    diff_ids: set[Digest] = set()
    left = list(starts)
    while left:
        descriptor = left.pop()
        if descriptor.digest in blobs:
            continue
        blobs.add(descriptor.digest)
        if not (descriptor.is_index or descriptor.is_manifest):
            continue
        try:
            document = read_manifest(descriptor, source)
        except NotFound:
            continue
        left.extend(document.children())
        if isinstance(document, Manifest):
            diff_ids.update(_diff_ids(descriptor, document, source))
    return Reached(blobs=frozenset(blobs), diff_ids=frozenset(diff_ids))


def _diff_ids(descriptor: Descriptor, manifest: Manifest, source: ContentSource) -> tuple[Digest, ...]:
    if manifest.config.media_type not in media.CONFIG_TYPES:
        return ()  # an artifact
    try:
        return Image(descriptor, source).config.diff_ids
    except NotFound:
        return ()


def publish(
    reference: Reference,
    descriptor: Descriptor,
    *,
    summary: Summary,
    needs: Iterable[Descriptor],
    blobs: BlobStore,
    refs: RefStore,
    sync: bool = True,
) -> RefRecord:
    """Name an image after making sure that all of *needs* (its own manifest included) is here; its maker's work ends.

    Raises Unavailable (content-collected) when something has been removed since it was fetched; no name is set then.
    """
    needs = tuple(needs)
    with blobs.publishing():
        for needed in needs:
            if not blobs.touch(needed):
                raise Unavailable(
                    f"content of {reference} was removed while it was being made",
                    code="content-collected",
                    context=f"blob {needed.digest} is gone from {blobs.root}",
                    hint="do it again; what is still there is not transferred twice",
                )
        record = refs.set(reference, descriptor, summary=summary, sync=sync)
        settle(needs, blobs=blobs)
    return record


def settle(needs: Iterable[Descriptor], *, blobs: BlobStore) -> None:
    """Say that the work with these blobs is done: from now on only a name or a container keeps them."""
    for needed in needs:
        with suppress(FileNotFoundError):
            os.utime(blobs.path(needed.digest), ns=(SETTLED_NS, SETTLED_NS))


def sweep(blobs: BlobStore, keep: Reached, *, grace_s: float = GRACE_S) -> Swept:
    """Remove every blob and part that *keep* does not hold and nobody touched for *grace_s* seconds.

    Safe beside others, see above.
    """
    latest_ns = _before(grace_s)
    swept = remove(blobs, (digest for digest in blobs.walk() if digest not in keep.blobs), grace_s=grace_s)
    parts, size = _remove_parts(blobs, latest_ns)
    return Swept(blobs=swept.blobs, parts=parts, size=swept.size + size)


def remove(blobs: BlobStore, unneeded: Iterable[Digest], *, grace_s: float = GRACE_S) -> Swept:
    """Remove those of *unneeded*, which no name reaches, that nobody is at work with."""
    removed, size, latest_ns = [], 0, _before(grace_s)
    for digest in unneeded:
        with blobs.collecting():
            try:
                if os.stat(blobs.path(digest)).st_mtime_ns > latest_ns:
                    continue
            except FileNotFoundError:
                continue
            size += blobs.delete(digest)
            removed.append(digest)
    return Swept(blobs=tuple(sorted(removed)), size=size)


def _before(grace_s: float) -> int:
    return time.time_ns() - int(grace_s * 1e9)


def _remove_parts(blobs: BlobStore, latest_ns: int) -> tuple[int, int]:
    """(how many, bytes) of the parts that nobody writes and nobody came back for."""
    count = size = 0
    for path in unfinished(blobs):
        try:
            fd = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        try:
            status = os.fstat(fd)
            if status.st_mtime_ns <= latest_ns and is_abandoned(fd) and is_named(fd, path):
                os.unlink(path)
                with suppress(FileNotFoundError):
                    os.unlink(path + JOURNAL)
                count, size = count + 1, size + status.st_size
        finally:
            os.close(fd)
    return count, size


def unfinished(blobs: BlobStore) -> list[str]:
    """Paths of what is, or was, being written; sorted."""
    folder = os.path.join(blobs.root, "ingest")
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(PART))
    except FileNotFoundError:
        return []
