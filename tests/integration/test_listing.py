"""tags and search as users type them: our registry, the CNCF's, and sites that are hostile."""

from __future__ import annotations

import json
import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.oci.descriptor import Descriptor
from argosy.oci.manifest import encode_manifest
from support.docker_registry import PASSWORD, USER, docker_registry
from support.images import random_image
from support.registry import RunningRegistry, running_registry
from support.search_sites import result, search_site
from support.stores import Program, argosy, command, environment, load_image
from support.tokens import guarded
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

EMPTY = encode_manifest(Descriptor.of(b"{}", "application/vnd.oci.empty.v1+json"), ())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("listing") / "registry") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


def push_tags(registry: RunningRegistry, name: str, *tags: str) -> str:
    registry.push_blob(name, b"{}")
    for tag in tags:
        assert registry.push_manifest(name, tag, EMPTY.descriptor, EMPTY.raw).status == 201
    return f"{registry.address}/{name}"


def test_tags_are_listed_filtered_sorted_and_cut(registry: RunningRegistry, here: Program) -> None:
    tags = ["12.10.0-base", "12.9.1-base", "13.0.0-base", "13.0.0-devel", "latest"]
    name = push_tags(registry, "tags/cuda", *reversed(tags))
    assert here("tags", name).splitlines() == [
        "NAME".ljust(len(name) + 3) + "TAG",
        *(f"{name}   {tag}" for tag in tags),
    ]
    assert here("tags", "-q", name).split() == tags
    assert here("tags", "-q", "--filter", "*-base", "-f", "reference=latest", name).split() == [*tags[:3], "latest"]
    newest = here("tags", "-q", "--sort", "-version", "--filter", "*-base", "--limit", "2", name).split()
    assert newest == ["13.0.0-base", "12.10.0-base"]
    assert here("tags", "-q", "--sort=version", name).split() == ["latest", tags[1], tags[0], *tags[2:4]]
    assert json.loads(here("tags", "--format", "json", "--limit", "1", name)) == {"Name": name, "Tag": tags[0]}
    assert here("tags", "--limit", "0", "-q", name) == ""


def test_digests_are_asked_for_only_where_they_are_shown(registry: RunningRegistry, here: Program) -> None:
    push_tags(registry, "tags/digests", "one", "two")
    with guarded(registry.address) as door:
        name = f"{door.address}/tags/digests"
        assert here("tags", "--format", "{{.Name}}:{{.Tag}}", name).split() == [f"{name}:one", f"{name}:two"]
        assert [line for line in door.site.lines if "/manifests/" in line] == []
        shown = here("tags", "--format", "{{.Tag}} {{.Digest}}", name).splitlines()
        assert shown == [f"one {EMPTY.descriptor.digest}", f"two {EMPTY.descriptor.digest}"]
        assert {line.partition(" ")[0] for line in door.site.lines if "/manifests/" in line} == {"HEAD"}


def test_tags_of_nothing_are_an_error_and_a_tag_is_no_repository(registry: RunningRegistry, here: Program) -> None:
    assert "[repository-unknown]" in here.refusal("tags", f"{registry.address}/tags/nothing")
    assert "[name-has-tag]" in here.refusal("tags", f"{registry.address}/tags/cuda:13")
    assert "[order-invalid]" in here.refusal("tags", "--sort", "size", f"{registry.address}/tags/cuda")
    for limit in ("-1", "9" * 30):
        assert "[limit-invalid]" in here.refusal("tags", "--limit", limit, f"{registry.address}/tags/cuda")
    assert "invalid filter 'tag' [filter-invalid]" in here.refusal(
        "tags", "-f", "tag=13", f"{registry.address}/tags/cuda"
    )


