"""Content that was published without being synced: after a power cut no name leads to a damaged image."""

from __future__ import annotations

import io
import os
import time
from typing import TYPE_CHECKING

import pytest

from argosy.linux.lifetimes import boot_id
from argosy.oci.reference import Reference
from argosy.ops.settle import has_crashed, settle
from argosy.snapshots.unpacked import UnpackedSnapshotter
from argosy.store import unsettled
from argosy.store.blobs import BlobStore
from argosy.store.dropped import Dropped
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


def dropped(root: Path, image: RandomImage) -> None:
    """As `prune --compressed` leaves it: layers on the disk, a record for each blob that went."""
    blobs, snapshotter = BlobStore(root), UnpackedSnapshotter(root, user=True)
    for descriptor, diff_id, tar in zip(image.manifest.layers, image.diff_ids, image.tars, strict=True):
        snapshotter.apply(diff_id, io.BytesIO(tar))
        blobs.dropped.add(Dropped(descriptor=descriptor, diff_id=diff_id, dropped_ns=time.time_ns()))
        blobs.delete(descriptor.digest)


def test_what_was_dropped_before_the_crash_is_neither_missing_nor_made_again(root: Path, new: RandomImage) -> None:
    """Its layer is all that is left, and was synced before the blob went."""
    pulled(root, new)
    dropped(root, new)
    assert settled(root) == []
    assert meaning(root) == new.descriptor
    assert all(UnpackedSnapshotter(root, user=True).has(diff_id) for diff_id in new.diff_ids)


def test_a_name_falls_back_to_an_image_whose_blobs_were_dropped(root: Path, old: RandomImage, new: RandomImage) -> None:
    dropped(root, old)
    pulled(root, new)
    damage(root, new, 0)
    settled(root)
    assert meaning(root) == old.descriptor


def test_a_blob_that_came_back_unsynced_keeps_its_record_until_it_is_synced(root: Path, old: RandomImage) -> None:
    dropped(root, old)
    layer = old.manifest.layers[0]
    blobs = BlobStore(root)
    raw = old.layout.read(layer.digest)
    unsettled.begin(root, Mark(boot=boot_id(), blobs=(layer.digest,)))
    blobs.keep(layer, raw, sync=False)
    assert (blobs.stat(layer.digest), blobs.dropped.find(layer.digest) is None) == (layer.size, False)
    settled(root)
    assert (blobs.stat(layer.digest), blobs.dropped.find(layer.digest)) == (layer.size, None)


def test_a_blob_that_came_back_and_was_spoilt_by_the_crash_is_dropped_as_before(root: Path, old: RandomImage) -> None:
    dropped(root, old)
    layer = old.manifest.layers[0]
    blobs = BlobStore(root)
    unsettled.begin(root, Mark(boot=ANOTHER_BOOT, blobs=(layer.digest,), name=str(NAME), target=old.descriptor.digest))
    blobs.keep(layer, old.layout.read(layer.digest), sync=False)
    path = blobs.path(layer.digest)
    path.chmod(0o644)
    path.write_bytes(bytes(layer.size))
    assert settled(root) == []
    assert (meaning(root), blobs.stat(layer.digest), blobs.holds(layer.digest)) == (old.descriptor, None, True)


def test_a_layer_that_was_made_anew_after_the_drop_is_not_trusted(root: Path, old: RandomImage) -> None:
    """Its blob was dropped, the layer was lost, and both came again just before the crash."""
    dropped(root, old)
    time.sleep(0.02)  # a tick of the file system's clock
    mark = Mark(boot=ANOTHER_BOOT, layers=old.diff_ids)
    unsettled.begin(root, mark)
    settled(root)
    assert not any(UnpackedSnapshotter(root, user=True).has(diff_id) for diff_id in old.diff_ids)
    assert meaning(root) == old.descriptor
