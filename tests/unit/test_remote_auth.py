"""Challenges, tokens and logins, without sockets: the flow yields requests and is sent responses."""

from __future__ import annotations

import io
import json
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, urlsplit

import pytest

from argosy.errors import Corrupt, Error, Unauthorized, Unavailable
from argosy.remote.auth import Auth, Challenge, merged, parse_challenges
from argosy.remote.credentials import Credential
from argosy.remote.messages import HttpRequest, HttpResponse

if TYPE_CHECKING:
    from collections.abc import Callable

PULL = frozenset({"repository:a/b:pull"})
REQUEST = HttpRequest(method="GET", url="https://registry.test/v2/a/b/manifests/1")
BEARER = 'Bearer realm="https://auth.test/token",service="registry.test",scope="repository:a/b:pull"'
ANN = Credential(username="ann", password="secret", source="auth.json")


def answer(status: int, challenge: str = "", body: object = None, url: str = "https://registry.test/") -> HttpResponse:
    headers = {"WWW-Authenticate": challenge} if challenge else {}
    return HttpResponse(status, headers, io.BytesIO(json.dumps(body).encode() if body is not None else b""), url=url)


def converse(auth: Auth, *answers: HttpResponse, scopes: frozenset[str] = PULL) -> tuple[list[HttpRequest], int]:
    """What the flow sent while it got *answers*, and the status that it ended with."""
    flow = auth.flow(REQUEST, scopes)
    sent = [next(flow)]
    try:
        for each in answers:
            sent.append(flow.send(each))
    except StopIteration as done:
        return sent, done.value.status
    raise AssertionError(f"the flow wants more after {sent}")


def refused(auth: Auth, *answers: HttpResponse) -> Error:
    with pytest.raises(Error) as caught:
        converse(auth, *answers)
    return caught.value


def anonymous(registry: str = "registry.test", clock: Callable[[], float] = lambda: 0.0) -> Auth:
    return Auth(registry, lambda: None, clock=clock)


def known(credential: Credential = ANN, registry: str = "registry.test") -> Auth:
    return Auth(registry, lambda: credential)


def authorization(request: HttpRequest) -> str | None:
    return request.headers.get("Authorization")


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", ()),
        ("Basic", (Challenge("basic", {}),)),
        ('Basic realm="a, b"', (Challenge("basic", {"realm": "a, b"}),)),
        (
            'Bearer realm="https://nvcr.io/proxy_auth?scope=repository:nvidia/x:pull,push"',
            (Challenge("bearer", {"realm": "https://nvcr.io/proxy_auth?scope=repository:nvidia/x:pull,push"}),),
        ),
        ('BEARER Realm=x , SERVICE = "y"', (Challenge("bearer", {"realm": "x", "service": "y"}),)),
        (
            'Negotiate, Basic realm="r\\"q", Bearer realm="u",error="insufficient_scope"',
            (
                Challenge("negotiate", {}),
                Challenge("basic", {"realm": 'r"q'}),
                Challenge("bearer", {"realm": "u", "error": "insufficient_scope"}),
            ),
        ),
    ],
)
def test_challenges_are_read(header: str, expected: tuple[Challenge, ...]) -> None:
    assert parse_challenges(header) == expected


def test_a_challenge_that_is_none_is_corrupt() -> None:
    with pytest.raises(Corrupt) as caught:
        parse_challenges('"realm"')
    assert caught.value.code == "challenge-invalid"


def test_an_open_registry_is_never_asked_for_a_token() -> None:
    sent, status = converse(anonymous(), answer(200))
    assert (sent, status) == ([REQUEST], 200)


def test_an_anonymous_token_is_fetched_and_used_again() -> None:
    auth = anonymous()
    sent, status = converse(auth, answer(401, BEARER), answer(200, body={"token": "t1"}), answer(200))
    assert status == 200
    assert sent[1] == HttpRequest(
        method="GET", url="https://auth.test/token?service=registry.test&scope=repository%3Aa%2Fb%3Apull"
    )
    assert authorization(sent[2]) == "Bearer t1"
    sent, status = converse(auth, answer(404))
    assert ([authorization(each) for each in sent], status) == (["Bearer t1"], 404)


