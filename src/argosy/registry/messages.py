"""What handlers take and give: a request with its body as blocks, a response with bytes or a piece of a file.

A thin layer over ASGI's dictionaries; nothing here knows the registry's routes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

import msgspec

from ..errors import Conflict, Unavailable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
    from typing import Any, TypeVar

    #: ASGI's messages are dictionaries of mixed values by definition.
    Scope = Mapping[str, Any]
    Receive = Callable[[], Awaitable[Mapping[str, Any]]]
    Send = Callable[[dict[str, Any]], Awaitable[None]]

    _T = TypeVar("_T")

BLOCK = 1 << 20  # bytes handed to a thread at once; its cost (about 60 µs) is lost beside hashing them
STALL_S = 60.0  # seconds without a byte of a body, after which the sender is taken for dead


class ClientGone(Exception):
    """The client closed the connection; nobody reads an answer."""


class FileBody(msgspec.Struct, frozen=True, kw_only=True):
    """A body made of stretches of an open file, and of bytes between them; whoever sends it closes *fd*."""

    fd: int
    #: bytes as they are, or (offset, count) of bytes in the file
    pieces: tuple[bytes | tuple[int, int], ...]

    @property
    def size(self) -> int:
        return sum(len(piece) if isinstance(piece, bytes) else piece[1] for piece in self.pieces)

    def blocks(self) -> Iterator[bytes | tuple[int, int]]:
        """The pieces, none of them longer than BLOCK or empty."""
        for piece in self.pieces:
            if isinstance(piece, bytes):
                yield piece
                continue
            offset, count = piece
            for start in range(offset, offset + count, BLOCK):
                yield start, min(BLOCK, offset + count - start)


class Response(msgspec.Struct, frozen=True):
    """Status, headers (lower-case names) and body. Content-Length is added by whoever sends it."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes | FileBody = b""


class Request:
    """One HTTP request: head in hand, body still in the socket."""

    def __init__(self, scope: Scope, receive: Receive) -> None:
        self.method: str = scope["method"]
        #: percent-decoded
        self.path: str = scope["path"]
        #: {lower-case name: value}; of repeated ones the last
        self.headers = {name.decode("latin-1").lower(): value.decode("latin-1") for name, value in scope["headers"]}
        self._query_string: bytes = scope.get("query_string", b"")
        self._receive = receive
        #: the wait for the next bytes, while there is one
        self._waits: asyncio.Timeout | None = None
        self._is_superseded = False

    def query(self, name: str) -> str | None:
        """The first value of a query parameter; None when it is absent."""
        values = self.queries(name)
        return values[0] if values else None

    def queries(self, name: str) -> list[str]:
        text = self._query_string.decode("latin-1")
        return parse_qs(text, keep_blank_values=True, max_num_fields=100).get(name, []) if text else []

    async def blocks(self) -> AsyncIterator[list[bytes]]:
        """The body in blocks of about BLOCK bytes, each as the pieces that came from the socket.

        Raises ClientGone when it breaks off (also when Content-Length promised more),
        Unavailable (request-stalled) when nothing comes for STALL_S, Conflict
        (request-superseded).
        """
        pieces: list[bytes] = []
        size, more = 0, True
        while more:
            try:
                data, more = await self._next()
            except (ClientGone, Unavailable, Conflict):
                if pieces:  # what came may be continued
                    yield pieces
                raise
            if data:
                pieces.append(data)
                size += len(data)
            if size >= BLOCK:
                yield pieces
                pieces, size = [], 0
        if pieces:
            yield pieces

    async def read(self, limit: int) -> bytes | None:
        """The whole body; None when it is longer than *limit*. Raises as blocks does."""
        length = self.headers.get("content-length", "")
        if length.isdecimal() and int(length) > limit:
            return None
        body = bytearray()
        async for pieces in self.blocks():
            body += b"".join(pieces)
            if len(body) > limit:
                return None
        return bytes(body)

    def supersede(self, quiet_s: float) -> None:
        """End the reading of the body if nothing has come for *quiet_s*: its client continues by another request."""
        waits, now = self._waits, asyncio.get_running_loop().time()
        if waits is not None and not waits.expired() and (waits.when() or now) - STALL_S + quiet_s <= now:
            self._is_superseded = True
            waits.reschedule(now)

    async def gone(self) -> None:
        """Return when the client has closed the connection; for requests without a body."""
        while (await self._receive())["type"] != "http.disconnect":
            pass

    async def _next(self) -> tuple[bytes, bool]:
        try:
            async with asyncio.timeout(STALL_S) as self._waits:
                message = await self._receive()
        except TimeoutError as error:
            if self._is_superseded:
                raise Conflict("another request continues this upload", code="request-superseded") from error
            raise Unavailable(
                "the rest of the request did not come",
                code="request-stalled",
                context=f"no byte for {STALL_S:g} s",
                hint="ask for the upload's status and continue from there",
            ) from error
        finally:
            self._waits = None
        if message["type"] == "http.disconnect":
            raise ClientGone
        return message.get("body", b""), message.get("more_body", False)


async def in_thread(function: Callable[..., _T], *arguments: object) -> _T:
    """Run what may block (disk, hashing) off the event loop; the pool is the loop's default executor."""
    return await start_in_thread(function, *arguments)


def start_in_thread(function: Callable[..., _T], *arguments: object) -> asyncio.Future[_T]:
    """As in_thread, but without waiting for it."""
    return asyncio.get_running_loop().run_in_executor(None, function, *arguments)
