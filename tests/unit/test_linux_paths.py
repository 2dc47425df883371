"""Paths beneath a hostile root; every case runs with openat2 and with the walk by components."""

from __future__ import annotations

import errno
import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput
from argosy.linux import paths

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(params=["openat2", "walk"], autouse=True)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setattr(paths, "_has_openat2", None if request.param == "openat2" else False)
    return str(request.param)


@pytest.fixture
def root_fd(tmp_path: Path) -> Iterator[int]:
    """A root whose links try all ways out; a file «secret» lies beside the root."""
    (tmp_path / "secret").write_text("outside")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "usr" / "lib").mkdir(parents=True)
    (root / "secret").write_text("inside")
    (root / "etc" / "file").write_text("content")
    links = {
        "absolute": "/secret",
        "climbing": "../../../../../../secret",
        "lib": "usr/lib",
        "etc/up": "..",
        "loop": "loop",
        "dangling": "/var/none",
        "magic": "/proc/self/root/etc",
        "through": "etc/up/etc/../etc/file",
        "to-folder": "etc",
    }
    for name, target in links.items():
        (root / name).symlink_to(target)
    fd = paths.open_root(root)
    yield fd
    os.close(fd)


def _read(root_fd: int, path: str) -> str:
    return paths.read_file_in_root(root_fd, path, 1000).decode()


@pytest.mark.parametrize(
    ("path", "content"),
    [
        ("secret", "inside"),
        ("/secret", "inside"),
        ("../../secret", "inside"),
        ("etc/../../secret", "inside"),
        ("absolute", "inside"),
        ("climbing", "inside"),
        ("etc/up/secret", "inside"),
        ("etc/up/absolute", "inside"),
        ("through", "content"),
        ("to-folder/file", "content"),
        ("./etc//./file", "content"),
    ],
)
def test_links_are_followed_but_never_leave_the_root(root_fd: int, path: str, content: str) -> None:
    assert _read(root_fd, path) == content


@pytest.mark.parametrize(
    ("path", "number"),
    [
        ("loop", errno.ELOOP),
        ("dangling", errno.ENOENT),
        ("magic", errno.ENOENT),
        ("etc/file/more", errno.ENOTDIR),
        ("etc/file/..", errno.ENOTDIR),
        ("etc/file/", errno.ENOTDIR),
        ("none/..", errno.ENOENT),
        ("nul\0byte", None),
    ],
)
def test_what_cannot_be_opened_says_so_as_the_kernel_does(root_fd: int, path: str, number: int | None) -> None:
    with pytest.raises(ValueError if number is None else OSError) as caught:
        paths.open_in_root(root_fd, path, os.O_RDONLY)
    if isinstance(caught.value, OSError):
        assert (caught.value.errno, caught.value.filename) == (number, path)


@pytest.mark.parametrize(
    ("path", "flags", "number"),
    [
        ("etc/file", os.O_RDONLY, None),
        ("etc/../etc/file", os.O_RDONLY, None),
        ("lib", os.O_RDONLY, errno.ELOOP),
        ("lib/x", os.O_RDONLY, errno.ELOOP),
        ("lib", os.O_PATH | os.O_NOFOLLOW, None),
        ("../secret", os.O_RDONLY, errno.EXDEV),
        ("/etc/file", os.O_RDONLY, errno.EXDEV),
    ],
)
def test_open_beneath_nofollow_refuses_every_link_and_every_way_up(
    root_fd: int, path: str, flags: int, number: int | None
) -> None:
    try:
        os.close(paths.open_beneath_nofollow(root_fd, path, flags))
        got = None
    except OSError as error:
        got = error.errno
    assert got == number


def test_exists_tells_dangling_links_and_loops(root_fd: int) -> None:
    names = ("etc", "lib", "dangling", "loop", "none", "secret/x")
    assert {name: paths.exists(root_fd, name) for name in names} == {
        "etc": True,
        "lib": True,
        "dangling": False,
        "loop": False,
        "none": False,
        "secret/x": False,
    }


def test_readlink_and_lstat_take_the_link_itself(root_fd: int) -> None:
    assert paths.readlink(root_fd, "etc/up/absolute") == "/secret"
    assert paths.lstat_in_root(root_fd, "dangling").st_size == len("/var/none")
    with pytest.raises(OSError, match="Invalid argument"):
        paths.readlink(root_fd, "secret")


