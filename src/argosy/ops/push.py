"""An image goes to a registry: what it lacks is sent, children before parents, the tag last."""

from __future__ import annotations

from functools import cached_property
from itertools import takewhile
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error, InvalidInput, NotFound, Unavailable, Unsupported
from ..oci.descriptor import Descriptor
from ..oci.image import Image, read_manifest
from ..oci.manifest import Index, Manifest
from ..remote.outgoing import Watch
from ..remote.unfinished import NOWHERE
from ..store.blobs import REMEDY
from .parallel import in_parallel
from .progress import Advanced, Finished, Started, silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from ..oci.digest import Digest
    from ..oci.platform import Platform
    from ..oci.reference import Reference
    from ..remote.outgoing import OpenBlob
    from ..remote.repository import Repository
    from ..remote.unfinished import Unfinished
    from ..store.blobs import BlobStore
    from ..store.refs import RefRecord, RefStore
    from .parallel import Check
    from .progress import Progress

_DEEPEST = 4  # indexes within indexes
_HOMES = 3  # repositories that a mount is tried from; each that fails costs a request or two


class Pushed(msgspec.Struct, frozen=True, kw_only=True):
    """What the registry has now: *name* is the tag, or the digest where the reference has no tag."""

    name: str
    descriptor: Descriptor


def push(
    reference: Reference,
    *,
    repository: Repository,
    blobs: BlobStore,
    refs: RefStore,
    platform: Platform | None = None,
    unfinished: Unfinished = NOWHERE,
    restore: Callable[[Descriptor, Check], None] = lambda descriptor, check: None,
    progress: Progress = silent,
) -> Pushed:
    """Send the image under *reference*'s own name; with *platform* that platform's manifest alone, without the index.

    What the image is, is read once: who moves the name meanwhile changes nothing. Blobs
    that the registry has are not sent; those that it has under another name (as far as
    our names tell) are mounted from there. *restore* brings back what was dropped, before it
    is sent. Where *unfinished* kept an upload that broke, it goes on.

    Raises NotFound (tag-unknown: no such image here; platform-not-in-index; platforms-missing; blob-unknown),
    Unauthorized, Unavailable, Corrupt.
    """
    top = refs.get(reference).descriptor
    if platform is not None:
        image = Image.select(top, blobs, platform, name=reference.familiar())
        if not platform.matches(image.config.platform):  # one that no index has told
            raise _other_platform(reference, image.config.platform, platform)
        top = image.descriptor
    work = _Push(reference, top, repository, blobs, _Homes(refs, blobs, repository), unfinished, restore, progress)
    if not work.is_taken_as_it_is():
        work.send()
    unfinished.sweep()
    return Pushed(name=work.name, descriptor=top)


def _other_platform(reference: Reference, found: Platform, wanted: Platform) -> NotFound:
    name = reference.familiar()
    return NotFound(
        f"{name} is not for {wanted}",
        code="platform-not-in-index",
        context=f"it has one platform, {found}",
        hint=f"argosy push --platform {found} {name}",
    )


