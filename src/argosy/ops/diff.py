"""diff IMAGE IMAGE: which paths and packages came, went and changed, by layer and with sizes, without unpacking."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING, Literal

import msgspec

from ..layer.compare import compare
from ..layer.contents import NodeKind
from . import packages
from .contents import opened, shown
from .history import layer_commands
from .packages import PackageKind
from .progress import silent

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..layer.compare import Change
    from ..layer.view import ImageView, Place
    from ..oci.digest import Digest
    from ..oci.image import Image
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .packages import Package
    from .progress import Progress

_PIECE = 1 << 20  # bytes of two files that are compared at once
#: In what two versions of a file may differ so that only their bytes can tell whether they do.
_UNDECIDED = ((), ("time",))

Side = Literal["before", "after", "both"]


class PathChange(msgspec.Struct, frozen=True, kw_only=True):
    """One path: A came, C changed, D went."""

    kind: Literal["A", "C", "D"]
    path: str
    type: NodeKind
    #: bytes, None where the path is not; of a file with several names on the first of them alone
    before: int | None
    after: int | None
    #: number of the layer (1 is the lowest) that has it in either image
    layer_before: int | None
    layer_after: int | None
    #: what differs: size, time, mode, owner, xattrs, target, device, kind, content
    aspects: tuple[str, ...]

    @property
    def growth(self) -> int:
        return (self.after or 0) - (self.before or 0)


class PackageChange(msgspec.Struct, frozen=True, kw_only=True):
    """A package that came (no *before*), went (no *after*) or has another version or size."""

    kind: PackageKind
    name: str
    before: str
    after: str
    size_before: int
    size_after: int

    @property
    def growth(self) -> int:
        return self.size_after - self.size_before


class LayerChange(msgspec.Struct, frozen=True, kw_only=True):
    """A layer of one image or of both, and the paths that it is the reason for."""

    side: Side
    #: in the image that has it, *after* if both do; 1 is the lowest
    number: int
    diff_id: str
    created_by: str
    #: bytes, uncompressed
    size: int
    came: int = 0
    gone: int = 0
    changed: int = 0
    growth: int = 0


class ImageFacts(msgspec.Struct, frozen=True, kw_only=True):
    name: str
    id: str
    #: bytes of its layers, uncompressed
    size: int
    layers: int


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """*before* and *after* are equal when nothing came, went or changed."""

    before: ImageFacts
    after: ImageFacts
    layers: tuple[LayerChange, ...]
    #: largest change of size first
    packages: tuple[PackageChange, ...]
    #: by path
    paths: tuple[PathChange, ...]
    #: files of equal size and time in different layers whose bytes nobody compared
    assumed: int
    #: package managers whose databases differ and are not read
    unread: tuple[str, ...]

    @property
    def growth(self) -> int:
        return sum(change.growth for change in self.paths)


def diff(
    before: Image,
    after: Image,
    names: tuple[str, str],
    *,
    snapshotter: Snapshotter,
    blobs: BlobStore,
    contents: bool = False,
    progress: Progress = silent,
) -> Difference:
    """What is different in *after*; *names* are what the images are called.

    Files count as equal when size, time and all other metadata are, databases of
    packages when their bytes are too; with *contents* the bytes of all files of equal
    size are compared, whatever their times.

    Raises as `contents.opened` does.
    """
    with opened(before, after, snapshotter=snapshotter, blobs=blobs, progress=progress) as (old, new):
        judge = _Judge(old, new, contents=contents)
        changes = [found for change in compare(old, new) if (found := judge(change)) is not None]
        paths = tuple(_path_changes(sorted(changes, key=lambda change: change.path)))
        package_changes = _package_changes(old, new, changes)
        unread = _unread(old, new)
    return Difference(
        before=_facts(before, names[0], snapshotter.usage),
        after=_facts(after, names[1], snapshotter.usage),
        layers=_layers(before, after, paths, snapshotter.usage),
        packages=tuple(sorted(package_changes, key=lambda change: (-abs(change.growth), change.kind, change.name))),
        paths=paths,
        assumed=judge.assumed,
        unread=unread,
    )


class _Judge:
    """Which of the differences are changes: not the times of folders, and not what only its place tells apart."""

    def __init__(self, old: ImageView, new: ImageView, *, contents: bool) -> None:
        self._old = old
        self._new = new
        self._contents = contents
        self.assumed = 0

    def __call__(self, change: Change) -> Change | None:
        was, now = change.before, change.after
        if was is None or now is None or change.aspects not in _UNDECIDED:
            return change
        if was.parts or (self._contents and now.node.kind != "file"):
            return None
        if self._contents or (not change.aspects and packages.is_database(change.path)):
            return None if self._have_equal_bytes(was, now) else msgspec.structs.replace(change, aspects=("content",))
        if change.aspects:
            return change
        self.assumed += bool(now.node.size)
        return None

    def _have_equal_bytes(self, was: Place, now: Place) -> bool:
        return all(
            self._old.read(was, at, _PIECE) == self._new.read(now, at, _PIECE) for at in range(0, now.node.size, _PIECE)
        )


def _path_changes(changes: Iterable[Change]) -> Iterator[PathChange]:
    seen: tuple[set[tuple[int, int]], set[tuple[int, int]]] = (set(), set())
    for change in changes:
        was, now = change.before, change.after
        place = now or was
        assert place is not None
        yield PathChange(
            kind=change.letter,
            path=shown(change.path),
            type=place.node.kind,
            before=_size_once(was, seen[0]),
            after=_size_once(now, seen[1]),
            layer_before=None if was is None else was.layer + 1,
            layer_after=None if now is None else now.layer + 1,
            aspects=change.aspects,
        )


def _size_once(place: Place | None, seen: set[tuple[int, int]]) -> int | None:
    if place is None:
        return None
    if place.node.links > 1:
        if (place.layer, place.node.inode) in seen:
            return 0
        seen.add((place.layer, place.node.inode))
    return place.node.stored


# ---- packages


def _package_changes(old: ImageView, new: ImageView, changes: Sequence[Change]) -> list[PackageChange]:
    """Packages are looked for in what changed alone."""
    paths = [change.path for change in changes]
    was = _wheels(old, (change.path for change in changes if change.before is not None))
    now = _wheels(new, (change.path for change in changes if change.after is not None))
    if any(path.startswith(packages.DPKG) for path in paths):
        was += packages.debs(old)
        now += packages.debs(new)
    return list(_matched(was, now, old, new))


def _wheels(view: ImageView, paths: Iterable[bytes]) -> list[Package]:
    folders = sorted(packages.wheel_folders(paths))
    return [package for folder in folders if (package := packages.wheel(view, folder)) is not None]


def _matched(was: list[Package], now: list[Package], old: ImageView, new: ImageView) -> Iterator[PackageChange]:
    """What is not the same on both sides; of a name with several versions, those that only one side has."""
    olds, news = _by_key(was), _by_key(now)
    for key in olds.keys() | news.keys():
        left, right = olds.get(key, []), news.get(key, [])
        if key[0] == "deb" and [p.version for p in left] == [p.version for p in right]:
            continue
        sizes = (sum(packages.extent(old, p).size for p in left), sum(packages.extent(new, p).size for p in right))
        versions = (", ".join(p.version for p in left), ", ".join(p.version for p in right))
        if versions[0] != versions[1] or sizes[0] != sizes[1]:
            yield PackageChange(
                kind=key[0],
                name=(right or left)[0].name,
                before=versions[0],
                after=versions[1],
                size_before=sizes[0],
                size_after=sizes[1],
            )


def _by_key(found: Iterable[Package]) -> dict[tuple[PackageKind, str], list[Package]]:
    groups: dict[tuple[PackageKind, str], list[Package]] = defaultdict(list)
    for package in sorted(found, key=lambda package: package.version):
        groups[package.key].append(package)
    return groups


def _unread(old: ImageView, new: ImageView) -> tuple[str, ...]:
    was, now = packages.unread(old), packages.unread(new)

    def same(manager: str) -> bool:
        one, two = was.get(manager), now.get(manager)
        if one is None or two is None:
            return one is two
        return one.node.inode == two.node.inode and old.layers[one.layer] is new.layers[two.layer]

    return tuple(manager for manager in packages.UNREAD if not same(manager))


# ---- layers


def _layers(
    before: Image, after: Image, paths: Sequence[PathChange], usage: Callable[[Digest], int]
) -> tuple[LayerChange, ...]:
    """Those of *before* alone, then all of *after*, lowest first."""
    olds, news = before.config.diff_ids, after.config.diff_ids
    changes: dict[Digest, list[PathChange]] = defaultdict(list)
    for change in paths:
        if change.layer_after is not None:
            changes[news[change.layer_after - 1]].append(change)
        elif change.layer_before is not None:
            changes[olds[change.layer_before - 1]].append(change)
    rows: list[tuple[Side, int, Digest, str]] = [("before", *row) for row in _described(before) if row[1] not in news]
    rows += [("both" if row[1] in olds else "after", *row) for row in _described(after)]
    return tuple(
        _layer(side, number, diff_id, made_by, usage(diff_id), changes.pop(diff_id, ()))
        for side, number, diff_id, made_by in rows
    )


def _described(image: Image) -> list[tuple[int, Digest, str]]:
    """(number, diff-id, what made it) of each layer, lowest first."""
    made_by = layer_commands(image)
    return [(number, diff_id, made_by[number - 1]) for number, diff_id in enumerate(image.config.diff_ids, 1)]


def _layer(
    side: Side, number: int, diff_id: Digest, made_by: str, size: int, changes: Sequence[PathChange]
) -> LayerChange:
    kinds = [change.kind for change in changes]
    return LayerChange(
        side=side,
        number=number,
        diff_id=str(diff_id),
        created_by=made_by,
        size=size,
        came=kinds.count("A"),
        gone=kinds.count("D"),
        changed=kinds.count("C"),
        growth=sum(change.growth for change in changes),
    )


def _facts(image: Image, name: str, usage: Callable[[Digest], int]) -> ImageFacts:
    diff_ids = image.config.diff_ids
    size = sum(usage(diff_id) for diff_id in diff_ids)
    return ImageFacts(name=name, id=str(image.id), size=size, layers=len(diff_ids))
