"""A certificate authority of the tests' own, made with openssl, and TLS contexts for servers.

lab = Authority(tmp_path / "ca")
with serving(answer, tls=lab.server("127.0.0.1")) as site: ...
with serving(answer, tls=lab.server("127.0.0.1", asks_clients=True)) as site: ...
lab.ca_file, lab.client("ann")      # what goes into certs.d
"""

from __future__ import annotations

import ssl
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


class Authority:
    """Its own certificate is *ca_file*; everything lies in *folder*."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self._folder = folder
        self.ca_file = folder / "ca.pem"
        files = ("-keyout", str(folder / "ca.key"), "-out", str(self.ca_file))
        _openssl("req", "-x509", *_KEY, *files, "-subj", f"/CN=CA {folder.name}", "-days", "2")

    def server(self, *names: str, asks_clients: bool = False) -> ssl.SSLContext:
        """The context of a server that is known under *names*; it may insist on certificates of this authority."""
        context = server_context(*self.issue(*names))
        if asks_clients:
            context.load_verify_locations(self.ca_file)
            context.verify_mode = ssl.CERT_REQUIRED
        return context

    def client(self, name: str) -> tuple[Path, Path]:
        """(certificate, key) files."""
        return self.issue(name)

    def issue(self, *names: str) -> tuple[Path, Path]:
        """(certificate, key) files for hosts, addresses or people."""
        stem = self._folder / names[0].replace("*", "_")
        certificate, key, request = stem.with_suffix(".crt"), stem.with_suffix(".key"), stem.with_suffix(".csr")
        extensions = stem.with_suffix(".ext")
        extensions.write_text(f"subjectAltName={','.join(map(_alternative, names))}\n")
        _openssl("req", *_KEY, "-keyout", str(key), "-out", str(request), "-subj", f"/CN={names[0]}")
        signer = ("-CA", str(self.ca_file), "-CAkey", str(self._folder / "ca.key"), "-CAcreateserial")
        files = ("-in", str(request), "-out", str(certificate), "-extfile", str(extensions))
        _openssl("x509", "-req", *signer, *files, "-days", "2")
        return certificate, key


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context


def _alternative(name: str) -> str:
    try:
        return f"IP:{ip_address(name)}"
    except ValueError:
        return f"DNS:{name}"


def _openssl(*words: str) -> None:
    done = subprocess.run(["openssl", *words], capture_output=True, check=False)
    assert done.returncode == 0, done.stderr.decode()
