"""Tiny ELF files made with struct alone: a shared object that has names and nothing to run.

Enough for everything that looks at libraries without loading them: our reader,
real ldconfig, readelf and file(1).
"""

from __future__ import annotations

import os
import struct
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

EM_386, EM_ARM, EM_X86_64, EM_AARCH64 = 3, 40, 62, 183
_MACHINES = {("x86_64", 64): EM_X86_64, ("x86_64", 32): EM_386, ("aarch64", 64): EM_AARCH64, ("aarch64", 32): EM_ARM}
_PAGE = 0x1000


def machine_for(bits: int = 64, machine: str | None = None) -> int:
    """e_machine of this (or the named) kind of computer."""
    return _MACHINES[machine or os.uname().machine, bits]


def shared_object(
    soname: str | None = None,
    *,
    needed: Sequence[str] = (),
    bits: int = 64,
    machine: int | None = None,
    note: tuple[str, int, bytes] | None = None,
) -> bytes:
    """A loadable-looking shared object with DT_SONAME, DT_NEEDED and, if given, one note (owner, kind, data)."""
    wide = bits == 64
    strings, positions = _strings([*needed, *([soname] if soname else [])])
    tags = [(1, positions[name]) for name in needed]
    if soname:
        tags.append((14, positions[soname]))
    header_size, segment_size = (64, 56) if wide else (52, 32)
    note_data = _note(*note) if note else b""
    segments = 3 if note else 2
    strings_at = header_size + segments * segment_size
    dynamic_at = _aligned(strings_at + len(strings), 8)
    entry = struct.Struct("<QQ" if wide else "<II")
    tags += [(5, strings_at), (10, len(strings)), (0, 0)]  # addresses equal offsets: the one PT_LOAD begins at 0
    dynamic = b"".join(entry.pack(tag, value) for tag, value in tags)
    note_at = _aligned(dynamic_at + len(dynamic), 8)
    total = note_at + len(note_data)
    rows = [(1, 4, 0, total, _PAGE), (2, 4, dynamic_at, len(dynamic), 8)]
    if note:
        rows.append((4, 4, note_at, len(note_data), 4))
    head = _header(wide, machine or machine_for(bits), segments)
    head += b"".join(_segment(wide, *row) for row in rows)
    body = head + strings
    body = body.ljust(dynamic_at, b"\0") + dynamic
    return body.ljust(note_at, b"\0") + note_data


def _strings(names: Sequence[str]) -> tuple[bytes, dict[str, int]]:
    table, positions = bytearray(b"\0"), {}
    for name in names:
        positions[name] = len(table)
        table += os.fsencode(name) + b"\0"
    return bytes(table), positions


def _header(wide: bool, machine: int, segments: int) -> bytes:
    identity = b"\x7fELF" + bytes([2 if wide else 1, 1, 1]) + b"\0" * 9
    layout, size, width = ("<HHIQQQIHHHHHH", 64, 56) if wide else ("<HHIIIIIHHHHHH", 52, 32)
    return identity + struct.pack(layout, 3, machine, 1, 0, size, 0, 0, size, width, segments, 64 if wide else 40, 0, 0)


def _segment(wide: bool, kind: int, flags: int, offset: int, size: int, alignment: int) -> bytes:
    if wide:
        return struct.pack("<IIQQQQQQ", kind, flags, offset, offset, offset, size, size, alignment)
    return struct.pack("<IIIIIIII", kind, offset, offset, offset, size, size, flags, alignment)


def _note(owner: str, kind: int, data: bytes) -> bytes:
    name = owner.encode() + b"\0"
    return (
        struct.pack("<III", len(name), len(data), kind)
        + name.ljust(_aligned(len(name), 4), b"\0")
        + data.ljust(_aligned(len(data), 4), b"\0")
    )


def _aligned(size: int, to: int) -> int:
    return (size + to - 1) // to * to
