"""ContainerStore: names are had by one container at a time, and a damaged record hurts only itself."""

from __future__ import annotations

import os
import stat
from pathlib import Path

import msgspec
import pytest

from argosy.errors import Conflict, Corrupt, InvalidInput, NotFound
from argosy.oci.descriptor import OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.store.names import is_name, random_name
from argosy.store.records import Container, ContainerStore, new_id


@pytest.fixture
def store(tmp_path: Path) -> ContainerStore:
    return ContainerStore(tmp_path)


def container(name: str = "", number: int = 1, **fields: object) -> Container:
    known = {
        "id": f"{number:064x}",
        "name": name,
        "image": "a:1",
        "manifest": Descriptor.of(b"manifest", OCI_MANIFEST),
        "image_id": Digest.of(b"config"),
        "created": f"2026-01-02T03:04:{number % 60:02}Z",
        "command": ("sh", "-c", "true"),
    }
    return Container(**(known | fields))  # type: ignore[arg-type]


def record_path(store: ContainerStore, number: int = 1) -> Path:
    return Path(store.folder(f"{number:064x}")) / "record.json"


def test_what_was_created_is_read_back_whole(store: ContainerStore) -> None:
    record = container(
        "one",
        pid=5,
        start_time=77,
        auto_remove=True,
        diff_ids=(Digest.of(b"layer"),),
        snapshotter="unpacked",
        labels={"a": "b"},
        options={"network": "none", "env": ["A=1"]},
    )
    folder = store.create(record)
    assert folder == store.folder(record.id)
    assert (store.get("one"), store.get(record.id), store.list()) == (record, record, (record,))


def test_a_containers_files_are_closed_to_other_users(store: ContainerStore) -> None:
    folder = Path(store.create(container("one")))
    assert [stat.S_IMODE(path.stat().st_mode) for path in (folder.parent, folder)] == [0o700, 0o700]


def test_a_container_is_found_by_id_name_and_start_of_its_id(store: ContainerStore) -> None:
    record = container("one", id="ab" * 32)
    store.create(record)
    assert [store.get(key) for key in ("one", "ab" * 32, "abab", "a")] == [record] * 4


def test_a_name_wins_over_an_id_that_begins_like_it(store: ContainerStore) -> None:
    store.create(container("other", id="ab" * 32))
    named = container("ab", number=2)
    store.create(named)
    assert store.get("ab") == named


def test_an_ambiguous_start_of_an_id_lists_the_candidates(store: ContainerStore) -> None:
    for number in (1, 2):
        store.create(container(f"c{number}", number=number))
    with pytest.raises(InvalidInput) as caught:
        store.get("000")
    assert (caught.value.code, caught.value.context) == ("id-ambiguous", "it may be 000000000000, 000000000000")


@pytest.mark.parametrize("key", ["", "nobody", "../names/one", ".lock", "f" * 64, "x" * 300, "a\0b"])
def test_an_unknown_container_is_not_found(store: ContainerStore, key: str) -> None:
    store.create(container("one"))
    with pytest.raises(NotFound) as caught:
        store.get(key)
    assert (caught.value.code, caught.value.message) == ("container-unknown", f"no such container: {key}")


def test_a_second_container_of_the_same_name_is_refused_in_dockers_words(store: ContainerStore) -> None:
    first = container("one", number=1)
    store.create(first)
    with pytest.raises(Conflict) as caught:
        store.create(container("one", number=2))
    assert caught.value.code == "name-in-use"
    assert caught.value.message == f'the container name "/one" is already in use by container "{first.id}"'
    assert (store.list(), os.listdir(store.root / "containers")) == ((first,), [first.id])


def test_a_name_whose_creator_died_is_free(store: ContainerStore) -> None:
    store.create(container("one", number=1))
    record_path(store).unlink()
    second = container("one", number=2)
    store.create(second)
    assert store.get("one") == second


@pytest.mark.parametrize("rubbish", [b"", b"short", b"\xff" * 64])
def test_a_damaged_name_is_free(store: ContainerStore, rubbish: bytes) -> None:
    store.create(container("one", number=1))
    (store.root / "names/one").write_bytes(rubbish)
    second = container("one", number=2)
    store.create(second)
    assert store.get("one") == second


