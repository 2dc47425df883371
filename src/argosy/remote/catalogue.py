"""What a registry offers as a whole: the list of its repositories, and Docker's older way to search one.

`/v2/_catalog` is distribution's, and most public registries leave it out. `/v1/search`
outlived the rest of that version: Docker Hub answers it, and so do Quay, Nexus and
Artifactory. Source: distribution «Listing Repositories»; moby `registry/session.go`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from ..errors import Corrupt, NotFound, Unsupported
from ..oci.reference import DEFAULT_REGISTRY, is_repository
from . import pages
from .auth import Auth
from .messages import HttpRequest
from .session import Session, unknown_answer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .credentials import Credentials
    from .transport import Transport

HUB = "index.docker.io"  # where docker.io is searched; its registry, which is another host, has no catalogue
SEARCH_LIMIT = 100  # results that one search can be asked for; moby's own limit
_ANSWER_LIMIT = 2**20  # bytes; a hundred results of Docker Hub have about 30 kB
DESCRIPTION_LIMIT = 1000  # characters; Docker Hub's have a hundred at most
_MOST_STARS = 2**63 - 1  # what moby's type holds


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A repository that a search brought; a catalogue knows its name alone."""

    name: str
    description: str = ""
    stars: int = 0
    is_official: bool = False


class _Result(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    description: str | None = None
    star_count: int | None = None
    is_official: bool | None = None


class _Answer(msgspec.Struct, frozen=True):
    #: raw, so that a result which is none spoils no other
    results: tuple[msgspec.Raw, ...] | None = None


class Catalogue:
    """One registry as a list of repositories. Opens nothing before the first request."""

    def __init__(self, transport: Transport, registry: str, auth: Auth | None = None) -> None:
        self.registry = registry
        self._session = Session(transport, registry, auth or Auth(registry, lambda: None))

    def repositories(self) -> Iterator[str]:
        """Every repository that the registry shows us, page by page; what is no name of one is passed over.

        Raises Unsupported (no-catalogue), Unauthorized, Unavailable, Corrupt, see pages.walk.
        """
        path = f"/v2/_catalog?n={pages.PAGE}"
        names = pages.walk(
            self._session, path, "repositories", "registry:catalog:*", f"the repositories of {self.registry}"
        )
        try:
            yield from filter(is_repository, names)
        except (NotFound, Unsupported) as error:
            raise Unsupported(
                f"{self.registry} does not list its repositories",
                code="no-catalogue",
                context=error.context,
                hint=f"argosy tags {self.registry}/NAME lists the tags of a repository whose name you know",
            ) from error

    def search(self, term: str, limit: int) -> tuple[Found, ...]:
        """What the registry's own search finds, the best first; names are as pull takes them.

        Raises NotFound, Unsupported … where it has none, Corrupt (search-invalid).
        """
        query = urlencode({"q": term, "n": min(limit, SEARCH_LIMIT)})
        request = HttpRequest(method="GET", url=self._session.url(f"/v1/search?{query}"))
        response, raw = self._session.read(request, _ANSWER_LIMIT)
        if response.status != 200:
            raise unknown_answer(response, f"cannot search {self.registry}")
        return parse_answer(raw, self.registry)[:limit]


def connect(registry: str, *, transport: Transport, credentials: Credentials) -> Catalogue:
    """The catalogue of *registry*, with the user's credentials for it; nothing is sent yet. Docker Hub needs none."""
    if registry == DEFAULT_REGISTRY:
        return Catalogue(transport, HUB)
    auth = Auth(registry, lambda: credentials.find(registry, ""), problems=lambda: "\n".join(credentials.problems))
    return Catalogue(transport, registry, auth)


def parse_answer(raw: bytes, registry: str) -> tuple[Found, ...]:
    """The results of a search; those that name no repository are left out. Raises Corrupt (search-invalid)."""
    try:
        results = msgspec.json.decode(raw, type=_Answer).results or ()
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Corrupt(f"{registry} gave no answer to a search", code="search-invalid", context=str(error)) from error
    return tuple(found for result in results if (found := _parse_result(result)) is not None)


def _parse_result(raw: msgspec.Raw) -> Found | None:
    try:
        result = msgspec.json.decode(raw, type=_Result)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return None
    if not is_repository(result.name):
        return None
    return Found(
        name=result.name,
        description=" ".join((result.description or "")[:DESCRIPTION_LIMIT].split()),
        stars=min(max(result.star_count or 0, 0), _MOST_STARS),
        is_official=bool(result.is_official),
    )
