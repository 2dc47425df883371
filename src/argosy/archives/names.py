"""Names of an archive's members: what is called what, with links followed among the members and nowhere else."""

from __future__ import annotations

import os
import posixpath
from typing import TYPE_CHECKING, Generic, TypeVar

from ..errors import Corrupt
from ..layer.entry import clean_path

if TYPE_CHECKING:
    from ..layer.entry import Entry

Place = TypeVar("Place")

#: What says what an archive holds. Twice the same of these, and two readers would see two archives.
DOCUMENTS = frozenset({"oci-layout", "index.json", "manifest.json", "repositories"})
MEMBERS_LIMIT = 1 << 17  # members; an archive of 300 images with 127 layers each has 115,000
NAMES_LIMIT = 1 << 25  # bytes of all names and links together
_MOST_LINKS = 8  # one after the other; Docker's old archives need one


class Names(Generic[Place]):
    """{name: place} of regular files. Members of other kinds are nothing to an image and are passed over."""

    def __init__(self) -> None:
        self._files: dict[str, Place] = {}
        #: {name: name of the member that it stands for, None for one outside}
        self._links: dict[str, str | None] = {}
        self._size = 0

    def add(self, entry: Entry, place: Place) -> None:
        """A regular file; of equal names the last counts, as when the archive is unpacked.

        Raises Corrupt: archive-duplicate, archive-limit.
        """
        name = self._counted(entry)
        if name in DOCUMENTS and name in self._files:
            raise Corrupt(f"the archive holds {name} twice", code="archive-duplicate")
        self._links.pop(name, None)
        self._files[name] = place

    def add_link(self, entry: Entry) -> None:
        """A symbolic or hard link: Docker's archives up to version 24 name equal layers so."""
        name = self._counted(entry)
        target: str | None = os.fsdecode(entry.linkname)
        if entry.kind == "symlink":
            target = _inside(posixpath.join(posixpath.dirname(name), os.fsdecode(entry.linkname)))
        self._files.pop(name, None)
        self._links[name] = target

    def find(self, name: str) -> Place | None:
        """The file of that name, through links; None when there is none. Raises Corrupt (archive-path-escapes)."""
        at = name
        for _ in range(_MOST_LINKS):
            if at in self._files:
                return self._files[at]
            if at not in self._links:
                return None
            target = self._links[at]
            if target is None:
                raise Corrupt(f"{name!r} is a link that leads out of the archive", code="archive-path-escapes")
            at = target
        raise Corrupt(f"{name!r} is a link to a link, and so on", code="archive-link-loop")

    def _counted(self, entry: Entry) -> str:
        self._size += len(entry.path) + len(entry.linkname)
        if len(self._files) + len(self._links) >= MEMBERS_LIMIT or self._size > NAMES_LIMIT:
            raise Corrupt(
                "the archive has too many members to be one of images",
                code="archive-limit",
                context=f"more than {MEMBERS_LIMIT}, or more than {NAMES_LIMIT} bytes of names",
            )
        return os.fsdecode(entry.path)


def refuse_holes(entry: Entry) -> None:
    """Raises Corrupt (archive-sparse): a hole costs the sender nothing and us a disk, and no program makes one here."""
    if entry.extents is not None:
        raise Corrupt(f"the archive holds {os.fsdecode(entry.path)!r} as a sparse file", code="archive-sparse")


def member_name(text: str) -> str:
    """What a document calls a member, as we do. Raises Corrupt (archive-path-escapes and others of clean_path)."""
    return os.fsdecode(clean_path(os.fsencode(text)))


def _inside(path: str) -> str | None:
    """*path* without «.» and «..»; None when it leads out."""
    normal = posixpath.normpath(path)
    return None if normal.startswith(("/", "../")) or normal == ".." else normal
