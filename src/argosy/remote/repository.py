"""One repository of somebody else's registry: manifests, blobs and tags, read and written.

A ContentSource. What comes in is verified here: digests of manifests at once,
those of blobs while they are read. Source: distribution-spec 1.1.
"""

from __future__ import annotations

from contextlib import suppress
from functools import partial
from itertools import islice
from typing import TYPE_CHECKING, cast

import msgspec

from ..errors import Corrupt, Error, InvalidInput, NotFound
from ..oci import manifest as manifests
from ..oci.descriptor import ACCEPTED, Descriptor
from ..oci.digest import Digest, VerifyingReader
from ..oci.manifest import MANIFEST_LIMIT, Index, Manifest
from ..oci.reference import Reference, is_tag
from . import pages
from .auth import Auth
from .download import BlobReader
from .messages import HttpRequest, HttpResponse, is_downgrade, split_url
from .outgoing import IDLE, Outgoing
from .session import Session, error_codes, failed, unknown_answer
from .unfinished import NOWHERE, Unfinished
from .upload import Arrived, Uploader, put_manifest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence
    from typing import BinaryIO

    from .outgoing import OpenBlob, Watch
    from .transport import Transport

_ACCEPT = {"Accept": ", ".join(ACCEPTED)}
_TAGS_SEARCHED = 5000  # when a tag is unknown; more would make a typing error expensive
_TAGS_SHOWN = 5


