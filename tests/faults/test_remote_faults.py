"""Servers that break the rules of HTTP, lead us astray, or never finish: what a transfer makes of them."""

from __future__ import annotations

import base64
import json
import re
from email.utils import formatdate
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import Corrupt, Error, NotFound, Unauthorized, Unavailable
from argosy.oci.descriptor import OCI_LAYER, Descriptor
from argosy.oci.reference import Reference
from argosy.remote.auth import Auth
from argosy.remote.credentials import Credential
from argosy.remote.messages import HttpRequest
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from support import flaky as faults
from support.flaky import flaky
from support.images import random_image
from support.proxy import proxying
from support.raw import Peer, raw_serving
from support.registry import running_registry
from support.tokens import guarded
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from support.images import RandomImage
    from support.raw import Act
    from support.registry import RunningRegistry

DATA = bytes(range(256)) * 1000
BLOB = Descriptor.of(DATA, OCI_LAYER)


class Client:
    """A transport that does not really pause, and what it would have paused."""

    def __init__(self) -> None:
        self.pauses: list[float] = []
        self.transport = Transport(
            {}, sleep=self.pauses.append, retries=RetryPolicy(attempts=3), read_timeout_s=0.4, connect_timeout_s=2
        )

    def repository(self, address: str, auth: Auth | None = None) -> Repository:
        return Repository(self.transport, address, "team/app", auth)

    def blob(self, address: str, auth: Auth | None = None) -> bytes:
        with self.repository(address, auth).open(BLOB) as stream:
            return stream.read()

    def get(self, url: str, **headers: str) -> tuple[int, bytes]:
        with self.transport.send(HttpRequest(method="GET", url=url, headers=headers)) as response:
            return response.status, response.read_all(10**6)

    def refusal(self, url: str) -> Error:
        with pytest.raises(Error) as caught:
            self.get(url)
        return caught.value


@pytest.fixture
def client() -> Iterator[Client]:
    made = Client()
    yield made
    made.transport.close()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("remote") / "registry", expected_stderr=None) as running:
        running.push_blob("team/app", DATA)
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> RandomImage:
    made = random_image(tmp_path_factory.mktemp("remote") / "image", layers=3, size=200_000)
    registry.push(made, "team/app", "1")
    return made


def ok(body: bytes = b"now", *headers: str) -> Act:
    lines = "".join(f"{line}\r\n" for line in headers or (f"Content-Length: {len(body)}",))
    return lambda peer: peer.send(f"HTTP/1.1 200 OK\r\n{lines}\r\n".encode() + body)


def then_reset(text: str | bytes) -> Act:
    def act(peer: Peer) -> None:
        peer.send(text)
        peer.reset()

    return act


def then_close(text: str | bytes) -> Act:
    def act(peer: Peer) -> None:
        peer.send(text)
        peer.close()

    return act


def blob_by_range(start_of: int = 0) -> Act:
    """An honest answer to a request for DATA, or for the part of it that is asked for."""

    def act(peer: Peer) -> None:
        if "/v2/ " in peer.head:
            return peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
        start = int(found[1]) if (found := re.search(r"Range: bytes=(\d+)-", peer.head)) else start_of
        extent = f"Content-Range: bytes {start}-{len(DATA) - 1}/{len(DATA)}\r\n" if found else ""
        status = "206 Partial Content" if found else "200 OK"
        peer.send(f"HTTP/1.1 {status}\r\n{extent}Content-Length: {len(DATA) - start}\r\n\r\n".encode() + DATA[start:])
        return None

    return act


PING = ok(b"")


@pytest.mark.parametrize(
    "act",
    [
        then_reset(""),
        then_reset("HTTP/1.1 200 OK\r\nContent-Le"),
        then_close(""),
        then_close("HTTP/1.1 200 OK\r\nContent-Le"),
        then_close("HTTP/1.1 rubbish\r\n\r\n"),
        then_close("rubbish"),
        then_close("HTTP/1.1 200 OK\r\n" + f"X-Long: {'x' * 70_000}\r\n\r\n"),
        then_close("HTTP/1.1 200 OK\r\n" + "X-Many: x\r\n" * 200 + "\r\n"),
        then_close("HTTP/1.1 100 Continue\r\n\r\n" * 50),
    ],
)
def test_an_answer_whose_head_is_broken_is_asked_for_again(client: Client, act: Act) -> None:
    with raw_serving(act, ok()) as site:
        assert client.get(site.url) == (200, b"now")
        assert len(site.heads) == 2
    with raw_serving(act) as site:
        error = client.refusal(site.url)
        assert (type(error), error.code, len(site.heads)) == (Unavailable, "connection-lost", 3)


