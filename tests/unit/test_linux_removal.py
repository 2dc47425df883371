"""Large trees go whole, and nothing else goes, whatever they hold."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from argosy.linux.removal import remove_large_tree

if TYPE_CHECKING:
    from pathlib import Path


def wide(root: Path, folders: int = 200) -> Path:
    """More folders than one thread would empty, some with folders in them."""
    for number in range(folders):
        inner = root / f"d{number % 7}" / f"e{number}" / "f"
        inner.mkdir(parents=True)
        for name in ("a", "b"):
            (inner / name).write_bytes(b"x")
        (inner.parent / "file").write_bytes(b"x")
    return root


def test_a_wide_tree_goes(tmp_path: Path) -> None:
    remove_large_tree(wide(tmp_path / "tree"))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("depth", [3, 100, 1500])
def test_a_deep_tree_goes(tmp_path: Path, depth: int) -> None:
    (tmp_path / "tree").mkdir()
    fd = os.open(tmp_path / "tree", os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("deeper", dir_fd=fd)
        below = os.open("deeper", os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    remove_large_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_links_are_removed_and_not_followed(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_bytes(b"x")
    tree = wide(tmp_path / "tree")
    for number in range(7):
        (tree / f"d{number}/out").symlink_to(outside)
        (tree / f"d{number}/up").symlink_to("../../outside")
    remove_large_tree(tree)
    assert (sorted(tmp_path.iterdir()), (outside / "kept").exists()) == ([outside], True)


def test_a_link_in_the_place_of_the_tree_is_removed_alone(tmp_path: Path) -> None:
    wide(tmp_path / "tree", 3)
    (tmp_path / "link").symlink_to(tmp_path / "tree")
    remove_large_tree(tmp_path / "link")
    assert [path.name for path in tmp_path.iterdir()] == ["tree"]


def test_folders_that_are_closed_go_too(tmp_path: Path) -> None:
    tree = wide(tmp_path / "tree")
    for number in range(7):
        (tree / f"d{number}").chmod(0o000 if number % 2 else 0o500)
    remove_large_tree(tree)
    assert not tree.exists()


def test_names_of_any_bytes_go(tmp_path: Path) -> None:
    place = os.fsencode(tmp_path / "tree")
    os.mkdir(place)
    for number in range(60):
        os.mkdir(place + b"/\xff\n%d" % number)
        os.mkdir(place + b"/\xff\n%d/\x80" % number)
    remove_large_tree(tmp_path / "tree")
    assert list(tmp_path.iterdir()) == []


def test_a_file_and_what_is_absent_are_no_trouble(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"x")
    remove_large_tree(tmp_path / "file")
    remove_large_tree(tmp_path / "absent")
    assert list(tmp_path.iterdir()) == []


def test_two_may_remove_the_same_tree(tmp_path: Path) -> None:
    tree = wide(tmp_path / "tree", 500)
    threads = [threading.Thread(target=remove_large_tree, args=(tree,)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert list(tmp_path.iterdir()) == []
