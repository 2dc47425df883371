"""What of an image is missing here, and the room that it will take: known where it is told, else estimated.

Sizes of blobs stand in the manifest, sizes of layers nowhere. They come from an
annotation, from the four bytes at the end of a gzip blob, or from a factor.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..oci.descriptor import Descriptor
from ..oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from _typeshed import StrPath

    from ..oci.image import Layer
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore

    #: the last bytes of a blob; None where they cannot be had alone
    Tail = Callable[[Descriptor, int], bytes | None]

#: uncompressed : compressed. gzip -6 gives 2.73 for a Debian tree of 1.3 GB and 60,000 entries, cuBLAS's wheel has
#: 1.47, that of NVRTC 2.54 (2026-11); images of frameworks are a mixture.
_FACTOR = 2.2
_MOST = 6.0  # text; a layer of zeros has more, and asks to be measured
#: of the uncompressed tar: the index of the same tree has 0.6 %, one of small files alone more
_INDEX_SHARE = 0.01
_UNPACKED_SHARE = 1.09  # the same tree on ext4: whole blocks, but no headers
_BYTES_AN_ENTRY = 100_000  # the same tree has 22 kB, CUDA images 250: only what is hopeless is to be refused
_SIZE_ANNOTATION = "io.containers.estargz.uncompressed-size"
_TAIL = 4  # bytes: ISIZE, RFC 1952 2.3.1, the uncompressed size modulo 2**32
_WRAP = 2**32
_LIKELY = 4.0  # beyond, another 4 GB are less likely than a blob of several members
_LARGEST = 2**44  # bytes of a blob; a registry may claim anything


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """One layer. *to_fetch* and *unpacked* are bytes that are not here yet: of its blob, of its uncompressed tar."""

    descriptor: Descriptor
    diff_id: Digest
    to_fetch: int = 0
    unpacked: int = 0
    #: *unpacked* is estimated from the size of the blob alone
    is_guess: bool = False

    @property
    def is_met(self) -> bool:
        return not (self.to_fetch or self.unpacked)


class Room(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes and inodes of a file system that this user may still use; None where it does not tell."""

    free: int | None = None
    size: int = 0
    free_inodes: int | None = None

    @classmethod
    def at(cls, path: StrPath) -> Room:
        """The file system that *path*, or the nearest folder above it that exists, lies on."""
        place = os.path.abspath(path)
        while not os.path.exists(place):
            place = os.path.dirname(place)
        try:
            status = os.statvfs(place)
        except OSError:
            return cls()
        return cls(
            free=status.f_bavail * status.f_frsize if status.f_blocks else None,
            size=status.f_blocks * status.f_frsize,
            free_inodes=status.f_favail if status.f_files else None,
        )


