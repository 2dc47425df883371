"""Compressed streams: recognised by their bytes, checked to the last one."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import io
import lzma
from typing import TYPE_CHECKING, cast

import pytest
from backports import zstd

from argosy.errors import Corrupt, Unsupported
from argosy.layer.compression import Compressor, compression_of, decompressed
from argosy.layer.sink import LayerDigests, LayerSink
from argosy.oci.digest import Digest
from tests.support.archives import Chunked, gzip_bomb

if TYPE_CHECKING:
    from typing import BinaryIO

    from argosy.layer.compression import Compression

DATA = b"".join(hashlib.shake_128(b"%d" % number).digest(500) + bytes(2500) for number in range(300)) + b"end"
SKIPPABLE = b"\x50\x2a\x4d\x18" + (4).to_bytes(4, "little") + b"note"


def stream(data: bytes) -> BinaryIO:
    return decompressed(io.BytesIO(data))


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        (DATA, DATA),
        (b"", b""),
        (b"abc", b"abc"),
        (gzip.compress(DATA), DATA),
        (gzip.compress(b""), b""),
        (gzip.compress(DATA) + gzip.compress(b"") + gzip.compress(b"more"), DATA + b"more"),
        (zstd.compress(DATA), DATA),
        (zstd.compress(DATA) + zstd.compress(b"more"), DATA + b"more"),
        (SKIPPABLE + zstd.compress(DATA) + SKIPPABLE, DATA),
    ],
    ids=["none", "empty", "short", "gzip", "empty gzip", "members", "zstd", "frames", "skippable frames"],
)
def test_streams_are_decompressed_whatever_they_are(data: bytes, expected: bytes) -> None:
    assert stream(data).read() == expected
    reader = decompressed(cast("BinaryIO", Chunked(data, 1, 7, 100)))
    assert b"".join(iter(lambda: reader.read(1000), b"")) == expected
    assert io.BufferedReader(cast("io.RawIOBase", stream(data))).read() == expected


@pytest.mark.parametrize("compress", [gzip.compress, zstd.compress], ids=["gzip", "zstd"])
def test_truncation_and_damage_are_corrupt(compress: object) -> None:
    packed = compress(DATA)  # type: ignore[operator]
    for size in (*range(6, 60), *range(60, len(packed), 9973), len(packed) - 1):
        with pytest.raises(Corrupt) as caught:
            stream(packed[:size]).read()
        assert caught.value.code == "compression-truncated"
    for junk in (b"x", b"junk that follows", bytes(512)):
        with pytest.raises(Corrupt) as caught:
            stream(packed + junk).read()
        assert caught.value.code == "compression-damaged"


def test_gzip_checksum_and_length_are_checked() -> None:
    packed = gzip.compress(DATA)
    for at in (-8, -1, len(packed) // 2):
        broken = bytearray(packed)
        broken[at] ^= 1
        with pytest.raises(Corrupt) as caught:
            stream(bytes(broken)).read()
        assert caught.value.code == "compression-damaged"


@pytest.mark.parametrize(("data", "name"), [(lzma.compress(DATA), "xz"), (bz2.compress(DATA), "bzip2")])
def test_other_compressions_are_refused_by_name(data: bytes, name: str) -> None:
    with pytest.raises(Unsupported) as caught:
        stream(data)
    assert (caught.value.code, caught.value.message) == (
        "layer-compression",
        f"layers compressed with {name} are not supported",
    )


def test_gzip_does_not_continue_as_zstd() -> None:
    with pytest.raises(Corrupt, match="other bytes follow the gzip stream"):
        stream(gzip.compress(DATA) + zstd.compress(DATA)).read()


def test_a_bomb_takes_no_more_memory_than_is_asked_for() -> None:
    reader = stream(gzip_bomb(64 << 20))
    pieces = [len(piece) for piece in iter(lambda: reader.read(65536), b"")]
    assert (max(pieces) <= 65536, sum(pieces)) == (True, 64 << 20)


def test_closing_closes_what_lies_below() -> None:
    below = io.BytesIO(gzip.compress(DATA))
    with decompressed(below) as reader:
        reader.read(10)
    assert below.closed


@pytest.mark.parametrize("kind", ["gzip", "zstd", "none"])
def test_what_is_compressed_comes_back_and_is_the_same_for_any_cutting(kind: Compression) -> None:
    results = set()
    for step in (1000, 70_000, len(DATA)):
        out = io.BytesIO()
        with Compressor(out, kind) as compressor:
            for at in range(0, len(DATA), step):
                compressor.write(DATA[at : at + step])
        assert stream(out.getvalue()).read() == DATA
        assert compression_of(out.getvalue()) == kind
        results.add(out.getvalue())
    assert len(results) == 1


def test_layers_are_digested_on_both_sides_in_one_pass() -> None:
    out = io.BytesIO()
    sink = LayerSink(out, "gzip")
    sink.write(DATA[:10])
    sink.write(DATA[10:])
    assert sink.close() == LayerDigests(
        diff_id=Digest.of(DATA),
        digest=Digest.of(out.getvalue()),
        size=len(out.getvalue()),
        uncompressed_size=len(DATA),
    )
