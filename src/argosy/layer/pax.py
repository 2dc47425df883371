"""Extended headers of pax archives: records to values and back.

Source: POSIX.1-2017 pax, «pax Extended Header»; the vendor keys of star
(SCHILY.xattr.), libarchive (LIBARCHIVE.xattr.) and GNU tar (GNU.sparse.).
"""

from __future__ import annotations

from binascii import Error as Base64Error
from binascii import a2b_base64, b2a_base64
from typing import TYPE_CHECKING

from ..errors import Corrupt
from .entry import XATTR_NAME_LIMIT, XATTRS_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

HEADER_LIMIT = 1 << 20  # bytes of one extended header or GNU long name; what Go's archive/tar allows
EXTENTS_LIMIT = 1 << 18  # parts of one sparse file

_SCHILY = b"SCHILY.xattr."
_LIBARCHIVE = b"LIBARCHIVE.xattr."
#: mtime in ns is kept within 64 bits, years 1677 to 2262
_TIMES = (-(1 << 63), (1 << 63) - 1)
_NS = 10**9
_TIME_KEYS = frozenset({b"mtime", b"atime", b"ctime"})

Extents = tuple[tuple[int, int], ...]


def records(data: bytes) -> list[tuple[bytes, bytes]]:
    """(key, value) pairs in order: `LENGTH KEY=VALUE\\n`, where the length counts itself."""
    found = []
    at, end = 0, len(data)
    while at < end:
        space = data.find(b" ", at, at + 8)
        digits = data[at:space] if space > 0 else b""
        if not digits.isdigit():
            raise damaged("a record of an extended header has no length")
        stop = at + int(digits)
        if stop > end or stop <= space + 1 or data[stop - 1] != 0x0A:
            raise damaged("a record of an extended header has the wrong length")
        key, equals, value = data[space + 1 : stop - 1].partition(b"=")
        if not equals or not key or b"\0" in key:
            raise damaged("a record of an extended header is not KEY=VALUE")
        found.append((key, value))
        at = stop
    return found


def lone_mtime(data: bytes) -> bytes | None:
    """The mtime of a header that says nothing but times, as those of GNU tar and Python do; None for any other."""
    if data[2:9] == b" mtime=" and data[:2].isdigit() and int(data[:2]) == len(data) and data[-1] == 0x0A:
        return data[9:-1]  # nothing else in it: the usual one, without the way through `records`
    found = dict(records(data))
    return found.get(b"mtime") if found.keys() <= _TIME_KEYS else None


def record(key: bytes, value: bytes) -> bytes:
    """One record; the inverse of `records`."""
    body = len(key) + len(value) + 3  # space, equals sign, newline
    length = body + len(str(body))
    if len(str(length)) > len(str(body)):
        length += 1
    return b"%d %s=%s\n" % (length, key, value)


def number(text: bytes, key: bytes) -> int:
    """A decimal number that is not negative."""
    if not text.isdigit() or len(text) > 20:
        raise damaged(f"{key.decode(errors='replace')} is {text[:40]!r}, not a number")
    return int(text)


def time_ns(text: bytes) -> int:
    """Seconds since 1970 as a decimal fraction, in ns; digits past the ninth are cut off."""
    whole, _, fraction = text.partition(b".")
    usual = whole + fraction.ljust(9, b"0")
    if whole and len(fraction) <= 9 and len(usual) < 20 and usual.isdigit():
        return min(int(usual), _TIMES[1])
    negative = whole.startswith(b"-")
    digits = whole[1:] if whole[:1] in (b"-", b"+") else whole
    if not (digits + fraction).isdigit() or len(digits) > 20:
        raise damaged(f"a time is {text[:40]!r}, not a number")
    value = int(digits or b"0") * _NS + int(fraction[:9].ljust(9, b"0"))
    return bounded_time(-value if negative else value)


def time_text(ns: int) -> bytes:
    """The shortest text that `time_ns` reads back as *ns*."""
    whole, fraction = divmod(abs(ns), _NS)
    text = b"%d" % whole
    if fraction:
        text += (b".%09d" % fraction).rstrip(b"0")
    return b"-" + text if ns < 0 else text


