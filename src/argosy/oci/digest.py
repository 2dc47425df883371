"""Digests, and streams that are checked against them while they pass.

Source: image-spec 1.1 «descriptor.md#digests».
"""

from __future__ import annotations

import re
import sys
from typing import TYPE_CHECKING, Protocol

from ..errors import Corrupt, InvalidInput

if TYPE_CHECKING:
    from typing import BinaryIO

_GRAMMAR = re.compile(r"(?P<algorithm>[a-z0-9]+(?:[+._-][a-z0-9]+)*):(?P<hex>[a-zA-Z0-9=_-]+)")
#: {algorithm: length of its lower-case hex form}; the registered algorithms that we verify.
ALGORITHMS = {"sha256": 64, "sha384": 96, "sha512": 128}
_OWN_SHA256 = "_sha2" if sys.version_info >= (3, 12) else "_sha256"  # CPython's module without OpenSSL
_SMALL = 1 << 16  # bytes; up to here CPython's own SHA-256 (0.3 GB/s) ends before OpenSSL's is loaded (2.5 ms)
CHUNK = 1 << 20  # bytes a read; large enough that hashing dominates the calls


class Hasher(Protocol):
    """The part of hashlib's objects that we use."""

    def update(self, data: bytes | bytearray | memoryview, /) -> None: ...
    def hexdigest(self) -> str: ...
    def copy(self) -> Hasher: ...


class Digest(str):
    """`algorithm:hex`, checked; an ordinary str everywhere else."""

    __slots__ = ()

    @classmethod
    def parse(cls, text: str) -> Digest:
        """Raises InvalidInput with code digest-invalid or digest-unsupported."""
        match = _GRAMMAR.fullmatch(text)
        if match is None:
            raise InvalidInput(
                f"not a digest: {text!r}", code="digest-invalid", hint="a digest looks like sha256:<64 hex digits>"
            )
        algorithm, encoded = match["algorithm"], match["hex"]
        length = ALGORITHMS.get(algorithm)
        if length is None:
            raise InvalidInput(
                f"digest algorithm {algorithm!r} is not supported",
                code="digest-unsupported",
                context=f"known: {', '.join(sorted(ALGORITHMS))}",
            )
        if len(encoded) != length or encoded.strip("0123456789abcdef"):
            raise InvalidInput(
                f"not a {algorithm} digest: {text!r}",
                code="digest-invalid",
                context=f"{algorithm} takes {length} lower-case hex digits",
            )
        return cls(text)

    @classmethod
    def of(cls, data: bytes | memoryview, algorithm: str = "sha256") -> Digest:
        hasher = new_hasher(algorithm, size=len(data))
        hasher.update(data)
        return cls.from_hasher(hasher, algorithm)

    @classmethod
    def from_hasher(cls, hasher: Hasher, algorithm: str = "sha256") -> Digest:
        return cls(f"{algorithm}:{hasher.hexdigest()}")

    @property
    def algorithm(self) -> str:
        return self.partition(":")[0]

    @property
    def hex(self) -> str:
        return self.partition(":")[2]

    @property
    def short(self) -> str:
        """The twelve digits that people see."""
        return self.hex[:12]

    def hasher(self, *, size: int | None = None) -> Hasher:
        """A new hasher of this digest's algorithm, for *size* bytes where that is known."""
        return new_hasher(self.algorithm, size=size)


def new_hasher(algorithm: str, *, size: int | None = None) -> Hasher:
    """The fastest hasher for *size* bytes, its import included: `run` hashes two documents of a few kB."""
    if algorithm == "sha256" and size is not None and size <= _SMALL:
        try:
            found: Hasher = __import__(_OWN_SHA256).sha256()
        except ImportError:  # builds for FIPS leave it out
            pass
        else:
            return found
    import hashlib

    return hashlib.new(algorithm)


class VerifyingReader:
    """A binary stream that raises Corrupt at its end unless size and digest are as promised.

    Reads at most one byte past *size* from below. Stopping early verifies
    nothing. Closing it closes the stream below.
    """

    def __init__(
        self, stream: BinaryIO, digest: Digest, *, size: int | None = None, name: str = "blob", hint: str = ""
    ) -> None:
        self._stream = stream
        self._digest = digest
        self._size = size
        self._name = name
        self._hint = hint
        self._hasher = digest.hasher(size=size)
        self._seen = 0
        self._verified = False

    def read(self, count: int = -1) -> bytes:
        if count is None or count < 0:
            parts = []
            while part := self.read(CHUNK):
                parts.append(part)
            return b"".join(parts)
        if self._verified or count == 0:
            return b""
        if self._size is not None:
            count = min(count, self._size - self._seen + 1)
        data = self._stream.read(count)
        if data:
            self._seen += len(data)
            self._hasher.update(data)
            if self._size is not None and self._seen > self._size:
                self._fail(f"longer than the {self._size} bytes promised", "size-mismatch")
            return data
        self._finish()
        return b""

    def readinto(self, buffer: bytearray | memoryview) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def readable(self) -> bool:
        return True

    def _finish(self) -> None:
        if self._size is not None and self._seen != self._size:
            self._fail(f"ends after {self._seen} of {self._size} bytes", "size-mismatch")
        found = Digest.from_hasher(self._hasher, self._digest.algorithm)
        if found != self._digest:
            self._fail(f"its bytes have digest {found}", "digest-mismatch")
        self._verified = True

    def _fail(self, why: str, code: str) -> None:
        raise Corrupt(f"{self._name} {self._digest} is damaged", code=code, context=why, hint=self._hint)

    def close(self) -> None:
        self._stream.close()

    def __enter__(self) -> VerifyingReader:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()
