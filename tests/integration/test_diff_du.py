"""diff and du as a user types them, on real images, compared with what a mount shows."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import zipfile
from typing import TYPE_CHECKING, Any

import pytest

from argosy.linux.features import probe
from argosy.oci.platform import Platform
from argosy.snapshots import choose
from support.archives import archive, file, folder, hardlink, pax_sparse, symlink
from support.busybox import busybox_image
from support.images import image_of
from support.layers import looking
from support.stores import Program, argosy, load_image
from support.users import User, can_have_ranges

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.snapshots import Snapshotter

SITE = "usr/local/lib/python3.11/site-packages"
BASE = archive(
    folder(b"etc"),
    file(b"etc/motd", b"hello\n"),
    file(b"etc/kept", b"k" * 100),
    folder(b"usr"),
    folder(b"usr/bin", 0o755, mtime=5),
    file(b"usr/bin/perl", b"p" * 4000),
    hardlink(b"usr/bin/perl5", b"usr/bin/perl"),
    folder(b"data"),
    *[file(b"data/%d" % number, b"d" * 1000) for number in range(5)],
)
TOP = archive(
    file(b"etc/motd", b"hello, world\n"),
    file(b"usr/bin/.wh.perl5"),
    file(b"data/.wh..wh..opq"),
    file(b"data/new", b"n" * 2500),
    folder(b"usr/bin", 0o700, mtime=9),
    symlink(b"link", b"etc/motd"),
    pax_sparse(b"sparse", 1 << 20, (512, b"s" * 512)),
)


@pytest.fixture
def store(tmp_path: Path) -> Program:
    program = Program(tmp_path / "store")
    load_image(program.root, image_of(tmp_path / "one", (BASE,)), "one:1")
    load_image(program.root, image_of(tmp_path / "two", (BASE, TOP)), "two:1")
    return program


def snapshotter_of(program: Program) -> Snapshotter:
    return choose(program.root, probe(folder=str(program.root), path=os.environ["PATH"]))


def difference(program: Program, *words: str) -> dict[str, Any]:  # Any: JSON
    return json.loads(program("diff", "--format", "json", *words))  # type: ignore[no-any-return]


def test_a_difference_has_every_path_with_sizes_and_layers(store: Program) -> None:
    found = difference(store, "one:1", "two:1")
    assert [(row["Kind"], row["Path"], row["Growth"], row["Aspects"]) for row in found["Paths"]] == [
        *(("D", f"/data/{number}", -1000, []) for number in range(5)),
        ("A", "/data/new", 2500, []),
        ("C", "/etc/motd", 7, ["size"]),
        ("A", "/link", 0, []),
        ("A", "/sparse", 512, []),
        ("C", "/usr/bin", 0, ["mode", "time"]),
        ("D", "/usr/bin/perl5", -4000, []),
    ]
    assert found["Totals"] == {"Came": 3, "Gone": 6, "Changed": 2, "Growth": 2500 + 7 + 512 - 5000 - 4000}
    assert [(row["Side"], row["Number"], row["Came"], row["Gone"], row["Changed"]) for row in found["Layers"]] == [
        ("both", 1, 0, 6, 0),
        ("after", 2, 3, 0, 2),
    ]
    assert {row["LayerAfter"] for row in found["Paths"] if row["Kind"] != "D"} == {2}
    back = difference(store, "two:1", "one:1")
    opposite = {"A": "D", "D": "A", "C": "C"}
    assert [(opposite[row["Kind"]], row["Path"], -row["Growth"]) for row in back["Paths"]] == [
        (row["Kind"], row["Path"], row["Growth"]) for row in found["Paths"]
    ]


def test_an_image_does_not_differ_from_itself(store: Program, tmp_path: Path) -> None:
    config = store("images", "--no-trunc", "-q", "one:1")
    assert store("diff", "one:1", "one:1") == f"no difference: both are {config}"
    load_image(store.root, image_of(tmp_path / "three", (BASE,), Env=["A=B"]), "three:1")
    assert store("diff", "one:1", "three:1") == (
        "no difference in files; what else the images say: argosy inspect one:1 three:1"
    )


def test_only_bytes_tell_whether_files_of_one_size_and_time_differ(store: Program, tmp_path: Path) -> None:
    """Images that are built again the same way have one time in all files, or other times in equal files."""
    again = archive(
        *(file(b"same size", b"one"), file(b"same", b"x", mtime=1), file(b"touched", b"t", mtime=1), file(b"b", b"1"))
    )
    later = archive(
        *(file(b"same size", b"two"), file(b"same", b"x", mtime=1), file(b"touched", b"t", mtime=2), file(b"b", b"22"))
    )
    for name, tar in (("a", again), ("b", later)):
        load_image(store.root, image_of(tmp_path / name, (tar,)), f"{name}:1")
    found = difference(store, "a:1", "b:1")
    assert [(row["Path"], row["Aspects"]) for row in found["Paths"]] == [("/b", ["size"]), ("/touched", ["time"])]
    assert found["Assumed"] == 2
    exact = difference(store, "--contents", "a:1", "b:1")
    assert [(row["Path"], row["Aspects"]) for row in exact["Paths"]] == [("/b", ["size"]), ("/same size", ["content"])]
    assert exact["Assumed"] == 0
    assert store("diff", "a:1", "b:1").splitlines()[-3:] == [
        "0 paths came, 0 went, 2 changed: +1B",
        "1 of the changed have another time alone: --contents compares their bytes",
        "2 files of equal size and time were taken as equal: --contents compares their bytes",
    ]


# ---- packages


def installed_wheels(folder: Path, **versions: str) -> bytes:
    """A layer into which pip has installed wheels; each holds a module that grows with its version.

    Their names are in no index, since a constraint of the machine's pip would count.
    """
    target = folder / SITE
    wheels = [str(wheel(folder, name, version)) for name, version in versions.items()]
    command = [
        sys.executable,
        "-m",
        "pip",
        "--isolated",
        "install",
        "-q",
        "--no-index",
        "--no-deps",
        "--target",
        target,
        *wheels,
    ]
    subprocess.run(command, check=True)
    found = sorted(path for path in target.rglob("*") if path.is_file())
    tar = archive(*[file(os.fsencode(path.relative_to(folder)), path.read_bytes()) for path in found])
    shutil.rmtree(target)
    return tar


def wheel(folder: Path, name: str, version: str) -> Path:
    info = f"{name}-{version}.dist-info"
    files = {
        f"{name}/__init__.py": f"version = '{version}'\n" + "#" * 1000 * int(version.partition(".")[0]) + "\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n\nA description\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    files[f"{info}/RECORD"] = "".join(f"{path},,\n" for path in (*files, f"{info}/RECORD"))
    made = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(made, "w") as archive_file:
        for path, text in files.items():
            archive_file.writestr(path, text)
    return made


def dpkg(**versions: str) -> bytes:
    """A layer with dpkg's database and a file of each package, as large as its version says."""
    members = [
        file(
            b"var/lib/dpkg/status",
            "\n".join(
                f"Package: {name}\nStatus: install ok installed\nVersion: {version}\n"
                for name, version in versions.items()
            ).encode(),
        )
    ]
    for name, version in versions.items():
        place = f"usr/lib/{name}.so".encode()
        members += [
            file(f"var/lib/dpkg/info/{name}.list".encode(), b"/.\n/usr\n/" + place + b"\n"),
            file(place, b"x" * 10_000 * int(version)),
        ]
    return archive(*members)


