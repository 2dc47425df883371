"""distribution-spec 1.1 «Pushing blobs», over a socket: each way in, and what must be refused on each."""

from __future__ import annotations

import hashlib
import itertools
import os
import re
import socket
import threading
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci.digest import Digest
from support.registry import Answer, RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

UUID = re.compile(r"/v2/(?P<name>.+)/blobs/uploads/[0-9a-f]{8}-[0-9a-f-]{27}")
DATA = bytes(range(256)) * 20
DIGEST = Digest.of(DATA)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("push") / "registry") as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "push/" + request.node.originalname.removeprefix("test_").replace("_", "-").lower()


def begin(registry: RunningRegistry, name: str) -> str:
    answer = registry.request("POST", f"/v2/{name}/blobs/uploads/")
    assert answer.status == 202
    assert answer.headers["range"] == "0-0"
    match = UUID.fullmatch(answer.headers["location"])
    assert match is not None
    assert match["name"] == name
    return answer.headers["location"]


def read(registry: RunningRegistry, name: str, digest: Digest) -> bytes | None:
    answer = registry.request("GET", f"/v2/{name}/blobs/{digest}")
    return answer.body if answer.status == 200 else None


def leftovers(registry: RunningRegistry) -> list[str]:
    return os.listdir(registry.root / "uploads")


def test_the_base_endpoint_says_which_api_this_is(registry: RunningRegistry) -> None:
    for path in ("/v2/", "/v2"):
        answer = registry.request("GET", path)
        assert (answer.status, answer.headers["docker-distribution-api-version"]) == (200, "registry/2.0")


def test_post_then_put_stores_a_blob(registry: RunningRegistry, name: str) -> None:
    answer = registry.request("PUT", f"{begin(registry, name)}?digest={DIGEST}", DATA)
    assert answer.status == 201
    assert answer.headers["location"] == f"/v2/{name}/blobs/{DIGEST}"
    assert answer.headers["docker-content-digest"] == DIGEST
    assert read(registry, name, DIGEST) == DATA


def test_a_single_post_stores_a_blob(registry: RunningRegistry, name: str) -> None:
    answer = registry.request("POST", f"/v2/{name}/blobs/uploads/?digest={DIGEST}", DATA)
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/{name}/blobs/{DIGEST}")
    assert read(registry, name, DIGEST) == DATA


@pytest.mark.parametrize("data", [b"", b"{}"], ids=["empty", "empty JSON"])
@pytest.mark.parametrize("algorithm", ["sha256", "sha384", "sha512"])
def test_any_registered_algorithm_and_any_size(
    registry: RunningRegistry, name: str, algorithm: str, data: bytes
) -> None:
    digest = Digest.of(data, algorithm)
    assert registry.request("PUT", f"{begin(registry, name)}?digest={digest}", data).status == 201
    assert read(registry, name, digest) == data


def test_a_streamed_patch_then_an_empty_put(registry: RunningRegistry, name: str) -> None:
    """What docker does: one chunked PATCH without Content-Range."""
    place = begin(registry, name)
    pieces = [DATA[start : start + 1000] for start in range(0, len(DATA), 1000)]
    answer = registry.request("PATCH", place, iter(pieces), content_type="application/octet-stream")
    assert (answer.status, answer.headers["range"]) == (202, f"0-{len(DATA) - 1}")
    assert registry.request("PUT", f"{answer.headers['location']}?digest={DIGEST}").status == 201
    assert read(registry, name, DIGEST) == DATA


@pytest.mark.parametrize("last_in_put", [False, True], ids=["all by PATCH", "the last in PUT"])
def test_chunks_in_order(registry: RunningRegistry, name: str, last_in_put: bool) -> None:
    place, offset = begin(registry, name), 0
    cuts = [0, 2000, 2001, len(DATA)]
    last: dict[str, str] = {}
    for start, end in itertools.pairwise(cuts):
        chunk, headers = DATA[start:end], {"content_range": f"{start}-{end - 1}"}
        if last_in_put and end == len(DATA):
            last = headers
            break
        answer = registry.request("PATCH", place, chunk, **headers)
        offset = end
        assert (answer.status, answer.headers["range"]) == (202, f"0-{end - 1}")
        place = answer.headers["location"]
    assert registry.request("PUT", f"{place}?digest={DIGEST}", DATA[offset:], **last).status == 201
    assert read(registry, name, DIGEST) == DATA


@pytest.mark.parametrize(
    ("content_range", "why"),
    [
        ("100-199", "the chunk begins at byte 100"),
        ("0-9", "disagree"),
        ("0-199", "disagree"),
        ("bytes", "not a Content-Range"),
        ("-5", "not a Content-Range"),
        ("0-99999999999999999999", "not a Content-Range"),
    ],
)
def test_a_chunk_that_does_not_continue_is_refused_and_changes_nothing(
    registry: RunningRegistry, name: str, content_range: str, why: str
) -> None:
    place = begin(registry, name)
    answer = registry.request("PATCH", place, DATA[:100], content_range=content_range)
    assert (answer.status, answer.codes) == (416, ["BLOB_UPLOAD_INVALID"])
    assert (answer.headers["location"], answer.headers["range"]) == (place, "0-0")
    assert why in answer.body.decode()
    assert registry.request("GET", place).headers["range"] == "0-0"
    assert registry.request("PUT", f"{place}?digest={DIGEST}", DATA).status == 201


