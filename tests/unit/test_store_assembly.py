"""Assembly: a blob from ranges in any order, taken up after any end, read while it grows."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from argosy.errors import Cancelled, Corrupt, Exhausted, Unavailable
from argosy.oci.descriptor import Descriptor
from argosy.store.assembly import Assembly, Ranges
from argosy.store.blobs import BlobStore

DATA = bytes(range(256)) * 400  # 102,400 bytes: three granules and a bit
BLOB = Descriptor.of(DATA, "application/x-test")


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def write(assembly: Assembly, start: int, end: int, data: bytes = DATA) -> None:
    writer = assembly.writer(start)
    writer.write(data[start:end])
    writer.close()


def leave(store: BlobStore, *ranges: tuple[int, int]) -> None:
    with store.assemble(BLOB) as assembly:
        for start, end in ranges:
            write(assembly, start, end)


def left(store: BlobStore) -> list[str]:
    return sorted(name for name in os.listdir(Path(store.root, "ingest")) if not name.endswith((".lock", ".maker")))


def test_ranges_in_any_order_make_the_blob(store: BlobStore) -> None:
    with store.assemble(BLOB) as assembly:
        for start, end in ((50_000, len(DATA)), (0, 10), (10, 50_000)):
            write(assembly, start, end)
        assembly.commit()
        assert assembly.complete
    assert store.path(BLOB.digest).read_bytes() == DATA
    assert (store.path(BLOB.digest).stat().st_mode & 0o777, left(store)) == (0o444, [])


def test_what_is_here_is_complete_at_once(store: BlobStore) -> None:
    store.put(DATA, BLOB.media_type)
    with store.assemble(BLOB) as assembly:
        assert assembly.complete
        assembly.commit()
    assert left(store) == []


def test_the_empty_blob_is_a_blob(store: BlobStore) -> None:
    empty = Descriptor.of(b"", "application/x-test")
    with store.assemble(empty) as assembly:
        assert assembly.missing() == []
        assembly.commit()
    assert store.stat(empty.digest) == 0


def test_what_has_arrived_is_taken_up(store: BlobStore) -> None:
    leave(store, (0, 1000), (40_000, 50_000))
    assert left(store) == [f"sha256-{BLOB.digest.hex}.part", f"sha256-{BLOB.digest.hex}.part.journal"]
    with store.assemble(BLOB) as assembly:
        assert (assembly.present, assembly.missing()) == (11_000, [(1000, 40_000), (50_000, len(DATA))])
        for start, end in assembly.missing():
            write(assembly, start, end)
        assembly.commit()
    assert store.path(BLOB.digest).read_bytes() == DATA


def test_a_stretch_that_was_damaged_is_missing_and_no_other(store: BlobStore) -> None:
    leave(store, (0, 1000), (1000, 3000), (3000, 9000))
    with open(store.part_path(BLOB.digest), "r+b") as file:
        file.seek(1500)
        file.write(b"\0\0\0")
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(1000, 3000), (9000, len(DATA))]


def test_a_part_that_lost_its_end_is_missing_that(store: BlobStore) -> None:
    leave(store, (0, 1000), (1000, 3000))
    os.truncate(store.part_path(BLOB.digest), 1200)
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(1000, len(DATA))]


@pytest.mark.parametrize("cut", range(1, 48))
def test_a_torn_journal_is_believed_as_far_as_it_is_whole_and_goes_on(store: BlobStore, cut: int) -> None:
    leave(store, (0, 1000), (1000, 3000))
    journal = store.part_path(BLOB.digest) + ".journal"
    os.truncate(journal, cut)
    first = 1000 if cut >= 24 else 0
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(first, len(DATA))]
        write(assembly, first, 5000)
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(5000, len(DATA))]


@pytest.mark.parametrize("place", range(48))
def test_a_damaged_journal_never_tells_of_bytes_that_are_not_here(store: BlobStore, place: int) -> None:
    leave(store, (0, 1000), (1000, 3000))
    journal = Path(store.part_path(BLOB.digest) + ".journal")
    raw = bytearray(journal.read_bytes())
    raw[place] ^= 0x40
    journal.write_bytes(raw)
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(1000 if place >= 24 else 0, len(DATA))]
        for start, end in assembly.missing():
            write(assembly, start, end)
        assembly.commit()


def test_the_journal_of_another_part_does_no_harm(store: BlobStore) -> None:
    leave(store, (0, 3000))
    os.unlink(store.part_path(BLOB.digest))
    with store.assemble(BLOB) as assembly:
        assert assembly.missing() == [(0, len(DATA))]


def test_it_is_noted_as_it_comes_and_not_only_at_the_end(store: BlobStore) -> None:
    with store.assemble(BLOB) as assembly:
        writer = assembly.writer(0)
        for at in range(0, 7_000, 1_000):
            writer.write(DATA[at : at + 1_000])
        journal = Path(store.part_path(BLOB.digest) + ".journal")
        assert (assembly.granule, journal.stat().st_size) == (4096, 24)
        writer.close()
        writer.close()
        assert journal.stat().st_size == 48


def test_a_granule_is_a_thousandth_within_bounds(store: BlobStore) -> None:
    def granule(size: int) -> int:
        with store.assemble(Descriptor(media_type="", digest=BLOB.digest, size=size)) as assembly:
            return assembly.granule

    assert [granule(size) for size in (10, 10**8, 2 * 10**9)] == [4096, 100_000, 2_000_000]


def test_it_is_read_while_it_grows(store: BlobStore) -> None:
    read: list[bytes] = []
    with store.assemble(BLOB) as assembly:
        stream = assembly.open()
        thread = threading.Thread(target=lambda: read.extend(iter(lambda: stream.read(7_000), b"")))
        thread.start()
        for start, end in ((90_000, len(DATA)), (0, 30_000), (30_000, 90_000)):
            write(assembly, start, end)
        thread.join()
        assembly.commit()
    assert (b"".join(read), max(map(len, read))) == (DATA, 7_000)


def test_commit_reads_what_nobody_has_read(store: BlobStore) -> None:
    with store.assemble(BLOB) as assembly:
        stream = assembly.open()
        write(assembly, 0, len(DATA))
        assert stream.read(100) == DATA[:100]
        assembly.commit()
    assert store.claim(BLOB)


def test_other_bytes_than_promised_are_corrupt_and_can_be_discarded(store: BlobStore) -> None:
    with store.assemble(BLOB) as assembly:
        write(assembly, 0, len(DATA), DATA[:500] + b"x" + DATA[501:])
        with pytest.raises(Corrupt) as caught:
            assembly.commit()
        assembly.discard()
    assert (caught.value.code, store.stat(BLOB.digest), left(store)) == ("digest-mismatch", None, [])


def test_who_waits_for_bytes_is_told_when_none_will_come(store: BlobStore) -> None:
    error = Unavailable("the connection broke", code="connection-lost")
    with store.assemble(BLOB) as assembly:
        write(assembly, 0, 500)
        stream = assembly.open()
        threading.Timer(0.02, lambda: assembly.fail(error)).start()
        with pytest.raises(Unavailable) as caught:
            stream.read(-1)
    assert caught.value is error


def test_a_reader_that_outlives_the_assembly_is_told(store: BlobStore) -> None:
    with store.assemble(BLOB) as assembly:
        stream = assembly.open()
    with pytest.raises(Cancelled):
        stream.read(1)


def test_nothing_written_leaves_nothing(store: BlobStore) -> None:
    with store.assemble(BLOB):
        pass
    assert left(store) == []


def test_a_second_one_waits_says_so_and_finds_the_blob(store: BlobStore) -> None:
    seen: list[object] = []

    def second() -> None:
        with store.assemble(BLOB, lambda: seen.append("waiting")) as assembly:
            seen.append(assembly.complete)

    with store.assemble(BLOB) as assembly:
        thread = threading.Thread(target=second)
        thread.start()
        while not seen:
            thread.join(0.01)
        write(assembly, 0, len(DATA))
        assembly.commit()
    thread.join()
    assert (seen, left(store)) == (["waiting", True], [])


def test_a_second_one_goes_on_where_the_first_gave_up(store: BlobStore) -> None:
    seen: list[object] = []

    def second() -> None:
        with store.assemble(BLOB, lambda: seen.append("waiting")) as assembly:
            seen.append(assembly.missing())

    with store.assemble(BLOB) as assembly:
        write(assembly, 0, 300)
        thread = threading.Thread(target=second)
        thread.start()
        while not seen:
            thread.join(0.01)
    thread.join()
    assert seen == ["waiting", [(300, len(DATA))]]


def test_a_blob_that_cannot_fit_is_refused_before_the_transfer(store: BlobStore) -> None:
    huge = Descriptor(media_type="application/x-test", digest=BLOB.digest, size=1 << 60)
    with pytest.raises(Exhausted) as caught:
        store.assemble(huge)
    assert (caught.value.code, left(store)) == ("disk-full", [])
    assert caught.value.context.startswith(f"{1 << 60} more bytes are needed, ")


def test_a_link_where_the_part_should_be_is_not_followed(store: BlobStore, tmp_path: Path) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    os.makedirs(Path(store.root, "ingest"))
    os.symlink(victim, store.part_path(BLOB.digest))
    with pytest.raises(Exception, match="cannot write"):
        store.assemble(BLOB)
    assert victim.read_bytes() == b"precious"


@pytest.mark.parametrize(
    ("added", "gaps", "size"),
    [
        ([], [(0, 10)], 0),
        ([(0, 10)], [], 10),
        ([(2, 4), (6, 8)], [(0, 2), (4, 6), (8, 10)], 4),
        ([(2, 4), (4, 6)], [(0, 2), (6, 10)], 4),
        ([(2, 6), (4, 8)], [(0, 2), (8, 10)], 6),
        ([(2, 4), (6, 8), (3, 7)], [(0, 2), (8, 10)], 6),
        ([(6, 8), (2, 4), (0, 10)], [], 10),
        ([(3, 3)], [(0, 10)], 0),
    ],
)
def test_ranges_add_up(added: list[tuple[int, int]], gaps: list[tuple[int, int]], size: int) -> None:
    ranges = Ranges()
    for start, end in added:
        ranges.add(start, end)
    assert (ranges.gaps(10), ranges.size) == (gaps, size)
    inside = [position for position in range(11) if ranges.length_at(position)]
    assert inside == [position for position in range(10) if not any(a <= position < b for a, b in gaps)]


def test_a_thread_that_comes_after_the_end_leaves_nothing(store: BlobStore) -> None:
    """A last note may be late; it must neither make a journal nor write to a descriptor that is another's by then."""
    with store.assemble(BLOB) as assembly:
        writer = assembly.writer(0)
        writer.write(DATA[:5000])
        write(assembly, 5000, len(DATA))
        assembly.commit()
    for late in (lambda: assembly.note(0, 5000, 1), lambda: assembly.put(0, b"x")):
        with pytest.raises(Cancelled):
            late()
    assert left(store) == []
