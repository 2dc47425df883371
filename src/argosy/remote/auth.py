"""From a registry's challenge to an Authorization header, as a generator without sockets.

`Auth.flow` yields requests and is sent their responses; whoever drives it owns the
connection. The first request goes out as it is; credentials are looked up only
when the registry asks. Tokens are kept until they expire, and renewed when a
request with one is refused (a token may live shorter than a large pull).
Source: RFC 9110 11, distribution «Token Authentication», Docker «OAuth2 token».
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlencode

import msgspec

from ..errors import Corrupt, Error, Unauthorized, Unavailable
from .messages import HttpRequest, HttpResponse, come_back, is_downgrade, is_same_host, retry_after, split_url

if TYPE_CHECKING:
    from collections.abc import Callable, Generator

    from .credentials import Credential

TOKEN_LIMIT = 1 << 20  # bytes of a token server's answer
_LIFE_S = 60.0  # when the server does not say; distribution «Token Authentication»
_EARLY_S = 5.0  # a token is renewed this much before its end, for clocks and the way there
_CLIENT = "argosy"
_NOT_YOU = frozenset({400, 401, 403})  # a token server's answers to a login that it does not take
_WORD = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+")
_QUOTED = re.compile(r'"((?:[^"\\]|\\.)*)"')
#: {registry: hosts (or .domains) that may be its token server}; elsewhere its password is not sent.
_TOKEN_HOSTS = {
    "nvcr.io": ("nvcr.io", ".nvcr.io", ".nvidia.com"),
    "docker.io": (".docker.io", ".docker.com"),
    "ghcr.io": ("ghcr.io",),
    "quay.io": ("quay.io",),
}


class Challenge(msgspec.Struct, frozen=True):
    """One scheme of a WWW-Authenticate header; both it and the parameters' names in lower case."""

    scheme: str
    parameters: Mapping[str, str]


class _Token(msgspec.Struct, frozen=True):
    header: str
    expires: float  # seconds of the clock given to Auth


class _TokenAnswer(msgspec.Struct):
    token: str | None = None
    access_token: str | None = None
    expires_in: float | None = None


def parse_challenges(header: str) -> tuple[Challenge, ...]:
    """Every challenge of a WWW-Authenticate header (several joined with commas too). Raises Corrupt.

    Quoted values may hold commas, equal signs and whole queries; nvcr.io's realm does.
    """
    found: list[tuple[str, dict[str, str]]] = []
    at = 0
    while at < len(header):
        if header[at] in ", \t":
            at += 1
            continue
        word = _WORD.match(header, at)
        if word is None:
            raise Corrupt("cannot read the registry's challenge", code="challenge-invalid", context=repr(header[:200]))
        at = word.end()
        value = re.compile(r"\s*=\s*").match(header, at)
        if value is None or not found:
            found.append((word[0].lower(), {}))
            continue
        text, at = _value(header, value.end())
        found[-1][1].setdefault(word[0].lower(), text)
    return tuple(Challenge(scheme, parameters) for scheme, parameters in found)


def _value(header: str, at: int) -> tuple[str, int]:
    if quoted := _QUOTED.match(header, at):
        return re.sub(r"\\(.)", r"\1", quoted[1]), quoted.end()
    bare = re.compile(r"[^\s,]*").match(header, at)
    assert bare is not None  # it matches the empty string
    return bare[0], bare.end()