def test_an_out_of_order_chunk_in_the_middle_is_refused_and_the_upload_goes_on(
    registry: RunningRegistry, name: str
) -> None:
    place = begin(registry, name)
    assert registry.request("PATCH", place, DATA[:1000], content_range="0-999").status == 202
    for bad in ("0-999", "2000-2999"):
        answer = registry.request("PATCH", place, DATA[:1000], content_range=bad)
        assert (answer.status, answer.headers["range"]) == (416, "0-999")
    answer = registry.request("PUT", f"{place}?digest={DIGEST}", DATA[2000:], content_range=f"2000-{len(DATA) - 1}")
    assert answer.status == 416
    status = registry.request("GET", place)
    assert (status.status, status.headers["range"], status.headers["location"]) == (204, "0-999", place)
    answer = registry.request("PUT", f"{place}?digest={DIGEST}", DATA[1000:], content_range=f"1000-{len(DATA) - 1}")
    assert answer.status == 201


def test_a_streamed_chunk_shorter_than_its_range_is_taken_back(registry: RunningRegistry, name: str) -> None:
    place = begin(registry, name)
    answer = registry.request("PATCH", place, iter([DATA[:100]]), content_range="0-499")
    assert (answer.status, answer.headers["range"]) == (416, "0-0")
    assert registry.request("PUT", f"{place}?digest={DIGEST}", DATA).status == 201


def test_a_session_is_unknown_in_other_repositories_and_after_its_end(registry: RunningRegistry, name: str) -> None:
    place = begin(registry, name)
    elsewhere = place.replace(f"/{name}/", "/push/elsewhere/")
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = registry.request(method, f"{elsewhere}?digest={DIGEST}")
        assert (method, answer.status) == (method, 404)
    assert registry.request("PUT", f"{place}?digest={DIGEST}", DATA).status == 201
    answer = registry.request("PATCH", place, DATA)
    assert (answer.status, answer.codes) == (404, ["BLOB_UPLOAD_UNKNOWN"])


def test_a_cancelled_upload_is_gone(registry: RunningRegistry, name: str) -> None:
    place = begin(registry, name)
    registry.request("PATCH", place, DATA)
    assert registry.request("DELETE", place).status == 204
    assert registry.request("GET", place).status == 404
    assert registry.request("DELETE", place).status == 404


@pytest.mark.parametrize("way", ["post", "put", "chunk", "stream"])
def test_wrong_content_is_refused_and_leaves_nothing(registry: RunningRegistry, name: str, way: str) -> None:
    before = leftovers(registry)
    wrong = Digest.of(DATA + way.encode())
    if way == "post":
        answer = registry.request("POST", f"/v2/{name}/blobs/uploads/?digest={wrong}", DATA)
    else:
        place = begin(registry, name)
        if way == "chunk":
            registry.request("PATCH", place, DATA, content_range=f"0-{len(DATA) - 1}")
        elif way == "stream":
            registry.request("PATCH", place, iter([DATA]))
        answer = registry.request("PUT", f"{place}?digest={wrong}", DATA if way == "put" else b"")
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
    assert read(registry, name, wrong) is None
    assert leftovers(registry) == before


@pytest.mark.parametrize("digest", ["", "sha256:", "sha256:xyz", "md5:" + "0" * 32, "../../etc/passwd", None])
def test_a_digest_that_is_none_is_refused(registry: RunningRegistry, name: str, digest: str | None) -> None:
    place = begin(registry, name)
    answer = registry.request("PUT", place if digest is None else f"{place}?digest={digest}", DATA)
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])
    assert registry.request("DELETE", place).status == 204


def test_a_blob_is_mounted_from_another_repository(registry: RunningRegistry, name: str) -> None:
    registry.push_blob(f"{name}/source", DATA)
    answer = registry.request("POST", f"/v2/{name}/blobs/uploads/?mount={DIGEST}&from={name}/source")
    assert (answer.status, answer.headers["location"]) == (201, f"/v2/{name}/blobs/{DIGEST}")
    assert read(registry, name, DIGEST) == DATA


@pytest.mark.parametrize(
    "query", ["mount={0}&from=push/nowhere", "mount={0}", "mount=rubbish&from=a", "mount={0}&from=.."]
)
def test_what_cannot_be_mounted_is_uploaded_instead(registry: RunningRegistry, name: str, query: str) -> None:
    answer = registry.request("POST", f"/v2/{name}/blobs/uploads/?{query.format(DIGEST)}")
    assert answer.status == 202
    assert registry.request("PUT", f"{answer.headers['location']}?digest={DIGEST}", DATA).status == 201


