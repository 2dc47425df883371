"""The tar writer: plain where plain will do, and the same bytes every time."""

from __future__ import annotations

import io
import tarfile

import msgspec
import pytest

from argosy.errors import Conflict, InvalidInput
from argosy.layer.archive import entries
from argosy.layer.entry import Entry
from argosy.layer.writer import ArchiveWriter
from tests.support.archives import archive, file, folder, pax, symlink


def written(*members: tuple[Entry, bytes | None]) -> bytes:
    out = io.BytesIO()
    with ArchiveWriter(out) as writer:
        for entry, data in members:
            writer.add(entry, data)
    return out.getvalue()


def test_plain_entries_are_plain_headers() -> None:
    tar = written(
        (Entry(path=b"d", kind="folder", mode=0o755, mtime_ns=10**9), None),
        (Entry(path=b"d/f", kind="file", mode=0o4755, uid=1, gid=2, size=3), b"abc"),
        (Entry(path=b"l", kind="symlink", mode=0o777, linkname=b"d/f"), None),
    )
    expected = archive(folder(b"d/", mtime=1), file(b"d/f", b"abc", mode=0o4755, uid=1, gid=2), symlink(b"l", b"d/f"))
    assert tar == expected


def test_what_headers_cannot_hold_goes_into_sorted_records() -> None:
    entry = Entry(
        path=b"n" * 101, kind="file", mtime_ns=1_500_000_000, uid=1 << 21, xattrs={b"user.b": b"2", b"user.a": b"\xff"}
    )
    tar = written((entry, None))
    records = pax(
        (b"SCHILY.xattr.user.a", b"\xff"),
        (b"SCHILY.xattr.user.b", b"2"),
        (b"mtime", b"1.5"),
        (b"path", b"n" * 101),
        (b"uid", b"2097152"),
    )
    assert tar[512:1024] == records[512:]
    assert tar[1024:] == archive(file(b"n" * 100, mtime=1))


ENTRIES = (
    Entry(path=b"", kind="folder", mode=0o755),
    Entry(path=b"a" * 100 + b"/" + b"b" * 100, kind="file", size=4),
    Entry(path=b"a" * 160 + b"/" + b"b", kind="fifo"),
    Entry(path=b"a" * 50 + b"/" + b"b" * 120, kind="folder"),
    Entry(path=b"\xff\xfe" * 80, kind="symlink", linkname=b"\xfd" * 200),
    Entry(path=b"h", kind="hardlink", linkname=b"a" * 100 + b"/" + b"b" * 100),
    Entry(path=b"c", kind="character", major=4095, minor=(1 << 20) - 1),
    Entry(path=b"t1", kind="file", mtime_ns=-1),
    Entry(path=b"t2", kind="file", mtime_ns=-1_000_000_000),
    Entry(path=b"t3", kind="file", mtime_ns=(1 << 63) - 1),
    Entry(path=b"t4", kind="file", mtime_ns=(1 << 33) * 10**9),
    Entry(path=b"ids", kind="file", uid=(1 << 32) - 2, gid=(1 << 21) - 1),
    Entry(path=b"x", kind="file", xattrs={b"user.a=b%c": b"\0\n", b"user.none": b"", b"security.capability": b"\1\0"}),
)


def test_entries_come_back_as_they_were() -> None:
    tar = written(*[(entry, b"data" if entry.size else None) for entry in ENTRIES])
    found = [msgspec.structs.replace(entry, offset=0, stored=0) for entry in entries(io.BytesIO(tar))]
    assert found == list(ENTRIES)


def test_python_reads_the_same_names_and_times() -> None:
    """tarfile is somebody else's reader; of attributes it knows nothing."""
    tar = written(*[(entry, b"data" if entry.size else None) for entry in ENTRIES[1:]])
    with tarfile.open(fileobj=io.BytesIO(tar)) as theirs:
        found = [(member.name.encode(errors="surrogateescape"), member.uid, member.gid) for member in theirs]
    assert found == [(entry.path, entry.uid, entry.gid) for entry in ENTRIES[1:]]


def test_files_beyond_eight_gigabytes_say_so_in_a_record() -> None:
    class Enough(io.RawIOBase):
        left = 1 << 33

        def read(self, count: int = -1) -> bytes:
            size = min(count, self.left)
            self.left -= size
            return memoryview(zeros)[:size]  # type: ignore[return-value]

    class Discard:
        start = b""
        size = 0

        def write(self, data: bytes) -> None:
            self.start = self.start or bytes(data[:2048])
            self.size += len(data)

    zeros, out = bytes(1 << 20), Discard()
    with ArchiveWriter(out) as writer:
        writer.add(Entry(path=b"big", kind="file", size=1 << 33), Enough())
    expected = pax((b"size", b"8589934592")) + file(b"big")
    assert (out.start[512:], out.size) == (expected[512:], (1 << 33) + 1536 + 1024)


@pytest.mark.parametrize(
    ("data", "context"),
    [(b"ab", "2 bytes instead of 3"), (b"abcd", "4 bytes instead of 3")],
)
def test_files_that_change_meanwhile_are_a_conflict(data: bytes, context: str) -> None:
    with pytest.raises(Conflict) as caught:
        written((Entry(path=b"f", kind="file", size=3), data))
    assert (caught.value.code, caught.value.context) == ("file-changed", context)
    for changed in (b"ab", b"abcd"):
        writer = ArchiveWriter(io.BytesIO())
        with pytest.raises(Conflict):
            writer.add(Entry(path=b"f", kind="file", size=3), io.BytesIO(changed))


def test_files_without_data_are_a_mistake_of_the_caller() -> None:
    with pytest.raises(InvalidInput, match="no data for f"):
        written((Entry(path=b"f", kind="file", size=3), None))
