"""Searching: what a term means, which answers count, and what a hostile answer can do."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, InvalidInput, Unauthorized, Unsupported
from argosy.ops.search import Query, parse_filters, search
from argosy.remote.catalogue import DESCRIPTION_LIMIT, HUB, Catalogue, Found, connect, parse_answer
from argosy.remote.credentials import Credentials
from argosy.remote.messages import HttpRequest, HttpResponse
from argosy.remote.transport import Transport
from support.search_sites import answer_of, result, search_site

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.web import Site


@pytest.mark.parametrize(
    ("text", "registry", "term"),
    [
        ("cuda", "docker.io", "cuda"),
        ("nvidia/cuda", "docker.io", "nvidia/cuda"),
        ("library/debian", "docker.io", "debian"),
        ("docker.io/cuda", "docker.io", "cuda"),
        ("index.docker.io/cuda", "docker.io", "cuda"),
        ("node.js", "docker.io", "node.js"),
        ("two words", "docker.io", "two words"),
        ("nvcr.io/nvidia/cu", "nvcr.io", "nvidia/cu"),
        ("localhost/cuda", "localhost", "cuda"),
        ("localhost:5000/", "localhost:5000", ""),
        ("localhost:5000", "localhost:5000", ""),
        ("10.0.0.1:5000", "10.0.0.1:5000", ""),
        ("cuda:13", "docker.io", "cuda:13"),
        ("[::1]:5000/cuda", "[::1]:5000", "cuda"),
    ],
)
def test_a_term_may_begin_with_a_registry(text: str, registry: str, term: str) -> None:
    assert Query.parse(text) == Query(registry=registry, term=term)


@pytest.mark.parametrize(
    "text", ["", "docker.io/", "https://registry.test/cuda", "registry.test:/x", "a b.c/x", "-.x/y"]
)
def test_what_is_no_term_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Query.parse(text)
    assert caught.value.code == "search-invalid"


@pytest.mark.parametrize(
    ("filters", "names"),
    [
        ({}, ["a", "b", "c"]),
        ({"stars": ["5"]}, ["a", "b"]),
        ({"stars": ["5", "6"]}, ["b"]),
        ({"is-official": ["true"]}, ["a"]),
        ({"is-official": ["0"]}, ["b", "c"]),
        ({"is-official": ["False"], "stars": ["1"]}, ["b"]),
    ],
)
def test_filters(filters: dict[str, list[str]], names: list[str]) -> None:
    found = [Found(name="a", stars=5, is_official=True), Found(name="b", stars=6), Found(name="c")]
    assert [each.name for each in filter(parse_filters(filters), found)] == names


@pytest.mark.parametrize(
    "filters",
    [{"stars": ["many"]}, {"stars": ["-1"]}, {"stars": [""]}, {"stars": ["9" * 5000]}, {"is-official": ["yes"]}],
)
def test_bad_filters_are_refused(filters: dict[str, list[str]]) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_filters(filters)
    assert caught.value.code == "filter-invalid"


HOSTILE = [
    ("a missing name", {"description": "x", "star_count": 3}),
    ("a name that is a number", result(7)),
    ("a name that drives the terminal", result("\x1b]0;x\x07nginx")),
    ("a name that is an option", result("--help")),
    ("a name with a tag", result("nginx:latest")),
    ("a giant name", result("x" * 300)),
    ("stars in words", result("nginx", stars="many")),
    ("a result that is none", 3),
    ("a result that is null", None),
    ("a result that is a list", ["nginx"]),
]


@pytest.mark.parametrize(("what", "bad"), HOSTILE, ids=[what for what, _ in HOSTILE])
def test_a_bad_result_spoils_no_other(what: str, bad: object) -> None:
    assert parse_answer(answer_of([result("good"), bad, result("fine")]), "hub") == (
        Found(name="good"),
        Found(name="fine"),
    )


def test_missing_and_odd_fields_have_their_defaults() -> None:
    raw = json.dumps({"results": [{"name": "a"}, result("b", None, None, None), result("c", "x", -5, True)]}).encode()
    assert parse_answer(raw, "hub") == (
        Found(name="a"),
        Found(name="b"),
        Found(name="c", description="x", is_official=True),
    )
    huge = b'{"results":[{"name":"a","star_count":1' + b"0" * 300 + b"}]}"
    assert parse_answer(huge, "hub") == (Found(name="a", stars=2**63 - 1),)


def test_a_description_is_one_line_of_bounded_length() -> None:
    (found,) = parse_answer(answer_of([result("a", "two\r\n lines\tand\u2028more " + "x" * 900_000)]), "hub")
    assert found.description.startswith("two lines and more xxx")
    assert len(found.description) <= DESCRIPTION_LIMIT


@pytest.mark.parametrize(
    "raw", [b"", b"<html>", b"[]", b'{"results":{}}', b'{"results":"x"}', b'{"results":[' + b"[" * 9999]
)
def test_what_is_no_answer_is_corrupt(raw: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        parse_answer(raw, "hub")
    assert caught.value.code == "search-invalid"


@pytest.mark.parametrize("raw", [b"{}", b'{"results":null}', b'{"results":[]}'])
def test_nothing_found_is_no_error(raw: bytes) -> None:
    assert parse_answer(raw, "hub") == ()


@contextmanager
def catalogue(site: Site) -> Iterator[Catalogue]:
    transport = Transport({})
    try:
        yield Catalogue(transport, site.address)
    finally:
        transport.close()


def names_found(site: Site, term: str, **options: object) -> list[str]:
    with catalogue(site) as registry:
        found = search(Query(registry=site.address, term=term), catalogue=registry, **options)  # type: ignore[arg-type]
    return [each.name.replace(site.address, "HOST") for each in found]


def test_a_registry_is_searched_by_its_catalogue_with_the_exact_name_first() -> None:
    listed = ["lab/cuda-samples", "nvidia/cuda", "other", "\x1b[2J", "Upper", "x" * 300, "cuda"]
    with search_site(repositories=listed) as site:
        assert names_found(site, "cuda") == ["HOST/cuda", "HOST/lab/cuda-samples", "HOST/nvidia/cuda"]
        assert names_found(site, "nvidia/cu") == ["HOST/nvidia/cuda"]
        assert names_found(site, "cuda", limit=2) == ["HOST/lab/cuda-samples", "HOST/nvidia/cuda"]
        assert names_found(site, "") == ["HOST/lab/cuda-samples", "HOST/nvidia/cuda", "HOST/other", "HOST/cuda"]
        assert names_found(site, "cuda", filters={"stars": ["1"]}) == []
        assert {line for line in site.lines if "/v1/" in line} == set()


def test_where_there_is_no_catalogue_the_registrys_own_search_is_tried() -> None:
    with search_site(results=[result("nvidia/cuda", stars=3), result("cuda", stars=1)]) as site:
        assert names_found(site, "cuda") == ["HOST/cuda", "HOST/nvidia/cuda"]
        assert names_found(site, "cuda", filters={"stars": ["2"]}) == ["HOST/nvidia/cuda"]
        assert site.lines[:3] == ["GET /v2/", "GET /v2/_catalog?n=1000", "GET /v1/search?q=cuda&n=25"]


@pytest.mark.parametrize("refusal", [404, 405, 501])
def test_a_registry_that_cannot_be_searched_says_what_to_do_instead(refusal: int) -> None:
    with search_site(refusal=refusal) as site, pytest.raises(Unsupported) as caught:
        names_found(site, "cuda")
    error = caught.value
    assert (error.code, error.message) == ("no-catalogue", f"{site.address} does not list its repositories")
    assert error.context == f"{site.address} answered with status {refusal}"
    assert error.hint == f"argosy tags {site.address}/NAME lists the tags of a repository whose name you know"


def test_a_registry_that_wants_a_login_first_says_that_too() -> None:
    with search_site(refusal=403) as site, pytest.raises(Unauthorized) as caught:
        names_found(site, "cuda")
    assert caught.value.code == "access-denied"
    assert caught.value.hint == f"many registries list their repositories to nobody: argosy tags {site.address}/NAME"


def test_a_broken_search_does_not_hide_why_the_catalogue_failed() -> None:
    with search_site(raw=b"<html>") as site, pytest.raises(Unsupported) as caught:
        names_found(site, "cuda")
    assert caught.value.code == "no-catalogue"


class Hub(Transport):
    """Answers every request with the same results."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[HttpRequest] = []

    def send(self, request: HttpRequest, *, patient: bool = True) -> HttpResponse:
        self.asked.append(request)
        body = answer_of([result("nginx", "a web server", 20_000, True), *(result(f"lab/nginx{n}") for n in range(99))])
        return HttpResponse(200, {}, io.BytesIO(body), url=request.url)


