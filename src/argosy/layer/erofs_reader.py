"""Reads the index that `erofs.IndexBuilder` wrote, and file data by way of it; no reader for other people's images.

The index is ours but lies on a disk: every part that is followed is bounded, each
folder has one place, and all parts together may not be larger than the index, so that
a damaged one ends in Corrupt and never in a loop. 100,000 entries take 0.3 s.
"""

from __future__ import annotations

import mmap
import os
import stat
import struct
from typing import TYPE_CHECKING

from ..errors import Corrupt
from ..linux.files import reporting
from . import erofs_format as form
from .contents import Node
from .entry import NO_XATTRS, PATH_LIMIT
from .folder import FolderFacts
from .pax import is_overlay_xattr
from .whiteouts import OPAQUE_XATTR

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from .contents import NodeKind

_OPAQUE = b"trusted." + OPAQUE_XATTR
_FORMAT = 0o170000  # S_IFMT
_INDEX, _TAR = 0, 1  # devices
_LARGE = 1 << 28  # bytes; larger indexes (of odd sparse files) are mapped: a failing disk then ends the process
_KINDS: dict[int, NodeKind] = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "symlink",
    stat.S_IFCHR: "character",
    stat.S_IFBLK: "block",
    stat.S_IFIFO: "fifo",
}
#: What the functions of erofs_format raise for bytes that they did not write.
_DAMAGE = (struct.error, KeyError, IndexError, ValueError, OverflowError)

#: (first byte of the file, number of bytes, device, first byte on the device)
Stretch = tuple[int, int, int, int]


