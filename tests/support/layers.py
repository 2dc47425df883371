"""See layers as a container would: apply them, mount them in a namespace of a forked child, look."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING, TypeVar

import pytest

from argosy.linux import features, mounts
from argosy.snapshots.erofs import ErofsSnapshotter
from argosy.snapshots.unpacked import UnpackedSnapshotter

from . import views
from .archives import diff_id
from .forked import in_child
from .trees import Tree, describe

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from argosy.oci.digest import Digest
    from argosy.snapshots import Snapshotter

Result = TypeVar("Result")


def snapshotter_of(kind: str, root: Path) -> Snapshotter:
    """One that this host can mount, or a skip."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount layers")
    (root / "tmp").mkdir(parents=True, exist_ok=True)
    if kind == "unpacked":
        return UnpackedSnapshotter(root, user=False)
    found = features.probe(folder=str(root / "tmp"), path=os.environ["PATH"]).erofs_file
    if not found.available:
        pytest.skip(f"this kernel cannot mount EROFS from a file: {found.reason}")
    return ErofsSnapshotter(root)


def applied(snapshotter: Snapshotter, *tars: bytes) -> tuple[Digest, ...]:
    """The diff-ids of *tars*, all of them snapshots now."""
    for tar in tars:
        snapshotter.apply(diff_id(tar), io.BytesIO(tar))
    return tuple(diff_id(tar) for tar in tars)


def looking(
    snapshotter: Snapshotter, diff_ids: tuple[Digest, ...], scratch: Path, look: Callable[[Path], Result]
) -> Result:
    """What *look* returns, given the merged view of the layers, writable; the upper folder is scratch/upper."""

    def inside() -> Result:
        for name in ("mounts", "upper", "work", "merged"):
            (scratch / name).mkdir(parents=True, exist_ok=True)
        mounts.private_namespace()
        mounts.Tmpfs(target=str(scratch / "mounts")).execute()
        steps, lowers = snapshotter.lowers(diff_ids, scratch / "mounts")
        for step in steps:
            step.execute()
        mounts.Overlay(
            lowers=tuple(map(str, lowers)),
            upper=str(scratch / "upper"),
            work=str(scratch / "work"),
            target=str(scratch / "merged"),
            options=("redirect_dir=off", "metacopy=off", "index=off"),
        ).execute()
        return look(scratch / "merged")

    return in_child(inside)


def merged(snapshotter: Snapshotter, scratch: Path, *tars: bytes, times: bool = True) -> Tree:
    """The tree that the layers *tars*, lowest first, make together: as the kernel shows it, and without a mount."""
    diff_ids = applied(snapshotter, *tars)
    tree = looking(snapshotter, diff_ids, scratch, lambda root: describe(root, times=True))
    assert views.described(snapshotter, diff_ids) == views.grouped(tree)
    return tree if times else {name: (*row[:2], None, *row[3:]) for name, row in tree.items()}
