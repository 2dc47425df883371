"""Compressed blobs that were given up because their layer is here in another form, and how to have each again.

A record `dropped/<algorithm>/<hex>` stands for the blob of that digest wherever an
image needs it: names may be published over it, sweeps keep it as long as an image
does. When the blob is here again the record goes. Making or fetching it is
`ops/restore.py`'s; giving it up `ops/compressed.py`'s.
"""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from ..oci.descriptor import Descriptor
from ..oci.digest import ALGORITHMS, Digest
from ..oci.reference import Reference
from ..oci.wire import decode, encode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrPath


class Dropped(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One blob that was given up."""

    descriptor: Descriptor
    #: the layer that stands for it
    diff_id: Digest
    #: images in whose repositories it was found when it was dropped
    origins: tuple[Reference, ...] = ()
    #: how to make it of the layer's tar, in the words of layer/recipes.py; empty when no way is known
    recipe: str = ""
    #: when, in nanoseconds since the epoch by the file system's clock. The layer was durable by then
    dropped_ns: int = 0


class DroppedBlobs:
    """The records of a store. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self._folder = os.path.join(root, "dropped")

    def find(self, digest: Digest) -> Dropped | None:
        """The record of a blob; None when there is none, or none that can be read: the blob is just missing then."""
        try:
            with open(self.path(digest), "rb", buffering=0) as file:
                record = decode(file.read(), Dropped)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            from ..linux.files import NO_FILE, translate

            if error.errno in NO_FILE:
                return None
            raise translate(error, "read", self.path(digest)) from error
        except (msgspec.MsgspecError, InvalidInput, UnicodeDecodeError, RecursionError):
            return None
        return record if record.descriptor.digest == digest else None

    def claim(self, descriptor: Descriptor) -> bool:
        """Whether there is a record; if so no sweep takes it from now on. The caller holds `BlobStore.publishing`."""
        record = self.find(descriptor.digest)
        if record is None or record.descriptor.size != descriptor.size:
            return False
        try:
            os.utime(self.path(descriptor.digest))
        except FileNotFoundError:
            return False
        return True

    def add(self, record: Dropped) -> None:
        """Write a record, durably: the blob may go when this returns. Raises Exhausted and what else disks do."""
        from ..linux.files import write_atomic
        from .blobs import make_folder

        path = self.path(record.descriptor.digest)
        make_folder(os.path.dirname(path))
        write_atomic(path, encode(record) + b"\n")

    def remove(self, digest: Digest) -> int:
        """Forget a record; gives what that frees on the disk, 0 when there is none."""
        from ..linux import room

        path = self.path(digest)
        size = room.of_file(path)
        try:
            os.unlink(path)
        except FileNotFoundError:
            return 0
        except IsADirectoryError:  # a damaged disk's
            from ..linux.files import remove_tree

            remove_tree(path)
        return size

    def walk(self) -> Iterator[Digest]:
        """The blobs of all records, in no order."""
        for algorithm, length in ALGORITHMS.items():
            with suppress(FileNotFoundError):
                for name in os.listdir(os.path.join(self._folder, algorithm)):
                    if len(name) == length and not name.strip("0123456789abcdef"):
                        yield Digest(f"{algorithm}:{name}")

    def layers(self, *, since_ns: int = 0) -> frozenset[Digest]:
        """Diff-ids of the layers that stand for a blob, dropped after *since_ns*: their snapshot is no cache."""
        records = (self.find(digest) for digest in self.walk())
        return frozenset(record.diff_id for record in records if record is not None and record.dropped_ns >= since_ns)

    def path(self, digest: Digest) -> str:
        """Where the record is, or would be."""
        return os.path.join(self._folder, digest.algorithm, digest.hex)
