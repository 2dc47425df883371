"""What is still needed, and the removal of the rest.

`reachable` only reads; `set_aside` deletes. A blob's time tells whether
somebody is at work with it: writing and claiming set it to now, `publish` sets it
back to SETTLED_NS once a name leads to the blob. Why deleting is safe while others pull, build
and tag, without stopping them:

1.  Content comes before its name. Whoever makes an image writes or claims each blob,
    children first, and publishes the reference last.
2.  `set_aside` is given what no reference reaches, and deletes of it what was not touched since
    the oldest living maker began (makers.py): a blob that only a later reference needs was
    written or claimed by the maker of that reference, thus after that maker began. What dead
    makers left is older, and goes at once, so that a full disk can be mended; unless somebody
    who is older still is at work: then it goes when that one ends, or after the grace period.
    Without locks the grace period alone decides.
3.  Three makers are not seen by this: one that works longer than the grace period, one whose
    blob another maker settled and whose name was removed again meanwhile, and one under whom the
    clock was set back. For them `publish` claims everything once more immediately before it
    sets the name, and fails cleanly when something has gone.
4.  A claim between the look at the time and the unlink would be lost. So claims and
    names are set under a shared lock (`BlobStore.publishing`) and deletions happen
    under the exclusive one (`collecting`), each held for milliseconds. Readers take neither.
5.  What is needed was found out before that lock was taken, and a name that was published since has
    settled its blobs, which are old then. So `publish` leaves a random word in `ingest/`, and who
    finds another one under the lock than before looks at all names again.
6.  A record of a dropped blob (dropped.py) is touched, claimed, settled and removed as the blob
    would be. The snapshot of its layer is all that is left of some of these, so it is removed
    after the record only (`ops/prune.py`): a claim that finds the record keeps both.
7.  A removal that dies has removed unneeded blobs only. A maker that dies leaves blobs
    and parts without a name, see 2.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import NotFound, Unavailable
from ..linux import room
from ..linux.files import NO_FILE, remove_tree, reporting
from ..linux.locks import idle
from ..oci import descriptor as media
from ..oci.digest import Digest
from ..oci.image import Image, read_manifest
from ..oci.manifest import Manifest
from .blobs import JOURNAL, PART
from .makers import began_ns

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.image import ContentSource
    from ..oci.reference import Reference
    from .blobs import BlobStore
    from .records import Container
    from .refs import RefRecord, RefStore, Summary

_PUBLICATION = "publication"  # in ingest/
_PATIENCE = 100  # looks, ten a second, at a blob that is listed and cannot be opened
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
    """What a removal has freed; *size* is bytes on the disk."""

    blobs: tuple[Digest, ...] = ()
    parts: int = 0
    size: int = 0
    #: files that are still to be removed, see `set_aside`
    files: tuple[str, ...] = ()


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """A blob that is, or was, being written."""

    path: str
    #: bytes on the disk, with those of its journal
    size: int
    #: when it was last written to, by the file system's clock
    touched_ns: int
    #: somebody has it open for writing
    busy: bool


def roots(refs: Iterable[RefRecord], containers: Iterable[Container]) -> tuple[Descriptor, ...]:
    """What must stay: every named image as it was pulled, and the image under every container."""
    found = {}
    for record in refs:
        found[record.descriptor.digest] = record.descriptor
        found[record.manifest.digest] = record.manifest
    for container in containers:
        found[container.manifest.digest] = container.manifest
    return tuple(found.values())


class _AsListed:
    """Blobs as their folder lists them.

    A network file system goes on saying for a while that a file is absent which another machine has
    just made, and what an absent manifest needs would be swept.
    """

    def __init__(self, blobs: BlobStore) -> None:
        self._blobs = blobs
        self._here: frozenset[Digest] | None = None

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        for _ in range(_PATIENCE):
            try:
                return self._blobs.open(descriptor, offset=offset)
            except NotFound:
                if self._here is None or descriptor.digest in self._here:
                    self._here = frozenset(self._blobs.walk())
                if descriptor.digest not in self._here:
                    raise
            time.sleep(0.1)
        return self._blobs.open(descriptor, offset=offset)


def reachable(starts: Iterable[Descriptor], stored: BlobStore) -> Reached:
    """Everything below *starts*, they included; what is absent (other platforms of an index) reaches nothing.

    Raises Corrupt when a document cannot be read: what it needs is unknown then, and
    nothing must be deleted on such a basis.
    """
    source = _AsListed(stored)
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
            if not (blobs.touch(needed) or blobs.dropped.claim(needed)):
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
        for path in (blobs.path(needed.digest), blobs.dropped.path(needed.digest)):
            with suppress(OSError):
                os.utime(path, ns=(SETTLED_NS, SETTLED_NS))


def idle_before_ns(blobs: BlobStore) -> int:
    """What was last touched before this moment is nobody's work; see 2 above."""
    return max(began_ns(os.path.join(blobs.root, "ingest")) or 0, time.time_ns() - int(GRACE_S * 1e9))