def test_docker_hub_is_asked_at_its_own_address_without_credentials() -> None:
    hub = Hub()
    registry = connect("docker.io", transport=hub, credentials=Credentials({}))
    query = Query.parse("nginx & co")
    found = search(query, catalogue=registry, limit=2)
    assert found == (
        Found(name="nginx", description="a web server", stars=20_000, is_official=True),
        Found(name="lab/nginx0"),
    )
    assert [request.url for request in hub.asked] == [f"https://{HUB}/v1/search?q=nginx+%26+co&n=2"]
    assert hub.asked[0].headers == {}


def test_filters_choose_among_all_that_docker_hub_gives() -> None:
    hub = Hub()
    registry = connect("docker.io", transport=hub, credentials=Credentials({}))
    found = search(Query.parse("nginx"), catalogue=registry, filters={"is-official": ["false"]}, limit=98)
    assert len(found) == 98
    assert hub.asked[0].url.endswith("&n=100")


@pytest.mark.parametrize(("text", "limit"), [("cuda", 0), ("cuda", -1), ("cuda", 101), ("localhost:1/x", 0)])
def test_limits_are_those_of_docker(text: str, limit: int) -> None:
    registry = connect("docker.io", transport=Hub(), credentials=Credentials({}))
    with pytest.raises(InvalidInput) as caught:
        search(Query.parse(text), catalogue=registry, limit=limit)
    assert caught.value.code == "limit-invalid"