def test_a_token_is_renewed_when_its_time_is_over() -> None:
    now = [0.0]
    auth = anonymous(clock=lambda: now[0])
    converse(auth, answer(401, BEARER), answer(200, body={"access_token": "t1", "expires_in": 100}), answer(200))
    now[0] = 94
    assert authorization(converse(auth, answer(200))[0][0]) == "Bearer t1"
    now[0] = 95  # five seconds early
    assert authorization(converse(auth, answer(200))[0][0]) is None


def test_a_token_lives_a_minute_when_nothing_is_said() -> None:
    now = [0.0]
    auth = anonymous(clock=lambda: now[0])
    converse(auth, answer(401, BEARER), answer(200, body={"token": "t1"}), answer(200))
    now[0] = 54.9
    assert authorization(converse(auth, answer(200))[0][0]) == "Bearer t1"
    now[0] = 55.1
    assert authorization(converse(auth, answer(200))[0][0]) is None


def test_a_token_that_is_refused_in_the_middle_is_renewed() -> None:
    auth = anonymous()
    converse(auth, answer(401, BEARER), answer(200, body={"token": "t1"}), answer(200))
    sent, status = converse(auth, answer(401, BEARER), answer(200, body={"token": "t2"}), answer(206))
    assert ([authorization(each) for each in sent], status) == (["Bearer t1", None, "Bearer t2"], 206)


def test_a_realm_that_holds_a_query_is_extended_not_begun_again() -> None:
    challenge = 'Bearer realm="https://nvcr.io/proxy_auth?scope=repository:nvidia/x:pull,push"'
    sent, _ = converse(anonymous("nvcr.io"), answer(401, challenge), answer(200, body={"token": "t"}), answer(200))
    assert sent[1].url == "https://nvcr.io/proxy_auth?scope=repository:nvidia/x:pull,push"
    key = Credential(username="$oauthtoken", password="key")
    sent, _ = converse(known(key, "nvcr.io"), answer(401, challenge), answer(200, body={"token": "t"}), answer(200))
    assert sent[1].url == "https://nvcr.io/proxy_auth?scope=repository:nvidia/x:pull,push&account=%24oauthtoken"
    assert authorization(sent[1]) == "Basic JG9hdXRodG9rZW46a2V5"


def test_scopes_of_the_request_and_the_challenge_are_asked_for_together() -> None:
    scopes = frozenset({"repository:a/b:pull,push", "repository:c/d:pull"})
    flow = (answer(401, BEARER), answer(200, body={"token": "t"}), answer(200))
    sent, _ = converse(anonymous(), *flow, scopes=scopes)
    assert parse_qsl(urlsplit(sent[1].url).query) == [
        ("service", "registry.test"),
        ("scope", "repository:a/b:pull,push"),
        ("scope", "repository:c/d:pull"),
    ]


def test_scopes_of_one_resource_are_merged() -> None:
    assert merged(frozenset({"repository:a:pull", "repository:a:push,pull", "registry:catalog:*"})) == frozenset(
        {"repository:a:pull,push", "registry:catalog:*"}
    )


def test_basic_is_sent_once_asked_and_then_always() -> None:
    auth = known()
    sent, status = converse(auth, answer(401, 'Basic realm="r"'), answer(200))
    assert ([authorization(each) for each in sent], status) == ([None, "Basic YW5uOnNlY3JldA=="], 200)
    sent, _ = converse(auth, answer(200), scopes=frozenset({"repository:other:pull"}))
    assert [authorization(each) for each in sent] == ["Basic YW5uOnNlY3JldA=="]


def test_bearer_is_preferred_to_basic() -> None:
    sent, _ = converse(
        known(), answer(401, f'Basic realm="r", {BEARER}'), answer(200, body={"token": "t"}), answer(200)
    )
    assert authorization(sent[2]) == "Bearer t"


def test_an_identity_token_is_exchanged_in_the_oauth2_form() -> None:
    auth = known(Credential(identity_token="refresh me"))
    sent, _ = converse(auth, answer(401, BEARER), answer(200, body={"access_token": "t"}), answer(200))
    request = sent[1]
    assert (request.method, request.url, authorization(request)) == ("POST", "https://auth.test/token", None)
    assert request.open_body is not None
    assert dict(parse_qsl(request.open_body().read().decode())) == {
        "service": "registry.test",
        "grant_type": "refresh_token",
        "client_id": "argosy",
        "refresh_token": "refresh me",
        "scope": "repository:a/b:pull",
    }