class Needs(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that an image still needs on a store whose layers are of *kind*."""

    #: each layer once, lowest first
    layers: tuple[Need, ...]
    #: blobs of other platforms that are not here
    rest: tuple[Descriptor, ...] = ()
    kind: str = "erofs"

    @property
    def are_met(self) -> bool:
        return not self.rest and all(need.is_met for need in self.layers)

    @property
    def to_fetch(self) -> int:
        """Bytes to transfer."""
        return sum(need.to_fetch for need in self.layers) + sum(blob.size for blob in self.rest)

    @property
    def unpacked(self) -> int:
        """Bytes that the layers will take beside their blobs, with their indexes."""
        return self._on_disk(sum(need.unpacked for need in self.layers))

    @property
    def size(self) -> int:
        """Bytes of the disk."""
        return self.to_fetch + self.unpacked

    @property
    def size_at_most(self) -> int:
        """As size, with every guess at its largest."""
        most = (int(need.unpacked * _MOST / _FACTOR) if need.is_guess else need.unpacked for need in self.layers)
        return self.to_fetch + self._on_disk(sum(most))

    @property
    def inodes(self) -> int:
        """Files and folders to come; next to none where layers stay tars."""
        return 0 if self.kind == "erofs" else sum(need.unpacked for need in self.layers) // _BYTES_AN_ENTRY

    @property
    def is_guess(self) -> bool:
        return any(need.is_guess for need in self.layers)

    def measured(self, tail: Tail) -> Needs:
        """With the guesses replaced by what the ends of the blobs say; one small request for each."""
        ends = _Ends(tail)
        return msgspec.structs.replace(self, layers=tuple(_measured(need, ends.of) for need in self.layers))

    def _on_disk(self, tar: int) -> int:
        return int(tar * (1 + _INDEX_SHARE if self.kind == "erofs" else _UNPACKED_SHARE))


def find_needs(
    layers: Sequence[Layer], *, blobs: BlobStore, snapshotter: Snapshotter, rest: Iterable[Descriptor] = ()
) -> Needs:
    """What is missing of *layers* and of the blobs *rest*: a few looks at the disk for each."""
    distinct = {(layer.descriptor.digest, layer.diff_id): layer for layer in layers}
    own = {layer.descriptor.digest for layer in layers}
    others = {blob.digest: blob for blob in rest if blob.digest not in own}
    return Needs(
        layers=tuple(_need(layer.descriptor, layer.diff_id, blobs, snapshotter) for layer in distinct.values()),
        rest=tuple(blob for blob in others.values() if blobs.stat(blob.digest) != blob.size),
        kind=snapshotter.kind,
    )


def _need(descriptor: Descriptor, diff_id: Digest, blobs: BlobStore, snapshotter: Snapshotter) -> Need:
    is_here = blobs.stat(descriptor.digest) == descriptor.size
    to_fetch = 0 if is_here else max(descriptor.size - blobs.begun(descriptor.digest), 0)
    if snapshotter.has(diff_id):
        is_dropped = not is_here and blobs.dropped.find(descriptor.digest) is not None  # its layer stands for it
        return Need(descriptor=descriptor, diff_id=diff_id, to_fetch=0 if is_dropped else to_fetch)
    size, is_guess = _estimate(descriptor)
    need = Need(descriptor=descriptor, diff_id=diff_id, to_fetch=to_fetch, unpacked=size, is_guess=is_guess)
    if not (is_here and is_guess):
        return need

    def tail(descriptor: Descriptor, count: int) -> bytes:
        with blobs.open(descriptor, offset=descriptor.size - count) as stream:
            return stream.read(count)

    return _measured(need, tail)


def _estimate(descriptor: Descriptor) -> tuple[int, bool]:
    """(bytes of the uncompressed layer, whether that is a guess)"""
    told = (descriptor.annotations or {}).get(_SIZE_ANNOTATION, "")
    if told.isascii() and told.isdecimal() and len(told) < 16:
        return int(told), False
    if descriptor.media_type.endswith("tar"):
        return descriptor.size, False
    return int(descriptor.size * _FACTOR), True


class _Ends:
    """Where one end cannot be had, none can: a proxy that sends whole blobs would send them all."""

    def __init__(self, tail: Tail) -> None:
        self._tail = tail
        self._failed = False

    def of(self, descriptor: Descriptor, count: int) -> bytes | None:
        end = None if self._failed else self._tail(descriptor, count)
        self._failed = end is None
        return end


def _measured(need: Need, tail: Tail) -> Need:
    if not need.is_guess or not need.descriptor.media_type.endswith("gzip") or need.descriptor.size <= _TAIL:
        return need
    end = tail(need.descriptor, _TAIL)
    size = gzip_size(need.descriptor.size, int.from_bytes(end, "little")) if end and len(end) == _TAIL else None
    return need if size is None else msgspec.structs.replace(need, unpacked=size, is_guess=False)


def gzip_size(compressed: int, low: int) -> int | None:
    """The uncompressed size of a gzip blob, of which *low* are the lowest 32 bits; None when they do not fit.

    Of the sizes that fit, the nearest to what layers usually are. A blob of several members, whose last
    one alone is counted, mostly gives itself away by being smaller than it was compressed.
    """
    least, most = compressed * 999 // 1000 - 64, int(compressed * _LIKELY)  # gzip adds to what it cannot compress
    if compressed > _LARGEST:
        return None
    sizes = [size for size in range(low, max(most, low) + 1, _WRAP) if size >= least]
    return min(sizes, key=lambda size: abs(size - compressed * _FACTOR), default=None)
