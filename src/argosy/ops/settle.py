"""What was published without being synced is synced later; after a crash of the machine it is looked through.

See store/unsettled.py. A mark of this boot is dealt with once the kernel has had time
to write by itself, so that syncing costs nothing. A mark of another boot means that
the power went: of what it lists, damaged blobs and all layers are removed (layers are
made again from blobs), and a name that would lead to a damaged image means again what
it meant before. Marks of other machines that share the store are theirs.
"""

from __future__ import annotations

import os
import time
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol

from ..errors import Corrupt, Error, NotFound
from ..linux.files import remove_tree, reporting, sync_file
from ..linux.lifetimes import boot_id
from ..oci.descriptor import Descriptor
from ..oci.digest import CHUNK, Digest
from ..oci.image import Image
from ..store import unsettled

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import StrPath

    from ..store.blobs import BlobStore
    from ..store.refs import RefRecord, RefStore
    from ..store.unsettled import Mark


class Layers(Protocol):
    """The part of a Snapshotter that is needed here."""

    def sync(self, diff_id: Digest) -> None: ...
    def remove(self, diff_id: Digest) -> None: ...


PATIENCE_S = 40.0  # Linux begins to write what is dirty for 30 s (vm.dirty_expire_centisecs)


def has_crashed(root: StrPath) -> bool:
    """Whether something is left from before the machine last started. A look at a folder that is usually empty."""
    return any(mark is None or _is_of_crash(mark, boot_id()) for _, mark in unsettled.walk(root))


def settle(
    *,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Layers,
    patience_s: float = PATIENCE_S,
    warn: Callable[[str], None] = lambda text: None,
) -> None:
    """Deal with all marks of the store. Safe beside others, and at any time."""
    boot = boot_id()
    for path, mark in unsettled.walk(blobs.root):
        if mark is None:
            _remove(path)  # torn by the crash, so nothing of what it lists had been begun
        elif _is_of_crash(mark, boot):
            _recover(mark, _made_ns(path), blobs, refs, snapshotter, warn)
            _remove(path)
        elif mark.boot == boot and _age_s(path) >= patience_s:
            _sync(mark, blobs, snapshotter)
            _remove(path)


def _is_of_crash(mark: Mark, boot: str) -> bool:
    """Whether this machine went down since. Of another that shares the store only that one knows."""
    return mark.boot != boot and mark.host in ("", os.uname().nodename)


def _sync(mark: Mark, blobs: BlobStore, snapshotter: Layers) -> None:
    paths = [os.fspath(blobs.path(digest)) for digest in mark.blobs]
    folders = sorted({os.path.dirname(path) for path in paths})
    for path in (*paths, *folders, os.path.join(blobs.root, "refs")):
        with suppress(NotFound), reporting("sync", path):  # removed meanwhile
            sync_file(path)
    for diff_id in mark.layers:
        snapshotter.sync(diff_id)
    for digest in mark.blobs:
        if blobs.stat(digest) is not None:
            blobs.dropped.remove(digest)  # it came back, and is durable now


def _recover(
    mark: Mark, made_ns: int, blobs: BlobStore, refs: RefStore, snapshotter: Layers, warn: Callable[[str], None]
) -> None:
    """*made_ns* is when the mark was made: a layer for which its blob was dropped later was synced then."""
    durable = blobs.dropped.layers(since_ns=made_ns)
    for diff_id in mark.layers:
        if diff_id in durable:
            continue
        with suppress(Error):  # it is out of the way by a rename; what cannot be deleted now prune takes
            snapshotter.remove(diff_id)
    lost = [digest for digest in mark.blobs if not _is_sound(digest, blobs)]
    record = _record_of(mark, refs)
    if not lost or record is None:
        return
    name = record.reference.familiar()
    if mark.before is not None and _is_complete(mark.before, blobs):
        refs.restore(mark.before)
        warn(f"{name} was not wholly on the disk when the machine went down; it means again what it meant before")
    else:
        refs.delete(record.reference)
        warn(f"{name} was not wholly on the disk when the machine went down; pull it again")


def _is_sound(digest: Digest, blobs: BlobStore) -> bool:
    """Whether a blob is here with the content that its name promises, or was dropped; a damaged one is removed."""
    size = blobs.stat(digest)
    if size is None:
        return blobs.holds(digest)
    try:
        with blobs.open(Descriptor(media_type="", digest=digest, size=size)) as stream:
            while stream.read(CHUNK):
                pass
    except Corrupt:
        blobs.delete(digest)
        return blobs.holds(digest)
    except NotFound:
        return False
    return True


def _record_of(mark: Mark, refs: RefStore) -> RefRecord | None:
    """The record that the marked work has set, if it still stands."""
    for record in refs.list():
        if str(record.reference) == mark.name and record.descriptor.digest == mark.target:
            return record
    return None


def _is_complete(record: RefRecord, blobs: BlobStore) -> bool:
    try:
        children = Image(record.manifest, blobs).manifest.children()
    except Error:
        return False
    return all(blobs.stat(child.digest) == child.size or blobs.dropped.find(child.digest) for child in children)


def _made_ns(path: str) -> int:
    try:
        return os.stat(path).st_mtime_ns
    except FileNotFoundError:
        return 0


def _age_s(path: str) -> float:
    try:
        return time.time() - os.stat(path).st_mtime
    except FileNotFoundError:
        return 0.0


def _remove(path: str) -> None:
    remove_tree(path)  # where a file should be, a damaged disk may have a folder
