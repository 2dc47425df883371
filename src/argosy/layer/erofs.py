"""Writes the index of a layer: an EROFS image of metadata whose file data is the layer's own tar.

The kernel (Linux 6.12, or 6.4 with loop devices) mounts it with the tar as its only
extra device; nothing is unpacked. The index is written front to back while the tar
streams by: files, links and devices at once, folders at the end. Only names and
inode numbers stay in memory, packed when they are many (erofs_folder.py).
"""

from __future__ import annotations

from hashlib import sha256
from typing import TYPE_CHECKING

from ..errors import Unsupported
from . import erofs_format as form
from .erofs_folder import LOOSE, Folder, Loose
from .faults import link_missing, not_a_folder, nothing_to_hide
from .whiteouts import OPAQUE_XATTR, ORIGIN_XATTR, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from .entry import Entry, Kind

    Read = Callable[[int], bytes]

MOST_LINKS = 40  # symlinks on the way to one entry; MAXSYMLINKS of the kernel
MOST_CHUNKS = 1 << 22  # of one sparse file, 32 MiB of index
_FLUSH = 1 << 20  # bytes gathered before a write
_LARGEST_PLAIN = 1 << 40  # bytes that one chunk covers
_TAR = 1  # device id; 0 is the index itself
_OVERLAY = b"trusted."  # EROFS cannot be mounted in a user namespace, where "user." would be needed
_TYPES: dict[Kind, int] = {
    "file": form.REGULAR,
    "symlink": form.SYMLINK,
    "character": form.CHARACTER,
    "block": form.BLOCK_DEVICE,
    "fifo": form.FIFO,
}


