"""A record of a dropped blob stands for it: in names that are published, in sweeps, in what is said of it."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import NotFound, Unavailable
from argosy.oci.image import Image
from argosy.oci.reference import Reference
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.dropped import Dropped
from argosy.store.refs import RefStore, Summary
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

    from support.images import RandomImage


NOTHING = gc.Reached(blobs=frozenset(), diff_ids=frozenset())


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image", size=300)


@pytest.fixture
def blobs(tmp_path: Path, image: RandomImage) -> BlobStore:
    load_image(tmp_path / "store", image, "a:1")
    return BlobStore(tmp_path / "store")


def record_of(image: RandomImage, number: int = 0) -> Dropped:
    return Dropped(
        descriptor=image.manifest.layers[number],
        diff_id=image.diff_ids[number],
        origins=(Reference.parse("localhost:5000/a:1"),),
        recipe="zlib 1.2.13 1 - 0 0",
        dropped_ns=1_795_449_600_000_000_000,
    )


def drop(blobs: BlobStore, record: Dropped) -> None:
    blobs.dropped.add(record)
    blobs.delete(record.descriptor.digest)


def name(image: RandomImage, blobs: BlobStore, reference: str) -> None:
    config = Image(image.descriptor, blobs).config
    gc.publish(
        Reference.parse(reference),
        image.descriptor,
        summary=Summary(manifest=image.descriptor, image_id=config.descriptor.digest, created="", size=1),
        needs=(*image.manifest.children(), image.descriptor),
        blobs=blobs,
        refs=RefStore(blobs.root),
    )


def unneeded(blobs: BlobStore) -> gc.Swept:
    return gc.set_aside(blobs, tuple(blobs.dropped.walk()), lambda: NOTHING, before_ns=gc.idle_before_ns(blobs))


def test_a_record_is_found_as_it_was_written(blobs: BlobStore, image: RandomImage) -> None:
    drop(blobs, record_of(image))
    digest = image.manifest.layers[0].digest
    assert blobs.dropped.find(digest) == record_of(image)
    assert (list(blobs.dropped.walk()), blobs.dropped.layers()) == ([digest], {image.diff_ids[0]})
    assert (blobs.stat(digest), blobs.holds(digest)) == (None, True)
    taken = os.lstat(blobs.dropped.path(digest)).st_blocks * 512
    assert (blobs.dropped.remove(digest), blobs.dropped.remove(digest)) == (taken, 0)
    assert (blobs.dropped.find(digest), blobs.holds(digest)) == (None, False)


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"descriptor":{}}', b"\xff", b'{"a":' * 10_000])
def test_a_record_that_cannot_be_read_is_none(blobs: BlobStore, image: RandomImage, damage: bytes) -> None:
    drop(blobs, record_of(image))
    layer = image.manifest.layers[0]
    with open(blobs.dropped.path(layer.digest), "wb") as file:
        file.write(damage)
    assert (blobs.dropped.find(layer.digest), blobs.dropped.claim(layer)) == (None, False)
    assert blobs.dropped.layers() == frozenset()
    with pytest.raises(NotFound) as caught:
        blobs.open(layer)
    assert caught.value.code == "blob-unknown"


def test_the_record_of_another_blob_is_none(blobs: BlobStore, image: RandomImage) -> None:
    drop(blobs, record_of(image))
    first, second = (layer.digest for layer in image.manifest.layers)
    os.rename(blobs.dropped.path(first), blobs.dropped.path(second))
    assert blobs.dropped.find(second) is None


def test_opening_says_that_it_was_dropped(blobs: BlobStore, image: RandomImage) -> None:
    drop(blobs, record_of(image))
    layer = image.manifest.layers[0]
    with pytest.raises(NotFound) as caught:
        blobs.open(layer)
    assert (caught.value.code, caught.value.message) == (
        "blob-dropped",
        f"blob {layer.digest} was dropped to save space",
    )


def test_an_image_with_a_dropped_blob_takes_another_name(blobs: BlobStore, image: RandomImage) -> None:
    drop(blobs, record_of(image))
    name(image, blobs, "b:1")
    assert [str(record.reference) for record in RefStore(blobs.root).list()][-1].endswith("b:1")


def test_no_name_is_published_over_a_record_of_another_size(blobs: BlobStore, image: RandomImage) -> None:
    layer = image.manifest.layers[0]
    wrong = Dropped(
        descriptor=type(layer)(media_type=layer.media_type, digest=layer.digest, size=layer.size + 1),
        diff_id=image.diff_ids[0],
    )
    drop(blobs, wrong)
    with pytest.raises(Unavailable, match="was removed while it was being made"):
        name(image, blobs, "b:1")


def test_what_an_image_reaches_is_the_same_after_a_drop(blobs: BlobStore, image: RandomImage) -> None:
    before = gc.reachable([image.descriptor], blobs)
    drop(blobs, record_of(image))
    assert gc.reachable([image.descriptor], blobs) == before


def test_a_record_that_was_claimed_stays_and_goes_when_its_maker_has_ended(
    blobs: BlobStore, image: RandomImage
) -> None:
    record = record_of(image)
    drop(blobs, record)
    blobs.begin()
    with blobs.publishing():
        assert blobs.dropped.claim(record.descriptor)
    assert unneeded(blobs) == gc.Swept()
    gc.settle([record.descriptor], blobs=blobs)
    assert unneeded(blobs).blobs == (record.descriptor.digest,)
    assert list(blobs.dropped.walk()) == []


def test_a_blob_that_comes_back_ends_its_record(blobs: BlobStore, image: RandomImage) -> None:
    drop(blobs, record_of(image))
    layer = image.manifest.layers[0]
    blobs.put(image.layout.read(layer.digest), layer.media_type)
    assert (blobs.stat(layer.digest), blobs.dropped.find(layer.digest)) == (layer.size, None)


def test_a_crash_between_record_and_removal_leaves_the_blob(blobs: BlobStore, image: RandomImage) -> None:
    blobs.dropped.add(record_of(image))
    layer = image.manifest.layers[0]
    with blobs.open(layer) as stream:
        assert len(stream.read()) == layer.size
    gc.settle([layer], blobs=blobs)
    unneeded(blobs)
    assert (blobs.stat(layer.digest), blobs.dropped.find(layer.digest)) == (None, None)
