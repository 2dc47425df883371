"""What the HTTP client's errors mean to us, in one table. Imports no client: they are known by name."""

from __future__ import annotations

import msgspec

from ..errors import Error, InvalidInput, Unavailable, Unsupported
from .messages import split_url


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
_TLS_HINT = (
    "if its certificate is your own, put the CA's into ~/.config/argosy/certs.d/{host}/ca.crt "
    "or name it in SSL_CERT_FILE; for plain http add --plain-http"
)
_CLIENT_HINT = "put yours into ~/.config/argosy/certs.d/{host}/ as client.cert and client.key"
_ADDRESS_HINT = "check the name and the port, and that a server runs there"
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
    "ConnectTimeoutError": _Fault(
        Unavailable, "connect-timed-out", "cannot connect in time", _ADDRESS_HINT, passing=True
    ),
    "NewConnectionError": _Fault(Unavailable, "cannot-connect", "cannot connect", _ADDRESS_HINT, passing=True),
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


_UNKNOWN_CLIENT = _Fault(Unavailable, "tls-failed", "it wants a client certificate", _CLIENT_HINT)
#: What one class of theirs does not tell apart: (words in the reason, what they mean), the first that is found.
_FINER: dict[str, tuple[tuple[str, _Fault], ...]] = {
    "SSLError": (
        ("EOF occurred", _LOST),
        ("bad record mac", _LOST),
        ("certificate required", _UNKNOWN_CLIENT),
        ("alert bad certificate", _UNKNOWN_CLIENT),
    ),
    "NameResolutionError": (
        ("Temporary failure", _Fault(Unavailable, "dns-failed", "its name cannot be looked up now", passing=True)),
    ),
}

_PASSING = {fault.code for fault in FAULTS.values() if fault.passing} | {"dns-failed"}


def translated(error: Exception, url: str) -> Error:
    """Our error for one of urllib3's."""
    name, reason = type(error).__name__, _reason(error)
    finer = (fault for words, fault in _FINER.get(name, ()) if words in reason)
    fault = next(finer, FAULTS.get(name, _OURS))
    host = split_url(url).netloc.rpartition("@")[2]
    return fault.kind(f"{host}: {fault.what}", code=fault.code, context=reason, hint=fault.hint.replace("{host}", host))


def is_passing(error: Unavailable) -> bool:
    """Whether another attempt may fare better."""
    return error.code in _PASSING


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
