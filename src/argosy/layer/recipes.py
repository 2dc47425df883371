"""How a compressed layer follows from its tar: library, version and settings that give the very same bytes.

A recipe is found by trying: each candidate is run until its first byte that differs,
most within the first 100 kB. Other compressors than ours (those of Go, pigz, several
threads) have none. A recipe holds for its library's version, and isal's code may
differ between processors; whoever makes a blob by one checks its digest.
"""

from __future__ import annotations

import base64
import zlib
from typing import TYPE_CHECKING, Literal, Protocol, cast

import msgspec

from ..errors import InvalidInput
from .compression import _zstd, compression_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..oci.digest import Digest

Library = Literal["none", "isal", "zlib", "zstd"]
PIECE = 1 << 18  # bytes that are compressed at once, as compression.py does: isal's and zstd's output depends on it
_HEADER_LIMIT = 1 << 10  # bytes; ten are usual, file names and comments make it longer
_HIGHEST: dict[Library, int] = {"none": 0, "isal": 3, "zlib": 9, "zstd": 22}
_ZLIB_LEVELS = (6, 9, 1, 5, 4, 3, 2, 7, 8)
_ZSTD_LEVELS = (3, *range(1, 3), *range(4, 20))
#: flags of a gzip header: RFC 1952 2.3.1
_HAS_CHECKSUM, _HAS_EXTRA, _HAS_NAME, _HAS_COMMENT = 2, 4, 8, 16


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """One way; `str` and `parse` are its text."""

    library: Library
    version: str = ""
    level: int = 0
    #: of the gzip stream, as the original has it
    header: bytes = b""
    #: of a zstd frame: has a checksum, tells the size of its content
    checksum: bool = False
    sized: bool = False

    def __post_init__(self) -> None:
        if not 0 <= self.level <= _HIGHEST[self.library]:
            raise ValueError(f"{self.library} has no level {self.level}")

    def __str__(self) -> str:
        words = (self.library, self.version, self.level, base64.b64encode(self.header).decode())
        return " ".join(str(word) or "-" for word in (*words, int(self.checksum), int(self.sized)))

    @classmethod
    def parse(cls, text: str) -> Recipe:
        """Raises InvalidInput (recipe-invalid)."""
        try:
            library, version, level, header, checksum, sized = text.split(" ")
            words = {"version": version.strip("-"), "level": int(level), "header": header.strip("-")}
            return msgspec.convert(
                {"library": library, **words, "checksum": checksum == "1", "sized": sized == "1"}, cls
            )
        except ValueError as error:  # msgspec's are too
            raise InvalidInput(f"not a recipe: {text!r}", code="recipe-invalid", context=str(error)) from error

    @property
    def title(self) -> str:
        """For people: «isal 1.9.1, level 1»."""
        return "uncompressed" if self.library == "none" else f"{self.library} {self.version}, level {self.level}"

    @property
    def is_current(self) -> bool:
        """Whether the library that is installed is the one that the recipe was found with."""
        return self.version == _version(self.library)


