"""Files on the trusted side: atomic writes, locks, copies, removal of hostile trees."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, Error, Exhausted, InvalidInput, NotFound, Unauthorized
from argosy.linux import files
from support.forked import become_nobody, in_child

if TYPE_CHECKING:
    from pathlib import Path

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")


def test_write_atomic_replaces_the_file_and_leaves_nothing_aside(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_bytes(b"old")
    files.write_atomic(path, b"new", mode=0o640)
    assert (path.read_bytes(), path.stat().st_mode & 0o7777, os.listdir(tmp_path)) == (b"new", 0o640, ["record.json"])


def test_write_atomic_keeps_the_old_file_when_it_fails(tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    with pytest.raises(InvalidInput) as caught:
        files.write_atomic(tmp_path / "there", b"new")
    assert caught.value.code == "is-a-folder"
    assert os.listdir(tmp_path) == ["there"]


def test_write_atomic_takes_a_name_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    files.write_atomic(tmp_path / ("n" * 255), b"x", sync=False)
    assert os.listdir(tmp_path) == ["n" * 255]


def test_create_exclusive_says_whether_it_made_the_file(tmp_path: Path) -> None:
    path = tmp_path / "name"
    assert [files.create_exclusive(path, b"first"), files.create_exclusive(path, b"second")] == [True, False]
    assert (path.read_bytes(), os.listdir(tmp_path)) == (b"first", ["name"])


def test_remove_tree_never_follows_a_link(tmp_path: Path) -> None:
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / "kept").write_text("x")
    inside = tmp_path / "inside"
    (inside / "deep").mkdir(parents=True)
    (inside / "deep" / "link").symlink_to(outside)
    (inside / "to-file").symlink_to(outside / "kept")
    files.remove_tree(inside)
    assert (os.listdir(tmp_path), os.listdir(outside)) == (["outside"], ["kept"])


def test_remove_tree_removes_a_link_or_a_file_itself(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "link").symlink_to("folder")
    (tmp_path / "file").write_text("x")
    for name in ("link", "file", "absent", "no/such/folder"):
        files.remove_tree(tmp_path / name)
    assert os.listdir(tmp_path) == ["folder"]


def test_remove_tree_bears_any_depth(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    top = tmp_path / "top"
    fd = os.open(tmp_path, os.O_RDONLY)
    for name in ["top"] + ["d"] * 3000:
        os.mkdir(name, dir_fd=fd)
        deeper = os.open(name, os.O_RDONLY, dir_fd=fd)
        os.close(fd)
        fd = deeper
    os.close(fd)
    files.remove_tree(top)
    assert os.listdir(tmp_path) == []
    assert len(os.listdir("/proc/self/fd")) == before


@needs_root
def test_remove_tree_opens_folders_of_mode_0000_as_a_plain_user(tmp_path: Path) -> None:
    def as_user() -> list[str]:
        become_nobody()
        modes = {"inner/0": 0, "inner/r/x": 0o500, "inner/r": 0o400, "inner/w": 0o200, "inner/x/w": 0, "inner": 0o100}
        for folder in modes:
            os.makedirs(f"closed/{folder}", exist_ok=True)
            open(f"closed/{folder}/file", "w").close()
        for folder, mode in modes.items():
            os.chmod(f"closed/{folder}", mode)
        files.remove_tree("closed")
        return os.listdir(".")

    shared = tmp_path / "shared"
    shared.mkdir()
    shared.chmod(0o777)

    def there() -> list[str]:
        os.chdir(shared)
        return as_user()

    assert in_child(there) == []


@needs_root
def test_a_user_without_rights_gets_one_error_with_a_hint(tmp_path: Path) -> None:
    def write() -> tuple[str, str, str, str]:
        os.chdir(tmp_path)
        become_nobody()
        try:
            files.write_atomic("file", b"")
        except Unauthorized as error:
            return error.code, error.message, error.context, error.hint
        raise AssertionError("was allowed")

    assert in_child(write) == (
        "permission-denied",
        "cannot write file",
        "Permission denied (EACCES)",
        "check the owner and mode; of a store: name another with --root",
    )


@pytest.mark.parametrize(
    ("number", "kind", "code"),
    [
        (errno.ENOSPC, Exhausted, "disk-full"),
        (errno.EDQUOT, Exhausted, "quota-exceeded"),
        (errno.ENOENT, NotFound, "no-such-file"),
        (errno.EBUSY, Conflict, "busy"),
        (errno.ECHILD, Error, "os-error"),
    ],
)
def test_errors_of_the_kernel_become_ours(number: int, kind: type[Error], code: str) -> None:
    with pytest.raises(kind) as caught, files.reporting("store", "/some/blob"):
        raise OSError(number, os.strerror(number), "/elsewhere")
    assert (type(caught.value), caught.value.code) == (kind, code)
    assert caught.value.message == "cannot store /some/blob"
    assert caught.value.context == f"{os.strerror(number)} ({errno.errorcode[number]})"


def test_a_full_disk_is_reported_as_such() -> None:
    with pytest.raises(Exhausted) as caught, files.reporting("write"), open("/dev/full", "wb", buffering=0) as stream:
        stream.write(b"x")
    assert caught.value.code == "disk-full"
