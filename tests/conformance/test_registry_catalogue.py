"""GET /v2/_catalog: every repository, in pages. Source: distribution «Listing Repositories»."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from argosy.oci.descriptor import Descriptor
from argosy.oci.manifest import encode_manifest
from support.images import random_image
from support.registry import RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EMPTY = encode_manifest(Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json"), ())


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path / "registry", "--workers", "2") as running:
        yield running


def push(registry: RunningRegistry, name: str) -> None:
    registry.push_blob(name, b"{}")
    assert registry.push_manifest(name, "latest", EMPTY.descriptor, EMPTY.raw).status == 201


def page(registry: RunningRegistry, path: str) -> tuple[list[str], str]:
    """(names, path of the next page or nothing)."""
    answer = registry.request("GET", path)
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    link = answer.headers.get("link", "")
    assert not link or (link.startswith("</v2/_catalog?") and link.endswith('>; rel="next"'))
    return answer.json["repositories"], link[1:].partition(">")[0]  # type: ignore[index]


def pages(registry: RunningRegistry, path: str) -> Iterator[list[str]]:
    while path:
        names, path = page(registry, path)
        yield names


def test_an_empty_registry_has_an_empty_catalogue(registry: RunningRegistry) -> None:
    assert registry.request("GET", "/v2/_catalog").json == {"repositories": []}
    assert page(registry, "/v2/_catalog?n=5") == ([], "")


def test_repositories_are_sorted_by_their_bytes_in_pages_of_any_size(registry: RunningRegistry) -> None:
    names = sorted(["b", "a", "a/b", "a-b", "a.b", "a/b/c", "a_b", "a0", "z/y/x"])
    for name in reversed(names):
        push(registry, name)
    registry.push_blob("only/blobs", b"x")
    assert page(registry, "/v2/_catalog") == (names, "")
    for count in range(1, len(names) + 2):
        found = list(pages(registry, f"/v2/_catalog?n={count}"))
        assert [name for part in found for name in part] == names
        assert {len(part) for part in found[:-1]} <= {count}
    assert page(registry, "/v2/_catalog?n=2&last=a.b") == (["a/b", "a/b/c"], "/v2/_catalog?n=2&last=a%2Fb%2Fc")
    assert page(registry, "/v2/_catalog?last=a/b/nosuch") == (["a0", "a_b", "b", "z/y/x"], "")
    assert page(registry, "/v2/_catalog?n=0") == ([], "")
    assert page(registry, "/v2/_catalog?n=3&last=zz") == ([], "")


@pytest.mark.parametrize("count", ["-1", "x", "1.5", "%31%30%30%30%30%30%30%30%30%30%30", ""])
def test_a_number_that_is_none_is_refused(registry: RunningRegistry, count: str) -> None:
    answer = registry.request("GET", f"/v2/_catalog?n={count}")
    assert (answer.status, answer.codes) == (400, ["UNSUPPORTED"])


def test_a_deleted_manifest_leaves_its_repository_listed(registry: RunningRegistry) -> None:
    push(registry, "a")
    assert registry.request("DELETE", f"/v2/a/manifests/{EMPTY.descriptor.digest}").status == 202
    assert page(registry, "/v2/_catalog") == (["a"], "")


def test_who_pages_while_others_push_misses_nothing_that_was_there(registry: RunningRegistry) -> None:
    before = [f"team{n % 3}/app{n}" for n in range(30)]
    for name in before:
        push(registry, name)
    stop = threading.Event()

    def push_more() -> None:
        for number in range(1000):
            if stop.is_set():
                return
            push(registry, f"team{number % 3}/{'early' if number % 2 else 'zlate'}{number}")

    pusher = threading.Thread(target=push_more)
    pusher.start()
    try:
        for _ in range(5):
            found = [name for part in pages(registry, "/v2/_catalog?n=4") for name in part]
            assert found == sorted(set(found))
            assert set(before) <= set(found)
    finally:
        stop.set()
        pusher.join()


def test_ten_thousand_repositories_are_listed_and_the_registry_serves(tmp_path: Path) -> None:
    names = sorted(f"team{n % 97}/app{n}" for n in range(10_000))
    for name in names:
        (tmp_path / "registry/repositories" / name / "_manifests").mkdir(parents=True)
    with running_registry(tmp_path / "registry") as registry:
        found = list(pages(registry, "/v2/_catalog"))
        assert ([name for part in found for name in part], len(found)) == (names, 10)
        assert page(registry, "/v2/_catalog?n=10000") == (names, "")
        assert page(registry, f"/v2/_catalog?n=2&last={names[9000]}")[0] == names[9001:9003]
        image = random_image(tmp_path / "image")
        registry.push(image, "team5/app5", "latest")
        assert registry.request("GET", "/v2/team5/app5/manifests/latest").body == image.manifest.raw
