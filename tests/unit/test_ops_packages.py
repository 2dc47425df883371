"""Databases of packages as images have them, good ones and odd ones."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.ops import packages
from argosy.ops.packages import Extent, Package
from support.archives import archive, file, hardlink, symlink
from support.views import opened_view

if TYPE_CHECKING:
    from pathlib import Path

STATUS = b"""\
Package: dpkg
Status: install ok installed
Architecture: amd64
Version: 1.21.22
Installed-Size: 6
Description: Debian package management system
 Version: this is text, not a field

Package: libc6
Status: install ok installed
Architecture: amd64
Multi-Arch: same
Version: 2.36-9

Package: libc6
Status: install ok installed
Architecture: i386
Multi-Arch: same
Version: 2.36-9
\x20
Package: gone
Status: deinstall ok config-files
Architecture: all
Version: 1

Package: half
Status: install reinstreq half-installed
Version: 2:3~rc1
Installed-Size: about ten

Package: nameless and old
"""
INFO = b"var/lib/dpkg/info/"


def deb(name: str, version: str, architecture: str = "", declared: int = 0, record: bytes = b"") -> Package:
    return Package(
        kind="deb",
        name=name,
        version=version,
        record=record or b"var/lib/dpkg/status",
        architecture=architecture,
        declared=declared,
    )


def test_debian_packages_come_from_the_status_file(tmp_path: Path) -> None:
    with opened_view(tmp_path, archive(file(b"var/lib/dpkg/status", STATUS))) as view:
        assert packages.debs(view) == [
            deb("dpkg", "1.21.22", "amd64", 6144),
            deb("libc6", "2.36-9", "amd64"),
            deb("libc6:i386", "2.36-9", "i386"),
            deb("half", "2:3~rc1"),
        ]


def test_distroless_images_have_a_file_a_package(tmp_path: Path) -> None:
    below = b"var/lib/dpkg/status.d/"
    tar = archive(
        file(below + b"tzdata", b"Package: tzdata\nVersion: 2026a-0\nArchitecture: all\n"),
        file(below + b"tzdata.md5sums", b"0" * 32 + b"  usr/share/zoneinfo/UTC\n" + b"1" * 32 + b"  usr/gone\n"),
        file(b"usr/share/zoneinfo/UTC", b"u" * 114),
    )
    with opened_view(tmp_path, tar) as view:
        [found] = packages.debs(view)
        assert found == deb("tzdata", "2026a-0", "all", record=below + b"tzdata")
        assert packages.extent(view, found) == Extent(114, 1)


def test_a_debian_package_takes_what_its_files_take_through_links_and_once(tmp_path: Path) -> None:
    """«/lib» of a list is a link to usr/lib; what a higher layer replaced counts as it is."""
    tar = archive(
        file(b"var/lib/dpkg/status", STATUS),
        file(INFO + b"libc6:amd64.list", b"/.\n/lib\n/lib/libc.so\n/usr/lib/libc.so.6\n/usr/lib/libm.so\n/usr/doc\n"),
        file(INFO + b"dpkg.list", b"/usr/doc/left-out\n"),
        symlink(b"lib", b"usr/lib"),
        file(b"usr/lib/libc.so", b"c" * 1000),
        hardlink(b"usr/lib/libc.so.6", b"usr/lib/libc.so"),
        file(b"usr/lib/libm.so", b"m" * 5000),
    )
    with opened_view(tmp_path, tar, archive(file(b"usr/lib/libm.so", b"m" * 10))) as view:
        dpkg, libc, *_ = packages.debs(view)
        assert packages.extent(view, libc) == Extent(1010, 3)  # libc.so, libm.so, and the link /lib itself
        assert packages.extent(view, dpkg) == Extent(6144, 0)  # none of its files is here: what it declares


def test_wheels_take_what_their_record_lists(tmp_path: Path) -> None:
    site = b"usr/local/lib/python3.11/site-packages/"
    record = b"""\
