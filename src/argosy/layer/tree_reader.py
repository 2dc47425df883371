"""Reads a folder that an overlay may have as a lower or upper one: an unpacked layer, a container's changes.

By descriptor from the top of the tree and without following links, since what lies in
there is hostile.
"""

from __future__ import annotations

import errno
import os
import stat
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidInput, NotFound
from ..linux.files import reporting
from ..linux.paths import open_beneath_nofollow, open_root
from .contents import Node
from .entry import NO_XATTRS
from .pax import is_overlay_xattr
from .whiteouts import OPAQUE_XATTR, WHITEOUT_XATTR
from .xattrs import file_xattrs, overlay_mark

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from .contents import NodeKind

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_LONGEST = 4000  # bytes of a path that are given to the kernel at once; PATH_MAX is 4096
_STAT_BLOCK = 512  # bytes; the unit of st_blocks
_KINDS: dict[int, NodeKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
}


class TreeReader:
    """An open tree; LayerContents. *implied* are its folders that the layer does not describe.

    *hidden* are paths of lower layers' content that it hides without marks on disk.
    Of a *live* tree, that somebody writes to meanwhile, what vanishes was not there;
    a file that becomes something else raises Conflict (file-changed).
    """

    def __init__(
        self, tree: str, implied: Iterable[bytes] = (), hidden: Iterable[bytes] = (), *, live: bool = False
    ) -> None:
        self._tree = tree
        self._live = live
        self._implied = frozenset(implied)
        #: {folder: names that are hidden in it}
        self._hidden: dict[bytes, set[bytes]] = {}
        for path in hidden:
            above, _, name = path.rpartition(b"/")
            self._hidden.setdefault(above, set()).add(name)
        #: {inode of a folder: what is in it}
        self._children: dict[int, dict[bytes, Node]] = {}
        with reporting("read", tree):
            self._root_fd = open_root(tree)
        top_fd = self._open(b"", _FOLDER)
        try:
            self.root = _node(b"", os.fstat(top_fd), file_xattrs(top_fd))
        finally:
            os.close(top_fd)
        #: {inode: path} of all that was found
        self._paths = {self.root.inode: b""}

    def __enter__(self) -> TreeReader:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._root_fd)

    def children(self, folder: Node) -> Mapping[bytes, Node]:
        found = self._children.get(folder.inode)
        if found is None:
            found = self._children[folder.inode] = self._listed(self._paths[folder.inode])
        return found

    def forget(self, folder: Node) -> None:
        """Let go of what was read of a folder, for those who walk once through a large tree."""
        for child in self._children.pop(folder.inode, {}).values():
            if child.kind != "folder":
                self._paths.pop(child.inode, None)

    def _listed(self, path: bytes) -> dict[bytes, Node]:
        try:
            fd = self._open(path, _FOLDER)
        except (NotFound, InvalidInput):  # gone, or something else by now
            if self._live:
                return {}
            raise
        try:
            with reporting("read", os.path.join(self._tree, os.fsdecode(path))):
                return self._read_folder(fd, path)
        finally:
            os.close(fd)

    def read(self, file: Node, offset: int, size: int) -> bytes:
        path = self._paths[file.inode]
        with open(self._open(path, _FILE), "rb", buffering=0) as opened:
            if not stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
                raise _changed(path)
            with reporting("read", os.path.join(self._tree, os.fsdecode(path))):
                return os.pread(opened.fileno(), size, offset)

    def _open(self, path: bytes, flags: int) -> int:
        """A descriptor of *path*, which may be longer than the kernel takes at once."""
        fd, rest = os.dup(self._root_fd), path
        with reporting("read", os.path.join(self._tree, os.fsdecode(path))):
            try:
                while len(rest) > _LONGEST:
                    cut = rest.rindex(b"/", 0, _LONGEST)
                    below = open_beneath_nofollow(fd, os.fsdecode(rest[:cut]), os.O_PATH | os.O_DIRECTORY)
                    os.close(fd)
                    fd, rest = below, rest[cut + 1 :]
                return open_beneath_nofollow(fd, os.fsdecode(rest) or ".", flags)
            finally:
                os.close(fd)

    def _read_folder(self, fd: int, path: bytes) -> dict[bytes, Node]:
        has_file_whiteouts = overlay_mark(file_xattrs(fd), OPAQUE_XATTR) == b"x"
        hidden = self._hidden.get(path, set())
        #: inodes of whiteouts that are not on disk; nothing has these
        children = {name: Node(kind="whiteout", inode=-number) for number, name in enumerate(hidden, 1)}
        for text in os.listdir(fd):
            name = os.fsencode(text)
            below = path + b"/" + name if path else name
            try:
                child = children[name] = self._child(fd, name, below, has_file_whiteouts, hides=name in hidden)
            except FileNotFoundError:
                if not self._live:
                    raise
            else:
                self._paths.setdefault(child.inode, below)
        return children

    def _child(self, fd: int, name: bytes, path: bytes, has_file_whiteouts: bool, *, hides: bool) -> Node:
        found = os.lstat(name, dir_fd=fd)
        if stat.S_ISCHR(found.st_mode) and not found.st_rdev:
            return Node(kind="whiteout", inode=found.st_ino)
        xattrs = file_xattrs(b"/proc/self/fd/%d/" % fd + name)
        is_empty = stat.S_ISREG(found.st_mode) and not found.st_size
        if has_file_whiteouts and is_empty and overlay_mark(xattrs, WHITEOUT_XATTR) is not None:
            return Node(kind="whiteout", inode=found.st_ino)
        target = os.fsencode(os.readlink(name, dir_fd=fd)) if stat.S_ISLNK(found.st_mode) else b""
        stored = found.st_size
        if stat.S_ISREG(found.st_mode) and found.st_blocks * _STAT_BLOCK < stored:
            stored = _stored(fd, name)
        return _node(target, found, xattrs, stored=stored, implied=path in self._implied, hides=hides)


