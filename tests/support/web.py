"""Small real web servers for tests of clients: a function from requests to replies, on a free loopback port.

    with serving(lambda seen: Reply(body=b"hello")) as site:
        site.address        # "127.0.0.1:40123"
        site.seen           # what was asked, in order

Replies can also be bad: cut off, corrupt, slow. `forward` passes a request on to
another server, which makes a proxy out of any such function.
"""

from __future__ import annotations

import http.client
import socket
import threading
from collections.abc import Callable, Mapping
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    import ssl
    from collections.abc import Iterator

_HOP_HEADERS = frozenset({"connection", "transfer-encoding", "keep-alive", "content-length", "date", "server"})


class Seen(msgspec.Struct, frozen=True, kw_only=True):
    """A request as it arrived; header names are lower case."""

    method: str
    target: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]

    @property
    def line(self) -> str:
        return f"{self.method} {self.target}"


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """What to send. *length* is Content-Length where it shall differ from the body's; -1 sends none."""

    status: int = 200
    headers: Mapping[str, str] = {}
    body: bytes = b""
    length: int | None = None
    #: drop the connection after this many bytes of the body
    cut: int | None = None
    #: wait for the site's end after this many bytes of the body
    stall: int | None = None


class Site:
    """A running server."""

    def __init__(self, answer: Callable[[Seen], Reply], tls: ssl.SSLContext | None) -> None:
        self.answer = answer
        self.seen: list[Seen] = []
        self.ended = threading.Event()
        self._server = _Server(self)
        self._scheme = "https" if tls else "http"
        if tls is not None:  # the handshake is part of the first read, and so in the connection's own thread
            self._server.socket = tls.wrap_socket(self._server.socket, server_side=True, do_handshake_on_connect=False)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"{self._scheme}://{self.address}"

    @property
    def lines(self) -> list[str]:
        return [seen.line for seen in self.seen]


class _Server(ThreadingHTTPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, site: Site) -> None:
        self.site = site
        self.open_sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        self.open_sockets.add(request)
        super().process_request(request, client_address)

    def shutdown_request(self, request: Any) -> None:
        self.open_sockets.discard(request)
        super().shutdown_request(request)

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Clients of these tests leave early on purpose."""


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: _Server

    def _respond(self) -> None:
        site = self.server.site
        headers = {name.lower(): value for name, value in self.headers.items()}
        body = self.rfile.read(int(headers.get("content-length", 0)))
        seen = Seen(method=self.command, target=self.path, headers=headers, body=body)
        site.seen.append(seen)
        self._send(site.answer(seen))

    do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = do_DELETE = _respond  # noqa: N815  # http.server's names

    def _send(self, reply: Reply) -> None:
        self.send_response(reply.status)
        for name, value in reply.headers.items():
            self.send_header(name, value)
        length = len(reply.body) if reply.length is None else reply.length
        if length >= 0:
            self.send_header("Content-Length", str(length))
        else:
            self.close_connection = True
        self.end_headers()
        if self.command == "HEAD":
            return
        stop = min(len(reply.body), *(n for n in (reply.cut, reply.stall, len(reply.body)) if n is not None))
        self.wfile.write(reply.body[:stop])
        self.wfile.flush()
        if reply.stall is not None:
            self.server.site.ended.wait(60)
        if reply.stall is not None or reply.cut is not None:
            self.close_connection = True

    def log_message(self, format: str, *args: Any) -> None:
        pass


@contextmanager
def serving(answer: Callable[[Seen], Reply], *, tls: ssl.SSLContext | None = None) -> Iterator[Site]:
    """A site that answers with *answer* (from several threads) until the block ends; see tls.py for *tls*."""
    site = Site(answer, tls)
    server = site._server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield site
    finally:
        site.ended.set()
        server.shutdown()
        for connection in tuple(server.open_sockets):
            with suppress(OSError):  # the other side may have been faster
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join()


def forward(address: str, seen: Seen) -> Reply:
    """What the server at *address* answers to the same request. Redirects and locations come back to the caller."""
    connection = http.client.HTTPConnection(address, timeout=30)
    try:
        headers = {name: value for name, value in seen.headers.items() if name not in _HOP_HEADERS}
        body = seen.body if "content-length" in seen.headers else None
        connection.request(seen.method, seen.target, body, headers)
        response = connection.getresponse()
        named = {name: value for name, value in response.getheaders() if name.lower() not in _HOP_HEADERS}
        length = response.headers.get("Content-Length")
        return Reply(
            status=response.status,
            headers=named,
            body=response.read(),
            length=int(length) if length is not None and seen.method == "HEAD" else None,
        )
    finally:
        connection.close()
