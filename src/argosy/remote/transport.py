"""Requests and their answers: redirects, retries, what --debug shows.

Decides nothing about registries: who may see a token is settled here only in so
far as an Authorization header never follows a redirect to another host.
connections.py, and with it the HTTP and TLS libraries, is imported with the first
request.
"""

from __future__ import annotations

import copy
import os
import threading
import time
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

import msgspec

from ..errors import InvalidInput, Unavailable
from .faults import is_passing
from .hosts import HostSettings
from .messages import HttpRequest, HttpResponse, is_downgrade, is_same_host, join_url, retry_after, split_url
from .proxies import is_loopback

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from .connections import Connections

REDIRECT_LIMIT = 8  # registries need two: to the storage's front door, and from there to a mirror
_REDIRECTS = frozenset({301, 302, 303, 307, 308})
_SECRET_HEADERS = frozenset({"authorization", "proxy-authorization", "cookie", "set-cookie"})
_SECRET_WORDS = ("sig", "token", "key", "credential", "policy", "secret", "password")
_BUSY = frozenset({408, 429, 500, 502, 503, 504})
_REFUSED = frozenset({408, 429, 503})  # not acted upon, so that any method may be sent again
_HASTY_TIMEOUT_S = 3.0  # for a connection to a host that another can stand in for


class RetryPolicy(msgspec.Struct, frozen=True, kw_only=True):
    """How often, and after which pauses, a request is sent again."""

    attempts: int = 6
    first_pause_s: float = 0.25
    longest_pause_s: float = 8.0
    #: a peer that names a longer time than this gets no second request from us
    longest_wait_s: float = 60.0

    def pause(self, attempt: int, retry_after: float | None = None) -> float | None:
        """Seconds to wait after failed attempt number *attempt* (from 1); None to give up."""
        if attempt >= self.attempts or (retry_after is not None and retry_after > self.longest_wait_s):
            return None
        return max(retry_after or 0.0, min(self.first_pause_s * 2.0 ** (attempt - 1), self.longest_pause_s))

    def at_most(self, attempts: int, wait_s: float) -> RetryPolicy:
        """As patient as this, up to so many attempts and seconds that a peer may ask for."""
        return msgspec.structs.replace(
            self, attempts=min(attempts, self.attempts), longest_wait_s=min(wait_s, self.longest_wait_s)
        )


class Transport:
    """Sends requests; used by several threads, and by processes that were forked off.

    *environ* is read for proxies (http_proxy …) and CA files (SSL_CERT_FILE,
    SSL_CERT_DIR); *hosts* says how a host is met. Plain http is spoken with loopback
    names, with hosts that are called insecure, and with every one when *plain_http*.
    *debug* gets a line for each request and response.
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
        hosts: Callable[[str], HostSettings] | None = None,
    ) -> None:
        self.plain_http = plain_http
        self._hosts = hosts or (lambda host: HostSettings())
        #: {host: what stands before the answer of hosts}
        self._known_hosts: Mapping[str, HostSettings] = {}
        self._environ = environ if environ is not None else {}
        self._timeouts = (connect_timeout_s, read_timeout_s)
        self._retries = retries or RetryPolicy()
        self._sleep = sleep
        self.note = debug or (lambda line: None)
        self._lock = threading.Lock()
        #: {process: its connections}; a child must not write into its parent's
        self._connections: dict[int, Connections] = {}
        #: hosts that have answered: only these are worth much patience
        self._reached: set[str] = set()

    def adapted(self, hosts: Mapping[str, HostSettings], *, is_mirror: bool = False) -> Transport:
        """The same connections, and *hosts* are met as said here.

        For a mirror there is less patience, since others can stand in, and plain http is
        no matter of a flag that was meant for the origin.
        """
        adapted = copy.copy(self)
        adapted._known_hosts = hosts
        if is_mirror:
            adapted.plain_http = False
            adapted._retries = self._retries.at_most(2, 5.0)
            adapted._timeouts = (min(_HASTY_TIMEOUT_S, self._timeouts[0]), self._timeouts[1])
        return adapted

    def settings(self, netloc: str) -> HostSettings:
        """How a host (with its port, as in an address) is met."""
        host = netloc.rpartition("@")[2].lower()
        return self._known_hosts.get(host) or self._hosts(host)

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
        """Close the idle connections of this process."""
        with self._lock:
            connections = self._connections.pop(os.getpid(), None)
        if connections is not None:
            connections.close()

    def _send_patiently(self, request: HttpRequest) -> HttpResponse:
        attempt = 0
        while True:
            attempt += 1
            try:
                response = self._send_once(request)
            except Unavailable as error:
                policy = self._retries
                if split_url(request.url).netloc not in self._reached:
                    policy = policy.at_most(3, 0)  # an address that was mistyped, most often
                if not (request.is_repeatable and is_passing(error) and self._waited(policy.pause(attempt))):
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
        return self._waited(self._retries.pause(attempt, after_s))

    def _waited(self, pause_s: float | None) -> bool:
        if pause_s is None:
            return False
        self.note(f"* again in {pause_s:.2g} s")
        self._sleep(pause_s)
        return True

    def _send_once(self, request: HttpRequest) -> HttpResponse:
        netloc = split_url(request.url).netloc
        self._check_scheme(request.url)
        for line in described(request):
            self.note(line)
        status, headers, body = self._opened().exchange(
            request,
            self.settings(netloc),
            connect_timeout_s=self._timeouts[0],
            read_timeout_s=self._timeouts[1],
        )
        self._reached.add(netloc)
        response = HttpResponse(status, headers, body, url=request.url)
        self.note(f"< {response.status} {shown(request.url)}")
        return response

    def _opened(self) -> Connections:
        with self._lock:
            if os.getpid() not in self._connections:
                from .connections import Connections

                self._connections[os.getpid()] = Connections(self._environ)
            return self._connections[os.getpid()]

    def _check_scheme(self, url: str) -> None:
        parts = split_url(url)
        host = parts.hostname or ""
        if parts.scheme == "https" or (parts.scheme == "http" and self._may_be_plain(parts.netloc)):
            return
        if parts.scheme == "http":
            raise InvalidInput(
                f"plain http to {host} is not allowed",
                code="plain-http",
                context="whoever sits between could read the password and change the answer",
                hint="if that network is yours, add --plain-http, or call it insecure in registries.toml",
            )
        raise InvalidInput(f"not an http address: {shown(url)}", code="address-invalid")

    def _may_be_plain(self, netloc: str) -> bool:
        if self.plain_http or is_loopback(split_url(f"http://{netloc}").hostname or ""):
            return True
        settings = self.settings(netloc)
        return settings.scheme == "http" or (settings.insecure and not settings.scheme)


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
    if split_url(target).scheme not in ("http", "https") or is_downgrade(request.url, target):
        return None
    onward = msgspec.structs.replace(request, url=target)
    if not is_same_host(request.url, target):
        onward = onward.without_header("Authorization").without_header("Cookie")
    if response.status == 303 or (response.status in (301, 302) and request.method == "POST"):
        method = "HEAD" if request.method == "HEAD" else "GET"
        onward = msgspec.structs.replace(onward.without_header("Content-Type"), method=method, open_body=None)
    return onward


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
