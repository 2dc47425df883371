"""Digests, chain ids, and streams that check themselves."""

from __future__ import annotations

import hashlib
import io

import pytest

from argosy.errors import Corrupt, InvalidInput
from argosy.oci.digest import Digest, VerifyingReader

EMPTY = Digest("sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855")


@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_the_digest_of_bytes_is_that_of_hashlib(algorithm: str) -> None:
    digest = Digest.of(b"bytes", algorithm)
    assert (digest.algorithm, digest.hex) == (algorithm, hashlib.new(algorithm, b"bytes").hexdigest())
    assert Digest.parse(str(digest)) == digest


def test_a_digest_is_a_str_that_knows_its_parts() -> None:
    assert Digest.of(b"") == EMPTY
    assert EMPTY.short == "e3b0c44298fc"
    assert f"{EMPTY}" == "sha256:" + EMPTY.hex


@pytest.mark.parametrize(
    ("text", "code", "message"),
    [
        ("", "digest-invalid", "not a digest: ''"),
        ("sha256", "digest-invalid", "not a digest: 'sha256'"),
        ("sha256:", "digest-invalid", "not a digest: 'sha256:'"),
        (":" + "0" * 64, "digest-invalid", f"not a digest: ':{'0' * 64}'"),
        ("sha256:" + "0" * 63, "digest-invalid", f"not a sha256 digest: 'sha256:{'0' * 63}'"),
        ("sha256:" + "0" * 65, "digest-invalid", f"not a sha256 digest: 'sha256:{'0' * 65}'"),
        ("sha256:" + "A" * 64, "digest-invalid", f"not a sha256 digest: 'sha256:{'A' * 64}'"),
        ("sha256:" + "g" * 64, "digest-invalid", f"not a sha256 digest: 'sha256:{'g' * 64}'"),
        ("sha256:" + "0" * 64 + "\n", "digest-invalid", f"not a digest: 'sha256:{'0' * 64}\\n'"),
        ("sha256:../" + "0" * 61, "digest-invalid", f"not a digest: 'sha256:../{'0' * 61}'"),
        ("SHA256:" + "0" * 64, "digest-invalid", f"not a digest: 'SHA256:{'0' * 64}'"),
        ("md5:" + "0" * 32, "digest-unsupported", "digest algorithm 'md5' is not supported"),
        ("sha256+b64:abc", "digest-unsupported", "digest algorithm 'sha256+b64' is not supported"),
    ],
)
def test_what_is_no_digest_is_refused(text: str, code: str, message: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Digest.parse(text)
    assert (caught.value.code, caught.value.message) == (code, message)


def reader(data: bytes, promised: bytes, *, size: int | None = None) -> VerifyingReader:
    return VerifyingReader(io.BytesIO(data), Digest.of(promised), size=size, name="layer")


def drain(stream: VerifyingReader, count: int) -> bytes:
    pieces = []
    while piece := stream.read(count):
        pieces.append(piece)
    return b"".join(pieces)


@pytest.mark.parametrize("count", [-1, 1, 3, 4, 5, 100])
def test_a_true_stream_passes_in_pieces_of_any_size(count: int) -> None:
    stream = reader(b"true", b"true", size=4)
    assert drain(stream, count) == b"true"
    assert stream.read() == b""


def test_readinto_verifies_too() -> None:
    stream = reader(b"true", b"true", size=4)
    buffer = bytearray(10)
    assert (stream.readinto(buffer), stream.readinto(buffer), bytes(buffer[:4])) == (4, 0, b"true")


@pytest.mark.parametrize(
    ("data", "size", "code", "why"),
    [
        (b"fals", 4, "digest-mismatch", f"its bytes have digest {Digest.of(b'fals')}"),
        (b"fals", None, "digest-mismatch", f"its bytes have digest {Digest.of(b'fals')}"),
        (b"tru", 4, "size-mismatch", "ends after 3 of 4 bytes"),
        (b"", 4, "size-mismatch", "ends after 0 of 4 bytes"),
        (b"truer", 4, "size-mismatch", "longer than the 4 bytes promised"),
    ],
)
@pytest.mark.parametrize("count", [-1, 1, 4])
def test_a_false_stream_is_corrupt_at_its_end(data: bytes, size: int | None, code: str, why: str, count: int) -> None:
    stream = reader(data, b"true", size=size)
    with pytest.raises(Corrupt) as caught:
        drain(stream, count)
    assert (caught.value.code, caught.value.context) == (code, why)
    assert caught.value.message == f"layer {Digest.of(b'true')} is damaged"


def test_no_more_than_one_byte_too_many_is_read_from_an_endless_stream() -> None:
    below = io.BytesIO(b"x" * 1000)
    with pytest.raises(Corrupt):
        VerifyingReader(below, EMPTY, size=4).read()
    assert below.tell() == 5


def test_closing_closes_the_stream_below() -> None:
    below = io.BytesIO()
    with VerifyingReader(below, EMPTY):
        pass
    assert below.closed
