"""image du: where the bytes of an image are: by folder, layer and package, and which of them nobody sees."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..layer.contents import NodeKind
from . import packages
from .contents import opened, shown
from .history import layer_commands
from .packages import PackageKind
from .progress import silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..layer.contents import Node
    from ..layer.view import Hidden, ImageView, Place
    from ..oci.image import Image
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .progress import Progress


class PathUse(msgspec.Struct, frozen=True, kw_only=True):
    """A folder with all that is in it, or a file; *entries* largest first, as deep as was asked."""

    path: str
    type: NodeKind
    size: int
    #: that are not folders
    files: int
    entries: tuple[PathUse, ...] = ()


class LayerUse(msgspec.Struct, frozen=True, kw_only=True):
    """What the files of a layer take, and how much of it higher layers hide."""

    #: 1 is the lowest
    number: int
    diff_id: str
    created_by: str
    size: int
    files: int
    hidden: int


class PackageUse(msgspec.Struct, frozen=True, kw_only=True):
    kind: PackageKind
    name: str
    version: str
    size: int
    files: int


class HiddenUse(msgspec.Struct, frozen=True, kw_only=True):
    """A path of layer *layer*, a folder with all in it, that layer *by* replaces or removes: bytes for nothing."""

    path: str
    size: int
    files: int
    layer: int
    by: int


class ImageUse(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes are those of files, each once; holes and the metadata of a tar do not count. All largest first."""

    name: str
    id: str
    platform: str
    #: what a container sees
    root: PathUse
    #: lowest first
    layers: tuple[LayerUse, ...]
    packages: tuple[PackageUse, ...]
    hidden: tuple[HiddenUse, ...]
    #: package managers whose databases are here and not read
    unread: tuple[str, ...]

    @property
    def size(self) -> int:
        return self.root.size

    @property
    def hidden_size(self) -> int:
        return sum(layer.hidden for layer in self.layers)


def image_use(
    image: Image,
    name: str,
    *,
    snapshotter: Snapshotter,
    blobs: BlobStore,
    depth: int,
    progress: Progress = silent,
) -> ImageUse:
    """Count *image*, which is called *name*; folders are listed down to *depth* parts of a path.

    Raises as `contents.opened` does.
    """
    with opened(image, snapshotter=snapshotter, blobs=blobs, progress=progress) as (view,):
        count = _Count(view, depth)
        made_by = layer_commands(image)
        return ImageUse(
            name=name,
            id=str(image.id),
            platform=str(image.config.platform),
            root=count.root,
            layers=tuple(
                LayerUse(
                    number=number + 1,
                    diff_id=str(diff_id),
                    created_by=made_by[number],
                    size=count.seen[number] + count.unseen[number],
                    files=count.files[number],
                    hidden=count.unseen[number],
                )
                for number, diff_id in enumerate(image.config.diff_ids)
            ),
            packages=_largest_packages(view, count.wheels),
            hidden=tuple(sorted(count.hidden, key=lambda use: (-use.size, use.path))),
            unread=tuple(packages.unread(view)),
        )


def _largest_packages(view: ImageView, wheels: list[bytes]) -> tuple[PackageUse, ...]:
    found = [package for folder in wheels if (package := packages.wheel(view, folder)) is not None]
    uses = []
    for package in (*found, *packages.debs(view)):
        extent = packages.extent(view, package)
        uses.append(
            PackageUse(
                kind=package.kind, name=package.name, version=package.version, size=extent.size, files=extent.files
            )
        )
    return tuple(sorted(uses, key=lambda use: (-use.size, use.kind, use.name)))


class _Count:
    """One walk over everything: what is seen first, then what is hidden, since a file may have names in both."""

    def __init__(self, view: ImageView, depth: int) -> None:
        self._view = view
        self._depth = depth
        #: by layer: bytes that are seen, bytes that are not, files
        self.seen, self.unseen, self.files = ([0] * len(view.layers) for _ in range(3))
        #: {path of a folder: [bytes, files] in it}, a folder before what lies in it
        self._totals: dict[bytes, list[int]] = {b"": [0, 0]}
        #: {path of a folder: what is listed in it}
        self._listed: dict[bytes, list[PathUse]] = {b"": []}
        #: (layer, inode) of what has been counted
        self._counted: set[tuple[int, int]] = set()
        self.wheels: list[bytes] = []
        covered = self._walk()
        self.hidden = [use for path, hidden in covered for use in self._hidden_use(path, hidden)]
        #: the tree of what is seen
        self.root = self._summed()

    def _walk(self) -> list[tuple[bytes, Hidden]]:
        """Count what is seen; gives what is hidden, a hidden folder as one."""
        covered = [(hidden.name, hidden) for hidden in self._view.hidden(self._view.root)]
        for path, place in self._view.walk():
            if not place.is_folder:
                self._add(path, place)
                continue
            self._totals[path] = [0, 0]
            if path.endswith(packages.WHEEL_SUFFIX):
                self.wheels.append(path)
            if len(place.parts) > 1:
                covered += [(path + b"/" + hidden.name, hidden) for hidden in self._view.hidden(place)]
        return covered

    def _add(self, path: bytes, place: Place) -> None:
        size = self._size_once(place.layer, place.node)
        self.seen[place.layer] += size
        self.files[place.layer] += 1
        parent = path.rpartition(b"/")[0]
        total = self._totals[parent]
        total[0] += size
        total[1] += 1
        if path.count(b"/") < self._depth:
            self._listed.setdefault(parent, []).append(
                PathUse(path=shown(path), type=place.node.kind, size=size, files=1)
            )

    def _hidden_use(self, path: bytes, hidden: Hidden) -> Iterator[HiddenUse]:
        size = files = 0
        stack = [hidden.node]
        while stack:
            node = stack.pop()
            if node.kind == "folder":
                stack += self._view.layers[hidden.layer].children(node).values()
            elif node.kind != "whiteout":
                size += self._size_once(hidden.layer, node)
                files += 1
        self.unseen[hidden.layer] += size
        self.files[hidden.layer] += files
        if files:
            yield HiddenUse(path=shown(path), size=size, files=files, layer=hidden.layer + 1, by=hidden.by + 1)

    def _size_once(self, layer: int, node: Node) -> int:
        if node.links > 1:
            if (layer, node.inode) in self._counted:
                return 0
            self._counted.add((layer, node.inode))
        return node.stored

    def _summed(self) -> PathUse:
        for path in reversed(self._totals):
            size, files = self._totals[path]
            entries = sorted(self._listed.pop(path, ()), key=lambda use: (-use.size, use.path))
            use = PathUse(path=shown(path), type="folder", size=size, files=files, entries=tuple(entries))
            if not path:
                return use
            parent = path.rpartition(b"/")[0]
            self._totals[parent][0] += size
            self._totals[parent][1] += files
            if path.count(b"/") < self._depth:
                self._listed.setdefault(parent, []).append(use)
        raise AssertionError("the root comes last")
