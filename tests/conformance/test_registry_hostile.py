"""Bad input to the registry: each is one answer of the documented form, and nothing changes."""

from __future__ import annotations

import os
import socket
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import MANIFEST_LIMIT
from argosy.oci.wire import encode
from support.images import random_image
from support.registry import RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.images import RandomImage

NAME = "hostile/good"
HTML = b"<!DOCTYPE html><html><title>Sign in</title></html>"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("hostile") / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def image(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> RandomImage:
    made = random_image(tmp_path_factory.mktemp("image") / "layout")
    registry.push(made, NAME, "good")
    return made


@pytest.fixture(autouse=True)
def nothing_changes(registry: RunningRegistry, image: RandomImage) -> Iterator[None]:
    """The good tag resolves and no other appears, whatever a test sends."""
    yield
    assert registry.request("GET", f"/v2/{NAME}/manifests/good").body == image.manifest.raw
    assert registry.request("GET", f"/v2/{NAME}/tags/list").json == {"name": NAME, "tags": ["good"]}
    assert registry.request("GET", "/v2/_catalog").json == {"repositories": [NAME]}
    assert sorted(os.listdir(registry.root)) == ["blobs", "ingest", "repositories", "uploads"]
    assert sorted(os.listdir(registry.root / "repositories")) == ["hostile"]


def changed(image: RandomImage, **fields: object) -> bytes:
    """The good manifest with some fields replaced; None removes one."""
    document = {
        "schemaVersion": 2,
        "mediaType": media.OCI_MANIFEST,
        "config": image.manifest.config,
        "layers": image.manifest.layers,
    } | fields
    return encode({name: value for name, value in document.items() if value is not None})


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"schemaVersion": 1}, "schema 1"),
        ({"schemaVersion": "2"}, "Expected `int"),
        ({"mediaType": media.OCI_INDEX}, "was sent as"),
        ({"manifests": []}, "fields of both an image and an index"),
        ({"layers": "none"}, "$.layers"),
        ({"layers": None}, "layers"),
        ({"config": {"mediaType": "x", "digest": "sha256:short", "size": 1}}, "bad digest"),
        ({"config": {"mediaType": "x", "digest": "md5:" + "0" * 32, "size": 1}}, "bad digest"),
        ({"layers": [{"mediaType": "x", "digest": Digest.of(b""), "size": -1}]}, "$.layers[0].size"),
        ({"layers": [{"mediaType": "x", "digest": Digest.of(b""), "size": 1e300}]}, "$.layers[0].size"),
        ({"annotations": {"a": 1}}, "$.annotations"),
    ],
)
def test_a_manifest_that_is_none_is_refused_with_its_fault(
    registry: RunningRegistry, image: RandomImage, fields: dict[str, object], why: str
) -> None:
    answer = registry.request(
        "PUT", f"/v2/{NAME}/manifests/bad", changed(image, **fields), content_type=media.OCI_MANIFEST
    )
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])
    assert why in answer.body.decode()


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        (HTML, media.OCI_MANIFEST),
        (HTML, "text/html"),
        (b"", media.OCI_MANIFEST),
        (b"null", media.OCI_MANIFEST),
        (b"[]", media.OCI_MANIFEST),
        (b"[" * 100_000, media.OCI_MANIFEST),
        (b'{"schemaVersion":2,"mediaType":"application/x.other"}', "application/x.other"),
        (b'{"schemaVersion":2,"mediaType":"\xff\xfe"}', media.OCI_MANIFEST),
        (b"\0" * 1000, media.OCI_MANIFEST),
    ],
    ids=["HTML", "HTML as such", "nothing", "null", "list", "bomb", "other type", "not UTF-8", "zeros"],
)
def test_what_is_no_manifest_is_refused(registry: RunningRegistry, raw: bytes, kind: str) -> None:
    answer = registry.request("PUT", f"/v2/{NAME}/manifests/bad", raw, content_type=kind)
    assert (answer.status, answer.codes) == (400, ["MANIFEST_INVALID"])


def test_a_manifest_with_a_false_size_is_refused(registry: RunningRegistry, image: RandomImage) -> None:
    config = image.manifest.config
    raw = changed(image, config=Descriptor(media_type=config.media_type, digest=config.digest, size=config.size + 1))
    answer = registry.request("PUT", f"/v2/{NAME}/manifests/bad", raw, content_type=media.OCI_MANIFEST)
    assert (answer.status, answer.codes) == (400, ["SIZE_INVALID"])