def test_packages_that_came_went_and_changed_are_named(tmp_path: Path) -> None:
    store = Program(tmp_path / "store")
    old = (BASE, dpkg(libc="5", vim="3", bash="7"), installed_wheels(tmp_path, granite="1.0", ember="2.4", slate="1"))
    new = (BASE, dpkg(libc="6", bash="7", jq="1"), installed_wheels(tmp_path, granite="1.0", ember="3.0", opal="1"))
    load_image(store.root, image_of(tmp_path / "old", old), "old:1")
    load_image(store.root, image_of(tmp_path / "new", new), "new:1")
    rows = difference(store, "--packages", "old:1", "new:1")["Packages"]
    assert {(row["Kind"], row["Name"], row["Before"], row["After"]) for row in rows} == {
        ("deb", "libc", "5", "6"),
        ("deb", "vim", "3", ""),
        ("deb", "jq", "", "1"),
        ("wheel", "ember", "2.4", "3.0"),
        ("wheel", "slate", "1", ""),
        ("wheel", "opal", "", "1"),
    }
    growth = {row["Name"]: row["Growth"] for row in rows}
    assert {name: growth[name] for name in ("libc", "vim", "jq")} == {"libc": 10_000, "vim": -30_000, "jq": 10_000}
    assert 1000 <= growth["ember"] < 1200  # the module; its compiled form and metadata differ by a little
    assert [abs(row["Growth"]) for row in rows] == sorted((abs(row["Growth"]) for row in rows), reverse=True)
    text = store("diff", "--packages", "old:1", "new:1").splitlines()
    assert text[0].split() == ["PACKAGE", "KIND", "BEFORE", "AFTER", "SIZE"]
    assert ["libc", "deb", "5", "6", "+10kB"] in [line.split() for line in text]
    assert store("diff", "--packages", "old:1", "old:1") == "no difference in packages"


