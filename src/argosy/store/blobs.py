"""Blobs: immutable files named by their digest, and the transaction that makes them.

Beneath the root lie `blobs/<algorithm>/<hex>` (mode 0444, complete or absent) and
`ingest/` (what is being written). Nothing here knows images or references; the
engine and the registry server share this class and this layout. What comes from
another registry, perhaps in several attempts, is put together in assembly.py.
"""

from __future__ import annotations

import errno
import fcntl
import os
from contextlib import suppress
from functools import cached_property
from typing import TYPE_CHECKING, cast

from ..errors import Corrupt, Error, Exhausted, InvalidInput, NotFound
from ..oci.descriptor import Descriptor
from ..oci.digest import ALGORITHMS, CHUNK, Digest, VerifyingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import BinaryIO

    from _typeshed import StrPath

    from ..linux.locks import Lock
    from .assembly import Assembly
    from .dropped import DroppedBlobs

OCTETS = "application/octet-stream"
PART = ".part"
#: beside a part: what of it has arrived, see assembly.py
JOURNAL = ".journal"
#: what to type when a blob is damaged here
REMEDY = "argosy check --repair removes it and tells which images to pull again"


class BlobStore:
    """A ContentSource on disk, and the way in. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self.root = root
        self._blobs = os.path.join(root, "blobs")
        self._ingest = os.path.join(root, "ingest")
        #: {process: the lock that counts it among the makers, see makers.py}; empty until there is something to make
        self._maker: dict[int, int | None] = {}

    def __del__(self) -> None:
        self.rest()

    @cached_property
    def dropped(self) -> DroppedBlobs:
        """What was here and was given up, and how to have it again."""
        from .dropped import DroppedBlobs

        return DroppedBlobs(self.root)

    def holds(self, digest: Digest) -> bool:
        """Whether the blob is here, or was dropped and can be had again: an image that needs it is whole."""
        return self.stat(digest) is not None or self.dropped.find(digest) is not None

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
            raise translated(error, "look at", self._path(digest)) from error

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """Stream a blob from byte *offset*; a whole read (offset 0) checks the digest at its end.

        The caller closes the stream. Stopping early verifies nothing.

        Raises NotFound (blob-unknown), Corrupt (size-mismatch here, digest-mismatch at
        the last read).
        """
        stream = self.stream(descriptor, offset=offset)
        if offset:
            return stream
        return cast("BinaryIO", VerifyingReader(stream, descriptor.digest, size=descriptor.size, hint=REMEDY))

    def stream(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """As open, but checks the size only: for those who hash what they read (a push does)."""
        stream = self._open(descriptor.digest)
        try:
            size = self._size(stream, descriptor.digest)
            if size != descriptor.size:
                raise _damaged(descriptor.digest, f"it has {size} of the {descriptor.size} bytes promised", REMEDY)
            stream.seek(offset)
        except BaseException:
            stream.close()
            raise
        return stream

    def claim(self, descriptor: Descriptor) -> bool:
        """Whether the blob is here in full; if so no sweep takes it for the grace period that begins now.

        What `stat` cannot promise: between a look and the reference that is published
        later, a sweep could find the blob unreferenced. See gc.py.
        """
        if self.stat(descriptor.digest) != descriptor.size:
            return False
        self.begin()
        with self.publishing():
            return self.touch(descriptor)

    def touch(self, descriptor: Descriptor) -> bool:
        """As claim, for a caller that is publishing."""
        path = self._path(descriptor.digest)
        try:
            os.utime(path)
            return os.stat(path).st_size == descriptor.size
        except FileNotFoundError:
            return False
        except OSError as error:
            raise translated(error, "claim", path) from error

    def begin(self) -> None:
        """From now on this process counts as at work: no sweep takes what it touches until it ends. Idempotent.

        What it forks works under its lock; so it begins before that.
        """
        if not self._maker:
            from .makers import register

            make_folder(self._ingest)
            fd = register(self._ingest)
            if self._maker.setdefault(os.getpid(), fd) != fd and fd is not None:  # another thread was first
                os.close(fd)

    def rest(self) -> None:
        """The opposite of `begin`, for a process that lives on: what it made has its name by now."""
        for pid, fd in tuple(self._maker.items()):
            del self._maker[pid]
            if fd is not None and pid == os.getpid():
                fcntl.flock(fd, fcntl.LOCK_UN)  # a process that was forked meanwhile may have the descriptor too
            if fd is not None:
                os.close(fd)

    def ingest(self, expected: Descriptor | None = None, *, algorithm: str = "sha256") -> Ingest:
        """Begin to write a blob; use as a context manager, write, then commit.

        With *expected* it may turn out to be here already: `complete` then. Without, the
        digest of *algorithm* becomes its name. Raises Exhausted at once when the disk
        cannot hold it.
        """
        return Ingest(self, expected, expected.digest.algorithm if expected is not None else algorithm)

    def assemble(self, expected: Descriptor, waiting: Callable[[], None] = lambda: None) -> Assembly:
        """Put a blob together from ranges, taking up what an earlier attempt left; see Assembly."""
        from .assembly import Assembly

        return Assembly(self, expected, waiting)

    def begun(self, digest: Digest) -> int:
        """Bytes of a blob that have arrived, by the word of an interrupted attempt; nothing is verified."""
        from .assembly import noted

        return noted(self.part_path(digest))

    def part_path(self, digest: Digest) -> str:
        """Where a blob is put together."""
        return os.path.join(self._ingest, f"{digest.algorithm}-{digest.hex}{PART}")

    def put(self, raw: bytes, media_type: str) -> Descriptor:
        """Store small content that is in memory. Idempotent."""
        return self.keep(Descriptor.of(raw, media_type), raw)

    def keep(self, descriptor: Descriptor, raw: bytes, *, sync: bool = True) -> Descriptor:
        """As put, under a digest that is known; *sync* as for adopt. Raises Corrupt when *raw* is something else."""
        with self.ingest(descriptor) as part:
            if not part.complete:
                part.write(raw)
            return part.commit(sync=sync)

    def adopt(self, fd: int, path: str, digest: Digest, *, sync: bool = True) -> None:
        """Publish the file *path*, open as *fd*, whose bytes the caller has checked against *digest*.

        It must lie on the store's file system; *path* is gone afterwards. Without *sync*
        a power cut may spoil it, so that it must be listed in `unsettled` before. The
        caller closes *fd*. Raises OSError.
        """
        from ..linux.files import sync_folder

        target = self._path(digest)
        folder = os.path.dirname(target)
        make_folder(folder)
        os.fchmod(fd, 0o444)
        os.utime(fd)  # a part that was taken up may be older than a sweep's grace period
        if sync:
            os.fsync(fd)
        os.rename(path, target)
        if sync:
            sync_folder(folder)
            self.dropped.remove(digest)

    def delete(self, digest: Digest) -> int:
        """Remove a blob, whoever may need it; gives the bytes that this frees on the disk, 0 when it was not here."""
        from ..linux import room  # here and in begin: `run` reads blobs and needs neither

        path = self._path(digest)
        try:
            size = room.of(os.lstat(path))
            os.unlink(path)
        except FileNotFoundError:
            return 0
        except IsADirectoryError:  # somebody's mistake, or a damaged file system's
            from ..linux.files import remove_tree

            remove_tree(path)
        except OSError as error:
            raise translated(error, "remove", path) from error
        return size

    def set_aside(self, digest: Digest) -> tuple[str, int]:
        """As delete, in no time: gives the file that is left to be removed, and what that frees; ("", 0) without one.

        Should nobody remove it, it is a part of a transfer that nobody comes back for.
        """
        from ..linux import room

        path = self._path(digest)
        aside = os.path.join(self._ingest, f"removed-{digest.hex}-{os.urandom(4).hex()}{PART}")
        try:
            size = room.of(os.lstat(path))
            os.rename(path, aside)
        except FileNotFoundError:
            return "", 0
        except OSError as error:
            raise translated(error, "remove", path) from error
        return aside, size

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

    def publishing(self) -> AbstractContextManager[Lock]:
        """No sweep deletes anything while this is held: for the short moments of claiming and naming.

        Not for nesting: where there is no flock, only one at a time can have it.
        """
        return self._lock(shared=True)

    def collecting(self) -> AbstractContextManager[Lock]:
        """Nobody claims or publishes while this is held: for the short moments of deleting."""
        return self._lock(shared=False)

    def _lock(self, *, shared: bool) -> AbstractContextManager[Lock]:
        from ..linux.locks import locked

        make_folder(self._ingest)
        return locked(os.path.join(self._ingest, "collector.lock"), shared=shared)

    def _path(self, digest: Digest) -> str:
        return os.path.join(self._blobs, digest.algorithm, digest.hex)

    def _open(self, digest: Digest) -> BinaryIO:
        path = self._path(digest)
        try:
            return cast("BinaryIO", open(path, "rb", buffering=0))
        except FileNotFoundError as error:
            raise self._unknown(digest) from error
        except OSError as error:
            raise translated(error, "open", path) from error

    def _size(self, stream: BinaryIO, digest: Digest) -> int:
        try:
            return os.fstat(stream.fileno()).st_size
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.ESTALE):  # removed meanwhile by another machine
                raise self._unknown(digest) from error
            raise translated(error, "look at", self._path(digest)) from error

    def _unknown(self, digest: Digest) -> NotFound:
        if self.dropped.find(digest) is not None:
            return NotFound(
                f"blob {digest} was dropped to save space",
                code="blob-dropped",
                context="its layer is still here, not the bytes that registries and archives want",
                hint="argosy pull fetches it, if its layer is gone too; push and save bring it back by themselves",
            )
        return NotFound(
            f"blob {digest} is not in the store",
            code="blob-unknown",
            context=f"looked for {self._path(digest)}",
            hint="argosy check shows what is affected; pulling the image again brings it back",
        )


class Ingest:
    """A blob being written, in order: open, then committed or aborted. Leaving the block without commit aborts.

    Not for several threads at once.
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
        #: bytes written so far
        self.offset = 0
        #: nothing is missing: only commit
        self.complete = False
        try:
            self._begin()
        except OSError as error:
            self.abort()
            raise self._failed(error) from error
        except BaseException:
            self.abort()
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

    def commit(self, *, media_type: str | None = None, digest: Digest | None = None, sync: bool = True) -> Descriptor:
        """Check and publish the blob under its digest; returns its descriptor.

        *digest* is what a peer says the content is, when that is known only at the end;
        *sync* as for adopt.
        Raises Corrupt (size-mismatch: writing may go on; digest-mismatch: it is gone), Exhausted.
        """
        expected = self._expected
        if self._fd is None and self.complete and expected is not None:
            return expected  # it was here
        if expected is not None and self.offset != expected.size:
            raise _damaged(expected.digest, f"ends after {self.offset} of {expected.size} bytes")
        found = self._check(expected.digest if expected is not None else digest)
        try:
            self._publish(found, sync=sync)
        except OSError as error:
            raise self._failed(error) from error
        if expected is not None:
            return expected
        return Descriptor(media_type=media_type or OCTETS, digest=found, size=self.offset)

    @property
    def digest(self) -> Digest:
        """Of what has been written so far."""
        return Digest.from_hasher(self._hasher, self._algorithm)

    def abort(self) -> None:
        """Forget what was written. Idempotent; nothing to do after a commit."""
        fd, self._fd = self._fd, None
        if fd is not None:
            _unlink(self._path)
            os.close(fd)  # and with it the lock

    def __enter__(self) -> Ingest:
        return self

    def __exit__(self, *exc: object) -> None:
        self.abort()

    def _begin(self) -> None:
        self._store.begin()
        if self._expected is not None and self._store.claim(self._expected):
            self.complete, self.offset = True, self._expected.size
            return
        self._path = os.path.join(self._store._ingest, f"{os.urandom(16).hex()}{PART}")
        self._fd = os.open(self._path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        self.complete = self._expected is not None and self._expected.size == 0
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX)  # tells a sweep that somebody is alive behind it
        except OSError as error:
            from ..linux.locks import NO_FLOCK

            if error.errno not in NO_FLOCK:  # there the sweep goes by its time
                raise
        if self._expected is not None:
            self._require_space(self._expected.size)

    def _require_space(self, missing: int) -> None:
        """Fail before the transfer, not after gigabytes of it. File systems that tell nothing pass."""
        status = os.fstatvfs(self._open_fd())
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

    def _publish(self, digest: Digest, *, sync: bool) -> None:
        fd = self._open_fd()
        self._store.adopt(fd, self._path, digest, sync=sync)
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
        return translated(error, "write", self._path or self._store._ingest)

    def _full(self, missing: int) -> Exhausted:
        name = f"blob {self._expected.digest}" if self._expected is not None else "the new blob"
        return full_disk(self._store.root, name, missing)


def full_disk(root: StrPath, name: str, missing: int) -> Exhausted:
    """The error for *missing* bytes of *name* that do not fit."""
    status = os.statvfs(root)
    free = status.f_bavail * status.f_frsize
    return Exhausted(
        f"no space left for {name}",
        code="disk-full",
        context=f"{missing} more bytes are needed, {free} are free in {os.fspath(root)}",
        hint="free space with argosy prune, or place the store elsewhere with --root",
    )


def _damaged(digest: Digest, why: str, hint: str = "") -> Corrupt:
    return Corrupt(f"blob {digest} is damaged", code="size-mismatch", context=why, hint=hint)


def make_folder(path: str) -> None:
    """Make *path* and what is missing above it, each name synced."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    make_folder(parent)
    try:
        os.mkdir(path)
    except FileExistsError:
        return
    except OSError as error:  # ENOENT too: in /proc a folder exists and yet nothing can be made in it
        raise translated(error, "make", path) from error
    from ..linux.files import sync_folder

    sync_folder(parent)


def _unlink(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def translated(error: OSError, doing: str, path: str) -> Error:
    from ..linux.files import translate  # reaches ctypes, which a listing does without

    return translate(error, doing, path)
