"""What passes through a file leaves memory once it is on the disk, and nobody waits for a disk that is slow."""

from __future__ import annotations

import ctypes
import mmap
import os
import time
from tempfile import TemporaryFile
from typing import TYPE_CHECKING

import pytest

from argosy.linux.writeback import Behind

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

MIB = 1 << 20


@pytest.fixture
def file() -> Iterator[BinaryIO]:
    with TemporaryFile(dir="/var/tmp", buffering=0) as file:  # on a disk: what is in memory alone cannot leave it
        yield file


def fill(file: BinaryIO, count: int, behind: Behind | None) -> None:
    """Write *count* MiB; the disk is given the time that it needs."""
    for number in range(count):
        file.write(bytes([number % 251]) * MIB)
        if behind is not None:
            os.fdatasync(file.fileno())
            behind.moved((number + 1) * MIB)


def resident(file: BinaryIO) -> int:
    """Bytes of *file* that are in the page cache."""
    size = os.fstat(file.fileno()).st_size
    with mmap.mmap(file.fileno(), size) as mapped:
        pages = (ctypes.c_ubyte * (size // mmap.PAGESIZE))()
        address = ctypes.addressof(ctypes.c_char.from_buffer(mapped))
        assert ctypes.CDLL(None, use_errno=True).mincore(ctypes.c_void_p(address), ctypes.c_size_t(size), pages) == 0
        return sum(page & 1 for page in pages) * mmap.PAGESIZE


def test_what_is_on_the_disk_leaves_memory(file: BinaryIO) -> None:
    fill(file, 64, Behind(file))
    assert resident(file) < 16 * MIB
    file.seek(0)
    assert [file.read(MIB)[0] for _ in range(64)] == list(range(64))


def test_without_it_everything_stays(file: BinaryIO) -> None:
    fill(file, 64, None)
    assert resident(file) > 60 * MIB


def test_a_small_file_is_left_alone(file: BinaryIO) -> None:
    fill(file, 4, Behind(file))
    assert resident(file) == 4 * MIB


def test_a_queue_that_a_slow_disk_does_not_empty_is_not_waited_for(
    file: BinaryIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[int] = []

    def slow(fd: int, offset: int, length: int, advice: int) -> None:
        told.append(offset + length)
        time.sleep(0.15)

    monkeypatch.setattr(os, "posix_fadvise", slow)
    behind = Behind(file)
    for position in range(0, 4000 * MIB, 8 * MIB):
        behind.moved(position)
    assert len(told) < 5


def test_files_that_cannot_be_advised_are_no_fault() -> None:
    read_end, write_end = os.pipe()
    with open(read_end, "rb"), open(write_end, "wb") as pipe:
        Behind(pipe).moved(64 * MIB)