class Auth:
    """What we know about one registry's wish to know us. Used by several threads.

    *find* looks a credential up when the registry asks, and once more when it is
    refused; None is anonymous. *name* is what messages call the thing that access is
    wanted to.
    """

    def __init__(
        self,
        registry: str,
        find: Callable[[], Credential | None],
        *,
        name: str = "",
        problems: Callable[[], str] = lambda: "",
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.registry = registry
        self._name = name or registry
        self._find = find
        self._problems = problems
        self._clock = clock
        self._credential: Credential | None = None
        self._looked_up = False
        #: {scopes: the header to send}; Basic is kept for every scope under the empty one
        self._tokens: dict[frozenset[str], _Token] = {}

    def flow(self, request: HttpRequest, scopes: frozenset[str]) -> Generator[HttpRequest, HttpResponse, HttpResponse]:
        """Yields requests, is sent their responses, returns the one that answers *request*.

        Responses that it does not return are read or closed by it. Raises
        Unauthorized (login-required, login-refused), Corrupt, Unavailable.
        """
        known = self._known(scopes)
        response = yield request.with_header("Authorization", known.header) if known else request
        # A storage that the registry led us to is not the registry, whatever it asks for.
        if response.status != 401 or not is_same_host(request.url, response.url):
            return response
        response.drain()
        challenge = self._choose(response)
        if challenge.scheme == "basic":
            header = self._basic(refused=known is not None)
            self._tokens[frozenset()] = _Token(header, float("inf"))
        else:
            if is_downgrade(request.url, challenge.parameters["realm"]):
                raise self._untrusted(challenge.parameters["realm"], "it is reached by https, its token server is not")
            token = yield from self._fetch_token(challenge, scopes)
            header = token.header
            self._tokens[scopes] = token
        response = yield request.with_header("Authorization", header)
        if response.status != 401 or not is_same_host(request.url, response.url):
            return response
        self._tokens.pop(frozenset() if challenge.scheme == "basic" else scopes, None)
        raise self._refused(response)

    def _known(self, scopes: frozenset[str]) -> _Token | None:
        token = self._tokens.get(scopes) or self._tokens.get(frozenset())
        return token if token is not None and self._clock() < token.expires else None

    def _choose(self, response: HttpResponse) -> Challenge:
        challenges = parse_challenges(response.headers.get("www-authenticate", ""))
        for scheme in ("bearer", "basic"):
            for challenge in challenges:
                if challenge.scheme == scheme and (scheme == "basic" or challenge.parameters.get("realm")):
                    return challenge
        raise Unauthorized(
            f"{self._name}: the registry asks for a login of an unknown kind",
            code="challenge-unknown",
            context=", ".join(challenge.scheme for challenge in challenges) or "its 401 names no scheme",
        )

    def _look_up(self) -> Credential | None:
        if not self._looked_up:
            self._credential = self._find()
            self._looked_up = True
        return self._credential

    def _renewed(self) -> Credential | None:
        """A credential other than the one that is refused: programs hand out some that live for an hour."""
        before, found = self._credential, self._find()
        if found is None or found == before:
            return None
        self._credential = found
        return found

    def _basic(self, *, refused: bool) -> str:
        credential = self._renewed() if refused else self._look_up()
        if credential is None or not credential.username:
            raise self._unauthorized(self._credential)
        return credential.basic

    def _fetch_token(
        self, challenge: Challenge, scopes: frozenset[str]
    ) -> Generator[HttpRequest, HttpResponse, _Token]:
        credential = self._look_up()
        request = self._token_request(challenge, scopes, credential)
        asked = self._clock()
        response = yield request
        if response.status == 401 and credential is None:
            response.drain()  # NGC's anonymous token server sometimes does so for no reason
            response = yield request
        if response.status in _NOT_YOU and credential is not None and (credential := self._renewed()) is not None:
            response.drain()
            response = yield self._token_request(challenge, scopes, credential)
        if not response.is_success:
            raise self._token_refused(response, credential)
        with response:
            return _parse_token(response.read_all(TOKEN_LIMIT), asked, response.url)

    def _token_request(
        self, challenge: Challenge, scopes: frozenset[str], credential: Credential | None
    ) -> HttpRequest:
        realm = challenge.parameters["realm"]
        given = dict(parse_qsl(split_url(realm).query))
        wanted = scopes | frozenset(challenge.parameters.get("scope", "").split())
        fields = [("service", challenge.parameters["service"])] if challenge.parameters.get("service") else []
        if "scope" not in given:
            fields += [("scope", scope) for scope in sorted(merged(wanted))]
        if credential is None:
            return HttpRequest(method="GET", url=_extended(realm, fields))
        self._check_realm(realm)
        if credential.identity_token:
            return _refresh_request(realm, fields, credential)
        fields.append(("account", credential.username))
        return HttpRequest(method="GET", url=_extended(realm, fields), headers={"Authorization": credential.basic})

    def _check_realm(self, realm: str) -> None:
        """A registry that names a stranger as its token server does not get our password there."""
        host = split_url(realm).hostname or ""
        allowed = _TOKEN_HOSTS.get(self.registry, ())
        if allowed and not any(host == name or (name.startswith(".") and host.endswith(name)) for name in allowed):
            raise self._untrusted(realm, f"the password for {self.registry} is sent to {', '.join(allowed)} only")

    def _untrusted(self, realm: str, why: str) -> Unauthorized:
        return Unauthorized(
            f"{self._name}: the registry sends us to {split_url(realm).netloc} for a token",
            code="realm-untrusted",
            context=why,
        )

    def _refused(self, response: HttpResponse) -> Error:
        response.drain()
        return self._unauthorized(self._look_up())

    def _token_refused(self, response: HttpResponse, credential: Credential | None) -> Error:
        status, host, wait_s = response.status, split_url(response.url).netloc, retry_after(response)
        response.drain()
        if status in _NOT_YOU:
            return self._unauthorized(credential or self._credential)
        return Unavailable(
            f"{self._name}: no token from the registry's token server",
            code="token-server-failed",
            context=f"{host} answered with status {status}",
            hint=come_back(wait_s),
            retry_after=wait_s,
        )

    def _unauthorized(self, credential: Credential | None) -> Unauthorized:
        problems = self._problems()
        if credential is None:
            return Unauthorized(
                f"{self._name}: access refused without a login",
                code="login-required",
                context=problems or "no credentials found; it may also be that the repository does not exist",
                hint=f"argosy login {self.registry}",
            )
        who = "the identity token" if credential.identity_token else repr(credential.username)
        origin = f" of {credential.source}" if credential.source else ""
        return Unauthorized(
            f"{self._name}: login refused",
            code="login-refused",
            context=f"it was {who}{origin}; the repository may not exist, or not be open to this user",
            hint=f"argosy login {self.registry}",
        )


def merged(scopes: frozenset[str]) -> frozenset[str]:
    """Scopes of one resource become one: repository:a:pull and repository:a:pull,push are the latter."""
    actions: dict[str, set[str]] = {}
    for scope in scopes:
        resource, _, verbs = scope.rpartition(":")
        actions.setdefault(resource, set()).update(verbs.split(","))
    return frozenset(f"{resource}:{','.join(sorted(verbs))}" for resource, verbs in actions.items())


def _extended(realm: str, fields: list[tuple[str, str]]) -> str:
    if not fields:
        return realm
    return f"{realm}{'&' if '?' in realm else '?'}{urlencode(fields)}"


def _refresh_request(realm: str, fields: list[tuple[str, str]], credential: Credential) -> HttpRequest:
    """The OAuth2 form, for registries that gave out an identity token at login."""
    scope = " ".join(value for name, value in fields if name == "scope")
    form = [(name, value) for name, value in fields if name != "scope"]
    form += [("grant_type", "refresh_token"), ("client_id", _CLIENT), ("refresh_token", credential.identity_token)]
    raw = urlencode(form + ([("scope", scope)] if scope else [])).encode()
    return HttpRequest(
        method="POST",
        url=realm,
        headers={"Content-Type": "application/x-www-form-urlencoded"},
        open_body=lambda: io.BytesIO(raw),
        body_size=len(raw),
    )


def _parse_token(raw: bytes, asked: float, url: str) -> _Token:
    try:
        answer = msgspec.json.decode(raw, type=_TokenAnswer, strict=False)
    except msgspec.MsgspecError as error:
        raise Corrupt(f"{url} gave no token", code="token-invalid", context=str(error)) from error
    token = answer.token or answer.access_token
    if not token or not (token.isascii() and token.isprintable()):
        raise Corrupt(f"{url} gave no token", code="token-invalid", context="its answer holds none")
    return _Token(f"Bearer {token}", asked + max((answer.expires_in or _LIFE_S) - _EARLY_S, 1.0))