def test_an_upload_that_breaks_off_can_be_continued(registry: RunningRegistry, name: str) -> None:
    place = begin(registry, name)
    data = os.urandom(3_000_000)
    digest = Digest(f"sha256:{hashlib.sha256(data).hexdigest()}")
    _send_and_hang_up(registry, f"PATCH {place}", len(data), data[:2_000_000])
    end = 2_000_000
    _wait_until(lambda: _end(registry, place) == end)
    answer = registry.request("PATCH", place, data[end:], content_range=f"{end}-{len(data) - 1}")
    assert answer.status == 202
    assert registry.request("PUT", f"{place}?digest={digest}").status == 201
    assert read(registry, name, digest) == data


def test_a_single_post_that_breaks_off_leaves_nothing(registry: RunningRegistry, name: str) -> None:
    before = leftovers(registry)
    _send_and_hang_up(registry, f"POST /v2/{name}/blobs/uploads/?digest={DIGEST}", len(DATA), DATA[:-1])
    _wait_until(lambda: leftovers(registry) == before)
    assert read(registry, name, DIGEST) is None


def test_a_second_writer_waits_and_is_refused_while_the_first_writes(registry: RunningRegistry, name: str) -> None:
    place, data = begin(registry, name), os.urandom(2_000_000)
    with socket.create_connection(_target(registry), timeout=30) as first:
        first.sendall(_head(f"PATCH {place}", len(data)) + data[:1_500_000])
        _wait_until(lambda: _end(registry, place) > 0)
        answers: list[Answer] = []
        second = threading.Thread(target=lambda: answers.append(registry.request("PATCH", place, b"other")))
        second.start()
        sent = 1_500_000
        while second.is_alive():  # never silent for long
            first.sendall(data[sent : sent + 1000])
            sent += 1000
            time.sleep(0.1)
        second.join()
        assert [(answer.status, answer.codes) for answer in answers] == [(409, ["BLOB_UPLOAD_INVALID"])]
        first.sendall(data[sent:])
        assert first.recv(100).startswith(b"HTTP/1.1 202 ")
    assert registry.request("PUT", f"{place}?digest={Digest.of(data)}").status == 201


@pytest.mark.parametrize("method", ["PATCH", "PUT", "DELETE"])
def test_a_silent_writer_gives_way_to_the_next(registry: RunningRegistry, name: str, method: str) -> None:
    """A client that lost its network comes again long before the server learns of that."""
    place, data = begin(registry, name), os.urandom(2_000_000)
    with socket.create_connection(_target(registry), timeout=30) as first:
        first.sendall(_head(f"PATCH {place}", len(data)) + data[:1_500_000])
        _wait_until(lambda: _end(registry, place) > 0)
        rest = {"content_range": f"1500000-{len(data) - 1}"} if method != "DELETE" else {}
        body = data[1_500_000:] if rest else None
        answer = registry.request(method, f"{place}?digest={Digest.of(data)}", body, **rest)
        assert answer.status == {"PATCH": 202, "PUT": 201, "DELETE": 204}[method]
        assert first.recv(100).startswith(b"HTTP/1.1 408 ")
    if method == "PATCH":
        assert registry.request("PUT", f"{place}?digest={Digest.of(data)}").status == 201
    assert read(registry, name, Digest.of(data)) == (None if method == "DELETE" else data)


def test_a_chunk_that_comes_before_the_end_of_another_is_told_where_to_begin(
    registry: RunningRegistry, name: str
) -> None:
    place, data = begin(registry, name), os.urandom(2_000_000)
    with socket.create_connection(_target(registry), timeout=30) as first:
        first.sendall(_head(f"PATCH {place}", len(data)) + data[:1_500_000])
        _wait_until(lambda: _end(registry, place) > 0)
        rest = f"1000-{len(data) - 1}"
        answer = registry.request("PATCH", place, data[1000:], content_range=rest)
    assert (answer.status, answer.headers["range"], answer.headers["location"]) == (416, "0-1499999", place)


def test_many_uploads_of_one_blob_at_once_all_succeed(registry: RunningRegistry, name: str) -> None:
    data = os.urandom(300_000)
    statuses: list[int] = []
    path = f"/v2/{name}/blobs/uploads/?digest={Digest.of(data)}"
    threads = [
        threading.Thread(target=lambda: statuses.append(registry.request("POST", path, data).status)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert statuses == [201] * 8
    assert read(registry, name, Digest.of(data)) == data


def _wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def _target(registry: RunningRegistry) -> tuple[str, int]:
    host, _, port = registry.address.rpartition(":")
    return host, int(port)


def _head(line: str, length: int) -> bytes:
    return f"{line} HTTP/1.1\r\nHost: x\r\nContent-Length: {length}\r\n\r\n".encode()


def _send_and_hang_up(registry: RunningRegistry, line: str, length: int, data: bytes) -> None:
    with socket.create_connection(_target(registry), timeout=30) as connection:
        connection.sendall(_head(line, length) + data)


def _end(registry: RunningRegistry, place: str) -> int:
    text = registry.request("GET", place).headers["range"].removeprefix("0-")
    return int(text) + 1 if text != "0" else 0
