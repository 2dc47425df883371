"""The texts of `diff` and `du`, on values."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import msgspec
import pytest

from argosy.cli import diff_text, du_text, output
from argosy.cli.bars import bar
from argosy.ops.diff import Difference, ImageFacts, LayerChange, PackageChange, PathChange
from argosy.ops.du import HiddenUse, ImageUse, LayerUse, PackageUse, PathUse

if TYPE_CHECKING:
    from argosy.layer.contents import NodeKind


def path(
    kind: Literal["A", "C", "D"],
    name: str,
    before: int | None,
    after: int | None,
    *,
    layer: int = 3,
    aspects: tuple[str, ...] = (),
    type: NodeKind = "file",
) -> PathChange:
    return PathChange(
        kind=kind,
        path=name,
        type=type,
        before=before,
        after=after,
        layer_before=None if before is None else layer - 1,
        layer_after=None if after is None else layer,
        aspects=aspects,
    )


def layer(side: Literal["before", "after", "both"], number: int, size: int, *counts: int) -> LayerChange:
    came, gone, changed, growth = counts or (0, 0, 0, 0)
    return LayerChange(
        side=side,
        number=number,
        diff_id=f"sha256:{number}",
        created_by=f"RUN /bin/sh -c step {number} # buildkit",
        size=size,
        came=came,
        gone=gone,
        changed=changed,
        growth=growth,
    )


FOUND = Difference(
    before=ImageFacts(name="lab/train:1", id="sha256:a", size=2_300_000_000, layers=3),
    after=ImageFacts(name="lab/train:2", id="sha256:b", size=2_450_000_000, layers=3),
    layers=(
        layer("before", 2, 1_100_000_000),
        layer("both", 1, 80_000_000, 0, 1, 0, -700),
        layer("both", 2, 70_000_000),
        layer("after", 3, 1_200_000_000, 3, 0, 2, 100_100_301),
    ),
    packages=(
        PackageChange(kind="wheel", name="torch", before="2.4.0", after="2.5.1", size_before=9, size_after=120_000_009),
        PackageChange(kind="deb", name="vim", before="9.0", after="", size_before=3_000_000, size_after=0),
    ),
    paths=(
        path("D", "/etc/motd", 700, None),
        path("A", "/opt/model", None, 0, type="folder"),
        path("A", "/opt/model/w.bin", None, 100_000_000),
        path("C", "/usr/lib/python3/site/torch/a.py", 100, 401, aspects=("size", "time")),
        path("C", "/usr/lib/python3/site/torch/b.py", 7, 7, aspects=("time",)),
        path("A", "/usr/lib/python3/site/torch/lib/c.so", None, 100_000),
    ),
    assumed=40,
    unread=("rpm",),
)


def test_a_difference_tells_packages_first_then_folders_and_layers() -> None:
    assert (
        diff_text.draw(FOUND)
        == """\
- lab/train:1: 2.3GB in 3 layers
+ lab/train:2: 2.45GB in 3 layers, 2 of them in both

PACKAGE   KIND      BEFORE    AFTER     SIZE
torch     wheel     2.4.0     2.5.1     +120MB
vim       deb       9.0       -         -3MB

FOLDER                        CAME      GONE      CHANGED   SIZE
/opt/model                    2         0         0         +100MB
/usr/lib/python3/site/torch   1         0         2         +100kB
/etc                          0         1         0         -700B

LAYER     CREATED BY   LAYER SIZE   CAME      GONE      CHANGED   SIZE
- 2       step 2       1.1GB        0         0         0         0B
= 1       step 1       80MB         0         1         0         -700B
+ 3       step 3       1.2GB        3         0         2         +100MB

3 paths came, 1 went, 2 changed: +100MB
1 of the changed have another time alone: --contents compares their bytes
40 files of equal size and time were taken as equal: --contents compares their bytes
the packages of rpm changed, whose database is not read
"""
    )


def test_every_path_can_be_listed() -> None:
    assert (
        diff_text.draw(FOUND, paths=True).split("\n\n")[2]
        == """\
