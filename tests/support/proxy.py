"""A web proxy that knows where some names are: hosts of the real internet become sites of a test.

with proxying({"nvcr.io:443": nvcr.address, "cdn.test:80": storage.address}) as proxy:
    Transport({"https_proxy": proxy.url})
    proxy.asked         # what it was asked for: "CONNECT nvcr.io:443", "GET http://cdn.test/x"
"""

from __future__ import annotations

import contextlib
import socket
import threading
from contextlib import contextmanager
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping


class Proxy:
    """*places* are {host:port: address of a site}; *login* is the value that Proxy-Authorization must have."""

    def __init__(self, places: Mapping[str, str], login: str | None) -> None:
        self.places = places
        self.login = login
        self.asked: list[str] = []
        self._server = _Server(self)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._server.server_address[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"


class _Server(ThreadingTCPServer):
    daemon_threads = False
    block_on_close = True

    def __init__(self, proxy: Proxy) -> None:
        self.proxy = proxy
        self.open_sockets: set[socket.socket] = set()
        super().__init__(("127.0.0.1", 0), _Handler)

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients leave as they like."""


class _Handler(StreamRequestHandler):
    server: _Server

    def handle(self) -> None:
        proxy = self.server.proxy
        line = self.rfile.readline().decode().strip()
        if not line:
            return None
        method, target, _ = line.split(" ")
        headers = list(iter(lambda: self.rfile.readline().decode().strip(), ""))
        proxy.asked.append(f"{method} {target}")
        logins = [value for name, _, value in (text.partition(": ") for text in headers) if name.lower() == _LOGIN]
        if proxy.login is not None and logins != [proxy.login]:
            return self._answer("407 Proxy Authentication Required")
        host = target if method == "CONNECT" else _host_of(target)
        if host not in proxy.places:
            return self._answer("502 Bad Gateway")
        there = proxy.places[host].rpartition(":")
        with socket.create_connection((there[0], int(there[2])), timeout=30) as onward:
            if method == "CONNECT":
                self.wfile.write(b"HTTP/1.1 200 Connection established\r\n\r\n")
            else:
                kept = [text for text in headers if text.partition(":")[0].lower() not in (_LOGIN, "connection")]
                path = "/" + target.split("/", 3)[3] if target.count("/") > 2 else "/"
                head = "\r\n".join([f"{method} {path} HTTP/1.1", *kept, "Connection: close", "", ""])
                onward.sendall(head.encode())
            self._relay(onward)
        return None

    def _answer(self, status: str) -> None:
        self.wfile.write(f"HTTP/1.1 {status}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n".encode())

    def _relay(self, onward: socket.socket) -> None:
        self.server.open_sockets |= {self.connection, onward}
        back = threading.Thread(target=_copy, args=(onward, self.connection))
        back.start()
        _copy(self.connection, onward)
        back.join()
        self.server.open_sockets -= {self.connection, onward}


_LOGIN = "proxy-authorization"


def _host_of(url: str) -> str:
    host = url.split("/", 3)[2]
    return host if ":" in host else f"{host}:80"


def _copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65536):
            target.sendall(data)
    with contextlib.suppress(OSError):
        target.shutdown(socket.SHUT_WR)


@contextmanager
def proxying(places: Mapping[str, str], *, login: str | None = None) -> Iterator[Proxy]:
    """A proxy on a loopback port; whatever is not in *places* it cannot reach."""
    proxy = Proxy(places, login)
    server = proxy._server
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield proxy
    finally:
        server.shutdown()
        for connection in tuple(server.open_sockets):
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        server.server_close()
        thread.join()
