"""search: which repositories there are, on Docker Hub or in a registry that tells."""

from __future__ import annotations

import sys
from itertools import islice
from typing import TYPE_CHECKING

import msgspec

from ..errors import Error, InvalidInput, Unauthorized, Unsupported
from ..oci.reference import DEFAULT_REGISTRY, is_registry, split_registry
from ..remote.catalogue import SEARCH_LIMIT, Found

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from ..remote.catalogue import Catalogue

FILTERS = frozenset({"is-official", "stars"})
DEFAULT_LIMIT = 25  # results; moby's and podman's
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """What a user searches: part of a name, in one registry."""

    registry: str
    #: may be empty where all of a registry's repositories are wanted
    term: str

    @classmethod
    def parse(cls, text: str) -> Query:
        """`cuda`, `nvidia/cuda`, `quay.io/cuda`, `localhost:5000/`. Raises InvalidInput (search-invalid).

        A host with a port alone is a registry too; no name on Docker Hub has a colon.
        """
        host, colon, port = text.partition(":")
        whole = f"{text}/" if colon and port.isdecimal() and ("." in host or host == "localhost") else text
        registry, term = split_registry(whole)
        if not is_registry(registry):
            raise InvalidInput(f"not a registry: {registry!r}", code="search-invalid", hint=_HINT)
        if registry == DEFAULT_REGISTRY:
            term = term.removeprefix("library/")
            if not term:
                raise InvalidInput("nothing to search Docker Hub for", code="search-invalid", hint=_HINT)
        return cls(registry=registry, term=term)


_HINT = "a term is part of a name: cuda, nvidia/cuda, or with a registry localhost:5000/cuda"


def search(
    query: Query,
    *,
    catalogue: Catalogue,
    filters: Mapping[str, Sequence[str]] | None = None,
    limit: int = DEFAULT_LIMIT,
) -> tuple[Found, ...]:
    """At most *limit* repositories for which the filters hold, in the order in which they were told.

    Docker Hub is asked to search. Of another registry the names that hold the term are
    picked from its catalogue, the exact one first; where it has no catalogue, its own
    search is tried.

    Raises InvalidInput (filter-invalid, limit-invalid), Unsupported (no-catalogue),
    Unauthorized, Unavailable, Corrupt.
    """
    holds = parse_filters(filters or {})
    on_hub = query.registry == DEFAULT_REGISTRY
    if not 1 <= limit <= (SEARCH_LIMIT if on_hub else sys.maxsize):
        most = f" to {SEARCH_LIMIT}" if on_hub else ""
        raise InvalidInput(f"not a limit: {limit}", code="limit-invalid", hint=f"the limit is a number from 1{most}")
    if on_hub:
        asked = SEARCH_LIMIT if filters else limit
        return tuple(filter(holds, catalogue.search(query.term, asked)))[:limit]
    return _search_registry(query, catalogue, holds, limit)


def parse_filters(filters: Mapping[str, Sequence[str]]) -> Callable[[Found], bool]:
    """Docker's filters as one test; the last value of a key counts. Raises InvalidInput (filter-invalid)."""
    stars, official = (filters.get(key, [""])[-1] for key in ("stars", "is-official"))
    if "stars" in filters and not (stars.isascii() and stars.isdecimal() and len(stars) < 19):
        raise InvalidInput(f"not a number of stars: {stars!r}", code="filter-invalid", hint="--filter stars=10")
    if "is-official" in filters and official.lower() not in _TRUE | _FALSE:
        raise InvalidInput(f"not true or false: {official!r}", code="filter-invalid", hint="--filter is-official=true")
    least = int(stars or "0")
    wanted = official.lower() in _TRUE if official else None
    return lambda found: found.stars >= least and wanted in (None, found.is_official)


def _search_registry(
    query: Query, catalogue: Catalogue, holds: Callable[[Found], bool], limit: int
) -> tuple[Found, ...]:
    try:
        matching = (Found(name=name) for name in catalogue.repositories() if query.term in name)
        found = tuple(islice(filter(holds, matching), limit))
    except (Unsupported, Unauthorized) as error:
        found = tuple(filter(holds, _by_its_own_search(query, catalogue, limit, error)))
    exact_first = sorted(found, key=lambda each: each.name != query.term)
    return tuple(msgspec.structs.replace(each, name=f"{query.registry}/{each.name}") for each in exact_first)


def _by_its_own_search(
    query: Query, catalogue: Catalogue, limit: int, refusal: Unsupported | Unauthorized
) -> tuple[Found, ...]:
    """What `/v1/search` finds; where there is none either, *refusal* is the answer, with what helps."""
    if query.term:
        try:
            return catalogue.search(query.term, limit)
        except Error:  # the older way; what was wrong with the usual one says more
            pass
    if isinstance(refusal, Unsupported):
        raise refusal
    raise Unauthorized(
        refusal.message,
        code=refusal.code,
        context=refusal.context,
        hint=f"{refusal.hint}\nmany registries list their repositories to nobody: argosy tags "
        f"{query.registry}/NAME".lstrip("\n"),
    ) from refusal
