"""Looks up folders in an index that `erofs.IndexBuilder` wrote; no reader for other people's images."""

from __future__ import annotations

import os

from . import erofs_format as form
from .folder import FolderFacts
from .whiteouts import OPAQUE_XATTR

_OPAQUE = b"trusted." + OPAQUE_XATTR


class IndexReader:
    """An open index; a context manager."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __enter__(self) -> IndexReader:
        return self

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)

    def folder(self, path: bytes) -> FolderFacts | bool:
        """The folder at *path*; False when nothing is there, True when something else is (a file, a whiteout)."""
        nid, file_type = form.ROOT_NID, form.DIRECTORY
        for name in path.split(b"/") if path else ():
            if file_type != form.DIRECTORY:
                return True
            found = self._child(nid, name)
            if found is None:
                return False
            nid, file_type = found
        return self._facts(nid) if file_type == form.DIRECTORY else True

    def _facts(self, nid: int) -> FolderFacts:
        node = form.read_inode(self._read(nid * form.SLOT, form.INODE_SIZE))
        at = nid * form.SLOT + form.INODE_SIZE
        xattrs = form.read_xattrs(self._read(at, node.xattr_size), lambda offset, size: self._read(offset, size))
        return FolderFacts(
            mode=node.owner.mode & 0o7777,
            uid=node.owner.uid,
            gid=node.owner.gid,
            mtime_ns=node.owner.mtime_ns,
            opaque=xattrs.get(_OPAQUE) == b"y",
            xattrs={name: value for name, value in xattrs.items() if not name.startswith(b"trusted.overlay.")},
        )

    def _child(self, nid: int, name: bytes) -> tuple[int, int] | None:
        """(nid, file type) of *name* in a folder: a binary search over its sorted blocks, then through one."""
        node = form.read_inode(self._read(nid * form.SLOT, form.INODE_SIZE))
        low, high = 0, -(-node.size // form.BLOCK)
        while high - low > 1:
            middle = (low + high) // 2
            first = next(form.read_directory_block(self._block(nid, node, middle)))
            if first[0] <= name:
                low = middle
            else:
                high = middle
        for found, child, file_type in form.read_directory_block(self._block(nid, node, low)):
            if found == name:
                return child, file_type
        return None

    def _block(self, nid: int, node: form.Inode, number: int) -> bytes:
        size = min(form.BLOCK, node.size - number * form.BLOCK)
        is_last = (number + 1) * form.BLOCK >= node.size
        if node.layout == form.INLINE and is_last:
            return self._read(nid * form.SLOT + form.INODE_SIZE + node.xattr_size, size)
        return self._read((node.where + number) * form.BLOCK, size)

    def _read(self, offset: int, size: int) -> bytes:
        return os.pread(self._fd, size, offset)
