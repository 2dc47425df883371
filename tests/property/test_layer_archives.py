"""What holds for any archive: it comes back as written, and no bytes do worse than Corrupt."""

from __future__ import annotations

import io

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.errors import Corrupt
from argosy.layer import pax
from argosy.layer.archive import entries
from argosy.layer.compression import decompressed
from argosy.layer.entry import Entry, clean_path
from argosy.layer.erofs import IndexBuilder
from argosy.layer.writer import ArchiveWriter
from tests.support.archives import (
    HOSTILE,
    Chunked,
    archive,
    file,
    folder,
    gnu_long,
    gnu_sparse,
    hardlink,
    pax_sparse,
    symlink,
)

part = st.binary(min_size=1, max_size=40).map(lambda raw: raw.replace(b"/", b"_").replace(b"\0", b"_"))
name = part.filter(lambda raw: raw not in (b".", b".."))
path = st.lists(name, min_size=1, max_size=8).map(b"/".join)
time_ns = st.integers(-(1 << 63), (1 << 63) - 1)
ident = st.integers(0, (1 << 32) - 2)
xattr_name = st.binary(min_size=1, max_size=30).map(lambda raw: b"user." + raw.replace(b"\0", b"_"))
xattrs = st.dictionaries(xattr_name, st.binary(max_size=50), max_size=3).filter(
    lambda found: not any(pax.is_overlay_xattr(key) for key in found)
)


@st.composite
def members(draw: st.DrawFn) -> tuple[Entry, bytes | None]:
    kind = draw(st.sampled_from(["file", "folder", "symlink", "hardlink", "character", "block", "fifo"]))
    data = draw(st.binary(max_size=1500)) if kind == "file" else b""
    is_device = kind in ("character", "block")
    entry = Entry(
        path=draw(path),
        kind=kind,  # type: ignore[arg-type]
        mode=draw(st.integers(0, 0o7777)),
        uid=draw(ident),
        gid=draw(ident),
        mtime_ns=draw(time_ns),
        size=len(data),
        linkname=draw(path) if kind in ("symlink", "hardlink") else b"",
        major=draw(st.integers(0, 4095)) if is_device else 0,
        minor=draw(st.integers(0, (1 << 20) - 1)) if is_device else 0,
        xattrs=draw(xattrs),
    )
    return entry, data or None


@settings(deadline=None)
@given(st.lists(members(), max_size=6), st.lists(st.integers(1, 3000), min_size=1, max_size=4))
def test_entries_come_back_as_written_for_any_cutting(
    found: list[tuple[Entry, bytes | None]], sizes: list[int]
) -> None:
    out = io.BytesIO()
    with ArchiveWriter(out) as writer:
        for entry, data in found:
            writer.add(entry, data)
    reader = entries(Chunked(out.getvalue(), *sizes))  # type: ignore[arg-type]
    back = [(msgspec.structs.replace(entry, offset=0, stored=0), reader.read() or None) for entry in reader]
    assert back == found


@given(time_ns)
def test_times_survive_their_text(ns: int) -> None:
    assert pax.time_ns(pax.time_text(ns)) == ns


@given(st.binary(min_size=1).filter(lambda key: b"=" not in key and b"\0" not in key), st.binary(max_size=12_000))
def test_records_survive(key: bytes, value: bytes) -> None:
    assert pax.records(pax.record(key, value)) == [(key, value)]


@given(st.binary(max_size=300))
def test_any_name_is_clean_or_refused(raw: bytes) -> None:
    try:
        clean = clean_path(raw)
    except Corrupt as error:
        assert error.code in ("archive-path-escapes", "archive-name-invalid", "archive-name-too-long")  # noqa: PT017
        return
    parts = clean.split(b"/") if clean else []
    assert not {b"", b".", b".."} & set(parts)
    assert clean_path(clean) == clean


SAMPLES = (
    archive(
        folder(b"d"),
        file(b"d/f", b"x" * 700),
        gnu_long(b"n/" * 90 + b"x"),
        symlink(b"s", b"t"),
        hardlink(b"h", b"d/f"),
        gnu_sparse(b"g", 9000, (512, b"a"), (4096, b"b" * 600)),
        pax_sparse(b"p", 9000, (512, b"a"), (4096, b"b" * 600)),
        pax_sparse(b"q", 9000, (5, b"a"), version="0.0"),
        file(b"d/.wh.x"),
    ),
    *(hostile.tar for hostile in HOSTILE if len(hostile.tar) < 8192),
)


@settings(deadline=None, max_examples=400)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(0, 12_000), st.binary(min_size=1, max_size=12)), max_size=5),
    st.integers(0, 12_000),
)
def test_damaged_archives_are_read_or_corrupt(tar: bytes, damage: list[tuple[int, bytes]], end: int) -> None:
    broken = bytearray(tar)
    for at, data in damage:
        at %= len(broken)
        broken[at : at + len(data)] = data
    index_or_corrupt(bytes(broken[: end or None]))


@settings(deadline=None)
@given(st.binary(max_size=3000))
def test_any_bytes_are_read_or_corrupt(raw: bytes) -> None:
    index_or_corrupt(raw)
    try:
        decompressed(io.BytesIO(b"\x1f\x8b\x08" + raw)).read()
    except Corrupt as error:
        assert error.code in ("compression-damaged", "compression-truncated")  # noqa: PT017


def index_or_corrupt(tar: bytes) -> None:
    builder, reader = IndexBuilder(io.BytesIO()), entries(io.BytesIO(tar))
    try:
        for entry in reader:
            builder.add(entry, reader.read)
        builder.finish("0" * 64, reader.position)
    except Corrupt as error:
        assert error.code.startswith("archive-")  # noqa: PT017