def test_no_credentials_for_basic_is_login_required() -> None:
    error = refused(anonymous(), answer(401, 'Basic realm="r"'))
    assert (type(error), error.code, error.message, error.hint) == (
        Unauthorized,
        "login-required",
        "registry.test: access refused without a login",
        "argosy login registry.test",
    )


def test_a_wrong_password_is_login_refused_and_is_not_shown() -> None:
    for answers in (
        (answer(401, 'Basic realm="r"'), answer(401, 'Basic realm="r"')),
        (answer(401, BEARER), answer(401)),
        (answer(401, BEARER), answer(200, body={"token": "t"}), answer(401, BEARER)),
    ):
        error = refused(known(), *answers)
        assert (type(error), error.code) == (Unauthorized, "login-refused")
        assert error.context.startswith("it was 'ann' of auth.json;")
        assert "secret" not in f"{error!r} {error} {error.context} {error.hint}"


def test_an_anonymous_token_server_that_refuses_is_asked_once_more() -> None:
    flow = (answer(401, BEARER), answer(401), answer(200, body={"token": "t"}), answer(200))
    assert converse(anonymous(), *flow)[1] == 200
    assert refused(anonymous(), answer(401, BEARER), answer(401), answer(401)).code == "login-required"


@pytest.mark.parametrize("body", [{}, {"token": ""}, {"token": "a\r\nX: y"}, {"token": 1}, [], None])
def test_an_answer_without_a_token_is_corrupt(body: object) -> None:
    error = refused(anonymous(), answer(401, BEARER), answer(200, body=body))
    assert (type(error), error.code) == (Corrupt, "token-invalid")


def test_a_broken_token_server_is_unavailable() -> None:
    error = refused(anonymous(), answer(401, BEARER), answer(502, url="https://auth.test/token"))
    assert (type(error), error.code, error.context) == (
        Unavailable,
        "token-server-failed",
        "auth.test answered with status 502",
    )


@pytest.mark.parametrize(
    ("registry", "realm", "trusted"),
    [
        ("nvcr.io", "https://nvcr.io/proxy_auth", True),
        ("nvcr.io", "https://authn.nvidia.com/token", True),
        ("nvcr.io", "https://evilnvidia.com/token", False),
        ("nvcr.io", "https://nvcr.io.evil.test/token", False),
        ("docker.io", "https://auth.docker.io/token", True),
        ("docker.io", "https://evil.test/token", False),
        ("registry.test", "https://elsewhere.test/token", True),  # its owner chose that
    ],
)
def test_a_password_goes_to_known_token_servers_only(registry: str, realm: str, trusted: bool) -> None:
    flow = known(registry=registry).flow(REQUEST, PULL)
    next(flow)
    if trusted:
        assert authorization(flow.send(answer(401, f'Bearer realm="{realm}"'))) == "Basic YW5uOnNlY3JldA=="
        return
    with pytest.raises(Unauthorized) as caught:
        flow.send(answer(401, f'Bearer realm="{realm}"'))
    assert caught.value.code == "realm-untrusted"


@pytest.mark.parametrize("who", ["known", "anonymous"])
def test_a_registry_behind_tls_sends_us_nowhere_without_it(who: str) -> None:
    auth = known() if who == "known" else anonymous()
    error = refused(auth, answer(401, 'Bearer realm="http://127.0.0.1:8080/admin?delete=1"'))
    assert (error.code, error.message) == (
        "realm-untrusted",
        "registry.test: the registry sends us to 127.0.0.1:8080 for a token",
    )


@pytest.mark.parametrize("challenge", ["", "Negotiate", "Bearer"])
def test_an_unknown_kind_of_login_is_said(challenge: str) -> None:
    assert refused(known(), answer(401, challenge)).code == "challenge-unknown"


def test_problems_with_credentials_are_told_when_access_is_refused() -> None:
    auth = Auth("registry.test", lambda: None, problems=lambda: "no program docker-credential-x: not in PATH")
    assert refused(auth, answer(401, 'Basic realm="r"')).context == "no program docker-credential-x: not in PATH"