def test_a_head_that_drips_runs_out_of_time(client: Client) -> None:
    """Each byte comes within the time-out, all of them do not."""
    with raw_serving(lambda peer: peer.drip("HTTP/1.1 200 OK\r\nX-Slow: " + "x" * 1000, 0.05)) as site:
        error = client.refusal(site.url)
    assert (type(error), error.code) == (Unavailable, "timed-out")


@pytest.mark.parametrize("chunked", [True, False])
def test_a_body_that_drips_is_given_up_and_gone_on_with(client: Client, chunked: bool) -> None:
    def drip(peer: Peer) -> None:
        if chunked:
            peer.send(f"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{len(DATA):x}\r\n")
        else:
            peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n")
        peer.send(DATA[:1000])
        peer.drip(DATA[1000:], 0.05)

    with raw_serving(PING, drip, blob_by_range()) as site:
        assert client.blob(site.address) == DATA
        assert len(site.heads) == 3


def test_a_body_that_comes_slowly_but_at_a_pace_is_no_fault(client: Client) -> None:
    """More than 256 bytes a second; in all it takes longer than the time-out."""

    def pace(peer: Peer) -> None:
        peer.send(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n")
        for start in range(0, len(DATA), 16_000):
            peer.send(DATA[start : start + 16_000])
            peer.ended.wait(0.05)

    with raw_serving(PING, pace) as site:
        assert client.blob(site.address) == DATA
        assert len(site.heads) == 2


@pytest.mark.parametrize(
    "head",
    [
        f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\n",  # until the end of the connection
        "HTTP/1.0 200 OK\r\n\r\n",
        f"HTTP/1.0 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n",
    ],
)
@pytest.mark.parametrize("broken", [then_reset, then_close])
def test_a_body_that_breaks_off_is_gone_on_with(client: Client, head: str, broken: type) -> None:
    act = broken(head.encode() + DATA[:100_000])
    with raw_serving(PING, act, blob_by_range()) as site:
        assert client.blob(site.address) == DATA
        ranges = re.findall(r"Range: bytes=(\d+)-255999", site.heads[-1])
    assert len(ranges) == 1
    assert 0 <= int(ranges[0]) <= 100_000  # a reset may overtake what was sent before


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.0 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA,
        b"HTTP/1.0 200 OK\r\n\r\n" + DATA,
        b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + DATA,
    ],
)
def test_old_servers_without_a_length_are_understood(client: Client, answer: bytes) -> None:
    with raw_serving(PING, then_close(answer)) as site:
        assert client.blob(site.address) == DATA


def chunks(*sizes: int) -> bytes:
    parts, start = [], 0
    for size in sizes:
        parts.append(f"{size:x}\r\n".encode() + DATA[start : start + size] + b"\r\n")
        start += size
    return b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n" + b"".join(parts)


def test_chunks_without_a_length_are_understood(client: Client) -> None:
    with raw_serving(PING, lambda peer: peer.send(chunks(1, 999, 200_000, 55_000) + b"0\r\n\r\n")) as site:
        assert client.blob(site.address) == DATA


@pytest.mark.parametrize(
    "rest", [b"", b"zz\r\n", b"-5\r\nrubbish", b"ffffffffffff\r\nshort", b"5\r\nab", b"x" * 70_000]
)
def test_chunks_that_are_broken_are_gone_on_with(client: Client, rest: bytes) -> None:
    with raw_serving(PING, then_close(chunks(1000, 2000) + rest), blob_by_range()) as site:
        assert client.blob(site.address) == DATA
        assert len(site.heads) == 3