def test_list_in_root_is_sorted_and_keeps_odd_bytes(root_fd: int, tmp_path: Path) -> None:
    (tmp_path / "root" / "odd").mkdir()
    for name in (b"b\xff", b"a"):
        (tmp_path / "root" / "odd" / os.fsdecode(name)).touch()
    assert [os.fsencode(name) for name in paths.list_in_root(root_fd, "/odd")] == [b"a", b"b\xff"]


def test_read_file_in_root_takes_regular_files_up_to_a_limit(root_fd: int, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "root" / "pipe")
    codes = []
    for path, limit in (("etc/file", 6), ("pipe", 100), ("etc", 100)):
        with pytest.raises(InvalidInput) as caught:
            paths.read_file_in_root(root_fd, path, limit)
        codes.append(caught.value.code)
    assert codes == ["file-too-large", "not-a-regular-file", "not-a-regular-file"]
    assert paths.read_file_in_root(root_fd, "etc/file", 7) == b"content"


def test_make_folders_follows_links_inside_and_makes_what_they_point_at(root_fd: int, tmp_path: Path) -> None:
    umask = os.umask(0o077)
    for path in ("lib/a/b", "dangling/c", "climbing-out/../x", "/etc/file-folder", "lib/a/b"):
        os.close(paths.make_folders(root_fd, path, 0o751))
    os.umask(umask)
    root = tmp_path / "root"
    made = {str(path.relative_to(root)) for path in root.rglob("*") if path.lstat().st_mode == 0o40751}
    assert made == {"usr/lib/a", "usr/lib/a/b", "var", "var/none", "var/none/c", "x", "climbing-out", "etc/file-folder"}
    assert sorted(os.listdir(tmp_path)) == ["root", "secret"]


def test_make_folders_refuses_a_file_in_the_way(root_fd: int) -> None:
    with pytest.raises(NotADirectoryError):
        paths.make_folders(root_fd, "etc/file/x")


def test_files_and_links_are_put_in_place_of_what_is_there(root_fd: int, tmp_path: Path) -> None:
    paths.write_file_in_root(root_fd, "/absolute", b"new", 0o640)
    paths.write_file_in_root(root_fd, "lib/deep/file", b"deep")
    paths.symlink_in_root(root_fd, "libx.so.1", "lib/libx.so")
    paths.symlink_in_root(root_fd, "libx.so.2", "lib/libx.so")
    root = tmp_path / "root"
    assert (root / "absolute").read_bytes() == b"new"
    assert ((root / "absolute").stat().st_mode & 0o7777, (root / "absolute").is_symlink()) == (0o640, False)
    assert (root / "secret").read_text() == "inside"
    assert ((root / "usr/lib/deep/file").read_bytes(), os.readlink(root / "usr/lib/libx.so")) == (b"deep", "libx.so.2")


@pytest.mark.parametrize("path", ["/", "", "etc/..", "."])
def test_a_path_without_a_last_name_cannot_be_written(root_fd: int, path: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        paths.write_file_in_root(root_fd, path, b"")
    assert caught.value.code == "path-without-name"


@pytest.mark.parametrize("flags", [os.O_WRONLY | os.O_CREAT | os.O_EXCL, os.O_WRONLY | os.O_CREAT])
def test_creating_through_a_link_stays_inside(root_fd: int, tmp_path: Path, flags: int) -> None:
    (tmp_path / "root" / "out").symlink_to("/etc/../../new")
    try:
        os.close(paths.open_in_root(root_fd, "out", flags, 0o600))
        made = True
    except FileExistsError:
        made = False
    assert made != bool(flags & os.O_EXCL)
    assert ((tmp_path / "root" / "new").exists(), (tmp_path / "new").exists()) == (made, False)


def test_no_descriptor_is_left_open(root_fd: int) -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    for path in ("through", "loop", "dangling", "etc/file/x", "lib"):
        paths.exists(root_fd, path)
    os.close(paths.make_folders(root_fd, "a/b/c"))
    assert sorted(os.listdir("/proc/self/fd")) == before
