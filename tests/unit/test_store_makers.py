"""Who is at work in a store is told by locks, whichever way their processes ended."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci.descriptor import OCI_LAYER, Descriptor
from argosy.store import gc, makers
from argosy.store.blobs import BlobStore

if TYPE_CHECKING:
    from pathlib import Path

NOTHING = gc.Reached(blobs=frozenset(), diff_ids=frozenset())
DATA = b"some bytes"
BLOB = Descriptor.of(DATA, OCI_LAYER)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A store in which somebody was at work long ago."""
    BlobStore(tmp_path).put(b"old", OCI_LAYER)
    return tmp_path


def forked_maker(root: Path) -> tuple[int, int]:
    """(pid, descriptor that ends with it) of a child that has put DATA and lives on."""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        blobs = BlobStore(root)
        blobs.put(DATA, OCI_LAYER)
        os.write(write_end, b"x")
        signal.pause()
        os._exit(0)
    os.close(write_end)
    assert os.read(read_end, 1) == b"x"
    return pid, read_end


def ended(pid: int, fd: int) -> None:
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    os.close(fd)


def idle_before(root: Path) -> int:
    return gc.idle_before_ns(BlobStore(root))


def removed(root: Path) -> tuple[str, ...]:
    """What a removal takes of everything that is here."""
    blobs = BlobStore(root)
    return gc.set_aside(blobs, tuple(blobs.walk()), lambda: NOTHING, before_ns=gc.idle_before_ns(blobs)).blobs


def test_what_a_living_maker_has_written_stays(root: Path) -> None:
    pid, fd = forked_maker(root)
    try:
        assert BLOB.digest not in removed(root)
        assert BlobStore(root).stat(BLOB.digest) is not None
    finally:
        ended(pid, fd)


def test_what_a_killed_maker_left_goes_at_once(root: Path) -> None:
    ended(*forked_maker(root))
    time.sleep(0.02)  # a tick of the file system's clock
    assert BLOB.digest in removed(root)


def test_older_leftovers_go_beside_a_younger_maker(root: Path) -> None:
    ended(*forked_maker(root))
    time.sleep(0.02)
    pid, fd = forked_maker(root)  # it claims DATA again
    try:
        assert [digest for digest in removed(root) if digest == BLOB.digest] == []
        os.utime(BlobStore(root).path(BLOB.digest), ns=(1, os.stat(root / "ingest").st_mtime_ns - 10**9))
        assert BLOB.digest in removed(root)
    finally:
        ended(pid, fd)


def test_a_claim_counts_as_work(root: Path) -> None:
    blobs = BlobStore(root)
    blobs.put(DATA, OCI_LAYER)
    blobs.rest()
    time.sleep(0.02)
    assert blobs.claim(BLOB)
    assert BLOB.digest not in removed(root)
    blobs.rest()
    time.sleep(0.02)
    assert BLOB.digest in removed(root)


def test_the_file_of_a_dead_maker_is_taken_over_or_goes(root: Path) -> None:
    ended(*forked_maker(root))
    [left] = (root / "ingest").glob("*.maker")
    blobs = BlobStore(root)
    blobs.begin()
    assert list((root / "ingest").glob("*.maker")) == [left]
    blobs.rest()
    idle_before(root)
    assert list((root / "ingest").glob("*.maker")) == []


def test_a_maker_began_before_all_that_it_touches(root: Path) -> None:
    blobs = BlobStore(root)
    blobs.put(DATA, OCI_LAYER)
    began = makers.began_ns(os.fspath(root / "ingest"))
    assert began is not None
    assert began <= os.stat(blobs.path(BLOB.digest)).st_mtime_ns


def test_several_makers_have_files_of_their_own(root: Path) -> None:
    stores = [BlobStore(root) for _ in range(3)]
    for blobs in stores:
        blobs.begin()
    assert len(list((root / "ingest").glob("*.maker"))) == 3


def test_registering_where_nothing_can_be_written_gives_none(tmp_path: Path) -> None:
    assert makers.register(os.fspath(tmp_path / "nowhere")) is None
