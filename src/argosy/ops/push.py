"""An image goes to a registry: what it lacks is sent, children before parents, the tag last."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from ..errors import Corrupt, Error, NotFound
from ..oci.descriptor import Descriptor
from ..oci.image import Image, read_manifest
from ..oci.manifest import Index, Manifest
from .parallel import in_parallel
from .progress import Finished, Observed, Started, silent

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from ..oci.digest import Digest
    from ..oci.platform import Platform
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..store.blobs import BlobStore
    from ..store.refs import RefStore
    from .parallel import Check
    from .progress import Progress

_DEEPEST = 4  # indexes within indexes


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
    progress: Progress = silent,
) -> Pushed:
    """Send the image under *reference*'s own name; with *platform* that platform's manifest alone, without the index.

    Blobs that the registry has are not sent; those that it has under another name
    (as far as our names tell) are mounted from there.

    Raises NotFound (tag-unknown: no such image here; platforms-missing; blob-unknown),
    Unauthorized, Unavailable, Corrupt.
    """
    top = refs.get(reference).descriptor
    if platform is not None:
        top = Image.select(top, blobs, platform, name=reference.familiar()).descriptor
    documents = tuple(_documents(top, blobs, repository, reference))
    work = _Push(repository, blobs, _homes(refs, blobs, repository), progress)
    work.send_blobs(documents)
    for document in reversed(documents[1:]):
        repository.push_manifest(document.raw, document.descriptor.media_type, document.descriptor.digest)
    name = reference.tag if reference.tag is not None else top.digest
    repository.push_manifest(documents[0].raw, documents[0].descriptor.media_type, name)
    return Pushed(name=name, descriptor=top)


class _Push:
    """The blobs of one push."""

    def __init__(
        self, repository: Repository, blobs: BlobStore, homes: Mapping[Digest, str], progress: Progress
    ) -> None:
        self._repository = repository
        self._blobs = blobs
        #: {blob: another repository of the same registry that has it, as far as we know}
        self._homes = homes
        self._progress = progress

    def send_blobs(self, documents: tuple[Manifest | Index, ...]) -> None:
        """Configs and layers of all manifests, each once, the largest first."""
        wanted = {child.digest: child for doc in documents if isinstance(doc, Manifest) for child in doc.children()}
        in_parallel(self._send, sorted(wanted.values(), key=lambda descriptor: -descriptor.size))

    def _send(self, descriptor: Descriptor, check: Check) -> None:
        check()
        name, home = descriptor.digest.short, self._homes.get(descriptor.digest)
        if descriptor.urls and self._blobs.stat(descriptor.digest) is None:
            return self._progress(Finished(name, "Skipped foreign layer"))
        how = self._repository.push_blob(descriptor, lambda: self._open(descriptor, check), mount_from=home)
        status = {"present": "Layer already exists", "mounted": f"Mounted from {home}", "sent": "Pushed"}[how]
        return self._progress(Finished(name, status))

    def _open(self, descriptor: Descriptor, check: Check) -> BinaryIO:
        """The blob from its first byte, anew for each attempt; what is damaged here is not sent to its end."""
        self._progress(Started(descriptor.digest.short, descriptor.size, "Pushing"))
        stream = self._blobs.open(descriptor)
        return cast("BinaryIO", Observed(stream, descriptor.digest.short, self._progress, check))


def _documents(
    top: Descriptor, blobs: BlobStore, repository: Repository, reference: Reference
) -> Iterator[Manifest | Index]:
    """The manifest, or the index and all below it that must be sent, parents first.

    What is not here may be left out when the registry has it. Raises NotFound (platforms-missing).
    """
    missing: list[Descriptor] = []
    waiting = [(top, 0)]
    while waiting:
        descriptor, depth = waiting.pop(0)
        if depth > _DEEPEST:
            raise Corrupt(f"{reference.familiar()} nests indexes too deeply", code="index-too-deep")
        if descriptor is not top and not _is_here(descriptor, blobs):
            if not repository.has_manifest(descriptor.digest):
                missing.append(descriptor)
            continue
        document = read_manifest(descriptor, blobs)
        yield document
        if isinstance(document, Index):
            waiting += [(child, depth + 1) for child in document.manifests]
    if missing:
        raise _incomplete(reference, missing)


def _is_here(descriptor: Descriptor, blobs: BlobStore) -> bool:
    """Whether a manifest is here with all its blobs (an index: itself alone)."""
    if blobs.stat(descriptor.digest) is None:
        return False
    document = read_manifest(descriptor, blobs)
    blobs_of = document.children() if isinstance(document, Manifest) else ()
    return all(child.urls or blobs.stat(child.digest) is not None for child in blobs_of)


def _incomplete(reference: Reference, missing: list[Descriptor]) -> NotFound:
    names = ", ".join(str(child.platform or child.digest) for child in missing)
    return NotFound(
        f"not all platforms of {reference.familiar()} are here",
        code="platforms-missing",
        context=f"missing here and in the registry: {names}",
        hint=f"push one with --platform linux/…, or argosy pull --all-platforms {reference.familiar()} first",
    )


def _homes(refs: RefStore, blobs: BlobStore, repository: Repository) -> dict[Digest, str]:
    """Which other repositories of this registry hold which blobs, from the names that we have of them."""
    homes: dict[Digest, str] = {}
    for record in refs.list():
        name = record.reference
        if name.registry != repository.registry or name.repository == repository.repository:
            continue
        try:
            document = read_manifest(record.manifest, blobs)
        except Error:  # another image's trouble
            continue
        homes |= {child.digest: name.repository for child in document.children()}
    return homes
