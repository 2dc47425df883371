"""Reads tar archives as a stream of safe entries.

Understands v7, ustar, pax, GNU (long names, sparse, base-256) and star headers, as
layers in the wild carry them. Never seeks and keeps nothing of past entries. Where
readers of other people disagree this one does what Go's archive/tar does, because
that is what wrote most images and what unpacks them elsewhere.
Source: POSIX.1-2017 pax; GNU tar manual, «Basic Tar Format».
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import Corrupt
from . import pax
from .entry import NO_XATTRS, PATH_LIMIT, Entry, Kind, clean_path
from .header import BLOCK, Plain, device, header_name, number, verify, with_prefix
from .pax import damaged

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

_CHUNK = 1 << 20  # bytes a read of the stream
_ZERO = bytes(BLOCK)
_KINDS: dict[int, Kind] = {
    ord("0"): "file",
    0: "file",
    ord("7"): "file",  # contiguous
    ord("S"): "file",  # GNU sparse
    ord("1"): "hardlink",
    ord("2"): "symlink",
    ord("3"): "character",
    ord("4"): "block",
    ord("5"): "folder",
    ord("D"): "folder",  # GNU incremental dump; its data is a list of names
    ord("6"): "fifo",
}
_PLAIN_KINDS: dict[int, Kind] = {flag: _KINDS[flag] for flag in b"0125\0"}
_QUICK = frozenset(b"05")
#: Names that need no cleaning.
_CLEAN = re.compile(rb"[^/.\0][^/\0]{0,254}(?:/[^/.\0][^/\0]{0,254})*")
_EXTENDED = frozenset(b"xgXLKV")  # headers that are no entry of their own
_UID_LIMIT = (1 << 32) - 2  # the all-ones id means «leave as it is» to chown
_SIZE_LIMIT = 1 << 62  # bytes


def entries(stream: BinaryIO) -> ArchiveReader:
    """The entries of an uncompressed tar; iterate, and read an entry's data before going on."""
    return ArchiveReader(stream)


