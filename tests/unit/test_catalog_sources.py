"""apt's sources: the host's own for Debian, whatever file they are in; public ones where it has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.catalog.sources import KEYRING, Source, host_sources, image_sources
from argosy.errors import Unsupported

if TYPE_CHECKING:
    from pathlib import Path

ONE_LINE = """\
# deb http://commented.example/debian bookworm main
deb http://mirror.example/debian/ bookworm main contrib # by the administrator
deb-src http://mirror.example/debian bookworm main
deb [arch=amd64 signed-by=/k.gpg] http://mirror.example/debian bookworm-updates main
deb http://mirror.example/debian trixie main
"""
DEB822 = """\
# a comment
Types: deb deb-src
URIs: http://one.example/security
 http://two.example/security
Suites: bookworm-security
Components: main
Signed-By: /k2.gpg

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: bookworm
Components: main
"""


@pytest.fixture
def apt(tmp_path: Path) -> Path:
    folder = tmp_path / "etc/apt"
    (folder / "sources.list.d").mkdir(parents=True)
    keyring = tmp_path / KEYRING.lstrip("/")
    keyring.parent.mkdir(parents=True)
    keyring.touch()
    return folder


def test_both_kinds_of_files_are_read(apt: Path) -> None:
    (apt / "sources.list").write_text(ONE_LINE)
    (apt / "sources.list.d/security.sources").write_text(DEB822)
    (apt / "sources.list.d/ignored.save").write_text("deb http://saved.example/debian bookworm main\n")
    assert host_sources("bookworm", apt) == (
        Source(uri="http://mirror.example/debian", suite="bookworm", components=("main", "contrib")),
        Source(uri="http://mirror.example/debian", suite="bookworm-updates", options=("signed-by=/k.gpg",)),
        Source(uri="http://one.example/security", suite="bookworm-security", options=("signed-by=/k2.gpg",)),
        Source(uri="http://two.example/security", suite="bookworm-security", options=("signed-by=/k2.gpg",)),
    )


def test_a_host_without_debian_takes_the_public_archive_with_debians_keys(apt: Path) -> None:
    (apt / "sources.list.d/ubuntu.sources").write_text(
        "Types: deb\nURIs: http://ubuntu.example/ubuntu\nSuites: noble\nComponents: main\n"
    )
    assert [source.line() for source in host_sources("bookworm", apt)] == [
        f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm main",
        f"deb [signed-by={KEYRING}] http://deb.debian.org/debian bookworm-updates main",
        f"deb [signed-by={KEYRING}] http://deb.debian.org/debian-security bookworm-security main",
    ]


def test_without_the_keys_it_says_which_package_brings_them(apt: Path) -> None:
    (apt.parent.parent / KEYRING.lstrip("/")).unlink()
    with pytest.raises(Unsupported) as caught:
        host_sources("bookworm", apt)
    assert caught.value.code == "keyring-missing"
    assert caught.value.hint == "apt-get install debian-archive-keyring"


def test_the_image_itself_uses_public_names() -> None:
    text = image_sources("bookworm")
    assert "Suites: bookworm bookworm-updates\n" in text
    assert "URIs: http://deb.debian.org/debian-security\nSuites: bookworm-security\n" in text
