"""The tar reader: every format in use, hostile ones refused, nothing read twice."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt
from argosy.layer.archive import entries
from argosy.layer.entry import Entry, clean_path
from argosy.layer.erofs import IndexBuilder
from tests.support import archives
from tests.support.archives import (
    HOSTILE,
    Chunked,
    archive,
    device,
    file,
    folder,
    gnu_long,
    gnu_sparse,
    hardlink,
    header,
    pax,
    pax_sparse,
    symlink,
)

if TYPE_CHECKING:
    from typing import BinaryIO

SECOND = 10**9


def read(tar: bytes) -> list[Entry]:
    return list(entries(io.BytesIO(tar)))


def contents(tar: bytes) -> dict[bytes, bytes]:
    reader = entries(io.BytesIO(tar))
    return {entry.path: b"".join(reader.file_chunks()) for entry in reader}


def test_every_kind_is_read() -> None:
    tar = archive(
        file(b"f", b"abc", mode=0o4755, uid=1, gid=2, mtime=3),
        folder(b"d/", 0o1777),
        symlink(b"s", b"/anywhere/../at all"),
        hardlink(b"h", b"/./f"),
        device(b"c", b"3", 5, 300),
        device(b"b", b"4", 259, 1),
        header(b"p", b"6"),
    )
    assert read(tar) == [
        Entry(path=b"f", kind="file", mode=0o4755, uid=1, gid=2, mtime_ns=3 * SECOND, size=3, offset=512, stored=3),
        Entry(path=b"d", kind="folder", mode=0o1777, offset=1536),
        Entry(path=b"s", kind="symlink", mode=0o777, linkname=b"/anywhere/../at all", offset=2048),
        Entry(path=b"h", kind="hardlink", linkname=b"f", offset=2560),
        Entry(path=b"c", kind="character", major=5, minor=300, offset=3072),
        Entry(path=b"b", kind="block", major=259, minor=1, offset=3584),
        Entry(path=b"p", kind="fifo", offset=4096),
    ]


@pytest.mark.parametrize(
    ("name", "path"),
    [
        (b"a", b"a"),
        (b"./a", b"a"),
        (b"/a", b"a"),
        (b"//a//b/", b"a/b"),
        (b"./././a/./b/.", b"a/b"),
        (b".hidden/..x/...", b".hidden/..x/..."),
        (b"a\xff\xfe", b"a\xff\xfe"),
        (b"a\nb c", b"a\nb c"),
    ],
)
def test_names_come_out_clean(name: bytes, path: bytes) -> None:
    assert [entry.path for entry in read(archive(file(name)))] == [path]


@pytest.mark.parametrize("before", [b"x", b"a/x", b"a/b/x"])
@pytest.mark.parametrize(
    "name", [b"y", b"/y", b"./y", b"a/y", b"a/.", b"a/./y", b"a//y", b"/a/y", b"a/.y", b"a/b//y", b"a/b/.", b"//y"]
)
def test_names_come_out_clean_whatever_came_before(before: bytes, name: bytes) -> None:
    paths = [entry.path for entry in read(archive(file(before), file(name), file(before), file(name)))]
    assert paths == [before, clean_path(name), before, clean_path(name)]


@pytest.mark.parametrize("before", [b"x", b"a/x"])
@pytest.mark.parametrize("name", [b"..", b"/..", b"a/..", b"a/../x", b"../x"])
def test_a_name_that_goes_up_is_refused_whatever_came_before(before: bytes, name: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        read(archive(file(before), file(name)))
    assert caught.value.code == "archive-path-escapes"


@pytest.mark.parametrize("name", [b"", b"/", b"./", b"."])
def test_files_without_a_name_are_passed_over_and_the_root_is_a_folder(name: bytes) -> None:
    tar = archive(header(name, b"2", link=b"x"), file(b"a", b"x" * 600), folder(name))
    assert [(entry.path, entry.kind) for entry in read(tar)] == [(b"a", "file"), (b"", "folder")]


def test_pax_records_overrule_the_header() -> None:
    records = (
        (b"path", b"long/" * 60 + b"name"),
        (b"size", b"3"),
        (b"uid", b"3000000"),
        (b"gid", b"4294967294"),
        (b"mtime", b"-1.5"),
        (b"SCHILY.xattr.user.a", b"1"),
        (b"SCHILY.xattr.user.empty", b""),
        (b"LIBARCHIVE.xattr.user.b%3D", b"Mg"),
        (b"LIBARCHIVE.xattr.user.a", b"eA=="),
        (b"hdrcharset", b"BINARY"),
        (b"comment", b"x"),
    )
    (entry,) = read(archive(pax(*records), header(b"short", uid=5) + b"abc".ljust(512, b"\0")))
    assert entry == Entry(
        path=b"long/" * 60 + b"name",
        kind="file",
        size=3,
        stored=3,
        uid=3_000_000,
        gid=4_294_967_294,
        mtime_ns=-SECOND * 3 // 2,
        xattrs={b"user.a": b"1", b"user.empty": b"", b"user.b=": b"2"},
        offset=entry.offset,
    )


def test_global_records_hold_until_taken_back() -> None:
    tar = archive(
        pax((b"uid", b"7"), (b"mtime", b"9"), kind=b"g"),
        file(b"a"),
        pax((b"uid", b"")),
        file(b"b", uid=1),
        pax((b"uid", b""), kind=b"g"),
        file(b"c", uid=2),
        pax((b"comment", b"at the end"), kind=b"g"),
    )
    assert [(entry.path, entry.uid, entry.mtime_ns) for entry in read(tar)] == [
        (b"a", 7, 9 * SECOND),
        (b"b", 1, 9 * SECOND),
        (b"c", 2, 9 * SECOND),
    ]


def test_pax_size_decides_where_the_next_header_is() -> None:
    """A reader that believed the header's size would take the data for entries."""
    hidden = file(b"hidden")
    tar = archive(pax((b"size", b"%d" % len(hidden))), header(b"outer", size=0) + hidden, file(b"after"))
    assert [entry.path for entry in read(tar)] == [b"outer", b"after"]


