"""Texts that a registry sends: read, or refused with one of our errors; never anything else."""

from __future__ import annotations

import io
import tempfile
from contextlib import suppress
from pathlib import Path
from urllib.parse import urlsplit

from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import Error, InvalidInput
from argosy.oci.reference import Reference
from argosy.remote.auth import Challenge, parse_challenges
from argosy.remote.messages import HttpRequest, HttpResponse, retry_after
from argosy.remote.proxies import proxy_for
from argosy.remote.registries import Endpoint, Folders, Registries, Rule
from argosy.remote.registries_conf import matched
from argosy.remote.transport import redirected, shown

_WORDS = st.text("abcdefghijklmnopqrstuvwxyz0123456789-", min_size=1, max_size=8)
_VALUES = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
_HEADERS = st.text(st.sampled_from('Bearer Basic realm="=,\\scope:/?&\t'), max_size=60)
_REQUEST = HttpRequest(method="GET", url="https://r.test/v2/", headers={"Authorization": "Bearer secret"})


@given(_HEADERS | st.text(max_size=40))
def test_any_challenge_is_read_or_refused(header: str) -> None:
    with suppress(Error):
        parse_challenges(header)


@given(st.lists(st.tuples(_WORDS, st.dictionaries(_WORDS, _VALUES, min_size=1, max_size=4)), max_size=3))
def test_what_is_written_with_quotes_is_read_back(challenges: list[tuple[str, dict[str, str]]]) -> None:
    """RFC 9110 11.6.1: «A client must parse WWW-Authenticate … as a list of challenges»."""

    def quoted(text: str) -> str:
        return '"' + text.replace("\\", "\\\\").replace('"', '\\"') + '"'

    header = ", ".join(
        f"{scheme} " + ", ".join(f"{name}={quoted(value)}" for name, value in parameters.items())
        for scheme, parameters in challenges
    )
    assert parse_challenges(header) == tuple(Challenge(*challenge) for challenge in challenges)


@given(st.text(max_size=60) | st.text(st.sampled_from("htps:/[]@?#.r-est%0 \n"), max_size=30))
def test_any_location_is_followed_safely_or_not_at_all(location: str) -> None:
    """A redirect from https never leads to plain text, and another host never sees the token."""
    try:
        onward = redirected(_REQUEST, HttpResponse(307, {"Location": location}, io.BytesIO()))
    except Error:
        return
    if onward is not None:
        assert onward.url.startswith("https://")
        there = urlsplit(onward.url)
        assert ("Authorization" in onward.headers) == ((there.hostname, there.port or 443) == ("r.test", 443))
        shown(onward.url)


@given(st.text(max_size=30), st.text(max_size=40))
def test_any_no_proxy_is_borne(host: str, no_proxy: str) -> None:
    with suppress(Error):
        proxy_for(f"https://{host}/", {"https_proxy": "http://p", "no_proxy": no_proxy})


@given(st.text(max_size=40) | st.text("0123456789-+: GMTWedOct,", max_size=40), st.text(max_size=40))
def test_any_time_to_come_back_is_a_time_or_nothing(after: str, date: str) -> None:
    wait_s = retry_after(HttpResponse(429, {"Retry-After": after, "Date": date}, io.BytesIO()))
    assert wait_s is None or wait_s >= 0


_TOML = st.lists(
    st.sampled_from(
        """[[registry]]|[[registry.mirror]]|[host."https://m.lan"]|prefix = "*.lan"|location = "lan:5/a/"|location = ""
        location = "://"|insecure = 1|blocked = true|mirror = []|pull-from-mirror = "all"|server = "x"|ca = ["a"]
        client = [["a"]]|client = [[]]|credential-helpers = [1]|override_path = true|capabilities = ["pull"]
        {"registry-mirrors": ["["]}|{"insecure-registries": ["/", "1/2", ""]}|registry = 1|[]|""".replace(
            "\n        ", "|"
        ).split("|")
    ),
    max_size=6,
).map("\n".join)
_FILES = (
    "argosy/registries.toml",
    "containers/registries.conf",
    "containerd/certs.d/a.lan/hosts.toml",
    "docker/daemon.json",
)


@given(_TOML | st.text(max_size=40), st.sampled_from(_FILES))
def test_any_file_about_registries_is_understood_or_named(text: str, name: str) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / name
        path.parent.mkdir(parents=True)
        path.write_text(text, "utf-8", errors="replace")
        refused = ""
        try:
            registries = Registries(Folders(user=folder, system="/absent"))
            registries.rule("docker.io/library/x:1"), registries.rule("a.lan/x:1"), registries.rules()
            registries.settings("b.lan")
        except InvalidInput as error:
            refused = error.message
        assert refused in ("", f"cannot use {path}")


_PARTS = st.text("abc019", min_size=1, max_size=3)


@given(st.lists(_PARTS, min_size=1, max_size=4), st.integers(0, 4), _PARTS)
def test_a_name_is_rewritten_at_the_end_of_a_part(parts: list[str], cut: int, tag: str) -> None:
    """containers-registries.conf(5): the prefix is replaced by the location, and what follows stays."""
    name = f"r.lan/{'/'.join(parts)}:{tag}"
    prefix = "/".join(["r.lan", *parts[:cut]])
    rule = Rule(prefix=prefix, origin=Endpoint(location="m.lan/x"), file="f")
    rest = "/".join(parts[cut:])
    assert matched(name, prefix) == len(prefix)
    expected = f"m.lan/x{'/' if rest else ''}{rest}:{tag}"
    assert str(rule.rewritten(Reference.parse(name), rule.origin)) == expected
    assert matched(name, prefix + "x") in (0, len(prefix) + 1)
