"""A disk that fills up while layers arrive: one error, nothing left, the store goes on."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Exhausted
from argosy.linux import mounts
from argosy.snapshots.erofs import ErofsSnapshotter
from argosy.snapshots.unpacked import UnpackedSnapshotter
from tests.support.archives import archive, diff_id, file
from tests.support.forked import in_child

if TYPE_CHECKING:
    from pathlib import Path

SMALL = archive(file(b"small", b"x" * 1000))
LARGE = archive(*[file(b"f%d" % number, os.urandom(100_000)) for number in range(40)])


@pytest.mark.parametrize("kind", ["erofs", "unpacked"])
@pytest.mark.parametrize("size", [100_000, 1_000_000, 3_900_000])
def test_full_disk_is_one_error_and_no_snapshot(kind: str, size: int, tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")

    def inside() -> tuple[str, list[str], list[str]]:
        mounts.private_namespace()
        store = tmp_path / "store"
        store.mkdir()
        mounts.Tmpfs(target=str(store), size=size).execute()
        snapshotter = ErofsSnapshotter(store) if kind == "erofs" else UnpackedSnapshotter(store, user=False)
        with pytest.raises(Exhausted) as caught:
            snapshotter.apply(diff_id(LARGE), io.BytesIO(LARGE))
        left = os.listdir(store / "tmp")
        snapshotter.apply(diff_id(SMALL), io.BytesIO(SMALL))
        return caught.value.code, left, [name.hex for name in snapshotter.walk()]

    assert in_child(inside) == ("disk-full", [], [diff_id(SMALL).hex])
