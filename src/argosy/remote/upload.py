"""Blobs on their way to a registry: asked for, mounted from another repository, or sent (delivery.py)."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

import msgspec

from ..errors import Error, Unavailable
from .delivery import ONE_PIECE, Delivery
from .messages import HttpRequest, join_url
from .session import failed, unknown_answer
from .unfinished import Place

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..oci.digest import Digest
    from .messages import HttpResponse
    from .outgoing import Outgoing
    from .session import Session
    from .unfinished import Unfinished

How = Literal["present", "mounted", "sent"]


class Arrived(msgspec.Struct, frozen=True):
    """How the registry came by a blob; *source* is the repository that it was mounted from."""

    how: How
    source: str = ""


class Uploader:
    """Uploads to one repository. Used by several threads; remembers what the registry was found to refuse."""

    def __init__(self, session: Session, repository: str) -> None:
        self.session = session
        self.scope = f"repository:{repository}:pull,push"
        self.name = f"{session.registry}/{repository}"
        self._repository = repository
        #: repositories that nothing could be mounted from, as asking again would not change
        self._closed: set[str] = set()
        #: most bytes that a request may carry, once one was too large
        self.limit: int | None = None
        #: whether PATCH is known here
        self.patches = True

    def push(self, blob: Outgoing, *, mount_from: Sequence[str], unfinished: Unfinished) -> Arrived:
        """Make sure that the registry has *blob*: see Repository.push_blob."""
        digest = blob.descriptor.digest
        if self.has(digest):
            return Arrived("present")
        begun: HttpResponse | None = None
        for source in mount_from:
            if begun is not None:
                self._forget(begun)
            mounted, begun = self._mount(digest, source)
            if mounted:
                return Arrived("mounted", source)
        return Arrived(self._send(blob, begun, unfinished))

    def has(self, digest: Digest) -> bool:
        request = HttpRequest(method="HEAD", url=self._url(f"blobs/{digest}"))
        response = self.session.send(request, self.scope)  # one token for the question and the upload
        if response.status in (200, 404):
            response.drain()
            return response.status == 200
        raise unknown_answer(response, f"cannot ask {self.session.registry} for blob {digest} of {self._repository}")

    def mount(self, digest: Digest, from_repository: str) -> bool:
        """Take over a blob from another repository of the registry; False when it must be sent after all."""
        mounted, begun = self._mount(digest, from_repository)
        if begun is not None:
            self._forget(begun)
        return mounted

    def begin(self) -> HttpResponse:
        """A new upload's address is in the Location of this 202; any other status may come too."""
        return self.session.send(HttpRequest(method="POST", url=self._url("blobs/uploads/")), self.scope)

    def _send(self, blob: Outgoing, begun: HttpResponse | None, unfinished: Unfinished) -> How:
        if blob.descriptor.size <= ONE_PIECE:
            return Delivery(self, blob, Place("")).run(begun)
        with unfinished.take(self.name, blob.descriptor.digest, blob.watch.waits) as place:
            return Delivery(self, blob, place).run(begun)

    def _mount(self, digest: Digest, source: str) -> tuple[bool, HttpResponse | None]:
        """(whether it was mounted, the answer that begins an upload instead)"""
        if source in self._closed:
            return False, None
        query = urlencode({"mount": digest, "from": source}, safe=":/")
        request = HttpRequest(method="POST", url=self._url(f"blobs/uploads/?{query}"))
        try:
            response = self._send_twice(request, f"repository:{source}:pull")
        except Unavailable:  # sending the blob will tell whether the registry is there at all
            return False, None
        except Error:  # we are not allowed to read there
            self._closed.add(source)
            return False, None
        if response.status == 202:
            return False, response
        response.drain()
        return response.status == 201, None

    def _send_twice(self, request: HttpRequest, scope: str) -> HttpResponse:
        """A connection that broke is no reason to send gigabytes."""
        try:
            return self.session.send(request, self.scope, scope)
        except Unavailable:
            return self.session.send(request, self.scope, scope)

    def _forget(self, response: HttpResponse) -> None:
        """A mount that was refused begins an upload; better not to leave it lying about."""
        location = response.headers.get("location")
        response.drain()
        if location is None:
            return
        try:
            request = HttpRequest(method="DELETE", url=join_url(response.url, location), once=True)
            self.session.send(request, self.scope).drain()
        except Error:
            pass  # registries remove forgotten uploads by themselves

    def _url(self, path: str) -> str:
        return self.session.url(f"/v2/{self._repository}/{path}")


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
