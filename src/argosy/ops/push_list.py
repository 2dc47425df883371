"""manifest push: an index goes to a registry after all that it names; the tag is set last."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from ..errors import InvalidInput, NotFound
from ..oci.digest import Digest
from ..oci.reference import Reference
from ..remote.unfinished import NOWHERE
from ..store.blobs import REMEDY
from .parallel import in_parallel
from .progress import Finished, Warned, silent
from .push import send_blob

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..oci.descriptor import Descriptor
    from ..remote.repository import Repository
    from ..remote.unfinished import Unfinished
    from ..store.blobs import BlobStore
    from ..store.lists import Entry, ManifestList
    from .parallel import Check
    from .progress import Progress


class PushedList(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry has now that it had not."""

    #: of the index
    digest: Digest
    #: the manifests that were not in the repository before
    manifests: tuple[Reference, ...]


def push_list(
    own: ManifestList,
    *,
    blobs: BlobStore,
    connect: Callable[[Reference], Repository],
    unfinished: Unfinished = NOWHERE,
    restore: Callable[[Descriptor, Check], None] = lambda descriptor, check: None,
    progress: Progress = silent,
) -> PushedList:
    """Send the index that *own* makes under its own name, and first what the repository lacks of its manifests.

    What lies in another repository of the registry is mounted from there; what lies in
    this store or in another registry is copied. *restore* brings back what was dropped here.

    Raises InvalidInput (platform-missing), NotFound (list-content-gone: before anything
    is sent; blob-unknown), Unauthorized, Unavailable, Corrupt. The tag is as before then.
    """
    _check_platforms(own, progress)
    work = _Push(own.reference, blobs, connect, unfinished, restore, progress)
    missing = work.missing(own.entries)
    for entry in missing:
        require_content(entry, own.reference, blobs)
    work.send_blobs(missing)
    for entry in missing:
        work.target.push_manifest(entry.raw, entry.descriptor.media_type, entry.descriptor.digest)
    index = own.index
    work.target.push_manifest(index.raw, index.descriptor.media_type, own.reference.tag or index.descriptor.digest)
    sent = tuple(own.reference.with_digest(entry.descriptor.digest) for entry in missing)
    return PushedList(digest=index.descriptor.digest, manifests=sent)


def require_content(entry: Entry, name: Reference, blobs: BlobStore) -> None:
    """Raises NotFound (list-content-gone) where a local image's blobs have gone since list *name* took it in."""
    if not entry.is_local:
        return
    for child in entry.manifest.children():
        if not child.urls and blobs.stat(child.digest) != child.size and not blobs.holds(child.digest):
            source = entry.source.familiar()
            raise NotFound(
                f"the content of {source} is no longer here",
                code="list-content-gone",
                context=f"list {name.familiar()} took it from the images of this host; blob {child.digest} is gone",
                hint=f"pull or build it again, or take it from its registry: "
                f"argosy manifest create --amend {name.familiar()} {source}",
            )


class _Push:
    """The parts of one push."""

    def __init__(
        self,
        reference: Reference,
        blobs: BlobStore,
        connect: Callable[[Reference], Repository],
        unfinished: Unfinished,
        restore: Callable[[Descriptor, Check], None],
        progress: Progress,
    ) -> None:
        self._blobs = blobs
        self._connect = connect
        self._unfinished = unfinished
        self._restore = restore
        self._progress = progress
        #: {name of a repository: it}
        self._repositories: dict[str, Repository] = {}
        self.target = self._repository(reference)

    def missing(self, entries: Sequence[Entry]) -> tuple[Entry, ...]:
        """Those whose manifest the target lacks, each manifest once. One that it has has all its blobs too."""
        distinct = {entry.descriptor.digest: entry for entry in entries}
        return tuple(entry for digest, entry in distinct.items() if not self.target.has_manifest(digest))

    def send_blobs(self, entries: Sequence[Entry]) -> None:
        """Configs and layers of all of them, each once, the largest first; those of one registry from within it."""
        near_last = sorted(entries, key=lambda entry: entry.source.registry == self.target.registry)
        wanted = {child.digest: (child, entry) for entry in near_last for child in entry.manifest.children()}
        for entry in entries:
            self._repository(entry.source)  # made here, since the threads share them
        in_parallel(self._send, sorted(wanted.values(), key=lambda pair: -pair[0].size))

    def _send(self, pair: tuple[Descriptor, Entry], check: Check) -> None:
        descriptor, entry = pair
        is_here = self._blobs.stat(descriptor.digest) == descriptor.size
        if descriptor.urls and not is_here:
            return self._progress(Finished(descriptor.digest.short, "Skipped foreign layer"))
        # From the nearest that has it.
        source = self._blobs if is_here or entry.is_local else self._repository(entry.source)
        is_near = entry.source.registry == self.target.registry

        def open_blob(offset: int) -> BinaryIO:
            if source is self._blobs:
                self._restore(descriptor, check)
            return cast("BinaryIO", source.stream(descriptor, offset=offset))

        return send_blob(
            descriptor,
            open_blob,
            to=self.target,
            mount_from=(entry.source.repository,) if is_near else (),
            unfinished=self._unfinished,
            progress=self._progress,
            check=check,
            remedy=REMEDY if source is self._blobs else "",
        )

    def _repository(self, reference: Reference) -> Repository:
        if reference.name not in self._repositories:
            self._repositories[reference.name] = self._connect(reference)
        return self._repositories[reference.name]


def _check_platforms(own: ManifestList, progress: Progress) -> None:
    """Every manifest has a platform; two with the same one are told of, for clients take the first."""
    seen: dict[object, Entry] = {}
    for entry in own.entries:
        platform = entry.descriptor.platform
        if platform is None or not (platform.os and platform.architecture):
            name, source = own.reference.familiar(), entry.source.familiar()
            raise InvalidInput(
                f"manifest {source} must have an OS and Architecture to be pushed to a registry",
                code="platform-missing",
                context=f"clients choose by them, and neither its config nor list {name} says",
                hint=f"argosy manifest annotate --os linux --arch amd64 {name} {source}",
            )
        first = seen.setdefault(platform, entry)
        if first is not entry:
            both = f"{first.source.familiar()} and {entry.source.familiar()}"
            progress(Warned(f"{both} are both for {platform}; clients take the first"))
