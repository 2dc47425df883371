"""What may not have reached the disk yet: content that was published without waiting for it.

Waiting for gigabytes to be written would double the time of a pull, and only a power
cut or a crash of the kernel can lose what a file system has taken. So a mark is made,
durably, before such content comes: `unsettled/<random>.json` says what, and in which
boot of the machine. Some time later the content is synced and the mark removed; a
mark of another boot means that nobody did, and its content is verified before use
(ops/settle.py).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput, NotFound
from ..linux.files import reporting, write_atomic
from ..oci.digest import Digest
from ..oci.wire import decode, encode
from .refs import RefRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrPath

_SUFFIX = ".json"


class Mark(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What one piece of work has brought or made."""

    #: id of the machine's start in which it was brought
    boot: str
    #: that machine's name, which `begin` fills in; several may share a store
    host: str = ""
    blobs: tuple[Digest, ...] = ()
    #: layers by diff-id
    layers: tuple[Digest, ...] = ()
    #: the name that was to mean *target*, in full; empty when none was
    name: str = ""
    target: Digest | None = None
    #: what the name meant before
    before: RefRecord | None = None


def begin(root: StrPath, mark: Mark) -> None:
    """Say, durably, that what *mark* lists will be published without being synced. Comes before any of it."""
    folder = _folder(root)
    with reporting("make", folder):
        os.makedirs(folder, mode=0o700, exist_ok=True)
    own = msgspec.structs.replace(mark, host=mark.host or os.uname().nodename)
    write_atomic(os.path.join(folder, os.urandom(8).hex() + _SUFFIX), encode(own) + b"\n", mode=0o600)


def walk(root: StrPath) -> Iterator[tuple[str, Mark | None]]:
    """(path, mark) of all marks; None for one that cannot be read. Costs one look at a folder when there are none."""
    folder = _folder(root)
    try:
        names = os.listdir(folder)
    except FileNotFoundError:
        return
    for name in names:
        if name.endswith(_SUFFIX) and not name.startswith("."):
            path = os.path.join(folder, name)
            try:
                with reporting("read", path), open(path, "rb", buffering=0) as file:
                    mark = decode(file.read(), Mark)
            except NotFound:  # settled meanwhile
                continue
            except (msgspec.MsgspecError, InvalidInput, RecursionError, UnicodeDecodeError):
                mark = None  # no mark, or (InvalidInput too) no file
            yield path, mark


def _folder(root: StrPath) -> str:
    return os.path.join(root, "unsettled")
