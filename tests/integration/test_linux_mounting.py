"""Mounts for real, in mount namespaces of forked children."""

from __future__ import annotations

import errno
import os
import struct
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, Error, NotFound, RuntimeFailed
from argosy.linux import features, files, mounts, syscalls, userns
from argosy.linux.mounts import Bind, Erofs, MountPlan, Overlay, Tmpfs
from support.forked import become_nobody, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_SYS_ADMIN)")


def _as_root(action: Callable[[], object]) -> object:
    def inside() -> object:
        mounts.private_namespace()
        return action()

    return in_child(inside)


def _as_user(action: Callable[[], object]) -> object:
    def inside() -> object:
        become_nobody()
        userns.enter_user_namespace(path="", mapping=userns.single_mapping())
        return action()

    return in_child(inside)


def _layers(folder: Path, count: int, prefix: str = "l") -> tuple[str, ...]:
    """Folders that each hold a file of their own and one that all of them have; topmost first."""
    for number in range(count):
        layer = folder / f"{prefix}{number}"
        layer.mkdir(parents=True)
        (layer / f"own{number}").touch()
        (layer / "shared").write_text(str(number))
    for name in ("upper", "work", "target"):
        (folder / name).mkdir(exist_ok=True)
    return tuple(str(folder / f"{prefix}{number}") for number in reversed(range(count)))


