"""The distribution protocol as a client: what each answer of a registry means."""

from __future__ import annotations

import io
import json
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Conflict, Corrupt, Error, Exhausted, InvalidInput, NotFound, Unauthorized, Unavailable
from argosy.oci.descriptor import OCI_CONFIG, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import MANIFEST_LIMIT, encode_manifest
from argosy.oci.reference import Reference
from argosy.remote.auth import Auth
from argosy.remote.credentials import Credential
from argosy.remote.hosts import HostSettings
from argosy.remote.messages import HttpRequest, HttpResponse
from argosy.remote.repository import Repository, near_tags
from argosy.remote.session import Session
from argosy.remote.transport import RetryPolicy, Transport
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from support.web import Site

CONFIG = b'{"architecture":"amd64","os":"linux"}'
MANIFEST = encode_manifest(Descriptor.of(CONFIG, OCI_CONFIG), ())
DIGEST = MANIFEST.descriptor.digest
OTHER = Digest.of(b"other")


@contextmanager
def registry(answer: Callable[[Seen], Reply], name: str = "team/app") -> Iterator[tuple[Repository, Site]]:
    transport = Transport({}, sleep=lambda s: None, retries=RetryPolicy(attempts=2))
    with serving(lambda seen: Reply() if seen.path == "/v2/" else answer(seen)) as site:
        try:
            yield Repository(transport, site.address, name), site
        finally:
            transport.close()


def resolve(reply: Reply, tag: str = "1.0", digest: Digest | None = None) -> object:
    with registry(lambda seen: reply) as (repository, site):
        reference = Reference(registry=site.address, repository="team/app", tag=tag, digest=digest)
        try:
            return repository.resolve(reference)
        except Error as error:
            error.message = error.message.replace(site.address, "HOST")
            error.context = error.context.replace(site.address, "HOST")
            return error


def manifest_reply(raw: bytes = MANIFEST.raw, media_type: str = OCI_MANIFEST, **headers: str) -> Reply:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(headers={"Content-Type": media_type, **named}, body=raw)


@pytest.mark.parametrize(
    ("settings", "plain_http", "base"),
    [
        (HostSettings(), False, "https://lab.lan:5000"),
        (HostSettings(), True, "http://lab.lan:5000"),
        (HostSettings(scheme="https"), True, "http://lab.lan:5000"),  # a flag is nearer than a file
        (HostSettings(scheme="http"), False, "http://lab.lan:5000"),
        (HostSettings(scheme="https", insecure=True), False, "https://lab.lan:5000"),
    ],
)
def test_how_a_registry_is_addressed(settings: HostSettings, plain_http: bool, base: str) -> None:
    transport = Transport({}, plain_http=plain_http, hosts=lambda host: settings)
    auth = Auth("lab.lan:5000", lambda: None)
    assert Session(transport, "lab.lan:5000", auth).url("/v2/a/tags/list?n=1") == f"{base}/v2/a/tags/list?n=1"
    cache = Session(transport, "lab.lan:5000", auth, api="/hub/v2", namespace="docker.io")
    assert cache.url("/v2/a/tags/list?n=1") == f"{base}/hub/v2/a/tags/list?n=1&ns=docker.io"
    assert cache.url("/v2/") == f"{base}/hub/v2/?ns=docker.io"


def test_docker_hub_has_a_host_of_another_name() -> None:
    assert Session(Transport({}), "docker.io", Auth("docker.io", lambda: None)).base == "https://registry-1.docker.io"


def test_a_tag_is_resolved_in_one_request_that_accepts_both_families() -> None:
    with registry(lambda seen: manifest_reply(Docker_Content_Digest=DIGEST)) as (repository, site):
        found = repository.resolve(Reference.parse(f"{site.address}/team/app:1.0"))
        assert (found.raw, found.media_type, found.digest) == (MANIFEST.raw, OCI_MANIFEST, DIGEST)
        assert site.lines == ["GET /v2/", "GET /v2/team/app/manifests/1.0"]
        assert site.seen[1].headers["accept"] == (
            "application/vnd.oci.image.index.v1+json, application/vnd.docker.distribution.manifest.list.v2+json, "
            "application/vnd.oci.image.manifest.v1+json, application/vnd.docker.distribution.manifest.v2+json"
        )


