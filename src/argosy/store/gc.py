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
4.  What is needed was found out before that lock was taken, and a name that was published since has
    settled its blobs, which are old then. So `publish` leaves a random word in `ingest/`, and who
    finds another one under the lock than before looks at all names again.
5.  A sweep that dies has removed unneeded blobs only. A maker that dies leaves young blobs
    and parts without a name, which a sweep takes when the grace period is over.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import NotFound, Unavailable
from ..linux.files import reporting
from ..linux.locks import idle
from ..oci import descriptor as media
from ..oci.digest import Digest
from ..oci.image import Image, read_manifest
from ..oci.manifest import Manifest
from .blobs import JOURNAL, PART

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..oci.descriptor import Descriptor
    from ..oci.image import ContentSource
    from ..oci.reference import Reference
    from .blobs import BlobStore
    from .records import Container
    from .refs import RefRecord, RefStore, Summary

_PUBLICATION = "publication"  # in ingest/
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
        _note_publication(blobs)
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
    """Say that the work with these blobs is done: from now on only a name or a container keeps them.

    Where it cannot be said (a full disk), they stay for the grace period; the name stands already.
    """
    for needed in needs:
        with suppress(OSError):
            os.utime(blobs.path(needed.digest), ns=(SETTLED_NS, SETTLED_NS))


def sweep(blobs: BlobStore, needed: Callable[[], Reached], *, grace_s: float = GRACE_S) -> Swept:
    """Remove every blob and part that nothing needs and nobody touched for *grace_s* seconds.

    *needed* finds out what every name and container needs. Safe beside others, see above.
    """
    swept = remove(blobs, blobs.walk(), needed, grace_s=grace_s)
    parts = remove_parts(blobs, grace_s=grace_s)
    return Swept(blobs=swept.blobs, parts=parts.parts, size=swept.size + parts.size)


def remove(
    blobs: BlobStore, candidates: Iterable[Digest], needed: Callable[[], Reached], *, grace_s: float = GRACE_S
) -> Swept:
    """Remove those of *candidates* that nothing needs and that nobody is at work with."""
    removed, size, latest_ns = [], 0, time.time_ns() - int(grace_s * 1e9)
    with blobs.collecting():  # nobody has left a word, but not yet set the name
        publication = _last_publication(blobs)
    keep = needed()
    for digest in candidates:
        with blobs.collecting() as lock:
            if (latest := _last_publication(blobs)) != publication:
                publication, keep = latest, needed()
            if digest in keep.blobs or not 0 < _touched_ns(blobs, digest) <= latest_ns:
                continue
            lock.require()
            size += blobs.delete(digest)
            removed.append(digest)
    return Swept(blobs=tuple(sorted(removed)), size=size)


def _touched_ns(blobs: BlobStore, digest: Digest) -> int:
    """When somebody last touched a blob; 0 when it is gone. Opened, because NFS may show an old time otherwise."""
    try:
        fd = os.open(blobs.path(digest), os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return 0
    try:
        return os.fstat(fd).st_mtime_ns
    finally:
        os.close(fd)


def _note_publication(blobs: BlobStore) -> None:
    """Tell sweeps that what they know to be needed is no longer all. The caller is publishing."""
    path = os.path.join(blobs.root, "ingest", _PUBLICATION)
    with reporting("write", path):
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            os.write(fd, os.urandom(16))
        finally:
            os.close(fd)


def _last_publication(blobs: BlobStore) -> bytes:
    """A random word that every publication sets anew."""
    try:
        with open(os.path.join(blobs.root, "ingest", _PUBLICATION), "rb", buffering=0) as file:
            return file.read(16)
    except FileNotFoundError:
        return b""


def remove_parts(blobs: BlobStore, *, grace_s: float = GRACE_S) -> Swept:
    """Remove the parts that nobody writes and nobody came back for."""
    count, size, latest = 0, 0, time.time() - grace_s
    for path in unfinished(blobs):
        with suppress(FileNotFoundError), idle(path) as fd:
            if fd is None:
                continue
            status = os.fstat(fd)
            if status.st_mtime <= latest:
                os.unlink(path)
                with suppress(FileNotFoundError):
                    os.unlink(path + JOURNAL)
                count, size = count + 1, size + status.st_size
    return Swept(parts=count, size=size)


def unfinished(blobs: BlobStore) -> list[str]:
    """Paths of what is, or was, being written; sorted."""
    folder = os.path.join(blobs.root, "ingest")
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(PART))
    except FileNotFoundError:
        return []