class ArchiveReader:
    """An iterator of entries over an uncompressed tar stream.

    `read` gives the stored bytes of the entry that was yielded last, `file_chunks` what
    a reader of the file would see. What is not read is skipped. After the last entry
    the stream has been read to its end, so that digests below are complete.

    Iterating raises Corrupt: archive-damaged, archive-truncated, archive-path-escapes,
    archive-name-invalid, archive-name-too-long, archive-limit, archive-entry-unknown.
    """

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        self._buffer = b""
        self._at = 0  # of the next byte in the buffer
        self._base = 0  # position of the buffer's first byte in the stream
        self._left = 0  # unread data of the current entry
        self._padding = 0
        self._entry: Entry | None = None
        self._ended = False
        plain = Plain()
        self._numbers, self._is_sound = plain.numbers, plain.is_sound
        #: the folder of the last name that needed no cleaning
        self._folder: bytes | None = None
        #: Records of global extended headers so far.
        self._defaults: dict[bytes, bytes] = {}

    @property
    def position(self) -> int:
        """Bytes of the archive consumed so far."""
        return self._base + self._at

    def __iter__(self) -> Iterator[Entry]:
        return self

    def __next__(self) -> Entry:
        skip = self._left + self._padding
        at = self._at + skip
        head = self._buffer[at : at + BLOCK]
        if len(head) == BLOCK and head[156] in _QUICK and not self._defaults:  # most headers, with fewer calls
            self._at = at + BLOCK
            self._entry = quick = self._plain(head, head[156])
            if quick.path or quick.kind == "folder":
                return quick
            skip = self._left + self._padding
        if skip:
            self._skip(skip)
        while not self._ended:
            block = self._block()
            if block is None:
                break
            flag = block[156]
            if flag in _EXTENDED or self._defaults:
                entry = self._timed(block) or self._extended(block)
            else:
                entry = self._plain(block, flag)
            if entry is not None and (entry.path or entry.kind == "folder"):
                self._entry = entry
                return entry
            # Archives with an empty name exist; the root can only be a folder, and everybody passes over them.
            self._skip(self._left + self._padding)
        self._entry = None
        raise StopIteration

    def read(self, count: int = -1) -> bytes:
        """At most *count* stored bytes of the current entry, none at its end."""
        left = self._left
        if count < 0:
            return b"".join(iter(lambda: self.read(_CHUNK), b""))
        if not left or not count:
            return b""
        if self._at == len(self._buffer) and not self._refill():
            raise self._truncated()
        at = self._at
        piece = self._buffer[at : at + min(count, left)]
        self._at = at + len(piece)
        self._left = left - len(piece)
        return piece

    def chunks(self) -> Iterator[bytes]:
        """The stored bytes of the current entry, piece by piece."""
        while piece := self.read(_CHUNK):
            yield piece

    def file_chunks(self) -> Iterator[bytes]:
        """The content of the current file, holes as zeros."""
        entry = self._entry
        if entry is None or entry.extents is None:
            yield from self.chunks()
            return
        at = 0
        for start, length in entry.extents:
            yield from _zeros(start - at)
            while length:
                piece = self.read(min(length, _CHUNK))
                yield piece
                length -= len(piece)
                start += len(piece)
            at = start
        yield from _zeros(entry.size - at)

    # ---- headers

    def _timed(self, block: bytes) -> Entry | None:
        """The entry behind an extended header that gives its time alone; None, and nothing read, for any other."""
        at, size = self._at, block[124:136]
        head = self._buffer[at + BLOCK : at + 2 * BLOCK]
        if (
            block[156] != 120
            or self._defaults
            or size[:8] != b"00000000"
            or len(head) != BLOCK
            or head[156] not in b"0125"
        ):
            return None
        length = number(size)
        mtime = pax.lone_mtime(self._buffer[at : at + length]) if length <= BLOCK else None
        if not mtime:
            return None
        if not self._is_sound(block):
            verify(block, number(block[148:156]), self.position)
        self._at = at + 2 * BLOCK
        return self._plain(head, head[156], mtime)

    def _plain(self, block: bytes, flag: int, timed: bytes = b"") -> Entry:
        """The entry of a header that nothing extends but *timed*: nearly all of them, so this is kept short."""
        kind, numbers = _PLAIN_KINDS.get(flag), self._numbers(block)
        name = block.partition(b"\0")[0][:100]
        if kind is None or numbers is None or (kind == "file" and name[-1:] == b"/"):  # v7's way to say folder
            return self._build(block, [(b"mtime", timed)] if timed else [])
        mode, uid, gid, length, mtime = numbers
        if block[345] and block[257:263] == b"ustar\0":
            name = with_prefix(block, name)
        if kind != "file":
            length = 0  # links and folders have no data, whatever they say
        self._left, self._padding = length, -length & 511
        folder, _, base = name.rpartition(b"/")
        if folder != self._folder or not base or base[0] == 46:  # else only a part that needs no cleaning is new
            if _CLEAN.fullmatch(name):
                self._folder = folder or None  # "x" and "/x" have none alike
            else:
                name = _clean(name)
        return Entry(
            path=name,
            kind=kind,
            mode=mode,
            uid=uid,
            gid=gid,
            mtime_ns=pax.time_ns(timed) if timed else mtime * 1_000_000_000,
            size=length,
            linkname=b"" if flag == 48 or flag == 53 else _linkname(kind, block[157:257].partition(b"\0")[0]),
            offset=self._base + self._at,
            stored=length,
        )

    def _extended(self, block: bytes) -> Entry | None:
        """The entry behind a chain of extended headers; None where the archive ends with global ones."""
        header: list[tuple[bytes, bytes]] = []
        long_name = long_link = None
        pending = False
        while True:
            flag = block[156]
            if flag not in _EXTENDED:
                break
            verify(block, number(block[148:156]), self.position)
            data = self._special(block)
            if flag == ord("g"):
                self._defaults.update(pax.records(data))
            elif flag in b"xX":
                header, pending = pax.records(data), True
            elif flag == ord("L"):
                long_name, pending = data.rstrip(b"\0"), True
            elif flag == ord("K"):
                long_link, pending = data.rstrip(b"\0"), True
            following = self._block()
            if following is None:
                if pending:
                    raise self._truncated()
                return None
            block = following
        return self._build(block, header, long_name, long_link)

    def _build(
        self,
        block: bytes,
        header: list[tuple[bytes, bytes]],
        long_name: bytes | None = None,
        long_link: bytes | None = None,
    ) -> Entry:
        """An entry from its own header and all that came before it."""
        verify(block, number(block[148:156]), self.position)
        merged = self._defaults | dict(header)
        values = {key: value for key, value in merged.items() if value}  # an empty value takes a record back
        flag = block[156]
        kind = _KINDS.get(flag)
        if kind is None:
            raise Corrupt(
                "the archive holds an entry of an unknown type",
                code="archive-entry-unknown",
                context=f"at byte {self.position - BLOCK}: type {chr(flag)!r}",
            )
        name = values.get(b"GNU.sparse.name") or values.get(b"path") or header_name(block)
        name = name if long_name is None else long_name
        link = values.get(b"linkpath") or block[157:257].partition(b"\0")[0]
        link = link if long_link is None else long_link
        stored = self._number_of(values, b"size", block[124:136], _SIZE_LIMIT)
        if kind == "file" and flag in b"0\0" and name.endswith(b"/"):
            kind = "folder"
        elif kind != "file" and flag != ord("D"):
            stored = 0  # links, folders and devices have no data, whatever they say
        self._left, self._padding = stored, -stored & 511
        size, extents = self._sparse(block, values, header, stored) if kind == "file" else (0, None)
        stored = self._left if kind == "file" else 0
        major, minor = device(block, self.position) if kind in ("character", "block") else (0, 0)
        return Entry(
            path=clean_path(name),
            kind=kind,
            mode=number(block[100:108]) & 0o7777,
            uid=self._number_of(values, b"uid", block[108:116], _UID_LIMIT),
            gid=self._number_of(values, b"gid", block[116:124], _UID_LIMIT),
            mtime_ns=_mtime(values, block),
            size=size,
            linkname=_linkname(kind, link) if kind in ("symlink", "hardlink") else b"",
            major=major,
            minor=minor,
            xattrs=pax.xattrs(merged.items()) or NO_XATTRS,
            offset=self.position,
            stored=stored,
            extents=extents,
        )

    def _number_of(self, values: dict[bytes, bytes], key: bytes, field: bytes, limit: int) -> int:
        value = pax.number(values[key], key) if key in values else number(field)
        if not 0 <= value <= limit:
            raise damaged(f"{key.decode()} is {value}", self.position - BLOCK)
        return value

    def _sparse(
        self, block: bytes, values: dict[bytes, bytes], header: list[tuple[bytes, bytes]], stored: int
    ) -> tuple[int, pax.Extents | None]:
        """(size of the file, its extents); None for one that is not sparse."""
        if block[156] == ord("S"):
            extents, size = self._old_gnu_map(block), number(block[483:495])
        elif values.get(b"GNU.sparse.major") == b"1" and values.get(b"GNU.sparse.minor") == b"0":
            extents, size = self._map_in_data(), _real_size(values)
        else:
            found = pax.sparse_map(header)
            if found is None:
                return stored, None
            extents, size = found, _real_size(values)
        if not 0 <= size <= _SIZE_LIMIT:
            raise damaged(f"a sparse file has {size} bytes", self.position)
        return size, pax.checked_extents(extents, size, self._left)

    def _old_gnu_map(self, block: bytes) -> pax.Extents:
        found: list[tuple[int, int]] = []
        table, more = block[386:482], block[482]
        while True:
            for at in range(0, len(table), 24):
                if table[at] == 0:
                    break
                found.append((number(table[at : at + 12]), number(table[at + 12 : at + 24])))
            if not more:
                return tuple(found)
            if len(found) > pax.EXTENTS_LIMIT:
                raise Corrupt("a sparse file of the archive has too many parts", code="archive-limit")
            extension = self._take(BLOCK)
            table, more = extension[:504], extension[504]

    def _map_in_data(self) -> pax.Extents:
        """GNU's format 1.0: decimal numbers, a line each, at the start of the data, filled up to a block."""
        numbers: list[int] = []
        rest = b""
        while not numbers or len(numbers) <= 2 * numbers[0]:
            if self._left < BLOCK or len(rest) > 20:
                raise damaged("a sparse map is longer than its file", self.position)
            *lines, rest = (rest + self._take(BLOCK)).split(b"\n")
            self._left -= BLOCK
            for line in lines:
                if numbers and len(numbers) > 2 * numbers[0]:
                    break
                numbers.append(pax.number(line, b"GNU.sparse.map"))
            if numbers and numbers[0] > pax.EXTENTS_LIMIT:
                raise Corrupt(f"a sparse file of the archive has {numbers[0]} parts", code="archive-limit")
        return tuple(zip(numbers[1::2], numbers[2::2], strict=True))

    def _special(self, block: bytes) -> bytes:
        """The data of an extended header."""
        size = number(block[124:136])
        if not 0 <= size <= pax.HEADER_LIMIT:
            raise Corrupt(
                f"an extended header of the archive has {size} bytes, more than {pax.HEADER_LIMIT}",
                code="archive-limit",
            )
        return self._take(size + (-size & 511))[:size]

    # ---- the stream

    def _block(self) -> bytes | None:
        """The next header, None at the end of the archive: two zero blocks, or no more bytes."""
        at = self._at
        block = self._buffer[at : at + BLOCK]
        if len(block) == BLOCK:
            self._at = at + BLOCK
        else:
            block = self._take(BLOCK, may_end=True)
        if block and block != _ZERO:
            return block
        if block and self._take(BLOCK, may_end=True) not in (b"", _ZERO):
            raise damaged("a single block of zeros between entries", self.position - 2 * BLOCK)
        self._drain()
        return None

    def _take(self, count: int, *, may_end: bool = False) -> bytes:
        """Exactly *count* bytes; none if the stream ends here and *may_end*."""
        at = self._at
        parts = [self._buffer[at : at + count]]
        self._at = at + len(parts[0])
        missing = count - len(parts[0])
        while missing:
            if not self._refill():
                if may_end and missing == count:
                    return b""
                raise self._truncated()
            parts.append(self._buffer[:missing])
            self._at = len(parts[-1])
            missing -= self._at
        return b"".join(parts)

    def _skip(self, count: int) -> None:
        self._left = self._padding = 0
        inside = len(self._buffer) - self._at
        while count > inside:
            count -= inside
            self._at = len(self._buffer)
            if not self._refill():
                raise self._truncated()
            inside = len(self._buffer)
        self._at += count

    def _refill(self) -> bool:
        """Replace the used-up buffer by the next bytes; False at the end of the stream."""
        self._base += len(self._buffer)
        self._buffer, self._at = self._stream.read(_CHUNK), 0
        return bool(self._buffer)

    def _drain(self) -> None:
        self._ended = True
        self._at = len(self._buffer)
        while self._refill():
            self._at = len(self._buffer)

    def _truncated(self) -> Corrupt:
        return Corrupt("the archive ends too early", code="archive-truncated", context=f"at byte {self.position}")