def test_links_and_folders_have_no_data_whatever_they_say() -> None:
    tar = archive(header(b"d", b"5", size=512), header(b"l", b"2", link=b"x", size=99), file(b"f", b"x"))
    assert [(entry.path, entry.size) for entry in read(tar)] == [(b"d", 0), (b"l", 0), (b"f", 1)]


def test_long_names_of_gnu() -> None:
    name, link = b"n/" * 200 + b"x", b"t" * 300
    tar = archive(gnu_long(name), gnu_long(link, b"K"), symlink(b"cut", b"cut"), file(b"after"))
    assert [(entry.path, entry.linkname) for entry in read(tar)] == [(name, link), (b"after", b"")]


def test_headers_without_octal() -> None:
    tar = archive(header(b"a", uid=1 << 30, gid=1 << 31, mtime=-5, magic=b"ustar  \0"), header(b"b", mtime=1 << 80))
    assert [(entry.uid, entry.gid, entry.mtime_ns) for entry in read(tar)] == [
        (1 << 30, 1 << 31, -5 * SECOND),
        (0, 0, (1 << 63) - 1),
    ]


def test_numbers_with_blanks_around_and_signed_checksums() -> None:
    block = header(b"caf\xe9")
    blank = archives.checked(block[:100] + b"   644 \0" + block[108:])
    difference = 256 * sum(byte > 127 for byte in block)
    total = int(block[148:154], 8) - difference
    signed = block[:148] + b"%06o\0 " % total + block[156:]
    assert [(entry.path, entry.mode) for entry in read(archive(blank, signed))] == [(b"caf\xe9", 0o644)] * 2


def test_ustar_prefix_counts_and_gnu_has_none() -> None:
    with_times = header(b"b", magic=b"ustar  \0", tail=b"01234567012\0")
    tar = archive(header(b"a", prefix=b"p/q"), with_times)
    assert [entry.path for entry in read(tar)] == [b"p/q/a", b"b"]


PARTS = ((0, b"a" * 512), (4096, b"b" * 1000), (9000, b"c"))
EXPECTED = b"a" * 512 + bytes(3584) + b"b" * 1000 + bytes(3904) + b"c" + bytes(999)