class _Push:
    """One image on its way to one repository."""

    def __init__(
        self,
        reference: Reference,
        top: Descriptor,
        repository: Repository,
        blobs: BlobStore,
        homes: _Homes,
        unfinished: Unfinished,
        restore: Callable[[Descriptor, Check], None],
        progress: Progress,
    ) -> None:
        self.name = reference.tag if reference.tag is not None else top.digest
        self._reference = reference
        self._repository = repository
        self._blobs = blobs
        self._homes = homes
        self._unfinished = unfinished
        self._restore = restore
        self._progress = progress
        self._top = top.digest
        #: {digest by which it is named: manifest or index}, parents first; and what is not here with all its blobs
        self._documents, self._absent = _documents(top, blobs, reference)

    def is_taken_as_it_is(self) -> bool:
        """Put the manifests alone where this repository has the image; False if it has not, or if it refuses.

        That a registry has a manifest does not say that it still has the blobs: collectors
        of garbage have lost some, and pushing again is how people mend that. But a registry
        looks for what a manifest names whenever one is put (distribution-spec,
        MANIFEST_BLOB_UNKNOWN), with the same eyes that a HEAD of each blob would see with.
        So every manifest is put once more, and after a refusal each blob is asked for. That
        makes two requests of a push that changes nothing, however many layers there are; the
        price is that a registry which looks for nothing is not mended. The tag is put in any
        case, as Docker does: it may mean something else by now.
        """
        try:
            if not self._repository.has_manifest(self._top, pushing=True):
                return False
            self._put_documents()
        except (InvalidInput, NotFound, Unsupported):
            return False
        except Unavailable as error:
            if error.code != "registry-failed":
                raise
            return False  # it may have lost the very manifest
        for blob in self._wanted():
            self._progress(Finished(blob.digest.short, "Layer already exists"))
        return True

    def send(self) -> None:
        """Blobs, then manifests. Raises NotFound (platforms-missing) before anything is sent."""
        missing = [child for child in self._absent if not self._repository.has_manifest(child.digest, pushing=True)]
        if missing:
            raise _incomplete(self._reference, missing)
        in_parallel(self._send, self._wanted())
        self._put_documents()

    def _wanted(self) -> list[Descriptor]:
        """Configs and layers of all manifests, each once, the largest first."""
        images = (document for document in self._documents.values() if isinstance(document, Manifest))
        found = {child.digest: child for image in images for child in image.children()}
        return sorted(found.values(), key=lambda descriptor: -descriptor.size)

    def _put_documents(self) -> None:
        """Images at once, then indexes from the innermost on, the name last."""
        below = [digest for digest in self._documents if digest != self._top]
        is_index = {digest: isinstance(self._documents[digest], Index) for digest in below}
        in_parallel(self._put, [digest for digest in below if not is_index[digest]])
        for digest in reversed([digest for digest in below if is_index[digest]]):
            self._put(digest)
        top = self._documents[self._top]
        self._repository.push_manifest(top.raw, top.descriptor.media_type, self.name)

    def _put(self, digest: Digest, check: Check = lambda: None) -> None:
        check()
        document = self._documents[digest]
        self._repository.push_manifest(document.raw, document.descriptor.media_type, digest)

    def _send(self, descriptor: Descriptor, check: Check) -> None:
        if descriptor.urls and (descriptor.is_foreign or not self._blobs.holds(descriptor.digest)):
            return self._progress(Finished(descriptor.digest.short, "Skipped foreign layer"))

        def open_blob(offset: int) -> BinaryIO:
            self._restore(descriptor, check)
            return self._blobs.stream(descriptor, offset=offset)

        return send_blob(
            descriptor,
            open_blob,
            to=self._repository,
            mount_from=self._homes.of(descriptor.digest),
            unfinished=self._unfinished,
            progress=self._progress,
            check=check,
            remedy=REMEDY,
        )


def send_blob(
    descriptor: Descriptor,
    open_blob: OpenBlob,
    *,
    to: Repository,
    mount_from: Sequence[str] = (),
    unfinished: Unfinished = NOWHERE,
    progress: Progress,
    check: Check,
    remedy: str = "",
) -> None:
    """As Repository.push_blob, telling of it in Docker's words."""
    check()
    arrived = to.push_blob(
        descriptor,
        open_blob,
        mount_from=mount_from,
        unfinished=unfinished,
        watch=_Bar(descriptor, progress, check),
        remedy=remedy,
    )
    status = {"present": "Layer already exists", "mounted": f"Mounted from {arrived.source}", "sent": "Pushed"}
    progress(Finished(descriptor.digest.short, status[arrived.how]))