def test_a_chunk_of_a_negative_size_does_not_fill_the_memory(client: Client) -> None:
    """The standard library reads all that comes in that case; here the connection is dropped at once."""
    sent = []

    def flood(peer: Peer) -> None:
        peer.send(chunks(1000) + b"-1\r\n")
        for _ in range(2000):
            peer.send(bytes(100_000))
            sent.append(1)

    with raw_serving(PING, flood, blob_by_range()) as site:
        assert client.blob(site.address) == DATA
    assert len(sent) < 500  # what fits into the sockets' buffers


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ("Content-Range: bytes 0-255999/256000", None),  # all of it, after all
        ("Content-Range: bytes 50000-255999/256000", None),  # a little more than was asked for
        ("Content-Range: bytes 100000-255999/*", None),
        ("Content-Range: bytes 200000-255999/256000", "size-mismatch"),  # a gap
        ("Content-Range: bytes 100000-255999/300000", "size-mismatch"),
        ("Content-Range: rubbish", "range-invalid"),
        ("Content-Type: multipart/byteranges; boundary=x", "range-invalid"),
    ],
)
def test_a_range_that_is_answered_otherwise_is_taken_or_refused(client: Client, headers: str, code: str | None) -> None:
    found = re.search(r"bytes (\d+)-", headers)
    start = int(found[1]) if found else 100_000
    broken = then_close(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:100_000])
    body = DATA[start:]
    part = f"HTTP/1.1 206 Partial Content\r\n{headers}\r\nContent-Length: {len(body)}\r\n\r\n".encode() + body
    with raw_serving(PING, broken, lambda peer: peer.send(part)) as site:
        if code is None:
            assert client.blob(site.address) == DATA
            return
        with pytest.raises(Corrupt) as caught:
            client.blob(site.address)
        assert caught.value.code == code


def test_a_range_that_is_wrong_about_its_bytes_is_found_out_by_the_digest(client: Client) -> None:
    broken = then_close(f"HTTP/1.1 200 OK\r\nContent-Length: {len(DATA)}\r\n\r\n".encode() + DATA[:100_000])
    extent = f"Content-Range: bytes 100000-255999/256000\r\nContent-Length: {len(DATA) - 100_000}"
    lie = f"HTTP/1.1 206 Partial Content\r\n{extent}\r\n\r\n".encode() + bytes(len(DATA) - 100_000)
    with raw_serving(PING, broken, lambda peer: peer.send(lie)) as site, pytest.raises(Corrupt) as caught:
        client.blob(site.address)
    assert caught.value.code == "digest-mismatch"


@pytest.mark.parametrize("length", ["-1", "99999999999999999999", "abc", "256000\r\nContent-Length: 3"])
def test_a_length_that_lies_ends_in_an_error_or_in_the_blob(client: Client, length: str) -> None:
    answer = f"HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n".encode() + DATA
    with raw_serving(PING, then_close(answer)) as site:
        try:
            outcome = "the blob" if client.blob(site.address) == DATA else "something else"
        except (Corrupt, Unavailable) as error:
            outcome = error.code
    assert outcome in ("the blob", "size-mismatch", "connection-lost")


# Waiting


@pytest.mark.parametrize("form", ["seconds", "date"])
def test_a_time_to_come_back_is_kept(client: Client, registry: RunningRegistry, form: str) -> None:
    with flaky(registry.address) as proxy:
        after = "7" if form == "seconds" else formatdate(1_000_000_007, usegmt=True)
        headers = {"Retry_After": after, "Date": formatdate(1_000_000_000, usegmt=True)}
        proxy.fault = faults.first(1, faults.status(429, **headers))
        assert client.blob(proxy.address) == DATA
    assert client.pauses == [7.0]


@pytest.mark.parametrize(("after", "hint"), [("119", "119 seconds"), ("1800", "30 minutes"), ("21600", "6 hours")])
def test_a_time_beyond_our_patience_is_told(client: Client, registry: RunningRegistry, after: str, hint: str) -> None:
    with flaky(registry.address) as proxy:
        proxy.fault = faults.status(429, Retry_After=after)
        with pytest.raises(Unavailable) as caught:
            client.blob(proxy.address)
    error = caught.value
    assert (error.code, error.retry_after, error.hint) == ("rate-limited", float(after), f"try again in {hint}")
    assert client.pauses == []


@pytest.mark.parametrize("status", [500, 502, 503, 504])
def test_a_busy_registry_is_survived_at_the_start_and_in_the_middle(
    client: Client, registry: RunningRegistry, status: int
) -> None:
    with flaky(registry.address) as proxy:
        proxy.fault = faults.first(2, faults.status(status))
        assert client.blob(proxy.address) == DATA
        answers = [Reply(status=status), None, Reply(status=status)]

        def middle(seen: Seen, reply: Reply) -> Reply:
            if not faults.is_blob(seen):
                return reply
            answer = answers.pop() if answers else None
            return answer or (replace(reply, cut=1000) if answers else reply)

        proxy.fault = middle
        assert client.blob(proxy.address) == DATA
        assert answers == []


# Tokens


