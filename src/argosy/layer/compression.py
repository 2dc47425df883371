"""Compressed streams of layers: told apart by their first bytes, checked to their last.

gzip (any number of members, each with its CRC), zstd (any number of frames) and
none. What a media type says is not believed; the bytes are. Used by layer readers
and writers and by everything that saves or loads archives.
"""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING, Literal, Protocol, cast

from ..errors import Corrupt, Unsupported

if TYPE_CHECKING:
    from types import ModuleType, TracebackType
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

    class Sink(Protocol):
        """Where bytes go: a file, an Ingest, anything that writes all that it is given."""

        def write(self, data: bytes, /) -> object: ...


Compression = Literal["gzip", "zstd", "none"]

GZIP_LEVEL = 1  # isal: 183 MB/s at ratio 2.46, against 18 MB/s at 2.73 of zlib's level 6 (2 cores, Debian root, 757 MB)
ZSTD_LEVEL = 3  # 164 MB/s at ratio 3.00 on the same data
_INPUT = 1 << 18  # bytes a read of the compressed stream
_OUTPUT = 1 << 20  # bytes a call gives at most: a bomb costs time, never memory
_PIECE = 1 << 18  # bytes that are compressed at once
_MAGIC_SIZE = 6
_GZIP_MAGIC = b"\x1f\x8b"
_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_REFUSED = {b"\xfd7zXZ\0": "xz", b"BZh": "bzip2", b"\x04\x22\x4d\x18": "lz4"}


def compression_of(start: bytes) -> Compression:
    """What a stream that begins with *start* (six bytes suffice) is; "none" when nothing is recognised.

    Raises Unsupported (code layer-compression) for formats that no image specification allows.
    """
    if start.startswith(_GZIP_MAGIC):
        return "gzip"
    if start.startswith(_ZSTD_MAGIC) or (start[1:4] == b"\x2a\x4d\x18" and start[0] & 0xF0 == 0x50):  # skippable frame
        return "zstd"
    for magic, name in _REFUSED.items():
        if start.startswith(magic):
            raise Unsupported(
                f"layers compressed with {name} are not supported",
                code="layer-compression",
                context="the image specification allows gzip, zstd and uncompressed tar",
                hint=f"recompress it: {name} -dc FILE | gzip > FILE.tar.gz",
            )
    return "none"


def decompressed(stream: BinaryIO) -> BinaryIO:
    """The uncompressed bytes of *stream*, whatever its compression; *stream* need not seek.

    A read may give fewer bytes than asked for, none only at the end. Reading
    raises Corrupt: compression-damaged (checksum, format, bytes behind the end),
    compression-truncated. Closing the result closes *stream*.
    """
    start = _exactly(stream, _MAGIC_SIZE)
    kind = compression_of(start)
    if kind == "none":
        return cast("BinaryIO", _Prefixed(start, stream))
    return cast("BinaryIO", _Decompressed(kind, start, stream))


