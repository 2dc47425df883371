"""A loopback relay of bytes before a registry: connections that break or stall in the middle of an upload.

    with relaying(registry.address) as relay:
        relay.cuts = [1000]         # the next connection breaks after 1000 bytes from the client
        ...
        relay.carried               # bytes that went from the client to the registry

Other than flaky.py it knows nothing of HTTP, so that half of a request reaches the registry.
"""

from __future__ import annotations

import select
import socket
import struct
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 64 * 1024
_PATIENCE_S = 60
_RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing resets the connection; the registry sees an ordinary end


class Relay:
    """A running relay."""

    def __init__(self, upstream: str) -> None:
        host, _, port = upstream.rpartition(":")
        self.upstream = (host, int(port))
        #: for each connection to come: bytes from the client after which it breaks; those past the list do not
        self.cuts: list[int] = []
        #: bytes, of all connections together, after which nothing more is carried until it is None again
        self.stall_at: int | None = None
        self.carried = 0
        self.connections = 0
        self._lock = threading.Lock()
        self._ended = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=64)

    @property
    def address(self) -> str:
        return f"127.0.0.1:{self._listener.getsockname()[1]}"

    def reset(self) -> None:
        self.cuts, self.stall_at, self.carried, self.connections = [], None, 0, 0

    def run(self) -> None:
        threads = []
        while not self._ended.is_set():
            if not select.select([self._listener], [], [], 0.05)[0]:
                continue
            client, _ = self._listener.accept()
            thread = threading.Thread(target=self._serve, args=(client,))
            threads.append(thread)
            thread.start()
        for thread in threads:
            thread.join()
        self._listener.close()

    def wait_for(self, count: int) -> None:
        """Return when that many bytes have come from clients."""
        deadline = time.monotonic() + _PATIENCE_S
        while self.carried < count:
            assert time.monotonic() < deadline, f"{self.carried} of {count} bytes came"
            time.sleep(0.005)

    def end(self) -> None:
        self._ended.set()

    def _serve(self, client: socket.socket) -> None:
        with self._lock:
            self.connections += 1
            left = self.cuts.pop(0) if self.cuts else None
        with client, socket.socket() as server:
            try:
                server.connect(self.upstream)
                self._pump(client, server, left)
            except OSError:  # either side has gone, or the registry is not there at all
                pass
            with suppress(OSError):
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)

    def _pump(self, client: socket.socket, server: socket.socket, left: int | None) -> None:
        while not self._ended.is_set() and left != 0:
            stalled = self.stall_at is not None and self.carried >= self.stall_at
            for ready in select.select([server] if stalled else [client, server], [], [], 0.05)[0]:
                data = ready.recv(_BLOCK if ready is server else self._most(left))
                if not data:
                    return
                (client if ready is server else server).sendall(data)
                if ready is client:
                    with self._lock:
                        self.carried += len(data)
                    left = left - len(data) if left is not None else None

    def _most(self, left: int | None) -> int:
        stall = self.stall_at - self.carried if self.stall_at is not None else _BLOCK
        return max(1, min(_BLOCK, stall, left if left is not None else _BLOCK))


@contextmanager
def relaying(upstream: str) -> Iterator[Relay]:
    """A relay before the server at *upstream*, faithful until it is told otherwise."""
    relay = Relay(upstream)
    thread = threading.Thread(target=relay.run)
    thread.start()
    try:
        yield relay
    finally:
        relay.end()
        thread.join()
