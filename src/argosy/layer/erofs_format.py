"""Records of the EROFS on-disk format that a metadata-only image needs.

Pure functions from values to bytes. Source: erofs.docs.kernel.org, «ondisk»; kernel
fs/erofs/{erofs_fs.h,super.c,inode.c,dir.c,xattr.h} of Linux 6.18.
"""

from __future__ import annotations

import struct
from array import array
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence
    from mmap import mmap

    Image = bytes | mmap

BLOCK_BITS = 9  # data of a tar is aligned to 512 bytes, so blocks must be as small; Linux 6.4 and later
BLOCK = 1 << BLOCK_BITS
SLOT = 32  # bytes; the unit of inode numbers («nid»): nid = offset in the image / 32
SUPERBLOCK_OFFSET = 1024
DEVICE_SLOT = 9  # of 128 bytes: right behind the superblock
ROOT_OFFSET = (DEVICE_SLOT + 1) * 128
ROOT_NID = ROOT_OFFSET // SLOT
BODY_OFFSET = 4096  # the first inode but the root's; what lies between is kept for the root's xattrs

FLAT, INLINE, CHUNKED = 0, 2, 4  # layouts of data
NO_BLOCK = 0xFFFFFFFF
MOST_BLOCKS = NO_BLOCK - 1
MOST_CHUNK_BITS = 31

REGULAR, DIRECTORY, CHARACTER, BLOCK_DEVICE, FIFO, SOCKET, SYMLINK = range(1, 8)  # file types of directory entries
#: {file type: S_IF* bits}
FORMATS = {
    REGULAR: 0o100000,
    DIRECTORY: 0o040000,
    CHARACTER: 0o020000,
    BLOCK_DEVICE: 0o060000,
    FIFO: 0o010000,
    SYMLINK: 0o120000,
}

_MAGIC = 0xE0F5E1E2
_COMPAT = 1 | 2  # SB_CHKSUM, MTIME
_INCOMPAT = 4 | 8  # CHUNKED_FILE, DEVICE_TABLE
_SUPERBLOCK = struct.Struct("<IIIBBHQQIIII16s16sIHHH38x")
_DEVICE = struct.Struct("<64sII56x")
_INODE = struct.Struct("<HHHHQIIIIqII16x")
INODE_SIZE = _INODE.size
_CHUNK = struct.Struct("<HHI")
#: An inode and the one chunk that most files have, up to the next slot.
_FILE = struct.Struct("<HHHHQIIIIqII16xHHI24x")
_DIRENT = struct.Struct("<QHBB")
_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR = struct.Struct("<BBH")
_NS = 10**9

_XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)
_XATTR_SPACES = {index: prefix for prefix, index in _XATTR_PREFIXES}
_INODE_FORMS = tuple(1 | layout << 1 for layout in (FLAT, INLINE, CHUNKED))  # the extended ones alone
_DOTS = (b".", b"..")

#: (first block of the file, number of blocks, device, first block on the device); device 0 is the image itself
Run = tuple[int, int, int, int]