def _node(
    target: bytes,
    found: os.stat_result,
    xattrs: Mapping[bytes, bytes],
    *,
    stored: int = 0,
    implied: bool = False,
    hides: bool = False,
) -> Node:
    kind = _KINDS[stat.S_IFMT(found.st_mode)]
    is_file, is_device = kind == "file", kind in ("character", "block")
    return Node(
        kind=kind,
        inode=found.st_ino,
        mode=found.st_mode & 0o7777,
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        size=found.st_size if is_file else 0,
        stored=stored if is_file else 0,
        links=1 if kind == "folder" else found.st_nlink,
        target=target,
        major=os.major(found.st_rdev) if is_device else 0,
        minor=os.minor(found.st_rdev) if is_device else 0,
        xattrs={name: value for name, value in xattrs.items() if not is_overlay_xattr(name)} or NO_XATTRS,
        opaque=kind == "folder" and (hides or overlay_mark(xattrs, OPAQUE_XATTR) == b"y"),
        implied=implied and kind == "folder",
    )


def _stored(folder_fd: int, name: bytes) -> int:
    """Bytes of a file that are no holes; few blocks may also mean that the file system compresses."""
    fd = os.open(name, _FILE, dir_fd=folder_fd)
    try:
        at, total, size = 0, 0, os.fstat(fd).st_size
        while at < size:
            start = os.lseek(fd, at, os.SEEK_DATA)
            at = os.lseek(fd, start, os.SEEK_HOLE)
            total += at - start
        return total
    except OSError as error:
        if error.errno == errno.ENXIO:  # only a hole is left
            return total
        raise
    finally:
        os.close(fd)


def _changed(path: bytes) -> Conflict:
    return Conflict(
        f"{os.fsdecode(path)} changed while it was being read",
        code="file-changed",
        context="it is no regular file now",
    )