demo/__init__.py,sha256=x,100
"demo/a, b.py",sha256=x,1
"demo/""q"".py",,
../../../bin/demo,,
/opt/demo.cfg,,
../../../../../../../../etc/passwd,,
demo/gone.py,,
demo-1.0.dist-info/METADATA,,
demo-1.0.dist-info/RECORD,,
"""
    metadata = b"Metadata-Version: 2.1\r\nName: De.mo\r\nVersion:  1.0\r\n\r\nName: in the description\r\n"
    tar = archive(
        file(site + b"demo-1.0.dist-info/METADATA", metadata),
        file(site + b"demo-1.0.dist-info/RECORD", record),
        *(file(site + b"demo/" + name, b"x" * 10) for name in (b"__init__.py", b"a, b.py", b'"q".py')),
        file(b"usr/local/bin/demo", b"x" * 300),
        file(b"opt/demo.cfg", b"x" * 4000),
        file(b"etc/passwd", b"x" * 50_000),
    )
    with opened_view(tmp_path, tar) as view:
        found = packages.wheel(view, site + b"demo-1.0.dist-info")
        assert found == Package(kind="wheel", name="De.mo", version="1.0", record=site + b"demo-1.0.dist-info")
        assert found.key == ("wheel", "de-mo")
        size = 30 + 300 + 4000 + 50_000 + len(metadata) + len(record)  # a path that climbs too far stays in the image
        assert packages.extent(view, found) == Extent(size, 8)


@pytest.mark.parametrize(
    ("metadata", "found"),
    [
        (b"", False),
        (b"Name: x\n\nVersion: 1\n", False),
        (b"version: 1\nNAME: x\n", True),
        (b"\xff\xfe\0" * 1000, False),
        (b"Name: x\nName: y\nVersion: 1\n", True),
    ],
)
def test_metadata_without_name_or_version_is_no_package(tmp_path: Path, metadata: bytes, found: bool) -> None:
    with opened_view(tmp_path, archive(file(b"p/x-1.dist-info/METADATA", metadata))) as view:
        package = packages.wheel(view, b"p/x-1.dist-info")
        assert (package and (package.name, package.version)) == (("x", "1") if found else None)


def test_debians_own_python_packages_are_debian_packages_alone(tmp_path: Path) -> None:
    metadata = b"Name: x\nVersion: 1\n"
    debians, pips = b"usr/lib/python3/dist-packages/", b"usr/local/lib/python3.11/dist-packages/"
    tar = archive(
        file(debians + b"x-1.dist-info/METADATA", metadata),
        file(pips + b"x-1.dist-info/METADATA", metadata),
        file(debians + b"y-1.dist-info/METADATA", metadata),
        file(debians + b"y-1.dist-info/RECORD"),
    )
    with opened_view(tmp_path, tar) as view:
        assert packages.wheel(view, debians + b"x-1.dist-info") is None
        assert packages.wheel(view, debians + b"y-1.dist-info") is not None
        found = packages.wheel(view, pips + b"x-1.dist-info")
        assert found is not None
        assert packages.extent(view, found) == Extent(len(metadata), 1)


def test_folders_of_wheels_are_found_in_what_changed() -> None:
    paths = [b"a/x-1.dist-info", b"b/y-1.dist-info/RECORD", b"c/z.dist-info.bak/METADATA", b"d/w.dist-info2", b"e"]
    assert packages.wheel_folders(paths) == {b"a/x-1.dist-info", b"b/y-1.dist-info"}


def test_databases_that_are_not_read_are_named(tmp_path: Path) -> None:
    tar = archive(file(b"usr/lib/sysimage/rpm/rpmdb.sqlite"), file(b"lib/apk/db/installed"))
    with opened_view(tmp_path, tar) as view:
        assert sorted(packages.unread(view)) == ["apk", "rpm"]
    with opened_view(tmp_path, archive(file(b"var/lib/rpm/other"))) as view:
        assert packages.unread(view) == {}


@pytest.mark.parametrize("kind", ["a link", "a folder", "nothing"])
def test_databases_that_are_no_files_are_none(tmp_path: Path, kind: str) -> None:
    members = {
        "a link": [symlink(b"var/lib/dpkg/status", b"/proc/self/mem")],
        "a folder": [file(b"var/lib/dpkg/status/x")],
    }
    with opened_view(tmp_path, archive(*members.get(kind, []))) as view:
        assert packages.debs(view) == []
