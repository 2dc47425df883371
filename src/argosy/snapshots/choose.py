"""Which kind of snapshots a store has: probed once, then written down."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import Conflict, InvalidInput, NotFound, Unsupported
from ..linux.files import reporting, write_instead

if TYPE_CHECKING:
    from _typeshed import StrPath

    from ..linux.features import HostFeatures
    from .contract import Snapshotter

KINDS = ("erofs", "unpacked", "unpacked-user")
_FILE = "kind"


def choose(root: StrPath, features: HostFeatures, override: str | None = None, *, record: bool = True) -> Snapshotter:
    """The snapshotter for the store at *root*; *override* is one of KINDS. Without *record* nothing is written.

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
    chosen = override or _best(features)
    recorded = _recorded(root)
    if recorded == chosen:
        return _made(chosen, root)
    found = _kind_of_layers(root, recorded, features)
    if found is not None and found != chosen:
        if override is not None or not _works(found, features):
            raise _conflict(root, found, chosen)
        chosen = found
    if record and chosen != recorded:
        _record(root, chosen)
    return _made(chosen, root)


def _record(root: StrPath, kind: str) -> None:
    with reporting("write", os.path.join(root, "layers")):
        os.makedirs(os.path.join(root, "layers"), mode=0o700, exist_ok=True)
    write_instead(os.path.join(root, "layers", _FILE), kind.encode() + b"\n")


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
    """The kind that is written down; None when nothing is, or nonsense."""
    path = os.path.join(root, "layers", _FILE)
    try:
        with reporting("read", path), open(path, "rb", buffering=0) as file:
            kind = file.read(100).decode(errors="replace").strip()
    except (NotFound, InvalidInput):  # the latter: something else where the file should be
        return None
    return kind if kind in KINDS else None


def _kind_of_layers(root: StrPath, recorded: str | None, features: HostFeatures) -> str | None:
    """The kind of the layers here, told by their files where the record is lost; None when there are none."""
    from .folders import LayerFolders

    folders = LayerFolders(root)
    diff_id = next(folders.walk(), None)
    if diff_id is None or recorded is not None:
        return diff_id and recorded
    if os.path.exists(os.path.join(folders.path(diff_id), "index.erofs")):
        return "erofs"
    return "unpacked" if features.mount.available else "unpacked-user"


def _conflict(root: StrPath, found: str, wanted: str) -> Conflict:
    return Conflict(
        f"the layers in {root} are of the kind {found!r}, not {wanted!r}",
        code="snapshot-kind",
        context="they were made by another user, on another kernel, or on request",
        hint=f"use another store with --root, or delete {os.path.join(root, 'layers')} (images stay)",
    )
