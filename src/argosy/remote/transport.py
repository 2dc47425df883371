"""Requests on the wire: connections, TLS, proxies, redirects, retries. The one door to urllib3.

Decides nothing about registries: who may see a token is settled here only in so
far as an Authorization header never follows a redirect to another host. urllib3
and ssl are imported with the first request.
"""

from __future__ import annotations

import os
import threading
import time
from typing import TYPE_CHECKING, Any, BinaryIO
from urllib.parse import parse_qsl, unquote

import msgspec

from ..errors import Error, InvalidInput, Unavailable, Unsupported
from .messages import CHUNK, HttpRequest, HttpResponse, is_downgrade, join_url, split_url
from .proxies import is_loopback, proxy_for

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

USER_AGENT = "argosy"
REDIRECT_LIMIT = 8  # registries need two: to the storage's front door, and from there to a mirror
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_SECRET_WORDS = ("sig", "token", "key", "credential", "policy", "secret", "password")
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED = frozenset({408, 429, 503})  # not acted upon, so that any method may be sent again


class _Fault(msgspec.Struct, frozen=True):
    """What one of urllib3's errors means to us; *passing* faults are worth another attempt."""

    kind: type[Error]
    code: str
    what: str
    hint: str = ""
    passing: bool = False


_LOST = _Fault(Unavailable, "connection-lost", "the connection broke", passing=True)
_OURS = _Fault(Unavailable, "http-client", "the HTTP client failed")
_ADDRESS = _Fault(InvalidInput, "address-invalid", "the address is not one that can be used")
_TLS_HINT = "if its certificate is your own, name the CA's file in SSL_CERT_FILE; for plain http add --plain-http"
_PROXY_HINT = "look at http_proxy, https_proxy and no_proxy"
#: {class name in urllib3.exceptions: what it means}, each of them; a test compares the list with theirs.
FAULTS: dict[str, _Fault] = {
    "HTTPError": _OURS,
    "PoolError": _OURS,
    "RequestError": _OURS,
    "SSLError": _Fault(Unavailable, "tls-failed", "no trusted connection", _TLS_HINT),
    "ProxyError": _Fault(Unavailable, "proxy-failed", "the proxy does not serve", _PROXY_HINT, passing=True),
    "DecodeError": _OURS,
    "ProtocolError": _LOST,
    "ConnectionError": _LOST,
    "MaxRetryError": _OURS,
    "HostChangedError": _OURS,
    "TimeoutStateError": _OURS,
    "TimeoutError": _Fault(Unavailable, "timed-out", "no answer in time", passing=True),
    "ReadTimeoutError": _Fault(Unavailable, "timed-out", "no answer in time", passing=True),
    "ConnectTimeoutError": _Fault(Unavailable, "connect-timed-out", "cannot connect in time", passing=True),
    "NewConnectionError": _Fault(Unavailable, "cannot-connect", "cannot connect", passing=True),
    "NameResolutionError": _Fault(
        Unavailable, "name-not-resolved", "the name has no address", "check the spelling, and the DNS of this machine"
    ),
    "EmptyPoolError": _OURS,
    "FullPoolError": _OURS,
    "ClosedPoolError": _OURS,
    "LocationValueError": _ADDRESS,
    "LocationParseError": _ADDRESS,
    "URLSchemeUnknown": _ADDRESS,
    "ResponseError": _LOST,
    "ResponseNotChunked": _LOST,
    "BodyNotHttplibCompatible": _OURS,
    "IncompleteRead": _LOST,
    "InvalidChunkLength": _LOST,
    "InvalidHeader": _LOST,
    "HeaderParsingError": _LOST,
    "ProxySchemeUnknown": _Fault(Unsupported, "proxy-unsupported", "the proxy's scheme is not known", _PROXY_HINT),
    "ProxySchemeUnsupported": _Fault(Unsupported, "proxy-unsupported", "the proxy cannot be used so", _PROXY_HINT),
    "UnrewindableBodyError": _OURS,
}


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and after which pauses, a request is sent again."""

    attempts: int = 5
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0
    #: a peer that names a longer time than this gets no second request from us
    longest_wait_s: float = 60.0

    def pause(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Seconds to wait after failed attempt number *attempt* (from 1); None to give up."""
        if attempt >= self.attempts or (retry_after is not None and retry_after > self.longest_wait_s):
            return None
        return max(retry_after or 0.0, min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s))


