"""Tags of a repository: the order of releases, patterns, and how much is asked for."""

from __future__ import annotations

import json
import random
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput
from argosy.oci.reference import Reference
from argosy.ops.tags import list_tags, matcher, sorter, version_key
from argosy.remote.repository import Repository
from argosy.remote.transport import Transport
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.web import Site

NAME = Reference.parse("nvidia/cuda")


@pytest.mark.parametrize(
    ("what", "ordered"),
    [
        ("releases by year and month", ["23.12-py3", "24.05", "24.05-py3", "24.12-py3", "25.01-py3", "25.10"]),
        ("numbers count as numbers", ["9", "10", "12.9.1", "12.10.0", "12.10.0-base", "12.10.1", "13.0.0"]),
        ("a shorter number comes first", ["12", "12-base", "12.6", "12.6-base", "12.6.0", "13"]),
        ("a «v» changes nothing", ["v1.2.3", "1.2.4", "V1.3", "v2"]),
        ("what precedes a release", ["2.0-alpha", "2.0-beta2", "2.0-rc1", "2.0-rc2", "2.0-rc10", "2.0", "2.0-base"]),
        ("words that only begin like those", ["1.0", "1.0-alpine", "1.0-base", "1.0-devel", "1.0-early"]),
        ("numbers behind the version", ["13.0-ubuntu9.10", "13.0-ubuntu20.04", "13.0-ubuntu22.04"]),
        ("words before versions", ["bookworm", "latest", "ubuntu9", "ubuntu20", "0.1", "2026.1"]),
    ],
)
def test_versions_sort_as_releases(what: str, ordered: list[str]) -> None:
    shuffled = ordered.copy()
    random.Random(what).shuffle(shuffled)
    assert sorted(shuffled, key=version_key) == ordered


def test_every_order_has_a_backwards() -> None:
    tags = ["b", "10", "9", "a"]
    assert list(sorter("")(tags)) == tags
    assert list(sorter("name")(tags)) == ["10", "9", "a", "b"]
    assert list(sorter("-name")(tags)) == ["b", "a", "9", "10"]
    assert list(sorter("version")(tags)) == ["a", "b", "9", "10"]
    assert list(sorter("-version")(tags)) == ["10", "9", "b", "a"]


@pytest.mark.parametrize("order", ["size", "--name", "-", "Version"])
def test_other_orders_are_refused(order: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        sorter(order)
    assert (caught.value.code, caught.value.message) == ("order-invalid", f"not an order of tags: {order!r}")


@pytest.mark.parametrize(
    ("patterns", "matching"),
    [
        ((), ["13-base", "13-devel", "12.6-base", "latest"]),
        (("13-*",), ["13-base", "13-devel"]),
        (("*-base", "latest"), ["13-base", "12.6-base", "latest"]),
        (("nvidia/cuda:1[23]*",), ["13-base", "13-devel", "12.6-base"]),
        (("docker.io/nvidia/cuda:latest",), ["latest"]),
        (("nvidia/cuda",), []),
        (("13",), []),
    ],
)
def test_patterns_are_those_of_images(patterns: tuple[str, ...], matching: list[str]) -> None:
    assert list(filter(matcher(NAME, patterns), ["13-base", "13-devel", "12.6-base", "latest"])) == matching


def test_a_bad_pattern_is_refused_before_anything_is_asked() -> None:
    with repository(lambda number: Reply(status=500)) as (remote, site):
        with pytest.raises(InvalidInput) as caught:
            list_tags(NAME, repository=remote, patterns=["[a"])
        assert (caught.value.code, caught.value.context) == ("filter-invalid", "a bracket is not closed")
        with pytest.raises(InvalidInput) as caught:
            list_tags(NAME, repository=remote, limit=-1)
        assert (caught.value.code, site.seen) == ("limit-invalid", [])


@contextmanager
def repository(page: object) -> Iterator[tuple[Repository, Site]]:
    """One whose tags come from *page*, a function from the number of the page to a reply."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply()
        reply: Reply = page(int(seen.target.partition("page=")[2] or 0))  # type: ignore[operator]
        return reply

    transport = Transport({})
    with serving(answer) as site:
        try:
            yield Repository(transport, site.address, "nvidia/cuda"), site
        finally:
            transport.close()


def endless(number: int) -> Reply:
    link = {"Link": f'</v2/nvidia/cuda/tags/list?page={number + 1}>; rel="next"'}
    return Reply(body=json.dumps({"tags": [f"{number}.0", f"{number}.1"]}).encode(), headers=link)


def test_no_more_pages_are_asked_for_than_are_printed() -> None:
    with repository(endless) as (remote, site):
        tags = list_tags(NAME, repository=remote, patterns=["*.1"], limit=3)
        assert site.seen == []
        assert next(tags) == "0.1"
        assert len(site.seen) == 2  # with GET /v2/
        assert list(tags) == ["1.1", "2.1"]
        assert len(site.seen) == 4


def test_what_is_no_tag_is_left_out_and_counted() -> None:
    names = ["good", "\x1b[31mred", "", "a/b", "-x", "x" * 129, "x" * 128, "naïve", "a b"]
    told: list[int] = []
    with repository(lambda number: Reply(body=json.dumps({"tags": names}).encode())) as (remote, _):
        assert list(list_tags(NAME, repository=remote, skipped=told.append)) == ["good", "x" * 128]
    assert told == [7]