@pytest.mark.parametrize(
    "member",
    [
        gnu_sparse(b"s", 10_000, *PARTS, (10_000, b"")),
        pax_sparse(b"s", 10_000, *PARTS, (10_000, b""), version="0.0"),
        pax_sparse(b"s", 10_000, *PARTS, version="0.1"),
        pax_sparse(b"s", 10_000, *PARTS, (10_000, b""), version="1.0"),
    ],
    ids=["old gnu", "0.0", "0.1", "1.0"],
)
def test_sparse_files_in_all_formats(member: bytes) -> None:
    tar = archive(member, file(b"after", b"x"))
    first, second = read(tar)
    assert (first.path, first.size, first.stored, first.extents, second.path) == (
        b"s",
        10_000,
        1513,
        ((0, 512), (4096, 1000), (9000, 1)),
        b"after",
    )
    assert tar[first.offset :].startswith(b"a" * 512)
    assert contents(tar) == {b"s": EXPECTED, b"after": b"x"}


def test_sparse_files_of_many_parts() -> None:
    parts = tuple((index * 1024, b"%04d" % index) for index in range(3000))
    for member in (gnu_sparse(b"s", 1 << 22, *parts), pax_sparse(b"s", 1 << 22, *parts)):
        (entry,) = read(archive(member))
        assert entry.extents == tuple((at, 4) for at, _ in parts)


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.what)
def test_hostile_archives_are_refused(hostile: archives.Hostile) -> None:
    with pytest.raises(Corrupt) as caught:
        index(io.BytesIO(hostile.tar))
    assert caught.value.code == hostile.code


def index(stream: BinaryIO) -> bytes:
    out = io.BytesIO()
    builder, reader = IndexBuilder(out), entries(stream)
    for entry in reader:
        builder.add(entry, reader.read)
    builder.finish("0" * 64, reader.position)
    return out.getvalue()


def test_truncation_is_noticed_except_between_entries() -> None:
    tar = archive(file(b"a", b"x" * 600), pax((b"mtime", b"1")), file(b"b"), gnu_sparse(b"c", 9, *[(0, b"x")] * 1))
    whole = read(tar)
    for part in archives.truncations(tar, step=64):
        found = read_or_code(part)
        assert found == "archive-truncated" or (len(part) % 512 == 0 and found == whole[: len(found)])


def read_or_code(tar: bytes) -> list[Entry] | str:
    try:
        return read(tar)
    except Corrupt as error:
        return error.code


def test_what_lies_behind_the_end_is_read_and_means_nothing() -> None:
    stream = io.BytesIO(archive(file(b"a")) + file(b"hidden") + b"odd bytes")
    assert [entry.path for entry in entries(stream)] == [b"a"]
    assert stream.read() == b""


def test_archives_may_end_without_saying_so() -> None:
    assert [read(tar) == [] for tar in (b"", bytes(512), bytes(1024), bytes(10240))] == [True] * 4
    assert [entry.path for entry in read(file(b"a"))] == [b"a"]


@pytest.mark.parametrize("sizes", [(1,), (511, 1, 513), (700,), (1 << 20,)])
def test_cutting_of_the_stream_makes_no_difference(sizes: tuple[int, ...]) -> None:
    tar = archive(file(b"a", b"x" * 1300), pax((b"mtime", b"1.5")), file(b"b", b"y"), pax_sparse(b"c", 10_000, *PARTS))
    reader = entries(Chunked(tar, *sizes))  # type: ignore[arg-type]
    assert {entry.path: b"".join(reader.file_chunks()) for entry in reader} == contents(tar)
    assert reader.position == len(tar)


def test_data_that_nobody_reads_is_skipped_without_being_kept() -> None:
    start = header(b"bomb", size=1 << 34)
    reader = entries(archives.Zeros(start, (1 << 20) + 512))  # type: ignore[arg-type]
    assert next(reader).size == 1 << 34
    with pytest.raises(Corrupt, match="ends too early"):
        next(reader)


def test_a_hundred_thousand_entries() -> None:
    tar = archives.many(100_000)
    assert sum(entry.kind == "file" for entry in entries(io.BytesIO(tar))) == 100_000
    assert len(index(io.BytesIO(tar))) < 110 * 100_100