class Resolved(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference names in a registry: the document, and the descriptor under which it was verified."""

    descriptor: Descriptor
    document: Manifest | Index

    @property
    def raw(self) -> bytes:
        return self.document.raw

    @property
    def media_type(self) -> str:
        return self.descriptor.media_type

    @property
    def digest(self) -> Digest:
        return self.descriptor.digest


class Repository:
    """The protocol for one repository. Opens nothing before the first request; used by several threads.

    *suggests*: of a tag that is not there, near ones are looked for. *api* and *namespace* are Session's.
    """

    def __init__(
        self,
        transport: Transport,
        registry: str,
        repository: str,
        auth: Auth | None = None,
        *,
        suggests: bool = True,
        api: str = "/v2",
        namespace: str = "",
    ) -> None:
        self.registry = registry
        self.repository = repository
        self._suggests = suggests
        auth = auth or Auth(registry, lambda: None, name=f"{registry}/{repository}")
        self._session = Session(transport, registry, auth, api=api, namespace=namespace)
        self._uploader = Uploader(self._session, repository)
        self._pull = f"repository:{repository}:pull"
        self._push = f"repository:{repository}:pull,push"

    @property
    def name(self) -> str:
        """registry/repository, in full."""
        return f"{self.registry}/{self.repository}"

    @property
    def transport(self) -> Transport:
        return self._session.transport

    @property
    def source(self) -> str:
        """The name of the place that the content comes from: this one, where there are no mirrors."""
        return self.name

    def resolve(self, reference: Reference) -> Resolved:
        """The manifest or index behind a tag or digest, in one request; verified against its digests.

        Raises NotFound (tag-unknown with near tags, manifest-unknown, repository-unknown),
        Corrupt (digest-mismatch, manifest-invalid …), Unauthorized, Unavailable.
        """
        name = reference.digest or reference.tag or ""
        request = HttpRequest(method="GET", url=self._url(f"manifests/{name}"), headers=_ACCEPT)
        response, raw = self._session.read(request, MANIFEST_LIMIT, self._pull)
        if response.status == 404:
            raise self._unknown(reference, response)
        if response.status != 200:
            raise unknown_answer(response, f"cannot read the manifest of {reference}")
        digest = _verified(raw, reference, response.headers.get("docker-content-digest"))
        document = _parsed(raw, response.headers.get("content-type"), reference)
        media_type = document.descriptor.media_type
        return Resolved(descriptor=Descriptor(media_type=media_type, digest=digest, size=len(raw)), document=document)

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """Stream a blob or manifest from byte *offset*; whole reads check size and digest at the end.

        Lost connections are taken up again where they broke.

        Raises NotFound (blob-unknown), Corrupt, Unauthorized, Unavailable.
        """
        stream = cast("BinaryIO", self.stream(descriptor, offset=offset))
        if offset:
            return stream
        return cast("BinaryIO", VerifyingReader(stream, descriptor.digest, size=descriptor.size))

    def stream(self, descriptor: Descriptor, *, offset: int = 0, end: int | None = None) -> BlobReader:
        """The bytes from *offset* to *end* (the blob's, when None), of which the size alone is checked."""
        last = descriptor.size if end is None else end
        return BlobReader(descriptor, offset, last, self._fetcher(descriptor), self._session.transport)

    def distrust(self, descriptor: Descriptor) -> bool:
        """What came of a blob was wrong, as whoever hashed it found out; whether it can be had from elsewhere.

        When it can, the next stream comes from there.
        """
        return False

    def tail(self, descriptor: Descriptor, count: int) -> bytes | None:
        """The last *count* bytes of a blob, unverified; None where they cannot be had without all the others."""
        try:
            with self._fetcher(descriptor)(descriptor.size - count, descriptor.size) as response:
                return response.read_all(count) if response.status == 206 else None
        except Error:  # only an estimate hangs on it
            return None

    def has_manifest(self, digest: Digest, *, pushing: bool = False) -> bool:
        """Whether this repository has it; with *pushing* asked with the token that a push needs anyway."""
        response = self._session.send(
            HttpRequest(method="HEAD", url=self._url(f"manifests/{digest}"), headers=_ACCEPT),
            self._push if pushing else self._pull,
        )
        if response.status in (200, 404):
            response.drain()
            return response.status == 200
        raise unknown_answer(response, f"cannot ask {self.registry} for manifest {digest} of {self.repository}")

    def has_blob(self, digest: Digest) -> bool:
        """Whether the blob could be fetched. Raises Unauthorized, Unavailable and what else registries answer."""
        response = self._session.send(HttpRequest(method="HEAD", url=self._url(f"blobs/{digest}")), self._pull)
        if response.status in (200, 404):
            response.drain()
            return response.status == 200
        raise unknown_answer(response, f"cannot ask {self.registry} for blob {digest} of {self.repository}")

    def mount(self, digest: Digest, from_repository: str) -> bool:
        """Take over a blob from another repository of this registry; False when it must be sent."""
        return self._uploader.mount(digest, from_repository)

    def push_blob(
        self,
        descriptor: Descriptor,
        open_blob: OpenBlob,
        *,
        mount_from: Sequence[str] = (),
        unfinished: Unfinished = NOWHERE,
        watch: Watch = IDLE,
        remedy: str = "",
    ) -> Arrived:
        """Make sure that the registry has a blob; says how it came there.

        *open_blob* opens its bytes from one of them on, *remedy* is what to type when
        they are damaged. *mount_from* are other repositories of the registry that may
        have it. What a broken upload brought is not sent again, across processes too
        where *unfinished* keeps it.

        Raises Unauthorized, Unavailable, Corrupt (damaged, before its end is sent; or the
        registry stored another), Exhausted (the registry takes none so large).
        """
        with Outgoing(descriptor, open_blob, watch, remedy=remedy) as blob:
            return self._uploader.push(blob, mount_from=mount_from, unfinished=unfinished)

    def push_manifest(self, raw: bytes, media_type: str, name: str) -> Digest:
        """Put a manifest under *name*, a tag or its digest; everything that it names must be there already.

        Returns the digest of exactly these bytes. Raises Corrupt when the registry stored others.
        """
        digest = Digest.of(raw) if is_tag(name) else _matching(raw, Digest.parse(name))
        stored = put_manifest(self._session, self.repository, name, raw, media_type)
        if stored is not None and stored.partition(":")[0] == digest.algorithm and stored != digest:
            raise Corrupt(
                f"{self.name} stored another manifest than was sent",
                code="digest-mismatch",
                context=f"sent {digest}, the registry names {stored}",
            )
        return digest

    def tags(self) -> Iterator[str]:
        """Every tag once, page by page as they are asked for. Raises NotFound (repository-unknown), as pages.walk."""
        path = f"/v2/{self.repository}/tags/list?n={pages.PAGE}"
        try:
            yield from pages.walk(self._session, path, "tags", self._pull, f"the tags of {self.name}")
        except NotFound as error:
            raise self._no_repository() from error

    def digest_of(self, tag: str) -> Digest:
        """What *tag* names, by the registry's word where it gives one to HEAD. Raises as resolve."""
        request = HttpRequest(method="HEAD", url=self._url(f"manifests/{tag}"), headers=_ACCEPT)
        response = self._session.send(request, self._pull)
        response.drain()
        if response.status == 200:
            with suppress(InvalidInput):
                return Digest.parse(response.headers.get("docker-content-digest", ""))
        return self.resolve(Reference(registry=self.registry, repository=self.repository, tag=tag)).digest

    def check_login(self) -> None:
        """Whether the registry takes our credentials; Unauthorized when not."""
        response = self._session.send(HttpRequest(method="GET", url=self._session.url("/v2/")))
        if not response.is_success:
            raise unknown_answer(response, f"cannot log in to {self.registry}")
        response.drain()

    def _url(self, path: str) -> str:
        return self._session.url(f"/v2/{self.repository}/{path}")

    def _get(self, path: str, headers: Mapping[str, str]) -> HttpResponse:
        return self._session.send(HttpRequest(method="GET", url=self._url(path), headers=headers), self._pull)

    def _fetcher(self, descriptor: Descriptor) -> Callable[[int, int], HttpResponse]:
        """What sends the GETs of one stream."""
        return partial(self._fetch, descriptor)

    def _fetch(self, descriptor: Descriptor, position: int, end: int) -> HttpResponse:
        is_whole = position == 0 and end == descriptor.size
        headers = {} if is_whole else {"Range": f"bytes={position}-{end - 1}"}
        is_document = descriptor.is_manifest or descriptor.is_index
        kind = "manifests" if is_document else "blobs"
        response = self._get(f"{kind}/{descriptor.digest}", headers | (_ACCEPT if is_document else {}))
        if response.status == 404 and descriptor.urls:
            response.drain()
            response = self._fetch_elsewhere(descriptor, headers)
        if response.status in (200, 206):
            return response
        if response.status == 404:
            raise NotFound(
                f"blob {descriptor.digest} is not in {self.name}",
                code="blob-unknown",
                context=failed(response, "").context,
                hint="the image was not pushed completely; push it again",
            )
        raise unknown_answer(response, f"cannot fetch blob {descriptor.digest} of {self.name}")

    def _fetch_elsewhere(self, descriptor: Descriptor, headers: Mapping[str, str]) -> HttpResponse:
        """A foreign layer: its manifest names addresses outside of the registry, which get no credentials."""
        for url in descriptor.urls:
            if split_url(url).scheme not in ("http", "https") or is_downgrade(self._session.base, url):
                continue
            response = self._session.transport.send(HttpRequest(method="GET", url=url, headers=headers))
            if response.status in (200, 206):
                return response
            response.drain()
        raise NotFound(
            f"layer {descriptor.digest} is not in {self.name}",
            code="foreign-layer",
            context=f"it is to be had only elsewhere, and was not: {', '.join(descriptor.urls)}",
        )

    def _unknown(self, reference: Reference, response: HttpResponse) -> NotFound:
        if "NAME_UNKNOWN" in error_codes(response):
            return self._no_repository()
        if reference.digest is not None or not self._suggests:
            name = reference.digest or reference.tag
            return NotFound(
                f"no manifest {name} in {self.name}",
                code="manifest-unknown",
                hint=f"argosy tags {reference.familiar_name} lists what it has",
            )
        try:
            tags = [tag for tag in islice(self.tags(), _TAGS_SEARCHED) if is_tag(tag)]
        except NotFound:
            return self._no_repository()
        except Error:  # the list only embellishes another error
            tags = []
        near = near_tags(reference.tag or "", tags)
        rest = f"argosy tags {reference.familiar_name} lists them" if tags else ""
        return NotFound(
            f"{reference.familiar()}: no such tag",
            code="tag-unknown",
            context=_tags_in_words(self.name, tags, near),
            hint=f"did you mean {reference.with_tag(near[0]).familiar()}?" if near else rest,
        )

    def _no_repository(self) -> NotFound:
        return NotFound(
            f"no repository {self.name}",
            code="repository-unknown",
            context=f"{self.registry} does not know it, or does not show it without a login",
            hint=f"check the spelling, or log in: argosy login {self.registry}",
        )


def near_tags(wanted: str, tags: list[str]) -> list[str]:
    """Up to five tags that somebody who typed *wanted* may have meant, the likeliest first. Pure."""
    import difflib

    close = difflib.get_close_matches(wanted, tags, _TAGS_SHOWN, 0.6)
    longer = sorted(
        (tag for tag in tags if tag.startswith(wanted) and tag not in close), key=lambda tag: (len(tag), tag)
    )
    return [*close, *longer][:_TAGS_SHOWN]


def _tags_in_words(name: str, tags: list[str], near: list[str]) -> str:
    if not tags:
        return f"{name} has no tags, or does not list them"
    if near:
        return f"near ones in {name}: {', '.join(near)}"
    more = f" and {len(tags) - _TAGS_SHOWN} more" if len(tags) > _TAGS_SHOWN else ""
    return f"{name} has {', '.join(tags[-_TAGS_SHOWN:])}{more}"


def _verified(raw: bytes, reference: Reference, stated: str | None) -> Digest:
    """The digest of *raw*: that of the reference if it has one, else what the registry states, else sha256."""
    if reference.digest is not None:
        return _matching(raw, reference.digest, str(reference))
    try:
        return _matching(raw, Digest.parse(stated), str(reference)) if stated else Digest.of(raw)
    except InvalidInput as error:
        raise Corrupt(
            f"{reference}: the registry states a bad digest", code="digest-invalid", context=error.message
        ) from error


def _matching(raw: bytes, digest: Digest, name: str = "manifest") -> Digest:
    found = Digest.of(raw, digest.algorithm)
    if found != digest:
        raise Corrupt(
            f"{name} is damaged",
            code="digest-mismatch",
            context=f"its bytes have digest {found}, promised was {digest}",
        )
    return digest


def _parsed(raw: bytes, media_type: str | None, reference: Reference) -> Manifest | Index:
    try:
        return manifests.parse(raw, media_type)
    except Corrupt as error:
        context = f"{error.message}: {error.context}" if error.context else error.message
        raise Corrupt(f"{reference} is not an image", code=error.code, context=context, hint=error.hint) from error
