"""Connections to hosts and proxies, each with the trust that its host gets. The one door to urllib3 and ssl.

Imported with the first request. One request is one exchange here; whether it is
sent again, and where a redirect leads, is decided in transport.py.
"""

from __future__ import annotations

import ssl
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import unquote

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError, InsecureRequestWarning, ProxySchemeUnsupported

from ..errors import InvalidInput
from .answers import Answer
from .faults import translated
from .hosts import HostSettings
from .messages import CHUNK, split_url
from .proxies import proxy_for

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .messages import HttpRequest

USER_AGENT = "argosy"


class Connections:
    """Open connections, kept for the next request. Used by several threads."""

    def __init__(self, environ: Mapping[str, str]) -> None:
        self._environ = environ
        self._lock = threading.Lock()
        #: {(proxy's URL or None, https or not, what certificates are asked for): urllib3's PoolManager}
        self._pools: dict[tuple[str | None, bool, tuple[object, ...]], urllib3.PoolManager] = {}
        #: {what certificates are asked for: made with the first address that needs it}
        self._contexts: dict[tuple[object, ...], ssl.SSLContext] = {}

    def exchange(
        self, request: HttpRequest, settings: HostSettings, *, connect_timeout_s: float, read_timeout_s: float
    ) -> tuple[int, Mapping[str, str], Body]:
        """Send *request* once: status, headers, body. Raises Unavailable, InvalidInput, Unsupported."""
        pool = self._pool(request.url, settings)
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        body = request.open_body() if request.open_body is not None else None
        # urllib3's time for connecting is that for each piece of a body too, which a busy disk there holds up.
        begin_s = connect_timeout_s if body is None else max(connect_timeout_s, read_timeout_s)
        if body is not None or request.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(request.body_size)
        try:
            raw = pool.urlopen(
                request.method,
                request.url,
                body=_chunks(body) if body is not None else None,
                headers=headers,
                timeout=urllib3.Timeout(connect=begin_s, read=read_timeout_s),
                retries=False,
                redirect=False,
                preload_content=False,
                decode_content=False,
            )
        except (HTTPError, ProxySchemeUnsupported) as error:
            raise translated(error, request.url) from error
        finally:
            if body is not None:
                body.close()
        return raw.status, raw.headers, Body(raw, request.url)

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for manager in self._pools.values():
                for host in manager.pools.keys():  # noqa: SIM118  # it cannot be iterated over
                    manager.pools[host].close()  # clear() alone leaves that to the garbage collector
                manager.clear()
            self._pools.clear()

    def _pool(self, url: str, settings: HostSettings) -> urllib3.PoolManager:
        proxy, secure = proxy_for(url, self._environ), url.startswith("https:")
        trust = (settings.insecure, settings.certificates) if secure else ()
        with self._lock:
            if (proxy, secure, trust) not in self._pools:
                self._pools[proxy, secure, trust] = self._make_pool(proxy, settings if secure else None)
            return self._pools[proxy, secure, trust]

    def _context(self, settings: HostSettings) -> ssl.SSLContext:
        trust = (settings.insecure, settings.certificates)
        if trust not in self._contexts:
            self._contexts[trust] = tls_context(self._environ, settings)
        return self._contexts[trust]

    def _make_pool(self, proxy: str | None, settings: HostSettings | None) -> urllib3.PoolManager:
        options: dict[str, Any] = {"maxsize": 8, "retries": False, "blocksize": CHUNK}
        if settings is not None:
            options["ssl_context"] = self._context(settings)
        manager = urllib3.PoolManager(**options) if proxy is None else self._through(proxy, options)
        manager.pool_classes_by_scheme = {"http": _Pool, "https": _SecurePool}
        return manager

    def _through(self, proxy: str, options: dict[str, Any]) -> urllib3.ProxyManager:
        parts = split_url(proxy)
        if parts.scheme == "https":
            options["proxy_ssl_context"] = self._context(HostSettings())
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            options["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=secret)
        try:
            return urllib3.ProxyManager(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", **options)
        except (HTTPError, ProxySchemeUnsupported) as error:
            raise translated(error, proxy) from error


class Body:
    """A response's bytes from urllib3, its errors made ours."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self._url = url

    def read(self, count: int, /) -> bytes:
        try:
            data: bytes = self._raw.read(count, decode_content=False)
        except HTTPError as error:
            self.close()
            raise translated(error, self._url) from error
        if not data:
            self._raw.release_conn()
        return data

    def close(self) -> None:
        self._raw.close()


class _Connection(HTTPConnection):
    response_class = Answer


class _SecureConnection(HTTPSConnection):
    response_class = Answer


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = _Connection


class _SecurePool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _SecureConnection


def tls_context(environ: Mapping[str, str], settings: HostSettings) -> ssl.SSLContext:
    """The system's CAs, or those that SSL_CERT_FILE and SSL_CERT_DIR name, and what is said of one host. Costs 25 ms.

    Raises InvalidInput (ca-file-invalid, certificates-invalid).
    """
    cafile, capath = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    try:
        context = ssl.create_default_context(cafile=cafile, capath=capath)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"cannot read the certificates of {cafile or capath}",
            code="ca-file-invalid",
            context=str(error),
            hint="SSL_CERT_FILE and SSL_CERT_DIR name CA certificates in PEM form",
        ) from error
    if settings.certificates.ca_files or cafile or capath:
        # As docker's and podman's TLS library: the certificate of a small lab's CA may lack fields that
        # Python 3.13 insists on, and one in the middle of a chain may be trusted.
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    for path in settings.certificates.ca_files:
        with _blaming(path):
            context.load_verify_locations(path)
    for certificate, key in reversed(settings.certificates.client_pairs):  # of several the last one loaded is shown
        with _blaming(certificate):
            context.load_cert_chain(certificate, key or None, password="")  # nobody is asked on the terminal
    if settings.insecure:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        urllib3.disable_warnings(InsecureRequestWarning)
    return context


@contextmanager
def _blaming(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:  # ssl's errors are such
        raise InvalidInput(
            f"cannot use the certificate {path}",
            code="certificates-invalid",
            context=error.strerror or str(error),
            hint="it must be in PEM form and readable, and a key without a passphrase must belong to it",
        ) from error


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    while part := body.read(CHUNK):
        yield part
