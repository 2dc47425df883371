"""The contract of snapshots.contract.Snapshotter, for every kind, on real mounts."""

from __future__ import annotations

import io
import os
import signal
import stat
import struct
import subprocess
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, NotFound
from argosy.layer.entry import Entry
from argosy.layer.view import ImageView
from argosy.layer.writer import ArchiveWriter
from tests.support import archives
from tests.support.archives import (
    ESCAPES,
    HOSTILE,
    archive,
    device,
    diff_id,
    file,
    folder,
    hardlink,
    header,
    pax,
    pax_sparse,
    symlink,
)
from tests.support.forked import in_child
from tests.support.layers import applied, looking, merged, snapshotter_of
from tests.support.trees import describe

if TYPE_CHECKING:
    from collections.abc import Callable

    from argosy.snapshots import Snapshotter

GNU_TAR = ("tar", "--xattrs", "--xattrs-include=*", "--numeric-owner")


@pytest.fixture(params=["erofs", "unpacked"])
def snapshotter(request: pytest.FixtureRequest, tmp_path: Path) -> Snapshotter:
    return snapshotter_of(request.param, tmp_path / "store")


@pytest.fixture
def scratch(tmp_path: Path) -> Path:
    return tmp_path / "scratch"


def test_room_is_what_removing_gives_back(snapshotter: Snapshotter, tmp_path: Path) -> None:
    tar = archive(
        folder(b"d"), file(b"d/large", os.urandom(300_000)), file(b"small", b"x"), hardlink(b"again", b"d/large")
    )
    (name,) = applied(snapshotter, tar)
    told = snapshotter.room(name)
    assert told == snapshotter.room(name) > 300_000  # the second time it may be remembered
    [place] = (tmp_path / "store/layers").glob(f"*/{name.hex}")
    assert told == int(subprocess.run(["du", "-s", "-B1", place], capture_output=True, check=True).stdout.split()[0])
    assert snapshotter.touched_ns(name) > 0
    snapshotter.remove(name)
    assert (snapshotter.room(name), snapshotter.touched_ns(name)) == (0, 0)


def test_the_tar_is_given_back_exactly_where_it_is_kept(snapshotter: Snapshotter) -> None:
    tar = archive(file(b"a", b"x" * 5000))
    (name,) = applied(snapshotter, tar)
    stream = snapshotter.open_tar(name)
    if snapshotter.kind != "erofs":
        assert stream is None
        return
    assert stream is not None
    with stream:
        assert stream.read() == tar
    snapshotter.remove(name)
    with pytest.raises(NotFound) as caught:
        snapshotter.open_tar(name)
    assert caught.value.code == "layer-not-unpacked"


def test_a_damaged_snapshot_is_mended_of_the_tar_where_it_is_kept(snapshotter: Snapshotter, tmp_path: Path) -> None:
    (name,) = applied(snapshotter, archive(file(b"a", b"x" * 5000), file(b"implied/b", b"y")))
    [place] = (tmp_path / "store/layers").glob(f"*/{name.hex}")
    if snapshotter.kind != "erofs":
        with pytest.raises(NotFound) as caught:
            snapshotter.mend(name)
        assert caught.value.code == "layer-without-tar"
        return
    whole = {path.name: path.read_bytes() for path in place.iterdir()}
    for damaged in ("index.erofs", "layer.json"):
        (place / damaged).unlink()
        snapshotter.mend(name)
        assert {path.name: path.read_bytes() for path in place.iterdir()} == whole
    snapshotter.verify(name)
    (place / "layer.tar").write_bytes(whole["layer.tar"].replace(b"xx", b"xy", 1))
    (place / "layer.json").unlink()
    with pytest.raises(Corrupt) as spoilt:
        snapshotter.mend(name)
    assert (spoilt.value.code, sorted(path.name for path in place.iterdir())) == (
        "digest-mismatch",
        ["index.erofs", "layer.tar"],
    )
    snapshotter.remove(name)
    with pytest.raises(NotFound):
        snapshotter.mend(name)


def content(tree: dict[str, tuple[object, ...]]) -> dict[str, str]:
    """{path: first letter of its mode}: enough where only presence matters."""
    return {name: str(row[0])[0] for name, row in tree.items()}


# ---- content