@pytest.mark.parametrize("streamed", [False, True])
def test_a_manifest_past_the_limit_is_413(registry: RunningRegistry, image: RandomImage, streamed: bool) -> None:
    raw = changed(image, annotations={"filler": "x" * MANIFEST_LIMIT})
    body = iter([raw[start : start + 100_000] for start in range(0, len(raw), 100_000)]) if streamed else raw
    answer = registry.request("PUT", f"/v2/{NAME}/manifests/bad", body, content_type=media.OCI_MANIFEST)
    assert (answer.status, answer.codes) == (413, ["SIZE_INVALID"])


def test_a_manifest_of_exactly_the_limit_is_accepted(registry: RunningRegistry, image: RandomImage) -> None:
    short = changed(image, annotations={"filler": ""})
    raw = changed(image, annotations={"filler": "x" * (MANIFEST_LIMIT - len(short))})
    assert len(raw) == MANIFEST_LIMIT
    path = f"/v2/{NAME}/manifests/{Digest.of(raw)}"
    assert registry.request("PUT", path, raw, content_type=media.OCI_MANIFEST).status == 201
    assert registry.request("GET", path).body == raw


def test_a_manifest_under_another_digest_is_refused(registry: RunningRegistry, image: RandomImage) -> None:
    answer = registry.push_manifest(NAME, Digest.of(b"other"), image.descriptor, image.manifest.raw)
    assert (answer.status, answer.codes) == (400, ["DIGEST_INVALID"])


@pytest.mark.parametrize(
    "reference", ["sha256:baddigeststring", "md5:" + "0" * 32, "-tag", ".tag", "a" * 129, "t%C3%A4g", "a%20b", "a%0Ab"]
)
def test_a_reference_that_is_none_is_refused(registry: RunningRegistry, image: RandomImage, reference: str) -> None:
    path = f"/v2/{NAME}/manifests/{reference}"
    for method in ("GET", "PUT", "DELETE"):
        answer = registry.request(method, path, image.manifest.raw if method == "PUT" else None)
        assert (method, answer.status) == (method, 400)
        assert answer.codes in (["DIGEST_INVALID"], ["MANIFEST_INVALID"])


@pytest.mark.parametrize(
    "name",
    [
        *("UPPER", "-a", "a b", "ä", "a" * 256, "a\\b", "a%00b", "a%0Ab"),
        *(".", "..", "../../etc", "a/../b", "%2e%2e/b", "..%2f..%2fetc", "a//b", "a/"),
        *("_uploads", "a/_tags", "a/_blobs/b", "a%2F_manifests%2Fsha256"),
    ],
)
def test_a_name_that_is_none_is_refused(registry: RunningRegistry, name: str) -> None:
    name = name.replace("ä", "%C3%A4").replace(" ", "%20")
    digest = Digest.of(b"x")
    for method, rest in (
        ("GET", "tags/list"),
        ("PUT", "manifests/latest"),
        ("GET", f"blobs/{digest}"),
        ("DELETE", f"blobs/{digest}"),
        ("POST", "blobs/uploads/"),
        ("POST", f"blobs/uploads/?digest={digest}"),
        ("POST", f"blobs/uploads/?mount={digest}&from={NAME}"),
        ("GET", f"referrers/{digest}"),
    ):
        answer = registry.request(method, f"/v2/{name}/{rest}", b"x" if method in ("PUT", "POST") else None)
        assert (method, rest, answer.status, answer.codes) == (method, rest, 400, ["NAME_INVALID"])


@pytest.mark.parametrize(
    "session", ["..", "x", "..%2f..%2fversion.json", "00000000-0000-0000-0000-000000000000", "%00", "*"]
)
def test_an_upload_that_is_none_is_unknown(registry: RunningRegistry, session: str) -> None:
    for method in ("GET", "PATCH", "PUT", "DELETE"):
        answer = registry.request(method, f"/v2/{NAME}/blobs/uploads/{session}?digest={Digest.of(b'')}")
        assert (method, answer.status) == (method, 404)