def _overlay(folder: Path, lowers: tuple[str, ...], **more: object) -> Overlay:
    parts = {name: str(folder / name) for name in ("upper", "work", "target")}
    return Overlay(lowers=lowers, **parts, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize("count", [1, 2, 127, 400])
def test_hundreds_of_layers_are_laid_over_each_other(tmp_path: Path, count: int) -> None:
    overlay = _overlay(tmp_path, _layers(tmp_path, count))

    def look() -> object:
        with MountPlan(mounts=(overlay,)).mounted():
            names = os.listdir(overlay.target)
            with open(f"{overlay.target}/shared") as shared:
                return len(names), shared.read()

    assert _as_root(look) == (count + 1, str(count - 1))
    assert os.listdir(overlay.target) == []


@pytest.mark.parametrize("name", ["a:b,c\\d e", "ä\udcff", "x" * 250, "a\nb"])
def test_folders_of_any_name_can_be_layers(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    overlay = _overlay(folder, _layers(folder, 3, "deep" * 10))

    def look() -> object:
        overlay.execute()
        names = sorted(os.listdir(overlay.target))
        mounts.unmount(overlay.target)
        with ExitStack() as stack:
            overlay._execute_classic(stack)
        return names == sorted(os.listdir(overlay.target)), names

    assert _as_root(look) == (True, ["own0", "own1", "own2", "shared"])


def test_before_linux_6_8_127_layers_with_long_paths_go_by_descriptor(tmp_path: Path) -> None:
    folder = tmp_path / ("long" * 20)
    overlay = _overlay(folder, _layers(folder, 127))

    def look() -> object:
        with ExitStack() as stack:
            overlay._execute_classic(stack)
        return len(os.listdir(overlay.target))

    assert _as_root(look) == 128


def test_a_user_writes_over_layers_without_being_root(tmp_path: Path) -> None:
    tmp_path.chmod(0o711)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    overlay = _overlay(tmp_path, _layers(tmp_path, 3), userxattr=True)
    for path in [tmp_path, *tmp_path.rglob("*")]:
        os.chown(path, 65534, 65534)

    def change() -> object:
        overlay.execute()
        with open(f"{overlay.target}/shared", "a") as shared:
            shared.write("+")
        os.unlink(f"{overlay.target}/own0")
        return sorted(os.listdir(overlay.target))

    assert _as_user(change) == ["own1", "own2", "shared"]
    assert ((tmp_path / "upper/shared").read_text(), (tmp_path / "l2/shared").read_text()) == ("2+", "2")


def test_an_erofs_index_finds_its_data_in_many_files(tmp_path: Path) -> None:
    """One regular file per device, each 512 bytes; more devices than a page of options could name."""
    count = 60
    folder = tmp_path / ("f" * 200)
    folder.mkdir()
    for number in range(count):
        (folder / f"device{number}").write_bytes(f"data of {number}".encode().ljust(512, b"\0"))
    (folder / "index").write_bytes(_erofs_with_devices(count))
    (folder / "target").mkdir()
    devices = tuple(str(folder / f"device{number}") for number in range(count))
    erofs = Erofs(index=str(folder / "index"), devices=devices, target=str(folder / "target"))

    def look() -> object:
        with MountPlan(mounts=(erofs,)).mounted():
            return os.listdir(erofs.target), os.statvfs(erofs.target).f_flag & os.ST_RDONLY

    assert _as_root(look) == ([], 1)


def _erofs_with_devices(count: int) -> bytes:
    """features' smallest image, with more device slots and its root behind them."""
    image = bytearray(features._empty_erofs())
    root_at, tail = 1280, bytes(image[1280:1344]) + bytes(image[1344:1371])
    new_root = -(-(1152 + 128 * count) // 512) * 512
    image = image[:1152] + bytearray(new_root + 512 - 1152)
    struct.pack_into("<H", image, 1024 + 14, new_root // 32)
    struct.pack_into("<I", image, 1024 + 0x24, len(image) // 512)
    struct.pack_into("<H", image, 1024 + 0x56, count)
    for number in range(count):
        struct.pack_into("<64sII", image, 1152 + 128 * number, b"", 1, 0)
    tail = tail.replace(struct.pack("<Q", root_at // 32), struct.pack("<Q", new_root // 32))
    image[new_root : new_root + len(tail)] = tail
    return bytes(image)


@pytest.mark.parametrize("classic", [False, True], ids=["mount_setattr", "remount"])
def test_a_read_only_bind_refuses_writes_in_a_user_namespace_too(tmp_path: Path, classic: bool) -> None:
    tmp_path.chmod(0o777)
    for parent in list(tmp_path.parents)[:2]:
        parent.chmod(parent.stat().st_mode | 0o011)
    (tmp_path / "source").mkdir(mode=0o777)
    (tmp_path / "source").chmod(0o777)
    (tmp_path / "target").mkdir()
    bind = Bind(source=str(tmp_path / "source"), target=str(tmp_path / "target"), read_only=True, recursive=False)

    def write() -> object:
        if classic:
            mounts._bind_classic(bind)
        else:
            bind.execute()
        open(tmp_path / "source" / "direct", "w").close()
        try:
            open(tmp_path / "target" / "through", "w").close()
        except OSError as error:
            return errno.errorcode[error.errno or 0], os.listdir(tmp_path / "target")
        return "written"

    assert _as_user(write) == ("EROFS", ["direct"])


def test_a_failure_undoes_what_was_mounted_before_it(tmp_path: Path) -> None:
    (tmp_path / "one").mkdir()
    plan = MountPlan(mounts=(Tmpfs(target=str(tmp_path / "one")), Tmpfs(target=str(tmp_path / "absent"))))

    def fail() -> object:
        try:
            plan.execute()
        except NotFound as error:
            return error.code, mounts.mount_points(str(tmp_path))
        return "mounted"

    assert _as_root(fail) == ("mount-path-missing", ())


def test_undo_may_be_repeated_and_takes_mounts_in_use(tmp_path: Path) -> None:
    plan = MountPlan(mounts=(Tmpfs(target=str(tmp_path)),))

    def use() -> object:
        plan.execute()
        with open(tmp_path / "open", "w") as held:
            plan.undo()
            plan.undo()
            held.write("still there")
        return os.listdir(tmp_path)

    assert _as_root(use) == []


def test_what_the_file_system_said_is_part_of_the_error(tmp_path: Path) -> None:
    overlay = _overlay(tmp_path, _layers(tmp_path, 1), options=("no_such_option=1",))

    def refused() -> object:
        try:
            overlay.execute()
        except Error as error:
            return type(error) is RuntimeFailed, error.code, error.context.splitlines()[-1]
        return "mounted"

    assert _as_root(refused) == (True, "mount-failed", "overlay: Unknown parameter 'no_such_option'")


def test_a_file_system_that_cannot_hold_erofs_images_is_named(tmp_path: Path) -> None:
    def refused() -> object:
        Tmpfs(target=str(tmp_path)).execute()
        (tmp_path / "target").mkdir()
        (tmp_path / "index").write_bytes(features._empty_erofs())
        (tmp_path / "device").write_bytes(bytes(512))
        devices = (str(tmp_path / "device"),)
        try:
            Erofs(index=str(tmp_path / "index"), devices=devices, target=str(tmp_path / "target")).execute()
        except Error as error:
            return error.code
        return "mounted"

    assert _as_root(refused) == "no-mounts-from-files"


def test_mounts_die_with_the_process_and_the_host_never_sees_them(tmp_path: Path) -> None:
    before = mounts.mount_points()
    target = tmp_path / "with blank\\and\\040"
    target.mkdir()

    def inside() -> object:
        Tmpfs(target=str(target)).execute()
        return mounts.mount_points(str(tmp_path))

    assert _as_root(inside) == (str(target),)
    assert mounts.mount_points() == before


def test_remove_tree_never_deletes_through_a_mount(tmp_path: Path) -> None:
    """A bind of the same file system has the same device number; only openat2 sees it."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis").touch()
    (tmp_path / "container" / "volume").mkdir(parents=True)

    def remove() -> object:
        Bind(source=str(tmp_path / "home"), target=str(tmp_path / "container" / "volume")).execute()
        try:
            files.remove_tree(tmp_path / "container")
        except Conflict as error:
            return error.code, os.listdir(tmp_path / "home")
        return "removed", os.listdir(tmp_path / "home")

    assert _as_root(remove) == ("mounted", ["thesis"])


def test_the_type_of_a_file_system_is_told(tmp_path: Path) -> None:
    def look() -> object:
        Tmpfs(target=str(tmp_path)).execute()
        return syscalls.statfs_type(tmp_path) == syscalls.TMPFS_MAGIC

    assert _as_root(look) is True
