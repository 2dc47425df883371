"""Servers below HTTP: each connection is handled by a function that may send what no library would.

    def half(peer):
        peer.send("HTTP/1.1 200 OK\\r\\nContent-")
        peer.reset()

    with raw_serving(half) as site:
        site.url, site.heads        # the requests' heads, in order

A function is called for each request; several are taken in turn, the last one for all that follow.
"""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Act = Callable[["Peer"], None]


class Peer:
    """One request on one connection."""

    def __init__(self, connection: socket.socket, head: str, ended: threading.Event) -> None:
        self._connection = connection
        self.head = head
        self.ended = ended
        self.is_open = True

    def send(self, data: str | bytes) -> None:
        self._connection.sendall(data.encode() if isinstance(data, str) else data)

    def drip(self, data: str | bytes, pause_s: float) -> None:
        """A byte, a pause, and so on, until all is sent or the other side has gone."""
        for byte in data.encode() if isinstance(data, str) else data:
            self.send(bytes([byte]))
            if self.ended.wait(pause_s):
                return

    def reset(self) -> None:
        """End the connection with RST."""
        self._connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.close()

    def close(self) -> None:
        self.is_open = False
        self._connection.close()


class RawSite:
    def __init__(self, acts: tuple[Act, ...]) -> None:
        self._acts = list(acts)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._connections: list[socket.socket] = []
        self.heads: list[str] = []
        self.ended = threading.Event()

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    @property
    def url(self) -> str:
        return f"http://{self.address}"

    def serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._connections.append(connection)
            thread = threading.Thread(target=self._attend, args=(connection,))
            self._threads.append(thread)
            thread.start()

    def _attend(self, connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            while head := _read_head(connection):
                self.heads.append(head)
                act = self._acts.pop(0) if len(self._acts) > 1 else self._acts[0]
                peer = Peer(connection, head, self.ended)
                act(peer)
                if not peer.is_open:
                    return

    def close(self) -> None:
        self.ended.set()
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        for connection in self._connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()


def _read_head(connection: socket.socket) -> str:
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        byte = connection.recv(1)
        if not byte:
            return ""
        head += byte
    return head.decode()


@contextmanager
def raw_serving(*acts: Act) -> Iterator[RawSite]:
    site = RawSite(acts)
    thread = threading.Thread(target=site.serve)
    thread.start()
    try:
        yield site
    finally:
        site.close()
        thread.join()