def rich_tree(root: Path) -> None:
    """One of everything that a layer can hold."""
    for name in ("a/b", "empty folder", "many", "+first", "usr/lib"):
        (root / name).mkdir(parents=True)
    for number in range(300):
        (root / "many" / f"a file with a rather long name {number}").write_text(str(number))
    (root / "a/b/file").write_bytes(b"x" * 100_001)
    (root / "empty").touch()
    os.link(root / "a/b/file", root / "a/second name")
    os.symlink("t" * 700, root / "long link")
    os.symlink("t" * 1500, root / "longer link")
    os.symlink("../b/file", root / "a/link")
    os.mkfifo(root / "pipe")
    os.mknod(root / "null", stat.S_IFCHR | 0o666, os.makedev(1, 3))
    os.mknod(root / "disk", stat.S_IFBLK | 0o600, os.makedev(8, 300))
    os.symlink("usr/lib", root / "lib")
    (root / os.fsdecode(b"not utf-8 \xff\xfe")).write_text("x")
    (root / ("n" * 255)).write_text("x")
    sparse_files(root)
    os.setxattr(root / "a/b/file", "user.one", b"1")
    os.setxattr(root / "a/b/file", "user.none", b"")
    os.setxattr(root / "a", "user.large", b"v" * 3000)
    os.setxattr(root / "longer link", "trusted.note", b"on a link", follow_symlinks=False)
    capability = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep
    os.setxattr(root / "empty", "security.capability", capability)
    (root / "a/b").chmod(0o1777)
    os.chown(root / "a/second name", 70_000, 3_000_000)
    (root / "a/second name").chmod(0o6755)
    (root / "empty folder").chmod(0o000)
    os.utime(root / "a/b/file", ns=(0, 981_173_106_123_456_789))
    os.utime(root / "empty", ns=(0, 0))
    os.utime(root / "pipe", ns=(0, 4_102_444_800_000_000_001))


def sparse_files(root: Path) -> None:
    """Holes at every sort of place; 5 GiB so that 32 bits do not do."""
    with (root / "sparse").open("wb") as sparse:
        sparse.truncate(5 << 30)
        sparse.seek((5 << 30) // 64 * 7)
        sparse.write(b"data")
    with (root / "odd").open("wb") as odd:
        odd.seek(100_003)
        odd.write(b"odd")
        odd.truncate(300_001)
    with (root / "all hole").open("wb") as hole:
        hole.truncate(1_000_000)


@pytest.mark.parametrize(
    "options",
    [
        pytest.param(("--format=pax", "--exclude=./sparse"), id="pax"),
        pytest.param(("--format=pax", "-S", "--sparse-version=1.0"), id="pax, sparse 1.0"),
        pytest.param(("--format=pax", "-S", "--sparse-version=0.1"), id="pax, sparse 0.1"),
        pytest.param(("--format=pax", "-S", "--sparse-version=0.0"), id="pax, sparse 0.0"),
        pytest.param(("--no-xattrs", "--format=gnu", "-S"), id="gnu"),
    ],
)
def test_layer_looks_as_gnu_tar_unpacks_it(
    snapshotter: Snapshotter, scratch: Path, tmp_path: Path, options: tuple[str, ...]
) -> None:
    source, unpacked = tmp_path / "source", tmp_path / "unpacked"
    source.mkdir()
    unpacked.mkdir()
    rich_tree(source)
    tar = subprocess.run([*GNU_TAR, *options, "-C", source, "-c", "."], check=True, stdout=subprocess.PIPE).stdout
    subprocess.run([*GNU_TAR, "-C", unpacked, "-xp"], input=tar, check=True, stderr=subprocess.DEVNULL)
    assert merged(snapshotter, scratch, tar) == describe(unpacked)


def test_capabilities_are_seen_by_getcap(snapshotter: Snapshotter, scratch: Path) -> None:
    value = bytes.fromhex("0100000200200000000000000000000000000000")
    tar = archive(pax((b"SCHILY.xattr.security.capability", value)), file(b"ping", b"x", mode=0o755))

    def look(root: Path) -> str:
        return subprocess.run(["getcap", root / "ping"], check=True, capture_output=True, text=True).stdout

    assert looking(snapshotter, applied(snapshotter, tar), scratch, look).split()[-1] == "cap_net_raw=ep"


def test_access_lists_are_kept(snapshotter: Snapshotter, scratch: Path) -> None:
    entries = ((0x01, 6, -1), (0x02, 4, 1000), (0x04, 4, -1), (0x10, 4, -1), (0x20, 0, -1))
    acl = struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)
    tar = archive(
        pax((b"SCHILY.xattr.system.posix_acl_access", acl)),
        file(b"f", mode=0o640),
        pax((b"SCHILY.xattr.system.posix_acl_default", acl)),
        folder(b"d"),
        file(b"d/plain", mode=0o644),
    )
    tree = merged(snapshotter, scratch, tar)
    assert {name: (row[0], row[4]) for name, row in tree.items()} == {
        "f": ("-rw-r-----", {"system.posix_acl_access": acl}),
        "d": ("drwxr-xr-x", {"system.posix_acl_default": acl}),
        "d/plain": ("-rw-r--r--", {}),
    }


