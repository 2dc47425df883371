"""Arithmetic of the EROFS format; that the kernel reads the result is for the conformance suite."""

from __future__ import annotations

import io

import pytest

from argosy.layer import erofs_format as form
from argosy.layer.archive import entries
from argosy.layer.erofs import IndexBuilder
from tests.support.archives import archive, file, folder, gnu_long, pax_sparse, symlink


def test_crc_is_castagnolis() -> None:
    """RFC 3720, B.4: 32 bytes of zeros give 8A9136AA, which is inverted at the end and ours is not."""
    assert form.crc32c(bytes(32)) ^ 0xFFFFFFFF == 0x8A9136AA
    assert form.crc32c(b"123456789") ^ 0xFFFFFFFF == 0xE3069283


@pytest.mark.parametrize("head", [64, 76, 100, 3000])
@pytest.mark.parametrize("size", [1, 24, 447, 448, 449, 511, 512, 513, 960, 5000])
@pytest.mark.parametrize("position", [4096, 4097, 4120, 4500, 4608])
def test_placed_data_never_crosses_a_block(position: int, head: int, size: int) -> None:
    place = form.place(position, head, size)
    assert place.inode % form.SLOT == 0
    assert place.inode >= position
    if place.layout == form.INLINE:
        tail = (size - 1) % form.BLOCK + 1
        first, last = place.inode + head, place.inode + head + tail - 1
        assert first // form.BLOCK == last // form.BLOCK
        assert size == tail or (place.data % form.BLOCK == 0 and place.data + size - tail <= place.inode)
    else:
        assert place.data % form.BLOCK == 0
        assert place.data + size <= place.inode


@pytest.mark.parametrize(
    ("size", "runs", "bits"),
    [
        (1, [(0, 1, 1, 7)], 0),
        (512, [(0, 1, 1, 7)], 0),
        (513, [(0, 2, 1, 7)], 1),
        (5 << 30, [(0, (5 << 30) // 512, 1, 7)], 24),
        (1 << 60, [], 31),
        (1 << 20, [(8, 8, 1, 0), (64, 16, 1, 8)], 3),
        (1 << 20, [(8, 1, 1, 0)], 0),
        (10_000, [(16, 4, 1, 0)], 4),
    ],
)
def test_chunks_are_as_large_as_the_holes_allow(size: int, runs: list[form.Run], bits: int) -> None:
    assert form.chunk_bits(size, runs) == bits


def test_directories_are_cut_into_blocks_that_read_back() -> None:
    names = sorted((b"%d" % (number**3), number + 40, 1 + number % 7) for number in range(500))
    blocks = form.directory_blocks(names)
    assert [len(block) for block in blocks[:-1]] == [512] * (len(blocks) - 1)
    assert (len(blocks), len(blocks[-1])) == form.directory_sizes(name for name, _, _ in names)
    assert list(form.read_directory(b"".join(blocks))) == [(name, nid) for name, nid, _ in names]


def test_equal_archives_give_equal_images() -> None:
    tar = archive(
        folder(b"d"),
        *[file(b"d/%d" % number, b"x") for number in range(99)],
        gnu_long(b"t" * 600, b"K"),
        symlink(b"l", b"t"),
        file(b"d/.wh.x"),
        file(b".wh.b"),
        file(b".wh.a"),
        pax_sparse(b"s", 5000, (1, b"a"), (700, b"b")),
    )
    assert index(tar) == index(tar)
    assert index(tar)[1024:1028] == bytes.fromhex("e2e1f5e0")


def index(tar: bytes) -> bytes:
    out = io.BytesIO()
    builder, reader = IndexBuilder(out), entries(io.BytesIO(tar))
    for entry in reader:
        builder.add(entry, reader.read)
    builder.finish("ab" * 32, reader.position)
    return out.getvalue()
