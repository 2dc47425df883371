"""The bytes that trees take on the disk."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.linux import room

if TYPE_CHECKING:
    from pathlib import Path


def tree(folder: Path) -> Path:
    """Files of several sizes, a hole, a file of two names, links, and names that try to lead elsewhere."""
    (folder / "a/b").mkdir(parents=True)
    (folder / "a/large").write_bytes(b"x" * 300_000)
    (folder / "a/b/small").write_bytes(b"x")
    with (folder / "a/hole").open("wb") as file:
        file.truncate(10**9)
    os.link(folder / "a/large", folder / "a/b/again")
    (folder / "out").symlink_to("/usr")
    return folder


def told_by_du(path: Path) -> int:
    done = subprocess.run(["du", "-s", "-B1", path], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[0])


def test_a_tree_takes_what_du_says(tmp_path: Path) -> None:
    assert room.of_tree(tree(tmp_path)) == told_by_du(tmp_path)


def test_names_at_the_top_can_be_left_out(tmp_path: Path) -> None:
    tree(tmp_path)
    assert room.of_tree(tmp_path, skip=("a",)) == told_by_du(tmp_path) - told_by_du(tmp_path / "a")


def test_what_is_absent_takes_nothing(tmp_path: Path) -> None:
    assert (room.of_tree(tmp_path / "no"), room.of_file(tmp_path / "no")) == (0, 0)


def test_a_tree_deeper_than_paths_are_long_is_measured_whole(tmp_path: Path) -> None:
    fd = os.open(tmp_path, os.O_RDONLY)
    for _ in range(100):
        os.mkdir("d" * 100, dir_fd=fd)
        below = os.open("d" * 100, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    with open(os.open("file", os.O_WRONLY | os.O_CREAT, dir_fd=fd), "wb") as file:
        file.write(b"x" * 100_000)
    os.close(fd)
    assert room.of_tree(tmp_path) == told_by_du(tmp_path) > 100_000


def test_a_folder_that_may_not_be_read_is_no_zero(tmp_path: Path) -> None:
    from support.forked import become_nobody, in_child

    if os.geteuid() != 0:
        pytest.skip("needs root")
    (tmp_path / "closed").mkdir(0o700)
    os.chmod(tmp_path, 0o755)

    def look() -> str:
        become_nobody()
        try:
            return str(room.of_tree(tmp_path / "closed"))
        except PermissionError:
            return "refused"

    assert in_child(look) == "refused"
