"""Blobs of a repository: whole, in part, or only whether they exist. Source: distribution-spec 1.1 «Pulling blobs»."""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING

from ..errors import NotFound
from ..linux.files import reporting
from ..oci.digest import Digest
from .messages import FileSlice, Response, in_thread

if TYPE_CHECKING:
    from .app import Site
    from .messages import Request

_RANGE = re.compile(r"bytes=\s*(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))\s*")


async def get(site: Site, request: Request, name: str, digest: str) -> Response:
    """GET and HEAD: the bytes, or those that one Range asks for. Raises NotFound (blob-unknown)."""
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
    span = _span(request, wanted, size)
    if span is None:
        _close(fd)
        return Response(416, {**headers, "content-range": f"bytes */{size}"})
    start, count, partial = span
    if partial:
        headers["content-range"] = f"bytes {start}-{start + count - 1}/{size}"
    return Response(206 if partial else 200, headers, FileSlice(fd=fd, offset=start, size=count))


async def delete(site: Site, request: Request, name: str, digest: str) -> Response:
    """DELETE: the repository no longer holds the blob. Raises NotFound (blob-unknown)."""
    await in_thread(_delete, site, name, Digest.parse(digest))
    return Response(202)


def is_known(request: Request, digest: Digest) -> bool:
    """Whether the client has this content already (If-None-Match)."""
    tags = request.headers.get("if-none-match", "")
    return any(tag.strip().removeprefix("W/") in (f'"{digest}"', "*") for tag in tags.split(",")) if tags else False


def _span(request: Request, digest: Digest, size: int) -> tuple[int, int, bool] | None:
    """(offset, count, whether in part) of the bytes to send; None when the range lies outside. Source: RFC 9110 14.

    Several ranges, another unit or nonsense give the whole, as the RFC allows.
    """
    match = _RANGE.fullmatch(request.headers.get("range", ""))
    if match is None or request.headers.get("if-range", f'"{digest}"') != f'"{digest}"':
        return 0, size, False
    first, last, suffix = match.groups()
    if suffix is not None:
        count = min(int(suffix), size)
        return (size - count, count, True) if count else None
    start, end = int(first), int(last) if last is not None else size
    if end < start and last is not None:
        return 0, size, False
    return (start, min(end, size - 1) - start + 1, True) if start < size else None


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
