"""The compression of an archive as a whole: those of layers, and bzip2 and xz, which `docker load` takes too."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias, cast

from ..errors import Corrupt
from ..layer.compression import Compression, compression_of, decompressed

if TYPE_CHECKING:
    from typing import BinaryIO

    from _typeshed import WriteableBuffer

Foreign = Literal["bzip2", "xz"]
ArchiveCompression: TypeAlias = Compression | Foreign

MAGIC_SIZE = 6  # bytes
_FOREIGN: dict[bytes, Foreign] = {b"BZh": "bzip2", b"\xfd7zXZ\0": "xz"}
_INPUT = 1 << 17  # bytes a read of the compressed stream
_OUTPUT = 1 << 20  # bytes that a read gives at most
_XZ_MEMORY = 1 << 28  # bytes; xz -9 needs 65 MB, a hostile header may ask for 4 GB


class _Decompressor(Protocol):
    """What bz2 and lzma agree on."""

    eof: bool
    needs_input: bool
    unused_data: bytes

    def decompress(self, data: bytes, max_length: int = -1) -> bytes: ...


def uncompressed(stream: BinaryIO) -> BinaryIO:
    """The bytes below gzip, bzip2, xz, zstd or nothing, told apart by the first bytes; *stream* need not seek.

    Reading raises Corrupt as layer.compression says. Closing the result closes *stream*.
    """
    start, whole = begun(stream)
    kind = compression_of_archive(start)
    return cast("BinaryIO", _Foreign(whole, kind)) if kind in ("bzip2", "xz") else decompressed(whole)


def begun(stream: BinaryIO) -> tuple[bytes, BinaryIO]:
    """The first bytes of *stream*, as many as it takes to know its compression; and a stream that begins with them."""
    start = b""
    while len(start) < MAGIC_SIZE and (data := stream.read(MAGIC_SIZE - len(start))):
        start += data
    return start, cast("BinaryIO", _Again(start, stream))


def compression_of_archive(start: bytes) -> ArchiveCompression:
    """As compression_of, with two more. Raises Unsupported (layer-compression) for what nobody takes."""
    for magic, kind in _FOREIGN.items():
        if start.startswith(magic):
            return kind
    return compression_of(start)


class _Stream(io.RawIOBase):
    def readable(self) -> bool:
        return True

    def readinto(self, buffer: WriteableBuffer) -> int:
        view = memoryview(buffer).cast("B")
        data = self.read(len(view)) or b""
        view[: len(data)] = data
        return len(data)


class _Again(_Stream):
    """Bytes that were read already, then the rest of the stream."""

    def __init__(self, start: bytes, stream: BinaryIO) -> None:
        self._start = start
        self._stream = stream

    def read(self, count: int | None = -1) -> bytes:
        if not self._start:
            return self._stream.read(-1 if count is None else count)
        size = len(self._start) if count is None or count < 0 else count
        data, self._start = self._start[:size], self._start[size:]
        return data

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


class _Foreign(_Stream):
    """bzip2 or xz, any number of streams one behind the other."""

    def __init__(self, stream: BinaryIO, kind: Foreign) -> None:
        self._stream = stream
        self._kind = kind
        self._input = b""
        self._decompressor = _new(kind)

    def read(self, count: int | None = -1) -> bytes:
        limit = _OUTPUT if count is None or count < 0 else min(count, _OUTPUT)
        while limit:
            if self._decompressor.eof and not self._next_stream():
                break
            if self._decompressor.needs_input and not self._input:
                self._input = self._stream.read(_INPUT)
                if not self._input:
                    raise Corrupt(f"the {self._kind} stream ends too early", code="compression-truncated")
            if piece := self._decompress(limit):
                return piece
        return b""

    def _decompress(self, count: int) -> bytes:
        from lzma import LZMAError

        data, self._input = self._input, b""
        try:
            return self._decompressor.decompress(data, count)
        except (LZMAError, OSError, ValueError) as error:
            raise Corrupt(
                f"the {self._kind} stream is damaged", code="compression-damaged", context=str(error)
            ) from error

    def _next_stream(self) -> bool:
        """xz fills up with zeros between streams (a multiple of four bytes); bzip2 with nothing."""
        self._input = self._decompressor.unused_data
        while True:
            if self._kind == "xz":
                self._input = self._input.lstrip(b"\0")
            if self._input:
                break
            self._input = self._stream.read(_INPUT)
            if not self._input:
                return False
        self._decompressor = _new(self._kind)
        return True

    def close(self) -> None:
        if not self.closed:
            self._stream.close()
        super().close()


def _new(kind: Foreign) -> _Decompressor:
    if kind == "bzip2":
        import bz2

        return cast("_Decompressor", bz2.BZ2Decompressor())
    import lzma

    return cast("_Decompressor", lzma.LZMADecompressor(lzma.FORMAT_XZ, memlimit=_XZ_MEMORY))
