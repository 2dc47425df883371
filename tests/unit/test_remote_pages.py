"""Lists that come page by page, from registries that may be wrong about where the pages lead."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, Exhausted, NotFound, Unauthorized
from argosy.remote import pages
from argosy.remote.auth import Auth
from argosy.remote.messages import HttpResponse
from argosy.remote.session import Session
from argosy.remote.transport import Transport
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.web import Site

URL = "https://registry.test/v2/a/tags/list?n=1000"


@pytest.mark.parametrize(
    ("link", "url"),
    [
        ("", None),
        ('</v2/a/tags/list?last=b&n=2>; rel="next"', "https://registry.test/v2/a/tags/list?last=b&n=2"),
        ("</v2/a/tags/list?last=b,c>;rel=next", "https://registry.test/v2/a/tags/list?last=b,c"),
        ('<?last=b>; rel="next"', "https://registry.test/v2/a/tags/list?last=b"),
        ('<list?last=b>; title="x"; rel="last next"', "https://registry.test/v2/a/tags/list?last=b"),
        ('</first>; rel="prev", </second>; rel="next"', "https://registry.test/second"),
        ('<https://evil.test/v2/a?x=1>; rel="next"', "https://registry.test/v2/a?x=1"),
        ('<//evil.test/v2/a>; rel="next"', "https://registry.test/v2/a"),
        ('<ftp://evil.test/v2/a>; rel="next"', "https://registry.test/v2/a"),
        ('</v2/a>; rel="prev"', None),
        ('</v2/a>; rel="nextish"', None),
        ('</v2/next>; rel="prev"', None),
        ("</v2/a>", None),
        ('</v2/a; rel="next"', None),
        ('rel="next"', None),
    ],
)
def test_the_next_page_is_read_from_the_link_header(link: str, url: str | None) -> None:
    assert pages.following(HttpResponse(200, {"Link": link}, io.BytesIO()), URL) == url


def test_a_next_page_without_an_address_is_corrupt() -> None:
    with pytest.raises(Corrupt) as caught:
        pages.following(HttpResponse(200, {"Link": '<http://[::1>; rel="next"'}, io.BytesIO()), URL)
    assert caught.value.code == "list-invalid"


def page(names: object, following: str = "") -> Reply:
    headers = {"Link": f'<{following}>; rel="next"'} if following else {}
    return Reply(body=json.dumps({"names": names}).encode(), headers=headers)


@contextmanager
def session(answer: Callable[[Seen], Reply]) -> Iterator[tuple[Session, Site]]:
    transport = Transport({})
    with serving(lambda seen: Reply() if seen.path == "/v2/" else answer(seen)) as site:
        try:
            yield Session(transport, site.address, Auth(site.address, lambda: None)), site
        finally:
            transport.close()


def walked(answer: Callable[[Seen], Reply]) -> list[str]:
    with session(answer) as (registry, _):
        return list(pages.walk(registry, "/start", "names", "scope", "the names"))


def test_pages_are_asked_for_when_they_are_wanted() -> None:
    with session(lambda seen: page(["a", "b"], "/2") if seen.path == "/start" else page(["c"])) as (registry, site):
        names = pages.walk(registry, "/start", "names", "scope", "the names")
        assert (next(names), next(names), site.lines[1:]) == ("a", "b", ["GET /start"])
        assert (list(names), site.lines[1:]) == (["c"], ["GET /start", "GET /2"])


def test_pages_that_lead_back_end_where_all_are_read() -> None:
    ring = {"/start": page(["a"], "/2"), "/2": page(["b", "a"], "/3"), "/3": page(["c"], "/start")}
    assert walked(lambda seen: ring[seen.path]) == ["a", "b", "c"]
    assert walked(lambda seen: page(["a", "a"], "/start")) == ["a"]


def test_pages_that_bring_nothing_new_do_not_go_on_for_ever() -> None:
    """Some are allowed: a filter behind the registry may leave pages empty."""

    def number(seen: Seen) -> int:
        return int(seen.path.removeprefix("/start").removeprefix("/") or 0)

    def mostly_empty(seen: Seen) -> Reply:
        return page(["a"] if number(seen) == 8 else [], f"/{number(seen) + 1}" if number(seen) < 8 else "")

    assert walked(mostly_empty) == ["a"]
    for names in ([], ["same"]):
        with pytest.raises(Corrupt) as caught:
            walked(lambda seen, names=names: page(names, f"/{number(seen) + 1}"))  # type: ignore[misc]
        assert (caught.value.code, caught.value.message) == ("pages-endless", "the list of the names does not end")


def test_a_list_has_a_greatest_length(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_NAMES_LIMIT", 10)
    with pytest.raises(Exhausted) as caught:
        walked(lambda seen: page([f"{seen.path}{n}" for n in range(4)], f"{seen.path}x"))
    assert caught.value.code == "list-too-long"


@pytest.mark.parametrize(
    ("reply", "kind", "code"),
    [
        (page([1]), Corrupt, "list-invalid"),
        (page("a"), Corrupt, "list-invalid"),
        (page({"a": 1}), Corrupt, "list-invalid"),
        (Reply(body=b"[]"), Corrupt, "list-invalid"),
        (Reply(body=b"<html>"), Corrupt, "list-invalid"),
        (Reply(body=b'{"names":["\xff"]}'), Corrupt, "list-invalid"),
        (Reply(body=b'{"names":' + b"[" * 100_000), Corrupt, "list-invalid"),
        (Reply(body=b'{"names":["' + b"x" * 2**23 + b'"]}'), Corrupt, "response-too-large"),
        (Reply(status=404), NotFound, "not-in-registry"),
        (Reply(status=403), Unauthorized, "access-denied"),
    ],
)
def test_what_is_no_list_is_an_error(reply: Reply, kind: type[Exception], code: str) -> None:
    with pytest.raises(kind) as caught:
        walked(lambda seen: reply)
    assert caught.value.code == code  # type: ignore[attr-defined]


@pytest.mark.parametrize("raw", [b"{}", b'{"names":null}', b'{"names":[]}', b'{"Names":["a"]}'])
def test_an_empty_list_has_several_forms(raw: bytes) -> None:
    assert walked(lambda seen: Reply(body=raw)) == []
