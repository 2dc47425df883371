"""Lists in pages: the tags of a repository, and the repositories. Source: distribution-spec 1.1 «Listing Tags»."""

from __future__ import annotations

from bisect import bisect_right
from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..errors import InvalidInput
from ..oci.wire import encode
from .messages import Response, in_thread

if TYPE_CHECKING:
    from .app import Site
    from .messages import Request

CATALOG_PAGE = 1000  # names, where the client states no n; distribution's limit


async def list_tags(site: Site, request: Request, name: str) -> Response:
    """GET …/tags/list?n=&last=: all tags unless n says fewer. Raises NotFound (repository-unknown)."""
    repository = site.storage.repository(name)
    tags = await in_thread(repository.tags)
    if not tags:
        await in_thread(repository.require)
    page, link = _page(request, tags, f"/v2/{name}/tags/list", None)
    return _answer({"name": name, "tags": page}, link)


async def list_repositories(site: Site, request: Request) -> Response:
    """GET /v2/_catalog?n=&last=."""
    names = await in_thread(site.storage.names)
    page, link = _page(request, names, "/v2/_catalog", CATALOG_PAGE)
    return _answer({"repositories": page}, link)


def _page(request: Request, names: list[str], path: str, most: int | None) -> tuple[list[str], str | None]:
    """(names of this page, Link to the next one or None); *names* are sorted."""
    text, last = request.query("n"), request.query("last")
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidInput(f"not a number of entries: {text!r}", code="page-invalid", hint="n is a whole number")
    count = int(text) if text is not None else most
    start = bisect_right(names, last) if last else 0
    page = names[start:] if count is None else names[start : start + count]
    if not page or start + len(page) == len(names):
        return page, None
    return page, f'<{path}?{urlencode({"n": len(page), "last": page[-1]})}>; rel="next"'


def _answer(document: object, link: str | None) -> Response:
    headers = {"content-type": "application/json"}
    if link is not None:
        headers["link"] = link
    return Response(200, headers, encode(document))
