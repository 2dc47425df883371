"""The probe against this machine, as root and as a plain user, and that it leaves nothing."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.linux import features, mounts
from support.forked import NOBODY, become_nobody, in_child

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def test_a_probe_leaves_no_folder_no_mount_no_descriptor_no_child(tmp_path: Path) -> None:
    def state() -> object:
        return os.listdir(tmp_path), mounts.mount_points(), len(os.listdir("/proc/self/fd"))

    before = state()
    found = features.probe(folder=str(tmp_path), path="/usr/bin")
    assert state() == before
    with pytest.raises(ChildProcessError):
        os.waitpid(-1, os.WNOHANG)
    assert found.key == features.key()
    assert found.cgroup in ("v1", "v2", "hybrid", "none")
    assert all(feature.available or (feature.reason and feature.hint) for feature in found.all().values())


@needs_root
def test_a_plain_user_may_not_mount_but_may_in_a_user_namespace(tmp_path: Path) -> None:
    os.chown(tmp_path, NOBODY, NOBODY)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)

    def look() -> object:
        become_nobody()
        found = features.probe(folder=str(tmp_path), path="")
        if not found.user_namespace.available:
            return None
        missing = (found.mount, found.erofs_file, found.idmapped_mounts)
        return [(feature.available, feature.reason) for feature in missing]

    answer = in_child(look)
    if answer is None:
        pytest.skip("this kernel gives plain users no user namespaces (see argosy doctor)")
    assert answer == [(False, "tried: Operation not permitted (EPERM)")] * 3


def test_a_v2_tree_beside_v1_controllers_is_hybrid(tmp_path: Path) -> None:
    assert features.cgroup_version(str(tmp_path / "absent")) == "none"
    assert features.cgroup_version(str(tmp_path)) == "none"
    (tmp_path / "memory").mkdir()
    assert features.cgroup_version(str(tmp_path)) == "v1"
