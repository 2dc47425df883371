"""The cached listing on a real clock: it is believed only as long as it is true, and mended when damaged."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci.descriptor import OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference
from argosy.store.derived import COARSEST_NS
from argosy.store.listing import read_listing
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


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store with two names whose listing is cached."""
    set_name(tmp_path, "a:1")
    set_name(tmp_path, "localhost:5000/b:2")
    time.sleep(COARSEST_NS / 1e9 + 0.05)
    assert names(tmp_path) == ["a:1", "localhost:5000/b:2"]
    return tmp_path


def test_the_cache_serves_rows_until_the_folder_changes(root: Path) -> None:
    row = read_listing(root)[0]
    assert cache(root).exists()
    assert (row.name, row.tag, row.digest, row.target, row.manifest, row.image_id, row.created, row.size) == (
        "docker.io/library/a",
        "1",
        "",
        MANIFEST.digest,
        MANIFEST.digest,
        SUMMARY.image_id,
        SUMMARY.created,
        7,
    )
    # Proof that it is the cache which is read: what it says is believed.
    cache(root).write_text(cache(root).read_text().replace("library/a\t", "library/z\t"))
    assert names(root) == ["z:1", "localhost:5000/b:2"]
    set_name(root, "c:3")
    assert names(root) == ["a:1", "c:3", "localhost:5000/b:2"]
    RefStore(root).delete(Reference.parse("a:1"))
    assert names(root) == ["c:3", "localhost:5000/b:2"]
    damage_of_the_cache_is_mended(root)
    a_folder_set_back_in_time_is_read_again(root)


def damage_of_the_cache_is_mended(root: Path) -> None:
    time.sleep(COARSEST_NS / 1e9 + 0.05)
    expected = names(root)
    whole = cache(root).read_bytes()
    for length in range(0, len(whole), 7):
        cache(root).write_bytes(whole[:length])
        assert names(root) == expected
    cache(root).write_bytes(whole[:-40] + b"\0" * 40)
    assert names(root) == expected
    cache(root).unlink()
    assert names(root) == expected
    assert cache(root).read_bytes() == whole


def a_folder_set_back_in_time_is_read_again(root: Path) -> None:
    """Restored from a backup: the content is another, the mtime is the old one."""
    folder = root / "refs"
    before = folder.stat()
    os.unlink(folder / "docker.io%2Flibrary%2Fc%3A3.json")
    os.utime(folder, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert names(root) == ["localhost:5000/b:2"]