def test_a_digest_decides_and_is_verified() -> None:
    found = resolve(manifest_reply(), digest=DIGEST)
    assert getattr(found, "digest", found) == DIGEST
    sha512 = Digest.of(MANIFEST.raw, "sha512")
    found = resolve(manifest_reply(Docker_Content_Digest=DIGEST), digest=sha512)
    assert getattr(found, "digest", found) == sha512


@pytest.mark.parametrize(
    ("reply", "digest", "code"),
    [
        (manifest_reply(), OTHER, "digest-mismatch"),
        (manifest_reply(Docker_Content_Digest=OTHER), None, "digest-mismatch"),
        (manifest_reply(Docker_Content_Digest="rubbish"), None, "digest-invalid"),
        (manifest_reply(b"<!DOCTYPE html><html>Hello</html>", "text/html"), None, "manifest-invalid"),
        (manifest_reply(b"<!DOCTYPE html><html>Hello</html>"), None, "manifest-invalid"),
        (manifest_reply(b""), None, "manifest-invalid"),
        (manifest_reply(b"{}"), None, "manifest-invalid"),
        (manifest_reply(MANIFEST.raw[:-1]), None, "manifest-invalid"),
        (manifest_reply(b'{"schemaVersion":1}'), None, "manifest-schema1"),
        (manifest_reply(b" " * (MANIFEST_LIMIT + 1)), None, "response-too-large"),
        (Reply(body=b" " * (MANIFEST_LIMIT + 1), length=-1), None, "response-too-large"),
    ],
)
def test_a_manifest_that_lies_is_corrupt(reply: Reply, digest: Digest | None, code: str) -> None:
    error = resolve(reply, digest=digest)
    assert (type(error), getattr(error, "code", "")) == (Corrupt, code)


def test_a_page_of_html_is_called_that() -> None:
    error = resolve(manifest_reply(b"<html>Hello</html>", "text/html"))
    assert isinstance(error, Corrupt)
    assert (error.message, error.context) == (
        "HOST/team/app:1.0 is not an image",
        "not a valid manifest: it is an HTML or XML page; is the address that of a registry?",
    )


def errors(code: str, message: str = "") -> bytes:
    return json.dumps({"errors": [{"code": code, "message": message, "detail": {}}]}).encode()


@pytest.mark.parametrize(
    ("reply", "kind", "code", "context"),
    [
        (
            Reply(status=403, body=errors("DENIED", "not for you")),
            Unauthorized,
            "access-denied",
            "HOST answered with status 403: DENIED not for you",
        ),
        (Reply(status=429), Unavailable, "rate-limited", "HOST answered with status 429"),
        (Reply(status=500, body=b"<html>oops"), Unavailable, "registry-failed", "HOST answered with status 500"),
        (
            Reply(status=400, body=errors("TAG_INVALID")),
            InvalidInput,
            "request-refused",
            "HOST answered with status 400: TAG_INVALID",
        ),
        (Reply(status=409), Conflict, "registry-conflict", "HOST answered with status 409"),
        (Reply(status=507), Exhausted, "registry-full", "HOST answered with status 507"),
        (Reply(status=204, length=-1), Unavailable, "registry-failed", "HOST answered with status 204"),
        (
            Reply(status=302, headers={"Location": "ftp://elsewhere.test/x"}),
            Unavailable,
            "registry-failed",
            "HOST answered with status 302 and leads to ftp://elsewhere.test/x, which we do not follow",
        ),
    ],
)
def test_what_a_refusal_means(reply: Reply, kind: type[Error], code: str, context: str) -> None:
    error = resolve(reply)
    assert isinstance(error, Error)
    assert (type(error), error.code, error.context) == (kind, code, context)


def test_a_waiting_time_is_passed_on() -> None:
    error = resolve(Reply(status=429, headers={"Retry-After": "120"}))
    assert isinstance(error, Unavailable)
    assert (error.retry_after, error.hint) == (120.0, "try again in 120 seconds")


