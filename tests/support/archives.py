"""Archives made by hand, byte by byte: good ones, odd ones, and hostile ones.

Nothing here uses the package's own writer, so that a fault in both sides cannot hide.
HOSTILE is the corpus: every reader of layers must refuse each with the code named.
"""

from __future__ import annotations

import gzip
import hashlib
import io
from typing import TYPE_CHECKING, NamedTuple

from argosy.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

BLOCK = 512
END = bytes(2 * BLOCK)


def header(
    name: bytes,
    kind: bytes = b"0",
    *,
    size: int = 0,
    mode: int = 0o644,
    uid: int = 0,
    gid: int = 0,
    mtime: int = 0,
    link: bytes = b"",
    magic: bytes = b"ustar\x0000",
    major: int = 0,
    minor: int = 0,
    prefix: bytes = b"",
    tail: bytes = b"",
) -> bytes:
    """One header block; numbers that octal cannot hold go in base 256. *tail* replaces the bytes from 345 on."""
    numbers = number(mode, 8) + number(uid, 8) + number(gid, 8) + number(size, 12) + number(mtime, 12)
    start = name.ljust(100, b"\0") + numbers
    rest = kind + link.ljust(100, b"\0") + magic + bytes(64) + number(major, 8) + number(minor, 8)
    rest += tail.ljust(167, b"\0") if tail else prefix.ljust(155, b"\0") + bytes(12)
    return checked(start + b" " * 8 + rest)


def number(value: int, width: int) -> bytes:
    if 0 <= value < 8 ** (width - 1):
        return b"%0*o\0" % (width - 1, value)
    wrapped = value & ((1 << (8 * width)) - 1)
    return (wrapped | 1 << (8 * width - 1)).to_bytes(width, "big")


def checked(block: bytes) -> bytes:
    """*block* with the right checksum."""
    assert len(block) == BLOCK, len(block)
    blank = block[:148] + b" " * 8 + block[156:]
    return block[:148] + b"%06o\0 " % sum(blank) + block[156:]


def padded(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"", **fields: int) -> bytes:
    return header(name, b"0", size=len(data), **fields) + padded(data)


def folder(name: bytes, mode: int = 0o755, **fields: int) -> bytes:
    return header(name, b"5", mode=mode, **fields)


def symlink(name: bytes, text: bytes) -> bytes:
    return header(name, b"2", link=text, mode=0o777)


def hardlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def device(name: bytes, kind: bytes, major: int, minor: int) -> bytes:
    return header(name, kind, major=major, minor=minor)


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    length = len(body) + 1
    while len(b"%d" % length) + len(body) != length:
        length += 1
    return b"%d" % length + body


def pax(*pairs: tuple[bytes, bytes], kind: bytes = b"x") -> bytes:
    data = b"".join(record(key, value) for key, value in pairs)
    return header(b"PaxHeaders/x", kind, size=len(data)) + padded(data)


def gnu_long(name: bytes, kind: bytes = b"L") -> bytes:
    return header(b"././@LongLink", kind, size=len(name) + 1, magic=b"ustar  \0") + padded(name + b"\0")


def gnu_sparse(name: bytes, real_size: int, *parts: tuple[int, bytes]) -> bytes:
    """GNU's old format: the first four parts in the header, the others in extension blocks."""
    table = [number(at, 12) + number(len(data), 12) for at, data in parts]
    more = len(table) > 4
    tail = bytes(41) + b"".join(table[:4]).ljust(96, b"\0") + bytes([more]) + number(real_size, 12)
    stored = b"".join(data for _, data in parts)
    blocks = header(name, b"S", size=len(stored), magic=b"ustar  \0", tail=tail)
    rest = table[4:]
    while rest:
        blocks += b"".join(rest[:21]).ljust(504, b"\0") + bytes([len(rest) > 21]) + bytes(7)
        rest = rest[21:]
    return blocks + padded(stored)


