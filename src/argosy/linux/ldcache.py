"""ld.so.cache: the file by which glibc's loader finds libraries; read, written, merged.

Reads the old format («ld.so-1.7.0»), the new one («glibc-ld.so.cache1.1») and the
two one after another; writes the new one, which every glibc since 2.2 takes. Data
may be hostile: a file that lies raises Corrupt and costs bounded memory.
Source: glibc, sysdeps/generic/dl-cache.h (the layout) and elf/cache.c (the order).
"""

from __future__ import annotations

import os
import re
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

CACHE_LIMIT = 16 << 20  # bytes of a cache file; a full workstation's has 0.2 MB
_STRINGS_LIMIT = 64 << 20  # bytes of all names together, since entries may share (and overlap) them
_NAME_LIMIT = 4096  # bytes of one name or path, PATH_MAX

_OLD_MAGIC = b"ld.so-1.7.0"
_OLD_HEADER = struct.Struct("<12xI")
_OLD_ENTRY = struct.Struct("<iII")
_NEW_MAGIC = b"glibc-ld.so.cache1.1"
_NEW_HEADER = struct.Struct("<20sIIB3xI12x")  # magic, entries, bytes of strings, flags, offset of the extensions
_NEW_ENTRY = struct.Struct("<iIIIQ")  # flags, offset of the name, offset of the path, osversion, hwcap
_LITTLE_ENDIAN = 2  # in the header's flags, since glibc 2.33; 0 means not stated

_EXTENSION_MAGIC = 0xEAA42174
_EXTENSION_HEADER = struct.Struct("<II")  # magic, sections
_EXTENSION_SECTION = struct.Struct("<IIII")  # tag, flags, offset, size
_TAG_HWCAPS = 1
_HWCAPS_BIT = 1 << 62  # in hwcap: the low 32 bits number a name of the hwcaps section

_ELF_LIBC6 = 0x0003
#: {(uname's machine, bits): flags that ldconfig gives a library of glibc}
FLAGS = {
    ("x86_64", 64): _ELF_LIBC6 | 0x0300,
    ("x86_64", 32): _ELF_LIBC6,
    ("aarch64", 64): _ELF_LIBC6 | 0x0A00,
    ("aarch64", 32): _ELF_LIBC6 | 0x0900,
    ("ppc64le", 64): _ELF_LIBC6 | 0x0500,
}


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """A name that programs ask for and the file that serves it."""

    name: str
    path: str
    flags: int
    osversion: int = 0
    #: bits of old processors' features; the bits of glibc-hwcaps are in *hwcaps*
    hwcap: int = 0
    #: subfolder of glibc-hwcaps that it is for («x86-64-v3»), else ""
    hwcaps: str = ""


def parse(data: bytes) -> tuple[Entry, ...]:
    """The entries in the file's order. Raises Corrupt (code "ld-cache-invalid")."""
    if data.startswith(_NEW_MAGIC):
        return _parse_new(data)
    if not data.startswith(_OLD_MAGIC):
        raise _invalid("it begins with none of the known formats")
    count = _unpack(_OLD_HEADER, data, 0)[0]
    end = _OLD_HEADER.size + count * _OLD_ENTRY.size
    new_at = end + 7 & ~7  # the new format is aligned as its 64-bit members are
    if data[new_at : new_at + len(_NEW_MAGIC)] == _NEW_MAGIC:
        return _parse_new(data[new_at:])
    return _parse_old(data, count, end)


def render(entries: Iterable[Entry]) -> bytes:
    """A cache in the new format: sorted as the loader's binary search needs it; equal keys keep their order."""
    ordered = _sorted(entries)
    groups = sorted({entry.hwcaps for entry in ordered if entry.hwcaps})
    strings_at = _NEW_HEADER.size + len(ordered) * _NEW_ENTRY.size
    table = _Strings(strings_at)
    rows = [
        _NEW_ENTRY.pack(e.flags, table.add(e.name), table.add(e.path), e.osversion, _hwcap(e, groups)) for e in ordered
    ]
    group_offsets = [table.add(group) for group in groups]
    strings = table.value()
    extensions_at = strings_at + len(strings) + 3 & ~3 if groups else 0
    header = _NEW_HEADER.pack(_NEW_MAGIC, len(rows), len(strings), _LITTLE_ENDIAN, extensions_at)
    body = header + b"".join(rows) + strings
    if groups:
        body = body.ljust(extensions_at, b"\0") + _extensions(extensions_at, group_offsets)
    return body


def merge(existing: Iterable[Entry], new: Iterable[Entry]) -> tuple[Entry, ...]:
    """*new*, then *existing*: for a name that both have the new file is found first.

    An existing entry for the very same file is dropped, and so is one for another
    processor feature level of a new name, which the loader would prefer.
    """
    ours = tuple(dict.fromkeys(new))
    taken = {(entry.name, entry.flags) for entry in ours}
    files = {(entry.name, entry.path, entry.flags) for entry in ours}
    rest = (
        entry
        for entry in existing
        if (entry.name, entry.path, entry.flags) not in files
        and not ((entry.hwcaps or entry.hwcap) and (entry.name, entry.flags) in taken)
    )
    return (*ours, *rest)


def musl_path(existing: bytes | None, folders: Sequence[str]) -> bytes:
    """Content of /etc/ld-musl-ARCH.path: the old one (or musl's own defaults) and *folders* at the end.

    Source: musl, ldso/dynlink.c: the file replaces the defaults; «:» and newline separate.
    """
    text = "/lib:/usr/local/lib:/usr/lib" if existing is None else os.fsdecode(existing)
    known = [folder for folder in re.split("[:\n]", text) if folder]
    return os.fsencode("\n".join(dict.fromkeys((*known, *folders))) + "\n")


