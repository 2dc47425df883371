"""What came, went and changed from one tree of layers to another.

Layers that both trees have (the same LayerContents) are compared by identity: only
folders that something else has a part in are looked up in them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec

from .view import Place

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .contents import Node
    from .view import ImageView

#: In what two nodes differ. «time» is the file's; what it holds was not read.
Aspect = Literal["kind", "size", "target", "device", "mode", "owner", "time", "xattrs"]


class Change(msgspec.Struct, frozen=True, gc=False):
    """One path that is not the same in both trees; either side is None where there is nothing."""

    path: bytes
    before: Place | None
    after: Place | None
    #: of a path that both have; empty when the nodes are different files that look the same
    aspects: tuple[Aspect, ...] = ()

    @property
    def letter(self) -> Literal["A", "C", "D"]:
        """Docker's letter for it."""
        return "A" if self.before is None else "D" if self.after is None else "C"


def compare(before: ImageView, after: ImageView) -> Iterator[Change]:
    """All differences, a folder before what lies in it; what came or went, came or went with all that is in it.

    Two files of equal looks (size, time, mode, …) in different layers come without
    aspects, for the caller to judge.
    """
    comparison = _Comparison(before, after)
    stack = [] if comparison.is_same(before.root, after.root) else [(b"", before.root, after.root)]
    while stack:
        path, old, new = stack.pop()
        folders = []
        for change in comparison.of_folder(path, old, new):
            if change.before is None or change.after is None or change.aspects or not change.after.parts:
                yield change
            if change.before is not None and change.before.parts and change.after is not None and change.after.parts:
                folders.append((change.path, change.before, change.after))
            else:
                yield from comparison.below(change)
        stack += reversed(folders)


class _Comparison:
    def __init__(self, before: ImageView, after: ImageView) -> None:
        self._before = before
        self._after = after
        #: {number of a layer of *after*: numbers of the same layer in *before*}
        self._same = {
            number: {other for other, found in enumerate(before.layers) if found is layer}
            for number, layer in enumerate(after.layers)
        }

    def of_folder(self, path: bytes, old: Place, new: Place) -> Iterator[Change]:
        """What is not identical among the children; a folder that may differ inside comes too."""
        prefix = path + b"/" if path else b""
        olds, news = self._before.children(old), self._after.children(new)
        for name in sorted(olds.keys() | news.keys()):
            was, now = olds.get(name), news.get(name)
            if was is None or now is None:
                yield Change(prefix + name, was, now)
            elif not self.is_same(was, now):
                yield Change(prefix + name, was, now, _aspects(was.node, now.node))

    def below(self, change: Change) -> Iterator[Change]:
        """All that comes or goes with a folder."""
        if change.before is not None and change.before.parts:
            for path, place in self._before.walk(change.path, change.before):
                yield Change(path, place, None)
        if change.after is not None and change.after.parts:
            for path, place in self._after.walk(change.path, change.after):
                yield Change(path, None, place)

    def is_same(self, was: Place, now: Place) -> bool:
        """Whether both are one and the same node of the same layer, folders with all that is in them."""
        return (
            self._is_one(was.layer, was.node, now.layer, now.node)
            and len(was.parts) == len(now.parts)
            and all(self._is_one(*one, *other) for one, other in zip(was.parts, now.parts, strict=True))
        )

    def _is_one(self, layer: int, node: Node, other_layer: int, other: Node) -> bool:
        return node.inode == other.inode and layer in self._same.get(other_layer, ())


def _aspects(was: Node, now: Node) -> tuple[Aspect, ...]:
    if was.kind != now.kind:
        return ("kind",)
    found: list[Aspect] = []
    if was.size != now.size:
        found.append("size")
    if was.target != now.target:
        found.append("target")
    if (was.major, was.minor) != (now.major, now.minor):
        found.append("device")
    if was.mode != now.mode:
        found.append("mode")
    if (was.uid, was.gid) != (now.uid, now.gid):
        found.append("owner")
    if was.mtime_ns != now.mtime_ns:
        found.append("time")
    if was.xattrs != now.xattrs:
        found.append("xattrs")
    return tuple(found)
