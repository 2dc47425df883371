"""Running the registry: a socket, one or more uvicorn processes, and a clean end.

Listening beyond this machine is refused until somebody says that anonymous
strangers may write, because nothing here asks who they are. uvicorn comes with
the `registry` extra and is imported here alone.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import ipaddress
import logging
import os
import signal
import socket
import stat
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, InvalidInput, Unauthorized, Unsupported
from ..linux import syscalls
from ..linux.files import translate
from .storage import ensure_folder

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from uvicorn import Server

BACKLOG = 1024  # connections that wait to be accepted; Linux caps it at net.core.somaxconn
GRACE_S = 15  # seconds that running requests have to end after SIGTERM; podman and systemd kill later than that
KEEP_ALIVE_S = 75  # seconds an idle connection stays; a Go client's idle ones live 90, and ours must not be the last
DISK_THREADS = 16  # a process; they wait for the disk or hash with the interpreter lock released
_RESTART_PAUSE_S = 1.0  # before a worker that died is started again
_WATCHED = (signal.SIGTERM, signal.SIGINT, signal.SIGCHLD)
_log = logging.getLogger("argosy.registry")


class Address(msgspec.Struct, frozen=True, kw_only=True):
    """Where to listen: a host and port, or a unix socket."""

    host: str = ""
    port: int = 0
    path: str = ""

    @classmethod
    def parse(cls, text: str) -> Address:
        """`HOST:PORT`, `[::1]:5000`, `:5000` (loopback), `unix:/path`. Raises InvalidInput (listen-invalid)."""
        if text.startswith("unix:"):
            if not text.removeprefix("unix:").startswith("/"):
                raise _invalid(text, "a unix socket needs an absolute path")
            return cls(path=text.removeprefix("unix:"))
        host, colon, port = text.rpartition(":")
        if not colon or not (port.isascii() and port.isdecimal()) or int(port) > 65535:
            raise _invalid(text, "the port is missing or no number up to 65535")
        if host.startswith("[") != host.endswith("]") or (":" in host and not host.startswith("[")):
            raise _invalid(text, "an IPv6 address stands in brackets")
        return cls(host=host.strip("[]") or "127.0.0.1", port=int(port))


def listen(address: Address, *, anonymous_write: bool = False) -> socket.socket:
    """A listening socket. Port 0 takes a free one; a unix socket is for this user alone unless *anonymous_write*.

    Raises Unauthorized (listen-not-loopback) for an address that others can reach
    unless *anonymous_write*, Conflict (address-in-use), InvalidInput (host-unknown).
    """
    if address.path:
        return _listen_unix(address.path, 0o666 if anonymous_write else 0o600)
    try:
        family, _, _, _, target = socket.getaddrinfo(
            address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
    except OSError as error:
        raise InvalidInput(f"no such host: {address.host!r}", code="host-unknown", context=str(error)) from error
    if not anonymous_write and not ipaddress.ip_address(str(target[0]).partition("%")[0]).is_loopback:
        raise Unauthorized(
            f"refused to listen on {address.host}:{address.port}",
            code="listen-not-loopback",
            context="everyone who reaches this address could read, overwrite and delete every image: "
            "the registry does not ask who they are (accounts and TLS come in a later version)",
            hint="listen on 127.0.0.1, or add --insecure-anonymous-write if all who reach it may do that",
        )
    opened = socket.socket(family, socket.SOCK_STREAM)
    opened.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    return _bound(opened, target, f"{address.host}:{address.port}")


def address_of(listening: socket.socket) -> str:
    """The address in the form that `listen` takes, the real port filled in."""
    name = listening.getsockname()
    if listening.family == socket.AF_UNIX:
        return f"unix:{name}"
    host, port = name[:2]
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def serve(
    root: Path,
    listening: socket.socket,
    *,
    workers: int = 1,
    access_log: bool = False,
    ready: Callable[[], None] = lambda: None,
) -> None:
    """Serve the registry in *root* until SIGTERM or SIGINT, then let running requests end (GRACE_S).

    *ready* is called once the socket answers (connections wait in its backlog
    before that). Returns with the socket closed; a unix socket's file is removed.
    Raises Unsupported (registry-not-installed) and what making *root* may raise.
    """
    path = listening.getsockname() if listening.family == socket.AF_UNIX else ""
    try:
        _require_uvicorn()
        _require_folder(root)
        _log_to_stderr(access_log)
        if workers == 1:
            _work(root, listening, ready)
        else:
            _supervise(root, listening, workers, ready)
    finally:
        listening.close()
        if path:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)


def _work(root: Path, listening: socket.socket, ready: Callable[[], None]) -> None:
    """One event loop, in this process, until a signal ends it."""
    import uvicorn
    import uvloop

    from .app import create_app

    config = uvicorn.Config(
        create_app(root),
        http="httptools",
        loop="uvloop",
        ws="none",
        lifespan="on",
        access_log=False,
        log_config=None,
        log_level="error",  # its warnings tell of every client that tries TLS first
        server_header=False,
        proxy_headers=False,
        backlog=BACKLOG,
        timeout_keep_alive=KEEP_ALIVE_S,
        timeout_graceful_shutdown=GRACE_S,
    )
    server = uvicorn.Server(config)

    def stop(*_: object) -> None:
        # Before uvicorn has its own handlers this ends the start; afterwards uvicorn raises the
        # signal that ended it once more, and this makes that a normal end.
        server.should_exit = True

    async def run() -> None:
        loop = asyncio.get_running_loop()
        loop.set_default_executor(ThreadPoolExecutor(DISK_THREADS, thread_name_prefix="disk"))
        watching = asyncio.ensure_future(_tell(server, ready))
        await server.serve(sockets=[listening])
        await watching

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _WATCHED)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(run())


async def _tell(server: Server, ready: Callable[[], None]) -> None:
    while not (server.started or server.should_exit):
        await asyncio.sleep(0.005)
    if server.started:
        ready()


def _supervise(root: Path, listening: socket.socket, workers: int, ready: Callable[[], None]) -> None:
    """Fork *workers* processes that accept from one socket; start those again that die."""
    signal.pthread_sigmask(signal.SIG_BLOCK, _WATCHED)  # so that none is lost between two looks
    children = {_fork(root, listening) for _ in range(workers)}
    ready()
    stopping = False
    while children:
        if signal.sigwait(_WATCHED) != signal.SIGCHLD:
            stopping = True
            for child in children:
                os.kill(child, signal.SIGTERM)  # ours until it is waited for, so the number is not another's
        for child in [child for child in children if _ended(child, stopping)]:
            children.discard(child)
            if not stopping:
                time.sleep(_RESTART_PAUSE_S)
                children.add(_fork(root, listening))


def _ended(child: int, expected: bool) -> bool:
    pid, status = os.waitpid(child, os.WNOHANG)
    if pid and not expected:
        _log.error("worker %d ended with %d; starting another", pid, os.waitstatus_to_exitcode(status))
    return pid != 0


def _fork(root: Path, listening: socket.socket) -> int:
    """A worker process; it ends with its parent, even when that is killed."""
    parent = os.getpid()
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    status = 1
    try:
        syscalls.prctl(syscalls.PR_SET_PDEATHSIG, signal.SIGTERM)
        if os.getppid() == parent:
            _work(root, listening, lambda: None)
        status = 0
    except BaseException:
        _log.exception("worker failed")
    finally:
        sys.stderr.flush()
        os._exit(status)  # not through the exit handlers, which are the parent's


def _listen_unix(path: str, mode: int) -> socket.socket:
    """Replaces the socket file that a killed server left, and nothing else."""
    opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    with contextlib.suppress(FileNotFoundError):
        if not stat.S_ISSOCK(os.lstat(path).st_mode):
            opened.close()
            raise Conflict(f"{path} exists and is no socket", code="address-in-use", hint="name another path")
        try:
            opened.connect(path)
        except ConnectionRefusedError:  # nobody listens any more
            os.unlink(path)
        else:
            opened.close()
            raise _in_use(f"unix:{path}")
    before = os.umask(0o777 & ~mode)
    try:
        return _bound(opened, path, f"unix:{path}")
    finally:
        os.umask(before)


def _bound(opened: socket.socket, target: object, shown: str) -> socket.socket:
    try:
        opened.bind(target)  # type: ignore[arg-type]  # what getaddrinfo gave, or a path
        opened.listen(BACKLOG)
    except OSError as error:
        opened.close()
        if error.errno == errno.EADDRINUSE:
            raise _in_use(shown) from error
        raise translate(error, "listen on", shown) from error
    return opened


def _in_use(shown: str) -> Conflict:
    return Conflict(
        f"cannot listen on {shown}",
        code="address-in-use",
        context="another program listens there already",
        hint="stop it, or take another address with --listen (port 0 takes a free one)",
    )


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"not an address to listen on: {text!r}",
        code="listen-invalid",
        context=why,
        hint="addresses look like 127.0.0.1:5000, [::1]:5000 or unix:/run/argosy/registry.sock",
    )


def _require_folder(root: Path) -> None:
    """Better now than at the first push."""
    ensure_folder(str(root))
    if not root.is_dir():
        raise InvalidInput(f"{root} is no folder", code="not-a-folder", hint="name another with --root")


def _require_uvicorn() -> None:
    try:
        import httptools  # noqa: F401
        import uvicorn  # noqa: F401
        import uvloop  # noqa: F401
    except ImportError as error:
        raise Unsupported(
            "the registry server is not installed",
            code="registry-not-installed",
            context=f"module {error.name!r} is missing",
            hint="pip install 'argosy[registry]'",
        ) from error


def _log_to_stderr(access_log: bool) -> None:
    """Faults always, one line a request on demand; uvicorn's own talk only when it is one."""
    logging.basicConfig(format="%(asctime)s %(message)s", level=logging.WARNING)
    _log.setLevel(logging.INFO if access_log else logging.WARNING)
