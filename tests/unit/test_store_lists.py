"""Manifest lists that are being composed: kept whole, changed one at a time, damaged ones told of."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.errors import Corrupt, InvalidInput, NotFound
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.manifest import Manifest, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.oci.wire import encode
from argosy.store.lists import Entry, ListStore, ManifestList

if TYPE_CHECKING:
    from pathlib import Path

NAME = Reference.parse("localhost:5000/lab/app:1")
CONFIG = Descriptor.of(b"{}", media.OCI_CONFIG)
AMD, ARM = (Platform(os="linux", architecture=name) for name in ("amd64", "arm64"))


def entry(source: str, platform: Platform | None, *, family: str = "oci") -> Entry:
    manifest = encode_manifest(CONFIG, (), annotations={"source": source})
    if family == "docker":
        raw = encode(
            {"schemaVersion": 2, "mediaType": media.DOCKER_MANIFEST, "config": CONFIG, "layers": [], "x": source}
        )
        manifest = Manifest.parse(raw, media.DOCKER_MANIFEST)
    descriptor = msgspec.structs.replace(manifest.descriptor, platform=platform)
    return Entry(source=Reference.parse(source), descriptor=descriptor, raw=manifest.raw, is_local=False)


TWO = ManifestList(reference=NAME, entries=(entry("app:amd", AMD), entry("app:arm", ARM)))


@pytest.fixture
def lists(tmp_path: Path) -> ListStore:
    return ListStore(tmp_path)


def test_a_list_is_kept_to_the_byte(lists: ListStore, tmp_path: Path) -> None:
    assert lists.find(NAME) is None
    assert lists.update(NAME, lambda before: TWO) == TWO
    assert ListStore(tmp_path).get(NAME) == TWO
    assert os.listdir(tmp_path) == ["manifests"]
    assert sorted(os.listdir(tmp_path / "manifests")) == [".lock", "localhost%3A5000%2Flab%2Fapp%3A1.json"]
    lists.delete(NAME)
    assert lists.find(NAME) is None


def test_an_unknown_list_is_told_with_the_way_to_make_it(lists: ListStore) -> None:
    for action in (lists.get, lists.delete):
        with pytest.raises(NotFound) as caught:
            action(NAME)
        assert (caught.value.code, caught.value.message) == (
            "list-unknown",
            "no such manifest list: localhost:5000/lab/app:1",
        )
        assert caught.value.hint == "argosy manifest create localhost:5000/lab/app:1 MANIFEST…"


def test_a_change_that_fails_leaves_the_list_as_it_was(lists: ListStore) -> None:
    lists.update(NAME, lambda before: TWO)

    def fail(before: ManifestList | None) -> ManifestList:
        raise InvalidInput("no", code="no")

    with pytest.raises(InvalidInput):
        lists.update(NAME, fail)
    assert lists.get(NAME) == TWO


def test_changes_at_the_same_time_do_not_lose_each_other(lists: ListStore) -> None:
    def add(number: int) -> None:
        new = entry(f"app:{number}", AMD)
        lists.update(
            NAME,
            lambda before: ManifestList(reference=NAME, entries=((*before.entries, new) if before else (new,))),
        )

    threads = [threading.Thread(target=add, args=(number,)) for number in range(12)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {str(each.source.tag) for each in lists.get(NAME).entries} == set(map(str, range(12)))


@pytest.mark.parametrize(
    "damage",
    [
        lambda raw: b"",
        lambda raw: raw[:-20],
        lambda raw: b"{}",
        lambda raw: raw.replace(TWO.entries[0].descriptor.digest.encode(), TWO.entries[1].descriptor.digest.encode()),
        lambda raw: raw.replace(b"sha256:", b"md5:"),
        lambda raw: raw.replace(b'"raw":"', b'"raw":"!'),
        lambda raw: b"[" * 100_000,
    ],
)
def test_a_damaged_list_says_so_and_can_be_removed(lists: ListStore, tmp_path: Path, damage: object) -> None:
    lists.update(NAME, lambda before: TWO)
    (path,) = (tmp_path / "manifests").glob("*.json")
    path.write_bytes(damage(path.read_bytes()))  # type: ignore[operator]
    for action in (lists.find, lists.get, lambda name: lists.update(name, lambda before: TWO)):
        with pytest.raises(Corrupt) as caught:
            action(NAME)
        assert caught.value.code == "list-damaged"
        assert caught.value.hint == "argosy manifest rm localhost:5000/lab/app:1, and create it again"
    lists.delete(NAME)
    assert lists.find(NAME) is None


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("app:arm", 1),
        ("docker.io/library/app:amd", 0),
        (TWO.entries[1].descriptor.digest, 1),
        (f"anything/else@{TWO.entries[0].descriptor.digest}", 0),
    ],
)
def test_an_entry_is_found_by_its_name_or_digest(name: str, place: int) -> None:
    assert TWO.entry(name) is TWO.entries[place]


@pytest.mark.parametrize("name", ["app:ppc", "app", f"app@{CONFIG.digest}", CONFIG.digest])
def test_an_entry_that_is_not_there_is_told_with_those_that_are(name: str) -> None:
    with pytest.raises(NotFound) as caught:
        TWO.entry(name)
    assert (caught.value.code, caught.value.message) == (
        "manifest-not-in-list",
        f"manifest for image {name} does not exist in localhost:5000/lab/app:1",
    )
    assert caught.value.context == "it holds app:amd, app:arm"


def test_the_index_is_dockers_where_all_is_dockers_and_ocis_elsewhere() -> None:
    docker = tuple(entry(f"app:{number}", AMD, family="docker") for number in range(2))
    noted = msgspec.structs.replace(
        docker[0], descriptor=msgspec.structs.replace(docker[0].descriptor, annotations={"a": "b"})
    )
    kinds = [
        (docker, media.DOCKER_INDEX),
        (TWO.entries, media.OCI_INDEX),
        ((*docker, *TWO.entries), media.OCI_INDEX),
        ((noted, docker[1]), media.OCI_INDEX),
    ]
    for entries, media_type in kinds:
        index = ManifestList(reference=NAME, entries=entries).index
        assert index.descriptor.media_type == media_type
        assert index.manifests == tuple(each.descriptor for each in entries)