def pax_sparse(name: bytes, real_size: int, *parts: tuple[int, bytes], version: str = "1.0") -> bytes:
    """GNU's sparse formats in pax clothes: 0.0, 0.1 and 1.0."""
    stored = b"".join(data for _, data in parts)
    numbers = [value for at, data in parts for value in (at, len(data))]
    size = b"%d" % real_size
    if version == "1.0":
        table = padded(b"%d\n" % len(parts) + b"".join(b"%d\n" % value for value in numbers))
        head = pax(
            (b"GNU.sparse.major", b"1"),
            (b"GNU.sparse.minor", b"0"),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.realsize", size),
        )
        return head + file(b"GNUSparseFile.0/x", table + stored)
    if version == "0.1":
        head = pax(
            (b"GNU.sparse.size", size),
            (b"GNU.sparse.numblocks", b"%d" % len(parts)),
            (b"GNU.sparse.name", name),
            (b"GNU.sparse.map", b",".join(b"%d" % value for value in numbers)),
        )
        return head + file(b"GNUSparseFile.0/x", stored)
    pairs = [(b"GNU.sparse.offset", b"GNU.sparse.numbytes")[index % 2] for index in range(len(numbers))]
    head = pax(
        (b"GNU.sparse.size", size),
        (b"GNU.sparse.numblocks", b"%d" % len(parts)),
        *[(key, b"%d" % value) for key, value in zip(pairs, numbers, strict=True)],
    )
    return head + file(name, stored)


def archive(*members: bytes) -> bytes:
    return b"".join(members) + END


def diff_id(tar: bytes) -> Digest:
    return Digest("sha256:" + hashlib.sha256(tar).hexdigest())


