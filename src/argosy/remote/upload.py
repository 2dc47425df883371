"""A blob on its way to a registry: asked for, mounted, sent in one piece, or in chunks where that is refused.

An upload that breaks is begun anew under a new session: what a registry keeps of a
half-sent PUT is its own affair. Source: distribution-spec «Pushing blobs».
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..errors import Corrupt, Error, Unavailable
from .messages import HttpRequest, join_url, split_url
from .session import failed, unknown_answer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from .messages import HttpResponse
    from .session import Session

CHUNK_SIZE = 16 * 2**20  # bytes a PATCH; held in memory, so that it can be sent again with a new token
_NOT_IN_ONE_PIECE = frozenset({404, 405, 411, 413, 415, 416, 501})
_OCTETS = {"Content-Type": "application/octet-stream"}


class Uploader:
    """Uploads to one repository. *scopes* are those of a push."""

    def __init__(self, session: Session, repository: str) -> None:
        self._session = session
        self._repository = repository
        self._scope = f"repository:{repository}:pull,push"

    def send(self, descriptor: Descriptor, open_stream: Callable[[], BinaryIO]) -> None:
        """Send a blob that the registry does not have. Raises Unauthorized, Unavailable, Corrupt, Exhausted."""
        attempt = 0
        while True:
            attempt += 1
            try:
                return self._send_once(descriptor, open_stream)
            except Unavailable as error:
                if not self._session.transport.waited(attempt, error.retry_after):
                    raise

    def mount(self, digest: Digest, from_repository: str) -> bool:
        """Take over a blob from another repository of the registry; False when it must be sent after all."""
        query = urlencode({"mount": digest, "from": from_repository}, safe=":/")
        url = self._session.url(f"/v2/{self._repository}/blobs/uploads/?{query}")
        request = HttpRequest(method="POST", url=url)
        try:
            response = self._session.send(request, self._scope, f"repository:{from_repository}:pull")
        except Error:  # not allowed to read there, or the registry knows no mounts: sending it will tell
            return False
        if response.status == 201:
            response.drain()
            return True
        self._forget_upload(response)
        return False

    def _send_once(self, descriptor: Descriptor, open_stream: Callable[[], BinaryIO]) -> None:
        location = self._begin(descriptor.digest)
        request = HttpRequest(
            method="PUT",
            url=_with_digest(location, descriptor.digest),
            headers=_OCTETS,
            open_body=open_stream,
            body_size=descriptor.size,
            once=True,
        )
        response = self._session.send(request, self._scope)
        if response.status in _NOT_IN_ONE_PIECE:
            response.drain()
            response = self._send_in_chunks(descriptor, open_stream)
        self._check_created(response, descriptor.digest)

    def _begin(self, digest: Digest) -> str:
        """Where the upload goes."""
        request = HttpRequest(method="POST", url=self._session.url(f"/v2/{self._repository}/blobs/uploads/"))
        response = self._session.send(request, self._scope)
        if response.status != 202:
            raise unknown_answer(response, self._cannot(digest))
        return self._next_location(response, digest)

    def _send_in_chunks(self, descriptor: Descriptor, open_stream: Callable[[], BinaryIO]) -> HttpResponse:
        """For registries behind a proxy that limits the size of a request."""
        location, offset = self._begin(descriptor.digest), 0
        with open_stream() as stream:
            while chunk := stream.read(CHUNK_SIZE):
                location = self._send_chunk(location, offset, chunk, descriptor.digest)
                offset += len(chunk)
        return self._session.send(
            HttpRequest(method="PUT", url=_with_digest(location, descriptor.digest), headers=_OCTETS), self._scope
        )

    def _send_chunk(self, location: str, offset: int, chunk: bytes, digest: Digest) -> str:
        request = HttpRequest(
            method="PATCH",
            url=location,
            headers={**_OCTETS, "Content-Range": f"{offset}-{offset + len(chunk) - 1}"},
            open_body=lambda: io.BytesIO(chunk),
            body_size=len(chunk),
        )
        response = self._session.send(request, self._scope)
        if response.status not in (202, 204):
            raise unknown_answer(response, self._cannot(digest))
        return self._next_location(response, digest)

    def _check_created(self, response: HttpResponse, digest: Digest) -> None:
        if response.status not in (201, 204):
            raise unknown_answer(response, self._cannot(digest))
        stored = response.headers.get("docker-content-digest")
        response.drain()
        if stored is not None and stored != digest:
            raise Corrupt(f"{self._cannot(digest)}", code="digest-mismatch", context=f"the registry stored {stored}")

    def _next_location(self, response: HttpResponse, digest: Digest) -> str:
        location = response.headers.get("location")
        response.drain()
        if not location:
            raise Corrupt(self._cannot(digest), code="protocol-error", context="the registry named no upload address")
        target, base = split_url(join_url(response.url, location)), split_url(self._session.base)
        if target.netloc == base.netloc:  # registries behind a proxy that ends TLS often say http
            target = target._replace(scheme=base.scheme)
        return target.geturl()

    def _forget_upload(self, response: HttpResponse) -> None:
        """A mount that was refused begins an upload; better not to leave it lying about."""
        location = response.headers.get("location") if response.status == 202 else None
        response.drain()
        if location is None:
            return
        try:
            request = HttpRequest(method="DELETE", url=join_url(response.url, location), once=True)
            self._session.send(request, self._scope).drain()
        except Error:
            pass  # registries remove forgotten uploads by themselves

    def _cannot(self, digest: Digest) -> str:
        return f"cannot push blob {digest} to {self._session.registry}/{self._repository}"


def put_manifest(session: Session, repository: str, name: str, raw: bytes, media_type: str) -> str | None:
    """PUT a manifest under a tag or digest; returns the digest that the registry names for it."""
    request = HttpRequest(
        method="PUT",
        url=session.url(f"/v2/{repository}/manifests/{name}"),
        headers={"Content-Type": media_type},
        open_body=lambda: io.BytesIO(raw),
        body_size=len(raw),
    )
    response = session.send(request, f"repository:{repository}:pull,push")
    if response.status not in (201, 200, 204):
        raise failed(response, f"cannot push manifest {name} to {session.registry}/{repository}")
    response.drain()
    return response.headers.get("docker-content-digest")


def _with_digest(location: str, digest: Digest) -> str:
    return f"{location}{'&' if '?' in location else '?'}{urlencode({'digest': digest}, safe=':')}"