class _Bar(Watch):
    """A transfer as progress; it goes back when the registry has less than was sent."""

    def __init__(self, descriptor: Descriptor, progress: Progress, check: Check) -> None:
        self._name, self._size = descriptor.digest.short, descriptor.size
        self._progress = progress
        self._check = check
        self._position = self._size + 1  # nothing was told yet
        self._waits = False

    def stands(self, position: int) -> None:
        self._check()
        if position < self._position:
            self._progress(Started(self._name, self._size, "Pushing"))
            self._position = 0
        if position > self._position:
            self._progress(Advanced(self._name, position - self._position))
        self._position = position

    def waits(self) -> None:
        self._check()
        if not self._waits:
            self._progress(Started(self._name, None, "Waiting"))
            self._waits = True


class _Homes:
    """Which other repositories of a registry have a blob, as far as our names of images there tell."""

    def __init__(self, refs: RefStore, blobs: BlobStore, repository: Repository) -> None:
        self._refs = refs
        self._blobs = blobs
        self._repository = repository

    def of(self, digest: Digest) -> Sequence[str]:
        """A few of them, those first whose names are nearest to ours: there we may probably read."""
        ours = self._repository.repository.split("/")
        found = self._known.get(digest, ())
        return sorted(found, key=lambda name: (-_shared(name.split("/"), ours), name))[:_HOMES]

    @cached_property
    def _known(self) -> dict[Digest, set[str]]:
        """{blob: repositories}; read when the first blob is sent, since not every push sends one."""
        known: dict[Digest, set[str]] = {}
        for record in self._refs.list():
            name = record.reference
            if name.registry != self._repository.registry or name.repository == self._repository.repository:
                continue
            for digest in self._blobs_under(record):
                known.setdefault(digest, set()).add(name.repository)
        return known

    def _blobs_under(self, record: RefRecord) -> Iterator[Digest]:
        try:
            documents, _ = _documents(record.descriptor, self._blobs, record.reference)
        except Error:  # another image's trouble
            return
        for document in documents.values():
            if isinstance(document, Manifest):
                yield from (child.digest for child in document.children())


def _documents(
    top: Descriptor, blobs: BlobStore, reference: Reference
) -> tuple[dict[Digest, Manifest | Index], tuple[Descriptor, ...]]:
    """({digest: the manifest, or the index and all below it}, parents first; what is not here with all its blobs)"""
    found: dict[Digest, Manifest | Index] = {}
    absent: dict[Digest, Descriptor] = {}
    level = {top.digest: top}
    for _ in range(_DEEPEST + 1):
        below: dict[Digest, Descriptor] = {}
        for digest, descriptor in level.items():
            if digest != top.digest and not _is_here(descriptor, blobs):
                absent[digest] = descriptor
                continue
            # One that is met again further down moves behind its new parent.
            document = found.pop(digest) if digest in found else read_manifest(descriptor, blobs)
            found[digest] = document
            if isinstance(document, Index):
                below |= {child.digest: child for child in document.manifests}
        level = below
    if level:
        raise Corrupt(f"{reference.familiar()} nests indexes too deeply", code="index-too-deep")
    return found, tuple(absent.values())


def _is_here(descriptor: Descriptor, blobs: BlobStore) -> bool:
    """Whether a manifest is here with all its blobs (an index: itself alone)."""
    if blobs.stat(descriptor.digest) is None:
        return False
    document = read_manifest(descriptor, blobs)
    blobs_of = document.children() if isinstance(document, Manifest) else ()
    return all(child.urls or blobs.holds(child.digest) for child in blobs_of)


def _incomplete(reference: Reference, missing: list[Descriptor]) -> NotFound:
    names = ", ".join(str(child.platform or child.digest) for child in missing)
    return NotFound(
        f"not all platforms of {reference.familiar()} are here",
        code="platforms-missing",
        context=f"missing here and in the registry: {names}",
        hint=f"push one with --platform linux/…, or argosy pull --all-platforms {reference.familiar()} first",
    )


def _shared(name: list[str], other: list[str]) -> int:
    """How many components two repositories' names have in common, from the first on."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(name, other, strict=False)))
