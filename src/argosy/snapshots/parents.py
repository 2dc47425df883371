"""Folders that a layer uses but does not describe: they take their looks from the layers below.

overlayfs shows a folder as its topmost layer has it. A layer of «tmp/x» without an
entry «tmp» (bazel, ko and Nix make such) would turn the /tmp of the image below from
1777 into 0755. Such a layer gets a companion right above it: a folder that holds only
the folders concerned, as the layers below describe them. containerd copies them
while it unpacks; snapshots that know only their own layer cannot.
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING, Protocol

from ..layer.folder import FolderFacts, make_folder_like

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from contextlib import AbstractContextManager

    from ..oci.digest import Digest


class View(Protocol):
    """One layer: the folder at a path; False when it has nothing there, True when it has something else."""

    def folder(self, path: bytes) -> FolderFacts | bool: ...


def companions(
    stack: Sequence[Digest],
    implied: Mapping[Digest, frozenset[bytes]],
    view: Callable[[Digest], AbstractContextManager[View]],
    root: str,
) -> dict[Digest, str]:
    """{layer: folder to put right above it} for those layers of *stack*, topmost first, that need one.

    Costs nothing when all layers describe their folders, as those of docker do. Raises NotFound.
    """
    with ExitStack() as opened:
        views = {diff_id: opened.enter_context(view(diff_id)) for diff_id in stack}
        ways = {diff_id: _Way(views[diff_id]) for diff_id in stack}
        made = {}
        for number, diff_id in enumerate(stack):
            below = [(ways[lower], implied[lower]) for lower in stack[number + 1 :]]
            seen = [path for path in sorted(implied[diff_id]) if not ways[diff_id].seen(path)[1]]
            wanted = {path: facts for path in seen if (facts := _described(path, below))}
            if wanted:
                made[diff_id] = os.path.join(root, f"parents-{number}")
                _make(wanted, views[diff_id], made[diff_id])
        return made


def _described(path: bytes, below: Sequence[tuple[_Way, frozenset[bytes]]]) -> FolderFacts | None:
    """What the layers *below*, topmost first, say about a folder of the merged tree; None when nothing."""
    for way, implied in below:
        found, is_last = way.seen(path)
        if isinstance(found, FolderFacts) and path not in implied:
            return found
        if is_last:
            return None
    return None


class _Way:
    """Looks at paths of one layer, and knows what it saw on the way to the last: deep chains are asked for in order."""

    def __init__(self, view: View) -> None:
        self._view = view
        #: (path, what `seen` gives for it) of the folders on the way to the last path, and that one
        self._steps: list[tuple[bytes, tuple[FolderFacts | bool, bool]]] = []

    def seen(self, path: bytes) -> tuple[FolderFacts | bool, bool]:
        """(the folder at *path*, whether this layer hides the folder that lower layers have there).

        A mark in the folder itself takes what is in it away, not the folder.
        """
        steps = self._steps
        while steps and steps[-1][0] != path and not path.startswith(steps[-1][0] + b"/"):
            steps.pop()
        for prefix in _prefixes(path)[len(steps) :]:
            steps.append((prefix, self._next(prefix, steps[-1][1] if steps else None)))
        return steps[-1][1]

    def _next(self, prefix: bytes, above: tuple[FolderFacts | bool, bool] | None) -> tuple[FolderFacts | bool, bool]:
        hides = False
        if above is not None:
            folder, hides = above
            if not isinstance(folder, FolderFacts):
                return above
            hides = hides or folder.opaque
        found = self._view.folder(prefix)
        return found, hides or (found is True)


def _make(wanted: dict[bytes, FolderFacts], own: View, root: str) -> None:
    """The folders of *wanted*; those on the way to them look as the layer itself has them."""
    looks = dict(wanted)
    for path in wanted:
        for prefix in _prefixes(path):
            if prefix not in looks and isinstance(found := own.folder(prefix), FolderFacts):
                looks[prefix] = found
    os.mkdir(root)
    top = os.fsencode(root)
    for path in sorted(looks):
        os.mkdir(top + b"/" + path, 0o700)
    for path in sorted(looks, reverse=True):
        make_folder_like(looks[path], top + b"/" + path)


def _prefixes(path: bytes) -> list[bytes]:
    """The folders on the way, the path itself last: a, a/b, a/b/c."""
    parts = path.split(b"/")
    return [b"/".join(parts[: count + 1]) for count in range(len(parts))]