class Owner(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What every inode carries."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int


def inode(
    file_type: int,
    owner: Owner,
    *,
    number: int,
    size: int = 0,
    layout: int = FLAT,
    where: int = NO_BLOCK,
    links: int = 1,
    xattrs: bytes = b"",
) -> bytes:
    """An extended inode with its xattrs; *where* is the first block, chunk format or device number."""
    seconds, ns = divmod(owner.mtime_ns, _NS)
    return (
        _INODE.pack(
            1 | layout << 1,
            xattr_count(xattrs),
            FORMATS[file_type] | owner.mode,
            0,
            size,
            where,
            number,
            owner.uid,
            owner.gid,
            seconds,
            ns,
            links,
        )
        + xattrs
    )


class Placement(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """Where an inode with data of its own goes; byte positions in the image."""

    layout: int
    data: int
    inode: int
    end: int


def place(position: int, head: int, size: int) -> Placement:
    """The first places from *position* on for *size* > 0 bytes and their inode, whose record and xattrs take *head*.

    Whole blocks go first. The rest sits behind the inode if it can do so without
    crossing a block, otherwise in a block of its own.
    """
    tail = (size - 1) % BLOCK + 1
    data = position + -position % BLOCK if size > tail else position
    start = data + size - tail
    for inode_at in range(start + -start % SLOT, start + BLOCK, SLOT):
        if (inode_at + head) // BLOCK == (inode_at + head + tail - 1) // BLOCK:
            return Placement(layout=INLINE, data=data, inode=inode_at, end=inode_at + head + tail)
    data = position + -position % BLOCK
    start = data + size - tail + BLOCK
    return Placement(layout=FLAT, data=data, inode=start, end=start + head)


#: Where an inode has its number of links.
LINKS_OFFSET = 44
LINKS = struct.Struct("<I")


def plain_file(mode: int, uid: int, gid: int, mtime_ns: int, number: int, size: int, device: int, block: int) -> bytes:
    """A file without xattrs that lies in one piece on *device*; at most 1 TiB, not empty. Whole slots."""
    bits = (size - 1).bit_length() - BLOCK_BITS if size > BLOCK else 0
    seconds, ns = divmod(mtime_ns, _NS)
    return _FILE.pack(
        1 | CHUNKED << 1, 0, 0o100000 | mode, 0, size, bits | 0x20, number, uid, gid, seconds, ns, 1, 0, device, block
    )


def chunk_bits(size: int, runs: Sequence[Run]) -> int:
    """log2 of the largest chunk, in blocks, such that no chunk straddles the border of a run."""
    bits = min(max((size - 1).bit_length() - BLOCK_BITS, 0), MOST_CHUNK_BITS)
    end = -(-size // BLOCK)
    borders = 0
    for start, count, _, _ in runs:
        borders |= start
        if start + count < end:
            borders |= start + count
    return min(bits, (borders & -borders).bit_length() - 1) if borders else bits


def chunk_count(size: int, bits: int) -> int:
    return -(-size // (BLOCK << bits))


def chunk_table(size: int, bits: int, runs: Sequence[Run]) -> bytes:
    """Indexes of a chunked file; what no run covers is a hole."""
    table = bytearray(_CHUNK.pack(0, 0, NO_BLOCK) * chunk_count(size, bits))
    for start, count, device, block in runs:
        for skipped in range(0, count, 1 << bits):
            _CHUNK.pack_into(table, ((start + skipped) >> bits) * 8, 0, device, block + skipped)
    return bytes(table)


def device_number(major: int, minor: int) -> int:
    """The kernel's new_encode_dev."""
    return minor & 0xFF | major << 8 | (minor & ~0xFF) << 12


def xattr_entries(attributes: Mapping[bytes, bytes]) -> list[bytes]:
    """One encoded entry an attribute, sorted by name; names outside the five known spaces cannot be kept."""
    found = []
    for name in sorted(attributes):
        for prefix, index in _XATTR_PREFIXES:
            if name.startswith(prefix):
                value, suffix = attributes[name], name[len(prefix) :]
                entry = _XATTR.pack(len(suffix), index, len(value)) + suffix + value
                found.append(entry + bytes(-len(entry) % 4))
                break
    return found


def inline_xattrs(entries: Sequence[bytes]) -> bytes:
    """The block of xattrs behind an inode."""
    return _XATTR_HEADER.pack(0, 0) + b"".join(entries) if entries else b""


def shared_xattrs(offsets: Iterable[int]) -> bytes:
    """As inline_xattrs, with entries that lie at byte *offsets* of the image."""
    ids = [offset // 4 for offset in offsets]
    return _XATTR_HEADER.pack(0, len(ids)) + struct.pack(f"<{len(ids)}I", *ids)


def xattr_count(encoded: bytes) -> int:
    """i_xattr_icount for a block of xattrs of this size."""
    return (len(encoded) - _XATTR_HEADER.size) // 4 + 1 if encoded else 0


def directory_blocks(names: Iterable[tuple[bytes, int, int]]) -> list[bytes]:
    """Directory data from (name, nid, file type) sorted by name; every block but the last is full size."""
    blocks: list[bytes] = []
    batch: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in names:
        used += 12 + len(entry[0])
        if used > BLOCK:
            blocks.append(_directory_block(batch).ljust(BLOCK, b"\0"))
            batch, used = [], 12 + len(entry[0])
        batch.append(entry)
    blocks.append(_directory_block(batch))
    return blocks


def _directory_block(batch: Sequence[tuple[bytes, int, int]]) -> bytes:
    at = 12 * len(batch)
    heads = []
    for name, nid, file_type in batch:
        heads.append(_DIRENT.pack(nid, at, file_type, 0))
        at += len(name)
    return b"".join(heads) + b"".join([name for name, _, _ in batch])


def directory_sizes(names: Iterable[bytes]) -> tuple[int, int]:
    """(number of blocks, bytes used in the last) of the directory_blocks for *names*."""
    blocks, used = 1, 0
    for name in names:
        size = 12 + len(name)
        if used + size > BLOCK:
            blocks += 1
            used = 0
        used += size
    return blocks, used


def superblock(*, inodes: int, blocks: int, uuid: bytes, tag: bytes, device_blocks: int) -> bytes:
    """Superblock and table of one device, for SUPERBLOCK_OFFSET; the root's inode follows, then see with_checksum."""
    head = _SUPERBLOCK.pack(
        _MAGIC, 0, _COMPAT, BLOCK_BITS, 0, ROOT_NID, inodes, 0, 0, blocks, 0, 0, uuid, b"", _INCOMPAT, 0, 1, DEVICE_SLOT
    )
    return head + _DEVICE.pack(tag[:64], device_blocks, 0)


def with_checksum(block: bytes) -> bytes:
    """The *block* at SUPERBLOCK_OFFSET with the CRC that covers all of it."""
    return block[:4] + struct.pack("<I", crc32c(block)) + block[8:]


def crc32c(data: bytes) -> int:
    """Castagnoli's CRC as EROFS uses it: started with ones, not inverted at the end."""
    crc = 0xFFFFFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    return crc


# ---- reading back, for what was written above; broken records raise what erofs_reader lists


class Inode(msgspec.Struct, frozen=True, gc=False):
    """The fields of an extended inode; *mode* with its S_IF bits."""

    layout: int
    xattr_size: int
    mode: int
    uid: int
    gid: int
    mtime_ns: int
    size: int
    #: first block, chunk format or device number
    where: int
    links: int


def read_inode(image: Image, nid: int) -> Inode:
    form, xattrs, mode, _, size, where, _, uid, gid, seconds, ns, links = _INODE.unpack_from(image, nid * SLOT)
    if form not in _INODE_FORMS:
        raise ValueError(f"an inode of the form {form:#x}")
    xattr_size = _XATTR_HEADER.size + 4 * (xattrs - 1) if xattrs else 0
    return Inode(form >> 1, xattr_size, mode, uid, gid, seconds * _NS + ns, size, where, links)


def read_directory(data: bytes) -> Iterator[tuple[bytes, int]]:
    """(name, nid) of each entry but «.» and «..», from all blocks of a folder."""
    for start in range(0, len(data), BLOCK):
        block = data[start : start + BLOCK]
        heads = block[: _DIRENT.unpack_from(block)[1]]
        nids, starts, _, _ = zip(*_DIRENT.iter_unpack(heads), strict=True)
        for nid, at, end in zip(nids, starts, (*starts[1:], len(block)), strict=True):
            name = block[at:end]
            if end == len(block):
                name = name.rstrip(b"\0")
            if name in _DOTS:
                continue
            if not name or b"/" in name or b"\0" in name:
                raise ValueError("a name that is none")
            yield name, nid


def _chunk_table(nid: int, node: Inode) -> int:
    at = nid * SLOT + INODE_SIZE + node.xattr_size
    return at + -at % 8


def stored_size(image: Image, nid: int, node: Inode) -> int:
    """Bytes of a file that are no holes. Nearly all files have one chunk, a few have millions."""
    if not node.size:
        return 0
    if node.layout != CHUNKED:
        raise ValueError("a file whose data is not elsewhere")
    at, chunk = _chunk_table(nid, node), BLOCK << (node.where & 0x1F)
    if node.size <= chunk:
        return node.size if _CHUNK.unpack_from(image, at)[2] != NO_BLOCK else 0
    count = -(-node.size // chunk)
    if at + 8 * count > len(image):
        raise ValueError("a table of chunks that leaves the image")
    blocks = array("I", image[at : at + 8 * count])[1::2]
    overhang = 0 if blocks[-1] == NO_BLOCK else count * chunk - node.size
    return (count - blocks.count(NO_BLOCK)) * chunk - overhang


def read_runs(image: Image, nid: int, node: Inode, first: int, end: int) -> Iterator[Run]:
    """The parts of a chunked file between its bytes *first* and *end* that are no holes, ascending."""
    at, bits = _chunk_table(nid, node), node.where & 0x1F
    blocks, chunk = -(-node.size // BLOCK), BLOCK << bits
    for number in range(first // chunk, -(-end // chunk)):
        _, device, block = _CHUNK.unpack_from(image, at + number * 8)
        if block != NO_BLOCK:
            start = number << bits
            yield start, min(1 << bits, blocks - start), device, block


def read_xattrs(image: Image, at: int, size: int) -> dict[bytes, bytes]:
    """Attributes from the block of *size* bytes at byte *at*, behind an inode."""
    if not size:
        return {}
    _, shared = _XATTR_HEADER.unpack_from(image, at)
    entries = at + _XATTR_HEADER.size + 4 * shared
    places = [4 * number for number in struct.unpack_from(f"<{shared}I", image, at + _XATTR_HEADER.size)]
    while entries < at + size:
        places.append(entries)
        length, _, value = _XATTR.unpack_from(image, entries)
        entries += -(-(_XATTR.size + length + value) // 4) * 4
    return dict(_read_xattr(image, place) for place in places)


def _read_xattr(image: Image, at: int) -> tuple[bytes, bytes]:
    length, index, size = _XATTR.unpack_from(image, at)
    start = at + _XATTR.size + length
    if start + size > len(image):
        raise ValueError("an attribute that leaves the image")
    return _XATTR_SPACES[index] + image[at + _XATTR.size : start], image[start : start + size]


def is_superblock(image: Image) -> bool:
    """Whether *image* begins as `superblock` has it."""
    if len(image) < BODY_OFFSET:
        return False
    magic, _, _, bits, _, root, *_ = _SUPERBLOCK.unpack_from(image, SUPERBLOCK_OFFSET)
    return bool((magic, bits, root) == (_MAGIC, BLOCK_BITS, ROOT_NID))
