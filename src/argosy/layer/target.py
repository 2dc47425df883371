"""The folders of a tree that is being written, by descriptor.

Safe for hostile archives and a caller with all rights:
- every folder here was made by this process, and the top one is closed to others, so
  nobody but us renames inside;
- descriptors are opened one part at a time with O_NOFOLLOW, from a folder that is in
  the list of those we made; a link is read and walked by hand, starting at the top
  again where it is absolute, and «..» at the top stays there;
- what is created is created with O_EXCL or its like, and what is replaced is
  unlinked by name, never opened.
So no operation starts anywhere but in a folder that we made beneath the top.
"""

from __future__ import annotations

import os
import stat
from collections import OrderedDict
from typing import TYPE_CHECKING

from ..linux.files import remove_tree
from .faults import not_a_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

MOST_LINKS = 40  # MAXSYMLINKS of the kernel
_OPEN_FOLDERS = 200  # descriptors kept; entries of a folder follow each other in nearly all archives
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class Folder:
    """A folder that was made; what would change what goes into it, or be changed by it, is set at the end."""

    __slots__ = ("default_acl", "folders", "hidden", "implied", "mode", "mtime_ns", "opaque", "origin")

    def __init__(self) -> None:
        self.mode = 0o755
        self.mtime_ns = 0
        self.default_acl: bytes | None = None
        self.implied = True
        self.opaque = False
        #: marked as holding whiteouts
        self.origin = False
        #: names that whiteouts take away, where the file system cannot keep marks
        self.hidden: set[bytes] | None = None
        #: names of the folders in it
        self.folders: set[bytes] | None = None


class Target:
    """The tree below an empty folder *root_fd*, which stays the caller's.

    Paths are clean (see entry.clean_path). A path is *real* when its parts are folders
    made here and no links; only real paths name folders.
    """

    def __init__(self, root_fd: int) -> None:
        self._root_fd = root_fd
        #: {real path: folder}
        self.folders: dict[bytes, Folder] = {b"": Folder()}
        self._fds: OrderedDict[bytes, int] = OrderedDict()
        #: {path: real path} for paths that go through links; emptied whenever one of those may have gone
        self._aliases: dict[bytes, bytes] = {}
        #: Paths of whiteouts that are files with an attribute, where devices 0:0 cannot be made.
        self.file_whiteouts: set[bytes] = set()

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def real(self, path: bytes) -> bytes:
        """The real path of a folder, with links followed and missing parts made. Raises Corrupt."""
        if path in self.folders:
            return path
        found = self._aliases.get(path)
        if found is None:
            found = self._aliases[path] = self._resolve(path)
        return found

    def fd(self, real: bytes) -> int:
        """An O_PATH descriptor of a folder, ours; good until a few hundred others have been asked for."""
        if not real:
            return self._root_fd
        fd = self._fds.get(real)
        if fd is not None:
            self._fds.move_to_end(real)
            return fd
        return self._open(real)

    def make_folder(self, real: bytes, name: bytes) -> Folder:
        """A new folder where nothing is; FileExistsError otherwise."""
        os.mkdir(name, 0o700, dir_fd=self.fd(real))
        above = self.folders[real]
        if above.folders is None:
            above.folders = set()
        above.folders.add(name)
        folder = self.folders[joined(real, name)] = Folder()
        return folder

    def clear(self, real: bytes, name: bytes) -> bool:
        """Remove whatever is at *name*; True when it was a whiteout."""
        path = joined(real, name)
        if path in self.folders:
            self._forget(real, name)
            remove_tree(os.fsdecode(b"/proc/self/fd/%d/" % self.fd(real) + name))
            self._aliases.clear()
            return False
        found = os.lstat(name, dir_fd=self.fd(real))
        os.unlink(name, dir_fd=self.fd(real))
        if stat.S_ISLNK(found.st_mode):
            self._aliases.clear()
        was_whiteout = self.is_whiteout(found, path)
        self.file_whiteouts.discard(path)
        return was_whiteout

    def is_whiteout(self, found: os.stat_result, path: bytes) -> bool:
        return (stat.S_ISCHR(found.st_mode) and found.st_rdev == 0) or path in self.file_whiteouts

    def lstat(self, real: bytes, name: bytes) -> os.stat_result | None:
        try:
            return os.lstat(name, dir_fd=self.fd(real))
        except FileNotFoundError:
            return None

    def deepest_first(self) -> Iterator[tuple[bytes, Folder]]:
        return ((path, self.folders[path]) for path in sorted(self.folders, reverse=True))

    def _resolve(self, path: bytes) -> bytes:
        real = b""
        names = path.split(b"/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name == b"..":
                real = real.rpartition(b"/")[0]
            elif name not in (b"", b"."):
                below = joined(real, name)
                if below in self.folders:
                    real = below
                    continue
                text = self._link_or_new_folder(path, real, name)
                if text is None:
                    real = below
                    continue
                links += 1
                if links > MOST_LINKS:
                    raise not_a_folder(path, name, "a link in a circle")
                if text.startswith(b"/"):
                    real = b""
                names += text.split(b"/")[::-1]
        return real

    def _link_or_new_folder(self, path: bytes, real: bytes, name: bytes) -> bytes | None:
        """The text of the link *name*; None when nothing was there and a folder has been made."""
        found = self.lstat(real, name)
        if found is None:
            self.make_folder(real, name)
            return None
        if stat.S_ISLNK(found.st_mode):
            return os.readlink(name, dir_fd=self.fd(real))
        if not self.is_whiteout(found, joined(real, name)):
            raise not_a_folder(path, name, "not a folder")
        self.clear(real, name)
        self.make_folder(real, name).opaque = True
        return None

    def _open(self, real: bytes) -> int:
        """Open from the nearest folder that is open already; no recursion, paths may be two thousand parts deep."""
        missing = []
        above = real
        while above and above not in self._fds:
            above, _, name = above.rpartition(b"/")
            missing.append(name)
        fd = self._fds[above] if above else self._root_fd
        for name in reversed(missing):
            above = joined(above, name)
            fd = self._fds[above] = os.open(name, _FOLDER, dir_fd=fd)
            if len(self._fds) > _OPEN_FOLDERS:
                os.close(self._fds.popitem(last=False)[1])
        return fd

    def _forget(self, real: bytes, name: bytes) -> None:
        names = self.folders[real].folders
        if names is not None:
            names.discard(name)
        stack = [joined(real, name)]
        while stack:
            path = stack.pop()
            stack += [joined(path, below) for below in self.folders.pop(path).folders or ()]
            if path in self._fds:
                os.close(self._fds.pop(path))


def joined(real: bytes, name: bytes) -> bytes:
    return real + b"/" + name if real else name
