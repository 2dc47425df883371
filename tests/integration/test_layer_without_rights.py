"""Layers unpacked by those who may do less than root: users, namespaces, filters."""

from __future__ import annotations

import ctypes
import errno
import io
import os
import platform
import stat
import struct
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.layer import tree_reader  # noqa: F401 -- loaded late otherwise, by a nobody who may not
from argosy.layer.apply import Applied, apply
from argosy.layer.archive import entries
from argosy.linux import mounts, syscalls, userns
from argosy.linux.files import remove_tree
from argosy.snapshots import ahead, intake, parents  # noqa: F401 -- loaded late otherwise, by a nobody who may not
from argosy.snapshots.folders import LayerFolders
from argosy.snapshots.unpacked import UnpackedSnapshotter
from tests.support import views
from tests.support.archives import archive, device, diff_id, file, folder, pax
from tests.support.forked import become_nobody, in_child
from tests.support.trees import Tree, describe

if TYPE_CHECKING:
    from collections.abc import Iterator

LOWER = archive(
    folder(b"d"), file(b"d/old", uid=5), folder(b"o"), file(b"o/old"), file(b"gone"), folder(b"g"), file(b"g/x")
)
UPPER = archive(
    folder(b"d", 0o555),
    file(b"d/new", b"x", mode=0o4755, uid=1000, gid=1000, mtime=7),
    file(b".wh.gone"),
    file(b"o/.wh..wh..opq"),
    file(b"g/.wh.x"),
    file(b"only here/.wh.y"),
    device(b"null", b"3", 1, 3),
    pax((b"SCHILY.xattr.user.note", b"1"), (b"SCHILY.xattr.trusted.note", b"2")),
    file(b"noted", mode=0o400),
)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """A store that nobody (uid 65534) may write to."""
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    root = Path("/var/tmp") / f"argosy-{os.getpid()}-{tmp_path.name}"
    root.mkdir(mode=0o777)
    root.chmod(0o777)
    yield root
    remove_tree(root)


def overlaid(store: Path, *, userxattr: bool) -> Tree:
    snapshotter = UnpackedSnapshotter(store, user=userxattr)
    for tar in (LOWER, UPPER):
        snapshotter.apply(diff_id(tar), io.BytesIO(tar))
    for name in ("mounts", "merged", "upper", "work"):
        (store / name).mkdir()
    mounts.private_namespace()
    _, lowers = snapshotter.lowers((diff_id(LOWER), diff_id(UPPER)), store / "mounts")
    mounts.Overlay(
        lowers=tuple(map(str, lowers)),
        upper=str(store / "upper"),
        work=str(store / "work"),
        target=str(store / "merged"),
        userxattr=userxattr,
    ).execute()
    tree = describe(store / "merged")
    assert views.described(snapshotter, (diff_id(LOWER), diff_id(UPPER))) == views.grouped(tree)
    return tree


def test_user_in_a_namespace_gets_what_the_user_may_have(store: Path) -> None:
    def inside() -> tuple[Tree, tuple[str, ...]]:
        become_nobody()
        userns.enter_user_namespace(path="", mapping=userns.single_mapping())
        tree = overlaid(store, userxattr=True)
        return tree, LayerFolders(store).facts(diff_id(UPPER)).warnings

    tree, warnings = in_child(inside)
    assert {name: (row[0], row[1], row[2]) for name, row in tree.items()} == {
        "d": ("dr-xr-xr-x", (0, 0), 0),
        "d/old": ("-rw-r--r--", (0, 0), 0),
        "d/new": ("-rwsr-xr-x", (0, 0), 7_000_000_000),
        "o": ("drwxr-xr-x", (0, 0), 0),
        "g": ("drwxr-xr-x", (0, 0), 0),
        "only here": ("drwxr-xr-x", (0, 0), 0),
        "noted": ("-r--------", (0, 0), 0),
    }
    assert tree["noted"][4] == {"user.note": b"1"}
    assert warnings == (
        "1 × device nodes were left out: making them is not permitted here",
        "1 × extended attributes of the kind 'trusted' were left out: Operation not permitted",
        "1 × owners were left as they are: their ids are not mapped here",
    )


def test_plain_user_can_unpack_too(store: Path) -> None:
    def inside() -> tuple[Applied, list[str]]:
        become_nobody()
        (store / "fs").mkdir()
        root_fd = os.open(store / "fs", os.O_RDONLY)
        applied = apply(entries(io.BytesIO(UPPER)), root_fd, user=True)
        return applied, sorted(os.listdir(store / "fs"))

    applied, names = in_child(inside)
    assert names == ["d", "g", "gone", "noted", "o", "only here"]
    assert sorted(applied.implied) == [b"g", b"o", b"only here"]


@pytest.mark.skipif(platform.machine() != "x86_64", reason="this kernel's system calls are not those of the filter")
def test_whiteouts_without_device_nodes(store: Path) -> None:
    """Some filters and file systems refuse mknod altogether; Linux 6.7 knows whiteouts that are files."""

    def inside() -> tuple[Tree, str]:
        refuse_mknod()
        tree = overlaid(store, userxattr=False)
        place = f"{LayerFolders(store).path(diff_id(UPPER))}/fs/gone"
        return tree, stat.filemode(os.lstat(place).st_mode)

    tree, form = in_child(inside)
    assert form == "-rw-------"
    assert set(tree) == {"d", "d/old", "d/new", "o", "g", "only here", "noted"}


def test_whiteout_files_are_replaced_like_any_other(store: Path) -> None:
    tar = archive(file(b".wh.a"), file(b"a", b"x"), file(b".wh.b"), file(b"b/c"), file(b".wh.c"), folder(b"c"))

    def inside() -> dict[str, tuple[str, bytes]]:
        refuse_mknod()
        (store / "fs").mkdir()
        apply(entries(io.BytesIO(tar)), os.open(store / "fs", os.O_RDONLY))
        found = {}
        for name in ("a", "b", "b/c", "c"):
            place = store / "fs" / name
            xattrs = {key: os.getxattr(place, key) for key in os.listxattr(place)}
            found[name] = (stat.filemode(place.lstat().st_mode), xattrs.get("trusted.overlay.opaque", b""))
        return found

    assert in_child(inside) == {
        "a": ("-rw-r--r--", b""),
        "b": ("drwxr-xr-x", b"y"),
        "b/c": ("-rw-r--r--", b""),
        "c": ("drwxr-xr-x", b"y"),
    }


def refuse_mknod() -> None:
    """A seccomp filter (x86-64): mknod and mknodat fail with EPERM."""
    load, jump_equal, give = 0x20, 0x15, 0x06
    allow, refuse = 0x7FFF0000, 0x00050000 | errno.EPERM
    steps = [
        (load, 0, 0, 0),
        (jump_equal, 2, 0, 133),
        (jump_equal, 1, 0, 259),
        (give, 0, 0, allow),
        (give, 0, 0, refuse),
    ]
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *step) for step in steps))
    program = ctypes.create_string_buffer(struct.pack("HxxxxxxQ", len(steps), ctypes.addressof(code)))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    set_seccomp, mode_filter = 22, 2
    syscalls.prctl(set_seccomp, mode_filter, ctypes.addressof(program))
