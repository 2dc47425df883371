"""Trees: cleaned of what a build leaves, compared into layers, written the same each time."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.catalog import tree
from argosy.catalog.tree import Member, file, folder, link
from argosy.layer.compression import decompressed
from argosy.layer.entry import Entry
from argosy.layer.writer import ArchiveWriter
from argosy.store.blobs import BlobStore

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

T = 1_700_000_000


def hardlink(path: str, target: str) -> Member:
    return Member(entry=Entry(path=path.encode(), kind="hardlink", linkname=target.encode(), mtime_ns=T * 10**9))


def tar_of(members: Iterable[Member], path: Path) -> Path:
    with open(path, "wb") as out, ArchiveWriter(out) as archive:
        for member in members:
            with member.open() as data:
                archive.add(member.entry, data)
    return path


def by_path(*members: Member) -> dict[bytes, Member]:
    return {member.entry.path: member for member in members}


def marks(content: dict[bytes, Member]) -> dict[bytes, object]:
    out = io.BytesIO()
    with ArchiveWriter(out) as archive:
        for path in sorted(content, key=lambda path: path.split(b"/")):
            with content[path].open() as data:
                archive.add(content[path].entry, data)
    out.seek(0)
    return tree.fingerprints(out)


def test_what_installing_left_behind_goes_and_the_rest_stays(tmp_path: Path) -> None:
    late = file("usr/bin/late", "x", epoch=T + 5)
    members = [
        folder(b"var/log", epoch=T),
        file("var/log/dpkg.log", "noise", epoch=T),
        file("var/lib/apt/lists/lock", "", epoch=T),
        file("etc/machine-id", "uninitialized\n", epoch=T),
        file("etc/hostname", "builder\n", epoch=T),
        link("etc/alternatives/awk.1.gz", "/usr/share/man/man1/mawk.1.gz", epoch=T),
        link("etc/alternatives/awk", "/usr/bin/mawk", epoch=T),
        link("usr/share/doc/bash/FAQ", "../base-files/FAQ", epoch=T),
        link("usr/share/doc/bash/copyright", "../../../bin/late", epoch=T),
        folder(b"run/lock", epoch=T),
        folder(b"var/cache/apt/archives/partial", epoch=T),
        folder(b"run/user", epoch=T),
        Member(entry=Entry(path=b"dev/null", kind="character", major=1, minor=3)),
        late,
    ]
    content = tree.cleaned(
        tree.read(tar_of(members, tmp_path / "a.tar")), [file("etc/hostname", b"", epoch=T)], epoch=T
    )
    assert sorted(content) == [
        b"etc/alternatives/awk",
        b"etc/hostname",
        b"run/lock",
        b"usr/bin/late",
        b"usr/share/doc/bash/copyright",
        b"var/log",
    ]
    assert content[b"etc/hostname"].entry.size == 0
    assert content[b"usr/bin/late"].entry.mtime_ns == T * 10**9
    with content[b"usr/bin/late"].open() as data:
        assert data.read() == b"x"


def test_of_several_names_the_first_holds_the_data() -> None:
    content = tree.cleaned(by_path(file("usr/z", "same", epoch=T), hardlink("usr/a", "usr/z")), [], epoch=T)
    assert content[b"usr/a"].entry.kind == "file"
    assert content[b"usr/a"].data == b"same"
    assert (content[b"usr/z"].entry.kind, content[b"usr/z"].entry.linkname) == ("hardlink", b"usr/a")


@pytest.mark.parametrize(
    ("changed", "expected"),
    [
        ([], []),
        ([file("etc/new", "1", epoch=T)], ["etc", "etc/new"]),
        ([file("etc/same", "2", epoch=T)], ["etc", "etc/same"]),
        ([file("etc/same", "1", epoch=T + 1)], ["etc", "etc/same"]),
        ([file("etc/same", "1", epoch=T, mode=0o600)], ["etc", "etc/same"]),
        ([link("etc/link", "elsewhere", epoch=T)], ["etc", "etc/link"]),
        ([file("etc/link", "now a file", epoch=T)], ["etc", "etc/link"]),
        ([file("usr/b", "linked", epoch=T), hardlink("usr/c", "usr/b")], ["usr", "usr/b", "usr/c"]),
        ([hardlink("usr/d", "usr/b")], ["usr", "usr/b", "usr/c", "usr/d"]),
    ],
    ids=["nothing", "new", "content", "time", "mode", "link", "kind", "link-again", "another-name"],
)
def test_the_layer_between_two_trees_holds_what_changed(changed: list[Member], expected: list[str]) -> None:
    lower = by_path(
        folder(b"etc", epoch=T),
        folder(b"usr", epoch=T),
        file("etc/same", "1", epoch=T),
        link("etc/link", "same", epoch=T),
        file("usr/b", "linked", epoch=T),
        hardlink("usr/c", "usr/b"),
    )
    upper = lower | by_path(*changed)
    layer = tree.difference(marks(lower), upper)
    assert sorted(path.decode() for path in layer) == (expected if upper != lower else [])


def test_what_is_gone_becomes_one_whiteout() -> None:
    lower = by_path(folder(b"etc", epoch=T), folder(b"etc/d", epoch=T), file("etc/d/f", "", epoch=T))
    layer = tree.difference(marks(lower), by_path(folder(b"etc", epoch=T)))
    assert sorted(layer) == [b"etc", b"etc/.wh.d"]


def test_folders_on_the_way_are_added() -> None:
    content = tree.tree_of([file("usr/local/bin/x", "", epoch=T), link("usr/y", "z", epoch=T)], epoch=T)
    assert sorted(content) == [b"usr", b"usr/local", b"usr/local/bin", b"usr/local/bin/x", b"usr/y"]
    assert content[b"usr/local"].entry.mode == 0o755


def test_a_layer_does_not_depend_on_the_order_of_its_members(tmp_path: Path) -> None:
    members = [file("a-b", "1", epoch=T), folder(b"a", epoch=T), file("a/b", "22", epoch=T), link("z", "a", epoch=T)]
    blobs = BlobStore(tmp_path)
    descriptor, digests = tree.write(by_path(*members), blobs)
    again = tree.write(by_path(*reversed(members)), blobs)
    assert (descriptor, digests) == again
    with decompressed(blobs.open(descriptor)) as stream:
        assert list(tree.fingerprints(stream)) == [b"a", b"a/b", b"a-b", b"z"]


def test_a_member_that_lies_about_its_size_is_noticed(tmp_path: Path) -> None:
    from argosy.errors import Conflict

    short = Member(entry=msgspec.structs.replace(file("x", "abc", epoch=T).entry, size=9), data=b"abc")
    with pytest.raises(Conflict):
        tree.write(by_path(short), BlobStore(tmp_path))
