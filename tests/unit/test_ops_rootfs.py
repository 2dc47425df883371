"""A workspace stands in a container's folder, never for one."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.ops.rootfs import workspace

if TYPE_CHECKING:
    from pathlib import Path


def test_a_container_that_was_removed_meanwhile_is_not_made_anew(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError), workspace(str(tmp_path / "gone")):
        pass
    assert list(tmp_path.iterdir()) == []