def test_packages_in_layers_of_both_images_are_found_where_a_higher_layer_changes_them(tmp_path: Path) -> None:
    """The database lies in the base of both; one image has upgraded on top."""
    store = Program(tmp_path / "store")
    base = (dpkg(libc="5", vim="3"), installed_wheels(tmp_path, ember="2.4", slate="1"))
    gone = archive(file(f"{SITE}/.wh.ember-2.4.dist-info".encode()), file(f"{SITE}/.wh.ember".encode()))
    upgrade = installed_wheels(tmp_path, ember="3.0")
    load_image(store.root, image_of(tmp_path / "old", base), "old:1")
    load_image(store.root, image_of(tmp_path / "new", (*base, gone, upgrade, dpkg(libc="6", vim="3"))), "new:1")
    rows = difference(store, "old:1", "new:1")["Packages"]
    assert {(row["Kind"], row["Name"], row["Before"], row["After"]) for row in rows} == {
        ("deb", "libc", "5", "6"),
        ("wheel", "ember", "2.4", "3.0"),
    }


# ---- du


def mounted_use(program: Program, scratch: Path, *diff_ids: Any) -> tuple[int, int]:  # Any: digests
    """(bytes of all files, each once and without holes; files) as a mount shows them."""

    def count(root: Path) -> tuple[int, int]:
        found = [path.lstat() for path in root.rglob("*") if not path.is_dir() or path.is_symlink()]
        sizes = {(each.st_dev, each.st_ino): min(each.st_size, each.st_blocks * 512) for each in found}
        return sum(sizes.values()), len(found)

    return looking(snapshotter_of(program), diff_ids, scratch, count)


def test_the_use_of_an_image_is_what_a_mount_shows(store: Program, tmp_path: Path) -> None:
    tars = (BASE, archive(file(b"data/2", b"z" * 9000), file(b"etc/.wh.kept"), hardlink(b"b", b"data/2")))
    image = image_of(tmp_path / "three", tars)
    load_image(store.root, image, "three:1")
    use = json.loads(store("du", "--format", "json", "three:1"))
    assert (use["Size"], use["Root"]["Files"]) == mounted_use(store, tmp_path / "scratch", *image.diff_ids)
    assert use["Size"] == 6 + 4000 + 4000 + 9000
    assert [(row["Size"], row["Files"], row["Hidden"]) for row in use["Layers"]] == [(9106, 9, 1100), (9000, 2, 0)]
    assert [(row["Path"], row["Size"], row["Layer"], row["By"]) for row in use["Hidden"]] == [
        ("/data/2", 1000, 1, 2),
        ("/etc/kept", 100, 1, 2),
    ]
    assert use["HiddenSize"] == 1100
    assert [(row["Path"], row["Size"], row["Files"]) for row in use["Root"]["Entries"]] == [
        ("/b", 9000, 1),
        ("/data", 4000, 5),
        ("/usr", 4000, 2),
        ("/etc", 6, 1),
    ]


def test_a_hidden_folder_is_one_line_and_holes_do_not_count(store: Program) -> None:
    use = json.loads(store("image", "du", "--format", "json", "two:1"))
    assert [(row["Path"], row["Size"], row["Files"]) for row in use["Hidden"]] == [
        ("/data", 5000, 5),
        ("/etc/motd", 6, 1),
        ("/usr/bin/perl5", 0, 1),
    ]
    assert use["Size"] == 100 + 4000 + 13 + 2500 + 512
    assert [row["Hidden"] for row in use["Layers"]] == [5006, 0]


def test_the_drawing_names_folders_layers_and_packages(tmp_path: Path) -> None:
    store = Program(tmp_path / "store")
    tars = (dpkg(libc="5"), installed_wheels(tmp_path, ember="9.0"))
    load_image(store.root, image_of(tmp_path / "image", tars), "train:1")
    text = store("du", "train:1", "--depth", "9")
    assert [line for line in text.splitlines() if line.isalpha()] == ["FOLDERS", "LAYERS", "PACKAGES"]
    rows = [line.split()[-3:] for line in text.partition("PACKAGES")[2].splitlines()[1:]]
    assert rows == [["libc", "5", "deb"], ["ember", "9.0", "wheel"]]
    assert "ember/" in text


def test_an_image_without_layers_has_nothing_in_it(store: Program, tmp_path: Path) -> None:
    load_image(store.root, image_of(tmp_path / "none", ()), "none:1")
    assert store("du", "none:1").split("   ")[1:] == [str(Platform.host()), "0 layers, 0 files, 0B"]
    assert difference(store, "none:1", "one:1")["Totals"]["Came"] == 13
    assert difference(store, "one:1", "none:1")["Totals"]["Gone"] == 13


@pytest.mark.parametrize(
    "words",
    [("du", "--depth", "0", "one:1"), ("du", "--top", "-1", "one:1"), ("diff", "--depth", "0", "one:1", "two:1")],
)
def test_numbers_that_make_no_sense_are_refused(store: Program, words: tuple[str, ...]) -> None:
    done = argosy(store.root, *words)
    assert (done.returncode, done.stderr.decode().splitlines()[0][-8:]) == (125, " [usage]")


