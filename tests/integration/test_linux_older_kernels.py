"""Older kernels, imitated by a seccomp filter that forgets system calls: every fallback does the same work."""

from __future__ import annotations

import ctypes
import errno
import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, Unsupported
from argosy.linux import features, files, mounts, paths, seccomp, syscalls
from argosy.linux.mounts import Bind, Erofs, Overlay, Tmpfs
from argosy.oci.platform import Platform
from support.forked import in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_SYS_ADMIN)")
NEW_MOUNTS = ("fsopen", "fsconfig", "fsmount", "open_tree", "move_mount", "mount_setattr")


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _without(calls: tuple[str, ...], number: int, action: Callable[[], object]) -> object:
    """Run *action* in a child, with mounts of its own, where *calls* fail with *number*."""
    native = seccomp.profile_for((), Platform.host().architecture)["architectures"]
    profile = {
        "defaultAction": "SCMP_ACT_ALLOW",
        "architectures": native,
        "syscalls": [{"names": list(calls), "action": "SCMP_ACT_ERRNO", "errnoRet": number}],
    }
    try:
        program = seccomp.compile_profile(profile)
    except Unsupported as error:
        pytest.skip(f"{error.message} ({error.hint})")

    def inside() -> object:
        paths._has_openat2 = None  # what this process learned before does not hold under the filter
        mounts.private_namespace()
        buffer = ctypes.create_string_buffer(program, len(program))
        filter_ = _Program(len(program) // 8, ctypes.addressof(buffer))
        syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
        syscalls.prctl(22, 2, ctypes.addressof(filter_))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER
        return action()

    return in_child(inside)


@pytest.mark.parametrize("number", [errno.ENOSYS, errno.EPERM], ids=["Linux 5.5", "old container engine"])
def test_without_openat2_paths_stay_in_their_root(tmp_path: Path, number: int) -> None:
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root").mkdir()
    (tmp_path / "root" / "link").symlink_to("../../secret")

    def work() -> object:
        root_fd = paths.open_root(tmp_path / "root")
        before = paths.exists(root_fd, "link")
        paths.write_file_in_root(root_fd, "secret", b"inside")
        return before, paths.read_file_in_root(root_fd, "/link", 100)

    assert _without(("openat2",), number, work) == (False, b"inside")


def test_without_openat2_trees_are_removed_but_not_other_file_systems(tmp_path: Path) -> None:
    (tmp_path / "tree" / "a" / "b").mkdir(parents=True)
    (tmp_path / "tree" / "link").symlink_to(tmp_path)

    def work() -> object:
        Tmpfs(target=str(tmp_path / "tree" / "a" / "b")).execute()
        (tmp_path / "tree/a/b/kept").touch()
        try:
            files.remove_tree(tmp_path / "tree")
        except Conflict as error:
            refused = error.code, os.listdir(tmp_path / "tree/a/b")
        mounts.unmount(str(tmp_path / "tree" / "a" / "b"))
        files.remove_tree(tmp_path / "tree")
        return refused, os.listdir(tmp_path)

    assert _without(("openat2",), errno.ENOSYS, work) == (("mounted", ["kept"]), [])


def test_without_the_new_mount_calls_the_old_one_does_all(tmp_path: Path) -> None:
    for name in ("low,er", "upper", "work", "target", "bound", "erofs"):
        (tmp_path / name).mkdir()
    (tmp_path / "low,er" / "file").touch()
    (tmp_path / "index").write_bytes(features._empty_erofs())
    (tmp_path / "device").write_bytes(bytes(512))
    target = str(tmp_path / "target")
    plan = mounts.MountPlan(
        mounts=(
            Overlay(
                lowers=(str(tmp_path / "low,er"),),
                upper=str(tmp_path / "upper"),
                work=str(tmp_path / "work"),
                target=target,
            ),
            Bind(source=target, target=str(tmp_path / "bound"), read_only=True),
            Erofs(index=str(tmp_path / "index"), devices=(str(tmp_path / "device"),), target=str(tmp_path / "erofs")),
        )
    )

    def work() -> object:
        with plan.mounted():
            (tmp_path / "target" / "new").touch()
            read_only = bool(os.statvfs(tmp_path / "bound").f_flag & os.ST_RDONLY)
            return read_only, sorted(os.listdir(tmp_path / "bound")), os.listdir(tmp_path / "erofs")

    assert _without(NEW_MOUNTS, errno.ENOSYS, work) == (True, ["file", "new"], [])


def test_the_probe_finds_out_what_is_missing(tmp_path: Path) -> None:
    def probe() -> object:
        found = features.probe(folder=str(tmp_path), path="/usr/bin")
        return {name: feature.reason for name, feature in found.all().items() if name in expected}

    expected = {
        "overlay": "",
        "openat2": "tried: Function not implemented (ENOSYS)",
        "overlay_layerwise": "tried: Function not implemented (ENOSYS)",
        "idmapped_mounts": "tried: Function not implemented (ENOSYS)",
    }
    assert _without((*NEW_MOUNTS, "openat2"), errno.ENOSYS, probe) == expected
