"""What earlier builds found out and made, as small JSON files that may be deleted at any time.

*Looked-up* things (the newest release, the packages of today) hold for a day, since
indexes change; *made* things (layers) hold as long as their blob is in the store,
since their key names everything that they are made of.
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import InvalidInput, Unavailable
from ..linux.files import write_atomic
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.wire import decode, encode
from .debian import Deb
from .wheels import Wheel

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..store.blobs import BlobStore

FORMAT = 1  # part of every key; a change of how layers are made raises it


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """Something that was looked up, and the day (UTC) when that was."""

    day: str


class Release(Answer, frozen=True, kw_only=True):
    """The release that «13» means today, and the version of each package that it pins."""

    version: str
    pins: dict[str, str]


class Packages(Answer, frozen=True, kw_only=True):
    """The Debian packages of today."""

    #: what the OS layer is made of
    base: tuple[Deb, ...]
    #: {flavour: everything that its tree holds}, for flavours with packages of their own
    flavours: dict[str, tuple[Deb, ...]]
    #: when the newest package of the base was made, seconds of the epoch
    newest: int


class Parts(Answer, frozen=True, kw_only=True):
    """The wheels that serve a release today, in the order of the requirements."""

    wheels: tuple[Wheel, ...]


class Made(msgspec.Struct, frozen=True, kw_only=True):
    """A layer in the store and what later layers need to know of it."""

    title: str
    descriptor: Descriptor
    diff_id: Digest
    #: bytes of the uncompressed tar
    size: int
    #: seconds of the epoch
    created: int
    created_by: str
    #: paths that ld.so.cache is to list
    libraries: tuple[str, ...] = ()
    #: ld.so.cache of the distribution up to this layer
    loader_cache: bytes = b""


_T = TypeVar("_T", bound=msgspec.Struct)
_Looked = TypeVar("_Looked", bound=Answer)


class Records:
    """The folder cache/catalog of a store."""

    def __init__(self, folder: Path, *, warn: Callable[[str], None], now: float | None = None) -> None:
        self._folder = folder
        self._warn = warn
        self.day = time.strftime("%Y-%m-%d", time.gmtime(now))

    def today(self, kind: type[_Looked], question: object, find: Callable[[], _Looked], *, refresh: bool) -> _Looked:
        """The answer of today to *question*; it is looked up again on another day, or to *refresh*.

        Without a connection an older answer serves, with a warning; to *refresh* it does not.
        """
        path = self._path(kind.__name__.lower(), question)
        known = None if refresh else _read(path, kind)
        if known is not None and known.day == self.day:
            return known
        try:
            found = find()
        except Unavailable as error:
            if known is None:
                raise
            self._warn(f"{error.message}; using what was found on {known.day}")
            return known
        self._write(path, found)
        return found

    def find_layer(self, key: object, blobs: BlobStore) -> Made | None:
        """The layer that was made of *key* before, if its blob is still in the store."""
        known = _read(self._path("layer", key), Made)
        return known if known is not None and blobs.claim(known.descriptor) else None

    def keep_layer(self, key: object, made: Made) -> None:
        self._write(self._path("layer", key), made)

    def _path(self, kind: str, question: object) -> Path:
        digest = Digest.of(encode([FORMAT, kind, question], order="sorted"))
        return self._folder / f"{kind}-{digest.hex}.json"

    def _write(self, path: Path, value: msgspec.Struct) -> None:
        os.makedirs(self._folder, exist_ok=True)
        write_atomic(path, encode(value), sync=False)


def _read(path: Path, kind: type[_T]) -> _T | None:
    """None when there is no such record, or none that this version understands."""
    try:
        return decode(path.read_bytes(), kind)
    except FileNotFoundError:
        return None
    except (msgspec.MsgspecError, ValueError, InvalidInput):
        return None
