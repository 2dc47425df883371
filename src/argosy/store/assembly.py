"""A blob on its way from elsewhere: put together from ranges, read from its front while it grows.

Threads write ranges in any order into one file, `ingest/<digest>.part`. A journal
beside it notes, piece by piece and with a checksum, what has arrived, so that after
kill -9 or a reboot only what is missing or damaged is fetched again. One process at
a time puts a blob together; others wait, and then find it complete.
"""

from __future__ import annotations

import errno
import os
import struct
import threading
from bisect import bisect_right
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from ..errors import Cancelled, Error
from ..linux.locks import Held, hold, own_name
from ..linux.writeback import Behind
from ..oci.digest import CHUNK, VerifyingReader
from .blobs import JOURNAL, full_disk, translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from .blobs import BlobStore

#: One record of the journal: offset, length and CRC-32 of what was written, CRC-32 of the three.
_RECORD = struct.Struct("<QQII")
_FINEST = 1 << 12  # bytes; a record each, at least
_COARSEST = 4 << 20
_SHARE = 1000  # a record for each thousandth of the blob: what several connections lose at once is below 1 %

Range = tuple[int, int]  # first byte, byte after the last


class Assembly:
    """The blob *expected*, being put together; a context manager, which leaves a part that can be taken up again.

    *waiting* is called when another process is at work on the same blob and this one
    has to wait for it.

    Raises Exhausted at once when the disk cannot hold what is missing.
    """

    def __init__(self, store: BlobStore, expected: Descriptor, waiting: Callable[[], None] = lambda: None) -> None:
        self._store = store
        self._expected = expected
        self._held: Held | None = None
        self._journal_fd: int | None = None
        self._path = store.part_path(expected.digest)
        self._changed = threading.Condition()
        self._arrived = Ranges()
        self._failure: BaseException | None = None
        #: threads that use the descriptors at this moment
        self._writers = 0
        self._reader: _CheckedReader | None = None
        self.granule = min(max(expected.size // _SHARE, _FINEST), _COARSEST)
        #: the blob is in the store: nothing to fetch, to read here or to commit
        self.complete = False
        try:
            self._begin(waiting)
        except OSError as error:
            self.close()
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise

    @property
    def present(self) -> int:
        """Bytes that have arrived."""
        with self._changed:
            return self._arrived.size

    def missing(self) -> list[Range]:
        """What is to be fetched, in order."""
        with self._changed:
            return self._arrived.gaps(self._expected.size)

    def writer(self, offset: int) -> RangeWriter:
        """A writer of consecutive bytes from *offset* on, for one thread. Close it to have the last of them noted."""
        return RangeWriter(self, offset)

    def open(self) -> BinaryIO:
        """The blob from its first byte, each as soon as it has arrived; checks size and digest at the end.

        For one reader. Reading raises what `fail` was given, and Corrupt (digest-mismatch).
        """
        self._reader = _CheckedReader(_Growing(self), self._expected)
        return cast("BinaryIO", self._reader)

    def fail(self, error: BaseException) -> None:
        """No more bytes will arrive: whoever waits for them gets *error*."""
        with self._changed:
            self._failure = self._failure or error
            self._changed.notify_all()

    def commit(self) -> None:
        """Publish the blob, after reading what nobody has read; waits for missing bytes.

        It is not synced: the caller has said so in `unsettled`. Raises Corrupt; the part is
        removed then, since no piece of it can be told from another.
        """
        if self.complete:
            return
        reader = self._reader or cast("_CheckedReader", self.open())
        while reader.read(CHUNK):
            pass
        fd = self.fileno()
        try:
            self._store.adopt(fd, self._path, self._expected.digest, sync=False)
            _unlink(self._path + JOURNAL)
        except OSError as error:
            raise self._failed(error) from error
        self.complete = True
        self.close()

    def discard(self) -> None:
        """Forget what has arrived: it turned out to be something else."""
        if self._held is not None:
            _unlink(self._path)
            _unlink(self._path + JOURNAL)
        self.close()

    def close(self) -> None:
        """Let go; readers that wait are told. Idempotent."""
        self.fail(Cancelled("the transfer was stopped", code="cancelled"))
        with self._changed:
            held, self._held = self._held, None
            while self._writers:
                self._changed.wait()
            journal_fd, self._journal_fd = self._journal_fd, None
        if journal_fd is not None:
            os.close(journal_fd)
        if held is not None:
            if not self.complete and not self._arrived.size:
                _unlink(self._path)
                _unlink(self._path + JOURNAL)
            held.release()

    def __enter__(self) -> Assembly:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ---- what writers and the reader call

    def put(self, offset: int, data: bytes | memoryview) -> None:
        """Write *data* at *offset*; readers see it, the journal does not yet know it."""
        view, at = memoryview(data), offset
        with self._writing() as fd:
            while view:
                count = os.pwrite(fd, view, at)
                view, at = view[count:], at + count
        with self._changed:
            self._arrived.add(offset, at)
            self._changed.notify_all()

    def note(self, offset: int, length: int, checksum: int) -> None:
        """Put a written stretch into the journal, for the next attempt."""
        record = struct.pack("<QQI", offset, length, checksum)
        with self._writing():
            os.write(self._journal(), record + struct.pack("<I", _crc32(record)))

    @contextmanager
    def _writing(self) -> Iterator[int]:
        """The descriptors stay open meanwhile: a thread that comes late must not write to a number given anew.

        Raises Cancelled after close, else what the disk says.
        """
        with self._changed:
            fd = self.fileno()
            self._writers += 1
        try:
            yield fd
        except OSError as error:
            raise self._failed(error) from error
        finally:
            with self._changed:
                self._writers -= 1
                self._changed.notify_all()

    def await_bytes(self, position: int) -> int:
        """The number of bytes that can be read at *position*, waiting for the first; 0 at the end. Raises as `fail`."""
        with self._changed:
            while not (count := self._arrived.length_at(position)):
                if position >= self._expected.size:
                    return 0
                if self._failure is not None:
                    raise self._failure
                self._changed.wait()
        return count

    def read_at(self, position: int, count: int) -> bytes:
        return os.pread(self.fileno(), count, position)

    def fileno(self) -> int:
        """The part's descriptor. Raises Cancelled after close."""
        if self._held is None:
            raise Cancelled("the transfer was stopped", code="cancelled")
        return self._held.fd

    # ---- beginning

    def _begin(self, waiting: Callable[[], None]) -> None:
        folder, lock = os.path.dirname(self._path), self._path
        self._store.begin()
        if self._is_there():
            return
        self._path = own_name(self._path, folder)
        self._held = hold(self._path, os.O_RDWR | os.O_CREAT, lock=lock, waiting=waiting)
        if self._is_there():  # whoever we waited for has finished it
            self.discard()
            return
        self._take_up()
        self._require_space()

    def _is_there(self) -> bool:
        self.complete = self._store.claim(self._expected)
        return self.complete

    def _take_up(self) -> None:
        """What the journal of an earlier attempt says, as far as the bytes agree."""
        fd, journal_fd = self.fileno(), self._journal()
        records = _records(journal_fd)
        os.ftruncate(journal_fd, len(records) * _RECORD.size)
        for offset, length, checksum in records:
            if offset + length <= self._expected.size and _checksum_of(fd, offset, length) == checksum:
                self._arrived.add(offset, offset + length)

    def _journal(self) -> int:
        if self._journal_fd is None:
            flags = os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            self._journal_fd = os.open(self._path + JOURNAL, flags, 0o600)
        return self._journal_fd

    def _require_space(self) -> None:
        """Fail before the transfer, not after gigabytes of it. File systems that tell nothing pass."""
        status = os.fstatvfs(self.fileno())
        missing = self._expected.size - self._arrived.size
        if status.f_blocks and missing > status.f_bavail * status.f_frsize:
            raise full_disk(self._store.root, self._name, missing)

    @property
    def _name(self) -> str:
        return f"blob {self._expected.digest}"

    def _failed(self, error: OSError) -> Error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return full_disk(self._store.root, self._name, self._expected.size - self._arrived.size)
        return translated(error, "write", self._path)


class RangeWriter:
    """Consecutive bytes of an Assembly from one connection; what it has written is noted granule by granule."""

    def __init__(self, assembly: Assembly, offset: int) -> None:
        self._assembly = assembly
        self._noted = self._position = offset
        self._checksum = 0

    def write(self, data: bytes | memoryview) -> None:
        self._assembly.put(self._position, data)
        self._checksum = _crc32(data, self._checksum)
        self._position += len(data)
        if self._position - self._noted >= self._assembly.granule:
            self.close()

    def close(self) -> None:
        """Note what is not yet noted. Idempotent."""
        length = self._position - self._noted
        if length:
            self._assembly.note(self._noted, length, self._checksum)
        self._noted, self._checksum = self._position, 0


class Ranges:
    """A set of bytes of a file as ascending, separate stretches."""

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []
        self.size = 0

    def add(self, start: int, end: int) -> None:
        if start >= end:
            return
        first = bisect_right(self._starts, start)
        if first and self._ends[first - 1] >= start:
            first -= 1
            start = self._starts[first]
        last = first
        while last < len(self._starts) and self._starts[last] <= end:
            end = max(end, self._ends[last])
            self.size -= self._ends[last] - self._starts[last]
            last += 1
        self._starts[first:last], self._ends[first:last] = [start], [end]
        self.size += end - start

    def length_at(self, position: int) -> int:
        """How many bytes from *position* on are in the set, without a gap."""
        place = bisect_right(self._starts, position)
        return max(self._ends[place - 1] - position, 0) if place else 0

    def gaps(self, size: int) -> list[Range]:
        """What lies between the stretches, up to *size*."""
        starts, ends = [0, *self._ends], [*self._starts, size]
        return [(start, end) for start, end in zip(starts, ends, strict=True) if start < end]


class _Growing:
    """The front of an assembly as a stream. What has been read is let go from memory: nobody reads it soon again."""

    def __init__(self, assembly: Assembly) -> None:
        self._assembly = assembly
        self._position = 0
        self._behind = Behind(assembly)

    def read(self, count: int = -1) -> bytes:
        there = self._assembly.await_bytes(self._position)
        data = self._assembly.read_at(self._position, min(there, CHUNK if count < 0 else count)) if there else b""
        self._position += len(data)
        self._behind.moved(self._position)
        return data

    def close(self) -> None:
        pass


class _CheckedReader(VerifyingReader):
    def __init__(self, stream: _Growing, expected: Descriptor) -> None:
        super().__init__(cast("BinaryIO", stream), expected.digest, size=expected.size, hint=_HINT)


_HINT = "try again; if it repeats, the other side holds a damaged copy"


def noted(path: str) -> int:
    """How many bytes of the part at *path* its journal says have arrived; 0 when there is none."""
    try:
        fd = os.open(path + JOURNAL, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return 0
    arrived = Ranges()
    try:
        for offset, length, _ in _records(fd):
            arrived.add(offset, offset + length)
    finally:
        os.close(fd)
    return arrived.size


def _records(fd: int) -> list[tuple[int, int, int]]:
    """(offset, length, checksum) of the journal's records, up to the first that is torn or damaged."""
    found: list[tuple[int, int, int]] = []
    while len(raw := os.pread(fd, _RECORD.size, len(found) * _RECORD.size)) == _RECORD.size:
        offset, length, checksum, own = _RECORD.unpack(raw)
        if _crc32(raw[:-4]) != own:
            break
        found.append((offset, length, checksum))
    return found


def _checksum_of(fd: int, offset: int, length: int) -> int:
    checksum = 0
    while length and (data := os.pread(fd, min(length, CHUNK), offset)):
        checksum = _crc32(data, checksum)
        offset, length = offset + len(data), length - len(data)
    return checksum if not length else -1


def _crc32(data: bytes | memoryview, value: int = 0) -> int:
    from isal.isal_zlib import crc32  # ten times as fast as zlib's

    return crc32(data, value)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)