class IndexReader:
    """An open index; LayerContents, whose nodes have the nid as inode.

    *tar* is the layer itself, needed for `read` alone; *implied* are its folders that it
    does not describe.
    """

    def __init__(self, index: str, tar: str = "", implied: Iterable[bytes] = ()) -> None:
        self._path = index
        self._tar = tar
        self._tar_fd = -1
        with reporting("read", index):
            self._image = _whole(index)
        self._left = len(self._image)  # bytes that nothing found so far takes up
        #: {nid of a folder: {name: nid}}
        self._names: dict[int, dict[bytes, int]] = {}
        #: {nid of a folder: what is in it}
        self._children: dict[int, dict[bytes, Node]] = {}
        #: {nid: node} of what has several names or was asked for alone
        self._nodes: dict[int, Node] = {}
        self._folders = {form.ROOT_NID}  # nids that have their place
        if not form.is_superblock(self._image):
            raise self._damaged("it does not begin as one")
        self._implied = frozenset[int]()
        self._implied = frozenset(nid for path in implied if (nid := self._find(path)) is not None)
        self.root = self._checked(form.ROOT_NID)

    def __enter__(self) -> IndexReader:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._tar_fd >= 0:
            os.close(self._tar_fd)
        if isinstance(self._image, mmap.mmap):
            self._image.close()

    # ---- LayerContents

    def children(self, folder: Node) -> Mapping[bytes, Node]:
        found = self._children.get(folder.inode)
        if found is None:
            try:
                found = {name: self._node(nid) for name, nid in self._listed(folder.inode).items()}
            except _DAMAGE as error:
                raise self._damaged(error) from error
            self._place(found)
            self._children[folder.inode] = found
        return found

    def read(self, file: Node, offset: int, size: int) -> bytes:
        at, end = offset, min(offset + size, file.size)
        if at >= end:
            return b""
        pieces = []
        try:
            for start, length, device, place in self._stretches(file.inode, offset, end):
                first, last = max(start, at), min(start + length, end)
                pieces += [bytes(first - at), self._data(device, place + first - start, last - first)]
                at = last
        except _DAMAGE as error:
            raise self._damaged(error) from error
        return b"".join([*pieces, bytes(end - at)])

    # ---- look-ups of one folder

    def folder(self, path: bytes) -> FolderFacts | bool:
        """The folder at *path*; False when nothing is there, True when something else is (a file, a whiteout)."""
        node = self.root
        for name in path.split(b"/") if path else ():
            if node.kind != "folder":
                return True
            nid = self._checked_names(node.inode).get(name)
            if nid is None:
                return False
            node = self._checked(nid)
        if node.kind != "folder":
            return True
        return FolderFacts(
            mode=node.mode, uid=node.uid, gid=node.gid, mtime_ns=node.mtime_ns, opaque=node.opaque, xattrs=node.xattrs
        )

    def _find(self, path: bytes) -> int | None:
        nid = form.ROOT_NID
        for name in path.split(b"/"):
            found = self._checked_names(nid).get(name)
            if found is None:
                return None
            nid = found
        return nid

    # ---- records

    def _checked(self, nid: int) -> Node:
        try:
            node = self._nodes[nid] = self._node(nid)
        except _DAMAGE as error:
            raise self._damaged(error) from error
        return node

    def _checked_names(self, nid: int) -> dict[bytes, int]:
        try:
            return self._listed(nid)
        except _DAMAGE as error:
            raise self._damaged(error) from error

    def _listed(self, nid: int) -> dict[bytes, int]:
        """{name: nid} of a folder."""
        found = self._names.get(nid)
        if found is None:
            inode = form.read_inode(self._image, nid)
            if not stat.S_ISDIR(inode.mode):
                raise ValueError("a folder that is none")
            found = self._names[nid] = dict(form.read_directory(self._inline(nid, inode)))
        return found

    def _node(self, nid: int) -> Node:
        known = self._nodes.get(nid)
        if known is not None:
            return known
        inode = form.read_inode(self._image, nid)
        self._take(form.INODE_SIZE + inode.xattr_size)
        kind = _KINDS[inode.mode & _FORMAT]
        xattrs, opaque = self._xattrs(nid, inode) if inode.xattr_size else (NO_XATTRS, False)
        if kind == "file":
            stored = form.stored_size(self._image, nid, inode)
            node = _node_of(nid, inode, kind, xattrs, size=inode.size, stored=stored)
        elif kind == "folder":
            node = _node_of(nid, inode, kind, xattrs, opaque=opaque, implied=nid in self._implied)
        elif kind == "symlink":
            node = _node_of(nid, inode, kind, xattrs, target=self._text(nid, inode))
        elif kind == "fifo":
            node = _node_of(nid, inode, kind, xattrs)
        elif kind == "character" and not inode.where:
            node = Node(kind="whiteout", inode=nid)
        else:
            node = _node_of(nid, inode, kind, xattrs, major=os.major(inode.where), minor=os.minor(inode.where))
        if inode.links > 1 and kind != "folder":
            self._nodes[nid] = node
        return node

    def _xattrs(self, nid: int, inode: form.Inode) -> tuple[Mapping[bytes, bytes], bool]:
        """(attributes, whether they make the folder opaque)."""
        found = form.read_xattrs(self._image, nid * form.SLOT + form.INODE_SIZE, inode.xattr_size)
        kept = {name: value for name, value in found.items() if not is_overlay_xattr(name)}
        return kept or NO_XATTRS, found.get(_OPAQUE) == b"y"

    def _text(self, nid: int, inode: form.Inode) -> bytes:
        if inode.size > PATH_LIMIT:
            raise ValueError("a link's text that is too long")
        return self._inline(nid, inode)

    def _inline(self, nid: int, inode: form.Inode) -> bytes:
        """Data of a folder or link: whole blocks somewhere, the rest perhaps behind the inode."""
        if inode.layout == form.CHUNKED:
            raise ValueError("a folder or link whose data is elsewhere")
        self._take(inode.size)
        tail = (inode.size - 1) % form.BLOCK + 1 if inode.layout == form.INLINE and inode.size else 0
        head, behind = inode.where * form.BLOCK, nid * form.SLOT + form.INODE_SIZE + inode.xattr_size
        data = self._image[head : head + inode.size - tail] if inode.size > tail else b""
        data += self._image[behind : behind + tail]
        if len(data) != inode.size:
            raise ValueError("data behind the end")
        return data

    # ---- data of files

    def _stretches(self, nid: int, first: int, end: int) -> Iterator[Stretch]:
        """Where the bytes of a file from *first* to *end* lie; what is not named is a hole."""
        inode = form.read_inode(self._image, nid)
        if inode.layout != form.CHUNKED:
            raise ValueError("a file whose data is not elsewhere")
        bits = form.BLOCK_BITS
        for start, count, device, block in form.read_runs(self._image, nid, inode, first, end):
            yield start << bits, count << bits, device, block << bits

    def _data(self, device: int, at: int, size: int) -> bytes:
        if device not in (_INDEX, _TAR):
            raise self._damaged("data on no device")
        if device == _TAR:
            with reporting("read", self._tar):
                if self._tar_fd < 0:
                    self._tar_fd = os.open(self._tar, os.O_RDONLY | os.O_CLOEXEC)
                data = _read_at(self._tar_fd, at, size)
        else:
            data = self._image[at : at + size]
        if len(data) != size:
            raise self._damaged("data behind the end")
        return data

    # ---- limits

    def _take(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise ValueError("its parts overlap")

    def _place(self, children: Mapping[bytes, Node]) -> None:
        """Each folder may lie in one folder only, or a walk might never end."""
        for node in children.values():
            if node.kind == "folder":
                if node.inode in self._folders:
                    raise self._damaged("a folder has two places")
                self._folders.add(node.inode)

    def _damaged(self, why: str | Exception) -> Corrupt:
        known = isinstance(why, str) or type(why) is ValueError
        return Corrupt(
            f"the index {self._path} is damaged",
            code="layer-index-damaged",
            context=str(why) if known else "a record that cannot be",
            hint="argosy check --repair removes the layer; it is made again when it is needed",
        )


def _node_of(
    nid: int,
    inode: form.Inode,
    kind: NodeKind,
    xattrs: Mapping[bytes, bytes],
    *,
    size: int = 0,
    stored: int = 0,
    target: bytes = b"",
    major: int = 0,
    minor: int = 0,
    opaque: bool = False,
    implied: bool = False,
) -> Node:
    return Node(
        kind=kind,
        inode=nid,
        mode=inode.mode & 0o7777,
        uid=inode.uid,
        gid=inode.gid,
        mtime_ns=inode.mtime_ns,
        size=size,
        stored=stored,
        links=1 if kind == "folder" else inode.links,
        target=target,
        major=major,
        minor=minor,
        xattrs=xattrs,
        opaque=opaque,
        implied=implied,
    )


def _whole(path: str) -> form.Image:
    """The bytes of a file: read at once, so that a disk that fails is an error here and no signal later."""
    with open(path, "rb", buffering=0) as file:  # by its path: of a folder's descriptor open() would not let go
        if os.fstat(file.fileno()).st_size > _LARGE:
            return mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
        return file.read()


def _read_at(fd: int, at: int, size: int) -> bytes:
    data = os.pread(fd, size, at)
    while len(data) < size and (more := os.pread(fd, size - len(data), at + len(data))):
        data += more
    return data
