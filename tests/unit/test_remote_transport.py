"""The HTTP seam: retries, redirects, faults of the client library, plain http, what --debug may show."""

from __future__ import annotations

import io
import socket
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest
import urllib3.exceptions

from argosy.errors import Corrupt, InvalidInput, Unavailable
from argosy.remote.faults import FAULTS
from argosy.remote.messages import HttpRequest, HttpResponse, retry_after
from argosy.remote.transport import RetryPolicy, Transport, redirected, shown
from support.forked import in_child
from support.web import Reply, Seen, Site, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator


class Web:
    """A site, a transport that talks to it without real pauses, and what both noted."""

    def __init__(self, site: Site, transport: Transport, pauses: list[float], lines: list[str]) -> None:
        self.site = site
        self.transport = transport
        self.pauses = pauses
        self.debug_lines = lines

    def get(self, path: str = "/", **headers: str) -> tuple[int, bytes]:
        request = HttpRequest(method="GET", url=self.site.url + path, headers=headers)
        with self.transport.send(request) as response:
            return response.status, response.read_all(10**6)


@contextmanager
def web(answer: Callable[[Seen], Reply], **options: float) -> Iterator[Web]:
    pauses: list[float] = []
    lines: list[str] = []
    transport = Transport({}, sleep=pauses.append, debug=lines.append, **options)  # type: ignore[arg-type]
    with serving(answer) as site:
        try:
            yield Web(site, transport, pauses, lines)
        finally:
            transport.close()


def in_turn(*replies: Reply) -> Callable[[Seen], Reply]:
    waiting = list(replies)
    return lambda seen: waiting.pop(0) if len(waiting) > 1 else waiting[0]


def test_every_error_of_the_library_has_a_meaning() -> None:
    theirs = {
        name
        for name, kind in vars(urllib3.exceptions).items()
        if isinstance(kind, type)
        and issubclass(kind, Exception)
        and not issubclass(kind, Warning)
        and kind.__module__ == "urllib3.exceptions"
    }
    assert theirs == set(FAULTS)


@pytest.mark.parametrize(
    ("attempt", "after", "pause"),
    [
        (1, None, 0.25),
        (2, None, 0.5),
        (4, None, 2.0),
        (5, None, 4.0),
        (6, None, None),  # six attempts are enough
        (1, 7.0, 7.0),  # the peer knows better
        (1, 61.0, None),  # but nobody waits longer than a minute
        (4, 0.0, 2.0),
    ],
)
def test_pauses_double_and_obey_the_peer(attempt: int, after: float | None, pause: float | None) -> None:
    assert RetryPolicy().pause(attempt, after) == pause


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(status: int) -> None:
    with web(in_turn(Reply(status=status, headers={"Retry-After": "3"}), Reply(body=b"now"))) as there:
        assert (there.get(), there.pauses) == ((200, b"now"), [3.0])


@pytest.mark.parametrize("status", [400, 401, 403, 404, 409, 501])
def test_a_plain_refusal_is_an_answer(status: int) -> None:
    with web(lambda seen: Reply(status=status, body=b"no")) as there:
        assert (there.get(), there.pauses) == ((status, b"no"), [])


def test_the_last_busy_answer_comes_back() -> None:
    with web(lambda seen: Reply(status=500)) as there:
        assert (there.get()[0], there.pauses) == (500, [0.25, 0.5, 1.0, 2.0, 4.0])


def test_a_post_is_not_repeated_after_a_server_error_but_after_429() -> None:
    request_of = "POST"
    for status, expected in ((500, 500), (429, 201)):
        with web(in_turn(Reply(status=status), Reply(status=201))) as there:
            request = HttpRequest(method=request_of, url=there.site.url)
            with there.transport.send(request) as response:
                assert response.status == expected


def test_a_body_is_opened_anew_for_each_attempt() -> None:
    with web(in_turn(Reply(status=503), Reply(status=201))) as there:
        body = HttpRequest(
            method="PUT", url=there.site.url, open_body=lambda: io.BytesIO(b"x" * 700_000), body_size=700_000
        )
        there.transport.send(body).drain()
        assert [(seen.body == b"x" * 700_000, seen.headers["content-length"]) for seen in there.site.seen] == [
            (True, "700000"),
            (True, "700000"),
        ]


def test_a_host_that_never_answered_is_soon_given_up() -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    pauses: list[float] = []
    with pytest.raises(Unavailable) as caught:
        Transport({}, sleep=pauses.append).send(HttpRequest(method="GET", url=f"http://127.0.0.1:{port}/"))
    error = caught.value
    assert (error.code, error.message, error.context) == (
        "cannot-connect",
        f"127.0.0.1:{port}: cannot connect",
        "Connection refused",
    )
    assert pauses == [0.25, 0.5]


def test_a_body_that_ends_early_is_unavailable() -> None:
    with web(lambda seen: Reply(body=b"x" * 1000, cut=10)) as there:
        with pytest.raises(Unavailable) as caught:
            there.get()
        assert caught.value.code == "connection-lost"


def test_a_stalled_body_times_out() -> None:
    with web(lambda seen: Reply(body=b"x" * 1000, stall=10), read_timeout_s=0.2) as there:
        with pytest.raises(Unavailable) as caught:
            there.get()
        assert caught.value.code == "timed-out"


def test_a_long_answer_is_not_read_to_its_end() -> None:
    with web(lambda seen: Reply(body=b"x" * 2_000_000)) as there, pytest.raises(Corrupt) as caught:
        there.get()
    assert caught.value.code == "response-too-large"


