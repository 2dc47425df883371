"""The few facts of an ELF file that loading it depends on: class, machine, names, notes.

Reads bytes or an open file by small reads at checked offsets, so that a library of
60 MB costs a few kilobytes and a hostile one costs no more. Not a loader and not a
validator: what it does not need it does not look at.
Source: System V ABI, chapters 4 and 5; names as in <elf.h>.
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

ELFCLASS32, ELFCLASS64 = 1, 2
ELFDATA2LSB, ELFDATA2MSB = 1, 2
EM_386, EM_PPC64, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 21, 40, 62, 183
PT_LOAD, PT_DYNAMIC, PT_NOTE = 1, 2, 4
SHT_NOTE = 7
DT_NULL, DT_NEEDED, DT_STRTAB, DT_SONAME = 0, 1, 5, 14

#: {(uname's machine, bits): e_machine}
MACHINES = {
    ("x86_64", 64): EM_X86_64,
    ("x86_64", 32): EM_386,
    ("aarch64", 64): EM_AARCH64,
    ("aarch64", 32): EM_ARM,
    ("ppc64le", 64): EM_PPC64,
}

_HEADERS = 512  # program or section headers looked at; real files have about 10 and 40
_DYNAMIC_LIMIT = 1 << 16  # bytes of a dynamic section; libcuda's has 560
_NAME_LIMIT = 4096  # bytes of one name, PATH_MAX
_NOTES_LIMIT = 1 << 16  # bytes of one segment or section of notes


class Elf(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says about itself. *soname* is None where it has none (programs, plugins)."""

    bits: int
    machine: int
    soname: str | None = None
    needed: tuple[str, ...] = ()


class Note(msgspec.Struct, frozen=True, kw_only=True):
    """One note: who defined it, which kind, and its bytes."""

    owner: str
    kind: int
    data: bytes


def read(source: bytes | int) -> Elf:
    """The facts of *source*: the file's bytes, or a descriptor open for reading (its position is left alone).

    Raises Corrupt (code "elf-invalid") for anything that is not an ELF file or whose
    tables point outside of it.
    """
    return _File(source).facts()


def notes(source: bytes | int) -> tuple[Note, ...]:
    """The notes of all segments and sections, each once. Raises Corrupt as read() does."""
    return tuple(dict.fromkeys(_File(source).notes()))


class _Segment(msgspec.Struct, frozen=True, kw_only=True):
    kind: int
    offset: int
    address: int
    size: int