def test_names_of_all_spellings_mean_the_same_file(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(file(b"/a", b"1"), file(b"./b", b"2"), file(b"c//d/./e", b"3"), folder(b"./"), file(b"b", b"4"))
    assert content(merged(snapshotter, scratch, tar)) == {"a": "-", "b": "-", "c": "d", "c/d": "d", "c/d/e": "-"}


def test_links_have_the_mode_of_links(snapshotter: Snapshotter, scratch: Path) -> None:
    """Archives give them any; Linux knows one."""
    tar = archive(header(b"l", b"2", link=b"x", mode=0o640))
    assert merged(snapshotter, scratch, tar)["l"][0] == "lrwxrwxrwx"


def test_later_entries_win(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(
        folder(b"folder to file"),
        file(b"folder to file/inside"),
        file(b"folder to file", b"now a file"),
        symlink(b"link to folder", b"/etc"),
        folder(b"link to folder", 0o700),
        file(b"link to folder/inside"),
        file(b"file to link", b"x"),
        symlink(b"file to link", b"elsewhere"),
        folder(b"folder", 0o700, uid=5),
        file(b"folder/stays"),
        folder(b"folder", 0o755, uid=6),
        file(b"twice", b"first"),
        hardlink(b"name", b"twice"),
        file(b"twice", b"second"),
    )
    tree = merged(snapshotter, scratch, tar)
    assert {name: (row[0], row[1], row[5]) for name, row in tree.items()} == {
        "folder to file": ("-rw-r--r--", (0, 0), None),
        "link to folder": ("drwx------", (0, 0), None),
        "link to folder/inside": ("-rw-r--r--", (0, 0), None),
        "file to link": ("lrwxrwxrwx", (0, 0), None),
        "folder": ("drwxr-xr-x", (6, 0), None),
        "folder/stays": ("-rw-r--r--", (0, 0), None),
        "twice": ("-rw-r--r--", (0, 0), None),
        "name": ("-rw-r--r--", (0, 0), None),
    }


def test_parents_that_are_links_are_followed_inside_their_layer(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(folder(b"usr/lib"), symlink(b"lib", b"usr/lib"), file(b"lib/x", b"1"), hardlink(b"y", b"lib/x"))
    tree = content(merged(snapshotter, scratch, tar))
    assert tree == {"usr": "d", "usr/lib": "d", "usr/lib/x": "-", "lib": "l", "y": "-"}


def test_folder_over_a_link_of_a_lower_layer_is_a_folder(snapshotter: Snapshotter, scratch: Path) -> None:
    """Layers are unpacked apart, as containerd's overlay snapshotter does; a builder writes usr/lib/x."""
    lower = archive(folder(b"usr/lib"), file(b"usr/lib/old"), symlink(b"lib", b"usr/lib"))
    tree = content(merged(snapshotter, scratch, lower, archive(file(b"lib/x"))))
    assert tree == {"usr": "d", "usr/lib": "d", "usr/lib/old": "-", "lib": "d", "lib/x": "-"}


@pytest.mark.parametrize("tar", ESCAPES.values(), ids=ESCAPES.keys())
def test_no_archive_leaves_its_root(snapshotter: Snapshotter, scratch: Path, tar: bytes) -> None:
    passwd = os.lstat("/etc/passwd")
    merged(snapshotter, scratch, archive(folder(b"etc"), file(b"etc/passwd", b"image")), tar)
    assert not os.path.lexists("/etc/argosy-was-here")
    assert os.lstat("/etc/passwd") == passwd


def test_marks_of_overlayfs_in_an_archive_mean_nothing(snapshotter: Snapshotter, scratch: Path) -> None:
    lower = archive(folder(b"d"), file(b"d/stays"), folder(b"secret"), file(b"secret/x"))
    upper = archive(
        pax((b"SCHILY.xattr.trusted.overlay.opaque", b"y"), (b"SCHILY.xattr.trusted.overlay.redirect", b"/secret")),
        folder(b"d"),
    )
    tree = content(merged(snapshotter, scratch, lower, upper))
    assert tree == {"d": "d", "d/stays": "-", "secret": "d", "secret/x": "-"}


def test_hard_links_between_deep_folders(snapshotter: Snapshotter, scratch: Path) -> None:
    """Deeper than descriptors are kept; a stale one would name some other folder."""
    one, two = b"/".join([b"a"] * 700), b"/".join([b"b"] * 700)
    tar = archive(
        pax((b"path", one + b"/f")),
        file(b"x", b"x"),
        pax((b"path", two + b"/g"), (b"linkpath", one + b"/f")),
        hardlink(b"x", b"x"),
        pax((b"path", two + b"/g"), (b"linkpath", one + b"/f")),
        hardlink(b"x", b"x"),
        pax((b"path", two + b"/h")),
        file(b"x", b"y"),
        pax((b"path", one + b"/f"), (b"linkpath", two + b"/h")),
        hardlink(b"x", b"x"),
    )

    def look(root: Path) -> list[str]:
        places = [os.path.join(root, os.fsdecode(path)) for path in (one + b"/f", two + b"/g", two + b"/h")]
        return [Path(place).read_text() for place in places]

    assert looking(snapshotter, applied(snapshotter, tar), scratch, look) == ["y", "x", "y"]


def test_links_may_take_the_place_of_the_folder_they_came_from(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(folder(b"d"), file(b"d/f", b"x"), hardlink(b"d", b"d/f"))
    tree = merged(snapshotter, scratch, tar)
    assert (content(tree), tree["d"][5]) == ({"d": "-"}, None), "the file has one name only"


# ---- whiteouts


def test_whiteouts_take_lower_files_away(snapshotter: Snapshotter, scratch: Path) -> None:
    lower = archive(folder(b"d"), file(b"d/goes"), file(b"d/stays"), folder(b"tree"), file(b"tree/x"), file(b"top"))
    upper = archive(folder(b"d"), file(b"d/.wh.goes"), file(b".wh.tree"), file(b".wh.top"), file(b".wh.never-was"))
    assert content(merged(snapshotter, scratch, lower, upper)) == {"d": "d", "d/stays": "-"}


def test_opaque_folders_hide_all_that_was_in_them(snapshotter: Snapshotter, scratch: Path) -> None:
    lower = archive(folder(b"d"), file(b"d/old"), folder(b"d/sub"), file(b"d/sub/x"))
    upper = archive(folder(b"d"), file(b"d/new"), file(b"d/.wh..wh..opq"))
    assert content(merged(snapshotter, scratch, lower, upper)) == {"d": "d", "d/new": "-"}


@pytest.mark.parametrize(
    "members",
    [
        (file(b".wh.d"), folder(b"d"), file(b"d/new"), file(b".wh.f"), file(b"f", b"new")),
        (folder(b"d"), file(b"d/new"), file(b".wh.d"), file(b"f", b"new"), file(b".wh.f")),
        (file(b".wh.d"), file(b"d/new"), file(b".wh.f"), file(b"f"), folder(b"f"), file(b"f", b"new")),
        (file(b".wh.d"), file(b"d", b"file"), folder(b"d"), file(b"d/new"), file(b"f", b"new")),
    ],
    ids=["mark first", "mark last", "implied folder", "in between"],
)
def test_whiteouts_spare_what_their_own_layer_brings(
    snapshotter: Snapshotter, scratch: Path, members: tuple[bytes, ...]
) -> None:
    lower = archive(folder(b"d"), file(b"d/old"), file(b"f", b"old"))
    tree = merged(snapshotter, scratch, lower, archive(*members))
    assert content(tree) == {"d": "d", "d/new": "-", "f": "-"}
    assert tree["f"][3] == describe_bytes(b"new")


def describe_bytes(data: bytes) -> tuple[int, str]:
    return len(data), diff_id(data).hex


def test_whiteouts_of_nothing_are_not_listed(snapshotter: Snapshotter, scratch: Path) -> None:
    """overlayfs would show their names in folders that it does not merge, without the mark that they get."""
    tar = archive(
        folder(b"d"),
        file(b"d/.wh.x"),
        file(b"d/y"),
        file(b"implied/.wh.z"),
        folder(b"o"),
        file(b"o/.wh.p"),
        file(b"o/.wh..wh..opq"),
    )
    tree = content(merged(snapshotter, scratch, archive(file(b"below")), tar))
    assert tree == {"below": "-", "d": "d", "d/y": "-", "implied": "d", "o": "d"}


def test_marks_in_what_is_no_folder_any_more_are_passed_over(snapshotter: Snapshotter, scratch: Path) -> None:
    """umoci marks each file of a folder that a file or a link has replaced, and opaque is as good."""
    lower = archive(folder(b"k"), file(b"k/q"), folder(b"l"), file(b"l/q"), folder(b"m"), file(b"m/q"))
    upper = archive(
        *(file(b"k"), file(b"k/.wh.q"), file(b"k/.wh..wh..opq")),
        *(symlink(b"l", b"gone/l"), symlink(b"gone", b"l"), file(b"l/.wh.q")),
        *(file(b"m/.wh.q"), file(b"m")),
    )
    assert content(merged(snapshotter, scratch, lower, upper)) == {"gone": "l", "k": "-", "l": "l", "m": "-"}


def test_leftovers_of_aufs_are_passed_over(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(folder(b".wh..wh.plnk"), file(b".wh..wh.plnk/1.2"), file(b".wh..wh.aufs"), file(b"a"))
    assert content(merged(snapshotter, scratch, tar)) == {"a": "-"}


def test_device_zero_is_a_whiteout(snapshotter: Snapshotter, scratch: Path) -> None:
    upper = archive(device(b"f", b"3", 0, 0))
    assert content(merged(snapshotter, scratch, archive(file(b"f"), file(b"g")), upper)) == {"g": "-"}


# ---- stacks


def test_folders_that_a_layer_only_uses_look_as_below(snapshotter: Snapshotter, scratch: Path) -> None:
    lower = archive(
        pax((b"SCHILY.xattr.user.note", b"kept"), (b"mtime", b"5.25")),
        folder(b"tmp", 0o1777, uid=7, gid=8),
        folder(b"tmp/deep", 0o700, mtime=9),
        folder(b"home", 0o750, mtime=1),
        folder(b"home/user", 0o700, uid=1000, mtime=2),
    )
    middle = archive(file(b"tmp/deep/x"), folder(b"gone", 0o700, mtime=1))
    upper = archive(
        folder(b"home", 0o711, mtime=3), file(b"home/user/y"), file(b"tmp/z"), file(b"new/w"), file(b"gone/v")
    )
    tree = merged(snapshotter, scratch, lower, middle, archive(file(b".wh.gone")), upper)
    folders = {name: (row[0], row[1], row[2], row[4]) for name, row in tree.items() if str(row[0])[0] == "d"}
    second = 1_000_000_000
    assert folders == {
        "tmp": ("drwxrwxrwt", (7, 8), 5 * second + second // 4, {"user.note": b"kept"}),
        "tmp/deep": ("drwx------", (0, 0), 9 * second, {}),
        "home": ("drwx--x--x", (0, 0), 3 * second, {}),
        "home/user": ("drwx------", (1000, 0), 2 * second, {}),
        "new": ("drwxr-xr-x", (0, 0), 0, {}),
        "gone": ("drwxr-xr-x", (0, 0), 0, {}),
    }


def test_an_emptied_folder_stays_and_what_was_in_it_is_new(snapshotter: Snapshotter, scratch: Path) -> None:
    """A mark of opacity takes what is in the folder away, not how the folder looks."""
    lower = archive(folder(b"d", 0o700, mtime=1), folder(b"d/e", 0o711, mtime=2), folder(b"f", 0o700, mtime=3))
    emptied = archive(file(b"d/.wh..wh..opq"), file(b"d/e/x"), file(b"f/.wh..wh..opq"))
    tree = merged(snapshotter, scratch, lower, emptied, archive(file(b"f/y")))
    assert {name: (row[0], row[2]) for name, row in tree.items() if str(row[0])[0] == "d"} == {
        "d": ("drwx------", 1_000_000_000),
        "d/e": ("drwxr-xr-x", 0),
        "f": ("drwx------", 3_000_000_000),
    }


def test_a_hundred_and_thirty_layers(snapshotter: Snapshotter, scratch: Path) -> None:
    tars = [archive(file(b"layer-%03d" % number), file(b"top", b"%d" % number)) for number in range(130)]
    tree = merged(snapshotter, scratch, *tars)
    assert content(tree) == {**{f"layer-{number:03d}": "-" for number in range(130)}, "top": "-"}
    assert tree["top"][3] == describe_bytes(b"129")


def test_a_layer_listed_twice_counts_at_its_upper_place(snapshotter: Snapshotter, scratch: Path) -> None:
    first, second = archive(file(b"f", b"1"), file(b"g", b"1")), archive(file(b"f", b"2"), file(b".wh.g"), file(b"h"))
    tree = merged(snapshotter, scratch, first, second, first)
    assert content(tree) == {"f": "-", "g": "-", "h": "-"}
    assert tree["f"][3] == describe_bytes(b"1")


def test_layers_without_entries(snapshotter: Snapshotter, scratch: Path) -> None:
    """Docker's layer of a metadata-only step is two blocks of zeros; some builders write no byte at all."""
    assert content(merged(snapshotter, scratch, archive(file(b"a")), archive(), b"")) == {"a": "-"}


def test_writes_go_to_the_upper_folder(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(folder(b"d"), file(b"d/f", b"image"), file(b"d/gone"))

    def change(root: Path) -> None:
        (root / "d/f").write_text("changed")
        (root / "d/gone").unlink()
        (root / "new").write_text("new")

    diff_ids = applied(snapshotter, tar)
    looking(snapshotter, diff_ids, scratch, change)
    assert sorted(path.relative_to(scratch / "upper").as_posix() for path in (scratch / "upper").rglob("*")) == [
        "d",
        "d/f",
        "d/gone",
        "new",
    ]
    fresh = scratch.with_name("fresh")
    assert looking(snapshotter, diff_ids, fresh, lambda root: (root / "d/f").read_text()) == "image"


# ---- contents; that they are what a mount shows is tested wherever `merged` is


def test_contents_are_what_the_layer_itself_says(snapshotter: Snapshotter) -> None:
    tar = archive(
        folder(b"d", 0o700, uid=3, mtime=1),
        file(b"d/.wh.gone"),
        file(b"d/.wh..wh..opq"),
        file(b"d/f", b"x" * 700, mode=0o4755, uid=7, gid=8, mtime=9),
        hardlink(b"g", b"d/f"),
        file(b"implied/empty"),
        symlink(b"l", b"d/f"),
    )
    (name,) = applied(snapshotter, tar)
    with snapshotter.contents(name) as layer:
        root = layer.children(layer.root)
        d, implied = layer.children(root[b"d"]), layer.children(root[b"implied"])
        assert {(path, node.kind) for path, node in (root | d | implied).items()} == {
            *((b"d", "folder"), (b"g", "file"), (b"implied", "folder"), (b"l", "symlink")),
            *((b"f", "file"), (b"gone", "whiteout"), (b"empty", "file")),
        }
        assert (root[b"d"].opaque, root[b"d"].implied, root[b"implied"].opaque, root[b"implied"].implied) == (
            *(True, False),
            *(False, True),
        )
        f = d[b"f"]
        assert (f.inode, f.links, f.size, f.stored) == (root[b"g"].inode, 2, 700, 700)
        assert (f.mode, f.uid, f.gid, f.mtime_ns) == (0o4755, 7, 8, 9_000_000_000)
        assert (root[b"l"].target, root[b"l"].links, implied[b"empty"].size) == (b"d/f", 1, 0)


def test_contents_give_any_part_of_a_file(snapshotter: Snapshotter) -> None:
    data = bytes(range(256)) * 8
    tar = archive(file(b"f", data), file(b"other", b"o" * 512), pax_sparse(b"s", 5000, (1000, data[:1500])))
    (name,) = applied(snapshotter, tar)
    sparse = bytes(1000) + data[:1500] + bytes(2500)
    with snapshotter.contents(name) as layer:
        nodes = layer.children(layer.root)
        for path, whole in ((b"f", data), (b"s", sparse)):
            for offset, size in ((0, 9999), (0, 0), (511, 2), (900, 200), (2400, 1000), (len(whole), 5), (9999, 5)):
                assert layer.read(nodes[path], offset, size) == whole[offset : offset + size], (path, offset, size)
        assert nodes[b"s"].size == 5000
        assert 1500 <= nodes[b"s"].stored <= 5000


def test_contents_reach_deeper_than_a_path_may_be_long(snapshotter: Snapshotter) -> None:
    """By way of a link an archive names places whose whole path the kernel would refuse."""
    deep = b"/".join([b"a" * 200] * 15)
    tar = archive(
        pax((b"path", deep)),
        folder(b"x"),
        pax((b"linkpath", deep)),
        symlink(b"l", b"x"),
        pax((b"path", b"l/" + deep + b"/f")),
        file(b"x", b"found"),
    )
    (name,) = applied(snapshotter, tar)
    with snapshotter.contents(name) as layer:
        view = ImageView([layer])
        path = deep + b"/" + deep + b"/f"
        place = view.find(path)
        assert place is not None
        assert view.read(place, 0, 100) == b"found"
        assert path in [found for found, _ in view.walk()]


# ---- life-cycle


def test_snapshot_exists_from_apply_to_remove(snapshotter: Snapshotter) -> None:
    tar = archive(file(b"a", b"x" * 1000))
    name = diff_id(tar)
    assert (snapshotter.has(name), list(snapshotter.walk())) == (False, [])
    snapshotter.apply(name, io.BytesIO(tar))
    snapshotter.apply(name, io.BytesIO(b"not read, because it is there"))
    assert (snapshotter.has(name), list(snapshotter.walk()), snapshotter.usage(name)) == (True, [name], len(tar))
    snapshotter.remove(name)
    snapshotter.remove(name)
    assert (snapshotter.has(name), list(snapshotter.walk())) == (False, [])


def test_absent_layers_are_not_found(snapshotter: Snapshotter, tmp_path: Path) -> None:
    name = diff_id(b"nothing")
    asks: tuple[Callable[[], object], ...] = (
        lambda: snapshotter.usage(name),
        lambda: snapshotter.verify(name),
        lambda: snapshotter.lowers((name,), tmp_path),
        lambda: snapshotter.contents(name),
    )
    for ask in asks:
        with pytest.raises(NotFound) as caught:
            ask()
        assert caught.value.code == "layer-not-unpacked"


def test_verify_passes_what_apply_made(snapshotter: Snapshotter) -> None:
    tar = archive(folder(b"d"), file(b"d/f", b"x" * 1000), file(b"e/.wh.g"))
    (name,) = applied(snapshotter, tar)
    snapshotter.verify(name)


@pytest.mark.parametrize(
    ("damaged", "code"), [("layer.tar", "digest-mismatch"), ("index.erofs", "layer-index-damaged")]
)
def test_verify_finds_damage_where_the_kind_can_tell(tmp_path: Path, damaged: str, code: str) -> None:
    snapshotter = snapshotter_of("erofs", tmp_path / "store")
    (name,) = applied(snapshotter, archive(file(b"f", b"x" * 1000)))
    with (tmp_path / "store/layers" / name.algorithm / name.hex / damaged).open("r+b") as opened:
        opened.seek(1300)
        opened.write(b"!")
    with pytest.raises(Corrupt) as caught:
        snapshotter.verify(name)
    assert caught.value.code == code


def test_removed_layers_stay_readable_where_mounted(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(file(b"a", b"x" * 100_000))
    diff_ids = applied(snapshotter, tar)

    def look(root: Path) -> int:
        with (root / "a").open("rb") as opened:
            snapshotter.remove(diff_ids[0])
            return len(opened.read())

    assert looking(snapshotter, diff_ids, scratch, look) == 100_000


def assert_nothing_left(snapshotter: Snapshotter, store: Path) -> None:
    assert list(snapshotter.walk()) == []
    assert os.listdir(store / "tmp") == []


def test_wrong_digest_leaves_nothing(snapshotter: Snapshotter, tmp_path: Path) -> None:
    tar = archive(file(b"a", b"one"))
    with pytest.raises(Corrupt) as caught:
        snapshotter.apply(diff_id(tar), io.BytesIO(archive(file(b"a", b"two"))))
    assert (caught.value.code, str(diff_id(tar)) in caught.value.message) == ("digest-mismatch", True)
    assert_nothing_left(snapshotter, tmp_path / "store")


def test_bytes_behind_the_end_count_for_the_digest(snapshotter: Snapshotter, tmp_path: Path) -> None:
    tar = archive(file(b"a"))
    with pytest.raises(Corrupt):
        snapshotter.apply(diff_id(tar), io.BytesIO(tar + bytes(512)))
    assert_nothing_left(snapshotter, tmp_path / "store")
    applied(snapshotter, tar + bytes(8192))


@pytest.mark.parametrize("hostile", HOSTILE, ids=lambda hostile: hostile.what)
def test_hostile_archives_are_refused_and_leave_nothing(
    snapshotter: Snapshotter, tmp_path: Path, hostile: archives.Hostile
) -> None:
    with pytest.raises(Corrupt) as caught:
        snapshotter.apply(diff_id(hostile.tar), io.BytesIO(hostile.tar))
    assert caught.value.code == hostile.code
    assert_nothing_left(snapshotter, tmp_path / "store")


def test_every_truncation_is_refused(snapshotter: Snapshotter, tmp_path: Path) -> None:
    tar = archive(folder(b"d"), file(b"d/f", b"x" * 1300), pax((b"mtime", b"1.5")), file(b"g"), symlink(b"l", b"d"))
    for part in archives.truncations(tar):
        with pytest.raises(Corrupt) as caught:
            snapshotter.apply(diff_id(tar), io.BytesIO(part))
        assert caught.value.code in ("digest-mismatch", "archive-truncated")
    assert_nothing_left(snapshotter, tmp_path / "store")


def test_two_at_once_both_succeed(snapshotter: Snapshotter, scratch: Path, tmp_path: Path) -> None:
    tar = archive(*[file(b"f%d" % number, b"x" * 600) for number in range(300)])
    failures: list[BaseException] = []

    def work() -> None:
        try:
            snapshotter.apply(diff_id(tar), archives.Chunked(tar, 700))  # type: ignore[arg-type]
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    in_child(lambda: snapshotter.apply(diff_id(tar), io.BytesIO(tar)))
    for thread in threads:
        thread.join()
    assert (failures, os.listdir(tmp_path / "store/tmp")) == ([], [])
    assert len(merged(snapshotter, scratch, tar)) == 300


def test_killed_while_applying_leaves_no_snapshot(snapshotter: Snapshotter, scratch: Path) -> None:
    tar = archive(*[file(b"f%d" % number, b"x" * 600) for number in range(100)])

    class Dying(io.BytesIO):
        def read(self, count: int | None = -1) -> bytes:
            if self.tell() > len(tar) // 2:
                os.kill(os.getpid(), signal.SIGKILL)
            return super().read(4096)

    pid = os.fork()
    if pid == 0:
        snapshotter.apply(diff_id(tar), Dying(tar))
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
    assert not snapshotter.has(diff_id(tar))
    assert len(merged(snapshotter, scratch, tar)) == 100


def test_snapshots_are_closed_to_others(snapshotter: Snapshotter, tmp_path: Path) -> None:
    """Images hold set-uid programs and private keys; only what is mounted for a container may be seen."""
    tar = archive(file(b"su", b"x", mode=0o4755))
    (name,) = applied(snapshotter, tar)
    found = os.stat(tmp_path / "store/layers" / name.algorithm / name.hex)
    assert stat.S_IMODE(found.st_mode) == 0o700


def test_our_writers_archives_come_back(snapshotter: Snapshotter, scratch: Path) -> None:
    out = io.BytesIO()
    with ArchiveWriter(out) as writer:
        writer.add(Entry(path=b"d" * 200 + b"/" + b"e" * 150, kind="file", size=3, mtime_ns=-1, uid=3 << 20), b"abc")
        writer.add(Entry(path=b"\xff", kind="symlink", linkname=b"\xfe" * 300))
    tree = merged(snapshotter, scratch, out.getvalue())
    assert (tree["d" * 200 + "/" + "e" * 150][1:4], tree["\udcff"][3]) == (
        ((3 << 20, 0), -1, describe_bytes(b"abc")),
        "\udcfe" * 300,
    )


def test_headers_of_all_ages(snapshotter: Snapshotter, scratch: Path) -> None:
    v7 = archives.checked(header(b"old/")[:156] + b"\0" + bytes(100) + bytes(255))
    tar = archive(v7, header(b"f", magic=b"ustar  \0", mtime=1 << 34), header(b"name", prefix=b"in/prefix", mtime=-5))
    tree = merged(snapshotter, scratch, tar)
    assert {name: row[2] for name, row in tree.items() if name in ("f", "in/prefix/name")} == {
        "f": (1 << 34) * 10**9 if (1 << 34) * 10**9 < 1 << 63 else (1 << 63) - 1,
        "in/prefix/name": -5 * 10**9,
    }
    assert content(tree) == {"old": "d", "f": "-", "in": "d", "in/prefix": "d", "in/prefix/name": "-"}
