"""Records of the EROFS on-disk format that a metadata-only image needs.

Pure functions from values to bytes. Source: erofs.docs.kernel.org, «ondisk»; kernel
fs/erofs/{erofs_fs.h,super.c,inode.c,dir.c,xattr.h} of Linux 6.18.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence

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
#: An inode and the one chunk that most files have.
_FILE = struct.Struct("<HHHHQIIIIqII16xHHI")
_DIRENT = struct.Struct("<QHBB")
_XATTR_HEADER = struct.Struct("<IB7x")
_XATTR = struct.Struct("<BBH")
_LARGEST_XATTR = 4 + 255 + 0xFFFF  # bytes of one encoded entry
_NS = 10**9

_XATTR_PREFIXES = (
    (b"user.", 1),
    (b"system.posix_acl_access", 2),
    (b"system.posix_acl_default", 3),
    (b"trusted.", 4),
    (b"security.", 6),
)

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


def plain_file(
    mode: int, uid: int, gid: int, mtime_ns: int, *, number: int, size: int, device: int, block: int
) -> bytes:
    """A file without xattrs that lies in one piece on *device*; at most 1 TiB, not empty."""
    bits = max((size - 1).bit_length() - BLOCK_BITS, 0)
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


# ---- reading back, for what was written above


class Inode(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """The fields of an extended inode that folders need; *owner.mode* with its S_IF bits."""

    layout: int
    xattr_size: int
    size: int
    where: int
    owner: Owner


def read_inode(record: bytes) -> Inode:
    form, xattr_count, mode, _, size, where, _, uid, gid, seconds, ns, _ = _INODE.unpack(record)
    return Inode(
        layout=form >> 1,
        xattr_size=_XATTR_HEADER.size + 4 * (xattr_count - 1) if xattr_count else 0,
        size=size,
        where=where,
        owner=Owner(mode=mode, uid=uid, gid=gid, mtime_ns=seconds * _NS + ns),
    )


def read_directory_block(block: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(name, nid, file type) of each entry."""
    heads = [_DIRENT.unpack_from(block, at) for at in range(0, _DIRENT.unpack_from(block)[1], _DIRENT.size)]
    ends = [head[1] for head in heads[1:]] + [len(block)]
    for (nid, start, file_type, _), end in zip(heads, ends, strict=True):
        yield block[start:end].rstrip(b"\0"), nid, file_type


def read_xattrs(block: bytes, read: Callable[[int, int], bytes]) -> dict[bytes, bytes]:
    """Attributes from the block behind an inode; *read* gives bytes of the image (offset, size), for shared ones."""
    if not block:
        return {}
    _, shared = _XATTR_HEADER.unpack_from(block)
    at = _XATTR_HEADER.size + 4 * shared
    found = [
        read(4 * number, _LARGEST_XATTR) for number in struct.unpack_from(f"<{shared}I", block, _XATTR_HEADER.size)
    ]
    while at < len(block):
        length, _, size = _XATTR.unpack_from(block, at)
        found.append(block[at:])
        at += -(-(_XATTR.size + length + size) // 4) * 4
    return dict(_read_xattr(entry) for entry in found)


def _read_xattr(entry: bytes) -> tuple[bytes, bytes]:
    length, index, size = _XATTR.unpack_from(entry)
    prefix = next(prefix for prefix, number in _XATTR_PREFIXES if number == index)
    start = _XATTR.size + length
    return prefix + entry[_XATTR.size : start], entry[start : start + size]
