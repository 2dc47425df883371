"""Blobs: immutable files named by their digest, and the transaction that makes them.

Beneath the root lie `blobs/<algorithm>/<hex>` (mode 0444, complete or absent) and
`ingest/` (what is being written). Nothing here knows images or references; the
engine and the registry server share this class and this layout.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, cast

from ..errors import Corrupt, Error, Exhausted, InvalidInput, NotFound
from ..oci.descriptor import Descriptor
from ..oci.digest import ALGORITHMS, CHUNK, Digest, VerifyingReader

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

    from _typeshed import StrPath

OCTETS = "application/octet-stream"
PART = ".part"
_REMEDY = "argosy check --repair removes it and tells which images to pull again"
#: errnos of file systems that have no flock (some network ones)
_NO_LOCKS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP})


class BlobStore:
    """A ContentSource on disk, and the way in. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs")
        self._ingest = os.path.join(root, "ingest")

    def path(self, digest: Digest) -> Path:
        """Where the blob is, or would be."""
        from pathlib import Path

        return Path(self._path(digest))

    def stat(self, digest: Digest) -> int | None:
        """Size in bytes, or None when the blob is not here. Verifies nothing."""
        try:
            return os.stat(self._path(digest)).st_size
        except FileNotFoundError:
            return None
        except OSError as error:
            raise _translate(error, "look at", self._path(digest)) from error

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """Stream a blob from byte *offset*; a whole read (offset 0) checks the digest at its end.

        The caller closes the stream. Stopping early verifies nothing.

        Raises NotFound (blob-unknown), Corrupt (size-mismatch here, digest-mismatch at
        the last read).
        """
        stream = self._open(descriptor.digest)
        try:
            size = os.fstat(stream.fileno()).st_size
            if size != descriptor.size:
                raise _damaged(descriptor.digest, f"it has {size} of the {descriptor.size} bytes promised", _REMEDY)
            if offset:
                stream.seek(offset)
                return stream
        except BaseException:
            stream.close()
            raise
        return cast("BinaryIO", VerifyingReader(stream, descriptor.digest, size=descriptor.size, hint=_REMEDY))

    def claim(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here in full; if so no sweep takes it for the grace period that begins now.

        What `stat` cannot promise: between a look and the reference that is published
        later, a sweep could find the blob unreferenced. See gc.py.
        """
        path = self._path(descriptor.digest)
        try:
            if os.stat(path).st_size != descriptor.size:
                return False
            with self.publishing():
                os.utime(path)
        except FileNotFoundError:
            return False
        except OSError as error:
            raise _translate(error, "claim", path) from error
        return True

    def ingest(self, expected: Descriptor | None = None, *, algorithm: str = "sha256") -> Ingest:
        """Begin to write a blob; use as a context manager, write from `offset` on, then commit.

        With *expected*, what an earlier attempt left is taken up again, and only one
        writer of that digest exists at a time: a second one waits here, and then
        finds the blob complete. Without, the digest of *algorithm* becomes the name.

        Raises Exhausted at once when the disk cannot hold what is missing.
        """
        return Ingest(self, expected, expected.digest.algorithm if expected is not None else algorithm)

    def put(self, raw: bytes, media_type: str) -> Descriptor:
        """Store small content that is in memory. Idempotent."""
        descriptor = Descriptor.of(raw, media_type)
        with self.ingest(descriptor) as part:
            if not part.complete:
                part.restart()  # a part that a power cut damaged must not spoil what we hold in memory
                part.write(raw)
            return part.commit()

    def adopt(self, fd: int, path: str, digest: Digest) -> None:
        """Publish the file *path*, open as *fd*, whose bytes the caller has checked against *digest*.

        It must lie on the store's file system; it is synced, and *path* is gone
        afterwards. The caller closes *fd*. Raises OSError.
        """
        from ..linux.files import sync_folder

        target = self._path(digest)
        folder = os.path.dirname(target)
        _make_folder(folder)
        os.fchmod(fd, 0o444)
        os.utime(fd)  # a resumed part may be older than a sweep's grace period
        os.fsync(fd)
        os.rename(path, target)
        sync_folder(folder)

    def delete(self, digest: Digest) -> int:
        """Remove a blob, whoever may need it; returns the bytes freed, 0 when it was not here."""
        path = self._path(digest)
        try:
            size = os.stat(path).st_size
            os.unlink(path)
        except FileNotFoundError:
            return 0
        except OSError as error:
            raise _translate(error, "remove", path) from error
        return size

    def walk(self) -> Iterator[Digest]:
        """Every blob here, in no order. Files with other names are not blobs and are passed over."""
        for algorithm, length in ALGORITHMS.items():
            try:
                names = os.listdir(os.path.join(self._blobs, algorithm))
            except FileNotFoundError:
                continue
            for name in names:
                if len(name) == length and not name.strip("0123456789abcdef"):
                    yield Digest(f"{algorithm}:{name}")

    @contextmanager
    def publishing(self) -> Iterator[None]:
        """No sweep deletes anything while this is held: for the short moments of claiming and naming."""
        with self._lock(shared=True):
            yield

    @contextmanager
    def collecting(self) -> Iterator[None]:
        """Nobody claims or publishes while this is held: for the short moments of deleting."""
        with self._lock(shared=False):
            yield

    @contextmanager
    def _lock(self, *, shared: bool) -> Iterator[None]:
        from ..linux.files import locked

        _make_folder(self._ingest)
        with locked(os.path.join(self._ingest, "collector.lock"), shared=shared):
            yield

    def _path(self, digest: Digest) -> str:
        return os.path.join(self._blobs, digest.algorithm, digest.hex)

    def _open(self, digest: Digest) -> BinaryIO:
        path = self._path(digest)
        try:
            return cast("BinaryIO", open(path, "rb", buffering=0))
        except FileNotFoundError as error:
            raise NotFound(
                f"blob {digest} is not in the store",
                code="blob-unknown",
                context=f"looked for {path}",
                hint="argosy check shows what is affected; pulling the image again brings it back",
            ) from error
        except OSError as error:
            raise _translate(error, "open", path) from error


class Ingest:
    """A blob being written: open, then committed or aborted, or left as a resumable part.

    Leaving the block without commit keeps a part that is named by its expected
    digest; a part without a name is removed. Not for several threads at once.
    """

    def __init__(self, store: BlobStore, expected: Descriptor | None, algorithm: str) -> None:
        if algorithm not in ALGORITHMS:
            raise InvalidInput(f"digest algorithm {algorithm!r} is not supported", code="digest-unsupported")
        self._store = store
        self._expected = expected
        self._algorithm = algorithm
        self._hasher = Digest(f"{algorithm}:").hasher()
        self._fd: int | None = None
        self._path = ""
        #: bytes that are here already; the next write goes there
        self.offset = 0
        #: nothing is missing: skip the transfer and commit
        self.complete = False
        try:
            self._begin()
        except OSError as error:
            self.close()
            raise self._failed(error) from error
        except BaseException:
            self.close()
            raise

    def write(self, data: bytes | memoryview) -> int:
        """Append; all of *data* is on its way to the disk when this returns.

        Raises Corrupt (size-mismatch) past the expected size, Exhausted (disk-full).
        """
        if not data:
            return 0
        if self._expected is not None and self.offset + len(data) > self._expected.size:
            self.abort()
            raise _damaged(self._expected.digest, f"longer than the {self._expected.size} bytes promised")
        view = memoryview(data)
        while view:
            try:
                count = os.write(self._open_fd(), view)
            except OSError as error:
                raise self._failed(error, len(view)) from error
            self._hasher.update(view[:count])
            self.offset += count
            view = view[count:]
        self.complete = self._expected is not None and self.offset == self._expected.size
        return len(data)

    def restart(self) -> None:
        """Begin again at byte 0: the other side cannot continue, or the part is not to be trusted."""
        fd = self._open_fd()
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
        self._hasher = Digest(f"{self._algorithm}:").hasher()
        self.offset, self.complete = 0, self._expected is not None and self._expected.size == 0

    def commit(self, *, media_type: str | None = None, digest: Digest | None = None) -> Descriptor:
        """Check, sync and publish the blob under its digest; returns its descriptor.

        *digest* is what a peer says the content is, when that is known only at the end.
        Raises Corrupt (size-mismatch: the part stays, it may be continued; digest-mismatch:
        the part is removed), Exhausted.
        """
        expected = self._expected
        if self._fd is None and self.complete and expected is not None:
            return expected  # another writer was first
        if expected is not None and self.offset != expected.size:
            raise _damaged(expected.digest, f"ends after {self.offset} of {expected.size} bytes")
        found = self._check(expected.digest if expected is not None else digest)
        try:
            self._publish(found)
        except OSError as error:
            raise self._failed(error) from error
        if expected is not None:
            return expected
        return Descriptor(media_type=media_type or OCTETS, digest=found, size=self.offset)

    def abort(self) -> None:
        """Forget what was written. Idempotent."""
        if self._fd is not None:
            _unlink(self._path)
        self.close()

    def close(self) -> None:
        """Let go; a part with a name stays for the next attempt. Idempotent."""
        fd, self._fd = self._fd, None
        if fd is None:
            return
        if self._expected is None or self.offset == 0:
            _unlink(self._path)
        os.close(fd)  # and with it the lock

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    def _begin(self) -> None:
        _make_folder(self._store._ingest)
        if self._expected is None:
            self._open_private()
            return
        if self._is_there(self._expected):
            return
        digest = self._expected.digest
        self._open_shared(os.path.join(self._store._ingest, f"{digest.algorithm}-{digest.hex}{PART}"))
        if self._is_there(self._expected):  # the writer that we waited for has finished it
            self.abort()
            return
        self._resume(self._expected)
        self._require_space(self._expected)

    def _is_there(self, expected: Descriptor) -> bool:
        if self._store.claim(expected):
            self.complete, self.offset = True, expected.size
        return self.complete

    def _open_private(self) -> None:
        self._path = os.path.join(self._store._ingest, f"{os.urandom(16).hex()}{PART}")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # tells a sweep that somebody is alive behind it
        except OSError as error:
            if error.errno not in _NO_LOCKS:
                raise

    def _open_shared(self, path: str) -> None:
        """Open and lock the part that *path* names; where there are no locks, a part of our own instead."""
        while True:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                fcntl.flock(fd, fcntl.LOCK_EX)
                # The writer before us may have renamed or removed the file whose lock we waited for.
                if is_named(fd, path):
                    self._fd, self._path = fd, path
                    return
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                self._open_private()
                return
            finally:
                if self._fd != fd:
                    os.close(fd)

    def _resume(self, expected: Descriptor) -> None:
        """Hash what an earlier attempt left; too long a part is worth nothing."""
        fd = self._open_fd()
        if os.fstat(fd).st_size > expected.size:
            os.ftruncate(fd, 0)
        while chunk := os.read(fd, CHUNK):
            self._hasher.update(chunk)
            self.offset += len(chunk)
        self.complete = self.offset == expected.size

    def _require_space(self, expected: Descriptor) -> None:
        """Fail before the transfer, not after gigabytes of it. File systems that tell nothing pass."""
        status = os.fstatvfs(self._open_fd())
        missing = expected.size - self.offset
        if status.f_blocks and missing > status.f_bavail * status.f_frsize:
            raise self._full(missing)

    def _check(self, promised: Digest | None) -> Digest:
        algorithm = promised.algorithm if promised is not None else self._algorithm
        if algorithm != self._algorithm:  # the peer's word comes after the bytes: read them once more
            self._hasher = Digest(f"{algorithm}:").hasher()
            os.lseek(self._open_fd(), 0, os.SEEK_SET)
            while chunk := os.read(self._open_fd(), CHUNK):
                self._hasher.update(chunk)
        found = Digest.from_hasher(self._hasher, algorithm)
        if promised is not None and found != promised:
            self.abort()
            raise Corrupt(
                f"blob {promised} is damaged",
                code="digest-mismatch",
                context=f"its bytes have digest {found}",
                hint="try again; if it repeats, the other side holds a damaged copy",
            )
        return found

    def _publish(self, digest: Digest) -> None:
        fd = self._open_fd()
        self._store.adopt(fd, self._path, digest)
        self._fd = None
        os.close(fd)
        self.complete = True

    def _open_fd(self) -> int:
        if self._fd is None:
            raise InvalidInput("this ingest has ended", code="ingest-ended")
        return self._fd

    def _failed(self, error: OSError, missing: int = 0) -> Error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            return self._full(self._expected.size - self.offset if self._expected is not None else missing)
        return _translate(error, "write", self._path or self._store._ingest)

    def _full(self, missing: int) -> Exhausted:
        status = os.statvfs(self._store.root)
        free = status.f_bavail * status.f_frsize
        name = f"blob {self._expected.digest}" if self._expected is not None else "the new blob"
        return Exhausted(
            f"no space left for {name}",
            code="disk-full",
            context=f"{missing} more bytes are needed, {free} are free in {self._store.root}",
            hint="free space with argosy prune, or place the store elsewhere with --root",
        )


def is_named(fd: int, path: str) -> bool:
    """Whether *path* is (still) a name of the open file *fd*."""
    try:
        return os.path.samestat(os.fstat(fd), os.lstat(path))
    except FileNotFoundError:
        return False


def _damaged(digest: Digest, why: str, hint: str = "") -> Corrupt:
    return Corrupt(f"blob {digest} is damaged", code="size-mismatch", context=why, hint=hint)


def _make_folder(path: str) -> None:
    """Make *path* and what is missing above it, each name synced."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    _make_folder(parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except OSError as error:  # ENOENT too: in /proc a folder exists and yet nothing can be made in it
        raise _translate(error, "make", path) from error
    from ..linux.files import sync_folder

    sync_folder(parent)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _translate(error: OSError, doing: str, path: str) -> Error:
    from ..linux.files import translate  # reaches ctypes, which a listing does without

    return translate(error, doing, path)
