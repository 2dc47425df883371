"""Lists that a registry gives page by page: tags of a repository, repositories of a registry.

Each page names the next one in its Link header. A registry may send pages of any
length, and may be wrong about where they lead, so what ends the walk is decided here.
Source: distribution-spec 1.1 «Listing Tags»; distribution's «Listing Repositories».
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Exhausted, InvalidInput
from .messages import HttpRequest, join_url, split_url
from .session import unknown_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .messages import HttpResponse
    from .session import Session

PAGE = 1000  # names asked for at once; distribution 3 refuses more, and registries may send fewer
_PAGE_LIMIT = 8 * 2**20  # bytes of one page
_NAMES_LIMIT = 1_000_000  # in all; Docker Hub's largest repositories have some ten thousand tags
_STALE_LIMIT = 8  # pages in a row without a new name; a filter behind the registry may leave a few empty
#: One link of a Link header: its target, then its parameters. Source: RFC 8288 «Link Header Field».
_LINK = re.compile(r"<([^<>]*)>((?:\s*;[^,<]*)*)")
_NEXT = re.compile(r';\s*rel\s*=\s*"?(?:[^";,]*\s)?next(?:\s[^";,]*)?"?\s*(?:;|$)', re.IGNORECASE)


def walk(session: Session, path: str, field: str, scope: str, what: str) -> Iterator[str]:
    """Every text in the list *field* of the documents at *path* and the pages that follow it, each text once.

    Lazy: a page is asked for when the one before it is used up. *what* is «the tags of
    NAME», for messages. Raises what the answer means (NotFound, Unauthorized …), Corrupt
    (list-invalid: no such document; pages-endless: ever more pages with nothing
    new), Exhausted (list-too-long).
    """
    url: str | None = session.url(path)
    asked: set[str] = set()
    names: set[str] = set()
    stale = 0
    while url is not None and url not in asked:  # a page that was read already has nothing more to tell
        asked.add(url)
        response, raw = session.read(HttpRequest(method="GET", url=url), _PAGE_LIMIT, scope)
        if response.status != 200:
            raise unknown_answer(response, f"cannot list {what}")
        fresh = [name for name in dict.fromkeys(_texts(raw, field, what)) if name not in names]
        names.update(fresh)
        yield from fresh
        stale = 0 if fresh else stale + 1
        _check_progress(len(names), stale, what)
        url = following(response, url)


def following(response: HttpResponse, url: str) -> str | None:
    """The address in `Link: <…>; rel="next"`; never one on another host, since it would get our token."""
    for target, parameters in _LINK.findall(response.headers.get("link", "")):
        if _NEXT.search(parameters):
            try:
                there, here = split_url(join_url(url, target.strip())), split_url(url)
            except InvalidInput as error:
                raise Corrupt(
                    f"{split_url(url).netloc} names no address for its next page",
                    code="list-invalid",
                    context=error.message,
                ) from error
            return there._replace(scheme=here.scheme, netloc=here.netloc).geturl()
    return None


def _texts(raw: bytes, field: str, what: str) -> list[str]:
    try:
        document = msgspec.json.decode(raw, type=dict[str, msgspec.Raw])
        return msgspec.json.decode(document.get(field, b"null"), type=list[str] | None) or []
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"no list of {what}", code="list-invalid", context=str(error)) from error


def _check_progress(names: int, stale: int, what: str) -> None:
    if stale > _STALE_LIMIT:
        raise Corrupt(
            f"the list of {what} does not end",
            code="pages-endless",
            context=f"the last {stale} pages brought nothing new, and each leads to another",
        )
    if names > _NAMES_LIMIT:
        raise Exhausted(f"the list of {what} is too long", code="list-too-long", context=f"more than {_NAMES_LIMIT}")
