"""Link-time stand-ins for the driver's libraries, written without a compiler.

`-lcuda` needs a libcuda.so on machines that have no driver, and NVIDIA's wheels
carry none. A stub defines every function of the API with its SONAME; each only
returns an error. Source of the layout: System V ABI, chapters 4 and 5.
"""

from __future__ import annotations

import re
import struct
from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable

CUDA_ERROR_STUB_LIBRARY = 34  # cuda.h: «the CUDA driver that the application has loaded is a stub library»
NVML_ERROR_LIBRARY_NOT_FOUND = 12  # nvml.h

_PAGE = 0x1000  # of x86-64; segments of aarch64 may meet pages of 64 KiB
_ALIGNMENT = {"x86_64": _PAGE, "aarch64": 0x10000}
_MACHINES = {"x86_64": 62, "aarch64": 183}  # e_machine

_HEADER = struct.Struct("<4sBBBBB7xHHIQQQIHHHHHH")
_SEGMENT = struct.Struct("<IIQQQQQQ")
_SECTION = struct.Struct("<IIQQQQIIQQ")
_SYMBOL = struct.Struct("<IBBHQQ")
_DYNAMIC = struct.Struct("<QQ")

_PT_LOAD, _PT_DYNAMIC = 1, 2
_PT_GNU_STACK = 0x6474E551  # without it the loader wants an executable stack
_SHT_PROGBITS, _SHT_STRTAB, _SHT_HASH, _SHT_DYNAMIC, _SHT_DYNSYM = 1, 3, 5, 6, 11
_ALLOC, _WRITE, _EXECUTE = 2, 1, 4
_DT_HASH, _DT_STRTAB, _DT_SYMTAB, _DT_STRSZ, _DT_SYMENT, _DT_SONAME = 4, 5, 6, 10, 11, 14
_GLOBAL_FUNCTION = 1 << 4 | 2

#: A function of the driver API: «CUresult CUDAAPI cuInit(», also where a macro gives it a newer name.
_CUDA = re.compile(r"\bCUDAAPI\s+(cu[A-Z]\w*)\s*\(")
_CUDA_RENAMED = re.compile(
    r"^\s*#\s*define\s+cu[A-Z]\w*\s+(?:(__CUDA_API_PT[DS]S|__CUDA_API_PTSZ)\()?(cu[A-Z]\w*)", re.M
)
_NVML = re.compile(r"\bDECLDIR\s+(nvml[A-Z]\w*)\s*\(")
_NVML_RENAMED = re.compile(r"^\s*#\s*define\s+nvml[A-Z]\w*\s+(nvml[A-Z]\w*)", re.M)


def cuda_functions(header: str) -> tuple[str, ...]:
    """Names that programs compiled against this cuda.h may ask of libcuda, sorted.

    Macros give many functions a versioned name (_v2), and another one when the
    per-thread default stream is chosen (_ptds, _ptsz): all of them are named.
    """
    names = set(_CUDA.findall(header))
    for macro, name in _CUDA_RENAMED.findall(header):
        names.add(name)
        if macro:
            names.add(name + ("_ptsz" if macro.endswith("PTSZ") else "_ptds"))
    return tuple(sorted(names))


def nvml_functions(header: str) -> tuple[str, ...]:
    """Names that programs compiled against this nvml.h may ask of libnvidia-ml, sorted."""
    return tuple(sorted({*_NVML.findall(header), *_NVML_RENAMED.findall(header)}))


class _Section(msgspec.Struct, kw_only=True):
    name: str
    kind: int
    flags: int
    data: bytes
    link: int = 0
    info: int = 0
    align: int = 8
    width: int = 0
    offset: int = 0


def library(soname: str, functions: Iterable[str], *, machine: str, result: int) -> bytes:
    """An ELF shared library that defines *functions*; each returns *result* whatever it is given.

    Linkers (bfd, gold, lld) take it and the loader loads it. Equal inputs give equal
    bytes. *machine* is x86_64 or aarch64.
    """
    names = sorted(set(functions))
    strings, places = _strings([soname, *names])
    sections = _sections(strings, names, machine, result)
    _place(sections, machine)
    offsets = {section.name: section.offset for section in sections}
    sections[2].data = _symbols(names, places, offsets[".text"])
    dynamic = sections[5]
    dynamic.data = b"".join(
        _DYNAMIC.pack(tag, value)
        for tag, value in (
            (_DT_SONAME, places[soname]),
            (_DT_HASH, offsets[".hash"]),
            (_DT_STRTAB, offsets[".dynstr"]),
            (_DT_SYMTAB, offsets[".dynsym"]),
            (_DT_STRSZ, len(strings)),
            (_DT_SYMENT, _SYMBOL.size),
            (0, 0),
        )
    )
    return _assemble(sections, machine)