def test_tags_are_printed_while_they_arrive(here: Program) -> None:
    """The second page never comes; the first is printed all the same."""

    def answer(seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply()
        if "last" in seen.target:
            return Reply(body=b"x", length=2, stall=0)
        return Reply(body=b'{"tags":["a","b"]}', headers={"Link": '</v2/x/tags/list?last=b>; rel="next"'})

    with serving(answer) as site:
        words = command("tags", "-q", f"{site.address}/x")
        with subprocess.Popen(words, stdout=subprocess.PIPE, env=environment(here.root)) as process:
            assert process.stdout is not None
            assert [process.stdout.readline() for _ in range(2)] == [b"a\n", b"b\n"]
            assert process.poll() is None
            process.kill()


def test_a_registry_that_leads_in_circles_ends(here: Program) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.path == "/v2/":
            return Reply()
        following = f"</v2/x/tags/list?n={len(seen.target)}{seen.target[-1]}>; rel=next"
        return Reply(body=b'{"tags":["a"]}', headers={"Link": following})

    with serving(answer) as site:
        ended = argosy(here.root, "tags", "-q", f"{site.address}/x")
        assert (ended.stdout, len(site.seen) < 20) == (b"a\n", True)


def test_names_from_outside_never_drive_the_terminal(here: Program) -> None:
    bad = json.dumps({"tags": ["ok", "\x1b]0;owned\x07", "\x9b31m"]}).encode()
    with serving(lambda seen: Reply() if seen.path == "/v2/" else Reply(body=bad)) as site:
        ended = argosy(here.root, "tags", f"{site.address}/x")
    assert ended.stdout.split()[-1] == b"ok"
    assert b"\x1b" not in ended.stdout + ended.stderr
    assert b"2 entries of the list are no tags and are left out" in ended.stderr


def test_a_registry_is_searched_by_its_catalogue(registry: RunningRegistry, here: Program) -> None:
    for name in ("search/cuda", "search/cuda-samples", "search/other"):
        push_tags(registry, name, "1")
    address = registry.address
    rows = here("search", f"{address}/search/cuda").splitlines()
    assert rows[0].split() == ["NAME", "DESCRIPTION", "STARS", "OFFICIAL"]
    assert [row.split() for row in rows[1:]] == [
        [f"{address}/search/cuda", "0"],
        [f"{address}/search/cuda-samples", "0"],
    ]
    names = here("search", "--format", "{{.Name}}", "--limit", "1000", address).split()
    assert {f"{address}/search/{name}" for name in ("cuda", "cuda-samples", "other")} <= set(names)
    assert here("search", "--format", "{{.Name}}", "--limit", "1", f"{address}/search/").split() == [
        f"{address}/search/cuda"
    ]
    tags = here("search", "--list-tags", f"{address}/search/cuda").splitlines()
    assert [row.split() for row in tags] == [["NAME", "TAG"], [f"{address}/search/cuda", "1"]]


@pytest.fixture
def cncf(tmp_path: Path) -> Iterator[tuple[str, Path]]:
    """The address of the CNCF's registry, with a login, and its folder."""
    if shutil.which("docker-registry") is None:
        pytest.skip("no peer client docker-registry")
    with docker_registry(tmp_path / "cncf", login=True) as address:
        yield address, tmp_path / "cncf"


def test_the_catalogue_of_the_cncf_registry_is_read_page_by_page(cncf: tuple[str, Path], tmp_path: Path) -> None:
    address, folder = cncf
    here, store = argosy, tmp_path / "store"
    environ = {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    refused = here(store, "search", f"{address}/app", environ=environ)
    assert (refused.returncode, b"[login-required]" in refused.stderr) == (1, True)
    login = here(store, "login", "-u", USER, "--password-stdin", address, stdin=PASSWORD.encode(), environ=environ)
    assert login.returncode == 0, login.stderr
    names = sorted(f"team{number % 7}/app{number}" for number in range(1050))
    for name in names:
        (folder / "data/docker/registry/v2/repositories" / name / "_layers").mkdir(parents=True)
    words = ("search", "--format", "{{.Name}}", "--limit", "5000", f"{address}/")
    assert here(store, *words, environ=environ).stdout.decode().split() == [f"{address}/{name}" for name in names]
    words = ("search", "--format", "{{.Name}}", f"{address}/app104")
    found = here(store, *words, environ=environ).stdout.decode().split()
    assert sorted(found) == sorted(f"{address}/{name}" for name in names if "app104" in name)


def test_tags_of_the_cncf_registry(cncf: tuple[str, Path], tmp_path: Path) -> None:
    address, _ = cncf
    store, environ = tmp_path / "store", {"REGISTRY_AUTH_FILE": str(tmp_path / "auth.json")}
    argosy(store, "login", "-u", USER, "--password-stdin", address, stdin=PASSWORD.encode(), environ=environ)
    image, name = random_image(tmp_path / "image", size=1000), f"{address}/lab/app"
    load_image(store, image, f"{name}:24.05", f"{name}:24.12")
    pushed = argosy(store, "push", "-q", "--all-tags", name, environ=environ)
    assert pushed.returncode == 0, pushed.stderr
    shown = argosy(store, "tags", "--sort", "-version", "--format", "{{.Tag}} {{.Digest}}", name, environ=environ)
    digest = image.descriptor.digest
    assert shown.stdout.decode().splitlines() == [f"24.12 {digest}", f"24.05 {digest}"]


def test_a_search_has_dockers_columns_filters_and_words(here: Program) -> None:
    long = "An " + "official-looking " * 5 + "server"
    answers = [result("nginx", "Official build of Nginx.", 20_000, True), result("lab/nginx", long, 3)]
    with search_site(results=answers) as site:
        term, prefix = f"{site.address}/nginx", f"{site.address}/"
        assert here("search", "--format", "{{.Name}}|{{.Description}}|{{.StarCount}}|{{.IsOfficial}}", term) == (
            f"{prefix}nginx|Official build of Nginx.|20000|[OK]\n{prefix}lab/nginx|{long[:44]}…|3|"
        )
        assert here("search", "--no-trunc", "--format", "{{.Description}}", "-f", "is-official=false", term) == long
        assert here("search", "--format", "{{.Name}}", "--filter", "stars=4", term) == f"{prefix}nginx"
        assert json.loads(here("search", "--format", "json", "--limit", "1", term)) == {
            "Name": f"{prefix}nginx",
            "Description": "Official build of Nginx.",
            "StarCount": "20000",
            "IsOfficial": "true",
        }
        assert "[filter-invalid]" in here.refusal("search", "--filter", "is-automated=true", term)


def test_a_hostile_search_is_tame(here: Program) -> None:
    answers = [
        result("\x1b[2Jevil"),
        result("good", "\x1b[31mred\x1b[0m \x9b31m\x00" + "x" * 500_000, -1),
        {"star_count": 5},
        result("fine", None, "many"),
        result("last"),
    ]
    with search_site(results=answers) as site:
        shown = argosy(here.root, "search", "--no-trunc", f"{site.address}/x")
        lines = shown.stdout.decode().splitlines()
        assert [line.split()[0] for line in lines] == ["NAME", f"{site.address}/good", f"{site.address}/last"]
        assert not [char for char in shown.stdout.decode() if not char.isprintable() and char != "\n"]
        assert max(map(len, lines)) < 1200
    with search_site(raw=b'{"results":["' + b"x" * 2**20 + b'"]}') as site:
        assert "[no-catalogue]" in here.refusal("search", f"{site.address}/x")


def test_a_registry_that_cannot_be_searched_leads_to_tags(here: Program) -> None:
    with search_site() as site:
        text = here.refusal("search", f"{site.address}/cuda")
    assert text.startswith(f"error: {site.address} does not list its repositories [no-catalogue]")
    assert f"hint: argosy tags {site.address}/NAME" in text