CHANGE    SIZE      LAYER     PATH
D         -700B     -2        /etc/motd
A         0B        3         /opt/model
A         +100MB    3         /opt/model/w.bin
C         +301B     3         /usr/lib/python3/site/torch/a.py
C         0B        3         /usr/lib/python3/site/torch/b.py
A         +100kB    3         /usr/lib/python3/site/torch/lib/c.so"""
    )


def test_packages_can_be_all_there_is() -> None:
    assert diff_text.draw(FOUND, only_packages=True).splitlines()[1:] == [
        "torch     wheel     2.4.0     2.5.1     +120MB",
        "vim       deb       9.0       -         -3MB",
    ]
    none = msgspec.structs.replace(FOUND, packages=())
    assert diff_text.draw(none, only_packages=True) == (
        "no difference in packages\nthe packages of rpm changed, whose database is not read\n"
    )


def test_groups_are_as_deep_as_asked_and_few_unless_asked() -> None:
    many = msgspec.structs.replace(
        FOUND, paths=tuple(path("A", f"/a/b{number}/c/d/e", None, number) for number in range(30)), packages=()
    )
    shown = diff_text.draw(many).split("\n\n")[1].splitlines()
    assert (shown[1], len(shown)) == ("/a/b29/c/d   1         0         0         +29B", 1 + 20 + 1)
    assert shown[-1] == "and 10 more folders: --depth 3 lists all, --paths every path"
    assert len(diff_text.draw(many, depth=2).split("\n\n")[1].splitlines()) == 1 + 30
    assert diff_text.draw(many, depth=1).split("\n\n")[1].splitlines()[1:] == [
        "/a        30        0         0         +435B"
    ]


@pytest.mark.parametrize(
    ("id_after", "text"),
    [
        ("sha256:a", "no difference: both are sha256:a\n"),
        ("sha256:b", "no difference in files; what else the images say: argosy inspect lab/train:1 lab/train:2\n"),
    ],
)
def test_no_difference_is_said(id_after: str, text: str) -> None:
    after = msgspec.structs.replace(FOUND.after, id=id_after)
    none = msgspec.structs.replace(FOUND, after=after, packages=(), paths=(), assumed=0, unread=())
    assert diff_text.draw(none) == text


USE = ImageUse(
    name="lab/train:2",
    id="sha256:b",
    platform="linux/amd64",
    root=PathUse(
        path="/",
        type="folder",
        size=1000,
        files=4,
        entries=(
            PathUse(
                path="/usr",
                type="folder",
                size=900,
                files=3,
                entries=(
                    PathUse(path="/usr/lib", type="folder", size=850, files=2),
                    PathUse(path="/usr/x", type="file", size=50, files=1),
                ),
            ),
            PathUse(path="/etc", type="folder", size=100, files=1),
        ),
    ),
    layers=(
        LayerUse(number=1, diff_id="sha256:1", created_by="ADD rootfs.tar /", size=700, files=3, hidden=200),
        LayerUse(number=2, diff_id="sha256:2", created_by=f"RUN make {'x' * 99}", size=500, files=3, hidden=0),
    ),
    packages=(PackageUse(kind="deb", name="libc6", version="2.36-9", size=3, files=1),),
    hidden=(HiddenUse(path=f"/usr/{'p' * 80}", size=200, files=2, layer=1, by=2),),
    unread=("apk",),
)


def test_the_use_of_an_image_is_drawn_within_the_width() -> None:
    assert (
        du_text.draw(USE, top=10, width=70)
        == """\
lab/train:2   linux/amd64   2 layers, 4 files, 1kB

FOLDERS
██████████▊     900B   90%  /usr/
██████████▎     850B   85%    lib/
▋                50B    5%    x
█▎              100B   10%  /etc/

LAYERS
████████▍       700B   70%    1  ADD rootfs.tar /, 200B of it hidden
██████          500B   50%    2  make xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…

PACKAGES
▏                 3B   <1%  libc6 2.36-9  deb

HIDDEN  200B that higher layers replace or remove
██▍             200B   20%  /usr/pppppppppppp…  of layer 1, by layer 2

the packages of apk are not read
"""
    )


def test_the_largest_are_drawn_and_the_rest_is_counted() -> None:
    assert du_text.draw(USE, top=1, ascii_only=True).splitlines()[2:9] == [
        "FOLDERS",
        "###########     900B   90%  /usr/",
        "                            and 3 more",
        "",
        "LAYERS",
        "########        700B   70%    1  ADD rootfs.tar /, 200B of it hidden",
        "                            and 1 more",
    ]
    assert du_text.draw(USE, top=0, width=70) == du_text.draw(USE, top=10, width=70)


def test_bars_show_the_smallest_and_nothing_for_nothing() -> None:
    assert [bar(size, 80, 2) for size in (0, 1, 20, 40, 75, 80)] == ["", "▏", "▌", "█", "█▉", "██"]
    assert (bar(5, 0, 9), bar(1, 2, 4, ascii_only=True)) == ("", "##")


def test_fields_are_named_as_go_names_them() -> None:
    facts = output.go_fields(USE)
    assert facts["Hidden"] == [{"Path": f"/usr/{'p' * 80}", "Size": 200, "Files": 2, "Layer": 1, "By": 2}]
    assert output.go_fields(FOUND.packages[1]) == {
        "Kind": "deb",
        "Name": "vim",
        "Before": "9.0",
        "After": "",
        "SizeBefore": 3_000_000,
        "SizeAfter": 0,
    }


def test_growth_has_a_sign() -> None:
    assert [output.growth(size) for size in (0, 5, -1500)] == ["0B", "+5B", "-1.5kB"]
