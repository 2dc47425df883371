"""The derived listing: never older than the references, whatever the clock's grain."""

from __future__ import annotations

from typing import TYPE_CHECKING

from argosy.oci.descriptor import OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference
from argosy.store.listing import find_rows, read_listing
from argosy.store.refs import RefStore, Summary

if TYPE_CHECKING:
    from pathlib import Path

MANIFEST = Descriptor.of(b"manifest", OCI_MANIFEST)
SUMMARY = Summary(manifest=MANIFEST, image_id=Digest.of(b"config"), created="2026-01-02T03:04:05Z", size=7)


def names(root: Path) -> list[str]:
    return [row.familiar for row in read_listing(root)]


def set_name(root: Path, text: str) -> None:
    RefStore(root).set(Reference.parse(text), MANIFEST, summary=SUMMARY)


def cache(root: Path) -> Path:
    return root / "cache/refs.tsv"


def test_the_listing_of_a_store_without_references_is_empty(tmp_path: Path) -> None:
    assert read_listing(tmp_path) == []


def test_a_fresh_change_is_not_cached(tmp_path: Path) -> None:
    set_name(tmp_path, "a:1")
    assert names(tmp_path) == ["a:1"]
    assert list((tmp_path / "cache").iterdir()) == []


def test_a_change_within_the_grain_of_the_clock_is_seen(tmp_path: Path) -> None:
    for number in range(200):
        set_name(tmp_path, f"a:{number}")
        assert len(names(tmp_path)) == number + 1


def test_rows_are_found_by_familiar_and_full_name_and_id(tmp_path: Path) -> None:
    for text in ("a", "nvidia/cuda:13"):
        set_name(tmp_path, text)
    rows = read_listing(tmp_path)
    table = {
        "a": ["a:latest"],
        "a:latest": ["a:latest"],
        "docker.io/library/a": ["a:latest"],
        "docker.io/library/a:latest": ["a:latest"],
        "nvidia/cuda": [],
        "docker.io/a": [],
        "nvidia/cuda:13": ["nvidia/cuda:13"],
        SUMMARY.image_id[7:13]: ["a:latest", "nvidia/cuda:13"],
        str(SUMMARY.image_id): ["a:latest", "nvidia/cuda:13"],
        "": [],
    }
    assert {text: [row.familiar for row in find_rows(rows, text)] for text in table} == table