def _clean(name: bytes) -> bytes:
    """clean_path with a short cut for names that need no cleaning."""
    if name.startswith(b"./"):
        name = name[2:]
    if name[-1:] == b"/":
        name = name[:-1]
    if b"//" in name or b"/." in name or name[:1] in (b"/", b"."):
        return clean_path(name)
    return name


def _linkname(kind: Kind, link: bytes) -> bytes:
    if kind == "hardlink":
        return clean_path(link)
    if not link or len(link) > PATH_LIMIT or b"\0" in link:
        raise Corrupt(
            "the archive holds a link that Linux cannot hold",
            code="archive-name-invalid",
            context=f"its text has {len(link)} bytes" + (", one is NUL" if b"\0" in link else ""),
        )
    return link


def _mtime(values: dict[bytes, bytes], block: bytes) -> int:
    if b"mtime" in values:
        return pax.time_ns(values[b"mtime"])
    return pax.bounded_time(number(block[136:148]) * 1_000_000_000)


def _real_size(values: dict[bytes, bytes]) -> int:
    for key in (b"GNU.sparse.realsize", b"GNU.sparse.size"):
        if key in values:
            return pax.number(values[key], key)
    raise damaged("a sparse file has no size")


def _zeros(count: int) -> Iterator[bytes]:
    zeros = bytes(min(count, _CHUNK)) if count > 0 else b""
    while count > 0:
        yield zeros[:count]
        count -= len(zeros)
