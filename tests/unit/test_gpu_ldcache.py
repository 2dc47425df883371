"""ld.so.cache against the real ldconfig, which is asked to read ours and to write one for us to read."""

from __future__ import annotations

import os
import re
import struct
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt
from argosy.linux import ldcache
from argosy.linux.ldcache import Entry
from tests.support.elf import shared_object

if TYPE_CHECKING:
    from pathlib import Path

FLAGS = ldcache.FLAGS[os.uname().machine, 64]
LDCONFIG = next((p for p in ("/sbin/ldconfig.real", "/sbin/ldconfig", "/usr/sbin/ldconfig") if os.path.exists(p)), "")
#: Names whose order is not the alphabet's: numbers count by value, and above letters.
NAMES = (
    "libc.so.6",
    "libm.so.6",
    "libfoo.so.9",
    "libfoo.so.10",
    "libfoo-2.1.so",
    "libfoo2.so.1",
    "libz.so",
    "ld-x.so.2",
)


def printed(cache: Path) -> list[tuple[str, str]]:
    """(name, path) lines of `ldconfig -p` in its order."""
    done = subprocess.run((LDCONFIG, "-p", "-C", str(cache)), check=True, capture_output=True, text=True)
    return re.findall(r"^\t(\S+) \(.*\) => (.*)$", done.stdout, re.MULTILINE)


def test_ldconfig_reads_what_we_write(tmp_path: Path) -> None:
    entries = [Entry(name=name, path=f"/usr/lib/{name}", flags=FLAGS) for name in NAMES]
    cache = tmp_path / "cache"
    cache.write_bytes(ldcache.render(entries))
    assert sorted(printed(cache)) == sorted((entry.name, entry.path) for entry in entries)


def test_our_order_and_reading_are_those_of_ldconfig(tmp_path: Path) -> None:
    libraries, cache, conf = tmp_path / "libraries", tmp_path / "cache", tmp_path / "conf"
    libraries.mkdir()
    for name in NAMES:
        (libraries / name).write_bytes(shared_object(name))
    conf.write_text(f"{libraries}\n")
    subprocess.run((LDCONFIG, "-iX", "-f", str(conf), "-C", str(cache)), check=True, capture_output=True)
    entries = ldcache.parse(cache.read_bytes())
    assert {str(libraries / name) for name in NAMES} <= {entry.path for entry in entries}
    assert [(entry.name, entry.path) for entry in entries] == printed(cache)
    again = ldcache.parse(ldcache.render(sorted(entries, key=lambda entry: entry.path)))
    assert [entry.name for entry in again] == [entry.name for entry in entries]


def test_a_real_cache_survives_reading_and_writing(tmp_path: Path) -> None:
    with open("/etc/ld.so.cache", "rb") as file:
        entries = ldcache.parse(file.read())
    again = tmp_path / "again"
    again.write_bytes(ldcache.render(entries))
    assert ldcache.parse(again.read_bytes()) == entries
    assert printed(again) == [(entry.name, entry.path) for entry in entries]


def test_levels_of_processor_features_are_kept_and_come_first() -> None:
    plain = Entry(name="libm.so.6", path="/lib/libm.so.6", flags=FLAGS)
    fast = Entry(name="libm.so.6", path="/lib/glibc-hwcaps/x86-64-v3/libm.so.6", flags=FLAGS, hwcaps="x86-64-v3")
    assert ldcache.parse(ldcache.render([plain, fast])) == (fast, plain)


def test_the_old_format_alone_and_before_the_new_is_read() -> None:
    entry = Entry(name="libc.so.6", path="/lib/libc.so.6", flags=FLAGS)
    strings = b"libc.so.6\0/lib/libc.so.6\0"
    old = b"ld.so-1.7.0\0" + struct.pack("<I", 1) + struct.pack("<iII", FLAGS, 0, 10)
    assert ldcache.parse(old + strings) == (entry,)
    newer = Entry(name="libc.so.6", path="/usr/lib/libc.so.6", flags=FLAGS)
    assert ldcache.parse(old.ljust(len(old) + 7 & ~7, b"\0") + ldcache.render([newer])) == (newer,)


def test_merging_puts_the_new_first_and_keeps_the_rest() -> None:
    old_cuda = Entry(name="libcuda.so.1", path="/opt/old/libcuda.so.1", flags=FLAGS)
    fast_cuda = Entry(name="libcuda.so.1", path="/opt/v3/libcuda.so.1", flags=FLAGS, hwcaps="x86-64-v3")
    libc = Entry(name="libc.so.6", path="/lib/libc.so.6", flags=FLAGS)
    cuda = Entry(name="libcuda.so.1", path="/usr/lib/libcuda.so.1", flags=FLAGS)
    assert ldcache.merge([fast_cuda, old_cuda, libc], [cuda]) == (cuda, old_cuda, libc)
    assert ldcache.merge([cuda, libc], [cuda]) == (cuda, libc)


@pytest.mark.parametrize(
    ("existing", "expected"),
    [
        pytest.param(None, b"/lib\n/usr/local/lib\n/usr/lib\n/usr/lib64\n", id="no file: musl's defaults first"),
        pytest.param(b"/lib:/opt/lib", b"/lib\n/opt/lib\n/usr/lib64\n", id="colons"),
        pytest.param(b"/usr/lib64\n/lib\n", b"/usr/lib64\n/lib\n", id="there already"),
    ],
)
def test_musl_reads_a_list_of_folders(existing: bytes | None, expected: bytes) -> None:
    assert ldcache.musl_path(existing, ("/usr/lib64",)) == expected


def _cache(entries: int, strings: bytes, *rows: tuple[int, int], extensions_at: int = 0, flags: int = 2) -> bytes:
    header = struct.pack("<20sIIB3xI12x", b"glibc-ld.so.cache1.1", entries, len(strings), flags, extensions_at)
    return header + b"".join(struct.pack("<iIIIQ", FLAGS, name, path, 0, 0) for name, path in rows) + strings


@pytest.mark.parametrize(
    ("data", "fact"),
    [
        pytest.param(b"", "it begins with none of the known formats", id="empty"),
        pytest.param(b"glibc-ld.so.cache1.1", "it ends before byte 48", id="a magic and nothing else"),
        pytest.param(_cache(1 << 31, b""), "2147483648 entries and 0 bytes of names", id="more entries than bytes"),
        pytest.param(_cache(1, b"x", (72, 72)), "a name at byte 72 has no end", id="a name without an end"),
        pytest.param(_cache(1, b"x\0", (1 << 31, 72)), "a name at byte 2147483648", id="a name beyond the file"),
        pytest.param(_cache(0, b"", flags=3), "it is in another byte order", id="big endian"),
        pytest.param(_cache(0, b"", extensions_at=9999), "it ends before byte", id="extensions beyond the file"),
        pytest.param(b"ld.so-1.7.0\0\xff\xff\xff\x7f", "2147483647 entries in a file of", id="old, cut"),
    ],
)
def test_a_lying_cache_is_corrupt(data: bytes, fact: str) -> None:
    with pytest.raises(Corrupt) as caught:
        ldcache.parse(data)
    assert caught.value.code == "ld-cache-invalid"
    assert caught.value.context.startswith(fact)


def test_names_that_overlap_cost_bounded_memory() -> None:
    count, length = 40_000, 4000
    start = 48 + 24 * count
    rows = [(start + number % length, start + number % length) for number in range(count)]
    data = _cache(count, b"a" * length * 2 + b"\0", *rows)
    with pytest.raises(Corrupt):
        ldcache.parse(data)
