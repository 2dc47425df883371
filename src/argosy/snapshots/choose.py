"""Which kind of snapshots a store has: probed once, then written down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidInput, Unsupported
from ..linux.files import reporting, write_atomic

if TYPE_CHECKING:
    from _typeshed import StrPath

    from ..linux.features import HostFeatures
    from .contract import Snapshotter

KINDS = ("erofs", "unpacked", "unpacked-user")
_FILE = "kind"


def choose(root: StrPath, features: HostFeatures, override: str | None = None) -> Snapshotter:
    """The snapshotter for the store at *root*; *override* is one of KINDS.

    The best kind that this host can mount is written to layers/kind and kept while the
    store has layers, so that root and kernel updates do not mix kinds. Raises
    Conflict (code snapshot-kind) when the store has another kind that does not work
    here or is not the one asked for, InvalidInput for an unknown *override*,
    Unsupported for one that this host cannot mount.
    """
    if override is not None and override not in KINDS:
        raise InvalidInput(
            f"there is no kind of snapshots {override!r}", code="snapshot-kind", context=f"known: {', '.join(KINDS)}"
        )
    if override is not None and not _works(override, features):
        raise Unsupported(
            f"snapshots of the kind {override!r} do not work here",
            code="snapshot-kind",
            context=features.erofs_file.reason if features.mount.available else features.mount.reason,
            hint=f"without ARGOSY_SNAPSHOTTER this host takes {_best(features)!r}",
        )
    wanted = override or _best(features)
    found = _recorded(root)
    if found == wanted:
        return _made(wanted, root)
    if found is not None and not _is_empty(root):
        if override is None and _works(found, features):
            return _made(found, root)
        raise _conflict(root, found, wanted)
    with reporting("write", os.path.join(root, "layers")):
        os.makedirs(os.path.join(root, "layers"), mode=0o700, exist_ok=True)
    write_atomic(os.path.join(root, "layers", _FILE), wanted.encode() + b"\n")
    return _made(wanted, root)


def _best(features: HostFeatures) -> str:
    if not features.mount.available:
        return "unpacked-user"
    return "erofs" if features.erofs_file.available else "unpacked"


def _works(kind: str, features: HostFeatures) -> bool:
    """Root's unpacked layers carry trusted.overlay marks, users' user.overlay marks; neither sees the other's."""
    if kind == "unpacked-user":
        return not features.mount.available
    return features.mount.available and (kind == "unpacked" or features.erofs_file.available)


def _made(kind: str, root: StrPath) -> Snapshotter:
    if kind == "erofs":
        from .erofs import ErofsSnapshotter

        return ErofsSnapshotter(root)
    from .unpacked import UnpackedSnapshotter

    return UnpackedSnapshotter(root, user=kind == "unpacked-user")


def _recorded(root: StrPath) -> str | None:
    try:
        with open(os.path.join(root, "layers", _FILE)) as file:
            return file.read().strip()
    except FileNotFoundError:
        return None


def _is_empty(root: StrPath) -> bool:
    from .folders import LayerFolders

    return next(LayerFolders(root).walk(), None) is None


def _conflict(root: StrPath, found: str, wanted: str) -> Conflict:
    return Conflict(
        f"the layers in {root} are of the kind {found!r}, not {wanted!r}",
        code="snapshot-kind",
        context="they were made by another user, on another kernel, or on request",
        hint=f"use another store with --root, or delete {os.path.join(root, 'layers')} (images stay)",
    )