class Transport:
    """Sends requests; one a process, used by several threads.

    *environ* is read for proxies (http_proxy …) and CA files (SSL_CERT_FILE,
    SSL_CERT_DIR). Plain http is spoken with loopback names only, or with every
    host when *plain_http*. *debug* gets a line for each request and response.
    """

    def __init__(
        self,
        environ: Mapping[str, str] | None = None,
        *,
        plain_http: bool = False,
        connect_timeout_s: float = 10.0,
        read_timeout_s: float = 60.0,
        retries: RetryPolicy | None = None,
        sleep: Callable[[float], None] = time.sleep,
        debug: Callable[[str], None] | None = None,
    ) -> None:
        self.plain_http = plain_http
        self._environ = environ if environ is not None else {}
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self._debug = debug or (lambda line: None)
        self._lock = threading.Lock()
        #: {(process, proxy's URL or None, whether https is spoken through it): urllib3's PoolManager}; a forked
        #: process must not speak on its parent's connections
        self._pools: dict[tuple[int, str | None, bool], Any] = {}
        self._tls: Any = None  # ssl.SSLContext, made with the first https address

    def send(self, request: HttpRequest, *, patient: bool = True) -> HttpResponse:
        """The response, after redirects and retries; any status may come back. The caller closes it.

        Without *patient* nothing is tried twice.

        Raises Unavailable (no connection, or lost before the headers came),
        InvalidInput (plain http to a host that is not this one), Unsupported.
        """
        for _ in range(REDIRECT_LIMIT + 1):
            response = self._send_patiently(request) if patient else self._send_once(request)
            onward = redirected(request, response)
            if onward is None:
                return response
            response.drain()
            request = onward
        raise Unavailable(
            f"{shown(request.url)} leads in circles", code="redirect-loop", context=f"after {REDIRECT_LIMIT} redirects"
        )

    def close(self) -> None:
        """Close the idle connections."""
        with self._lock:
            for manager in self._pools.values():
                for host in manager.pools.keys():  # noqa: SIM118  # it cannot be iterated over
                    manager.pools[host].close()  # clear() alone leaves that to the garbage collector
                manager.clear()
            self._pools.clear()

    def _send_patiently(self, request: HttpRequest) -> HttpResponse:
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._send_once(request)
            except Unavailable as error:
                if not (request.is_repeatable and is_passing(error) and self.waited(attempt)):
                    raise
            else:
                busy = response.status in (_BUSY if request.is_repeatable else _REFUSED)
                # Of one that was once under way, a proxy may say 503 when the registry behind it died halfway.
                if request.once or not (busy and self.waited(attempt, retry_after(response))):
                    return response
                response.drain()

    def waited(self, attempt: int, after_s: float | None = None) -> bool:
        """Pause after failed attempt number *attempt* (from 1); False when it is time to give up instead.

        For those who repeat more than one request: a transfer, an upload.
        """
        pause = self._retries.pause(attempt, after_s)
        if pause is None:
            return False
        self._debug(f"* again in {pause:.2g} s")
        self._sleep(pause)
        return True

    def _send_once(self, request: HttpRequest) -> HttpResponse:
        from urllib3.exceptions import HTTPError, ProxySchemeUnsupported

        self._check_scheme(request.url)
        for line in described(request):
            self._debug(line)
        pool = self._pool(proxy_for(request.url, self._environ), secure=request.url.startswith("https:"))
        headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity", **request.headers}
        body = request.open_body() if request.open_body is not None else None
        if body is not None or request.method in ("POST", "PUT", "PATCH"):
            headers["Content-Length"] = str(request.body_size)
        try:
            raw = pool.urlopen(
                request.method,
                request.url,
                body=_chunks(body) if body is not None else None,
                headers=headers,
                timeout=self._timeout(sends=body is not None),
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
        response = HttpResponse(raw.status, raw.headers, _Body(raw, request.url), url=request.url)
        self._debug(f"< {response.status} {shown(request.url)}")
        return response

    def _timeout(self, *, sends: bool) -> Any:
        """urllib3's: its time for connecting is that for each piece of a body too, which a busy disk there holds up."""
        import urllib3

        connect_s, read_s = self._timeouts
        return urllib3.Timeout(connect=max(connect_s, read_s) if sends else connect_s, read=read_s)

    def _check_scheme(self, url: str) -> None:
        parts = split_url(url)
        host = parts.hostname or ""
        if parts.scheme == "https" or (parts.scheme == "http" and (self.plain_http or is_loopback(host))):
            return
        if parts.scheme == "http":
            raise InvalidInput(
                f"plain http to {host} is not allowed",
                code="plain-http",
                context="whoever sits between could read the password and change the answer",
                hint="add --plain-http if that network is yours",
            )
        raise InvalidInput(f"not an http address: {shown(url)}", code="address-invalid")

    def _pool(self, proxy: str | None, *, secure: bool) -> Any:  # urllib3 must not be imported for its types alone
        key = (os.getpid(), proxy, secure)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._make_pool(proxy, secure)
            return self._pools[key]

    def _make_pool(self, proxy: str | None, secure: bool) -> Any:
        import urllib3

        settings: dict[str, Any] = {"maxsize": 8, "retries": False, "blocksize": CHUNK}
        if secure:
            self._tls = self._tls or trusted_context(self._environ)
            settings["ssl_context"] = self._tls
        if proxy is None:
            return urllib3.PoolManager(**settings)
        parts = split_url(proxy)
        if parts.username is not None:
            secret = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
            settings["proxy_headers"] = urllib3.make_headers(proxy_basic_auth=secret)
        try:
            return urllib3.ProxyManager(f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}", **settings)
        except (urllib3.exceptions.HTTPError, urllib3.exceptions.ProxySchemeUnsupported) as error:
            raise translated(error, proxy) from error


class _Body:
    """A response's bytes from urllib3, its errors made ours."""

    def __init__(self, raw: Any, url: str) -> None:
        self._raw = raw
        self._url = url

    def read(self, count: int, /) -> bytes:
        from urllib3.exceptions import HTTPError

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


def redirected(request: HttpRequest, response: HttpResponse) -> HttpRequest | None:
    """The request to send next when *response* is a redirect, else None. Pure.

    Another scheme, host or port never sees the Authorization. 303, and 301 and 302
    to a POST, become GET without the body (RFC 9110 15.4). From https there is no
    way down to http: that redirect stays with the caller as an answer.
    """
    location = response.headers.get("location")
    if response.status not in _REDIRECTS or not location:
        return None
    target = join_url(request.url, location)
    here, there = split_url(request.url), split_url(target)
    if there.scheme not in ("http", "https") or is_downgrade(request.url, target):
        return None
    onward = msgspec.structs.replace(request, url=target)
    if (here.scheme, here.netloc) != (there.scheme, there.netloc):
        onward = onward.without_header("Authorization").without_header("Cookie")
    if response.status == 303 or (response.status in (301, 302) and request.method == "POST"):
        method = "HEAD" if request.method == "HEAD" else "GET"
        onward = msgspec.structs.replace(onward.without_header("Content-Type"), method=method, open_body=None)
    return onward


def retry_after(response: HttpResponse) -> float | None:
    """Seconds that the peer asks us to wait, when it says so. Source: RFC 9110 10.2.3."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return None


def translated(error: Exception, url: str) -> Error:
    """Our error for one of urllib3's."""
    fault = FAULTS.get(type(error).__name__, _OURS)
    host = split_url(url).netloc.rpartition("@")[2]
    return fault.kind(f"{host}: {fault.what}", code=fault.code, context=_reason(error), hint=fault.hint)


def is_passing(error: Unavailable) -> bool:
    """Whether another attempt may fare better."""
    return any(fault.passing and fault.code == error.code for fault in FAULTS.values())


def described(request: HttpRequest) -> Iterator[str]:
    """The request as --debug shows it: no secret in it."""
    yield f"> {request.method} {shown(request.url)}"
    for name, value in request.headers.items():
        yield f">   {name}: {'(not shown)' if name.lower() in _SECRET_HEADERS else value}"


def shown(url: str) -> str:
    """*url* without what must not be read by others: a password, signed parameters."""
    parts = split_url(url)
    words = (
        f"{key}={'…' if any(word in key.lower() for word in _SECRET_WORDS) else value}"
        for key, value in parse_qsl(parts.query, keep_blank_values=True)
    )
    query = "&".join(words)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}" + (f"?{query}" if query else "")


def _reason(error: BaseException) -> str:
    """The innermost cause's text: urllib3 wraps it, and puts its own object's representation before it."""
    inner = [error.__cause__, getattr(error, "reason", None), *error.args]
    for cause in inner:
        if isinstance(cause, BaseException) and cause is not error:
            return _reason(cause)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    text = str(error)
    return text.split(": ", 1)[1] if text.startswith(("<", "HTTP")) and ": " in text else text


def _chunks(body: BinaryIO) -> Iterator[bytes]:
    while part := body.read(CHUNK):
        yield part


def trusted_context(environ: Mapping[str, str]) -> Any:
    """An SSLContext with the system's CAs, or those that SSL_CERT_FILE and SSL_CERT_DIR name. Costs 25 ms."""
    import ssl

    cafile, capath = environ.get("SSL_CERT_FILE") or None, environ.get("SSL_CERT_DIR") or None
    try:
        return ssl.create_default_context(cafile=cafile, capath=capath)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(
            f"cannot read the certificates of {cafile or capath}",
            code="ca-file-invalid",
            context=str(error),
            hint="SSL_CERT_FILE and SSL_CERT_DIR name CA certificates in PEM form",
        ) from error
