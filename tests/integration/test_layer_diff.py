"""What a container changed, as a layer: from a real overlay's upper folder, read again by others."""

from __future__ import annotations

import io
import os
import shutil
import socket
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, InvalidInput
from argosy.layer.apply import apply
from argosy.layer.archive import entries
from argosy.layer.diff import tree_entries, upper_entries, write_entries
from argosy.layer.writer import ArchiveWriter
from tests.support.archives import archive, file, folder, pax, symlink
from tests.support.layers import applied, looking, merged, snapshotter_of
from tests.support.trees import describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from pathlib import Path

    from argosy.layer.diff import Found

BASE = archive(
    folder(b"d"),
    file(b"d/f", b"old"),
    file(b"d/gone"),
    folder(b"tree"),
    file(b"tree/x"),
    folder(b"again"),
    file(b"again/old"),
    file(b"a", b"1"),
    symlink(b"l", b"d/f"),
)


def archived(found: Iterable[Found]) -> bytes:
    out = io.BytesIO()
    with ArchiveWriter(out) as writer:
        write_entries(writer, found)
    return out.getvalue()


def change(root: Path) -> None:
    """What people do in containers."""
    (root / "d/f").write_text("new")
    (root / "d/gone").unlink()
    shutil.rmtree(root / "tree")
    shutil.rmtree(root / "again")
    (root / "again").mkdir(mode=0o750)
    (root / "again/new").write_text("x")
    (root / "new folder/deep").mkdir(parents=True)
    (root / "new folder/deep/file").write_bytes(b"x" * 100_000)
    os.link(root / "new folder/deep/file", root / "new folder/second name")
    (root / "l").unlink()
    (root / "l").mkdir()
    os.mknod(root / "pipe", stat.S_IFIFO | 0o600)
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.setxattr(root / "a", "user.note", b"1")
    os.chown(root / "a", 1000, 1000)
    os.utime(root / "new folder", ns=(0, 123_456_789_012_345_678))
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(root / "socket"))


@pytest.mark.parametrize("kind", ["erofs", "unpacked"])
def test_changes_of_a_container_make_a_layer_that_repeats_them(kind: str, tmp_path: Path) -> None:
    snapshotter = snapshotter_of(kind, tmp_path / "store")

    def act(root: Path) -> object:
        change(root)
        return {name: row for name, row in describe(root).items() if name != "socket"}

    expected = looking(snapshotter, applied(snapshotter, BASE), tmp_path / "first", act)
    upper_fd = os.open(tmp_path / "first/upper", os.O_RDONLY)
    try:
        layer = archived(upper_entries(upper_fd))
        assert layer == archived(upper_entries(upper_fd))
    finally:
        os.close(upper_fd)
    assert merged(snapshotter, tmp_path / "second", BASE, layer) == expected


def test_marks_say_only_what_is_needed(tmp_path: Path) -> None:
    snapshotter = snapshotter_of("unpacked", tmp_path / "store")
    looking(snapshotter, applied(snapshotter, BASE), tmp_path / "first", change)
    below = {b"d", b"tree", b"again"}
    root_fd = os.open(tmp_path / "first/upper", os.O_RDONLY)
    try:
        found = upper_entries(root_fd, lower_has=below.__contains__, excluded=lambda path: path.startswith(b"new"))
        names = [each.entry.path for each in found]
    finally:
        os.close(root_fd)
    assert names == [
        b"a",
        b"null",
        b"pipe",
        b".wh.tree",
        b"again",
        b"again/.wh..wh..opq",
        b"again/new",
        b"d",
        b"d/f",
        b"d/.wh.gone",
        b"l",
    ]


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    root = tmp_path / "tree"
    root.mkdir()
    fd = os.open(root, os.O_RDONLY)
    yield root, fd
    os.close(fd)


def test_plain_trees_are_read_back_by_gnu_tar(tree: tuple[Path, int], tmp_path: Path) -> None:
    root, root_fd = tree
    (root / "z/y").mkdir(parents=True)
    (root / "z/y/file").write_bytes(b"x" * 2000)
    (root / "b").write_text("b")
    os.symlink("t" * 300, root / "link")
    os.link(root / "z/y/file", root / "name")
    (root / os.fsdecode(b"\xff\xfe")).write_text("odd")
    os.utime(root / "b", ns=(0, 1_234_567_890_123_456_789))
    (tmp_path / "out").mkdir()
    command = ["tar", "--xattrs", "-C", tmp_path / "out", "-xp"]
    subprocess.run(command, input=archived(tree_entries(root_fd, root=True)), check=True)
    assert describe(tmp_path / "out") == describe(root)


def test_owners_times_and_exclusions_are_the_callers(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    (root / "keep").mkdir()
    (root / "keep/file").write_text("x")
    (root / "skip").mkdir()
    (root / "skip/file").write_text("x")
    for name in ("keep", "keep/file"):
        os.utime(root / name, ns=(0, 5_000_000_001))
    found = tree_entries(
        root_fd,
        excluded=lambda path: path == b"skip",
        owner=lambda uid, gid: (uid + 7, gid + 8),
        latest_ns=5_000_000_000,
    )
    owner = (os.getuid() + 7, os.getgid() + 8)
    assert [(each.entry.path, (each.entry.uid, each.entry.gid), each.entry.mtime_ns) for each in found] == [
        (b"keep", owner, 5_000_000_000),
        (b"keep/file", owner, 5_000_000_000),
    ]


@pytest.mark.parametrize(
    "meddle",
    [
        lambda path: path.write_text("longer than it was"),
        lambda path: path.write_text("s"),
        lambda path: (path.unlink(), os.mkfifo(path)),
    ],
    ids=["longer", "shorter", "a pipe now"],
)
def test_files_that_change_meanwhile_are_a_conflict(tree: tuple[Path, int], meddle: Callable[[Path], object]) -> None:
    root, root_fd = tree
    (root / "f").write_text("content")
    found = list(tree_entries(root_fd))
    meddle(root / "f")
    with pytest.raises(Conflict) as caught:
        archived(found)
    assert caught.value.code == "file-changed"


def test_paths_that_no_layer_can_hold_are_an_error(tree: tuple[Path, int]) -> None:
    root, root_fd = tree
    fd = os.dup(root_fd)
    for _ in range(20):
        os.mkdir("n" * 250, dir_fd=fd)
        below = os.open("n" * 250, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    with pytest.raises(InvalidInput) as caught:
        archived(tree_entries(root_fd))
    assert caught.value.code == "path-too-long"
    subprocess.run(["rm", "-rf", root / ("n" * 250)], check=True)


def test_folders_two_thousand_deep_come_and_go(tree: tuple[Path, int], tmp_path: Path) -> None:
    deep = b"/".join([b"d"] * 2000)
    root, root_fd = tree
    long_name = archive(pax((b"path", deep)), file(b"x", b"at the bottom"))
    apply(entries(io.BytesIO(long_name)), root_fd)
    assert archived(tree_entries(root_fd)).count(b"at the bottom") == 1
    subprocess.run(["rm", "-rf", root / "d"], check=True)