@pytest.mark.parametrize("name", ["a", "-a", "a b", "a/b", "..", ".a", "ä1", "a\0", "a" * 201])
def test_a_bad_name_is_refused(store: ContainerStore, name: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        store.create(container(name))
    assert (caught.value.code, store.list()) == ("name-invalid", ())


def test_without_a_name_a_random_one_is_given(store: ContainerStore) -> None:
    for number in range(1, 30):
        store.create(container(number=number))
    names = {record.name for record in store.list()}
    assert len(names) == 29
    assert all(is_name(name) and "_" in name for name in names)
    assert sorted(os.listdir(store.root / "names")) == sorted([*names, ".lock"])


def test_random_names_grow_numbers_when_most_are_taken() -> None:
    assert all(is_name(random_name(attempt)) for attempt in range(64))
    assert not any(random_name(0)[-1].isdigit() for _ in range(50))
    assert random_name(63)[-1].isdigit()


def test_list_is_newest_first(store: ContainerStore) -> None:
    for number in (2, 1, 3):
        store.create(container(f"c{number}", number=number))
    assert [record.name for record in store.list()] == ["c3", "c2", "c1"]


def test_update_changes_the_named_fields_only(store: ContainerStore) -> None:
    record = container("one")
    store.create(record)
    changed = store.update(record.id, status="exited", exit_code=3, finished="later")
    assert changed == msgspec.structs.replace(record, status="exited", exit_code=3, finished="later")
    assert store.get("one") == changed


def test_update_of_a_removed_container_is_not_found(store: ContainerStore) -> None:
    record = container("one")
    store.create(record)
    store.delete(record.id)
    with pytest.raises(NotFound) as caught:
        store.update(record.id, status="exited")
    assert caught.value.code == "container-unknown"
    assert os.listdir(store.root / "containers") == []


def test_rename_moves_the_name(store: ContainerStore) -> None:
    record = container("one")
    store.create(record)
    store.rename(record.id, "two")
    assert store.get("two").id == record.id
    with pytest.raises(NotFound):
        store.get("one")


def test_rename_to_a_name_in_use_changes_nothing(store: ContainerStore) -> None:
    for number in (1, 2):
        store.create(container(f"c{number}", number=number))
    with pytest.raises(Conflict):
        store.rename(f"{1:064x}", "c2")
    assert [record.name for record in store.list()] == ["c2", "c1"]


def test_delete_removes_folder_and_name_and_is_idempotent(store: ContainerStore) -> None:
    record = container("one")
    folder = Path(store.create(record))
    (folder / "upper/etc").mkdir(parents=True)
    (folder / "upper/etc/passwd").write_text("x")
    store.delete(record.id)
    store.delete(record.id)
    assert (store.list(), folder.exists(), os.listdir(store.root / "names")) == ((), False, [".lock"])


def test_delete_does_not_free_the_name_of_another(store: ContainerStore) -> None:
    first, second = container("one", number=1), container("one", number=2)
    store.create(first)
    os.unlink(store.root / "names/one")
    store.create(second)
    store.delete(first.id)
    assert store.get("one") == second


@pytest.mark.parametrize("length", [0, 1, 50, -2])
def test_a_cut_record_is_reported_and_does_not_hide_the_others(store: ContainerStore, length: int) -> None:
    store.create(container("bad", number=1))
    good = container("good", number=2)
    store.create(good)
    record_path(store).write_bytes(record_path(store).read_bytes()[:length])
    assert store.list() == (good,)
    assert [container_id for container_id, _ in store.damaged()] == [f"{1:064x}"]
    with pytest.raises(Corrupt) as caught:
        store.get("bad")
    assert caught.value.code == "record-damaged"


def test_a_folder_without_a_record_is_damaged(store: ContainerStore) -> None:
    """Unless nothing of a user's is in it: a killed creation or removal left it then."""
    folder = Path(store.create(container("one")))
    record_path(store).unlink()
    assert (store.damaged(), list(store.husks())) == ((), [f"{1:064x}"])
    (folder / "upper").mkdir()
    assert (store.damaged(), list(store.husks())) == (((f"{1:064x}", "it has no record.json"),), [])


def test_a_record_of_another_container_is_damaged(store: ContainerStore) -> None:
    store.create(container("one", number=1))
    store.create(container("two", number=2))
    record_path(store, 1).write_bytes(record_path(store, 2).read_bytes())
    assert store.damaged() == ((f"{1:064x}", f"it holds the record of {2:064x}"),)


def test_a_container_whose_name_file_is_lost_is_still_found_by_name(store: ContainerStore) -> None:
    store.create(container("one"))
    os.unlink(os.path.join(store.root, "names/one"))
    assert store.get("one").id == f"{1:064x}"
    with pytest.raises(NotFound):
        store.get("two")


def test_set_aside_keeps_the_files_and_frees_the_name(store: ContainerStore) -> None:
    folder = Path(store.create(container("one")))
    (folder / "upper").mkdir()
    (folder / "upper/mine").write_text("precious")
    record_path(store).write_bytes(b"")
    aside = Path(store.set_aside(folder.name))
    assert (aside / "upper/mine").read_text() == "precious"
    assert (store.damaged(), store.list()) == ((), ())
    store.create(container("one", number=2))


def test_folder_takes_ids_only(store: ContainerStore) -> None:
    for text in ("..", "one", "a" * 63, "A" * 64):
        with pytest.raises(InvalidInput) as caught:
            store.folder(text)
        assert caught.value.code == "id-invalid"


def test_new_ids_are_64_hex_digits() -> None:
    ids = {new_id() for _ in range(10)}
    assert {(len(text), text.strip("0123456789abcdef")) for text in ids} == {(64, "")}
    assert len(ids) == 10


def test_an_empty_store_has_no_containers(store: ContainerStore) -> None:
    assert (store.list(), store.damaged()) == ((), ())


def test_files_of_a_container_that_was_set_aside_are_not_left_behind(store: ContainerStore, tmp_path: Path) -> None:
    store.create(container("one", number=1))
    for number in (1, 2):
        (tmp_path / "local" / f"{number:064x}").mkdir(parents=True)
    store.set_aside(f"{1:064x}")
    assert store.left_behind(str(tmp_path / "local")) == (str(tmp_path / "local" / f"{2:064x}"),)
