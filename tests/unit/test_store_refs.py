"""RefStore: names, ids and what happens to images that lose their last name."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, InvalidInput, NotFound
from argosy.oci.descriptor import OCI_INDEX, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference
from argosy.store.refs import RefStore, Summary, untagged

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.store.refs import RefRecord


@pytest.fixture
def refs(tmp_path: Path) -> RefStore:
    return RefStore(tmp_path)


def image(number: int) -> tuple[Descriptor, Summary]:
    manifest = Descriptor.of(b"manifest %d" % number, OCI_MANIFEST)
    config = Digest.of(b"config %d" % number)
    return manifest, Summary(manifest=manifest, image_id=config, created="2026-01-02T03:04:05Z", size=1000 + number)


def name(refs: RefStore, text: str, number: int = 0) -> RefRecord:
    manifest, summary = image(number)
    return refs.set(Reference.parse(text), manifest, summary=summary)


def names(refs: RefStore) -> list[str]:
    return [record.reference.familiar() for record in refs.list()]


def test_what_was_set_is_read_back_whole(refs: RefStore) -> None:
    record = name(refs, "nvidia/cuda:13-devel", 3)
    assert refs.get(Reference.parse("nvidia/cuda:13-devel")) == record
    assert refs.list() == (record,)
    assert record.summary == image(3)[1]
    assert record.updated.startswith("20")


def test_one_file_a_name_quoted(refs: RefStore) -> None:
    name(refs, "localhost:5000/a/b:v1")
    assert os.listdir(refs.root / "refs") == ["localhost%3A5000%2Fa%2Fb%3Av1.json"]


def test_the_longest_reference_has_a_file(refs: RefStore) -> None:
    longest = [f"registry.example/{'a' * 238}:{'t' * 127}{end}" for end in "12"]
    records = [name(refs, text) for text in longest]
    assert [refs.get(Reference.parse(text)) for text in longest] == records
    assert refs.damaged() == ()


def test_list_is_sorted_by_name_also_with_and_without_tags(refs: RefStore) -> None:
    digest = image(0)[0].digest
    for text in ("zebra", "ant:2", f"ant@{digest}", "localhost:5000/x:1", "ant:10"):
        name(refs, text)
    assert names(refs) == ["ant:10", "ant:2", f"ant@{digest}", "zebra:latest", "localhost:5000/x:1"]


def test_an_unknown_tag_suggests_the_near_ones(refs: RefStore) -> None:
    for text in ("nvidia/cuda:12-devel", "nvidia/cuda:13-devel", "other:1"):
        name(refs, text)
    with pytest.raises(NotFound) as caught:
        refs.get(Reference.parse("nvidia/cuda:13-devle"))
    assert caught.value.code == "tag-unknown"
    assert caught.value.message == "no such image: nvidia/cuda:13-devle"
    assert caught.value.hint == "did you mean nvidia/cuda:13-devel or nvidia/cuda:12-devel?"


def test_an_unknown_repository_suggests_a_near_name(refs: RefStore) -> None:
    name(refs, "vectoradd:26.11")
    with pytest.raises(NotFound) as caught:
        refs.lookup("vectorad:26.11")
    assert caught.value.hint == "did you mean vectoradd:26.11?"


def test_an_equal_tag_makes_no_names_alike(refs: RefStore) -> None:
    name(refs, "debian:latest")
    with pytest.raises(NotFound) as caught:
        refs.lookup("nosuch")
    assert caught.value.hint == "argosy pull nosuch:latest"


def test_a_name_that_resembles_nothing_is_to_be_pulled(refs: RefStore) -> None:
    with pytest.raises(NotFound) as caught:
        refs.lookup("debian")
    assert caught.value.hint == "argosy pull debian:latest"


@pytest.mark.parametrize("digits", [1, 12, 64])
def test_an_image_is_found_by_the_start_of_its_id(refs: RefStore, digits: int) -> None:
    record = name(refs, "a:1")
    assert refs.lookup(record.image_id.hex[:digits]) == record
    assert refs.lookup(f"sha256:{record.image_id.hex[:digits]}") == record


def test_by_id_all_names_of_the_image_are_meant_by_name_only_that(refs: RefStore) -> None:
    first, second = name(refs, "a:1"), name(refs, "b:1")
    assert refs.resolve(first.image_id.short) == (first, second)
    assert refs.resolve("b:1") == (second,)


def test_a_name_wins_over_an_id_that_begins_like_it(refs: RefStore) -> None:
    other = name(refs, "x:1", 1)
    start = other.image_id.hex[:4]
    record = name(refs, f"{start}:latest", 2)
    assert refs.lookup(start) == record


def test_an_ambiguous_start_of_an_id_lists_the_candidates(refs: RefStore) -> None:
    records = [name(refs, f"a:{n}", n) for n in range(40)]
    ids = [record.image_id.hex for record in records]
    start = next(hex_id[0] for hex_id in ids if sum(other[0] == hex_id[0] for other in ids) == 2)
    with pytest.raises(InvalidInput) as caught:
        refs.lookup(start)
    meant = sorted(hex_id[:12] for hex_id in ids if hex_id[0] == start)
    assert (caught.value.code, caught.value.context) == ("id-ambiguous", f"it may be {', '.join(meant)}")


def test_an_unknown_id_is_no_such_image(refs: RefStore) -> None:
    with pytest.raises(NotFound) as caught:
        refs.lookup("f" * 64)
    assert caught.value.code == "tag-unknown"


def test_a_digest_finds_the_tag_of_that_repository(refs: RefStore) -> None:
    record = name(refs, "a:1")
    assert refs.get(Reference.parse(f"a@{record.descriptor.digest}")) == record
    assert refs.find(Reference.parse(f"b@{record.descriptor.digest}")) is None


def test_an_image_that_loses_its_last_name_stays_untagged(refs: RefStore) -> None:
    name(refs, "a:1", 1)
    name(refs, "a:1", 2)
    old, new = image(1)[0], image(2)[0]
    assert [(r.reference, r.manifest) for r in refs.list()] == [
        (untagged(old.digest), old),
        (Reference.parse("a:1"), new),
    ]


def test_an_image_with_another_name_is_not_kept_untagged(refs: RefStore) -> None:
    for text, number in (("a:1", 1), ("b:1", 1), ("a:1", 2)):
        name(refs, text, number)
    assert names(refs) == ["a:1", "b:1"]


def test_naming_an_untagged_image_ends_that_state(refs: RefStore) -> None:
    for text, number in (("a:1", 1), ("a:1", 2), ("b:1", 1)):
        name(refs, text, number)
    assert names(refs) == ["a:1", "b:1"]


def test_an_index_and_its_manifest_are_both_recorded(refs: RefStore) -> None:
    index = Descriptor.of(b"index", OCI_INDEX)
    manifest, summary = image(1)
    record = refs.set(Reference.parse("a"), index, summary=summary)
    assert (record.descriptor, record.manifest) == (index, manifest)


def test_delete_tells_whether_there_was_something(refs: RefStore) -> None:
    record = name(refs, "a:1")
    assert (refs.delete(record.reference), refs.delete(record.reference), refs.list()) == (True, False, ())


def test_an_empty_store_lists_nothing(refs: RefStore) -> None:
    assert (refs.list(), refs.damaged(), refs.find(Reference.parse("a"))) == ((), (), None)


DAMAGE = {
    "empty": b"",
    "cut": None,
    "not json": b"<html>",
    "another document": b'{"hello": 1}',
    "a bad digest": b"replace",
    "deeply nested": b"[" * 100_000,
}


@pytest.mark.parametrize("how", DAMAGE)
def test_a_damaged_record_is_named_and_does_not_hide_the_others(refs: RefStore, how: str) -> None:
    name(refs, "a:1")
    good = name(refs, "b:1")
    path = refs.root / "refs/docker.io%2Flibrary%2Fa%3A1.json"
    raw = path.read_bytes()
    damage = {"cut": raw[: len(raw) // 2], "a bad digest": raw.replace(b"sha256:", b"sha256:!", 1)}
    path.write_bytes(damage.get(how) or DAMAGE[how] or b"")
    assert refs.list() == (good,)
    assert [file for file, _ in refs.damaged()] == [path.name]
    with pytest.raises(Corrupt) as caught:
        refs.get(Reference.parse("a:1"))
    assert caught.value.code == "ref-damaged"


def test_a_record_under_another_name_is_damaged(refs: RefStore) -> None:
    name(refs, "a:1")
    folder = refs.root / "refs"
    os.rename(folder / "docker.io%2Flibrary%2Fa%3A1.json", folder / "docker.io%2Flibrary%2Fb%3A1.json")
    assert refs.list() == ()
    assert refs.damaged() == (("docker.io%2Flibrary%2Fb%3A1.json", "it holds the record of docker.io/library/a:1"),)


def test_a_damaged_record_is_overwritten_by_the_next_set(refs: RefStore) -> None:
    record = name(refs, "a:1")
    (refs.root / "refs/docker.io%2Flibrary%2Fa%3A1.json").write_bytes(b"")
    assert name(refs, "a:1").summary == record.summary
    assert refs.damaged() == ()


def test_discard_takes_only_the_names_of_records(refs: RefStore) -> None:
    name(refs, "a:1")
    for text in ("../version.json", "x/../y.json", "version"):
        with pytest.raises(InvalidInput):
            refs.discard(text)
    refs.discard("docker.io%2Flibrary%2Fa%3A1.json")
    assert os.listdir(refs.root / "refs") == []
