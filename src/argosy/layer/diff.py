"""The entries of a folder on disk: the layer that an overlay's upper folder is, or a plain tree.

Reads by descriptors and follows no link, since what a container wrote is as hostile as
an archive. The order depends on names alone: a folder, its files, its folders, each
sorted by bytes; so equal trees give equal archives.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import Conflict, InvalidInput
from ..linux.paths import open_beneath_nofollow
from .entry import NO_XATTRS, OPAQUE_NAME, PATH_LIMIT, WHITEOUT_PREFIX, Entry, Kind
from .pax import is_overlay_xattr
from .whiteouts import OPAQUE_XATTR, WHITEOUT_XATTR
from .xattrs import file_xattrs, overlay_mark

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from .writer import ArchiveWriter

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_KINDS: dict[int, Kind] = {
    stat.S_IFREG: "file",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}


class Found:
    """An entry, and the way to its data."""

    __slots__ = ("_root_fd", "entry")

    def __init__(self, entry: Entry, root_fd: int) -> None:
        self.entry = entry
        self._root_fd = root_fd

    def open(self) -> BinaryIO | None:
        """The file's bytes, for the caller to close; None for what has none. Needs the *root_fd* still open.

        Raises Conflict (code file-changed) when it is no regular file any more.
        """
        if self.entry.kind != "file" or not self.entry.size:
            return None
        file = open(open_beneath_nofollow(self._root_fd, os.fsdecode(self.entry.path), _FILE), "rb", buffering=0)
        if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.close()
            raise Conflict(
                f"{os.fsdecode(self.entry.path)} changed while it was being archived",
                code="file-changed",
                context="it is no regular file now",
            )
        return cast("BinaryIO", file)


def upper_entries(
    root_fd: int,
    *,
    excluded: Callable[[bytes], bool] = lambda path: False,
    lower_has: Callable[[bytes], bool] = lambda path: True,
    owner: Callable[[int, int], tuple[int, int]] = lambda uid, gid: (uid, gid),
    latest_ns: int | None = None,
) -> Iterator[Found]:
    """The entries of the layer that the upper folder *root_fd* of an overlay makes; see write_entries.

    The marks of overlayfs, in their trusted and user forms, become the names of the
    image specification. The root itself, sockets, and what *excluded* names (with all
    that lies in it) are left out. *lower_has* says whether the layers below have a
    folder: overlayfs marks every new folder as opaque, and only those that hide
    something need saying. *owner* maps ids as they are on disk to those of the image;
    times after *latest_ns* become that.

    The mounts must have had metacopy and redirect_dir off. Raises OSError.
    """
    return _Walk(root_fd, excluded, owner, latest_ns).entries(lower_has)


def tree_entries(
    root_fd: int,
    *,
    excluded: Callable[[bytes], bool] = lambda path: False,
    owner: Callable[[int, int], tuple[int, int]] = lambda uid, gid: (uid, gid),
    latest_ns: int | None = None,
    root: bool = False,
) -> Iterator[Found]:
    """As upper_entries, for an ordinary folder; *root* adds an entry for *root_fd* itself."""
    return _Walk(root_fd, excluded, owner, latest_ns).entries(None, root=root)


def write_entries(writer: ArchiveWriter, found: Iterable[Found]) -> None:
    """Put all of *found* into an archive. Raises Conflict (file-changed) when somebody writes to a file meanwhile."""
    for each in found:
        data = each.open()
        try:
            writer.add(each.entry, data)
        finally:
            if data is not None:
                data.close()


class _Walk:
    def __init__(
        self,
        root_fd: int,
        excluded: Callable[[bytes], bool],
        owner: Callable[[int, int], tuple[int, int]],
        latest_ns: int | None,
    ) -> None:
        self._root_fd = root_fd
        self._excluded = excluded
        self._owner = owner
        self._latest_ns = latest_ns
        #: {(device, inode): first path} of files with several names
        self._links: dict[tuple[int, int], bytes] = {}

    def entries(self, lower_has: Callable[[bytes], bool] | None, *, root: bool = False) -> Iterator[Found]:
        """*lower_has* is None for a folder that is no overlay's."""
        paths = [b""]
        while paths:
            path = paths.pop()
            fd = open_beneath_nofollow(self._root_fd, os.fsdecode(path) or ".", _FOLDER)
            try:
                xattrs = file_xattrs(fd)
                if path or root:
                    yield self._found(self._entry(path, "folder", os.fstat(fd), xattrs))
                mark = overlay_mark(xattrs, OPAQUE_XATTR) if lower_has is not None else None
                if lower_has is not None and mark == b"y" and path and lower_has(path):
                    yield self._found(Entry(path=_below(path, OPAQUE_NAME), kind="file", mode=0))
                folders = []
                for name, is_folder in _names(fd):
                    below = _below(path, name)
                    if len(below) > PATH_LIMIT:
                        raise _too_deep(below)
                    if self._excluded(below):
                        continue
                    if is_folder:
                        folders.append(below)
                    elif entry := self._leaf(fd, name, below, lower_has is not None, mark == b"x"):
                        yield self._found(entry)
                paths += reversed(folders)
            finally:
                os.close(fd)

    def _found(self, entry: Entry) -> Found:
        return Found(entry, self._root_fd)

    def _leaf(
        self, folder_fd: int, name: bytes, path: bytes, is_overlay: bool, has_file_whiteouts: bool
    ) -> Entry | None:
        """What is not a folder; None for sockets."""
        found = os.lstat(name, dir_fd=folder_fd)
        kind = _KINDS.get(stat.S_IFMT(found.st_mode))
        if kind is None:
            return None
        if is_overlay and kind == "character" and found.st_rdev == 0:
            return _whiteout(path)
        if found.st_nlink > 1 and (first := self._links.setdefault((found.st_dev, found.st_ino), path)) != path:
            return self._entry(path, "hardlink", found, NO_XATTRS, first)
        xattrs = file_xattrs(b"/proc/self/fd/%d/" % folder_fd + name)
        is_empty = kind == "file" and not found.st_size
        if has_file_whiteouts and is_empty and overlay_mark(xattrs, WHITEOUT_XATTR) is not None:
            return _whiteout(path)
        text = os.fsencode(os.readlink(name, dir_fd=folder_fd)) if kind == "symlink" else b""
        return self._entry(path, kind, found, xattrs, text)

    def _entry(
        self, path: bytes, kind: Kind, found: os.stat_result, xattrs: Mapping[bytes, bytes], link: bytes = b""
    ) -> Entry:
        uid, gid = self._owner(found.st_uid, found.st_gid)
        mtime_ns = found.st_mtime_ns if self._latest_ns is None else min(found.st_mtime_ns, self._latest_ns)
        is_device = kind in ("character", "block")
        return Entry(
            path=path,
            kind=kind,
            mode=found.st_mode & 0o7777,
            uid=uid,
            gid=gid,
            mtime_ns=mtime_ns,
            size=found.st_size if kind == "file" else 0,
            linkname=link,
            major=os.major(found.st_rdev) if is_device else 0,
            minor=os.minor(found.st_rdev) if is_device else 0,
            xattrs={name: value for name, value in xattrs.items() if not is_overlay_xattr(name)} or NO_XATTRS,
        )


def _names(fd: int) -> list[tuple[bytes, bool]]:
    """(name, whether a folder), sorted."""
    with os.scandir(fd) as found:
        return sorted((os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in found)


def _whiteout(path: bytes) -> Entry:
    folder, _, name = path.rpartition(b"/")
    return Entry(path=_below(folder, WHITEOUT_PREFIX + name), kind="file", mode=0)


def _below(folder: bytes, name: bytes) -> bytes:
    return folder + b"/" + name if folder else name


def _too_deep(path: bytes) -> InvalidInput:
    return InvalidInput(
        f"a path in the container is longer than {PATH_LIMIT} bytes",
        code="path-too-long",
        context=f"it begins with {path[:200].decode(errors='backslashreplace')!r}",
        hint="no layer can hold it; remove that folder",
    )