def test_a_token_that_expires_in_the_middle_of_a_blob_is_renewed(client: Client, registry: RunningRegistry) -> None:
    """Each token is good for one request, and each connection breaks: every Range needs a new one."""
    with guarded(registry.address) as door:
        door.uses = 1
        cuts = [20_000, 30_000, 40_000, 50_000]
        honest = door.answer

        def cut(seen: Seen) -> Reply:
            reply = honest(seen)
            return replace(reply, cut=cuts.pop()) if cuts and faults.is_blob(seen) and reply.status < 300 else reply

        door.site.answer = cut
        assert client.blob(door.address) == DATA
        assert (cuts, len(door.token_requests)) == ([], 5)


def test_a_token_server_that_is_busy_is_asked_again_and_says_when(client: Client, registry: RunningRegistry) -> None:
    with guarded(registry.address) as door:
        honest, busy = door.answer, [Reply(status=503), Reply(status=429, headers={"Retry-After": "3"})]

        def answer(seen: Seen) -> Reply:
            return busy.pop() if busy and seen.path == "/token" else honest(seen)

        door.site.answer = answer
        assert (client.blob(door.address), client.pauses) == (DATA, [3.0, 0.5])
        busy.append(Reply(status=429, headers={"Retry-After": "600"}))
        with pytest.raises(Unavailable) as caught:
            client.blob(door.address)
    assert (caught.value.code, caught.value.hint) == ("token-server-failed", "try again in 10 minutes")


def test_a_password_that_a_program_has_renewed_meanwhile_is_taken(client: Client, registry: RunningRegistry) -> None:
    passwords = ["old", "new"]
    with guarded(registry.address, users={"ann": "new"}) as door:
        auth = Auth(door.address, lambda: Credential(username="ann", password=passwords.pop(0)))
        assert client.blob(door.address, auth) == DATA
        assert passwords == []


# Redirects


def secretive(seen: Seen) -> list[str]:
    return [name for name in ("authorization", "cookie", "proxy-authorization") if name in seen.headers]


def test_no_credentials_along_a_chain_of_redirects(client: Client) -> None:
    """Another host, another port, and back again: what was dropped stays dropped."""
    with serving(lambda seen: Reply()) as first, serving(lambda seen: Reply()) as second:
        second.answer = lambda seen: Reply(status=302, headers={"Location": f"{first.url}/end"})
        first.answer = lambda seen: (
            Reply(body=b"end")
            if seen.path == "/end"
            else Reply(status=307, headers={"Location": f"{second.url}/x?sig=1", "Set-Cookie": "session=secret"})
        )
        assert client.get(first.url, Authorization="Bearer secret", Cookie="a=b") == (200, b"end")
        assert [secretive(seen) for seen in (*first.seen, *second.seen)] == [["authorization", "cookie"], [], []]


def test_no_credentials_to_another_name_of_the_same_machine(client: Client) -> None:
    with serving(lambda seen: Reply(body=b"end")) as site:
        port = site.address.partition(":")[2]
        site.answer = lambda seen: (
            Reply(body=b"end")
            if seen.path == "/end"
            else Reply(status=308, headers={"Location": f"http://localhost:{port}/end"})
        )
        client.get(site.url, Authorization="Bearer secret")
        assert [secretive(seen) for seen in site.seen] == [["authorization"], []]


def test_the_default_port_is_the_same_host() -> None:
    """Through a proxy, since nobody listens on port 80 here."""
    with serving(lambda seen: Reply()) as site:
        site.answer = lambda seen: (
            Reply(body=b"end")
            if seen.path == "/end"
            else Reply(status=308, headers={"Location": "http://registry.test:80/end"})
        )
        with proxying({"registry.test:80": site.address}) as proxy:
            transport = Transport({"http_proxy": proxy.url}, plain_http=True)
            request = HttpRequest(method="GET", url="http://registry.test/", headers={"Authorization": "secret"})
            transport.send(request).drain()
            transport.close()
        assert [secretive(seen) for seen in site.seen] == [["authorization"], ["authorization"]]


class Storage:
    """A registry that leads to a storage for its blobs, each time with a new signature."""

    def __init__(self, refuses: int, status: int = 403, **headers: str) -> None:
        self.refuses = refuses
        self._refusal = Reply(status=status, headers={name.replace("_", "-"): value for name, value in headers.items()})
        self.signatures = 0
        self.url = ""

    def registry(self, seen: Seen) -> Reply:
        if "/blobs/" not in seen.path:
            return Reply(status=200 if seen.path == "/v2/" else 404)
        if "authorization" not in seen.headers:
            return Reply(status=401, headers={"WWW-Authenticate": "Basic"})
        self.signatures += 1
        return Reply(status=307, headers={"Location": f"{self.url}{seen.path}?signature={self.signatures}"})

    def answer(self, seen: Seen) -> Reply:
        if self.refuses:
            self.refuses -= 1
            return self._refusal
        return Reply(body=DATA)


