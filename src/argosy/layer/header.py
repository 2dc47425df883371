"""Fields of a tar header block, decoded.

Source: POSIX.1-2017 pax, «ustar Interchange Format»; GNU tar manual, «Basic Tar Format».
"""

from __future__ import annotations

from zlib import adler32

from .pax import damaged

BLOCK = 512  # bytes; headers are one block, data is filled up to whole blocks
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
