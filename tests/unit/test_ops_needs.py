"""What an image still needs, and how large that will be."""

from __future__ import annotations

import gzip
import os
import random
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import Image, Layer
from argosy.ops.needs import Need, Needs, Room, find_needs, gzip_size
from argosy.ops.progress import DOWNLOADING, Advanced, Event, Finished, Meter, Started
from argosy.snapshots.unpacked import UnpackedSnapshotter
from argosy.store.blobs import BlobStore
from argosy.store.speeds import Speeds
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

MB, GB = 10**6, 10**9


def layer(raw: bytes, media_type: str = OCI_LAYER_GZIP, **annotations: str) -> Layer:
    descriptor = msgspec.structs.replace(Descriptor.of(raw, media_type), annotations=annotations or None)
    return Layer(descriptor, Digest.of(raw, "sha256"), BlobStore("/nowhere"))


@pytest.fixture
def blobs(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


@pytest.fixture
def snapshotter(tmp_path: Path) -> UnpackedSnapshotter:
    return UnpackedSnapshotter(tmp_path / "store", user=True)


@pytest.mark.parametrize(
    ("compressed", "size"),
    [
        (10 * MB, 22 * MB),
        (10 * MB, 10 * MB - 1000),  # what is random grows a little
        (10 * MB, 3 * GB),  # zeros
        (3 * GB, 7 * GB),
        (3 * GB, 5 * GB),
        (9 * GB, 20 * GB),
        (2 * GB, 4_294_967_296 + 100 * MB),
    ],
)
def test_the_end_of_a_gzip_blob_tells_its_size(compressed: int, size: int) -> None:
    assert gzip_size(compressed, size % 2**32) == size


@pytest.mark.parametrize(("compressed", "low"), [(100 * MB, 1000), (600 * MB, 30 * MB), (10**30, 7)])
def test_the_last_of_several_members_tells_nothing(compressed: int, low: int) -> None:
    assert gzip_size(compressed, low) is None


@pytest.mark.parametrize(
    ("wanted", "unpacked", "is_guess"),
    [
        (layer(bytes(1000), OCI_LAYER), 1000, False),
        (layer(bytes(1000), OCI_LAYER_GZIP), 2200, True),
        (layer(bytes(1000), OCI_LAYER_ZSTD), 2200, True),
        (layer(bytes(1000), **{"io.containers.estargz.uncompressed-size": "7777"}), 7777, False),
        (layer(bytes(1000), **{"io.containers.estargz.uncompressed-size": "٧"}), 2200, True),
        (layer(bytes(1000), **{"io.containers.estargz.uncompressed-size": "9" * 99}), 2200, True),
    ],
)
def test_the_size_of_a_layer_is_told_or_guessed(
    wanted: Layer, unpacked: int, is_guess: bool, blobs: BlobStore, snapshotter: UnpackedSnapshotter
) -> None:
    assert find_needs([wanted, wanted], blobs=blobs, snapshotter=snapshotter).layers == (
        Need(
            descriptor=wanted.descriptor,
            diff_id=wanted.diff_id,
            to_fetch=1000,
            unpacked=unpacked,
            is_guess=is_guess,
        ),
    )


def test_what_is_here_is_not_needed(tmp_path: Path, blobs: BlobStore, snapshotter: UnpackedSnapshotter) -> None:
    image = random_image(tmp_path / "image", layers=2)
    load_image(tmp_path / "store", image, "a:1")
    layers = Image(image.descriptor, blobs).layers
    needs = find_needs(layers, blobs=blobs, snapshotter=snapshotter)
    assert [(need.to_fetch, need.unpacked, need.is_guess) for need in needs.layers] == [
        (0, len(tar), False) for tar in image.tars
    ]
    for each, tar in zip(layers, image.tars, strict=True):
        with open(tmp_path / "tar", "wb") as file:
            file.write(tar)
        with open(tmp_path / "tar", "rb") as file:
            snapshotter.apply(each.diff_id, file)
    assert find_needs(layers, blobs=blobs, snapshotter=snapshotter).are_met


def test_what_an_interrupted_transfer_has_brought_is_not_needed(
    blobs: BlobStore, snapshotter: UnpackedSnapshotter
) -> None:
    data = os.urandom(300_000)
    with blobs.assemble(Descriptor.of(data, OCI_LAYER_GZIP)) as part:
        for start, end in ((0, 150_000), (250_000, 300_000)):
            writer = part.writer(start)
            writer.write(data[start:end])
            writer.close()
    (need,) = find_needs([layer(data)], blobs=blobs, snapshotter=snapshotter).layers
    assert need.to_fetch == 100_000


def test_blobs_of_other_platforms_count_once(blobs: BlobStore, snapshotter: UnpackedSnapshotter) -> None:
    mine, other = layer(bytes(1000)), Descriptor.of(bytes(50), OCI_LAYER_GZIP)
    needs = find_needs([mine], blobs=blobs, snapshotter=snapshotter, rest=[mine.descriptor, other, other])
    assert (needs.rest, needs.to_fetch, needs.are_met) == ((other,), 1050, False)
    blobs.put(bytes(50), OCI_LAYER_GZIP)
    assert find_needs([mine], blobs=blobs, snapshotter=snapshotter, rest=[other]).rest == ()


def needed(raw: bytes, kind: str = OCI_LAYER_GZIP, *, unpacked: int = 1) -> Need:
    """A layer of which nothing is here and nothing is known."""
    descriptor = Descriptor.of(raw, kind)
    return Need(descriptor=descriptor, diff_id=descriptor.digest, to_fetch=len(raw), unpacked=unpacked, is_guess=True)


def test_the_room_is_that_of_blobs_layers_and_indexes() -> None:
    guessed = needed(bytes(1000), unpacked=2_200_000)
    known = msgspec.structs.replace(guessed, to_fetch=0, unpacked=800_000, is_guess=False)
    kept = Needs(layers=(guessed, known), kind="erofs")
    assert (kept.to_fetch, kept.unpacked, kept.size) == (1000, 3_030_000, 3_031_000)
    assert kept.size_at_most == 1000 + 6_867_998
    assert kept.inodes == 0
    unpacked = msgspec.structs.replace(kept, kind="unpacked")
    assert (unpacked.unpacked, unpacked.inodes) == (3_270_000, 30)


def test_guesses_are_measured_until_an_end_cannot_be_had() -> None:
    layers = (
        needed(gzip.compress(random.Random(1).randbytes(5000))),
        needed(b"zstd" * 100, OCI_LAYER_ZSTD),
        needed(gzip.compress(bytes(9000))),
        needed(gzip.compress(bytes(7000))),
    )
    ends = {layers[0].descriptor.digest: 5000, layers[3].descriptor.digest: 7000}
    asked = []

    def tail(descriptor: Descriptor, count: int) -> bytes | None:
        asked.append(descriptor.digest)
        size = ends.get(descriptor.digest)
        return None if size is None else size.to_bytes(count, "little")

    measured = Needs(layers=layers).measured(tail)
    assert [need.unpacked for need in measured.layers] == [5000, 1, 1, 1]
    assert [need.is_guess for need in measured.layers] == [False, True, True, True]
    assert asked == [layers[0].descriptor.digest, layers[2].descriptor.digest]


def test_the_room_of_a_store_that_is_not_made_yet_is_that_of_its_folder(tmp_path: Path) -> None:
    status = os.statvfs(tmp_path)
    room = Room.at(tmp_path / "a/b/c")
    assert (room.size, room.free is not None) == (status.f_blocks * status.f_frsize, True)


class _Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_meter_counts_what_came_and_the_time_in_which_something_did() -> None:
    clock, told = _Clock(), list[Event]()
    meter = Meter(told.append, clock)
    script: list[tuple[float, Event]] = [
        (0, Started("a", 100, DOWNLOADING)),
        (1, Started("b", 100, DOWNLOADING, 40)),
        (2, Finished("a", "Download complete")),
        (4, Started("b", 100, "Extracting")),
        (9, Advanced("b", 100)),
        (10, Started("c", 7, DOWNLOADING)),
        (11, Finished("c", "Pull complete")),
        (20, Started("d", 1000, DOWNLOADING)),
    ]
    for clock.now, event in script:
        meter(event)
    assert (meter.size, meter.seconds) == (167, 5)
    assert told == [event for _, event in script]


def test_speeds_move_with_each_pull_and_small_ones_say_nothing(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path)
    assert speeds.find("a.example") is None
    speeds.note("a.example", 999_999, 1)
    speeds.note("a.example", 10 * MB, 0)
    assert speeds.find("a.example") is None
    speeds.note("a.example", 10 * MB, 1)
    speeds.note("a.example", 60 * MB, 2)
    speeds.note("b.example", 10 * MB, 10)
    found = speeds.find("a.example")
    assert found is not None
    assert found.bytes_per_s == 20 * MB
    assert Speeds(tmp_path).find("b.example") is not None


@pytest.mark.parametrize(
    "text", ["", "[]", '{"a.example":1}', '{"a.example":{"bytes_per_s":0,"updated":""}}', "\0" * 99]
)
def test_a_damaged_record_of_speeds_is_none(tmp_path: Path, text: str) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache/speeds.json").write_text(text)
    speeds = Speeds(tmp_path)
    assert speeds.find("a.example") is None
    speeds.note("a.example", 10 * MB, 1)
    assert speeds.find("a.example") is not None


def test_hosts_of_long_ago_are_forgotten(tmp_path: Path) -> None:
    speeds = Speeds(tmp_path)
    for number in range(70):
        speeds.note(f"host{number}", 10 * MB, 1)
    assert (speeds.find("host5"), speeds.find("host6") is None) == (None, False)