class IndexBuilder:
    """Entries in archive order go into `add`, then `finish` completes the image in *out*.

    *out* is a new seekable file. The same archive gives the same bytes, whatever *loose* is,
    which bounds memory. The later of two entries with one name wins; folders are merged. Links among the parents of an
    entry are followed inside the layer and never out of it, as containerd does; a
    parent that the layer does not have becomes a folder of root with mode 0755 and is
    listed by `implied_folders`, because lower layers may know it better.

    Raises Corrupt: archive-link-missing, archive-parent-not-folder, archive-limit,
    archive-whiteout-invalid; Unsupported (archive-too-large).
    """

    def __init__(self, out: BinaryIO, *, loose: int = LOOSE) -> None:
        self._out = out
        self._pending = bytearray(form.BODY_OFFSET)
        self._written = 0  # bytes of the image that are in *out*
        self._root = Folder()
        #: {path as it came: folder}, links already followed; emptied whenever one of them may have gone
        self._folders: dict[bytes, Folder] = {b"": self._root}
        #: the folder that the last entry went into
        self._turn = self._root
        self._loose = Loose(loose)
        #: {nid: text} of symlinks, which may turn out to be parents
        self._symlinks: dict[int, bytes] = {}
        #: {nid: links} of files with more than one
        self._links: dict[int, int] = {}
        self._inodes = 0
        self._whiteout = 0  # nid of the one inode that all whiteouts share

    # ---- entries

    def add(self, entry: Entry, read: Read) -> None:
        """Take one entry; *read* gives its stored data, wanted only of sparse files that blocks cannot express."""
        path = entry.path
        if b".wh." in path and (mark := mark_of(path)) is not None:
            with nothing_to_hide():
                self._mark(*mark)
            return
        kind = entry.kind
        if kind == "folder":
            self._add_folder(entry)
            return
        parent, _, name = path.rpartition(b"/")
        folder = self._folders.get(parent)
        if folder is None:
            folder = self._resolve(parent)
        if folder is not self._turn:
            self._loose.turn_ends(self._turn, self._inodes)
            self._turn = folder
        if kind == "file":
            child = self._file(entry, read) << 3 | form.REGULAR
        elif kind == "hardlink":
            self._link(entry, folder, name)
            return
        elif kind == "character" and not entry.major and not entry.minor:
            self._hide(folder, name)  # overlayfs takes it for a whiteout, so it is one
            return
        else:
            child = self._special(entry) << 3 | _TYPES[kind]
        children = folder.children
        old = children.get(name)
        if old is not None:
            self._forget(old)
        children[name] = child

    def _mark(self, kind: str, path: bytes) -> None:
        if kind == "opaque":
            self._folder(path).opaque = True
        elif kind == "whiteout":
            parent, _, name = path.rpartition(b"/")
            self._hide(self._folder(parent), name)

    def _hide(self, folder: Folder, name: bytes) -> None:
        """Whiteouts concern lower layers only: what this layer puts under the same name stays, in any order."""
        if folder.hidden is None:
            folder.hidden = set()
        folder.hidden.add(name)

    def _add_folder(self, entry: Entry) -> None:
        if not entry.path:
            folder = self._root
        else:
            parent, _, name = entry.path.rpartition(b"/")
            above = self._folder(parent)
            found = above.children.get(name)
            if isinstance(found, Folder):
                folder = found
            else:
                if found is not None:
                    self._forget(found)
                    del above.children[name]  # the folder is the last, as it is where *found* was packed away
                folder = above.children[name] = Folder()
        folder.implied = False
        folder.owner = _owner(entry)
        folder.xattrs = dict(entry.xattrs)

    def _link(self, entry: Entry, folder: Folder, name: bytes) -> None:
        parent, _, target_name = entry.linkname.rpartition(b"/")
        target = self._folder(parent)
        found = target.children.get(target_name)
        if not isinstance(found, int):
            raise link_missing(entry.path, entry.linkname)
        old = folder.children.get(name)
        if old == found:
            return
        nid = found >> 3
        self._links[nid] = self._links.get(nid, 1) + 1
        if old is not None:  # perhaps the folder that holds the other name
            self._forget(old)
        folder.children[name] = found

    def _forget(self, child: Folder | int) -> None:
        """A name is being taken over: fewer links, and cached paths may lead nowhere."""
        stack = [child]
        while stack:
            gone = stack.pop()
            if isinstance(gone, Folder):
                stack += gone.children.values()
            elif (nid := gone >> 3) in self._links:
                self._links[nid] -= 1
        if isinstance(child, Folder) or child & 7 == form.SYMLINK:
            self._folders = {b"": self._root}

    # ---- parents

    def _folder(self, path: bytes) -> Folder:
        folder = self._folders.get(path)
        return self._resolve(path) if folder is None else folder

    def _resolve(self, path: bytes) -> Folder:
        """The folder at *path* of this layer, with links followed and missing parts made."""
        stack = [self._root]
        names = path.split(b"/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name == b"..":
                del stack[max(len(stack) - 1, 1) :]
            elif name not in (b"", b"."):
                child = stack[-1].children.get(name)
                if child is None:
                    child = stack[-1].children[name] = Folder()
                if isinstance(child, Folder):
                    stack.append(child)
                    continue
                text = self._symlinks.get(child >> 3)
                links += 1
                if text is None or links > MOST_LINKS:
                    raise not_a_folder(path, name, "a link in a circle" if text else "not a folder")
                if text.startswith(b"/"):
                    del stack[1:]
                names += text.split(b"/")[::-1]
        self._folders[path] = stack[-1]
        return stack[-1]

    # ---- inodes

    def _file(self, entry: Entry, read: Read) -> int:
        """Write a file's inode; returns its nid."""
        self._inodes += 1
        size = entry.size
        if (entry.offset + entry.stored) >> form.BLOCK_BITS >= form.MOST_BLOCKS:
            raise _too_large(f"{entry.offset + entry.stored} bytes of archive, EROFS can refer to 2 TiB")
        if not entry.xattrs and entry.extents is None and 0 < size <= _LARGEST_PLAIN:
            pending = self._pending
            nid = (self._written + len(pending)) // form.SLOT
            block = entry.offset >> form.BLOCK_BITS
            pending += form.plain_file(
                entry.mode, entry.uid, entry.gid, entry.mtime_ns, self._inodes, size, _TAR, block
            )
            if len(pending) > _FLUSH:
                self._flush()
            return nid
        xattrs = form.inline_xattrs(form.xattr_entries(entry.xattrs))
        if not size:
            return self._append(form.inode(form.REGULAR, _owner(entry), number=self._inodes, xattrs=xattrs))
        runs = self._runs(entry, read)
        bits = form.chunk_bits(size, runs)
        if form.chunk_count(size, bits) > MOST_CHUNKS:
            raise _too_large(f"a sparse file of {size} bytes in {len(runs)} parts needs an index of its own size")
        record = form.inode(
            form.REGULAR,
            _owner(entry),
            number=self._inodes,
            size=size,
            layout=form.CHUNKED,
            where=bits | 0x20,
            xattrs=xattrs,
        )
        return self._append(record + bytes(-len(record) % 8) + form.chunk_table(size, bits, runs))

    def _runs(self, entry: Entry, read: Read) -> list[form.Run]:
        """Blocks of the file's data: in the tar where they are aligned, else copied into the index."""
        if entry.extents is None:
            return [(0, _blocks(entry.size), _TAR, entry.offset >> form.BLOCK_BITS)]
        if any(
            start % form.BLOCK or (length % form.BLOCK and start + length != entry.size)
            for start, length in entry.extents
        ):
            return [self._spilled(extents, read) for extents in _touching(entry.extents)]
        runs, at = [], entry.offset
        for start, length in entry.extents:
            runs.append((start >> form.BLOCK_BITS, _blocks(length), _TAR, at >> form.BLOCK_BITS))
            at += length
        return runs

    def _spilled(self, extents: list[tuple[int, int]], read: Read) -> form.Run:
        """Copy parts of a file that share blocks into the index, zeros between them."""
        first = extents[0][0] >> form.BLOCK_BITS
        self._fill_to(_aligned(self._position))
        block = self._position >> form.BLOCK_BITS
        origin = self._position - (first << form.BLOCK_BITS)
        for start, length in extents:
            self._fill_to(origin + start)
            while length:
                piece = read(min(length, _FLUSH))
                length -= len(piece)
                self._put(piece)
        self._fill_to(_aligned(self._position))
        return first, (self._position >> form.BLOCK_BITS) - block, 0, block

    def _special(self, entry: Entry) -> int:
        """Write the inode of a symlink, device or pipe; returns its nid."""
        self._inodes += 1
        xattrs = form.inline_xattrs(form.xattr_entries(entry.xattrs))
        if entry.kind == "symlink":
            place = form.place(self._position, form.INODE_SIZE + len(xattrs), len(entry.linkname))
            # Linux knows one mode for links; archives say others, and overlayfs would show them.
            owner = form.Owner(mode=0o777, uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns)
            nid = self._place(form.SYMLINK, owner, place, entry.linkname, xattrs)
            self._symlinks[nid] = entry.linkname
            return nid
        where = form.device_number(entry.major, entry.minor) if entry.kind != "fifo" else 0
        record = form.inode(_TYPES[entry.kind], _owner(entry), number=self._inodes, where=where, xattrs=xattrs)
        return self._append(record)

    def _place(
        self, file_type: int, owner: form.Owner, place: form.Placement, data: bytes, xattrs: bytes, links: int = 1
    ) -> int:
        """Write data and inode where *place* says; returns the nid."""
        cut = (len(data) - 1) // form.BLOCK * form.BLOCK if place.layout == form.INLINE else len(data)
        if cut:
            self._fill_to(place.data)
            self._put(data[:cut])
        self._fill_to(place.inode)
        record = form.inode(
            file_type,
            owner,
            number=self._inodes,
            size=len(data),
            layout=place.layout,
            where=place.data >> form.BLOCK_BITS if cut else form.NO_BLOCK,
            links=links,
            xattrs=xattrs,
        )
        return self._append(record + data[cut:])

    # ---- the end

    def finish(self, diff_id_hex: str, tar_size: int) -> None:
        """Write folders and superblock. *diff_id_hex* names the tar in the image; the uuid is made of it."""
        folders = self._settled()
        self._plan(folders)
        for folder, above in folders[1:]:
            self._write_folder(folder, above)
        root = self._write_root()
        self._fill_to(_aligned(self._position))
        self._flush()
        self._patch_links()
        tag = diff_id_hex.encode()
        head = form.superblock(
            inodes=self._inodes,
            blocks=self._written >> form.BLOCK_BITS,
            uuid=sha256(b"argosy layer index, version 1: " + tag).digest()[:16],
            tag=tag,
            device_blocks=_blocks(tar_size),
        )
        block = (head + root).ljust(form.BLOCK, b"\0")
        self._out.seek(form.SUPERBLOCK_OFFSET)
        self._out.write(form.with_checksum(block[: form.BLOCK]) + block[form.BLOCK :])
        self._out.flush()

    def implied_folders(self) -> Iterator[bytes]:
        """Paths of folders that entries lie in but that the layer itself does not describe; the root never counts."""
        stack: list[tuple[bytes, Folder]] = [(b"", self._root)]
        while stack:
            path, folder = stack.pop()
            if folder.implied and path:
                yield path
            prefix = path + b"/" if path else b""
            stack += [(prefix + name, child) for name, child in folder.folders()]

    def _settled(self) -> list[tuple[Folder, Folder]]:
        """(folder, the one above it), parents first, whiteouts in place."""
        found = [(self._root, self._root)]
        for folder, _ in found:
            if folder.hidden is not None:
                self._settle_whiteouts(folder, folder.hidden)
            found += [(child, folder) for _, child in folder.folders()]
        return found

    def _settle_whiteouts(self, folder: Folder, hidden: set[bytes]) -> None:
        if not self._whiteout:
            self._inodes += 1
            owner = form.Owner(mode=0, uid=0, gid=0, mtime_ns=0)
            self._whiteout = self._append(form.inode(form.CHARACTER, owner, number=self._inodes, where=0))
            self._links[self._whiteout] = 0
        for name in sorted(hidden):
            child = folder.children.get(name)
            if child is None:
                folder.children[name] = self._whiteout << 3 | form.CHARACTER
                self._links[self._whiteout] += 1
            elif isinstance(child, Folder):
                child.opaque = True  # the lower folder goes, this one stays
            # any other file hides the lower one by being there

    def _plan(self, folders: list[tuple[Folder, Folder]]) -> None:
        """Give each folder its place, because parents and children name each other."""
        position = self._position
        self._root.nid = form.ROOT_NID
        for folder, _ in folders[1:]:
            blocks, used = form.directory_sizes(sorted([b".", b"..", *folder.children]))
            self._loose.tidy(folder)
            xattrs = form.inline_xattrs(_folder_xattrs(folder))
            place = form.place(position, form.INODE_SIZE + len(xattrs), (blocks - 1) * form.BLOCK + used)
            folder.nid, folder.place, position = place.inode // form.SLOT, place, place.end

    def _write_folder(self, folder: Folder, above: Folder) -> None:
        assert folder.place is not None
        self._inodes += 1
        xattrs = form.inline_xattrs(_folder_xattrs(folder))
        self._place(form.DIRECTORY, folder.owner, folder.place, _data_of(folder, above), xattrs, _links_of(folder))
        self._loose.tidy(folder)

    def _write_root(self) -> bytes:
        """Write what belongs to the root; returns its inode, which has a fixed place at the start."""
        self._inodes += 1
        data = _data_of(self._root, self._root)
        self._fill_to(_aligned(self._position))
        where = self._position >> form.BLOCK_BITS
        self._put(data)
        self._fill_to(_aligned(self._position))
        entries = _folder_xattrs(self._root)
        xattrs = form.inline_xattrs(entries)
        if form.INODE_SIZE + len(xattrs) > form.BODY_OFFSET - form.ROOT_OFFSET:
            xattrs = self._shared(entries)
        return form.inode(
            form.DIRECTORY,
            self._root.owner,
            number=self._inodes,
            size=len(data),
            where=where,
            links=_links_of(self._root),
            xattrs=xattrs,
        )

    def _shared(self, entries: list[bytes]) -> bytes:
        if len(entries) > 255:
            raise _too_large(f"the root folder has {len(entries)} extended attributes")
        offsets = []
        for entry in entries:
            offsets.append(self._position)
            self._put(entry)
        return form.shared_xattrs(offsets)

    def _patch_links(self) -> None:
        for nid, count in self._links.items():
            self._out.seek(nid * form.SLOT + form.LINKS_OFFSET)
            self._out.write(form.LINKS.pack(max(count, 1)))

    # ---- the image

    @property
    def _position(self) -> int:
        return self._written + len(self._pending)

    def _append(self, record: bytes) -> int:
        """Add an inode at the next slot; returns its nid."""
        pending = self._pending
        nid = (self._written + len(pending)) // form.SLOT
        pending += record
        pending += bytes(-len(pending) % form.SLOT)  # what was written before is whole slots
        if len(pending) > _FLUSH:
            self._flush()
        return nid

    def _put(self, data: bytes) -> None:
        self._pending += data

    def _fill_to(self, position: int) -> None:
        self._pending += bytes(position - self._position)
        if len(self._pending) > _FLUSH and not position % form.BLOCK:
            self._flush()

    def _flush(self) -> None:
        self._out.write(self._pending)
        self._written += len(self._pending)
        self._pending = bytearray()


def _owner(entry: Entry) -> form.Owner:
    return form.Owner(mode=entry.mode, uid=entry.uid, gid=entry.gid, mtime_ns=entry.mtime_ns)


def _folder_xattrs(folder: Folder) -> list[bytes]:
    if not folder.xattrs and not folder.opaque and folder.hidden is None:
        return []
    marks = {}
    if folder.opaque:
        marks[_OVERLAY + OPAQUE_XATTR] = b"y"
    if folder.hidden is not None:
        # Tells overlayfs to look for whiteouts also where it merges nothing; without it
        # a folder that no lower layer has would list the names that it hides.
        marks[_OVERLAY + ORIGIN_XATTR] = b""
    return form.xattr_entries(folder.xattrs | marks)


def _links_of(folder: Folder) -> int:
    return 2 + sum(1 for _ in folder.folders())


def _data_of(folder: Folder, above: Folder) -> bytes:
    """Directory data; all nids are known by now."""
    names = [(b".", folder.nid, form.DIRECTORY), (b"..", above.nid, form.DIRECTORY)]
    for name, child in folder.children.items():
        if isinstance(child, Folder):
            names.append((name, child.nid, form.DIRECTORY))
        else:
            names.append((name, child >> 3, child & 7))
    names.sort()
    return b"".join(form.directory_blocks(names))


def _touching(extents: tuple[tuple[int, int], ...]) -> Iterator[list[tuple[int, int]]]:
    """Extents in groups whose blocks overlap or adjoin."""
    group: list[tuple[int, int]] = []
    for start, length in extents:
        if group and start >> form.BLOCK_BITS > _blocks(sum(group[-1])):
            yield group
            group = []
        group.append((start, length))
    if group:
        yield group


def _blocks(size: int) -> int:
    return -(-size // form.BLOCK)


def _aligned(position: int) -> int:
    return position + -position % form.BLOCK


def _too_large(why: str) -> Unsupported:
    return Unsupported("the layer is too large for an EROFS index", code="archive-too-large", context=why)
