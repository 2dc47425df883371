"""The files of an image: its layers on top of each other, without a mount.

What is not asked for is not read: a folder is looked up in the layers when its
content is wanted, so that a difference of two images costs what differs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from .contents import Node

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .contents import LayerContents

MOST_LINKS = 40  # symlinks on the way to one path; MAXSYMLINKS of the kernel


class Place(msgspec.Struct, frozen=True, gc=False):
    """What an image has at a path: *node* of the layer number *layer* (0 is the lowest)."""

    node: Node
    layer: int
    #: of a folder, (layer, node) of all that are merged in it, topmost first
    parts: tuple[tuple[int, Node], ...] = ()

    @property
    def is_folder(self) -> bool:
        return bool(self.parts)


class Hidden(msgspec.Struct, frozen=True, gc=False):
    """A node of the layer number *layer* that nobody sees, because the layer number *by* replaces or removes it."""

    name: bytes
    node: Node
    layer: int
    by: int


class ImageView:
    """The merged tree of *layers*, lowest first, which stay the caller's to close.

    It is what overlayfs shows, which passes over a mark that makes a layer's root opaque.

    Raises what LayerContents do.
    """

    def __init__(self, layers: Sequence[LayerContents]) -> None:
        self.layers = tuple(layers)
        roots = tuple((number, layer.root) for number, layer in enumerate(self.layers))[::-1]
        #: the image's root folder; an image without layers has an empty one
        self.root = (
            Place(roots[0][1], roots[0][0], roots) if roots else Place(Node(kind="folder", inode=0, mode=0o755), 0)
        )
        #: {parts of a folder, as numbers: what is in it}
        self._children: dict[tuple[int, ...], dict[bytes, Place]] = {}
        #: {path: what is in that folder, through links; None where there is none}
        self._folders: dict[bytes, Mapping[bytes, Place] | None] = {b"": self.children(self.root)}

    def children(self, folder: Place) -> Mapping[bytes, Place]:
        """What the image has in a folder, in no order."""
        key = tuple(number for layer, node in folder.parts for number in (layer, node.inode))
        found = self._children.get(key)
        if found is None:
            found = self._children[key] = _merged(folder, self.layers, [])
        return found

    def hidden(self, folder: Place) -> list[Hidden]:
        """What lies in a folder and cannot be seen; of a hidden folder only itself."""
        found: list[Hidden] = []
        _merged(folder, self.layers, found)
        return found

    def walk(self, path: bytes = b"", place: Place | None = None) -> Iterator[tuple[bytes, Place]]:
        """Everything below *place*, which is at *path*: a folder before what lies in it, names sorted by bytes."""
        stack = [(path, self.root if place is None else place)]
        while stack:
            above, folder = stack.pop()
            prefix = above + b"/" if above else b""
            folders = []
            for name, child in sorted(self.children(folder).items()):
                yield prefix + name, child
                if child.parts:
                    folders.append((prefix + name, child))
            stack += reversed(folders)

    def find(self, path: bytes) -> Place | None:
        """What is at *path*; links on the way are followed inside the image, one at its end is not."""
        parent, _, name = path.rpartition(b"/")
        found = self.folder(parent)
        return None if found is None else found.get(name)

    def folder(self, path: bytes) -> Mapping[bytes, Place] | None:
        """What is in the folder at *path*, links followed inside the image; None when there is no folder."""
        if path not in self._folders:
            self._folders[path] = self._resolved(path)
        return self._folders[path]

    def read(self, place: Place, offset: int, size: int) -> bytes:
        """As LayerContents.read."""
        return self.layers[place.layer].read(place.node, offset, size)

    def _resolved(self, path: bytes) -> Mapping[bytes, Place] | None:
        stack = [self.root]
        names = path.split(b"/")[::-1]
        links = 0
        while names:
            name = names.pop()
            if name == b"..":
                del stack[max(len(stack) - 1, 1) :]
            elif name not in (b"", b"."):
                place = self.children(stack[-1]).get(name)
                if place is None:
                    return None
                if place.parts:
                    stack.append(place)
                    continue
                links += 1
                if place.node.kind != "symlink" or links > MOST_LINKS:
                    return None
                if place.node.target.startswith(b"/"):
                    del stack[1:]
                names += place.node.target.split(b"/")[::-1]
        return self.children(stack[-1])


def _merged(folder: Place, layers: Sequence[LayerContents], hidden: list[Hidden]) -> dict[bytes, Place]:
    """What is in a folder; what cannot be seen goes into *hidden*."""
    if len(folder.parts) == 1:
        layer, node = folder.parts[0]
        return {
            name: Place(child, layer, ((layer, child),) if child.kind == "folder" else ())
            for name, child in layers[layer].children(node).items()
            if child.kind != "whiteout"
        }
    found: dict[bytes, Place] = {}
    #: {name: parts so far} of folders
    folders: dict[bytes, list[tuple[int, Node]]] = {}
    #: {name: (layer, node)} of the topmost that describes the folder; a mark that empties it does not end the search
    looks: dict[bytes, tuple[int, Node]] = {}
    #: {name: the layer that lets nothing lower be seen}
    closed: dict[bytes, int] = {}
    ended: set[bytes] = set()
    for layer, node in folder.parts:
        for name, child in layers[layer].children(node).items():
            if child.kind == "folder" and name not in ended and not child.implied:
                looks.setdefault(name, (layer, child))
            if child.kind != "folder":
                ended.add(name)
            if name in closed:
                if child.kind != "whiteout":
                    hidden.append(Hidden(name, child, layer, closed[name]))
            elif child.kind == "folder":
                folders.setdefault(name, []).append((layer, child))
                if child.opaque:
                    closed[name] = layer
            else:
                closed[name] = layer
                if child.kind == "whiteout":
                    continue
                if name in folders:
                    hidden.append(Hidden(name, child, layer, folders[name][-1][0]))
                else:
                    found[name] = Place(child, layer)
    for name, parts in folders.items():
        layer, node = looks.get(name, parts[0])
        found[name] = Place(node, layer, tuple(parts))
    return found
