"""The CNCF reference registry (Debian's docker-registry) on a free loopback port.

    with docker_registry(tmp_path / "registry", login=True) as address:
        ...

Deletion is allowed. With *login* it asks for Basic authentication and knows USER
alone; with *tls* it speaks https with a certificate for 127.0.0.1 of its own,
FOLDER/cert.pem; with *authority* it has one from there and wants one of its clients;
with *mirror_of* it is a pull-through cache of a plain registry.
"""

from __future__ import annotations

import http.client
import shutil
import socket
import subprocess
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from .tls import Authority

USER, PASSWORD = "ann", "secret"
#: bcrypt, the only kind that this registry takes; nothing on a plain Debian makes it
_HTPASSWD = "ann:$2b$04$krLB/luL6cpnVLpNopywi.O.SKZRs3erUyvRa5SNfq3M8e8TrOg6K\n"
_START_S = 20.0

_CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: "{folder}/data"}}, delete: {{enabled: true}}}}
http: {{addr: "{address}"{tls}}}
"""
_TLS = ', tls: {{certificate: "{folder}/cert.pem", key: "{folder}/key.pem"{clients}}}'

_AUTH = 'auth: {{htpasswd: {{realm: "a, realm", path: "{folder}/htpasswd"}}}}\n'


@contextmanager
def docker_registry(
    folder: Path,
    *,
    login: bool = False,
    tls: bool = False,
    authority: Authority | None = None,
    mirror_of: str = "",
    address: str = "",
) -> Iterator[str]:
    """Give its «host:port» while it runs, *address* where one is named. What an earlier one kept is served again."""
    folder.mkdir(parents=True, exist_ok=True)
    address = address or _free_address()
    config = folder / "config.yml"
    text = _CONFIG + (_AUTH if login else "") + (f"proxy: {{{{remoteurl: http://{mirror_of}}}}}\n" if mirror_of else "")
    clients = f', clientcas: ["{authority.ca_file}"]' if authority else ""
    encrypted = _TLS.format(folder=folder, clients=clients) if tls or authority else ""
    config.write_text(text.format(folder=folder, address=address, tls=encrypted))
    if authority:
        for made, name in zip(authority.issue("127.0.0.1"), ("cert.pem", "key.pem"), strict=True):
            shutil.copy(made, folder / name)
    elif tls:
        _make_certificate(folder)
    (folder / "htpasswd").write_text(_HTPASSWD)
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(["docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        _await(address, process, folder / "log")
        yield address
    finally:
        process.terminate()
        process.wait()


def _make_certificate(folder: Path) -> None:
    words = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
    files = ["-keyout", str(folder / "key.pem"), "-out", str(folder / "cert.pem")]
    subprocess.run([*words, *names, *files], check=True, capture_output=True)


def _free_address() -> str:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def _await(address: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + _START_S
    while time.monotonic() < deadline and process.poll() is None:
        connection = http.client.HTTPConnection(address, timeout=5)
        try:
            connection.request("GET", "/v2/")
            connection.getresponse().read()
        except OSError:
            time.sleep(0.05)
        else:
            return
        finally:
            connection.close()
    raise AssertionError(f"docker-registry did not start:\n{log.read_text()}")
