"""Upload sessions: blobs on their way in, one file each, which any worker process may continue.

A session is `<root>/uploads/<uuid>.<mark of the repository>`; the file's size is
its offset, so nothing is lost when the server restarts. Whoever writes holds the
file's lock, so a second writer is refused and never mixed in. The running sha256
stays in memory between requests; a process that has none reads the file once more.
"""

from __future__ import annotations

import os
import re
import threading
import time
import uuid
from collections import OrderedDict
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidInput, NotFound, Unavailable
from ..linux.files import reporting
from ..linux.locks import hold
from ..oci.descriptor import Descriptor
from ..oci.digest import CHUNK, Digest
from .storage import ensure_folder

if TYPE_CHECKING:
    from pathlib import Path

    from ..linux.locks import Held
    from ..oci.digest import Hasher
    from ..store.blobs import BlobStore

SESSION_LIFE_S = 7 * 86400  # seconds since the last byte; distribution's purge has the same week
HASHERS = 1024  # sessions whose running digest is remembered; the others are read again
_UUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_SHA256 = Digest("sha256:")


class Uploads:
    """The sessions of one registry. All methods block; several threads and processes may call them."""

    def __init__(self, root: Path) -> None:
        self._folder = os.path.join(root, "uploads")
        #: {session: (offset, sha256 of the bytes before it)}, least recently used first
        self._hashers: OrderedDict[str, tuple[int, Hasher]] = OrderedDict()
        self._guard = threading.Lock()

    def create(self, name: str) -> str:
        """Begin a session for repository *name*; gives its id."""
        ensure_folder(self._folder)
        session = str(uuid.uuid4())
        path = self._path(name, session)
        with reporting("begin upload", path):
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        return session

    def offset(self, name: str, session: str) -> int:
        """Bytes received so far. Raises NotFound (upload-unknown)."""
        try:
            return os.stat(self._path(name, session)).st_size
        except FileNotFoundError as error:
            raise _unknown(session) from error

    def open(self, name: str, session: str) -> Upload:
        """Take a session to write to it. Raises NotFound (upload-unknown), Conflict (upload-busy)."""
        path = self._path(name, session)
        with reporting("open upload", path):
            try:
                held = hold(path, os.O_RDWR | os.O_APPEND, timeout_s=0)
            except FileNotFoundError as error:
                raise _unknown(session) from error
            except Unavailable as error:
                raise Conflict(
                    f"another request is writing to upload {session}",
                    code="upload-busy",
                    hint="wait for its answer, then ask for the upload's status",
                ) from error
            return Upload(self, session, held, self._recall(session))

    def sweep(self) -> None:
        """Remove sessions that nobody has touched for SESSION_LIFE_S."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return
        oldest = time.time() - SESSION_LIFE_S
        for path in (os.path.join(self._folder, name) for name in names):
            try:
                if os.stat(path).st_mtime < oldest:
                    os.unlink(path)
            except FileNotFoundError:  # another worker sweeps too
                continue

    def remember(self, session: str, offset: int, hasher: Hasher | None) -> None:
        """Keep a running digest for the next request; None forgets it."""
        with self._guard:
            self._hashers.pop(session, None)
            if hasher is not None:
                self._hashers[session] = offset, hasher
                if len(self._hashers) > HASHERS:
                    self._hashers.popitem(last=False)

    def _recall(self, session: str) -> tuple[int, Hasher]:
        with self._guard:
            return self._hashers.pop(session, None) or (0, _SHA256.hasher())

    def _path(self, name: str, session: str) -> str:
        """The repository's mark is in the file name: a session of another repository is unknown here."""
        if _UUID.fullmatch(session) is None:
            raise _unknown(session)
        return os.path.join(self._folder, f"{session}.{Digest.of(name.encode()).short}")


class Upload:
    """One session, locked by us: append, then commit or discard, or close to continue later.

    Any method may be called from any thread; they wait for each other, so that a
    cancelled request cannot close the file under a thread that still writes to it.
    """

    def __init__(self, owner: Uploads, session: str, held: Held, known: tuple[int, Hasher]) -> None:
        self._owner = owner
        self._session = session
        self._held = held
        self._path = held.path
        self._guard = threading.RLock()
        #: bytes in the file
        self.offset = os.fstat(held.fd).st_size
        #: sha256 of the whole file so far; None when it would have to be read again
        self._hasher = known[1] if known[0] == self.offset else None

    def append(self, pieces: list[bytes]) -> None:
        """Write and hash; on failure (disk full) the file is as long as before."""
        with self._guard, reporting("write upload", self._path):
            self._require_open()
            try:
                _write_all(self._fd, pieces)
            except OSError:
                os.ftruncate(self._fd, self.offset)
                raise
            for piece in pieces:
                self.offset += len(piece)
                if self._hasher is not None:
                    self._hasher.update(piece)

    def rewind(self, offset: int) -> None:
        """Forget everything past *offset*."""
        with self._guard, reporting("truncate upload", self._path):
            self._require_open()
            os.ftruncate(self._fd, offset)
            self.offset, self._hasher = offset, None

    def commit(self, blobs: BlobStore, digest: Digest) -> None:
        """Check and publish the bytes as blob *digest*; the session ends either way.

        Raises InvalidInput (digest-mismatch).
        """
        with self._guard, reporting("store upload", self._path):
            self._require_open()
            found = self._digest(digest.algorithm)
            if found != digest:
                self.discard()
                raise InvalidInput(
                    f"the upload's bytes do not have digest {digest}",
                    code="digest-mismatch",
                    context=f"{self.offset} bytes with digest {found} arrived",
                    hint="begin a new upload",
                )
            if blobs.claim(Descriptor(media_type="", digest=digest, size=self.offset)):
                self.discard()
                return
            blobs.adopt(self._fd, self._path, digest)
            self._end()

    def discard(self) -> None:
        """Remove the session and what it received. Nothing to do when it has ended."""
        with self._guard:
            if self._fd >= 0:
                with suppress(FileNotFoundError):
                    os.unlink(self._path)
                self._end()

    def close(self) -> None:
        """Let go of the lock; the session stays and its digest is remembered. Idempotent."""
        with self._guard:
            if self._fd >= 0:
                self._owner.remember(self._session, self.offset, self._hasher)
                self._held.release()

    @property
    def _fd(self) -> int:
        return self._held.fd

    def _require_open(self) -> None:
        if self._fd < 0:
            raise _unknown(self._session)

    def _end(self) -> None:
        self._hasher = None
        self.close()

    def _digest(self, algorithm: str) -> Digest:
        if self._hasher is not None and algorithm == _SHA256.algorithm:
            return Digest.from_hasher(self._hasher)
        hasher, place = Digest(f"{algorithm}:").hasher(), 0
        while data := os.pread(self._fd, CHUNK, place):
            hasher.update(data)
            place += len(data)
        return Digest.from_hasher(hasher, algorithm)


def _write_all(fd: int, pieces: list[bytes]) -> None:
    if len(pieces) > 512:  # of IOV_MAX 1024: a client that sends crumbs
        pieces = [b"".join(pieces)]
    written = os.writev(fd, pieces)
    if written == sum(map(len, pieces)):
        return
    rest = memoryview(b"".join(pieces))[written:]  # a signal, or the disk is nearly full
    while rest:
        rest = rest[os.write(fd, rest) :]


def _unknown(session: str) -> NotFound:
    return NotFound(f"no upload {session!r} here", code="upload-unknown", hint="begin a new upload")
