"""Where two trees on disk differ: for check, which compares an unpacked layer with what its blob says."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .contents import Node
    from .tree_reader import TreeReader

_CHUNK = 1 << 20  # bytes


def difference(found: TreeReader, right: TreeReader) -> str:
    """What is wrong with the first path of *found* that is not as in *right*; empty when all are. Reads every byte.

    Memory is that of the folders that are still to be looked at.
    """
    twins: dict[int, int] = {}
    stack = [(b"", found.root, right.root)]
    while stack:
        path, folder, model = stack.pop()
        # The time of a folder that the layer does not describe is that of its making.
        if wrong := _looks(folder, model, without="mtime_ns" if model.implied or not path else ""):
            return _said(path, wrong)
        here, there = found.children(folder), right.children(model)
        for name in sorted(here.keys() | there.keys()):
            below = path + b"/" + name if path else name
            if name not in here or name not in there:
                return _said(below, "is missing" if name in there else "does not belong here")
            if here[name].kind == there[name].kind == "folder":
                stack.append((below, here[name], there[name]))
            elif wrong := _compare(found, here[name], right, there[name], twins):
                return _said(below, wrong)
        found.forget(folder)
        right.forget(model)
    return ""


def _compare(found: TreeReader, node: Node, right: TreeReader, model: Node, twins: dict[int, int]) -> str:
    if wrong := _looks(node, model):
        return wrong
    if node.links > 1:  # the names of one file here are those of one file there
        if node.inode in twins:
            return "" if twins[node.inode] == model.inode else "is another file than it should be"
        twins[node.inode] = model.inode
    if node.kind == "file" and not _same_bytes(found, node, right, model):
        return "has other bytes than it should have"
    return ""


def _looks(node: Node, model: Node, *, without: str = "") -> str:
    """In what two nodes differ, apart from what files hold."""
    fields = [field for field in node.__struct_fields__ if field not in ("inode", "stored", without)]
    wrong = [field for field in fields if getattr(node, field) != getattr(model, field)]
    return f"has another {wrong[0].removesuffix('_ns')} than it should have" if wrong else ""


def _same_bytes(found: TreeReader, node: Node, right: TreeReader, model: Node) -> bool:
    return all(found.read(node, at, _CHUNK) == right.read(model, at, _CHUNK) for at in range(0, model.size, _CHUNK))


def _said(path: bytes, wrong: str) -> str:
    return f"{os.fsdecode(path)!r} {wrong}"
