"""Texts that a registry sends: read, or refused with one of our errors; never anything else."""

from __future__ import annotations

import io
from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from argosy.errors import Error
from argosy.remote.auth import Challenge, parse_challenges
from argosy.remote.messages import HttpRequest, HttpResponse
from argosy.remote.proxies import proxy_for
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
        assert ("Authorization" in onward.headers) == (onward.url.split("/")[2] == "r.test")
        shown(onward.url)


@given(st.text(max_size=30), st.text(max_size=40))
def test_any_no_proxy_is_borne(host: str, no_proxy: str) -> None:
    with suppress(Error):
        proxy_for(f"https://{host}/", {"https_proxy": "http://p", "no_proxy": no_proxy})