class _Encoder(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...
    def flush(self) -> bytes: ...


def find(
    blob: BinaryIO,
    digest: Digest,
    tar: BinaryIO,
    *,
    size: int,
    check: Callable[[], None] = lambda: None,
) -> Recipe | None:
    """The recipe by which *tar*, of *size* bytes, gives *blob*, whose digest is *digest*; None when none is known.

    Both are read from their beginning, several times. *check* is called between pieces, and may raise.
    """
    blob.seek(0)
    start = blob.read(_HEADER_LIMIT)
    for recipe in _candidates(start):
        blob.seek(0)
        tar.seek(0)
        if _gives(recipe, tar, size, blob, digest, check):
            return recipe
    return None


def make(recipe: Recipe, tar: BinaryIO, *, size: int) -> Iterator[bytes]:
    """The blob that *recipe* makes of a tar of *size* bytes, with the libraries that are installed."""
    pieces = _pieces(tar)
    if recipe.library == "none":
        yield from pieces
    elif recipe.library == "zstd":
        yield from _encoded(_zstd_encoder(recipe, size), pieces)
    else:
        yield from _gzip(recipe, pieces)


def _gives(recipe: Recipe, tar: BinaryIO, size: int, blob: BinaryIO, digest: Digest, check: Callable[[], None]) -> bool:
    hasher = digest.hasher()
    for data in make(recipe, tar, size=size):
        check()
        if blob.read(len(data)) != data:
            return False
        hasher.update(data)
    return not blob.read(1) and hasher.hexdigest() == digest.hex


def _candidates(start: bytes) -> Iterator[Recipe]:
    kind = compression_of(start)
    if kind == "none":
        yield Recipe(library="none")
    elif kind == "zstd" and len(start) > 4:
        flags = start[4]  # RFC 8878 3.1.1.1.1
        checksum, sized = bool(flags & 4), bool(flags >> 6 or flags & 32)
        for level in _ZSTD_LEVELS:
            yield Recipe(library="zstd", version=_version("zstd"), level=level, checksum=checksum, sized=sized)
    elif kind == "gzip" and (header := _gzip_header(start)):
        yield Recipe(library="isal", version=_version("isal"), level=1, header=header)
        for level in _ZLIB_LEVELS:
            yield Recipe(library="zlib", version=_version("zlib"), level=level, header=header)


def _gzip_header(start: bytes) -> bytes:
    """The header of a gzip member; empty when it is too long to care, or none. RFC 1952 2.3."""
    flags, end = start[3] if len(start) > 3 else 0xFF, 10
    if flags & _HAS_EXTRA:
        end += 2 + int.from_bytes(start[end : end + 2], "little")
    for flag in (_HAS_NAME, _HAS_COMMENT):
        if flags & flag:
            end = start.find(b"\0", end) + 1 or len(start) + 1
    if flags & _HAS_CHECKSUM:
        end += 2
    return start[:end] if end < len(start) else b""


def _gzip(recipe: Recipe, pieces: Iterator[bytes]) -> Iterator[bytes]:
    """The deflate stream between the original's header and a trailer."""
    checksum = size = 0

    def counted() -> Iterator[bytes]:
        nonlocal checksum, size
        for piece in pieces:
            checksum, size = zlib.crc32(piece, checksum), size + len(piece)
            yield piece

    yield recipe.header
    yield from _encoded(_deflater(recipe), counted())
    yield checksum.to_bytes(4, "little") + (size & 0xFFFFFFFF).to_bytes(4, "little")


def _encoded(encoder: _Encoder, pieces: Iterator[bytes]) -> Iterator[bytes]:
    for piece in pieces:
        if data := encoder.compress(piece):
            yield data
    yield encoder.compress(b"") + encoder.flush()  # as compression.py ends: it matters for an empty zstd frame


def _pieces(tar: BinaryIO) -> Iterator[bytes]:
    """Of PIECE bytes each, however the tar is read; the last may be shorter."""
    pending = bytearray()
    while data := tar.read(PIECE - len(pending)):
        pending += data
        if len(pending) == PIECE:
            yield bytes(pending)
            pending.clear()
    if pending:
        yield bytes(pending)


def _deflater(recipe: Recipe) -> _Encoder:
    if recipe.library == "isal":
        from isal import isal_zlib

        return cast("_Encoder", isal_zlib.compressobj(recipe.level, wbits=-15))
    return zlib.compressobj(recipe.level, wbits=-15)


def _zstd_encoder(recipe: Recipe, size: int) -> _Encoder:
    zstd = _zstd()
    options = {
        zstd.CompressionParameter.compression_level: recipe.level,
        zstd.CompressionParameter.checksum_flag: int(recipe.checksum),
    }
    encoder = zstd.ZstdCompressor(options=options)
    if recipe.sized:
        encoder.set_pledged_input_size(size)
    return cast("_Encoder", encoder)


def _version(library: Library) -> str:
    if library == "isal":
        import isal

        return isal.__version__
    if library == "zlib":
        return zlib.ZLIB_RUNTIME_VERSION
    return str(_zstd().zstd_version) if library == "zstd" else ""
