"""Snapshots that unpack nothing: the layer's tar as it is, and an EROFS index that the kernel mounts with it.

For root on Linux 6.12 and later. The tar is written once; its digest is the
diff-id, so the snapshot can be verified at any time.
"""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, cast

from ..errors import Corrupt
from ..layer.archive import entries
from ..layer.erofs import IndexBuilder
from ..layer.erofs_reader import IndexReader
from ..linux.files import reporting
from ..linux.mounts import Erofs
from .folders import LayerFacts, LayerFolders, topmost_once
from .intake import Intake
from .parents import companions

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from ..linux.mounts import Mount
    from ..oci.digest import Digest

_TAR = "layer.tar"
_INDEX = "index.erofs"


class ErofsSnapshotter:
    """See Snapshotter. Files of a layer are read from its tar by the kernel."""

    kind = "erofs"

    def __init__(self, root: Path) -> None:
        self._folders = LayerFolders(root)

    def has(self, diff_id: Digest) -> bool:
        return self._folders.has(diff_id)

    def apply(self, diff_id: Digest, tar: BinaryIO) -> None:
        if self.has(diff_id):
            return
        with self._folders.new(diff_id) as aside, reporting("write", aside):
            with open(aside / _TAR, "xb", buffering=0) as copy, open(aside / _INDEX, "xb", buffering=0) as index:
                facts = _index(Intake(tar, diff_id, cast("BinaryIO", copy)), cast("BinaryIO", index), diff_id)
                os.fsync(copy.fileno())
                os.fsync(index.fileno())
            self._folders.commit(diff_id, aside, facts)

    def verify(self, diff_id: Digest) -> None:
        """Read the tar again and compare it and the index that follows from it. Raises NotFound, Corrupt."""
        self._folders.facts(diff_id)
        folder = self._folders.path(diff_id)
        with reporting("read", folder), open(folder / _TAR, "rb", buffering=0) as tar, io.BytesIO() as index:
            _index(Intake(cast("BinaryIO", tar), diff_id), index, diff_id)
            if index.getbuffer() != (folder / _INDEX).read_bytes():
                raise Corrupt(f"the index of layer {diff_id} is damaged", code="layer-index-damaged")

    def usage(self, diff_id: Digest) -> int:
        return self._folders.facts(diff_id).size

    def remove(self, diff_id: Digest) -> None:
        self._folders.remove(diff_id)

    def walk(self) -> Iterator[Digest]:
        return self._folders.walk()

    def lowers(self, diff_ids: tuple[Digest, ...], mount_root: Path) -> tuple[tuple[Mount, ...], tuple[Path, ...]]:
        stack = topmost_once(diff_ids)
        above = companions(
            stack, self._folders, lambda diff_id: IndexReader(self._folders.path(diff_id) / _INDEX), mount_root
        )
        steps, lowers = [], []
        for number, diff_id in enumerate(stack):
            target, folder = mount_root / str(number), self._folders.path(diff_id)
            target.mkdir()
            steps.append(Erofs(index=str(folder / _INDEX), devices=(str(folder / _TAR),), target=str(target)))
            lowers += [above[diff_id], target] if diff_id in above else [target]
        return tuple(steps), tuple(lowers)

    def _view(self, diff_id: Digest) -> IndexReader:
        return IndexReader(self._folders.path(diff_id) / _INDEX)


def _index(intake: Intake, out: BinaryIO, diff_id: Digest) -> LayerFacts:
    builder = IndexBuilder(out)
    reader = entries(cast("BinaryIO", intake))
    for entry in reader:
        builder.add(entry, reader.read)
    intake.verify()
    builder.finish(diff_id.hex, intake.size)
    return LayerFacts(size=intake.size, implied=tuple(sorted(builder.implied_folders())))
