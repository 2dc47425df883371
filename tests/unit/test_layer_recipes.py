"""A compressed layer can be made of its tar again when the compressor is known, to the last byte."""

from __future__ import annotations

import gzip
import io
import random
import zlib
from typing import TYPE_CHECKING, Literal

import pytest

from argosy.errors import InvalidInput
from argosy.layer import recipes
from argosy.layer.compression import Compressor
from argosy.layer.recipes import PIECE, Recipe
from argosy.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable


def some_tar(size: int, seed: int = 0) -> bytes:
    """Bytes that compress, each stretch otherwise than the last."""
    source = random.Random(seed)
    words = [source.randbytes(source.randrange(2, 40)) for _ in range(400)]
    out = bytearray()
    while len(out) < size:
        out += source.choice(words) * source.randrange(1, 4)
    return bytes(out[:size])


TAR = some_tar(900_000)


def found(blob: bytes, tar: bytes = TAR, digest: Digest | None = None) -> Recipe | None:
    return recipes.find(io.BytesIO(blob), digest or Digest.of(blob), io.BytesIO(tar), size=len(tar))


def ours(kind: Literal["gzip", "zstd", "none"], tar: bytes = TAR) -> bytes:
    out = io.BytesIO()
    with Compressor(out, kind) as compressor:
        compressor.write(tar)
    return out.getvalue()


def with_name(tar: bytes) -> bytes:
    """As `gzip` leaves a file, with all that a header may have."""
    plain = gzip.compress(tar, 9, mtime=12345)
    flags = 4 | 8 | 16 | 2
    header = plain[:3] + bytes([flags]) + plain[4:10] + b"\x04\x00abcd" + b"layer.tar\0" + b"a comment\0" + b"\x12\x34"
    return header + plain[10:]


KNOWN: dict[str, tuple[Callable[[], bytes], str]] = {
    "our gzip": (lambda: ours("gzip"), "isal"),
    "our zstd": (lambda: ours("zstd"), "zstd"),
    "uncompressed": (lambda: TAR, "none"),
    "zlib 1": (lambda: gzip.compress(TAR, 1, mtime=7), "zlib"),
    "zlib 6": (lambda: gzip.compress(TAR, 6, mtime=0), "zlib"),
    "zlib 9": (lambda: gzip.compress(TAR, 9, mtime=7), "zlib"),
    "a header with everything": (lambda: with_name(TAR), "zlib"),
}


@pytest.mark.parametrize("name", KNOWN)
def test_a_known_compressor_is_found_and_gives_the_same_bytes(name: str) -> None:
    make, library = KNOWN[name]
    blob = make()
    recipe = found(blob)
    assert recipe is not None
    assert (recipe.library, recipe.is_current) == (library, True)
    assert b"".join(recipes.make(recipe, io.BytesIO(TAR), size=len(TAR))) == blob


@pytest.mark.parametrize("size", [0, 1, PIECE - 1, PIECE, PIECE + 1, 3 * PIECE])
def test_every_length_of_tar_is_made_again(size: int) -> None:
    tar = some_tar(size, seed=size)
    for kind in ("gzip", "zstd"):
        blob = ours(kind, tar)  # type: ignore[arg-type]
        recipe = found(blob, tar)
        assert recipe is not None, (kind, size)
        assert b"".join(recipes.make(recipe, io.BytesIO(tar), size=size)) == blob


def test_the_result_does_not_depend_on_how_the_tar_is_read() -> None:
    class Slow(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            return super().read(min(count or 0, 1000))

    recipe = found(ours("gzip"))
    assert recipe is not None
    assert b"".join(recipes.make(recipe, Slow(TAR), size=len(TAR))) == ours("gzip")


def several_members() -> bytes:
    return gzip.compress(TAR[:1000], 6, mtime=0) + gzip.compress(TAR[1000:], 6, mtime=0)


def another_window() -> bytes:
    packer = zlib.compressobj(6, wbits=-12)
    body = packer.compress(TAR) + packer.flush()
    return (
        gzip.compress(b"", mtime=0)[:10] + body + zlib.crc32(TAR).to_bytes(4, "little") + len(TAR).to_bytes(4, "little")
    )


STRANGE: dict[str, Callable[[], bytes]] = {
    "several members, as pigz and eStargz write": several_members,
    "another window": another_window,
    "one byte more": lambda: ours("gzip") + b"\0",
    "one byte less": lambda: ours("gzip")[:-1],
    "another byte in the middle": lambda: ours("gzip")[:500] + b"\0" + ours("gzip")[501:],
    "another checksum": lambda: gzip.compress(TAR, 6, mtime=0)[:-8] + bytes(8),
    "a header without an end": lambda: b"\x1f\x8b\x08\x08" + bytes(6) + b"x" * 2000,
    "a header alone": lambda: b"\x1f\x8b\x08",
    "a magic number alone": lambda: b"\x28\xb5\x2f\xfd",
    "nothing": lambda: b"",
}


@pytest.mark.parametrize("name", STRANGE)
def test_other_streams_have_no_recipe(name: str) -> None:
    assert found(STRANGE[name]()) is None


def test_another_tar_has_no_recipe() -> None:
    assert found(ours("gzip"), TAR[:-1] + b"!") is None


def test_a_blob_that_is_damaged_as_its_digest_says_has_no_recipe() -> None:
    """Equal bytes are not enough: what is made must have the digest that the image names."""
    assert found(ours("gzip"), digest=Digest.of(b"something else")) is None


def test_the_search_can_be_stopped() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        recipes.find(io.BytesIO(ours("gzip")), Digest.of(b""), io.BytesIO(TAR), size=len(TAR), check=stop)


RECIPES = [
    Recipe(library="none"),
    Recipe(library="isal", version="1.9.1", level=1, header=b"\x1f\x8b\x08\0"),
    Recipe(library="zstd", version="1.5.7", level=19, checksum=True, sized=True),
]


@pytest.mark.parametrize("recipe", RECIPES)
def test_a_recipe_is_read_from_its_text(recipe: Recipe) -> None:
    assert Recipe.parse(str(recipe)) == recipe


@pytest.mark.parametrize(
    "text",
    [
        "",
        "isal",
        "isal 1.9 1 - 0",
        "lzma 1 1 - 0 0",
        "zlib 1.2 10 - 0 0",
        "zlib 1.2 -1 - 0 0",
        "zlib 1.2 x - 0 0",
        "zlib 1 1 ! 0 0",
    ],
)
def test_what_is_no_recipe_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Recipe.parse(text)
    assert caught.value.code == "recipe-invalid"


def test_a_recipe_of_another_version_is_told() -> None:
    assert not Recipe(library="isal", version="0.1", level=1).is_current
    assert Recipe(library="zlib", version="1.2.13", level=6).title == "zlib 1.2.13, level 6"