def _sorted(entries: Iterable[Entry]) -> list[Entry]:
    """Descending by name, then flags; processor features before the rest; what is equal stays in order."""
    ordered = sorted(entries, key=lambda entry: (-entry.flags, not entry.hwcaps, entry.hwcaps, -entry.hwcap))
    return sorted(ordered, key=lambda entry: _name_key(entry.name), reverse=True)


def _name_key(name: str) -> tuple[tuple[int, int], ...]:
    """The loader's comparison: runs of digits by their value, and above every other character."""
    return tuple(
        (1, int(part)) if part.isdigit() else (0, ord(part)) for part in re.findall(r"[0-9]+|[^0-9]", name, re.DOTALL)
    )


def _parse_new(data: bytes) -> tuple[Entry, ...]:
    _, count, strings_size, flags, extensions_at = _unpack(_NEW_HEADER, data, 0)
    if flags & 3 not in (0, _LITTLE_ENDIAN):
        raise _invalid("it is in another byte order")
    end = _NEW_HEADER.size + count * _NEW_ENTRY.size
    if end + strings_size > len(data):
        raise _invalid(f"{count} entries and {strings_size} bytes of names in a file of {len(data)} bytes")
    reader = _Reader(data)
    groups = _hwcaps_groups(data, extensions_at, reader) if extensions_at else ()
    entries = []
    for row in _NEW_ENTRY.iter_unpack(data[_NEW_HEADER.size : end]):
        kind, name_at, path_at, osversion, hwcap = row
        group = ""
        if hwcap & _HWCAPS_BIT:
            group, hwcap = _group(groups, hwcap & 0xFFFFFFFF), 0
        name, path = reader.text(name_at), reader.text(path_at)
        entries.append(Entry(name=name, path=path, flags=kind, osversion=osversion, hwcap=hwcap, hwcaps=group))
    return tuple(entries)


def _parse_old(data: bytes, count: int, end: int) -> tuple[Entry, ...]:
    """Only the old format is there; offsets count from the end of its entries."""
    if end > len(data):
        raise _invalid(f"{count} entries in a file of {len(data)} bytes")
    reader = _Reader(data)
    rows = _OLD_ENTRY.iter_unpack(data[_OLD_HEADER.size : end])
    return tuple(Entry(name=reader.text(end + n), path=reader.text(end + p), flags=flags) for flags, n, p in rows)


def _hwcaps_groups(data: bytes, at: int, reader: _Reader) -> tuple[str, ...]:
    magic, count = _unpack(_EXTENSION_HEADER, data, at)
    if magic != _EXTENSION_MAGIC or count > 64:
        raise _invalid("its extensions are not where it says")
    for number in range(count):
        place = at + _EXTENSION_HEADER.size + number * _EXTENSION_SECTION.size
        tag, _, offset, size = _unpack(_EXTENSION_SECTION, data, place)
        if tag == _TAG_HWCAPS:
            if size > 4096 or offset + size > len(data):
                raise _invalid("a list of processor features beyond its end")
            return tuple(
                reader.text(value) for (value,) in struct.iter_unpack("<I", data[offset : offset + (size & ~3)])
            )
    return ()


def _group(groups: tuple[str, ...], number: int) -> str:
    if number >= len(groups):
        raise _invalid(f"processor feature {number} of {len(groups)}")
    return groups[number]


class _Reader:
    """Names by offset, each decoded once, within a limit for all together."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._known: dict[int, str] = {}
        self._left = _STRINGS_LIMIT

    def text(self, offset: int) -> str:
        known = self._known.get(offset)
        if known is None:
            end = self._data.find(b"\0", offset, offset + _NAME_LIMIT)
            self._left -= max(end - offset, 0)
            if end < 0 or self._left < 0:
                raise _invalid(f"a name at byte {offset} has no end" if end < 0 else "its names overlap")
            known = self._known[offset] = os.fsdecode(self._data[offset:end])
        return known


class _Strings:
    """A table of strings without repetitions; offsets count from the start of the file."""

    def __init__(self, start: int) -> None:
        self._next = start
        self._offsets: dict[str, int] = {}

    def add(self, text: str) -> int:
        offset = self._offsets.get(text)
        if offset is None:
            offset = self._offsets[text] = self._next
            self._next += len(os.fsencode(text)) + 1
        return offset

    def value(self) -> bytes:
        return b"".join(os.fsencode(text) + b"\0" for text in self._offsets)


def _extensions(at: int, group_offsets: Sequence[int]) -> bytes:
    data = struct.pack(f"<{len(group_offsets)}I", *group_offsets)
    place = at + _EXTENSION_HEADER.size + _EXTENSION_SECTION.size
    return (
        _EXTENSION_HEADER.pack(_EXTENSION_MAGIC, 1) + _EXTENSION_SECTION.pack(_TAG_HWCAPS, 0, place, len(data)) + data
    )


def _hwcap(entry: Entry, groups: Sequence[str]) -> int:
    return _HWCAPS_BIT | groups.index(entry.hwcaps) if entry.hwcaps else entry.hwcap


def _unpack(layout: struct.Struct, data: bytes, offset: int) -> tuple[Any, ...]:
    """Any: what the layout says, numbers but for a magic."""
    if offset + layout.size > len(data):
        raise _invalid(f"it ends before byte {offset + layout.size}")
    return layout.unpack_from(data, offset)


def _invalid(fact: str) -> Corrupt:
    return Corrupt("not a usable ld.so.cache", code="ld-cache-invalid", context=fact)
