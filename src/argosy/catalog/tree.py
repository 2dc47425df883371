"""Trees of files as they go into layers: entries with a way to their data, cleaned, compared, written.

A tree is a mapping {path: Member}. What a build leaves behind (logs, caches, the
building host's own name) is taken out here, and two trees give the layer between
them. Nothing is ever unpacked.
"""

from __future__ import annotations

import hashlib
import io
import posixpath
from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, BinaryIO, cast

import msgspec

from ..layer.archive import entries
from ..layer.entry import WHITEOUT_PREFIX, Entry
from ..layer.sink import LayerSink
from ..layer.writer import ArchiveWriter
from ..oci.descriptor import OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD

if TYPE_CHECKING:
    from pathlib import Path

    from ..layer.compression import Compression
    from ..layer.sink import LayerDigests
    from ..oci.descriptor import Descriptor
    from ..store.blobs import BlobStore

_CHUNK = 1 << 20  # bytes a read
_NS = 10**9
MEDIA_TYPES = {"gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD, "none": OCI_LAYER}

#: Folders that stay, without what is in them.
_EMPTIED = (b"dev", b"proc", b"sys", b"run", b"tmp", b"var/tmp", b"var/log", b"var/lib/apt/lists")
#: What is not installed (debian.py, LEFT_OUT); links to it go too.
_MANUALS = (b"/usr/share/man/",)
_DOCUMENTS = b"usr/share/doc/"
_KEPT = (b"run/lock",)  # where /var/lock leads
#: Left by installing; who needs one makes it again.
_LEFTOVERS = frozenset(
    (
        b"etc/.pwd.lock",
        b"etc/group-",
        b"etc/gshadow-",
        b"etc/passwd-",
        b"etc/shadow-",
        b"etc/subgid-",
        b"etc/subuid-",
        b"etc/machine-id",
        b"etc/apt/sources.list",
        b"etc/apt/apt.conf.d/99mmdebstrap",
        b"var/lib/dbus/machine-id",
        b"var/cache/ldconfig/aux-cache",
        b"var/cache/debconf/config.dat-old",
        b"var/cache/debconf/templates.dat-old",
        b"var/cache/debconf/passwords.dat",
        b"var/cache/apt/archives/lock",
        b"var/cache/apt/archives/partial",  # apt's user owns it where that user could reach the building folder
        b"var/cache/apt/pkgcache.bin",
        b"var/cache/apt/srcpkgcache.bin",
        b"var/lib/dpkg/available-old",
        b"var/lib/dpkg/diversions-old",
        b"var/lib/dpkg/status-old",
        b"var/lib/dpkg/statoverride-old",
        b"var/lib/dpkg/lock",
        b"var/lib/dpkg/lock-frontend",
        b"var/lib/dpkg/triggers/Lock",
        b"var/lib/apt/daily_lock",
        b"var/lib/apt/extended_states",
    )
)


class Member(msgspec.Struct, frozen=True, kw_only=True):
    """One entry and, for a file, its data: in memory, or what opens a stream of it."""

    entry: Entry
    data: bytes | Callable[[], BinaryIO] = b""

    def open(self) -> BinaryIO:
        return io.BytesIO(self.data) if isinstance(self.data, bytes) else self.data()


Tree = Mapping[bytes, Member]


def file(path: str, data: bytes | str, *, epoch: int, mode: int = 0o644) -> Member:
    """A small file of ours, owned by root."""
    raw = data.encode() if isinstance(data, str) else data
    entry = Entry(path=path.encode(), kind="file", mode=mode, size=len(raw), mtime_ns=epoch * _NS)
    return Member(entry=entry, data=raw)


def link(path: str, target: str, *, epoch: int) -> Member:
    """A symbolic link of ours."""
    entry = Entry(path=path.encode(), kind="symlink", mode=0o777, linkname=target.encode(), mtime_ns=epoch * _NS)
    return Member(entry=entry)


def folder(path: bytes, *, epoch: int) -> Member:
    return Member(entry=Entry(path=path, kind="folder", mode=0o755, mtime_ns=epoch * _NS))


def tree_of(members: Iterable[Member], *, epoch: int) -> dict[bytes, Member]:
    """Members by path, with every folder on the way to them; the later of equal paths wins."""
    tree = {member.entry.path: member for member in members}
    for path in list(tree):
        while path := path.rpartition(b"/")[0]:
            if path in tree:
                break
            tree[path] = folder(path, epoch=epoch)
    return tree


def read(tar: Path) -> dict[bytes, Member]:
    """The tree in an uncompressed archive; data is read from there when it is asked for."""
    tree: dict[bytes, Member] = {}
    with open(tar, "rb") as stream:
        for entry in entries(stream):
            if entry.path:
                tree[entry.path] = Member(entry=entry, data=_slice(tar, entry.offset, entry.size))
    return tree


def cleaned(tree: Tree, own: Iterable[Member], *, epoch: int) -> dict[bytes, Member]:
    """*tree* without leftovers, with our *own* files in it and no time after *epoch* (seconds)."""
    kept = {path: _clamped(member, epoch) for path, member in tree.items() if not _is_leftover(member.entry)}
    kept |= {member.entry.path: member for member in own}
    for path in [path for path in kept if path.startswith(_DOCUMENTS) and _is_broken(kept, path)]:
        del kept[path]
    return _led_by_first(kept)


def difference(lower: Mapping[bytes, object], upper: Tree) -> dict[bytes, Member]:
    """What must lie on *lower* (see fingerprints) to give *upper*: new and changed members, whiteouts for the gone.

    A file with several names comes whole or not at all, so that no link joins a file of another layer.
    """
    marks = _marks(upper)
    layer = {path: member for path, member in upper.items() if lower.get(path) != marks[path]}
    gone = [path for path in lower if path not in upper and path.rpartition(b"/")[0] in {b"", *upper}]
    for path in gone:
        above, slash, name = path.rpartition(b"/")
        layer[above + slash + WHITEOUT_PREFIX + name] = Member(
            entry=Entry(path=above + slash + WHITEOUT_PREFIX + name, kind="file")
        )
    for path in list(layer):
        while path := path.rpartition(b"/")[0]:
            layer.setdefault(path, upper[path])
    return layer


def fingerprints(stream: BinaryIO) -> dict[bytes, object]:
    """{path: a value that changes with anything about the member} of an uncompressed archive."""
    read_so_far: dict[bytes, tuple[Entry, str]] = {}
    archive = entries(stream)
    for entry in archive:
        hasher = hashlib.sha256()
        for chunk in archive.file_chunks():
            hasher.update(chunk)
        read_so_far[entry.path] = (entry, hasher.hexdigest())
    return _joined(read_so_far)


def write(tree: Tree, blobs: BlobStore, *, compression: Compression = "gzip") -> tuple[Descriptor, LayerDigests]:
    """Store *tree* as a layer: sorted, parents before children; the same tree gives the same bytes."""
    with blobs.ingest() as part:
        sink = LayerSink(cast("BinaryIO", part), compression)
        with ArchiveWriter(sink) as archive:
            for path in sorted(tree, key=_order):
                member = tree[path]
                if member.entry.kind == "file" and member.entry.size:
                    with member.open() as data:
                        archive.add(member.entry, data)
                else:
                    archive.add(member.entry)
        digests = sink.close()
        return part.commit(media_type=MEDIA_TYPES[compression]), digests


def _order(path: bytes) -> tuple[bytes, ...]:
    return tuple(path.split(b"/"))


def _is_leftover(entry: Entry) -> bool:
    path = entry.path
    if path in _LEFTOVERS or entry.kind in ("character", "block", "fifo"):
        return True
    if entry.kind == "symlink" and entry.linkname.startswith(_MANUALS):
        return True
    return path not in _KEPT and any(path.startswith(above + b"/") for above in _EMPTIED)


def _is_broken(tree: Tree, path: bytes) -> bool:
    entry = tree[path].entry
    if entry.kind != "symlink":
        return False
    return posixpath.normpath(posixpath.join(b"/", entry.parent, entry.linkname)).lstrip(b"/") not in tree


def _clamped(member: Member, epoch: int) -> Member:
    if member.entry.mtime_ns <= epoch * _NS:
        return member
    return Member(entry=msgspec.structs.replace(member.entry, mtime_ns=epoch * _NS), data=member.data)


def _led_by_first(tree: dict[bytes, Member]) -> dict[bytes, Member]:
    """Of a file's several names the first in our order holds the data, whichever tar chose."""
    for target, names in _groups(tree).items():
        first, *others = sorted((target, *names), key=_order)
        leader = tree[target]
        tree[first] = Member(entry=msgspec.structs.replace(leader.entry, path=first), data=leader.data)
        for name in others:
            entry = msgspec.structs.replace(leader.entry, path=name, kind="hardlink", linkname=first, size=0)
            tree[name] = Member(entry=entry)
    return tree


def _groups(tree: Mapping[bytes, Member]) -> dict[bytes, list[bytes]]:
    """{path of a file: its other names}."""
    groups: dict[bytes, list[bytes]] = {}
    for path, member in tree.items():
        if member.entry.kind == "hardlink":
            groups.setdefault(member.entry.linkname, []).append(path)
    return groups


def _marks(tree: Tree) -> dict[bytes, object]:
    found = {}
    for path, member in tree.items():
        hasher = hashlib.sha256()
        if member.entry.kind == "file":
            with member.open() as data:
                while chunk := data.read(_CHUNK):
                    hasher.update(chunk)
        found[path] = (member.entry, hasher.hexdigest())
    return _joined(found)


def _joined(found: Mapping[bytes, tuple[Entry, str]]) -> dict[bytes, object]:
    """Marks in which every name of a file knows all its names and its content."""
    names: dict[bytes, list[bytes]] = {}
    for path, (entry, _) in found.items():
        if entry.kind == "hardlink":
            names.setdefault(entry.linkname, []).append(path)
    marks: dict[bytes, object] = {}
    for path, (entry, _) in found.items():
        leader = entry.linkname if entry.kind == "hardlink" else path
        about, content = found[leader]
        facts = (about.mode, about.uid, about.gid, about.mtime_ns, about.size, about.major, about.minor)
        others = tuple(sorted(names.get(leader, ())))
        text = b"" if entry.kind == "hardlink" else entry.linkname
        marks[path] = (about.kind, leader, others, facts, text, sorted(about.xattrs.items()), content)
    return marks


def _slice(tar: Path, offset: int, size: int) -> Callable[[], BinaryIO]:
    def open_slice() -> BinaryIO:
        stream = open(tar, "rb")
        stream.seek(offset)
        return cast("BinaryIO", _Slice(stream, size))

    return open_slice


class _Slice:
    """The next *size* bytes of a stream."""

    def __init__(self, stream: BinaryIO, size: int) -> None:
        self._stream = stream
        self._left = size

    def read(self, count: int = -1) -> bytes:
        count = self._left if count < 0 else min(count, self._left)
        data = self._stream.read(count)
        self._left -= len(data)
        return data

    def __enter__(self) -> _Slice:
        return self

    def __exit__(self, *exc: object) -> None:
        self._stream.close()