@pytest.mark.parametrize("status", [400, 401, 403, 404, 410])
def test_a_signature_that_has_expired_is_asked_for_again(client: Client, status: int) -> None:
    storage = Storage(2, status)
    auth = Auth("registry", lambda: Credential(username="ann", password="secret"))
    with serving(storage.answer) as store, serving(storage.registry) as front:
        storage.url = store.url
        assert client.blob(front.address, auth) == DATA
        assert [seen.target.partition("?")[2] for seen in store.seen] == [f"signature={n}" for n in (1, 2, 3)]
        assert [secretive(seen) for seen in store.seen] == [[]] * 3


def test_a_storage_that_keeps_refusing_is_named(client: Client) -> None:
    storage = Storage(99, 403)
    auth = Auth("registry", lambda: Credential(username="ann", password="secret"))
    with serving(storage.answer) as store, serving(storage.registry) as front:
        storage.url = store.url
        with pytest.raises(Unauthorized) as caught:
            client.blob(front.address, auth)
    assert (caught.value.code, caught.value.context) == ("access-denied", f"{store.address} answered with status 403")
    assert (storage.signatures, client.pauses) == (3, [0.25, 0.5])


def test_a_storage_cannot_ask_for_the_registrys_password(client: Client) -> None:
    """A 401 from where the registry led us is no challenge of the registry, whatever realm it names."""
    with serving(lambda seen: Reply(body=b'{"token":"x"}')) as thief:
        realm = f'Bearer realm="{thief.url}/token",service="registry"'
        storage = Storage(99, 401, WWW_Authenticate=realm)
        auth = Auth("registry", lambda: Credential(username="ann", password="secret"))
        with serving(storage.answer) as store, serving(storage.registry) as front:
            storage.url = store.url
            with pytest.raises(Unauthorized):
                client.blob(front.address, auth)
        assert thief.seen == []


def test_a_registry_of_https_leads_no_blob_to_plain_http(client: Client) -> None:
    """The answer is the redirect itself; see also the unit tests of redirected()."""
    with serving(lambda seen: Reply(status=307, headers={"Location": "ftp://storage.test/x"})) as front:
        assert client.get(front.url)[0] == 307


def test_what_is_not_there_is_said_without_repeating(client: Client, registry: RunningRegistry) -> None:
    with pytest.raises(NotFound):
        client.repository(registry.address).open(Descriptor.of(b"absent", OCI_LAYER))
    assert client.pauses == []


def test_manifests_survive_what_blobs_do(client: Client, registry: RunningRegistry, image: RandomImage) -> None:
    with flaky(registry.address) as proxy:
        left = [
            lambda reply: Reply(status=503),
            lambda reply: replace(reply, cut=5),
            lambda reply: Reply(status=429, headers={"Retry-After": "1"}),
        ]
        proxy.fault = lambda seen, reply: left.pop()(reply) if left and "/manifests/" in seen.path else reply
        found = client.repository(proxy.address).resolve(Reference.parse(f"{proxy.address}/team/app:1"))
    assert (found.digest, left) == (image.descriptor.digest, [])


def test_the_thief_of_a_realm_gets_no_password_of_a_registry_that_is_known() -> None:
    """nvcr.io's password goes to NVIDIA's hosts; another realm in a challenge is refused before a request."""
    challenge = 'Bearer realm="http://thief.test/token"'
    with (
        serving(lambda seen: Reply(status=401, headers={"WWW-Authenticate": challenge})) as site,
        proxying({"nvcr.io:80": site.address}) as proxy,
    ):
        transport = Transport({"http_proxy": proxy.url}, plain_http=True)
        auth = Auth("nvcr.io", lambda: Credential(username="$oauthtoken", password="key"))
        with pytest.raises(Unauthorized) as caught:
            Repository(transport, "nvcr.io", "nvidia/cuda", auth).open(BLOB)
        transport.close()
        assert (caught.value.code, [line for line in proxy.asked if "thief" in line]) == ("realm-untrusted", [])
    assert base64.b64encode(b"$oauthtoken:key").decode() not in json.dumps([dict(seen.headers) for seen in site.seen])
