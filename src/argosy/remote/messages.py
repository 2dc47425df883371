"""HTTP requests and responses, shared by the real transport and every fake of it.

A request is a value: its body is a way to open the bytes anew, so that it can be
sent again after a lost connection, a redirect or a new token. A response holds a
connection until it is closed or read to its end.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, BinaryIO, Protocol
from urllib.parse import quote, urljoin, urlsplit

import msgspec

from ..errors import Corrupt, InvalidInput, Unavailable

if TYPE_CHECKING:
    from urllib.parse import SplitResult

#: Safe to repeat although the first answer may have been lost. Source: RFC 9110 9.2.2.
_REPEATABLE = frozenset({"GET", "HEAD", "PUT", "DELETE", "OPTIONS"})
DEFAULT_PORTS = {"http": 80, "https": 443}
CHUNK = 256 * 1024  # bytes a read; larger ones gain nothing over TLS and make progress jumpy


def split_url(text: str) -> SplitResult:
    """The parts of an address; host and port can be asked for. Raises InvalidInput (address-invalid)."""
    try:
        parts = urlsplit(text)
        parts.port  # noqa: B018  # checked only when asked for
    except ValueError as error:
        raise InvalidInput(f"not an address: {text!r}", code="address-invalid", context=str(error)) from error
    return parts


def join_url(base: str, location: str) -> str:
    """Where the Location header of an answer from *base* leads. Raises InvalidInput (address-invalid)."""
    try:
        target = urljoin(base, quote(location, safe="%/:=&?~#+!$,;'@()*[]"))
    except ValueError as error:
        raise InvalidInput(f"not an address: {location!r}", code="address-invalid", context=str(error)) from error
    split_url(target)
    return target


def is_same_host(here: str, there: str) -> bool:
    """Whether two addresses have scheme, host and port in common, so that one may see what the other does."""
    return not there or _origin(here) == _origin(there)


def _origin(url: str) -> tuple[str, str | None, int | None]:
    parts = split_url(url)
    return parts.scheme, parts.hostname, parts.port or DEFAULT_PORTS.get(parts.scheme)


def is_downgrade(here: str, there: str) -> bool:
    """Whether the way from one address to another gives up TLS; even a name of this machine must not be reached so.

    Otherwise a registry could send requests of its choice to the services of a developer's own machine.
    """
    return split_url(here).scheme == "https" and split_url(there).scheme != "https"


class HttpRequest(msgspec.Struct, frozen=True, kw_only=True):
    """One request. The size of a body is always known and sent as Content-Length."""

    method: str
    url: str
    headers: Mapping[str, str] = {}
    #: opens the body from its first byte, once an attempt; the transport closes it
    open_body: Callable[[], BinaryIO] | None = None
    body_size: int = 0
    #: a lost attempt may have left half of its work behind: the transport must not simply send it again
    once: bool = False

    @property
    def is_repeatable(self) -> bool:
        return self.method in _REPEATABLE and not self.once

    def with_header(self, name: str, value: str) -> HttpRequest:
        return msgspec.structs.replace(self, headers={**self.headers, name: value})

    def without_header(self, name: str) -> HttpRequest:
        kept = {key: value for key, value in self.headers.items() if key.lower() != name.lower()}
        return msgspec.structs.replace(self, headers=kept)


class Body(Protocol):
    """The bytes of a response, as they came (never decoded)."""

    def read(self, count: int, /) -> bytes:
        """Up to *count* bytes, none at the end. Raises Unavailable when the connection is lost."""

    def close(self) -> None: ...


class HttpResponse:
    """What came back. *headers* have lower-case names; *url* is the one that answered, after redirects."""

    def __init__(self, status: int, headers: Mapping[str, str], body: Body, *, url: str = "") -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body
        self.url = url

    @property
    def is_success(self) -> bool:
        return 200 <= self.status < 300

    def read_all(self, limit: int) -> bytes:
        """The whole body. Raises Corrupt (response-too-large) past *limit* bytes, Unavailable."""
        parts, size = [], 0
        while part := self.body.read(min(CHUNK, limit + 1 - size)):
            parts.append(part)
            size += len(part)
            if size > limit:
                self.close()
                raise Corrupt(
                    f"the answer of {self.url} is too long",
                    code="response-too-large",
                    context=f"more than {limit} bytes",
                )
        return b"".join(parts)

    def drain(self, limit: int = 64 * 1024) -> None:
        """Read what is left and close, so that the connection can be used again; a long rest is dropped with it."""
        try:
            while limit > 0 and (part := self.body.read(min(CHUNK, limit))):
                limit -= len(part)
        except Unavailable:
            pass  # nobody wanted these bytes
        self.close()

    def close(self) -> None:
        self.body.close()

    def __enter__(self) -> HttpResponse:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def retry_after(response: HttpResponse) -> float | None:
    """Seconds that the peer asks us to wait, when it says so. Source: RFC 9110 10.2.3."""
    text = response.headers.get("retry-after", "").strip()
    if not text:
        return None
    if text.isdecimal():
        return float(text[:9])
    from email.utils import parsedate_to_datetime

    try:
        then = parsedate_to_datetime(text).timestamp()
    except (ValueError, OverflowError):
        return None
    try:  # by the peer's clock, which may be another than ours
        now = parsedate_to_datetime(response.headers.get("date", "")).timestamp()
    except (ValueError, OverflowError):
        now = time.time()
    return max(0.0, then - now)


def come_back(wait_s: float | None) -> str:
    """A hint for whom a peer sent away for so many seconds."""
    if not wait_s:
        return "try again later"
    units = ((120, 1, "seconds"), (7200, 60, "minutes"), (math.inf, 3600, "hours"))
    size_s, unit = next((size_s, unit) for limit_s, size_s, unit in units if wait_s <= limit_s)
    return f"try again in {math.ceil(wait_s / size_s)} {unit}"