def tagged(*tags: str) -> Callable[[Seen], Reply]:
    def answer(seen: Seen) -> Reply:
        if seen.path.endswith("/tags/list"):
            return Reply(body=json.dumps({"name": "team/app", "tags": tags}).encode())
        return Reply(status=404, body=errors("MANIFEST_UNKNOWN"))

    return answer


def unknown(answer: Callable[[Seen], Reply], tag: str) -> NotFound:
    with registry(answer) as (repository, site):
        with pytest.raises(NotFound) as caught:
            repository.resolve(Reference.parse(f"{site.address}/team/app:{tag}"))
        error = caught.value
        texts = (text.replace(site.address, "HOST") for text in (error.message, error.context, error.hint))
        message, context, hint = texts
        return NotFound(message, code=error.code, context=context, hint=hint)


def test_an_unknown_tag_suggests_near_ones() -> None:
    error = unknown(tagged("12.6-base", "13-devel", "13-base", "latest"), "13-deval")
    assert (error.code, error.message) == ("tag-unknown", "HOST/team/app:13-deval: no such tag")
    assert error.context == "near ones in HOST/team/app: 13-devel"
    assert error.hint == "did you mean HOST/team/app:13-devel?"


def test_an_unknown_tag_without_near_ones_shows_some() -> None:
    error = unknown(tagged("a", "b", "c", "d", "e", "f", "g"), "latest")
    assert (error.context, error.hint) == (
        "HOST/team/app has c, d, e, f, g and 2 more",
        "argosy tags HOST/team/app lists them",
    )


def test_a_repository_without_tags_says_so() -> None:
    assert unknown(tagged(), "1").context == "HOST/team/app has no tags, or does not list them"
    broken = unknown(lambda seen: Reply(status=404 if "manifests" in seen.path else 500), "1")
    assert (broken.code, broken.context) == ("tag-unknown", "HOST/team/app has no tags, or does not list them")


def test_an_unknown_repository_is_told_from_an_unknown_tag() -> None:
    assert unknown(lambda seen: Reply(status=404, body=errors("NAME_UNKNOWN")), "1").code == "repository-unknown"
    assert unknown(lambda seen: Reply(status=404), "1").code == "repository-unknown"


@pytest.mark.parametrize(
    ("wanted", "tags", "near"),
    [
        ("13", ["12.1", "13.0.1-devel", "13.0"], ["13.0", "13.0.1-devel"]),
        ("latest", ["24.05-py3", "24.06-py3"], []),
        ("24.05-py2", ["24.05-py3", "24.06-py3"], ["24.05-py3", "24.06-py3"]),
    ],
)
def test_near_tags(wanted: str, tags: list[str], near: list[str]) -> None:
    assert near_tags(wanted, tags) == near


def test_tags_are_read_page_by_page_and_from_this_host_only() -> None:
    def answer(seen: Seen) -> Reply:
        if "last=b" in seen.target:
            return Reply(body=b'{"tags":["c"]}', headers={"Link": '</v2/team/app/tags/list?last=b>; rel="next"'})
        return Reply(
            body=b'{"tags":["a","b"]}', headers={"Link": '<http://evil.test/v2/team/app/tags/list?last=b>; rel="next"'}
        )

    with registry(answer) as (repository, site):
        assert list(repository.tags()) == ["a", "b", "c"]
        assert site.lines[1:] == ["GET /v2/team/app/tags/list?n=1000", "GET /v2/team/app/tags/list?last=b"]


def test_a_list_of_tags_that_is_none_is_corrupt() -> None:
    with registry(lambda seen: Reply(body=b'{"tags":[1]}')) as (repository, _), pytest.raises(Corrupt) as caught:
        list(repository.tags())
    assert caught.value.code == "list-invalid"


def test_a_blob_that_lies_is_corrupt_at_its_end() -> None:
    blob = Descriptor.of(b"promised", "application/octet-stream")
    with registry(lambda seen: Reply(body=b"deceived")) as (repository, _):
        with repository.open(blob) as stream, pytest.raises(Corrupt) as caught:
            stream.read()
        assert caught.value.code == "digest-mismatch"