def set_aside(
    blobs: BlobStore, candidates: Iterable[Digest], needed: Callable[[], Reached], *, before_ns: int
) -> Swept:
    """Take those of *candidates* out of the store that nothing needs, and that were last touched before *before_ns*.

    What is left of them is *files*, for the caller to remove without anybody waiting for it
    (to unlink one of 500 MB that is in no cache takes 10 to 120 ms, in which the disk reads which
    blocks it had); should nobody, they are parts of transfers that nobody comes back for.

    *needed* finds out what every name and container needs. Records of dropped blobs go
    in the same way, and count as blobs.
    """
    candidates = tuple(candidates)
    if not candidates:
        return Swept()
    taken: dict[Digest, tuple[str, int]] = {}
    with blobs.collecting():  # nobody has left a word, but not yet set the name
        publication = _last_publication(blobs)
    keep = needed()
    for digest in candidates:
        with blobs.collecting() as lock:
            if (latest := _last_publication(blobs)) != publication:
                publication, keep = latest, needed()
            if digest in keep.blobs or not 0 < _touched_ns(blobs, digest) < before_ns:
                continue
            lock.require()
            path, size = blobs.set_aside(digest)
            taken[digest] = path, size + blobs.dropped.remove(digest)
    return Swept(
        blobs=tuple(sorted(taken)),
        size=sum(size for _, size in taken.values()),
        files=tuple(path for path, _ in taken.values() if path),
    )


def _touched_ns(blobs: BlobStore, digest: Digest) -> int:
    """When somebody last touched a blob or its record; 0 when there is neither.

    Opened, because NFS may show an old time otherwise.
    """
    latest = 0
    for path in (blobs.path(digest), blobs.dropped.path(digest)):
        with suppress(FileNotFoundError):
            try:
                fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
            except OSError:
                if not os.path.islink(path):
                    raise
                latest = max(latest, os.lstat(path).st_mtime_ns)  # a damaged disk's, wherever it leads
                continue
            try:
                latest = max(latest, os.fstat(fd).st_mtime_ns)
            finally:
                os.close(fd)
    return latest


def _note_publication(blobs: BlobStore) -> None:
    """Tell sweeps that what they know to be needed is no longer all. The caller is publishing."""
    path = os.path.join(blobs.root, "ingest", _PUBLICATION)
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
    with reporting("write", path):
        try:
            fd = os.open(path, flags, 0o600)
        except OSError as error:
            if error.errno not in NO_FILE:
                raise
            remove_tree(path)  # something else, as damaged disks have it
            fd = os.open(path, flags, 0o600)
        try:
            os.write(fd, os.urandom(16))
        finally:
            os.close(fd)


def _last_publication(blobs: BlobStore) -> bytes:
    """A random word that every publication sets anew."""
    try:
        with open(os.path.join(blobs.root, "ingest", _PUBLICATION), "rb", buffering=0) as file:
            return file.read(16)
    except OSError as error:
        if error.errno in (errno.ENOENT, *NO_FILE):
            return b""
        raise


def parts_of(blobs: BlobStore) -> tuple[Part, ...]:
    """Every unfinished blob, sorted by path."""
    found = []
    for path in unfinished(blobs):
        with suppress(FileNotFoundError), idle(path) as fd:
            status = os.stat(path)
            size = room.of(status) + room.of_file(path + JOURNAL)
            found.append(Part(path=path, size=size, touched_ns=status.st_mtime_ns, busy=fd is None))
    return tuple(found)


def remove_parts(parts: Iterable[Part]) -> Swept:
    """Remove those of *parts* that nobody has begun to write again."""
    count = size = 0
    for part in parts:
        with suppress(FileNotFoundError), idle(part.path) as fd:
            if fd is None:
                continue
            status = os.fstat(fd)
            if status.st_mtime_ns == part.touched_ns:
                count, size = count + 1, size + room.of(status) + room.of_file(part.path + JOURNAL)
                os.unlink(part.path)
                with suppress(FileNotFoundError):
                    os.unlink(part.path + JOURNAL)
    return Swept(parts=count, size=size)


def unfinished(blobs: BlobStore) -> list[str]:
    """Paths of what is, or was, being written; sorted."""
    folder = os.path.join(blobs.root, "ingest")
    try:
        return sorted(os.path.join(folder, name) for name in os.listdir(folder) if name.endswith(PART))
    except FileNotFoundError:
        return []
