"""Snapshots that are unpacked folders: for kernels that cannot mount a tar, and for users without root."""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

import msgspec

from ..errors import Corrupt, Error, NotFound
from ..linux import paths
from ..linux.files import remove_tree, reporting, write_atomic
from .folders import REMEDY, LayerFacts, LayerFolders, topmost_once

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from _typeshed import StrPath

    from ..layer.folder import FolderFacts
    from ..layer.tree_reader import TreeReader
    from ..linux.mounts import Mount
    from ..oci.digest import Digest
    from .intake import Intake

_TREE = "fs"
_ROOM = "room"  # a derived file: bytes on the disk


class UnpackedSnapshotter(LayerFolders):
    """See Snapshotter. *user*: marks are user.overlay.* and owners as far as this user may give them.

    The folder above the files is closed to others: images hold set-uid programs.
    """

    kind = "unpacked"

    def __init__(self, root: StrPath, *, user: bool) -> None:
        super().__init__(root)
        self._user = user

    def apply(self, diff_id: Digest, tar: BinaryIO) -> None:
        from .ahead import ReadAhead
        from .intake import Intake

        with self.new(diff_id) as aside, reporting("write", self.path(diff_id)):
            if aside is None:
                return
            os.mkdir(f"{aside}/{_TREE}")
            root_fd = os.open(f"{aside}/{_TREE}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                with ReadAhead(tar) as ahead:
                    facts = self._unpack(Intake(ahead, diff_id), root_fd)
            finally:
                os.close(root_fd)
            self.commit(diff_id, aside, facts)

    def _unpack(self, intake: Intake, root_fd: int) -> LayerFacts:
        from ..layer.apply import apply
        from ..layer.archive import entries

        applied = apply(entries(cast("BinaryIO", intake)), root_fd, user=self._user)
        intake.verify()
        return LayerFacts(size=intake.size, implied=applied.implied, hidden=applied.hidden, warnings=applied.warnings)

    def verify(self, diff_id: Digest, open_tar: Callable[[], BinaryIO] | None = None) -> None:
        """Against the layer unpacked once more: a tree keeps neither the order nor all that went into the diff-id."""
        self.facts(diff_id)
        if not os.path.isdir(tree := self._tree(diff_id)):
            raise Corrupt(f"{tree} is missing", code="layer-files-missing", hint=REMEDY)
        if open_tar is not None:
            with suppress(NotFound), self._once_more(diff_id, open_tar) as (facts, again):
                self.require_facts(diff_id, facts)
                self._compare(diff_id, facts, again)

    @contextmanager
    def _once_more(self, diff_id: Digest, open_tar: Callable[[], BinaryIO]) -> Iterator[tuple[LayerFacts, str]]:
        """What the layer should look like, in a folder aside. Raises NotFound (layer-source-damaged) as open_tar."""
        from .intake import Intake

        aside = os.path.join(self._tmp, f"check-{diff_id.short}-{os.getpid()}-{os.urandom(4).hex()}")
        with reporting("write", aside):
            os.makedirs(aside, mode=0o700)
        root_fd = os.open(aside, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            try:
                with open_tar() as tar:
                    facts = self._unpack(Intake(tar, diff_id), root_fd)
            except Corrupt as error:
                raise NotFound(f"no tar of layer {diff_id}", code="layer-source-damaged") from error
            yield facts, aside
        finally:
            os.close(root_fd)
            remove_tree(aside)

    def _compare(self, diff_id: Digest, facts: LayerFacts, again: str) -> None:
        from ..layer.tree_difference import difference
        from ..layer.tree_reader import TreeReader

        with self.contents(diff_id) as found, TreeReader(again, facts.implied, facts.hidden) as right:
            if wrong := difference(found, right):
                raise Corrupt(f"layer {diff_id} is damaged", code="layer-files-damaged", context=wrong, hint=REMEDY)

    def contents(self, diff_id: Digest) -> TreeReader:
        from ..layer.tree_reader import TreeReader

        facts = self.facts(diff_id)
        return TreeReader(self._tree(diff_id), facts.implied, facts.hidden)

    def room(self, diff_id: Digest) -> int:
        """Walked once, a tenth of a second for 30,000 files; then kept beside the tree, which never changes."""
        from ..linux import room

        known = f"{self.path(diff_id)}/{_ROOM}"
        with suppress(OSError, ValueError), open(known, "rb", buffering=0) as file:
            return int(file.read(20)) + room.of(os.fstat(file.fileno()))
        size = super().room(diff_id)
        if size:
            with suppress(Error):  # a full disk, or one that is only read: it is walked again
                write_atomic(known, b"%d" % size, sync=False)
        return size + room.of_file(known)

    def lowers(self, diff_ids: tuple[Digest, ...], mount_root: str) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        stack = topmost_once(diff_ids)
        hidden = {diff_id: self.facts(diff_id).hidden for diff_id in stack}
        above = self.companions(stack, lambda diff_id: _UnpackedView(self._tree(diff_id), hidden[diff_id]), mount_root)
        lowers = []
        for number, diff_id in enumerate(stack):
            lowers += [above[diff_id], self._tree(diff_id)] if diff_id in above else [self._tree(diff_id)]
            if hidden[diff_id]:
                from .hiding import hide

                lowers.append(hide(hidden[diff_id], f"{mount_root}/hidden-{number}"))
        return (), tuple(lowers)

    def _tree(self, diff_id: Digest) -> str:
        return f"{self.path(diff_id)}/{_TREE}"


class _UnpackedView:
    def __init__(self, tree: str, hidden: tuple[bytes, ...]) -> None:
        self._root_fd = paths.open_root(tree)
        self._hidden = frozenset(hidden)

    def __enter__(self) -> _UnpackedView:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._root_fd)

    def folder(self, path: bytes) -> FolderFacts | bool:
        from ..layer.folder import folder_on_disk

        found = folder_on_disk(self._root_fd, path)
        if path not in self._hidden:
            return found
        return True if isinstance(found, bool) else msgspec.structs.replace(found, opaque=True)
