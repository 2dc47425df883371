"""Folders of a layer whose index is being built, small enough that a million files fit into memory.

A folder's entries are a dictionary while it is being filled, 150 bytes an entry. When
many are loose, those that have not been touched for longest are packed into a string of
names and an array of numbers, 10 bytes and the name an entry.
"""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

from . import erofs_format as form

if TYPE_CHECKING:
    from collections.abc import Iterable

IMPLIED = form.Owner(mode=0o755, uid=0, gid=0, mtime_ns=0)
LOOSE = 100_000  # entries that may lie in dictionaries, 15 MB


class Folder:
    """A folder of the layer; children are folders, or nid << 3 | file type of anything else."""

    __slots__ = ("_children", "_names", "_values", "hidden", "implied", "nid", "opaque", "owner", "place", "xattrs")

    def __init__(self) -> None:
        #: all children, or when packed the folders among them
        self._children: dict[bytes, Folder | int] = {}
        self._names: bytes | None = None
        self._values: array[int] | None = None
        self.owner = IMPLIED
        self.xattrs: dict[bytes, bytes] = {}
        self.implied = True
        self.opaque = False
        #: names that the layer takes away from lower ones
        self.hidden: set[bytes] | None = None
        self.nid = 0
        self.place: form.Placement | None = None

    @property
    def children(self) -> dict[bytes, Folder | int]:
        """{name: child}, in no order; unpacked by being looked at."""
        if self._names is not None and self._values is not None:
            self._children.update(zip(self._names.split(b"\0"), self._values, strict=True))
            self._names = self._values = None
        return self._children

    def folders(self) -> Iterable[tuple[bytes, Folder]]:
        """(name, folder) of the folders in it; packed ones stay so."""
        return ((name, child) for name, child in self._children.items() if isinstance(child, Folder))

    def __len__(self) -> int:
        """Entries that lie in a dictionary."""
        return len(self._children)

    def pack(self) -> None:
        """Make it small."""
        if self._names is not None:
            return
        leaves = {name: child for name, child in self._children.items() if not isinstance(child, Folder)}
        if leaves:
            self._children = dict(self.folders())
            self._names, self._values = b"\0".join(leaves), array("Q", leaves.values())


class Loose:
    """The folders that are not packed, the one that was filled last at the end."""

    def __init__(self, most: int) -> None:
        self._most = most
        #: {folder: its entries when its turn ended}
        self._folders: dict[Folder, int] = {}
        self._count = 0
        self._packed = 0
        self._entries = 0

    def turn_ends(self, folder: Folder, entries: int) -> None:
        """Another folder's turn has come; *entries* have been added in all. Packs what lies longest, if there is much.

        An archive that jumps to and fro between large folders would have them packed and
        unpacked for ever; so packing ends when it has cost more than reading the archive.
        """
        self._entries = entries
        self._count += len(folder) - self._folders.pop(folder, 0)
        self._folders[folder] = len(folder)
        while self._count > self._most and self._packed <= 4 * entries:
            oldest = next(iter(self._folders))
            size = self._folders.pop(oldest)
            self._count -= size
            self._packed += size
            oldest.pack()

    def tidy(self, folder: Folder) -> None:
        """*folder* was looked at once more, when all had been added; nothing to gain where there are few entries."""
        if self._entries > self._most:
            folder.pack()
