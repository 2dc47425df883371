"""Which kind of snapshots a store gets, and that it keeps it."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.errors import Conflict, Corrupt, InvalidInput, Unsupported
from argosy.linux.features import Feature, HostFeatures
from argosy.snapshots import choose
from argosy.snapshots.erofs import ErofsSnapshotter
from argosy.snapshots.folders import LayerFolders
from argosy.snapshots.unpacked import UnpackedSnapshotter
from tests.support.archives import archive, diff_id

if TYPE_CHECKING:
    from collections.abc import Callable

YES, NO = Feature(available=True), Feature(available=False, reason="not here")
ROOT = HostFeatures(
    key="",
    cgroup="v2",
    mount=YES,
    user_namespace=YES,
    newuidmap=YES,
    overlay=YES,
    writable_layers=YES,
    overlay_userns=YES,
    overlay_layerwise=YES,
    erofs_file=YES,
    idmapped_mounts=YES,
    openat2=YES,
)
OLD_ROOT = msgspec.structs.replace(ROOT, erofs_file=NO)
USER = msgspec.structs.replace(OLD_ROOT, mount=NO)


@pytest.mark.parametrize(
    ("features", "kind", "recorded"),
    [
        (ROOT, ErofsSnapshotter, "erofs\n"),
        (OLD_ROOT, UnpackedSnapshotter, "unpacked\n"),
        (USER, UnpackedSnapshotter, "unpacked-user\n"),
    ],
    ids=["root", "root, old kernel", "user"],
)
def test_the_best_kind_is_chosen_and_written_down(
    tmp_path: Path, features: HostFeatures, kind: type, recorded: str
) -> None:
    assert type(choose(tmp_path, features)) is kind
    assert (tmp_path / "layers/kind").read_text() == recorded
    assert type(choose(tmp_path, features)) is kind


def test_an_empty_store_changes_its_kind_and_a_full_one_keeps_it(tmp_path: Path) -> None:
    choose(tmp_path, OLD_ROOT)
    snapshotter = choose(tmp_path, ROOT)
    assert snapshotter.kind == "erofs"
    snapshotter.apply(diff_id(archive()), io.BytesIO(archive()))
    for features in (OLD_ROOT, USER):
        with pytest.raises(Conflict) as caught:
            choose(tmp_path, features)
        assert (caught.value.code, str(tmp_path) in caught.value.message) == ("snapshot-kind", True)
    snapshotter.remove(diff_id(archive()))
    assert choose(tmp_path, USER).kind == "unpacked"


def test_a_kind_that_works_is_kept_when_a_better_one_appears(tmp_path: Path) -> None:
    old = choose(tmp_path, ROOT, "unpacked")
    old.apply(diff_id(archive()), io.BytesIO(archive()))
    with pytest.raises(Conflict):
        choose(tmp_path, ROOT, "erofs")
    assert choose(tmp_path, ROOT).kind == "unpacked"


@pytest.mark.parametrize(
    ("features", "kind"), [(OLD_ROOT, "erofs"), (USER, "erofs"), (USER, "unpacked"), (ROOT, "unpacked-user")]
)
def test_a_kind_that_does_not_work_here_is_refused(tmp_path: Path, features: HostFeatures, kind: str) -> None:
    with pytest.raises(Unsupported, match=f"snapshots of the kind '{kind}' do not work here") as caught:
        choose(tmp_path, features, kind)
    assert (caught.value.code, (tmp_path / "layers").exists()) == ("snapshot-kind", False)


def test_unknown_kinds_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="there is no kind of snapshots 'zfs'"):
        choose(tmp_path, ROOT, "zfs")


def test_damaged_facts_are_named(tmp_path: Path) -> None:
    name = diff_id(archive())
    choose(tmp_path, ROOT).apply(name, io.BytesIO(archive()))
    Path(LayerFolders(tmp_path).path(name), "layer.json").write_text("{")
    with pytest.raises(Corrupt) as caught:
        choose(tmp_path, ROOT).usage(name)
    assert caught.value.code == "layer-facts-damaged"


def test_what_is_no_snapshot_is_passed_over(tmp_path: Path) -> None:
    for name in ("sha256/short", f"sha256/{'0' * 64}", f"md5/{'0' * 32}", f"sha256/{'x' * 64}"):
        (tmp_path / "layers" / name).mkdir(parents=True)
    assert list(LayerFolders(tmp_path).walk()) == []


@pytest.mark.parametrize("text", [b"erogs\n", b"", b"\xff\0"])
def test_a_damaged_record_of_the_kind_is_written_anew_by_what_is_there(tmp_path: Path, text: bytes) -> None:
    choose(tmp_path, ROOT).apply(diff_id(archive()), io.BytesIO(archive()))
    (tmp_path / "layers/kind").write_bytes(text)
    with pytest.raises(Conflict, match="are of the kind 'erofs', not 'unpacked'"):
        choose(tmp_path, ROOT, "unpacked")
    assert choose(tmp_path, ROOT).kind == "erofs"
    assert (tmp_path / "layers/kind").read_text() == "erofs\n"


@pytest.mark.parametrize("thing", [Path.mkdir, lambda path: path.symlink_to(path.name)], ids=["folder", "looping link"])
def test_something_else_in_the_place_of_the_record_is_replaced(tmp_path: Path, thing: Callable[[Path], object]) -> None:
    choose(tmp_path, ROOT).apply(diff_id(archive()), io.BytesIO(archive()))
    (tmp_path / "layers/kind").unlink()
    thing(tmp_path / "layers/kind")
    assert choose(tmp_path, ROOT).kind == "erofs"
    assert (tmp_path / "layers/kind").read_text() == "erofs\n"


@pytest.mark.parametrize("kind", ["erofs", "unpacked"])
def test_what_is_left_of_a_layer_is_no_obstacle(tmp_path: Path, kind: str) -> None:
    name, snapshotter = diff_id(archive()), choose(tmp_path, ROOT, kind)
    snapshotter.apply(name, io.BytesIO(archive()))
    os.unlink(f"{LayerFolders(tmp_path).path(name)}/layer.json")
    assert not snapshotter.has(name)
    snapshotter.apply(name, io.BytesIO(archive()))
    assert (snapshotter.has(name), os.listdir(tmp_path / "tmp")) == (True, [])


@pytest.mark.parametrize("name", ["layer.tar", "index.erofs"])
def test_a_layer_without_one_of_its_files_is_damaged_not_absent(tmp_path: Path, name: str) -> None:
    snapshotter = choose(tmp_path, ROOT)
    snapshotter.apply(diff_id(archive()), io.BytesIO(archive()))
    os.unlink(f"{LayerFolders(tmp_path).path(diff_id(archive()))}/{name}")
    (tmp_path / "mounts").mkdir()
    for look in (snapshotter.verify, lambda digest: snapshotter.lowers((digest,), str(tmp_path / "mounts"))):
        with pytest.raises(Corrupt) as caught:
            look(diff_id(archive()))
        assert (caught.value.code, name in caught.value.message) == ("layer-files-missing", True)


def test_a_cut_tar_is_never_mounted(tmp_path: Path) -> None:
    """What is mapped behind the end of a file ends the program with SIGBUS."""
    snapshotter = choose(tmp_path, ROOT)
    snapshotter.apply(diff_id(archive()), io.BytesIO(archive()))
    os.truncate(f"{LayerFolders(tmp_path).path(diff_id(archive()))}/layer.tar", 100)
    with pytest.raises(Corrupt, match=r"layer\.tar is damaged"):
        snapshotter.lowers((diff_id(archive()),), str(tmp_path))
