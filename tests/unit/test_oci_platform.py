"""Platforms: words of uname and of people, and which image serves which machine."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidInput
from argosy.oci.platform import Platform
from argosy.oci.wire import decode, encode


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("linux/amd64", "linux/amd64"),
        ("LINUX/AMD64", "linux/amd64"),
        ("amd64", "linux/amd64"),
        ("x86_64", "linux/amd64"),
        ("linux/x86-64", "linux/amd64"),
        ("aarch64", "linux/arm64"),
        ("linux/arm64/v8", "linux/arm64/v8"),
        ("armhf", "linux/arm/v7"),
        ("armel", "linux/arm/v6"),
        ("linux/arm/v6", "linux/arm/v6"),
        ("i686", "linux/386"),
        ("ppc64le", "linux/ppc64le"),
        ("windows/amd64", "windows/amd64"),
    ],
)
def test_a_platform_is_read_in_all_its_spellings(text: str, shown: str) -> None:
    assert str(Platform.parse(text)) == shown


@pytest.mark.parametrize("text", ["", "/", "linux/", "linux//v8", "linux/amd64/v1/x", "linux/am d64", "linux/../x"])
def test_what_is_no_platform_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Platform.parse(text)
    assert (caught.value.code, caught.value.message) == ("platform-invalid", f"not a platform: {text!r}")


@pytest.mark.parametrize(
    ("machine", "offered", "rank"),
    [
        ("linux/amd64", "linux/amd64", 0),
        ("linux/arm64", "linux/arm64/v8", 0),
        ("linux/arm64/v8", "linux/arm64", 0),
        ("linux/arm", "linux/arm/v7", 0),
        ("linux/arm/v7", "linux/arm/v6", 1),
        ("linux/arm/v7", "linux/arm/v5", 2),
        ("linux/arm/v6", "linux/arm/v7", None),
        ("linux/amd64/v3", "linux/amd64", 1),
        ("linux/amd64/v3", "linux/amd64/v2", 1),
        ("linux/amd64", "linux/amd64/v3", None),
        ("linux/amd64", "linux/arm64", None),
        ("linux/amd64", "windows/amd64", None),
    ],
)
def test_an_offer_is_ranked_for_a_machine(machine: str, offered: str, rank: int | None) -> None:
    want, have = Platform.parse(machine), Platform.parse(offered)
    assert (want.rank(have), want.matches(have)) == (rank, rank is not None)


def test_this_machine_serves_itself() -> None:
    assert Platform.host().rank(Platform.host()) == 0


def test_the_wire_form_has_the_dotted_names_of_the_spec() -> None:
    platform = Platform(os="windows", architecture="amd64", os_version="10.0", os_features=("win32k",))
    raw = b'{"os":"windows","architecture":"amd64","os.version":"10.0","os.features":["win32k"]}'
    assert (encode(platform), decode(raw, Platform)) == (raw, platform)
