"""Request bodies as the handlers see them, from ASGI messages without a server."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from argosy.errors import Unavailable
from argosy.registry import errors, messages
from argosy.registry.messages import BLOCK, ClientGone, Request

if TYPE_CHECKING:
    from collections.abc import Mapping

    import pytest

GONE = {"type": "http.disconnect"}


def part(body: bytes, more: bool = True) -> dict[str, Any]:
    return {"type": "http.request", "body": body, "more_body": more}


def request(*parts: Mapping[str, Any], query: bytes = b"", length: str = "") -> Request:
    """A request whose body comes in *parts*; after them, silence."""
    waiting = list(parts)

    async def receive() -> Mapping[str, Any]:
        if not waiting:
            await asyncio.sleep(60)
        return waiting.pop(0)

    headers = [(b"Content-Length", length.encode())] if length else []
    scope = {"method": "PUT", "path": "/v2/", "headers": headers, "query_string": query}
    return Request(scope, receive)


async def collect(of: Request) -> tuple[list[int], Exception | None]:
    """(sizes of the blocks, what ended them)."""
    sizes: list[int] = []
    try:
        async for pieces in of.blocks():
            sizes.append(sum(map(len, pieces)))
    except (ClientGone, Unavailable) as error:
        return sizes, error
    return sizes, None


def test_a_body_comes_in_blocks() -> None:
    half = bytes(BLOCK // 2)
    body = request(part(half), part(b""), part(half), part(half), part(b"end", more=False))
    assert asyncio.run(collect(body)) == ([BLOCK, BLOCK // 2 + 3], None)


def test_what_came_before_the_client_left_is_not_lost() -> None:
    sizes, error = asyncio.run(collect(request(part(b"some"), GONE)))
    assert (sizes, type(error)) == ([4], ClientGone)


def test_a_body_that_stalls_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(messages, "STALL_S", 0.05)
    sizes, error = asyncio.run(collect(request(part(b"some"))))
    assert sizes == [4]
    assert isinstance(error, Unavailable)
    assert (error.code, error.context) == ("request-stalled", "no byte for 0.05 s")
    answer = errors.response(error)
    assert (answer.status, answer.headers["connection"]) == (408, "close")


def test_a_small_body_is_read_whole_and_a_long_one_is_not() -> None:
    assert asyncio.run(request(part(b"ab"), part(b"c", more=False)).read(3)) == b"abc"
    assert asyncio.run(request(part(b"ab"), part(b"cd", more=False)).read(3)) is None
    assert asyncio.run(request(length="4").read(3)) is None


def test_query_parameters_are_decoded() -> None:
    of = request(query=b"digest=sha256%3Aab&tag=a&tag=b&empty=")
    assert (of.query("digest"), of.queries("tag"), of.query("empty"), of.query("n")) == (
        "sha256:ab",
        ["a", "b"],
        "",
        None,
    )
