"""Image and Layer: promises that read each blob once, over any source."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, NotFound
from argosy.oci import descriptor as media
from argosy.oci.config import ImageConfig
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import CONFIG_LIMIT, Image, read_blob
from argosy.oci.manifest import encode_index, encode_manifest
from argosy.oci.platform import Platform
from support.images import Layout

if TYPE_CHECKING:
    from pathlib import Path
    from typing import BinaryIO

AMD64 = Platform.parse("linux/amd64")


class Counting(Layout):
    """A layout that remembers what was opened."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.opened: list[Digest] = []

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        self.opened.append(descriptor.digest)
        return super().open(descriptor, offset=offset)


@pytest.fixture
def layout(tmp_path: Path) -> Counting:
    return Counting(tmp_path)


def made(layout: Layout, *, layers: int = 2, diff_ids: int | None = None) -> tuple[Descriptor, ImageConfig]:
    blobs = tuple(layout.put(f"layer {n}".encode(), media.OCI_LAYER) for n in range(layers))
    promised = tuple(blob.digest for blob in blobs) if diff_ids is None else (Digest.of(b""),) * diff_ids
    config = ImageConfig.scratch(AMD64).with_(diff_ids=promised)
    layout.put(config.raw, media.OCI_CONFIG)
    return layout.put(encode_manifest(config.descriptor, blobs).raw, media.OCI_MANIFEST), config


def test_nothing_is_read_until_asked_and_each_blob_once(layout: Counting) -> None:
    descriptor, config = made(layout)
    image = Image(descriptor, layout)
    assert layout.opened == []
    assert [layer.diff_id for layer in image.layers] == list(config.diff_ids)
    assert image.config == config
    assert image.id == config.descriptor.digest
    assert layout.opened == [descriptor.digest, config.descriptor.digest]


def test_a_layer_opens_its_blob(layout: Counting) -> None:
    image = Image(made(layout)[0], layout)
    with image.layers[1].open() as stream:
        assert stream.read() == b"layer 1"


def test_an_image_is_chosen_through_nested_indexes(layout: Counting) -> None:
    descriptor, config = made(layout)
    inner = encode_index((Descriptor(**{**fields(descriptor), "platform": AMD64}),))
    nested = Descriptor(**{**fields(layout.put(inner.raw, media.OCI_INDEX)), "platform": AMD64})
    outer = layout.put(encode_index((nested,)).raw, media.OCI_INDEX)
    image = Image.select(outer, layout, AMD64)
    assert (image.descriptor.digest, image.config) == (descriptor.digest, config)


def fields(descriptor: Descriptor) -> dict[str, object]:
    return {"media_type": descriptor.media_type, "digest": descriptor.digest, "size": descriptor.size}


def test_indexes_that_nest_too_deeply_are_a_trap(layout: Counting) -> None:
    descriptor = made(layout)[0]
    for _ in range(5):
        index = encode_index((Descriptor(**{**fields(descriptor), "platform": AMD64}),))
        descriptor = layout.put(index.raw, media.OCI_INDEX)
    with pytest.raises(Corrupt, match="nests indexes too deeply"):
        Image.select(descriptor, layout, AMD64)


def test_an_index_is_no_image(layout: Counting) -> None:
    index = layout.put(encode_index(()).raw, media.OCI_INDEX)
    with pytest.raises(Corrupt, match="is an index, not an image"):
        Image(index, layout).manifest  # noqa: B018


def test_manifest_and_config_must_count_the_same_layers(layout: Counting) -> None:
    image = Image(made(layout, layers=2, diff_ids=3)[0], layout)
    with pytest.raises(Corrupt) as caught:
        image.layers  # noqa: B018
    assert (caught.value.code, caught.value.context) == ("layers-mismatch", "its manifest has 2 layers, its config 3")


def test_a_changed_blob_is_corrupt_and_a_missing_one_not_found(layout: Counting) -> None:
    descriptor, config = made(layout)
    layout.path(config.descriptor.digest).write_bytes(config.raw.replace(b"amd64", b"arm64"))
    with pytest.raises(Corrupt) as caught:
        Image(descriptor, layout).config  # noqa: B018
    assert caught.value.code == "digest-mismatch"
    layout.path(config.descriptor.digest).unlink()
    with pytest.raises(NotFound):
        Image(descriptor, layout).config  # noqa: B018


def test_a_config_that_promises_too_much_is_not_even_opened(layout: Counting) -> None:
    large = Descriptor(media_type=media.OCI_CONFIG, digest=Digest.of(b""), size=CONFIG_LIMIT + 1)
    with pytest.raises(Corrupt, match="is too large"):
        read_blob(large, layout, limit=CONFIG_LIMIT)
    assert layout.opened == []
