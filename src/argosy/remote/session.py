"""One registry: its address, our standing with it, and what its error answers mean.

`Session.send` drives the authentication generator over the transport; everything
above it (repository.py, download.py, upload.py) speaks in paths and scopes.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import msgspec

from ..errors import (
    Conflict,
    Corrupt,
    Error,
    Exhausted,
    InvalidInput,
    NotFound,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from .faults import is_passing
from .hosts import API_HOSTS
from .messages import HttpRequest, HttpResponse, come_back, is_same_host, retry_after, split_url
from .proxies import is_loopback
from .transport import shown

if TYPE_CHECKING:
    from .auth import Auth
    from .transport import Transport

_LED = 3  # times that a registry is asked again where it leads to something that does not let us in
_REFUSED = frozenset({400, 401, 403, 404, 410})  # what storages answer when a signed address has expired
ERROR_LIMIT = 64 * 1024  # bytes of an error answer that are looked at

#: {status: (kind, code)}; other 4xx are InvalidInput, other 5xx Unavailable.
_KINDS: dict[int, tuple[type[Error], str]] = {
    401: (Unauthorized, "login-required"),
    403: (Unauthorized, "access-denied"),
    404: (NotFound, "not-in-registry"),
    405: (Unsupported, "registry-cannot"),
    408: (Unavailable, "registry-busy"),
    409: (Conflict, "registry-conflict"),
    413: (Exhausted, "too-large-for-registry"),
    415: (Unsupported, "registry-cannot"),
    416: (Corrupt, "range-refused"),
    429: (Unavailable, "rate-limited"),
    501: (Unsupported, "registry-cannot"),
    503: (Unavailable, "registry-busy"),
    507: (Exhausted, "registry-full"),
}


class _Reason(msgspec.Struct, frozen=True):
    code: str = ""
    message: str = ""


class _ErrorAnswer(msgspec.Struct, frozen=True):
    errors: tuple[_Reason, ...] = ()


class Session:
    """Requests to one registry, authorised as it asks for. Used by several threads.

    *api* stands in its addresses where the protocol has /v2; *namespace* tells a cache
    of many registries which one is meant.
    """

    def __init__(
        self, transport: Transport, registry: str, auth: Auth, *, api: str = "/v2", namespace: str = ""
    ) -> None:
        self.transport = transport
        self.registry = registry
        self._auth = auth
        self._api = api
        self._namespace = namespace

    def send(self, request: HttpRequest, *scopes: str) -> HttpResponse:
        """The registry's answer, whatever its status; the caller closes it.

        *scopes* are what the request needs: «repository:NAME:pull». Raises
        Unauthorized, Unavailable, Corrupt (an unreadable challenge).
        """
        if not is_same_host(request.url, self.base):
            return self.transport.send(request)  # an upload may be sent elsewhere; our token is not for others
        attempt = 0
        while True:
            attempt += 1
            response = self._send_authorised(request, scopes)
            if not (_is_refused_elsewhere(request, response) and attempt < _LED and self.transport.waited(attempt)):
                return response
            response.drain()

    def _send_authorised(self, request: HttpRequest, scopes: tuple[str, ...]) -> HttpResponse:
        flow = self._auth.flow(request, frozenset(scopes))
        outgoing = next(flow)
        while True:
            response = self.transport.send(outgoing)
            try:
                outgoing = flow.send(response)
            except StopIteration as done:
                answer: HttpResponse = done.value
                return answer

    def read(self, request: HttpRequest, limit: int, *scopes: str) -> tuple[HttpResponse, bytes]:
        """As send, with the body of a 200 (at most *limit* bytes), also over lost connections; else without one.

        Raises Corrupt (response-too-large) as well.
        """
        attempt = 0
        while True:
            attempt += 1
            response = self.send(request, *scopes)
            if response.status != 200:
                return response, b""
            with response:
                try:
                    return response, response.read_all(limit)
                except Unavailable as error:
                    if not (is_passing(error) and self.transport.waited(attempt)):
                        raise

    def url(self, path: str) -> str:
        """The full address of a path of the protocol («/v2/…»)."""
        address = self.base + (self._api + path.removeprefix("/v2") if path.startswith("/v2/") else path)
        if not self._namespace:
            return address
        return f"{address}{'&' if '?' in path else '?'}{urlencode({'ns': self._namespace})}"

    @cached_property
    def base(self) -> str:
        """Scheme and host: https, except where plain http is asked for or the registry is on this machine.

        A loopback registry may speak either; one that does not speak http is tried
        with https. A host that is called insecure is tried with https first.
        """
        host = API_HOSTS.get(self.registry, self.registry)
        settings = self.transport.settings(host)
        plain, secure = f"http://{host}", f"https://{host}"
        if self.transport.plain_http:
            return plain
        if settings.scheme:
            return f"{settings.scheme}://{host}"
        if is_loopback(split_url(plain).hostname or ""):
            return secure if self._refuses_plain_text(plain) else plain
        if settings.insecure:
            return secure if self._answers(secure) else plain
        return secure

    def _refuses_plain_text(self, plain: str) -> bool:
        """A TLS server drops the connection on plain text, or answers it with 400."""
        try:
            response = self.transport.send(HttpRequest(method="GET", url=f"{plain}/v2/"), patient=False)
        except Unavailable as error:
            return error.code == "connection-lost"
        response.drain()
        return response.status == 400

    def _answers(self, base: str) -> bool:
        try:
            self.transport.send(HttpRequest(method="GET", url=f"{base}/v2/"), patient=False).drain()
        except Unavailable:
            return False
        return True


def failed(response: HttpResponse, what: str) -> Error:
    """What an answer with an error status means; *what* is the first line of the message. Closes the response."""
    status, wait_s = response.status, retry_after(response)
    said = _said(response)
    context = f"{split_url(response.url).netloc} answered with status {status}" + (f": {said}" if said else "")
    kind, code = _KINDS.get(status) or ((InvalidInput, "request-refused") if 400 <= status < 500 else (Unavailable, ""))
    if kind is Unavailable:
        return Unavailable(
            what, code=code or "registry-failed", context=context, hint=come_back(wait_s), retry_after=wait_s
        )
    return kind(what, code=code, context=context)


def unknown_answer(response: HttpResponse, what: str) -> Error:
    """As failed, for an answer that is neither an error nor what the protocol has at this place."""
    if response.status >= 400:
        return failed(response, what)
    status, location = response.status, response.headers.get("location")
    response.drain()
    context = f"{split_url(response.url).netloc} answered with status {status}"
    if location and 300 <= status < 400:
        context += f" and leads to {shown(location)}, which we do not follow"
    return Unavailable(what, code="registry-failed", context=context, hint="is this the address of a registry?")


def _is_refused_elsewhere(request: HttpRequest, response: HttpResponse) -> bool:
    """Whether the registry led us to a storage that refuses: its signature may have expired, and a new one is made."""
    is_reading = request.method in ("GET", "HEAD")
    return is_reading and response.status in _REFUSED and not is_same_host(request.url, response.url)


def error_codes(response: HttpResponse) -> frozenset[str]:
    """The protocol's codes (MANIFEST_UNKNOWN …) in an error answer; reads and closes it."""
    return frozenset(reason.code for reason in _reasons(response))


def _said(response: HttpResponse) -> str:
    return "; ".join(f"{reason.code} {reason.message}".strip() for reason in _reasons(response))


def _reasons(response: HttpResponse) -> tuple[_Reason, ...]:
    """What the registry says, where it says it in the protocol's form; a page of HTML says nothing."""
    with response:
        try:
            return msgspec.json.decode(response.read_all(ERROR_LIMIT), type=_ErrorAnswer).errors[:8]
        except (msgspec.MsgspecError, UnicodeDecodeError, Corrupt, Unavailable):
            return ()