# ---- layers that are not here


def test_layers_without_a_snapshot_get_one(store: Program) -> None:
    before = store("du", "two:1"), store("diff", "one:1", "two:1")
    shutil.rmtree(store.root / "layers")
    done = argosy(store.root, "du", "two:1")
    assert (done.returncode, done.stdout.decode().strip()) == (0, before[0])
    assert done.stderr.count(b": Extracted\n") == 2
    shutil.rmtree(store.root / "layers")
    assert store("diff", "one:1", "two:1") == before[1]


@pytest.mark.parametrize("verb", [["du", "two:1"], ["diff", "one:1", "two:1"]])
def test_a_damaged_index_is_said(store: Program, verb: list[str]) -> None:
    store(*verb)
    indexes = list(store.root.glob("layers/sha256/*/index.erofs"))
    if not indexes:
        pytest.skip("this kernel mounts no EROFS from a file, and unpacked files have no index")
    for index in indexes:
        index.write_bytes(bytes(len(index.read_bytes())))
    error = store.refusal(*verb)
    assert "index.erofs is damaged [layer-index-damaged]" in error
    assert "hint: argosy check --repair" in error


# ---- containers


@pytest.fixture
def box(tmp_path: Path) -> Program:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    program = Program(tmp_path / "store")
    load_image(program.root, busybox_image(tmp_path / "box"), "box:1")
    return program


def test_changes_of_a_container_are_told_as_docker_tells_them(box: Program) -> None:
    script = """
        echo x > /etc/passwd; touch /root/new; mkdir -p /a/b; echo > /a/b/c; rm -r /home
        rm -r /opt; mkdir /opt; echo > /opt/other; mv /bin/vi /bin/vi2; chmod 700 /tmp; cat /etc/group > /dev/null
    """
    box("run", "--name", "work", "box:1", "sh", "-c", script)
    assert box("diff", "work").splitlines() == [
        "A /a",
        "A /a/b",
        "A /a/b/c",
        "C /bin",
        "D /bin/vi",
        "A /bin/vi2",
        "C /etc/passwd",
        "D /home",
        "C /opt",
        "D /opt/hello",
        "A /opt/other",
        "C /root",
        "A /root/new",
        "C /tmp",
    ]
    assert box("container", "diff", "--format", "{{.Kind}}{{.Path}}", "work").startswith("A/a\n")
    box("run", "--name", "idle", "box:1", "true")
    assert box("diff", "idle") == ""
    assert box.refusal("diff", "--packages", "work") == (
        "error: --packages is for two images [usage]\n  hint: argosy diff work"
    )


def test_one_image_has_nothing_to_be_compared_with(store: Program) -> None:
    assert store.refusal("diff", "one:1") == (
        "error: one:1 is an image, and there is no second one to compare it with [usage]\n"
        "  hint: argosy diff one:1 OTHER_IMAGE"
    )
    assert store.refusal("diff", "nothing") == (
        "error: no such container: nothing [container-unknown]\n"
        "  nor is there an image of this name\n"
        "  hint: argosy ps -a and argosy images list them"
    )
    assert store.refusal("diff", "one:1", "nothing:1").startswith("error: no such image: nothing:1 [tag-unknown]")


# ---- users


@pytest.mark.parametrize("ranges", [True, False], ids=["subordinate ids", "one id"])
def test_a_user_sees_the_same(tmp_path: Path, ranges: bool) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root to become another user")
    if ranges and not can_have_ranges():
        pytest.skip("newuidmap and newgidmap are not installed")
    user = User.make(tmp_path, ranges=ranges)
    for name, tars in (("one", (BASE,)), ("two", (BASE, TOP))):
        load_image(user.root, image_of(tmp_path / name, tars), f"{name}:1")
    for path in (user.home, *user.home.rglob("*")):
        os.chown(path, 47110, 47110)
    done = user.argosy("diff", "--format", "json", "one:1", "two:1")
    assert done.returncode == 0, done.stderr.decode()
    program = Program(tmp_path / "root")
    for name, tars in (("one", (BASE,)), ("two", (BASE, TOP))):
        load_image(program.root, image_of(tmp_path / name, tars), f"{name}:1")

    def rows(found: dict[str, Any]) -> list[tuple[object, ...]]:  # Any: JSON
        """Without the file that has holes: its data takes whole blocks of the user's file system."""
        paths = [row for row in found["Paths"] if row["Path"] != "/sparse"]
        return [(row["Kind"], row["Path"], row["Growth"], row["Aspects"]) for row in paths]

    assert rows(json.loads(done.stdout)) == rows(difference(program, "one:1", "two:1"))
    assert user.argosy("du", "two:1").returncode == 0
