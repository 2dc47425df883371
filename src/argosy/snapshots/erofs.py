"""Snapshots that unpack nothing: the layer's tar as it is, and an EROFS index that the kernel mounts with it.

For root on Linux 6.12 and later. The tar is written once; its digest is the
diff-id, so the snapshot can be verified at any time. What only apply and verify
need is imported there: `run` mounts layers and starts 12 ms sooner without.
"""

from __future__ import annotations

import io
import os
from contextlib import suppress
from typing import TYPE_CHECKING, cast

from ..errors import Corrupt, NotFound
from ..linux.files import reporting, sync_file
from ..linux.mounts import Erofs
from .folders import FACTS, REMEDY, LayerFacts, LayerFolders, topmost_once

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import BinaryIO

    from ..layer.erofs_reader import IndexReader
    from ..linux.mounts import Mount
    from ..oci.digest import Digest
    from .intake import Intake

_TAR = "layer.tar"
_INDEX = "index.erofs"


class ErofsSnapshotter(LayerFolders):
    """See Snapshotter. Files of a layer are read from its tar by the kernel."""

    kind = "erofs"

    def apply(self, diff_id: Digest, tar: BinaryIO) -> None:
        from .ahead import ReadAhead
        from .intake import Intake

        with self.new(diff_id) as aside, reporting("write", self.path(diff_id)):
            if aside is None:
                return
            with (
                open(f"{aside}/{_TAR}", "xb", buffering=0) as copy,
                open(f"{aside}/{_INDEX}", "xb") as index,
                ReadAhead(tar) as ahead,
            ):
                facts = _index(Intake(ahead, diff_id, copy), index, diff_id)
            self.commit(diff_id, aside, facts)

    def sync(self, diff_id: Digest) -> None:
        folder = self.path(diff_id)
        with suppress(NotFound), reporting("sync", folder):
            for name in sorted(os.listdir(folder)):
                sync_file(f"{folder}/{name}")
            sync_file(folder)
            sync_file(os.path.dirname(folder))

    def verify(self, diff_id: Digest, open_tar: Callable[[], BinaryIO] | None = None) -> None:
        """Read the tar again and compare it and the index that follows from it. Raises NotFound, Corrupt."""
        from .intake import Intake

        folder = self._require(diff_id)
        with reporting("read", folder), open(f"{folder}/{_TAR}", "rb", buffering=0) as tar, io.BytesIO() as index:
            facts = _index(Intake(cast("BinaryIO", tar), diff_id), index, diff_id)
            with open(f"{folder}/{_INDEX}", "rb") as written:
                is_same = index.getbuffer() == written.read()
            if not is_same:
                raise Corrupt(f"the index of layer {diff_id} is damaged", code="layer-index-damaged", hint=REMEDY)
        self.require_facts(diff_id, facts)

    def open_tar(self, diff_id: Digest) -> BinaryIO:
        folder = self._require(diff_id)
        with reporting("read", folder):
            return cast("BinaryIO", open(f"{folder}/{_TAR}", "rb", buffering=0))

    def mend(self, diff_id: Digest) -> None:
        """In place, the facts last; whoever has the old index mounted keeps it."""
        import msgspec

        from ..linux.files import write_instead
        from .intake import Intake

        folder = self.path(diff_id)
        with reporting("mend", folder), open(f"{folder}/{_TAR}", "rb", buffering=0) as tar, io.BytesIO() as index:
            facts = _index(Intake(cast("BinaryIO", tar), diff_id), index, diff_id)
            write_instead(f"{folder}/{_INDEX}", index.getvalue())
            write_instead(f"{folder}/{FACTS}", msgspec.json.encode(facts))

    def lowers(self, diff_ids: tuple[Digest, ...], mount_root: str) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        stack = topmost_once(diff_ids)
        above = self.companions(stack, self._view, mount_root)
        steps, lowers = [], []
        for number, diff_id in enumerate(stack):
            target, folder = f"{mount_root}/{number}", self._require(diff_id)
            os.mkdir(target)
            steps.append(Erofs(index=f"{folder}/{_INDEX}", devices=(f"{folder}/{_TAR}",), target=target))
            lowers += [above[diff_id], target] if diff_id in above else [target]
        return tuple(steps), tuple(lowers)

    def contents(self, diff_id: Digest) -> IndexReader:
        from ..layer.erofs_reader import IndexReader

        folder = self._require(diff_id)
        return IndexReader(f"{folder}/{_INDEX}", f"{folder}/{_TAR}", self.facts(diff_id).implied)

    def _require(self, diff_id: Digest) -> str:
        """The folder of a layer, with both its files whole: a program that lies behind the end of a cut tar crashes."""
        folder, size = self.path(diff_id), self.facts(diff_id).size
        try:
            found = os.stat(f"{folder}/{_TAR}").st_size
            os.stat(f"{folder}/{_INDEX}")
        except FileNotFoundError as error:
            self.facts(diff_id)  # raises NotFound when the layer was removed meanwhile
            raise Corrupt(f"{error.filename} is missing", code="layer-files-missing", hint=REMEDY) from error
        if found != size:
            raise Corrupt(
                f"{folder}/{_TAR} is damaged",
                code="size-mismatch",
                context=f"it has {found} of {size} bytes",
                hint=REMEDY,
            )
        return folder

    def _view(self, diff_id: Digest) -> IndexReader:
        from ..layer.erofs_reader import IndexReader

        return IndexReader(f"{self.path(diff_id)}/{_INDEX}")


def _index(intake: Intake, out: BinaryIO, diff_id: Digest) -> LayerFacts:
    from ..layer.archive import entries
    from ..layer.erofs import IndexBuilder

    builder = IndexBuilder(out)
    reader = entries(cast("BinaryIO", intake))
    for entry in reader:
        builder.add(entry, reader.read)
    intake.verify()
    builder.finish(diff_id.hex, intake.size)
    return LayerFacts(size=intake.size, implied=tuple(sorted(builder.implied_folders())))
