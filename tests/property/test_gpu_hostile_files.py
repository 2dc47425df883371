"""Binary formats that come from images: any damage gives Corrupt or facts, never anything else."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import Corrupt
from argosy.gpu import elf
from argosy.linux import ldcache
from tests.support.elf import shared_object

LIBRARY = shared_object("libcuda.so.1", needed=("libc.so.6",), note=("NVIDIA Corporation", 7, b"{}"))
NAMES = st.text(st.characters(codec="ascii", exclude_characters="\0"), min_size=1, max_size=20)
ENTRIES = st.builds(
    lambda name, path, flags, hwcaps: ldcache.Entry(name=name, path=path, flags=flags, hwcaps=hwcaps),
    NAMES,
    NAMES,
    st.sampled_from(sorted(ldcache.FLAGS.values())),
    st.sampled_from(["", "", "x86-64-v2", "x86-64-v3"]),
)
CACHE = ldcache.render(
    [
        ldcache.Entry(name="libc.so.6", path="/lib/libc.so.6", flags=0x303),
        ldcache.Entry(name="libm.so.6", path="/lib/v3/libm.so.6", flags=0x303, hwcaps="x86-64-v3"),
    ]
)


def damaged(whole: bytes) -> st.SearchStrategy[bytes]:
    """The file with some bytes replaced, or cut, or both."""
    places = st.dictionaries(st.integers(0, len(whole) - 1), st.integers(0, 255), max_size=6)
    return st.builds(_damage, st.just(whole), places, st.integers(0, len(whole)))


def _damage(whole: bytes, places: dict[int, int], end: int) -> bytes:
    data = bytearray(whole)
    for place, value in places.items():
        data[place] = value
    return bytes(data[: end or None])


@given(st.one_of(damaged(LIBRARY), st.binary(max_size=200)))
def test_any_elf_file_gives_facts_or_corrupt(data: bytes) -> None:
    for read in (elf.read, elf.notes):
        with suppress(Corrupt):
            read(data)


@given(st.one_of(damaged(CACHE), st.binary(max_size=200).map(lambda tail: CACHE[:20] + tail)))
def test_any_cache_gives_entries_or_corrupt(data: bytes) -> None:
    with suppress(Corrupt):
        ldcache.parse(data)


@given(st.lists(ENTRIES, unique=True))
def test_what_is_written_is_read_back(entries: list[ldcache.Entry]) -> None:
    read = ldcache.parse(ldcache.render(entries))
    assert set(read) == set(entries)
    assert ldcache.parse(ldcache.render(read)) == read  # the order is settled after the first time


@given(st.lists(ENTRIES, unique=True), st.lists(ENTRIES, unique=True))
def test_after_a_merge_every_new_name_leads_to_its_new_file_first(
    existing: list[ldcache.Entry], new: list[ldcache.Entry]
) -> None:
    plain = [e for e in new if not e.hwcaps]
    merged = ldcache.parse(ldcache.render(ldcache.merge(existing, plain)))
    for entry in plain:
        first = next(e for e in merged if (e.name, e.flags) == (entry.name, entry.flags))
        assert first == next(e for e in plain if (e.name, e.flags) == (entry.name, entry.flags))
    assert {e.name for e in existing} <= {e.name for e in merged}
