"""The derived list of containers: never older than the records, whatever they hold and whatever is in the cache."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.store import derived, roster
from argosy.store.records import Container, ContainerStore
from argosy.store.roster import Entry, read_roster

if TYPE_CHECKING:
    from pathlib import Path


def record(number: int, **fields: Any) -> Container:
    known: dict[str, Any] = {
        "id": f"{number:064x}",
        "name": f"name-{number}",
        "image": "nvidia/cuda:13-devel",
        "manifest": Descriptor.of(b"manifest", media.OCI_MANIFEST),
        "image_id": Digest.of(b"image"),
        "created": f"2026-11-23T16:{number:02d}:00Z",
        "command": ("sh", "-c", "echo"),
    }
    return Container(**(known | fields))


@pytest.fixture
def store(tmp_path: Path) -> ContainerStore:
    store = ContainerStore(tmp_path)
    for number in range(3):
        store.create(record(number))
    return store


def settled(store: ContainerStore) -> Path:
    """The cache, made at a time at which nothing had changed for long."""
    for path in (store.folder(each.id) + "/record.json" for each in store.list()):
        os.utime(path, (1, 1))
    real = derived.COARSEST_NS
    roster.COARSEST_NS = -(10**12)  # ctime is the kernel's
    try:
        read_roster(store.root)
    finally:
        roster.COARSEST_NS = real
    return cache(store)


def cache(store: ContainerStore) -> Path:
    from pathlib import Path

    return Path(store.root) / "cache/containers.tsv"


def names(store: ContainerStore) -> list[str]:
    return [entry.name for entry in read_roster(store.root)]


def test_a_store_without_containers_has_an_empty_list_and_no_cache(tmp_path: Path) -> None:
    assert read_roster(tmp_path) == []
    assert not (tmp_path / "cache").exists()


def test_the_newest_is_first_from_records_and_from_the_cache(store: ContainerStore) -> None:
    expected = ["name-2", "name-1", "name-0"]
    assert names(store) == expected
    assert not cache(store).exists()  # they are too young
    settled(store)
    assert cache(store).stat().st_mode & 0o777 == 0o600
    assert names(store) == expected


def test_the_cache_is_read_and_not_the_records(store: ContainerStore, monkeypatch: pytest.MonkeyPatch) -> None:
    settled(store)

    def never(*_: object) -> None:
        raise AssertionError("a record was read")

    monkeypatch.setattr(ContainerStore, "get", never)
    assert len(names(store)) == 3


def test_changes_are_seen_at_once(store: ContainerStore) -> None:
    settled(store)
    store.update(record(1).id, status="exited", exit_code=3)
    assert [(entry.status, entry.exit_code) for entry in read_roster(store.root)][1] == ("exited", 3)
    store.delete(record(2).id)
    store.create(record(7))
    store.rename(record(0).id, "other")
    assert names(store) == ["name-7", "name-1", "other"]


def test_a_record_that_changes_within_the_grain_of_the_clock_is_read_again(store: ContainerStore) -> None:
    for number in range(50):
        store.update(record(1).id, sync=False, exit_code=number)
        assert read_roster(store.root)[1].exit_code == number


@pytest.mark.parametrize("damage", ["cut", "empty", "zeros", "other version", "fewer cells", "a number that is none"])
def test_a_damaged_cache_is_made_again(store: ContainerStore, damage: str) -> None:
    path = settled(store)
    text = path.read_text()
    path.write_text(
        {
            "cut": text[: len(text) // 2],
            "empty": "",
            "zeros": "\0" * len(text),
            "other version": text.replace("containers 1", "containers 0"),
            "fewer cells": text.replace("\tnvidia/cuda:13-devel", ""),
            "a number that is none": text.replace("\t0\t", "\tx\t"),
        }[damage]
    )
    assert len(names(store)) == 3


def test_what_cannot_be_read_is_left_out(store: ContainerStore) -> None:
    settled(store)
    with open(store.folder(record(1).id) + "/record.json", "wb") as file:
        file.write(b"{")
    os.unlink(store.folder(record(2).id) + "/record.json")
    assert names(store) == ["name-0"]


def test_in_a_store_that_cannot_be_written_records_are_read(store: ContainerStore) -> None:
    cache(store).parent.write_bytes(b"no folder")
    assert len(names(store)) == 3


texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)


@given(
    st.lists(texts, max_size=4),
    st.dictionaries(texts.filter(lambda text: "=" not in text), texts, max_size=3),
    texts,
    st.lists(texts, max_size=2),
    st.none() | st.integers(0, 255),
)
def test_whatever_a_record_holds_a_line_keeps(
    command: list[str], labels: dict[str, str], image: str, sources: list[str], exit_code: int | None
) -> None:
    options = {"volumes": [{"source": source} for source in sources], "network": image}
    made = record(1, command=tuple(command), labels=labels, image=image, exit_code=exit_code, options=options)
    entry = Entry.of(made, "1 2 3")
    assert "\n" not in entry.line()
    found = roster._parse(entry.line())
    for name in ("id", "name", "image", "created", "status", "exit_code", "pid", "start_time", "boot", "space", "host"):
        assert getattr(found, name) == getattr(made, name), name
    assert (found.command, found.labels, found.network) == (made.command, labels, image)
    assert (found.mounts, found.stamp) == (tuple(sources), "1 2 3")
    assert msgspec.structs.asdict(made)["image_id"] == found.image_id
