"""Fields of a tar header block, decoded.

Source: POSIX.1-2017 pax, «ustar Interchange Format»; GNU tar manual, «Basic Tar Format».
"""

from __future__ import annotations

import re
from struct import Struct
from zlib import adler32

from .pax import damaged

BLOCK = 512  # bytes; headers are one block, data is filled up to whole blocks
_FIELDS = Struct("100x24s12s12s8s").unpack_from  # mode, uid and gid; size; mtime; checksum
_OWNER = re.compile(rb"([0-7]{7})[\0 ]([0-7]{7})[\0 ]([0-7]{7})[\0 ]", re.DOTALL)
_NUMBER = re.compile(rb"([0-7]{11})[\0 ]", re.DOTALL)  # size, mtime
_CHECKSUM = re.compile(rb"([0-7]{6})[\0 ]{2}", re.DOTALL)
_ADLER_BASE = 65521
_MOST_KNOWN = 10_000
DEVICE_LIMITS = (1 << 12, 1 << 20)  # major, minor of Linux


def verify(block: bytes, checksum: int, position: int) -> None:
    """The sum of all bytes with the checksum field as spaces; old Sun tars summed signed bytes.

    adler32 starts with the plain sum of the bytes modulo 65521, which 256 bytes cannot
    exceed: twenty times faster than sum().
    """
    total = (adler32(block[:256]) & 0xFFFF) + (adler32(block[256:]) & 0xFFFF) - 2
    total += 256 - sum(block[148:156])
    if total == checksum:
        return
    high = sum(1 for byte in block if byte > 127) - sum(1 for byte in block[148:156] if byte > 127)
    if total - 256 * high != checksum:
        raise damaged("a header has the wrong checksum", position - BLOCK)


class Plain:
    """Reads the numbers of headers in the common form: octal digits and one terminator a field.

    Layers hold few different owners, modes, times, sizes and checksums, so what a field means is looked up.
    """

    def __init__(self) -> None:
        #: {mode, uid and gid as they stand in the header: their values}
        self._owners: dict[bytes, tuple[int, int, int]] = {}
        #: {checksum field: sum of all 512 bytes, itself included, modulo adler32's base}
        self._sums: dict[bytes, int] = {}
        #: {size or mtime field: its value}
        self._known: dict[bytes, int] = {}

    def numbers(self, block: bytes) -> tuple[int, int, int, int, int] | None:
        """(mode, uid, gid, size, mtime) when all are in the common form and the checksum is right; None otherwise."""
        of_owner, of_size, of_mtime, of_sum = _FIELDS(block)
        owner = self._owners.get(of_owner) or self._owner(of_owner)
        expected = self._sums.get(of_sum) or self._sum(of_sum)
        known = self._known
        size, mtime = known.get(of_size), known.get(of_mtime)
        if size is None:
            size = self._number(of_size)
        if mtime is None:
            mtime = self._number(of_mtime)
        # adler32 begins with the plain sum modulo 65521, and is twenty times faster than sum().
        if owner is None or size < 0 or mtime < 0 or adler32(block) & 0xFFFF != expected:
            return None
        mode, uid, gid = owner
        return mode, uid, gid, size, mtime

    def is_sound(self, block: bytes) -> bool:
        """Whether the checksum is right, and in the common form."""
        expected = self._sums.get(block[148:156]) or self._sum(block[148:156])
        return adler32(block) & 0xFFFF == expected

    def _number(self, field: bytes) -> int:
        match = _NUMBER.fullmatch(field)
        if match is None:
            return -1
        if len(self._known) > _MOST_KNOWN:
            self._known.clear()
        known = self._known[field] = int(match[1], 8)
        return known

    def _owner(self, field: bytes) -> tuple[int, int, int] | None:
        match = _OWNER.fullmatch(field)
        if match is None:
            return None
        if len(self._owners) > _MOST_KNOWN:
            self._owners.clear()
        mode, uid, gid = (int(digits, 8) for digits in match.groups())
        known = self._owners[field] = mode & 0o7777, uid, gid
        return known

    def _sum(self, field: bytes) -> int:
        match = _CHECKSUM.fullmatch(field)
        if match is None:
            return -1
        if len(self._sums) > _MOST_KNOWN:
            self._sums.clear()
        # The field counts as eight spaces in its own sum; adler32 starts with 1.
        known = self._sums[field] = (int(match[1], 8) - 8 * 32 + sum(field) + 1) % _ADLER_BASE
        return known


def number(field: bytes) -> int:
    """Octal text, or base 256 with the highest bit set (GNU; two's complement after that bit)."""
    first = field[0]
    if first & 0x80:
        value = int.from_bytes(field, "big") & ((1 << (8 * len(field) - 1)) - 1)
        return value - (1 << (8 * len(field) - 1)) if first & 0x40 else value
    text = field.partition(b"\0")[0].strip(b" ")
    if text.translate(None, b"01234567"):
        raise damaged(f"a number reads {text[:12]!r}")
    return int(text or b"0", 8)


def header_name(block: bytes) -> bytes:
    name = block[:100].partition(b"\0")[0]
    return with_prefix(block, name) if block[257:263] == b"ustar\0" else name


def with_prefix(block: bytes, name: bytes) -> bytes:
    """ustar splits long names; star uses the end of the same field for times."""
    size = 131 if block[508:512] == b"tar\0" else 155
    prefix = block[345 : 345 + size].partition(b"\0")[0]
    return prefix + b"/" + name if prefix else name


def device(block: bytes, position: int) -> tuple[int, int]:
    major, minor = number(block[329:337]), number(block[337:345])
    if not (0 <= major < DEVICE_LIMITS[0] and 0 <= minor < DEVICE_LIMITS[1]):
        raise damaged(f"a device has the numbers {major}:{minor}", position - BLOCK)
    return major, minor
