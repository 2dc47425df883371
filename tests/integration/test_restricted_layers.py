"""Layers on a file system without attributes, owners, devices: what can be kept is, and what cannot is said."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from argosy.snapshots.folders import LayerFolders
from argosy.snapshots.unpacked import UnpackedSnapshotter
from tests.conformance import test_snapshots as contract
from tests.support import views
from tests.support.archives import archive, device, diff_id, file, folder, hardlink, pax, symlink
from tests.support.layers import applied, looking, merged
from tests.support.restricted import Limits, restricted
from tests.support.trees import Tree, describe

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from argosy.snapshots import Snapshotter


@pytest.fixture
def snapshotter(tmp_path: Path) -> Iterator[Snapshotter]:
    """On a file system without extended attributes, but with all else that a tree consists of."""
    with restricted(tmp_path / "disk", tmp_path / "store", Limits(owner=None, devices=True, grain_s=0)) as store:
        (store / "tmp").mkdir()
        yield UnpackedSnapshotter(store, user=False)


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


# ---- the contract, where it is about what a layer takes away from others, and about a snapshot's life

test_later_entries_win = contract.test_later_entries_win
test_links_may_take_the_place_of_the_folder = contract.test_links_may_take_the_place_of_the_folder_they_came_from
test_whiteouts_take_lower_files_away = contract.test_whiteouts_take_lower_files_away
test_opaque_folders_hide_all_that_was_in_them = contract.test_opaque_folders_hide_all_that_was_in_them
test_whiteouts_spare_what_their_own_layer_brings = contract.test_whiteouts_spare_what_their_own_layer_brings
test_whiteouts_of_nothing_are_not_listed = contract.test_whiteouts_of_nothing_are_not_listed
test_marks_in_what_is_no_folder = contract.test_marks_in_what_is_no_folder_any_more_are_passed_over
test_leftovers_of_aufs_are_passed_over = contract.test_leftovers_of_aufs_are_passed_over
test_device_zero_is_a_whiteout = contract.test_device_zero_is_a_whiteout
test_an_emptied_folder_stays = contract.test_an_emptied_folder_stays_and_what_was_in_it_is_new
test_a_hundred_and_thirty_layers = contract.test_a_hundred_and_thirty_layers
test_a_layer_listed_twice_counts_at_its_upper_place = contract.test_a_layer_listed_twice_counts_at_its_upper_place
test_layers_without_entries = contract.test_layers_without_entries
test_writes_go_to_the_upper_folder = contract.test_writes_go_to_the_upper_folder
test_snapshot_exists_from_apply_to_remove = contract.test_snapshot_exists_from_apply_to_remove
test_removed_layers_stay_readable_where_mounted = contract.test_removed_layers_stay_readable_where_mounted
test_wrong_digest_leaves_nothing = contract.test_wrong_digest_leaves_nothing
test_two_at_once_both_succeed = contract.test_two_at_once_both_succeed
test_killed_while_applying_leaves_no_snapshot = contract.test_killed_while_applying_leaves_no_snapshot


# ---- marks that are told instead

LOWER = archive(
    *(folder(b"d", 0o750, uid=7), file(b"d/old"), folder(b"d/deep"), file(b"d/deep/old"), file(b"gone"), folder(b"e")),
    *(file(b"e/x"), folder(b"tree"), file(b"tree/x"), file(b"stays"), folder(b"f", 0o711), file(b"f/old")),
)
UPPER = archive(
    *(file(b"d/.wh..wh..opq"), file(b"d/deep/new"), file(b".wh.gone"), file(b"e/.wh.x"), file(b"e/y")),
    *(file(b".wh.tree"), folder(b"tree"), file(b"tree/new"), file(b"f/.wh.old"), file(b".wh.never")),
    *(folder(b"again"), file(b"again/.wh.x"), file(b"again"), folder(b"again")),
)


def test_what_a_layer_hides_is_in_its_facts_and_nowhere_on_disk(snapshotter: Snapshotter, tmp_path: Path) -> None:
    _, upper = applied(snapshotter, LOWER, UPPER)
    facts = LayerFolders(tmp_path / "store").facts(upper)
    assert facts.hidden == (b"d", b"e/x", b"f/old", b"gone", b"never", b"tree")
    tree = tmp_path / "disk/layers" / upper.algorithm / upper.hex / "fs"
    found = [path for path in tree.rglob("*") if stat.S_ISCHR(path.lstat().st_mode) or os.listxattr(path)]
    assert found == []


def test_the_view_is_that_of_a_file_system_that_keeps_marks(
    snapshotter: Snapshotter, scratch: Path, tmp_path: Path
) -> None:
    tree = merged(snapshotter, scratch, LOWER, UPPER)
    (tmp_path / "other/tmp").mkdir(parents=True)
    assert tree == merged(UnpackedSnapshotter(tmp_path / "other", user=False), tmp_path / "scratch2", LOWER, UPPER)
    assert sorted(tree) == sorted(
        "again d d/deep d/deep/new e e/y f stays tree tree/new".split()  # nothing that was hidden
    )


def test_what_reads_layers_without_mounting_them_sees_the_same(snapshotter: Snapshotter, scratch: Path) -> None:
    diff_ids = applied(snapshotter, LOWER, UPPER)
    seen = looking(snapshotter, diff_ids, scratch, describe)
    assert views.described(snapshotter, diff_ids) == views.grouped(seen)


def test_folders_that_a_layer_only_uses_look_as_below_unless_they_were_hidden(
    snapshotter: Snapshotter, scratch: Path
) -> None:
    lower = archive(folder(b"a", 0o700), folder(b"a/b", 0o711), folder(b"c", 0o700))
    middle = archive(file(b".wh.c"), file(b"a/.wh.b"))
    tree = merged(snapshotter, scratch, lower, middle, archive(file(b"a/b/x"), file(b"c/y")))
    assert {name: row[0] for name, row in tree.items()} == {
        "a": "drwx------",
        "a/b": "drwxr-xr-x",
        "a/b/x": "-rw-r--r--",
        "c": "drwxr-xr-x",
        "c/y": "-rw-r--r--",
    }


# ---- what else is lost

RICH = archive(
    folder(b"bin", 0o2755, gid=5),
    file(b"bin/su", b"x", mode=0o4755),
    file(b"bin/other", b"x", mode=0o6755, uid=1000, gid=1000),
    pax((b"SCHILY.xattr.user.note", b"1")),
    file(b"bin/noted", b"n"),
    hardlink(b"bin/second", b"bin/su"),
    symlink(b"link", b"bin/su"),
    hardlink(b"second link", b"link"),
    device(b"null", b"3", 1, 3),
    folder(b"closed", 0o500),
    file(b"closed/x", b"x", mode=0o400),
)


def unpacked(tmp_path: Path, limits: Limits) -> tuple[Tree, tuple[str, ...]]:
    with restricted(tmp_path / "disk", tmp_path / "store", limits) as store:
        snapshotter = UnpackedSnapshotter(store, user=False)
        tree = merged(snapshotter, tmp_path / "scratch", RICH)
        return tree, LayerFolders(store).facts(diff_id(RICH)).warnings


def test_what_the_file_system_cannot_keep_is_said_and_the_rest_is_there(tmp_path: Path) -> None:
    tree, warnings = unpacked(tmp_path, Limits(hard_links=False))
    assert {name: (row[0], row[1]) for name, row in tree.items()} == {
        "bin": ("drwxr-xr-x", (0, 0)),
        "bin/su": ("-rwsr-xr-x", (0, 0)),
        "bin/other": ("-rwxr-xr-x", (0, 0)),
        "bin/noted": ("-rw-r--r--", (0, 0)),
        "bin/second": ("-rwsr-xr-x", (0, 0)),
        "link": ("lrwxrwxrwx", (0, 0)),
        "second link": ("lrwxrwxrwx", (0, 0)),
        "closed": ("dr-x------", (0, 0)),
        "closed/x": ("-r--------", (0, 0)),
    }
    assert tree["bin/second"][3] == tree["bin/su"][3]
    assert tree["second link"][3] == "bin/su"
    assert warnings == (
        "1 × device nodes were left out: making them is not permitted here",
        "1 × extended attributes of the kind 'user' were left out: Operation not supported",
        "2 × hard links became copies: this file system has none",
        "2 × owners were left as they are: changing them is not permitted here",
    )


def test_set_id_bits_do_not_pass_to_an_owner_that_the_image_did_not_mean(tmp_path: Path) -> None:
    tree, _ = unpacked(tmp_path, Limits(owner=(0, 0)))
    assert [tree[name][0] for name in ("bin/su", "bin/other", "bin")] == ["-rwsr-xr-x", "-rwxr-xr-x", "drwxr-xr-x"]


def test_modes_that_cannot_be_set_are_said(tmp_path: Path) -> None:
    _, warnings = unpacked(tmp_path, Limits(modes=False))
    assert "7 × modes were left as they are: this file system keeps none" in warnings
