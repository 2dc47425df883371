"""Content that was published without being synced: after a power cut no name leads to a damaged image."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.linux.processes import boot_id
from argosy.oci.reference import Reference
from argosy.ops.settle import has_crashed, settle
from argosy.snapshots.unpacked import UnpackedSnapshotter
from argosy.store import unsettled
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore
from argosy.store.unsettled import Mark
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

    from support.images import RandomImage

ANOTHER_BOOT = "11111111-2222-3333-4444-555555555555"
NAME = Reference.parse("a:1")


@pytest.fixture
def old(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "old", seed=1, layers=1, size=2000)


@pytest.fixture
def new(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "new", seed=2, layers=2, size=2000)


@pytest.fixture
def root(tmp_path: Path, old: RandomImage) -> Path:
    load_image(tmp_path / "store", old, "a:1")
    return tmp_path / "store"


def pulled(root: Path, image: RandomImage, boot: str = ANOTHER_BOOT, host: str = "") -> None:
    """As pull leaves it: a mark, then content, then the name."""
    before = RefStore(root).find_exact(NAME)
    blobs = tuple(descriptor.digest for descriptor, _ in image.blobs())
    mark = Mark(
        boot=boot,
        host=host,
        blobs=(image.descriptor.digest, *blobs),
        layers=image.diff_ids,
        name=str(NAME),
        target=image.descriptor.digest,
        before=before,
    )
    unsettled.begin(root, mark)
    load_image(root, image, "a:1")


def settled(root: Path, patience_s: float = 0) -> list[str]:
    warnings: list[str] = []
    settle(
        blobs=BlobStore(root),
        refs=RefStore(root),
        snapshotter=UnpackedSnapshotter(root, user=True),
        patience_s=patience_s,
        warn=warnings.append,
    )
    return warnings


def meaning(root: Path) -> object:
    record = RefStore(root).find_exact(NAME)
    return record and record.descriptor


def damage(root: Path, image: RandomImage, number: int) -> None:
    descriptor = [found for found, _ in image.blobs()][number]
    path = BlobStore(root).path(descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(b"\0" * descriptor.size)


def marks(root: Path) -> int:
    return len(list(unsettled.walk(root)))


def test_a_mark_of_this_boot_waits_and_then_goes(root: Path, new: RandomImage) -> None:
    pulled(root, new, boot_id())
    assert (has_crashed(root), settled(root, 60), marks(root)) == (False, [], 1)
    assert (settled(root), marks(root), meaning(root)) == ([], 0, new.descriptor)


def test_a_mark_of_another_machine_that_shares_the_store_is_left_alone(root: Path, new: RandomImage) -> None:
    """It may be pulling at this moment: what is not there yet is not lost."""
    pulled(root, new, host="another")
    damage(root, new, 1)
    assert (has_crashed(root), settled(root), marks(root), meaning(root)) == (False, [], 1, new.descriptor)


def test_what_a_crash_left_whole_stays(root: Path, new: RandomImage) -> None:
    pulled(root, new)
    assert has_crashed(root)
    assert (settled(root, 60), marks(root), meaning(root)) == ([], 0, new.descriptor)
    assert not has_crashed(root)


@pytest.mark.parametrize("number", range(3))
def test_a_name_means_again_what_it_meant_when_any_blob_is_damaged(root: Path, new: RandomImage, number: int) -> None:
    pulled(root, new)
    damage(root, new, number)
    [warning] = settled(root)
    assert (warning.endswith("it means again what it meant before"), marks(root)) == (True, 0)
    assert meaning(root) != new.descriptor
    assert BlobStore(root).stat([found for found, _ in new.blobs()][number].digest) is None


def test_a_name_that_meant_nothing_before_goes(tmp_path: Path, new: RandomImage) -> None:
    root = tmp_path / "fresh"
    pulled(root, new)
    damage(root, new, 0)
    [warning] = settled(root)
    assert (warning.endswith("pull it again"), meaning(root)) == (True, None)


def test_a_name_whose_old_image_has_gone_goes_too(root: Path, old: RandomImage, new: RandomImage) -> None:
    pulled(root, new)
    damage(root, new, 0)
    BlobStore(root).delete(old.manifest.layers[0].digest)
    [warning] = settled(root)
    assert (warning.endswith("pull it again"), meaning(root)) == (True, None)


def test_a_name_that_means_something_else_by_now_stays(root: Path, tmp_path: Path, new: RandomImage) -> None:
    pulled(root, new)
    damage(root, new, 0)
    third = random_image(tmp_path / "third", seed=3, layers=1, size=2000)
    load_image(root, third, "a:1")
    assert (settled(root), meaning(root)) == ([], third.descriptor)


def test_layers_of_a_crash_are_made_again(root: Path, new: RandomImage) -> None:
    pulled(root, new)
    for diff_id in new.diff_ids:
        folder = root / "layers" / diff_id.algorithm / diff_id.hex
        folder.mkdir(parents=True)
        (folder / "layer.json").write_text('{"size": 1}')
    settled(root)
    assert list(UnpackedSnapshotter(root, user=True).walk()) == []


@pytest.mark.parametrize("raw", [b"", b"\0" * 100, b'{"boot": 3}', b'{"boot":"x","blobs":["sha256:short"]}'])
def test_a_torn_mark_is_removed(root: Path, raw: bytes) -> None:
    os.mkdir(root / "unsettled")
    (root / "unsettled/0123.json").write_bytes(raw)
    assert (settled(root), marks(root)) == ([], 0)