class _Decompressor(Protocol):
    """What isal, backports.zstd and bz2 agree on."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


class _Stream(io.RawIOBase):
    """A readable stream over another one; subclasses give pieces."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream

    def readable(self) -> bool:
        return True

    def read(self, count: int | None = -1) -> bytes:
        if count is None or count < 0:
            return b"".join(iter(lambda: self._piece(_OUTPUT), b""))
        return self._piece(count) if count else b""

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self._piece(len(view)) if len(view) else b""
        view[: len(data)] = data
        return len(data)

    def _piece(self, count: int) -> bytes:
        raise NotImplementedError

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Prefixed(_Stream):
    """Bytes that were read ahead, then the rest."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._start = start

    def _piece(self, count: int) -> bytes:
        if self._start:
            piece, self._start = self._start[:count], self._start[count:]
            return piece
        return self._stream.read(count)


class _Decompressed(_Stream):
    def __init__(self, kind: Compression, start: bytes, stream: BinaryIO) -> None:
        super().__init__(stream)
        self._kind = kind
        self._input = start
        self._ended = False
        self._new, self._error = _decompressor(kind)
        self._decompressor = self._new()

    def _piece(self, count: int) -> bytes:
        count = min(count, _OUTPUT)
        while not self._ended:
            if self._decompressor.eof:
                self._next_member()
                continue
            if self._decompressor.needs_input and not self._input:
                self._input = self._stream.read(_INPUT)
                if not self._input:
                    raise Corrupt(f"the {self._kind} stream ends too early", code="compression-truncated")
            if piece := self._decompress(count):
                return piece
        return b""

    def _decompress(self, count: int) -> bytes:
        data, self._input = self._input, b""
        try:
            return self._decompressor.decompress(data, count)
        except self._error as error:
            raise Corrupt(
                f"the {self._kind} stream is damaged", code="compression-damaged", context=str(error)
            ) from error

    def _next_member(self) -> None:
        """Both formats may be concatenated (RFC 1952 2.2, RFC 8878 3); anything else behind the end is a fault."""
        self._input = self._decompressor.unused_data
        missing = _MAGIC_SIZE - len(self._input)
        if missing > 0:
            self._input += _exactly(self._stream, missing)
        if not self._input:
            self._ended = True
            return
        if not _continues(self._kind, self._input):
            raise Corrupt(
                f"other bytes follow the {self._kind} stream",
                code="compression-damaged",
                context=f"they begin with {self._input[:8].hex(' ')}",
            )
        self._decompressor = self._new()


def _continues(kind: Compression, start: bytes) -> bool:
    try:
        return compression_of(start) == kind
    except Unsupported:
        return False


def _decompressor(kind: Compression) -> tuple[type[_Decompressor], type[Exception]]:
    """(a factory without arguments, the exception it raises on bad data)."""
    if kind == "gzip":
        from isal import igzip_lib

        return lambda: igzip_lib.IgzipDecompressor(flag=igzip_lib.DECOMP_GZIP), igzip_lib.IsalError  # type: ignore[return-value]
    zstd = _zstd()
    return zstd.ZstdDecompressor, zstd.ZstdError


def _zstd() -> ModuleType:
    if sys.version_info >= (3, 14):
        from compression import zstd
    else:
        from backports import zstd
    return zstd


def _exactly(stream: BinaryIO, count: int) -> bytes:
    """*count* bytes, fewer only at the end."""
    data = b""
    while len(data) < count and (piece := stream.read(count - len(data))):
        data += piece
    return data


class _Encoder(Protocol):
    def compress(self, data: bytes | memoryview, /) -> bytes: ...
    def flush(self) -> bytes: ...


class Compressor:
    """A sink that writes *kind* into *out*; `close` ends the stream but leaves *out* open.

    The same versions of the libraries give the same bytes for the same input, however
    it is cut; other versions need not, so keep the blob, not the recipe.
    """

    def __init__(self, out: Sink, kind: Compression) -> None:
        self._out = out
        self._encoder = _encoder(kind)
        self._pending = bytearray()

    def write(self, data: bytes | memoryview) -> int:
        if self._encoder is None:
            self._out.write(bytes(data))
            return len(data)
        # Pieces of one size: isal's output depends on where its input is cut, and small writes are slow.
        self._pending += data
        if len(self._pending) >= _PIECE:
            whole = len(self._pending) - len(self._pending) % _PIECE
            with memoryview(self._pending) as view:
                for at in range(0, whole, _PIECE):
                    self._out.write(self._encoder.compress(view[at : at + _PIECE]))
            del self._pending[:whole]
        return len(data)

    def close(self) -> None:
        if self._encoder is not None:
            self._out.write(self._encoder.compress(bytes(self._pending)) + self._encoder.flush())
            self._encoder = None

    def __enter__(self) -> Compressor:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def _encoder(kind: Compression) -> _Encoder | None:
    if kind == "gzip":
        from isal import isal_zlib

        # 31: a gzip wrapper around the largest window; the header carries neither time nor name
        return cast("_Encoder", isal_zlib.compressobj(GZIP_LEVEL, wbits=31))
    if kind == "zstd":
        zstd = _zstd()
        options = {
            zstd.CompressionParameter.compression_level: ZSTD_LEVEL,
            zstd.CompressionParameter.checksum_flag: 1,
        }
        return cast("_Encoder", zstd.ZstdCompressor(options=options))
    return None
