"""What is reachable, and what a sweep may take while others are at work."""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any

import pytest

from argosy.errors import Corrupt, Unavailable
from argosy.oci.descriptor import OCI_INDEX, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import Image
from argosy.oci.manifest import encode_index
from argosy.oci.reference import Reference
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefRecord, RefStore, Summary
from support.images import random_image
from support.stores import sweep

if TYPE_CHECKING:
    from pathlib import Path

    from support.images import RandomImage

DAY_S = 24 * 3600


class Shop:
    """A store and images to put into it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.blobs = BlobStore(folder / "store")
        self.refs = RefStore(folder / "store")

    def image(self, seed: int) -> RandomImage:
        return random_image(self.folder / f"image{seed}", seed=seed, size=300)

    def fetch(self, image: RandomImage) -> None:
        for descriptor, raw in image.blobs():
            self.blobs.put(raw, descriptor.media_type)
        self.blobs.put(image.manifest.raw, image.descriptor.media_type)

    def publish(self, image: RandomImage, name: str) -> None:
        config = Image(image.descriptor, self.blobs).config
        summary = Summary(manifest=image.descriptor, image_id=config.descriptor.digest, created=config.created, size=1)
        gc.publish(
            Reference.parse(name),
            image.descriptor,
            summary=summary,
            needs=(*image.manifest.children(), image.descriptor),
            blobs=self.blobs,
            refs=self.refs,
        )

    def reached(self) -> gc.Reached:
        return gc.reachable(gc.roots(self.refs.list(), ()), self.blobs)

    def here(self) -> set[str]:
        return set(self.blobs.walk())

    def everything_is_old(self) -> None:
        for digest in self.blobs.walk():
            os.utime(self.blobs.path(digest), (1000, 1000), follow_symlinks=False)


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def content(image: RandomImage) -> set[str]:
    return {image.descriptor.digest, *(child.digest for child in image.manifest.children())}


def test_an_image_reaches_its_manifest_config_layers_and_diff_ids(shop: Shop) -> None:
    image = shop.image(1)
    shop.fetch(image)
    found = gc.reachable([image.descriptor], shop.blobs)
    assert found == gc.Reached(blobs=frozenset(content(image)), diff_ids=frozenset(image.diff_ids))  # type: ignore[arg-type]


def test_an_index_reaches_what_is_here_of_it(shop: Shop) -> None:
    here, elsewhere = shop.image(1), shop.image(2)
    shop.fetch(here)
    index = encode_index((here.descriptor, elsewhere.descriptor))
    shop.blobs.put(index.raw, OCI_INDEX)
    found = gc.reachable([index.descriptor], shop.blobs)
    assert found.blobs == content(here) | {index.descriptor.digest, elsewhere.descriptor.digest}
    assert found.diff_ids == set(here.diff_ids)


def test_an_artifact_reaches_its_blobs_and_no_diff_ids(shop: Shop) -> None:
    from argosy.oci.manifest import encode_manifest

    blob = shop.blobs.put(b"data", "application/x-data")
    config = shop.blobs.put(b"{}", "application/vnd.oci.empty.v1+json")
    manifest = encode_manifest(config, (blob,), artifact_type="application/x-thing")
    shop.blobs.put(manifest.raw, manifest.descriptor.media_type)
    found = gc.reachable([manifest.descriptor], shop.blobs)
    expected = frozenset({manifest.descriptor.digest, config.digest, blob.digest})
    assert found == gc.Reached(blobs=expected, diff_ids=frozenset())


def test_nothing_is_known_of_what_a_damaged_manifest_reaches(shop: Shop) -> None:
    image = shop.image(1)
    shop.fetch(image)
    path = shop.blobs.path(image.descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(path.read_bytes().replace(b"layers", b"lawyer"))
    with pytest.raises(Corrupt):
        gc.reachable([image.descriptor], shop.blobs)


def test_a_sweep_takes_what_no_name_reaches(shop: Shop) -> None:
    kept, loose = shop.image(1), shop.image(2)
    shop.fetch(kept)
    shop.publish(kept, "kept:1")
    shop.fetch(loose)
    shop.everything_is_old()
    on_disk = sum(os.stat(shop.blobs.path(Digest(digest))).st_blocks * 512 for digest in content(loose))
    swept = sweep(shop.blobs, shop.reached)
    assert (set(swept.blobs), shop.here()) == (content(loose), content(kept))
    assert swept.size == on_disk


def test_a_sweep_leaves_what_somebody_is_at_work_with(shop: Shop) -> None:
    image = shop.image(1)
    shop.fetch(image)
    assert sweep(shop.blobs, shop.reached) == gc.Swept()
    shop.everything_is_old()
    layer = image.manifest.layers[0]
    shop.blobs.claim(layer)
    sweep(shop.blobs, shop.reached)
    assert shop.here() == {layer.digest}


@pytest.mark.parametrize("place", ["blobs", "dropped"])
@pytest.mark.parametrize("target", ["/no/where", "itself"])
def test_a_sweep_takes_links_in_the_places_of_blobs(shop: Shop, place: str, target: str) -> None:
    """As damaged disks leave them; one must not keep all else from being removed."""
    blob = shop.blobs.put(b"x", "application/x-data")
    link = shop.folder / "store" / place / "sha256" / f"{7:064x}"
    link.parent.mkdir(parents=True, exist_ok=True)
    link.symlink_to(link.name if target == "itself" else target)
    os.utime(link, (1000, 1000), follow_symlinks=False)
    shop.everything_is_old()
    assert set(sweep(shop.blobs, shop.reached).blobs) == {blob.digest, f"sha256:{link.name}"}
    assert (shop.here(), list(shop.blobs.dropped.walk()), os.path.islink(link)) == (set(), [], False)


def test_publishing_after_a_sweep_took_something_fails_and_names_nothing(shop: Shop) -> None:
    image = shop.image(1)
    shop.fetch(image)
    layer = image.manifest.layers[1]
    shop.blobs.delete(layer.digest)
    with pytest.raises(Unavailable) as caught:
        shop.publish(image, "a:1")
    assert (caught.value.code, shop.refs.list()) == ("content-collected", ())
    assert caught.value.context == f"blob {layer.digest} is gone from {shop.blobs.root}"


def test_what_loses_its_name_can_go_at_once(shop: Shop) -> None:
    """Published blobs are settled: no grace period delays the removal of an image."""
    first, second = shop.image(1), shop.image(2)
    for image, name in ((first, "a:1"), (second, "b:1")):
        shop.fetch(image)
        shop.publish(image, name)
    shop.publish(first, "c:1")
    shop.refs.delete(Reference.parse("a:1"))
    assert sweep(shop.blobs, shop.reached) == gc.Swept()
    shop.refs.delete(Reference.parse("c:1"))
    assert set(sweep(shop.blobs, shop.reached).blobs) == content(first)
    assert shop.here() == content(second)


def test_a_name_that_is_set_while_a_sweep_finds_out_what_is_needed_keeps_its_image(shop: Shop) -> None:
    """Publishing settles the blobs, so that by their time alone they would look abandoned."""
    image = shop.image(1)
    shop.fetch(image)
    looks = []

    def needed() -> gc.Reached:
        found = shop.reached()
        looks.append(found)
        if len(looks) == 1:
            shop.publish(image, "a:1")
        return found

    assert gc.set_aside(shop.blobs, tuple(shop.blobs.walk()), needed, before_ns=2**63) == gc.Swept()
    assert (shop.here(), len(looks)) == (content(image), 2)


def test_a_sweep_does_not_begin_in_the_midst_of_a_publication(shop: Shop) -> None:
    """Between its word and its name; the sweep would take the word for that of an earlier one."""
    image = shop.image(1)
    shop.fetch(image)
    began = threading.Event()

    class Slow(RefStore):
        def set(self, *args: Any, **keywords: Any) -> RefRecord:  # Any: as RefStore.set
            began.set()
            time.sleep(0.2)
            return super().set(*args, **keywords)

    shop.refs = Slow(shop.blobs.root)
    maker = threading.Thread(target=lambda: shop.publish(image, "a:1"))
    maker.start()
    began.wait()
    assert gc.set_aside(shop.blobs, tuple(shop.blobs.walk()), shop.reached, before_ns=2**63) == gc.Swept()
    maker.join()
    assert shop.here() == content(image)


PART = Descriptor.of(b"x" * 100, "application/x-test")


def test_an_old_part_is_swept_a_young_one_and_one_in_use_are_not(shop: Shop) -> None:
    with shop.blobs.assemble(PART) as assembly:
        writer = assembly.writer(0)
        writer.write(b"x" * 60)
        writer.close()
    nothing = gc.Reached(blobs=frozenset(), diff_ids=frozenset())
    assert sweep(shop.blobs, lambda: nothing) == gc.Swept()
    [path] = gc.unfinished(shop.blobs)
    on_disk = sum(os.stat(each).st_blocks * 512 for each in (path, f"{path}.journal"))
    os.utime(path, (1000, 1000))
    with shop.blobs.assemble(PART):
        assert sweep(shop.blobs, lambda: nothing) == gc.Swept()
    assert sweep(shop.blobs, lambda: nothing) == gc.Swept(parts=1, size=on_disk)
    assert (gc.unfinished(shop.blobs), list((shop.folder / "store/ingest").glob("*.part*"))) == ([], [])


@pytest.mark.parametrize("place", ["a folder", "a dangling link", "a link to itself", "a link to another file"])
def test_something_else_in_the_place_of_the_word_is_replaced(shop: Shop, tmp_path: Path, place: str) -> None:
    word, other = shop.folder / "store/ingest/publication", tmp_path / "other"
    other.write_bytes(b"untouched")
    image = shop.image(1)
    shop.fetch(image)
    {
        "a folder": lambda: (word / "deep").mkdir(parents=True),
        "a dangling link": lambda: word.symlink_to("/no/where"),
        "a link to itself": lambda: word.symlink_to(word.name),
        "a link to another file": lambda: word.symlink_to(other),
    }[place]()
    assert sweep(shop.blobs, shop.reached).blobs == ()
    shop.publish(image, "a:1")
    assert (word.is_symlink(), len(word.read_bytes()), other.read_bytes()) == (False, 16, b"untouched")
