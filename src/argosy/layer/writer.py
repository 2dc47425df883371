"""Writes tar archives whose bytes depend on nothing but the entries.

ustar headers, pax records only where ustar cannot say it: long or odd names,
fractions of seconds, large ids and sizes, extended attributes. Order, clamped times
and mapped ids are the caller's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from zlib import adler32

from ..errors import Conflict, InvalidInput
from . import pax
from .header import BLOCK

if TYPE_CHECKING:
    from types import TracebackType
    from typing import Protocol

    from .compression import Sink
    from .entry import Entry, Kind

    class Source(Protocol):
        def read(self, count: int, /) -> bytes: ...


_CHUNK = 1 << 20  # bytes a read of file data
_FLAGS: dict[Kind, bytes] = {
    "file": b"0",
    "hardlink": b"1",
    "symlink": b"2",
    "character": b"3",
    "block": b"4",
    "folder": b"5",
    "fifo": b"6",
}
_NS = 10**9
_OCTAL_7 = 1 << 21  # first number that seven octal digits cannot hold
_OCTAL_11 = 1 << 33


class ArchiveWriter:
    """A tar of entries in the order in which they are added; `close` ends it but leaves *out* open."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._closed = False

    def add(self, entry: Entry, data: Source | bytes | None = None) -> None:
        """Append one entry; *data* has its *size* bytes, holes included, if it is a file.

        Raises Conflict (code file-changed) when *data* has fewer or more bytes than promised:
        somebody wrote to the file meanwhile. The archive is then useless.
        """
        size = entry.size if entry.kind == "file" else 0
        self._out.write(header_bytes(entry))
        if not size:
            return
        if isinstance(data, (bytes, bytearray, memoryview)):
            _expect(entry, len(data))
            self._out.write(bytes(data))
        elif data is None:
            raise InvalidInput(f"no data for {_shown(entry)}", code="archive-data-missing")
        else:
            self._copy(entry, data)
        if size % BLOCK:
            self._out.write(bytes(-size % BLOCK))

    def _copy(self, entry: Entry, data: Source) -> None:
        left = entry.size
        while left:
            piece = data.read(min(left, _CHUNK))
            if not piece:
                _expect(entry, entry.size - left)
            self._out.write(piece)
            left -= len(piece)
        if data.read(1):
            raise _changed(entry, "it is longer now")

    def close(self) -> None:
        """Write the end of the archive, two blocks of zeros; nothing more is filled up."""
        if not self._closed:
            self._closed = True
            self._out.write(bytes(2 * BLOCK))

    def __enter__(self) -> ArchiveWriter:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.close()


def header_bytes(entry: Entry) -> bytes:
    """All header blocks of *entry*; its data, filled up to whole blocks, follows them."""
    records: list[tuple[bytes, bytes]] = []
    name = entry.path + b"/" if entry.kind == "folder" else entry.path
    name = name if entry.path else b"./"
    prefix, name = _split_name(name, records)
    link = entry.linkname if entry.kind in ("symlink", "hardlink") else b""
    if len(link) > 100:
        records.append((b"linkpath", link))
        link = link[:100]
    size = entry.size if entry.kind == "file" else 0
    numbers = (
        _fitting(b"uid", entry.uid, _OCTAL_7, records),
        _fitting(b"gid", entry.gid, _OCTAL_7, records),
        _fitting(b"size", size, _OCTAL_11, records),
    )
    seconds = _seconds(entry.mtime_ns, records)
    records += pax.xattr_records(entry.xattrs)
    own = _block(prefix, name, entry.mode, numbers, seconds, _FLAGS[entry.kind], link, (entry.major, entry.minor))
    return _pax_blocks(records, entry) + own if records else own


def _split_name(name: bytes, records: list[tuple[bytes, bytes]]) -> tuple[bytes, bytes]:
    """(prefix, name) of ustar; a pax record and a shortened name where it does not fit."""
    if len(name) <= 100:
        return b"", name
    slash = name.find(b"/", len(name) - 101, 156)
    if 0 < slash < len(name) - 1:
        return name[:slash], name[slash + 1 :]
    records.append((b"path", name))
    return b"", name[:100]


def _fitting(key: bytes, value: int, limit: int, records: list[tuple[bytes, bytes]]) -> int:
    if value < limit:
        return value
    records.append((key, b"%d" % value))
    return 0


def _seconds(mtime_ns: int, records: list[tuple[bytes, bytes]]) -> int:
    seconds, fraction = divmod(mtime_ns, _NS)
    if fraction or not 0 <= seconds < _OCTAL_11:
        records.append((b"mtime", pax.time_text(mtime_ns)))
    return min(max(seconds, 0), _OCTAL_11 - 1)


def _pax_blocks(records: list[tuple[bytes, bytes]], entry: Entry) -> bytes:
    if any(not _is_utf8(value) for key, value in records if key in (b"path", b"linkpath")):
        records.append((b"hdrcharset", b"BINARY"))
    # hdrcharset comes first because it says how to read the others; the rest is sorted.
    ordered = sorted(records, key=lambda pair: (pair[0] != b"hdrcharset", pair[0]))
    data = b"".join(pax.record(key, value) for key, value in ordered)
    name = b"PaxHeaders.0/" + entry.name[:80]
    header = _block(b"", name, 0o644, (0, 0, len(data)), 0, b"x", b"", (0, 0))
    return header + data + bytes(-len(data) % BLOCK)


def _block(
    prefix: bytes,
    name: bytes,
    mode: int,
    numbers: tuple[int, int, int],
    seconds: int,
    flag: bytes,
    link: bytes,
    device: tuple[int, int],
) -> bytes:
    head = b"%b%07o\0%07o\0%07o\0%011o\0%011o\0" % (name.ljust(100, b"\0"), mode & 0o7777, *numbers, seconds)
    names = bytes(64)  # user and group by name mean nothing in a layer
    tail = b"%b%bustar\x0000%b%07o\0%07o\0%b" % (flag, link.ljust(100, b"\0"), names, *device, prefix.ljust(167, b"\0"))
    # Seven bits of slack: 256 bytes sum up below adler32's modulus, see header.verify.
    total = (adler32(head) & 0xFFFF) + (adler32(tail[:200]) & 0xFFFF) + (adler32(tail[200:]) & 0xFFFF) - 3 + 256
    return b"%b%06o\0 %b" % (head, total, tail)


def _is_utf8(value: bytes) -> bool:
    try:
        value.decode()
    except UnicodeDecodeError:
        return False
    return True


def _expect(entry: Entry, found: int) -> None:
    if found != entry.size:
        raise _changed(entry, f"{found} bytes instead of {entry.size}")


def _changed(entry: Entry, why: str) -> Conflict:
    return Conflict(
        f"{_shown(entry)} changed while it was being archived",
        code="file-changed",
        context=why,
        hint="stop the programs that write to it, then try again",
    )


def _shown(entry: Entry) -> str:
    return entry.path.decode(errors="backslashreplace")
