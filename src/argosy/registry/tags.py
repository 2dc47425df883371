"""Lists in pages: the tags of a repository, and the repositories. Source: distribution-spec 1.1 «Listing Tags»."""

from __future__ import annotations

from bisect import bisect_right
from itertools import islice
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
    count, last = _asked(request)
    tags = await in_thread(repository.tags)
    if not tags:
        await in_thread(repository.require)
    rest = tags[bisect_right(tags, last) :]
    page = rest if count is None else rest[:count]
    return _answer({"name": name, "tags": page}, f"/v2/{name}/tags/list", page, more=len(page) < len(rest))


async def list_repositories(site: Site, request: Request) -> Response:
    """GET /v2/_catalog?n=&last=: Docker's, not the specification's; CATALOG_PAGE names unless n says otherwise."""
    count, last = _asked(request)
    page, more = await in_thread(_read_names, site, CATALOG_PAGE if count is None else count, last)
    return _answer({"repositories": page}, "/v2/_catalog", page, more=more)


def _read_names(site: Site, count: int, last: str) -> tuple[list[str], bool]:
    """(*count* names past *last*, whether there are more); only folders on the way to them are read."""
    names = site.storage.names(after=last)
    page = list(islice(names, count))
    return page, next(names, None) is not None


def _asked(request: Request) -> tuple[int | None, str]:
    """(n, last) of the query. Raises InvalidInput (page-invalid)."""
    text, last = request.query("n"), request.query("last")
    if text is not None and not (text.isascii() and text.isdecimal() and len(text) < 10):
        raise InvalidInput(f"not a number of entries: {text!r}", code="page-invalid", hint="n is a whole number")
    return (int(text) if text is not None else None), last or ""


def _answer(document: object, path: str, page: list[str], *, more: bool) -> Response:
    headers = {"content-type": "application/json"}
    if more and page:
        headers["link"] = f'<{path}?{urlencode({"n": len(page), "last": page[-1]})}>; rel="next"'
    return Response(200, headers, encode(document))