class _File:
    """Checked access to one file; all numbers in it are unsigned."""

    def __init__(self, source: bytes | int) -> None:
        self._source = source
        self._size = len(source) if isinstance(source, bytes) else os.fstat(source).st_size
        identity = self._at(0, 16)
        if identity[:4] != b"\x7fELF" or identity[4] not in (1, 2) or identity[5] not in (1, 2):
            raise _invalid("it does not begin as an ELF file does")
        self._wide = identity[4] == ELFCLASS64
        self._order = "<" if identity[5] == ELFDATA2LSB else ">"
        layout = "HHIQQQIHHHHHH" if self._wide else "HHIIIIIHHHHHH"
        header = self._unpack(layout, 16)
        self._machine = header[1]
        self._segment_table = (header[4], header[8], header[9])
        self._section_table = (header[5], header[10], header[11])

    def facts(self) -> Elf:
        segments = tuple(self._segments())
        soname: str | None = None
        needed: list[str] = []
        entries = tuple(self._dynamic(segments))
        for tag, value in entries:
            if tag == DT_SONAME:
                soname = self._name(segments, entries, value)
            elif tag == DT_NEEDED:
                needed.append(self._name(segments, entries, value))
        return Elf(bits=64 if self._wide else 32, machine=self._machine, soname=soname, needed=tuple(needed))

    def notes(self) -> Iterator[Note]:
        for segment in self._segments():
            if segment.kind == PT_NOTE:
                yield from self._notes_in(segment.offset, segment.size)
        for kind, offset, size in self._sections():
            if kind == SHT_NOTE:
                yield from self._notes_in(offset, size)

    def _segments(self) -> Iterator[_Segment]:
        layout = "IIQQQQQQ" if self._wide else "IIIIIIII"
        for row in self._table(layout, *self._segment_table):
            if self._wide:
                kind, _, offset, address, _, size, _, _ = row
            else:
                kind, offset, address, _, size, _, _, _ = row
            yield _Segment(kind=kind, offset=offset, address=address, size=size)

    def _sections(self) -> Iterator[tuple[int, int, int]]:
        layout = "IIQQQQIIQQ" if self._wide else "IIIIIIIIII"
        for row in self._table(layout, *self._section_table):
            yield row[1], row[4], row[5]

    def _table(self, layout: str, offset: int, width: int, count: int) -> Iterator[tuple[int, ...]]:
        if offset == 0 or count == 0:
            return
        if width < struct.calcsize("<" + layout) or count > _HEADERS:
            raise _invalid(f"a table of {count} headers of {width} bytes")
        for number in range(count):
            yield self._unpack(layout, offset + number * width)

    def _dynamic(self, segments: tuple[_Segment, ...]) -> Iterator[tuple[int, int]]:
        """(tag, value) pairs of the first dynamic segment, up to DT_NULL."""
        segment = next((s for s in segments if s.kind == PT_DYNAMIC), None)
        if segment is None:
            return
        if segment.size > _DYNAMIC_LIMIT:
            raise _invalid(f"a dynamic section of {segment.size} bytes")
        layout = struct.Struct(self._order + ("QQ" if self._wide else "II"))
        data = self._at(segment.offset, segment.size // layout.size * layout.size)
        for tag, value in layout.iter_unpack(data):
            if tag == DT_NULL:
                return
            yield tag, value

    def _name(self, segments: tuple[_Segment, ...], entries: tuple[tuple[int, int], ...], position: int) -> str:
        table = next((value for tag, value in entries if tag == DT_STRTAB), None)
        if table is None:
            raise _invalid("names without a string table")
        start = self._file_offset(segments, table) + position
        if not 0 <= start < self._size:
            raise _invalid("a name beyond the end of the file")
        data = self._at(start, min(_NAME_LIMIT, self._size - start))
        name, end, _ = data.partition(b"\0")
        if not end:
            raise _invalid("a name without an end")
        return os.fsdecode(name)

    def _file_offset(self, segments: tuple[_Segment, ...], address: int) -> int:
        """Where a loaded address lies in the file."""
        for segment in segments:
            if segment.kind == PT_LOAD and segment.address <= address < segment.address + segment.size:
                return segment.offset + address - segment.address
        raise _invalid("a string table that is not loaded")

    def _notes_in(self, offset: int, size: int) -> Iterator[Note]:
        if size > _NOTES_LIMIT:
            raise _invalid(f"{size} bytes of notes")
        data = self._at(offset, size)
        position = 0
        while position + 12 <= len(data):
            name_size, data_size, kind = struct.unpack_from(self._order + "III", data, position)
            name_at = position + 12
            data_at = name_at + _aligned(name_size)
            position = data_at + _aligned(data_size)
            if data_at + data_size > len(data):
                raise _invalid("a note beyond its segment")
            owner = data[name_at : name_at + name_size].rstrip(b"\0")
            yield Note(owner=os.fsdecode(owner), kind=kind, data=data[data_at : data_at + data_size])

    def _unpack(self, layout: str, offset: int) -> tuple[int, ...]:
        return struct.unpack(self._order + layout, self._at(offset, struct.calcsize("<" + layout)))

    def _at(self, offset: int, size: int) -> bytes:
        if offset + size > self._size:
            raise _invalid(f"it ends before byte {offset + size}")
        if isinstance(self._source, bytes):
            return self._source[offset : offset + size]
        data = os.pread(self._source, size, offset)
        if len(data) != size:
            raise _invalid(f"it ends before byte {offset + size}")
        return data


def _aligned(size: int) -> int:
    return size + 3 & ~3


def _invalid(fact: str) -> Corrupt:
    return Corrupt("not a usable ELF file", code="elf-invalid", context=fact)
