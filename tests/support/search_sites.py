"""The parts of a registry that searches meet: a catalogue in pages, and Docker's older `/v1/search`.

with search_site(results=[result("nginx", stars=9)]) as site:
    argosy(root, "search", f"{site.address}/ngi")
"""

from __future__ import annotations

import json
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from .web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from .web import Site


def result(name: object, description: object = "", stars: object = 0, official: object = False) -> dict[str, object]:
    """A result as Docker Hub writes it."""
    return {
        "name": name,
        "description": description,
        "star_count": stars,
        "is_official": official,
        "is_automated": False,
        "is_trusted": False,
        "pull_count": 1,
    }


def answer_of(results: Sequence[object]) -> bytes:
    return json.dumps(
        {"num_pages": 1, "num_results": len(results), "page": 1, "page_size": 25, "query": "x", "results": results}
    ).encode()


@contextmanager
def search_site(
    *,
    results: Sequence[object] | None = None,
    raw: bytes | None = None,
    repositories: Sequence[str] | None = None,
    refusal: int = 404,
) -> Iterator[Site]:
    """A site that answers searches with *results* (or the bytes *raw*), and the catalogue with *repositories*.

    What is None is refused with status *refusal*. A search gives as many results as it is asked for.
    """

    def answer(seen: Seen) -> Reply:
        query = parse_qs(urlsplit(seen.target).query)
        if seen.path == "/v2/":
            return Reply()
        if seen.path == "/v2/_catalog" and repositories is not None:
            return Reply(body=json.dumps({"repositories": list(repositories)}).encode())
        if seen.path == "/v1/search" and (raw is not None or results is not None):
            return Reply(body=raw if raw is not None else answer_of((results or ())[: int(query["n"][0])]))
        return Reply(status=refusal)

    with serving(answer) as site:
        yield site