def many(count: int) -> bytes:
    """An archive of *count* empty files in folders of a thousand."""
    blocks = []
    for index in range(count):
        if index % 1000 == 0:
            blocks.append(folder(b"d%04d/" % (index // 1000)))
        blocks.append(header(b"d%04d/file-%06d" % divmod(index, 1000)))
    return b"".join(blocks) + END


class Chunked(io.RawIOBase):
    """A stream that gives its bytes in pieces of the given sizes, over and over."""

    def __init__(self, data: bytes, *sizes: int) -> None:
        self._stream = io.BytesIO(data)
        self._sizes = self._cycle(sizes)

    @staticmethod
    def _cycle(sizes: tuple[int, ...]) -> Iterator[int]:
        while True:
            yield from sizes

    def readable(self) -> bool:
        return True

    def read(self, count: int | None = -1) -> bytes:
        wanted = next(self._sizes)
        return self._stream.read(wanted if count is None or count < 0 else min(count, wanted))


class Zeros(io.RawIOBase):
    """As many zeros as are asked for, up to a total; for bombs that should not take memory here either."""

    def __init__(self, start: bytes, total: int) -> None:
        self._start = start
        self._left = total

    def readable(self) -> bool:
        return True

    def read(self, count: int | None = -1) -> bytes:
        if self._start:
            piece, self._start = self._start, b""
            return piece
        size = min(self._left, 1 << 20 if count is None or count < 0 else count)
        self._left -= size
        return bytes(size)


class Hostile(NamedTuple):
    """A broken archive, and the code of the Corrupt that must come of it."""

    what: str
    code: str
    tar: bytes


def _with(block: bytes, at: int, data: bytes) -> bytes:
    return checked(block[:at] + data + block[at + len(data) :])


#: Refused while reading headers.
HOSTILE = (
    Hostile("a name that climbs out", "archive-path-escapes", archive(file(b"../x"))),
    Hostile("a name that climbs out in its middle", "archive-path-escapes", archive(file(b"a/../../x"))),
    Hostile("a name that is just two dots", "archive-path-escapes", archive(folder(b".."))),
    Hostile("an absolute name that climbs out", "archive-path-escapes", archive(file(b"/../x"))),
    Hostile("a pax name that climbs out", "archive-path-escapes", archive(pax((b"path", b"a/..")), file(b"a"))),
    Hostile("a long name that climbs out", "archive-path-escapes", archive(gnu_long(b"a/../x"), file(b"a"))),
    Hostile("a hard link that climbs out", "archive-path-escapes", archive(hardlink(b"a", b"../../etc/shadow"))),
    Hostile("a NUL in a pax name", "archive-name-invalid", archive(pax((b"path", b"a\0b")), file(b"a"))),
    Hostile("a NUL in a link", "archive-name-invalid", archive(pax((b"linkpath", b"a\0b")), symlink(b"a", b"b"))),
    Hostile("a link with no text", "archive-name-invalid", archive(symlink(b"a", b""))),
    Hostile("a part of 256 bytes", "archive-name-too-long", archive(pax((b"path", b"n" * 256)), file(b"a"))),
    Hostile("a name of 4096 bytes", "archive-name-too-long", archive(pax((b"path", b"n/" * 2048 + b"x")), file(b"a"))),
    Hostile(
        "a link text of 4096 bytes", "archive-name-invalid", archive(gnu_long(b"n" * 4096, b"K"), symlink(b"a", b"b"))
    ),
    Hostile("a wrong checksum", "archive-damaged", archive(header(b"a")[:148] + b"0000001\0" + header(b"a")[156:])),
    Hostile(
        "a checksum that is no number",
        "archive-damaged",
        archive(header(b"a")[:148] + b"abcdefg\0" + header(b"a")[156:]),
    ),
    Hostile("a negative size", "archive-damaged", archive(header(b"a", size=-1))),
    Hostile("a size beyond all disks", "archive-damaged", archive(header(b"a", size=1 << 80))),
    Hostile("a negative user", "archive-damaged", archive(header(b"a", uid=-2))),
    Hostile("the user that means none", "archive-damaged", archive(header(b"a", uid=(1 << 32) - 1))),
    Hostile("a mode in words", "archive-damaged", archive(_with(header(b"a"), 100, b"rwxr-xr\0"))),
    Hostile("a size with an underscore", "archive-damaged", archive(_with(header(b"a"), 124, b"0000000_001\0"))),
    Hostile("a device of impossible numbers", "archive-damaged", archive(device(b"a", b"3", 1 << 12, 0))),
    Hostile("an unknown type", "archive-entry-unknown", archive(header(b"a", b"Z"))),
    Hostile("a part of another volume", "archive-entry-unknown", archive(header(b"a", b"M"))),
    Hostile("one lone block of zeros", "archive-damaged", bytes(BLOCK) + file(b"a") + END),
    Hostile("text instead of a tar", "archive-damaged", b"<html>not found</html>".ljust(2 * BLOCK)),
    Hostile(
        "a pax record longer than its header",
        "archive-damaged",
        archive(header(b"x", b"x", size=9) + padded(b"99 path=a"), file(b"a")),
    ),
    Hostile(
        "a pax record without a length",
        "archive-damaged",
        archive(header(b"x", b"x", size=7) + padded(b"path=a\n"), file(b"a")),
    ),
    Hostile(
        "a pax record without a key",
        "archive-damaged",
        archive(header(b"x", b"x", size=5) + padded(b"5 =a\n"), file(b"a")),
    ),
    Hostile(
        "a pax record of length 0",
        "archive-damaged",
        archive(header(b"x", b"x", size=8) + padded(b"0 path=a"), file(b"a")),
    ),
    Hostile("a pax size that is no number", "archive-damaged", archive(pax((b"size", b"-5")), file(b"a"))),
    Hostile("a pax time that is no number", "archive-damaged", archive(pax((b"mtime", b"soon")), file(b"a"))),
    Hostile("a pax header bomb", "archive-limit", header(b"x", b"x", size=1 << 40)),
    Hostile("a long name bomb", "archive-limit", header(b"x", b"L", size=(1 << 20) + 1)),
    Hostile(
        "attributes beyond what Linux keeps",
        "archive-limit",
        archive(pax((b"SCHILY.xattr.user.a", b"v" * 40000), (b"SCHILY.xattr.user.b", b"v" * 40000)), file(b"a")),
    ),
    Hostile("an attribute without a name", "archive-damaged", archive(pax((b"SCHILY.xattr.", b"v")), file(b"a"))),
    Hostile(
        "a sparse map that overlaps", "archive-damaged", archive(gnu_sparse(b"a", 9999, (0, b"x" * 600), (512, b"y")))
    ),
    Hostile("a sparse map that leaves its file", "archive-damaged", archive(gnu_sparse(b"a", 100, (0, b"x" * 600)))),
    Hostile(
        "a sparse map that goes backwards",
        "archive-damaged",
        archive(pax_sparse(b"a", 9999, (5000, b"x"), (0, b"y"), version="0.1")),
    ),
    Hostile(
        "a sparse map with half a pair",
        "archive-damaged",
        archive(pax((b"GNU.sparse.size", b"9"), (b"GNU.sparse.map", b"1,2,3")), file(b"a")),
    ),
    Hostile(
        "a sparse map with a million parts",
        "archive-limit",
        archive(
            pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")),
            file(b"a", b"1000000\n".ljust(BLOCK, b"\0")),
        ),
    ),
    Hostile(
        "a sparse map that never ends",
        "archive-damaged",
        archive(
            pax((b"GNU.sparse.major", b"1"), (b"GNU.sparse.minor", b"0"), (b"GNU.sparse.realsize", b"9")),
            file(b"a", b"1" * BLOCK * 4),
        ),
    ),
    Hostile("an extended header for nothing", "archive-truncated", pax((b"path", b"a")) + END),
    Hostile("a whiteout of the folder itself", "archive-whiteout-invalid", archive(file(b"a/.wh.."))),
    Hostile("a whiteout of the folder above", "archive-whiteout-invalid", archive(file(b"a/.wh..."))),
    Hostile("a whiteout of nothing", "archive-whiteout-invalid", archive(file(b".wh."))),
    Hostile("a whiteout as a folder", "archive-whiteout-invalid", archive(file(b".wh.a/b"))),
    Hostile("a hard link to what is not there", "archive-link-missing", archive(hardlink(b"a", b"etc/shadow"))),
    Hostile("a hard link to a folder", "archive-link-missing", archive(folder(b"d"), hardlink(b"a", b"d"))),
    Hostile("a hard link to a later file", "archive-link-missing", archive(hardlink(b"a", b"b"), file(b"b"))),
    Hostile("a hard link to a whiteout", "archive-link-missing", archive(file(b".wh.b"), hardlink(b"a", b"b"))),
    Hostile("a file as a folder", "archive-parent-not-folder", archive(file(b"a"), file(b"a/b"))),
    Hostile("a device as a folder", "archive-parent-not-folder", archive(device(b"a", b"3", 1, 3), file(b"a/b"))),
    Hostile(
        "links in a circle",
        "archive-parent-not-folder",
        archive(symlink(b"a", b"b"), symlink(b"b", b"a"), file(b"a/x")),
    ),
    Hostile("a link to itself", "archive-parent-not-folder", archive(symlink(b"a", b"a/a"), file(b"a/x"))),
)

#: Good archives that try to reach /etc by way of links; each must stay inside. {what: archive}
ESCAPES = {
    "through an absolute link": archive(symlink(b"e", b"/etc"), file(b"e/argosy-was-here", b"x")),
    "through a climbing link": archive(symlink(b"e", b"../../../../../../../../etc"), file(b"e/argosy-was-here", b"x")),
    "through a link in a link": archive(symlink(b"r", b"/"), symlink(b"e", b"r/etc"), file(b"e/argosy-was-here", b"x")),
    "by a folder entry over a link": archive(
        symlink(b"e", b"/etc"), folder(b"e", 0o777), file(b"e/argosy-was-here", b"x")
    ),
    "by a whiteout through a link": archive(symlink(b"e", b"/etc"), file(b"e/.wh.passwd")),
    "by an opaque mark through a link": archive(symlink(b"e", b"/etc"), file(b"e/.wh..wh..opq")),
    "by writing over a link": archive(symlink(b"e", b"/etc/argosy-was-here"), file(b"e", b"x")),
    "by an absolute name": archive(file(b"/etc/argosy-was-here", b"x")),
    "by a folder that becomes a link and back": archive(
        folder(b"e"), symlink(b"e", b"/etc"), file(b"e/argosy-was-here", b"x"), folder(b"e"), file(b"e/argosy-was-here")
    ),
}


def gzip_bomb(size: int) -> bytes:
    """Compressed zeros of *size* bytes, a thousandth of that long."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as stream:
        for _ in range(size >> 20):
            stream.write(bytes(1 << 20))
    return out.getvalue()


def truncations(tar: bytes, step: int = BLOCK) -> Iterator[bytes]:
    """Every proper beginning of *tar* that ends at a multiple of *step*."""
    return (tar[:size] for size in range(0, len(tar), step))