def test_a_missing_blob_is_named() -> None:
    blob = Descriptor.of(b"x", "application/octet-stream")
    with registry(lambda seen: Reply(status=404)) as (repository, _), pytest.raises(NotFound) as caught:
        repository.open(blob)
    assert (caught.value.code, blob.digest in caught.value.message) == ("blob-unknown", True)


def test_a_foreign_layer_is_fetched_from_its_address() -> None:
    with serving(lambda seen: Reply(body=b"foreign", status=200 if seen.path == "/there" else 404)) as elsewhere:
        blob = Descriptor.of(b"foreign", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
        urls = ("ftp://nowhere.test/x", f"{elsewhere.url}/gone", f"{elsewhere.url}/there")
        foreign = Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, urls=urls)
        with registry(lambda seen: Reply(status=404)) as (repository, _):
            with repository.open(foreign) as stream:
                assert stream.read() == b"foreign"
            gone = Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, urls=urls[:2])
            with pytest.raises(NotFound) as caught:
                repository.open(gone)
            assert caught.value.code == "foreign-layer"


class NothingThere(Transport):
    """Every address answers with 404."""

    def __init__(self) -> None:
        super().__init__({})
        self.asked: list[str] = []

    def send(self, request: HttpRequest, *, patient: bool = True) -> HttpResponse:
        self.asked.append(request.url)
        return HttpResponse(404, {}, io.BytesIO(), url=request.url)


def test_a_foreign_layer_of_a_registry_behind_tls_is_not_fetched_without_it() -> None:
    transport = NothingThere()
    blob = Descriptor.of(b"foreign", "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip")
    urls = ("http://127.0.0.1:8080/admin", "https://elsewhere.test/layer")
    foreign = Descriptor(media_type=blob.media_type, digest=blob.digest, size=blob.size, urls=urls)
    with pytest.raises(NotFound) as caught:
        Repository(transport, "registry.test", "team/app").open(foreign)
    assert caught.value.code == "foreign-layer"
    assert transport.asked == [f"https://registry.test/v2/team/app/blobs/{blob.digest}", urls[1]]


def test_a_mount_that_is_refused_leaves_no_upload_behind() -> None:
    def answer(seen: Seen) -> Reply:
        if seen.method == "POST":
            return Reply(status=202, headers={"Location": "/up/1"})
        return Reply(status=204, length=-1)

    with registry(answer) as (repository, site):
        assert repository.mount(OTHER, "team/base") is False
        assert site.lines[1:] == [
            f"POST /v2/team/app/blobs/uploads/?mount={OTHER}&from=team/base",
            "DELETE /up/1",
        ]


def test_a_registry_that_stores_another_manifest_is_found_out() -> None:
    reply = Reply(status=201, headers={"Docker-Content-Digest": OTHER})
    with registry(lambda seen: reply) as (repository, _), pytest.raises(Corrupt) as caught:
        repository.push_manifest(MANIFEST.raw, OCI_MANIFEST, "1.0")
    assert caught.value.code == "digest-mismatch"


def test_our_login_is_not_sent_to_the_host_that_an_upload_is_led_to() -> None:
    data = b"x" * 10
    blob = Descriptor.of(data, "application/octet-stream")
    with serving(lambda seen: Reply(status=201)) as storage:

        def answer(seen: Seen) -> Reply:
            if "authorization" not in seen.headers:
                return Reply(status=401, headers={"WWW-Authenticate": "Basic"})
            if seen.method == "HEAD":
                return Reply(status=404)
            return Reply(status=202, headers={"Location": f"{storage.url}/up"})

        transport = Transport({})
        with serving(lambda seen: Reply() if seen.path == "/v2/" else answer(seen)) as site:
            auth = Auth(site.address, lambda: Credential(username="ann", password="secret"))
            Repository(transport, site.address, "team/app", auth).push_blob(blob, lambda offset: io.BytesIO(data))
        transport.close()
        assert [("authorization" in seen.headers, seen.line) for seen in storage.seen] == [
            (False, f"PUT /up?digest={blob.digest}")
        ]