def test_credentials_do_not_follow_a_redirect_to_another_host() -> None:
    with serving(lambda seen: Reply(body=b"blob")) as storage:
        with web(lambda seen: Reply(status=307, headers={"Location": f"{storage.url}/x?sig=1"})) as there:
            assert there.get("/v2/", Authorization="Bearer secret", Range="bytes=1-") == (200, b"blob")
            assert there.site.seen[0].headers["authorization"] == "Bearer secret"
        assert [(seen.line, "authorization" in seen.headers, seen.headers["range"]) for seen in storage.seen] == [
            ("GET /x?sig=1", False, "bytes=1-")
        ]


def test_a_redirect_in_circles_ends() -> None:
    with web(lambda seen: Reply(status=302, headers={"Location": "/again"})) as there:
        with pytest.raises(Unavailable) as caught:
            there.get()
        assert caught.value.code == "redirect-loop"


GET = HttpRequest(method="GET", url="https://registry.test/v2/a", headers={"Authorization": "secret", "Accept": "x"})
POST = HttpRequest(method="POST", url="https://registry.test/up", open_body=io.BytesIO, body_size=3)


@pytest.mark.parametrize(
    ("request_", "status", "location", "expected"),
    [
        (GET, 200, "/b", None),
        (GET, 302, "", None),
        (GET, 302, "/b", ("GET", "https://registry.test/b", True)),
        (GET, 307, "https://registry.test/b", ("GET", "https://registry.test/b", True)),
        (GET, 307, "//cdn.test/b", ("GET", "https://cdn.test/b", False)),
        (GET, 307, "https://registry.test:444/b", ("GET", "https://registry.test:444/b", False)),
        (GET, 307, "http://registry.test/b", None),  # never down to plain text
        (GET, 307, "file:///etc/passwd", None),
        (GET, 301, "/with space", ("GET", "https://registry.test/with%20space", True)),
        (POST, 303, "/b", ("GET", "https://registry.test/b", False)),
        (POST, 302, "/b", ("GET", "https://registry.test/b", False)),
        (POST, 307, "/b", ("POST", "https://registry.test/b", False)),
    ],
)
def test_where_a_redirect_leads(
    request_: HttpRequest, status: int, location: str, expected: tuple[str, str, bool] | None
) -> None:
    onward = redirected(request_, HttpResponse(status, {"Location": location}, io.BytesIO()))
    if onward is not None:
        assert expected == (onward.method, onward.url, "Authorization" in onward.headers)
        assert (onward.open_body is None) == (onward.method == "GET")
    assert (onward is None) == (expected is None)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("5", 5.0), ("", None), ("soon", None), ("Wed, 21 Oct 2015 07:28:00 GMT", 0.0), ("-1", None)],
)
def test_retry_after_in_seconds_or_as_a_date(text: str, seconds: float | None) -> None:
    assert retry_after(HttpResponse(503, {"Retry-After": text}, io.BytesIO())) == seconds


@pytest.mark.parametrize("url", ["http://registry.test/v2/", "http://128.0.0.1/", "http://localhost.test/"])
def test_plain_http_needs_a_loopback_name_or_leave(url: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Transport({}).send(HttpRequest(method="GET", url=url))
    assert (caught.value.code, caught.value.hint) == (
        "plain-http",
        "if that network is yours, add --plain-http, or call it insecure in registries.toml",
    )


def test_debug_lines_hold_no_secret() -> None:
    with web(lambda seen: Reply()) as there:
        there.get("/x?scope=a&token=hidden&X-Amz-Signature=hidden", Authorization="Bearer hidden")
        assert there.debug_lines == [
            f"> GET {there.site.url}/x?scope=a&token=…&X-Amz-Signature=…",
            ">   Authorization: (not shown)",
            f"< 200 {there.site.url}/x?scope=a&token=…&X-Amz-Signature=…",
        ]


def test_a_password_in_an_address_is_not_shown() -> None:
    assert shown("https://user:secret@host.test/p?a=b") == "https://host.test/p?a=b"


def test_requests_go_through_the_proxy_that_is_named() -> None:
    with serving(lambda seen: Reply(body=b"from the proxy")) as proxy:
        transport = Transport({"http_proxy": f"http://me:pass%20word@{proxy.address}"}, plain_http=True)
        with transport.send(HttpRequest(method="GET", url="http://registry.test/v2/")) as response:
            assert response.read_all(100) == b"from the proxy"
        transport.close()
    assert [(seen.target, seen.headers["proxy-authorization"]) for seen in proxy.seen] == [
        ("http://registry.test/v2/", "Basic bWU6cGFzcyB3b3Jk")
    ]


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")  # the site's threads stay with the parent
def test_a_forked_process_has_connections_of_its_own() -> None:
    """Two processes that write into one connection spoil both their requests."""
    with web(lambda seen: Reply(body=seen.path.encode())) as there:
        there.get("/parent")  # its connection is open now

        def child() -> None:
            assert there.get("/child") == (200, b"/child")
            there.transport.close()

        in_child(child)
        assert there.get("/again") == (200, b"/again")
        assert [seen.path for seen in there.site.seen] == ["/parent", "/child", "/again"]


def test_a_mirror_is_asked_with_less_patience_and_never_plainly_by_a_flag() -> None:
    with web(lambda seen: Reply(status=503)) as there:
        there.transport.plain_http = True
        mirror = there.transport.adapted({}, is_mirror=True)
        mirror.send(HttpRequest(method="GET", url=there.site.url)).drain()
        assert there.pauses == [0.25]
        with pytest.raises(InvalidInput):
            mirror.send(HttpRequest(method="GET", url="http://mirror.test/"))
