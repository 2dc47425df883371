"""What argosy.layer.view says about layers, in the form of trees.describe: the one is to equal the other."""

from __future__ import annotations

import hashlib
import io
import os
import stat
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from argosy.layer.archive import entries
from argosy.layer.erofs import IndexBuilder
from argosy.layer.erofs_reader import IndexReader
from argosy.layer.view import ImageView

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    from argosy.layer.view import Place
    from argosy.oci.digest import Digest
    from argosy.snapshots import Snapshotter

    from .trees import Tree

_LARGE = 1 << 26  # as in trees
_FORMATS = {
    "file": stat.S_IFREG,
    "folder": stat.S_IFDIR,
    "symlink": stat.S_IFLNK,
    "character": stat.S_IFCHR,
    "block": stat.S_IFBLK,
    "fifo": stat.S_IFIFO,
}


def index_of(tar: bytes) -> bytes:
    """The EROFS index of a layer."""
    out, reader = io.BytesIO(), entries(io.BytesIO(tar))
    builder = IndexBuilder(out)
    for entry in reader:
        builder.add(entry, reader.read)
    builder.finish("ab" * 32, len(tar))
    return out.getvalue()


@contextmanager
def opened_view(folder: Path, *tars: bytes) -> Iterator[ImageView]:
    """The view of layers, lowest first, whose indexes are written into *folder*."""
    with ExitStack() as opened:
        layers = []
        for number, tar in enumerate(tars):
            index, copy = folder / f"{number}.erofs", folder / f"{number}.tar"
            index.write_bytes(index_of(tar))
            copy.write_bytes(tar)
            layers.append(opened.enter_context(IndexReader(str(index), str(copy))))
        yield ImageView(layers)


def described(snapshotter: Snapshotter, diff_ids: Iterable[Digest]) -> Tree:
    """The merged tree of layers, lowest first, that are snapshots."""
    with ExitStack() as opened:
        return rows(ImageView([opened.enter_context(snapshotter.contents(diff_id)) for diff_id in diff_ids]))


def rows(view: ImageView) -> Tree:
    found: Tree = {}
    names: dict[tuple[int, int], list[str]] = {}
    for path, place in view.walk():
        node, name = place.node, os.fsdecode(path)
        if not place.is_folder:
            names.setdefault((place.layer, node.inode), []).append(name)
        found[name] = (
            stat.filemode(_FORMATS[node.kind] | node.mode),
            (node.uid, node.gid),
            node.mtime_ns,
            _content(view, place),
            {os.fsdecode(xattr): value for xattr, value in node.xattrs.items()},
            None,
        )
    for group in names.values():
        for name in group if len(group) > 1 else ():
            found[name] = (*found[name][:5], frozenset(group))
    return found


def grouped(tree: Tree) -> Tree:
    """*tree* of trees.describe, with all names of a file instead of the one that its walk met first."""
    names: dict[object, set[str]] = {}
    for name, row in tree.items():
        names.setdefault(row[5], set()).add(name)
    return {
        name: (*row[:5], frozenset(names[row[5]]) if row[5] is not None and len(names[row[5]]) > 1 else None)
        for name, row in tree.items()
    }


def _content(view: ImageView, place: Place) -> object:
    node = place.node
    if node.kind == "symlink":
        return os.fsdecode(node.target)
    if node.kind == "file":
        return node.size, _digest(view, place, node.size)
    if node.kind in ("character", "block"):
        return node.major, node.minor
    return None


def _digest(view: ImageView, place: Place, size: int) -> str:
    if size < _LARGE:
        return hashlib.sha256(view.read(place, 0, size)).hexdigest()
    hasher = hashlib.sha256()
    for start in range(0, size, size // 64):
        hasher.update(view.read(place, start, 64))
    hasher.update(view.read(place, size - 64, 64))
    return hasher.hexdigest()