def _sections(strings: bytes, names: list[str], machine: str, result: int) -> list[_Section]:
    """In the order of the file; symbols and the dynamic table get their bytes when all places are known."""
    headings = [".hash", ".dynsym", ".dynstr", ".text", ".dynamic", ".shstrtab"]
    return [
        _Section(name="", kind=0, flags=0, data=b"", align=0),
        _Section(name=".hash", kind=_SHT_HASH, flags=_ALLOC, data=_hash(names), link=2, width=4),
        _Section(
            name=".dynsym",
            kind=_SHT_DYNSYM,
            flags=_ALLOC,
            data=bytes(_SYMBOL.size * (len(names) + 1)),
            link=3,
            info=1,
            width=_SYMBOL.size,
        ),
        _Section(name=".dynstr", kind=_SHT_STRTAB, flags=_ALLOC, data=strings, align=1),
        _Section(name=".text", kind=_SHT_PROGBITS, flags=_ALLOC | _EXECUTE, data=_return(machine, result), align=16),
        _Section(
            name=".dynamic",
            kind=_SHT_DYNAMIC,
            flags=_ALLOC | _WRITE,
            data=bytes(_DYNAMIC.size * 7),
            link=3,
            align=_ALIGNMENT[machine],
            width=_DYNAMIC.size,
        ),
        _Section(name=".shstrtab", kind=_SHT_STRTAB, flags=0, data=_strings(headings)[0], align=1),
    ]


def _return(machine: str, result: int) -> bytes:
    if machine == "x86_64":
        return b"\xb8" + struct.pack("<I", result) + b"\xc3"  # mov eax, result; ret
    return struct.pack("<II", 0x52800000 | result << 5, 0xD65F03C0)  # mov w0, #result; ret


def _strings(texts: list[str]) -> tuple[bytes, dict[str, int]]:
    """A table of strings, and where each begins."""
    data, places = b"\0", {}
    for text in texts:
        places[text] = len(data)
        data += text.encode() + b"\0"
    return data, places


def _symbols(names: list[str], places: dict[str, int], address: int) -> bytes:
    rows = [_SYMBOL.pack(places[name], _GLOBAL_FUNCTION, 0, 4, address, 0) for name in names]
    return bytes(_SYMBOL.size) + b"".join(rows)


def _hash(names: list[str]) -> bytes:
    """The table by which the loader finds a symbol; chains run from the last symbol to the first."""
    count = max(1, len(names) // 2)
    buckets, chains = [0] * count, [0] * (len(names) + 1)
    for number, name in enumerate(names, 1):
        bucket = _hash_of(name) % count
        chains[number], buckets[bucket] = buckets[bucket], number
    words = [count, len(chains), *buckets, *chains]
    return struct.pack(f"<{len(words)}I", *words)


def _hash_of(name: str) -> int:
    """System V ABI, figure 5-13."""
    value = 0
    for byte in name.encode():
        value = (value << 4) + byte
        high = value & 0xF0000000
        value = (value ^ high >> 24) & ~high & 0xFFFFFFFF
    return value


def _place(sections: list[_Section], machine: str) -> None:
    """Offsets in the file, which are the addresses too."""
    at = _HEADER.size + 4 * _SEGMENT.size
    for section in sections[1:]:
        at = -(-at // section.align) * section.align
        section.offset = at
        at += len(section.data)


def _assemble(sections: list[_Section], machine: str) -> bytes:
    names, places = _strings([section.name for section in sections if section.name])
    sections[-1].data = names
    dynamic, last = sections[-2], sections[-1]
    table_at = -(-(last.offset + len(last.data)) // 8) * 8
    header = _HEADER.pack(
        b"\x7fELF", 2, 1, 1, 0, 0, 3, _MACHINES[machine], 1, 0, _HEADER.size, table_at, 0,
        _HEADER.size, _SEGMENT.size, 4, _SECTION.size, len(sections), len(sections) - 1,
    )  # fmt: skip
    text = sections[4]
    align = _ALIGNMENT[machine]
    code_size = text.offset + len(text.data)
    segments = (
        _segment(_PT_LOAD, 5, 0, code_size, align)
        + _segment(_PT_LOAD, 6, dynamic.offset, len(dynamic.data), align)
        + _segment(_PT_DYNAMIC, 6, dynamic.offset, len(dynamic.data), 8)
        + _segment(_PT_GNU_STACK, 6, 0, 0, 16)
    )
    body = bytearray(header + segments)
    for section in sections[1:]:
        body = body.ljust(section.offset, b"\0") + section.data
    body = body.ljust(table_at, b"\0")
    return bytes(body) + b"".join(_section_row(section, places) for section in sections)


def _segment(kind: int, flags: int, offset: int, size: int, align: int) -> bytes:
    return _SEGMENT.pack(kind, flags, offset, offset, offset, size, size, align)


def _section_row(section: _Section, places: dict[str, int]) -> bytes:
    if not section.name:
        return bytes(_SECTION.size)
    address = section.offset if section.flags & _ALLOC else 0
    return _SECTION.pack(
        places[section.name], section.kind, section.flags, address, section.offset,
        len(section.data), section.link, section.info, section.align, section.width,
    )  # fmt: skip