@pytest.mark.parametrize("path", ["/", "/v1/_ping", "/v2/x", "/v2/a/b/c", "/v2/_catalog/", "/v3/", "/v2//tags/list"])
def test_an_unknown_endpoint_is_404(registry: RunningRegistry, path: str) -> None:
    answer = registry.request("GET", path)
    assert (answer.status, answer.codes) == (404, ["UNSUPPORTED"])


def test_a_method_that_is_not_for_the_path_is_405(registry: RunningRegistry) -> None:
    for method, path, allowed in (
        ("POST", "/v2/", "GET, HEAD"),
        ("PUT", "/v2/_catalog", "GET, HEAD"),
        ("PATCH", f"/v2/{NAME}/manifests/good", "DELETE, GET, HEAD, PUT"),
        ("GET", f"/v2/{NAME}/blobs/uploads/", "POST"),
    ):
        answer = registry.request(method, path)
        assert (answer.status, answer.headers["allow"], answer.codes) == (405, allowed, ["UNSUPPORTED"])


def test_a_web_page_may_not_write(registry: RunningRegistry, image: RandomImage) -> None:
    raw = image.manifest.raw
    answer = registry.request("PUT", f"/v2/{NAME}/manifests/evil", raw, origin="http://evil.example")
    assert (answer.status, answer.codes) == (403, ["DENIED"])
    assert registry.request("GET", f"/v2/{NAME}/manifests/good", origin="http://evil.example").status == 200


def test_a_slow_client_stops_nobody(registry: RunningRegistry) -> None:
    host, _, port = registry.address.rpartition(":")
    begun = [socket.create_connection((host, int(port))) for _ in range(40)]
    try:
        for connection in begun:
            connection.sendall(
                f"POST /v2/{NAME}/blobs/uploads/?digest={Digest.of(b'x')} HTTP/1.1\r\nHost: x\r\n".encode()
                + b"Content-Length: 1000\r\n\r\nfew"
            )
        start = time.monotonic()
        assert registry.request("GET", f"/v2/{NAME}/manifests/good").status == 200
        assert time.monotonic() - start < 5
    finally:
        for connection in begun:
            connection.close()


def test_a_reader_that_leaves_early_costs_nothing(registry: RunningRegistry) -> None:
    """The server notices and closes the file."""
    data = os.urandom(20_000_000)
    digest = registry.push_blob(NAME, data)
    host, _, port = registry.address.rpartition(":")
    with socket.create_connection((host, int(port))) as connection:
        connection.sendall(f"GET /v2/{NAME}/blobs/{digest} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
        assert connection.recv(1000).startswith(b"HTTP/1.1 200 OK")
    deadline = time.monotonic() + 10
    while _opened(registry, digest.hex) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not _opened(registry, digest.hex)


def test_damaged_content_is_an_error_of_ours_and_named_in_the_log(tmp_path: Path) -> None:
    made = random_image(tmp_path / "image")
    with running_registry(tmp_path / "registry", expected_stderr=None) as registry:
        registry.push(made, "damaged", "latest")
        path = registry.root / "blobs/sha256" / made.descriptor.digest.hex
        path.chmod(0o644)
        for damage in (made.manifest.raw[:-1] + b" ", made.manifest.raw[:-1], None):
            path.unlink() if damage is None else path.write_bytes(damage)
            answer = registry.request("GET", "/v2/damaged/manifests/latest")
            assert (answer.status, answer.codes) == (500, ["UNKNOWN"])
            assert str(tmp_path) not in answer.body.decode()
        assert registry.request("DELETE", f"/v2/damaged/manifests/{made.descriptor.digest}").status == 202
        registry.push(made, "damaged", "latest")
        assert registry.request("GET", "/v2/damaged/manifests/latest").body == made.manifest.raw
    log = (tmp_path / "registry.stderr").read_text()
    assert f"manifest {made.descriptor.digest} of 'damaged' is lost" in log


def _opened(registry: RunningRegistry, part: str) -> list[str]:
    folder = f"/proc/{registry.process.pid}/fd"
    found = []
    for name in os.listdir(folder):
        try:
            found.append(os.readlink(f"{folder}/{name}"))
        except FileNotFoundError:
            continue
    return [target for target in found if part in target]
