"""Manifests: kept to the byte, accepted only when what they name is there, tagged last.

Source: distribution-spec 1.1 «Pushing Manifests», «Pulling manifests».
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Corrupt, InvalidInput, NotFound
from ..oci import manifest as documents
from ..oci.descriptor import OCI_EMPTY, Descriptor
from ..oci.digest import Digest
from ..oci.image import read_blob
from ..oci.manifest import MANIFEST_LIMIT, Manifest
from ..oci.reference import is_tag
from .blobs import is_known
from .errors import ContentUnknown
from .messages import Response, in_thread

if TYPE_CHECKING:
    from ..oci.manifest import Index
    from .app import Site
    from .messages import Request
    from .storage import Repository


async def get(site: Site, request: Request, name: str, reference: str) -> Response:
    """GET and HEAD by tag or digest. Raises NotFound (repository-unknown, manifest-unknown)."""
    descriptor, raw = await in_thread(_read, site.storage.repository(name), reference)
    digest = descriptor.digest
    headers = {
        "content-type": descriptor.media_type,
        "docker-content-digest": digest,
        "etag": f'"{digest}"',
    }
    if is_known(request, digest):
        return Response(304, headers)
    return Response(200, headers, raw)


async def put(site: Site, request: Request, name: str, reference: str) -> Response:
    """PUT by tag or digest; `?tag=` (any number) names it too when it comes by digest.

    Raises InvalidInput (manifest-too-large, manifest-rejected, digest-mismatch,
    size-lie), ContentUnknown.
    """
    repository = site.storage.repository(name)
    digest, tags = _parse_reference(reference)
    tags += tuple(_parse_tag(tag) for tag in request.queries("tag"))
    raw = await request.read(MANIFEST_LIMIT)
    if raw is None:
        raise InvalidInput(
            "the manifest is too large", code="manifest-too-large", context=f"the limit is {MANIFEST_LIMIT} bytes"
        )
    document = parse(raw, request.headers.get("content-type"))
    descriptor = _named(document.descriptor, raw, digest)
    await in_thread(_store, repository, document, descriptor, raw, tags)
    headers = {"location": f"/v2/{name}/manifests/{descriptor.digest}", "docker-content-digest": descriptor.digest}
    if document.subject is not None:
        headers["oci-subject"] = document.subject.digest
    if request.queries("tag"):
        headers["oci-tag"] = ", ".join(tags)
    return Response(201, headers)


async def delete(site: Site, request: Request, name: str, reference: str) -> Response:
    """DELETE a tag, or a manifest with all its tags. Raises NotFound."""
    digest, tags = _parse_reference(reference)
    repository = site.storage.repository(name)
    if digest is None:
        await in_thread(_delete_tag, repository, tags[0])
    else:
        await in_thread(_delete_manifest, repository, digest)
    return Response(202)


def parse(raw: bytes, content_type: str | None) -> Manifest | Index:
    """A manifest as a client sent it. Raises InvalidInput (manifest-rejected) for what Corrupt is elsewhere."""
    try:
        return documents.parse(raw, content_type)
    except Corrupt as error:
        raise InvalidInput(
            error.message, code="manifest-rejected", context=error.context, hint=error.hint or error.code
        ) from error


def _parse_reference(reference: str) -> tuple[Digest | None, tuple[str, ...]]:
    """(digest, no tags) or (None, one tag). Raises InvalidInput."""
    if ":" in reference:
        return Digest.parse(reference), ()
    return None, (_parse_tag(reference),)


def _parse_tag(tag: str) -> str:
    if not is_tag(tag):
        raise InvalidInput(
            f"not a tag: {tag!r}", code="reference-invalid", hint="letters, digits, «_», «.» and «-», 128 at most"
        )
    return tag


def _named(descriptor: Descriptor, raw: bytes, digest: Digest | None) -> Descriptor:
    """The descriptor under the digest that the client chose, which must be that of the bytes."""
    if digest is None:
        return descriptor
    found = Digest.of(raw, digest.algorithm)
    if found != digest:
        raise InvalidInput(
            f"the manifest does not have digest {digest}", code="digest-mismatch", context=f"it has {found}"
        )
    return Descriptor(media_type=descriptor.media_type, digest=digest, size=len(raw))


def _store(
    repository: Repository, document: Manifest | Index, descriptor: Descriptor, raw: bytes, tags: tuple[str, ...]
) -> None:
    """Bytes, link, referrers, tags, in this order; a crash in between leaves no name without its content."""
    repository.blobs.keep(descriptor, raw)
    with repository.changing():  # what is checked here cannot be deleted before the tag stands
        _check_children(repository, document)
        repository.link_manifest(descriptor)
        if document.subject is not None:
            repository.add_referrer(document.subject.digest, _as_referrer(document, descriptor))
        for tag in tags:
            repository.set_tag(tag, descriptor)


def _check_children(repository: Repository, document: Manifest | Index) -> None:
    """Each child is held here with the size promised; layers with URLs may live elsewhere (Windows' base layers)."""
    missing = []
    for child in document.children():
        size = repository.size(child.digest)
        if size is None and not child.urls and not _is_inline(child):
            missing.append(child.digest)
        elif size is not None and size != child.size:
            raise InvalidInput(
                f"the manifest lies about the size of {child.digest}",
                code="size-lie",
                context=f"it says {child.size} bytes, the content has {size}",
            )
    if missing:
        raise ContentUnknown(repository.name, tuple(dict.fromkeys(missing)))


def _is_inline(child: Descriptor) -> bool:
    """The empty JSON carried in the manifest itself, which artifact clients may leave unpushed."""
    return child.media_type == OCI_EMPTY and child.data == "e30="


def _as_referrer(document: Manifest | Index, descriptor: Descriptor) -> Descriptor:
    """What the referrers list says of it: artifactType falls back to the config's type, for images only."""
    kind = document.artifact_type
    if not kind and isinstance(document, Manifest):
        kind = document.config.media_type
    return Descriptor(
        media_type=descriptor.media_type,
        digest=descriptor.digest,
        size=descriptor.size,
        artifact_type=kind or None,
        annotations=document.annotations or None,
    )


def _read(repository: Repository, reference: str) -> tuple[Descriptor, bytes]:
    digest, tags = _parse_reference(reference)
    descriptor = repository.manifest(digest) if digest is not None else repository.tag(tags[0])
    if descriptor is None:
        raise _unknown(repository, reference)
    return descriptor, _content(repository, descriptor)


def _content(repository: Repository, descriptor: Descriptor) -> bytes:
    """The bytes of a manifest that is linked here. Raises Corrupt, also when they are gone."""
    try:
        return read_blob(descriptor, repository.blobs, limit=MANIFEST_LIMIT)
    except NotFound as error:
        raise Corrupt(
            f"manifest {descriptor.digest} of {repository.name!r} is lost", code="content-lost", context=error.context
        ) from error


def _delete_tag(repository: Repository, tag: str) -> None:
    with repository.changing():
        if not repository.delete_tag(tag):
            raise _unknown(repository, tag)


def _delete_manifest(repository: Repository, digest: Digest) -> None:
    """Names first, then what they name."""
    descriptor = repository.manifest(digest)
    if descriptor is None:
        raise _unknown(repository, digest)
    with repository.changing():
        for tag in repository.tags():
            named = repository.tag(tag)
            if named is not None and named.digest == digest:
                repository.delete_tag(tag)
        with suppress(Corrupt):  # damaged or lost: all the more reason to delete it
            subject = documents.parse(_content(repository, descriptor), descriptor.media_type).subject
            if subject is not None:
                repository.remove_referrer(subject.digest, digest)
        repository.unlink_manifest(digest)


def _unknown(repository: Repository, reference: str) -> NotFound:
    repository.require()
    return NotFound(f"repository {repository.name!r} has no manifest {reference!r}", code="manifest-unknown")