def bounded_time(ns: int) -> int:
    return min(max(ns, _TIMES[0]), _TIMES[1])


def xattrs(header: Iterable[tuple[bytes, bytes]]) -> dict[bytes, bytes]:
    """Extended attributes among the records; star's spelling wins over libarchive's.

    Those of overlay file systems are left out: in a layer they would redirect or hide
    files of other layers behind the back of the whiteouts that everybody understands.
    """
    star: dict[bytes, bytes] = {}
    other: dict[bytes, bytes] = {}
    for key, value in header:
        if key.startswith(_SCHILY):
            star[key[len(_SCHILY) :]] = value
        elif key.startswith(_LIBARCHIVE):
            other[_percent_decoded(key[len(_LIBARCHIVE) :])] = _base64(value)
    found = {name: value for name, value in (other | star).items() if not is_overlay_xattr(name)}
    _check_xattrs(found)
    return found


def is_overlay_xattr(name: bytes) -> bool:
    return name.startswith((b"trusted.overlay.", b"user.overlay."))


def xattr_records(attributes: Mapping[bytes, bytes]) -> list[tuple[bytes, bytes]]:
    return [_xattr_record(name, attributes[name]) for name in sorted(attributes)]


def _xattr_record(name: bytes, value: bytes) -> tuple[bytes, bytes]:
    if b"=" not in name:
        return _SCHILY + name, value
    return _LIBARCHIVE + name.replace(b"%", b"%25").replace(b"=", b"%3D"), b2a_base64(value, newline=False)


def _check_xattrs(found: Mapping[bytes, bytes]) -> None:
    for name in found:
        if not name or len(name) > XATTR_NAME_LIMIT:
            raise damaged(f"an extended attribute is named {name[:80]!r}")
    if sum(len(name) + len(value) for name, value in found.items()) > XATTRS_LIMIT:
        raise Corrupt(
            f"an entry of the archive has more than {XATTRS_LIMIT} bytes of extended attributes", code="archive-limit"
        )


def _percent_decoded(text: bytes) -> bytes:
    from urllib.parse import unquote_to_bytes

    return unquote_to_bytes(text)


def _base64(text: bytes) -> bytes:
    try:
        return a2b_base64(text + b"=" * (-len(text) % 4))  # libarchive leaves the padding out
    except Base64Error as error:
        raise damaged("an extended attribute is not base64") from error


def sparse_map(header: list[tuple[bytes, bytes]]) -> Extents | None:
    """Extents of GNU's formats 0.0 (repeated records) and 0.1 (one list); None when the header has none."""
    values = dict(header)
    if b"GNU.sparse.map" in values:
        numbers = [number(text, b"GNU.sparse.map") for text in values[b"GNU.sparse.map"].split(b",") if text]
        if len(numbers) % 2:
            raise damaged("a sparse map has an odd number of entries")
        return tuple(zip(numbers[::2], numbers[1::2], strict=True))
    if b"GNU.sparse.numblocks" in values:
        starts = [number(value, key) for key, value in header if key == b"GNU.sparse.offset"]
        lengths = [number(value, key) for key, value in header if key == b"GNU.sparse.numbytes"]
        if len(starts) != len(lengths):
            raise damaged("a sparse map has offsets without lengths")
        return tuple(zip(starts, lengths, strict=True))
    return None


def checked_extents(extents: Extents, size: int, stored: int) -> Extents:
    """*extents* without empty ones, if they ascend within *size* and hold *stored* bytes; otherwise Corrupt."""
    if len(extents) > EXTENTS_LIMIT:
        raise Corrupt(f"a sparse file of the archive has more than {EXTENTS_LIMIT} parts", code="archive-limit")
    end = total = 0
    for start, length in extents:
        if start < end or start + length > size:
            raise damaged("a sparse map overlaps or leaves its file")
        end = start + length
        total += length
    if total != stored:
        raise damaged(f"a sparse map names {total} bytes, the archive holds {stored}")
    return tuple(extent for extent in extents if extent[1])


def damaged(why: str, offset: int | None = None) -> Corrupt:
    context = why if offset is None else f"at byte {offset}: {why}"
    return Corrupt("the archive is damaged", code="archive-damaged", context=context)
