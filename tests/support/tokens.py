"""A door before a registry that asks for Bearer tokens, and the server that gives them, in one site.

    with guarded(registry.address, users={"ann": "secret"}) as door:
        door.address            # pull and push here
        door.uses = 3           # a token is good for three requests

Source: distribution «Token Authentication».
"""

from __future__ import annotations

import base64
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

from msgspec.structs import replace

from .web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from .web import Site


class Door:
    """Tokens carry scopes and wear out; nothing passes without one."""

    def __init__(self, upstream: str, users: Mapping[str, str], *, scope_in_realm: bool) -> None:
        self._upstream = upstream
        self._users = users
        self._scope_in_realm = scope_in_realm
        #: requests that a token is good for
        self.uses = 10**9
        #: seconds that tokens are said to live
        self.expires_in: float | None = None
        #: identity tokens that are exchanged in the OAuth2 form
        self.identity_tokens: set[str] = set()
        #: {token: [requests left, scopes]}
        self._tokens: dict[str, tuple[list[int], frozenset[str]]] = {}
        self.site: Site

    @property
    def address(self) -> str:
        return self.site.address

    @property
    def token_requests(self) -> list[Seen]:
        return [seen for seen in self.site.seen if seen.path == "/token"]

    def answer(self, seen: Seen) -> Reply:
        if seen.path == "/token":
            return self._token(seen)
        scope = self._needed(seen)
        if not self._admits(seen, scope):
            return Reply(status=401, headers={"WWW-Authenticate": self._challenge(scope)})
        bare = {name: value for name, value in seen.headers.items() if name != "authorization"}
        honest = forward(self._upstream, replace(seen, headers=bare))
        if "Location" not in honest.headers:
            return honest
        location = honest.headers["Location"].replace(self._upstream, self.address)
        return replace(honest, headers={**honest.headers, "Location": location})

    def _challenge(self, scope: str) -> str:
        realm = f"http://{self.address}/token"
        if self._scope_in_realm:  # as nvcr.io does
            return f'Bearer realm="{realm}?scope={scope}"'
        return f'Bearer realm="{realm}",service="test, \\"quoted\\"",scope="{scope}"'

    def _needed(self, seen: Seen) -> str:
        name = seen.path.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0].partition("/tags/")[0]
        return f"repository:{name}:{'pull' if seen.method in ('GET', 'HEAD') else 'pull,push'}" if name else ""

    def _admits(self, seen: Seen, scope: str) -> bool:
        kind, _, token = seen.headers.get("authorization", "").partition(" ")
        left, scopes = self._tokens.get(token, ([0], frozenset()))
        if kind != "Bearer" or left[0] <= 0:
            return False
        left[0] -= 1
        name, _, actions = scope.rpartition(":")
        return not scope or set(actions.split(",")) <= {
            action
            for granted in scopes
            if granted.rpartition(":")[0] == name
            for action in granted.rpartition(":")[2].split(",")
        }

    def _token(self, seen: Seen) -> Reply:
        query = parse_qsl(urlsplit(seen.target).query) + parse_qsl(seen.body.decode())
        known = dict(query).get("refresh_token") in self.identity_tokens if seen.method == "POST" else self._knows(seen)
        if self._users and not known:
            return Reply(status=401, body=b'{"errors":[{"code":"UNAUTHORIZED"}]}')
        scopes = frozenset(scope for name, value in query if name == "scope" for scope in value.split(" "))
        token = f"token{len(self._tokens)}"
        self._tokens[token] = ([self.uses], scopes)
        answer: dict[str, object] = {"token": token}
        if self.expires_in is not None:
            answer["expires_in"] = self.expires_in
        return Reply(body=json.dumps(answer).encode(), headers={"Content-Type": "application/json"})

    def _knows(self, seen: Seen) -> bool:
        kind, _, encoded = seen.headers.get("authorization", "").partition(" ")
        name, _, password = base64.b64decode(encoded).decode().partition(":")
        return kind == "Basic" and self._users.get(name) == password


@contextmanager
def guarded(upstream: str, *, users: Mapping[str, str] | None = None, scope_in_realm: bool = False) -> Iterator[Door]:
    """A door before the registry at *upstream*; without *users* everyone gets a token."""
    door = Door(upstream, users or {}, scope_in_realm=scope_in_realm)
    with serving(door.answer) as door.site:
        yield door
