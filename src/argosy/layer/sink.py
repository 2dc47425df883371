"""One pass from tar bytes to a compressed blob with both of its digests."""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

import msgspec

from ..oci.digest import Digest
from .compression import Compression, Compressor

if TYPE_CHECKING:
    from ..oci.digest import Hasher
    from .compression import Sink

_ALGORITHM = "sha256"  # of layers we make; those of others may use any that digest.py knows


class LayerDigests(msgspec.Struct, frozen=True, kw_only=True):
    """What is known about a layer once it has been written. Sizes are bytes."""

    diff_id: Digest
    digest: Digest
    size: int
    uncompressed_size: int


class LayerSink:
    """Takes an uncompressed tar through `write`, puts the compressed layer into *out*; `close` gives its digests.

    *out* stays open; a BlobStore's Ingest will do. Hashing releases the interpreter
    lock but here runs in the caller's thread: compressing takes ten times as long.
    """

    def __init__(self, out: Sink, compression: Compression = "gzip") -> None:
        self._blob = _HashingOut(out)
        self._compressor = Compressor(self._blob, compression)
        self._hasher: Hasher = sha256()
        self._size = 0

    def write(self, data: bytes) -> int:
        self._hasher.update(data)
        self._size += len(data)
        return self._compressor.write(data)

    def close(self) -> LayerDigests:
        self._compressor.close()
        return LayerDigests(
            diff_id=Digest.from_hasher(self._hasher, _ALGORITHM),
            digest=Digest.from_hasher(self._blob.hasher, _ALGORITHM),
            size=self._blob.size,
            uncompressed_size=self._size,
        )


class _HashingOut:
    def __init__(self, out: Sink) -> None:
        self._out = out
        self.hasher: Hasher = sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self.hasher.update(data)
        self.size += len(data)
        return len(data)
