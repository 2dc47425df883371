"""Blobs of a repository: whole, in part, or only whether they exist. Source: distribution-spec 1.1 «Pulling blobs»."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..linux.files import reporting
from ..oci.digest import Digest
from . import ranges
from .messages import FileBody, Response, in_thread

if TYPE_CHECKING:
    from .app import Site
    from .messages import Request


async def get(site: Site, request: Request, name: str, digest: str) -> Response:
    """GET and HEAD: the bytes, or those that Range asks for. Raises NotFound (blob-unknown)."""
    wanted = Digest.parse(digest)
    head = request.method == "HEAD"
    fd, size = await in_thread(_look if head else _open, site, name, wanted)
    headers = {
        "content-type": "application/octet-stream",
        "docker-content-digest": wanted,
        "etag": f'"{wanted}"',
        "accept-ranges": "bytes",
        "cache-control": "max-age=31536000, immutable",
    }
    if is_known(request, wanted):
        _close(fd)
        return Response(304, headers)
    spans = _spans(request, wanted, size)
    if spans is None:
        return Response(200, headers, FileBody(fd=fd, pieces=((0, size),)))
    if not spans:
        _close(fd)
        return Response(416, {**headers, "content-range": f"bytes */{size}"})
    if len(spans) == 1:
        headers["content-range"] = ranges.content_range(spans[0], size)
        return Response(206, headers, FileBody(fd=fd, pieces=spans))
    headers["content-type"], body = ranges.multipart(fd, spans, size)
    return Response(206, headers, body)


async def delete(site: Site, request: Request, name: str, digest: str) -> Response:
    """DELETE: the repository no longer holds the blob. Raises NotFound (blob-unknown)."""
    await in_thread(_delete, site, name, Digest.parse(digest))
    return Response(202)


def is_known(request: Request, digest: Digest) -> bool:
    """Whether the client has this content already (If-None-Match)."""
    tags = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (f'"{digest}"', "*") for tag in tags.split(",")) if tags else False


def _spans(request: Request, digest: Digest, size: int) -> tuple[ranges.Span, ...] | None:
    """As ranges.parse; the whole when If-Range means another content."""
    if request.headers.get("if-range", f'"{digest}"') != f'"{digest}"':
        return None
    return ranges.parse(request.headers.get("range", ""), size)


def _look(site: Site, name: str, digest: Digest) -> tuple[int, int]:
    size = site.storage.repository(name).blob_size(digest)
    if size is None:
        raise _unknown(name, digest)
    return -1, size


def _open(site: Site, name: str, digest: Digest) -> tuple[int, int]:
    _look(site, name, digest)
    path = site.storage.blobs.path(digest)
    with reporting("read", path):
        try:
            fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError as error:
            raise _unknown(name, digest) from error
    return fd, os.fstat(fd).st_size


def _delete(site: Site, name: str, digest: Digest) -> None:
    repository = site.storage.repository(name)
    if repository.blob_size(digest) is None:
        raise _unknown(name, digest)
    with repository.changing():
        repository.unlink_blob(digest)


def _close(fd: int) -> None:
    if fd >= 0:
        os.close(fd)


def _unknown(name: str, digest: Digest) -> NotFound:
    return NotFound(f"repository {name!r} holds no blob {digest}", code="blob-unknown")
