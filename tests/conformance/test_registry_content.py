"""distribution-spec 1.1: pulling, pushing manifests, discovery and deletion, over a socket."""

from __future__ import annotations

import os
import random
from typing import TYPE_CHECKING

import pytest

from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import Manifest, encode_index, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.wire import encode
from support.images import random_image
from support.registry import RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.images import RandomImage

DATA = random.Random(1).randbytes(2_500_000)  # more than two blocks of the server
DIGEST = Digest.of(DATA)
EMPTY = Descriptor.of(b"{}", media.OCI_EMPTY)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("content") / "registry") as running:
        yield running


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    return "content/" + request.node.originalname.removeprefix("test_").replace("_", "-").lower()


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image")


def artifact(subject: Descriptor | None = None, *, kind: str = "application/x.sbom", **annotations: str) -> Manifest:
    return encode_manifest(EMPTY, (EMPTY,), artifact_type=kind, subject=subject, annotations=annotations)


def push_artifact(registry: RunningRegistry, name: str, manifest: Manifest) -> None:
    registry.push_blob(name, b"{}")
    answer = registry.push_manifest(name, manifest.descriptor.digest, manifest.descriptor, manifest.raw)
    assert answer.status == 201, answer


def test_a_blob_comes_with_its_headers(registry: RunningRegistry, name: str) -> None:
    registry.push_blob(name, DATA)
    path = f"/v2/{name}/blobs/{DIGEST}"
    for method, body in (("GET", DATA), ("HEAD", b"")):
        answer = registry.request(method, path)
        assert (answer.status, answer.body) == (200, body)
        picked = ("content-length", "content-type", "docker-content-digest", "etag", "accept-ranges")
        assert [answer.headers[header] for header in picked] == [
            "2500000",
            "application/octet-stream",
            DIGEST,
            f'"{DIGEST}"',
            "bytes",
        ]
    assert registry.request("GET", path, if_none_match=f'"x", W/"{DIGEST}"').status == 304
    assert registry.request("GET", path, if_none_match='"x"').status == 200


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-", 0, 2_500_000),
        ("bytes=1048575-1048577", 1_048_575, 1_048_578),
        ("bytes=2400000-", 2_400_000, 2_500_000),
        ("bytes=2400000-9999999", 2_400_000, 2_500_000),
        ("bytes=-7", 2_499_993, 2_500_000),
        ("bytes=-9999999", 0, 2_500_000),
    ],
)
def test_a_range_of_a_blob(registry: RunningRegistry, name: str, asked: str, start: int, end: int) -> None:
    registry.push_blob(name, DATA)
    for method in ("GET", "HEAD"):
        answer = registry.request(method, f"/v2/{name}/blobs/{DIGEST}", range=asked)
        assert answer.status == 206
        assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/2500000"
        assert answer.headers["content-length"] == str(end - start)
        assert answer.body == (DATA[start:end] if method == "GET" else b"")


@pytest.mark.parametrize(
    "asked",
    ["bytes=5-2", "bytes=0-1,x", "bytes=0-2499999,5-6", "bytes=0-1,", "lines=0-5", "bytes=", "bytes=a-b", "bytes=-"],
)
def test_a_range_that_is_none_gives_the_whole(registry: RunningRegistry, name: str, asked: str) -> None:
    registry.push_blob(name, DATA)
    answer = registry.request("GET", f"/v2/{name}/blobs/{DIGEST}", range=asked)
    assert (answer.status, answer.body) == (200, DATA)


def test_several_ranges_of_a_blob_come_as_parts_in_their_order(registry: RunningRegistry, name: str) -> None:
    """What podman asks for of a zstd:chunked layer; it counts the parts."""
    registry.push_blob(name, DATA)
    asked = [(1_048_570, 1_048_580), (0, 1), *((at, at + 3) for at in range(5, 20_000, 20)), (2_499_999, 2_500_000)]
    text = ", ".join(f"{start}-{end - 1}" for start, end in asked)
    answer = registry.request("GET", f"/v2/{name}/blobs/{DIGEST}", range=f"bytes={text},9999999-")
    assert (answer.status, answer.headers["content-length"]) == (206, str(len(answer.body)))
    kind, _, boundary = answer.headers["content-type"].partition("; boundary=")
    assert kind == "multipart/byteranges"
    parts = answer.body.removesuffix(f"\r\n--{boundary}--\r\n".encode()).split(f"--{boundary}\r\n".encode())
    assert parts[0] == b""
    assert [part.removesuffix(b"\r\n") for part in parts[1:]] == [
        b"content-type: application/octet-stream\r\n"
        b"content-range: bytes %d-%d/2500000\r\n\r\n" % (start, end - 1) + DATA[start:end]
        for start, end in asked
    ]


@pytest.mark.parametrize("asked", ["bytes=2500000-", "bytes=2500000-2500001", "bytes=-0"])
def test_a_range_outside_is_416(registry: RunningRegistry, name: str, asked: str) -> None:
    registry.push_blob(name, DATA)
    answer = registry.request("GET", f"/v2/{name}/blobs/{DIGEST}", range=asked)
    assert (answer.status, answer.headers["content-range"], answer.body) == (416, "bytes */2500000", b"")


def test_if_range_with_another_tag_gives_the_whole(registry: RunningRegistry, name: str) -> None:
    registry.push_blob(name, DATA)
    path = f"/v2/{name}/blobs/{DIGEST}"
    assert registry.request("GET", path, range="bytes=0-1", if_range='"other"').status == 200
    assert registry.request("GET", path, range="bytes=0-1", if_range=f'"{DIGEST}"').status == 206


def test_a_blob_of_another_repository_is_unknown_here(registry: RunningRegistry, name: str) -> None:
    registry.push_blob(f"{name}/other", DATA)
    answer = registry.request("GET", f"/v2/{name}/blobs/{DIGEST}")
    assert (answer.status, answer.codes) == (404, ["BLOB_UNKNOWN"])
    head = registry.request("HEAD", f"/v2/{name}/blobs/{DIGEST}")
    assert (head.status, head.body) == (404, b"")


@pytest.mark.parametrize("family", ["oci", "docker"])
def test_a_manifest_keeps_its_bytes_type_and_digest(
    registry: RunningRegistry, name: str, tmp_path: Path, family: str
) -> None:
    image = random_image(tmp_path / family, family=family)
    registry.push(image, name, "v1")
    for reference in ("v1", image.descriptor.digest):
        for method, body in (("GET", image.manifest.raw), ("HEAD", b"")):
            answer = registry.request(method, f"/v2/{name}/manifests/{reference}")
            assert (answer.status, answer.body) == (200, body)
            assert answer.headers["content-type"] == image.descriptor.media_type
            assert answer.headers["docker-content-digest"] == image.descriptor.digest
            assert answer.headers["content-length"] == str(image.descriptor.size)
    assert (
        registry.request("GET", f"/v2/{name}/manifests/v1", if_none_match=f'"{image.descriptor.digest}"').status == 304
    )


def test_a_manifest_is_kept_as_spaced_as_it_came(registry: RunningRegistry, name: str, image: RandomImage) -> None:
    registry.push(image, name)
    raw = b" \n" + image.manifest.raw.replace(b",", b" ,\n ") + b"\n"
    descriptor = Descriptor.of(raw, image.descriptor.media_type)
    answer = registry.push_manifest(name, "spaced", descriptor, raw)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, descriptor.digest)
    assert answer.headers["location"] == f"/v2/{name}/manifests/{descriptor.digest}"
    assert registry.request("GET", f"/v2/{name}/manifests/spaced").body == raw


def test_a_manifest_by_a_sha512_digest(registry: RunningRegistry, name: str, image: RandomImage) -> None:
    registry.push(image, name)
    digest = Digest.of(image.manifest.raw, "sha512")
    answer = registry.push_manifest(name, f"{digest}?tag=one&tag=two", image.descriptor, image.manifest.raw)
    assert (answer.status, answer.headers["docker-content-digest"]) == (201, digest)
    assert answer.headers["oci-tag"] == "one, two"
    for reference in (digest, "one", "two"):
        got = registry.request("GET", f"/v2/{name}/manifests/{reference}")
        assert (got.body, got.headers["docker-content-digest"]) == (image.manifest.raw, digest)


def test_a_content_type_is_optional_and_its_parameters_are_ignored(
    registry: RunningRegistry, name: str, image: RandomImage
) -> None:
    registry.push(image, name)
    path = f"/v2/{name}/manifests/loose"
    for headers in (
        {},
        {"content_type": f"{image.descriptor.media_type}; charset=utf-8"},
        {"content_type": "text/plain"},
    ):
        assert registry.request("PUT", path, image.manifest.raw, **headers).status == 201
        assert registry.request("GET", path).headers["content-type"] == image.descriptor.media_type


def test_a_tag_moves(registry: RunningRegistry, name: str, tmp_path: Path) -> None:
    for seed in (1, 2):
        image = random_image(tmp_path / str(seed), seed=seed)
        registry.push(image, name, "latest")
        assert registry.request("GET", f"/v2/{name}/manifests/latest").body == image.manifest.raw
    assert registry.request("GET", f"/v2/{name}/tags/list").json == {"name": name, "tags": ["latest"]}


def test_an_index_needs_its_manifests(registry: RunningRegistry, name: str, tmp_path: Path) -> None:
    platforms = [Platform(os="linux", architecture=architecture) for architecture in ("amd64", "arm64")]
    images = [random_image(tmp_path / p.architecture, platform=p, seed=n) for n, p in enumerate(platforms)]
    index = encode_index(tuple(image.descriptor for image in images))
    registry.push(images[0], name, "amd64")
    answer = registry.push_manifest(name, "multi", index.descriptor, index.raw)
    assert (answer.status, answer.codes) == (404, ["MANIFEST_BLOB_UNKNOWN"])
    registry.push(images[1], name, "arm64")
    assert registry.push_manifest(name, "multi", index.descriptor, index.raw).status == 201
    assert registry.request("GET", f"/v2/{name}/manifests/multi").body == index.raw
    outer = encode_index((index.descriptor,))
    assert registry.push_manifest(name, "nested", outer.descriptor, outer.raw).status == 201


def test_each_absent_child_is_named_and_nothing_is_tagged(
    registry: RunningRegistry, name: str, image: RandomImage
) -> None:
    answer = registry.push_manifest(name, "latest", image.descriptor, image.manifest.raw)
    assert answer.status == 404
    errors = answer.json["errors"]  # type: ignore[index]
    assert [entry["code"] for entry in errors] == ["MANIFEST_BLOB_UNKNOWN"] * 3
    assert [entry["detail"]["digest"] for entry in errors] == [child.digest for child in image.manifest.children()]
    for reference in ("latest", image.descriptor.digest):
        assert registry.request("GET", f"/v2/{name}/manifests/{reference}").status == 404


def test_layers_with_addresses_of_their_own_may_be_absent(registry: RunningRegistry, name: str) -> None:
    foreign = Descriptor(
        media_type="application/vnd.oci.image.layer.nondistributable.v1.tar+gzip",
        digest=Digest.of(b"elsewhere"),
        size=9,
        urls=("https://example.com/layer",),
    )
    registry.push_blob(name, b"{}")
    manifest = encode_manifest(EMPTY, (foreign,))
    assert registry.push_manifest(name, "windows", manifest.descriptor, manifest.raw).status == 201


def test_referrers_are_listed_filtered_and_deleted(registry: RunningRegistry, name: str, image: RandomImage) -> None:
    registry.push(image, name)
    sbom = artifact(image.descriptor, **{"org.example": "sbom"})
    signature = artifact(image.descriptor, kind="application/x.signature")
    plain = encode_manifest(EMPTY, (), subject=image.descriptor)
    index = encode_index(())
    with_subject = encode(
        {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": [], "subject": image.descriptor}
    )
    assert index.subject is None
    for manifest in (sbom, signature, plain):
        push_artifact(registry, name, manifest)
    descriptor = Descriptor.of(with_subject, media.OCI_INDEX)
    answer = registry.push_manifest(name, "index", descriptor, with_subject)
    assert (answer.status, answer.headers["oci-subject"]) == (201, image.descriptor.digest)
    path = f"/v2/{name}/referrers/{image.descriptor.digest}"

    def entry(of: Descriptor, kind: str | None, annotations: dict[str, str] | None = None) -> dict[str, object]:
        shown: dict[str, object] = {"mediaType": of.media_type, "digest": of.digest, "size": of.size}
        return shown | ({"artifactType": kind} if kind else {}) | ({"annotations": annotations} if annotations else {})

    everything = [
        entry(sbom.descriptor, "application/x.sbom", {"org.example": "sbom"}),
        entry(signature.descriptor, "application/x.signature"),
        entry(plain.descriptor, media.OCI_EMPTY),
        entry(descriptor, None),
    ]
    everything.sort(key=lambda shown: str(shown["digest"]))
    listed = registry.request("GET", path)
    assert (listed.status, listed.headers["content-type"]) == (200, media.OCI_INDEX)
    assert listed.json == {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": everything}
    assert "oci-filters-applied" not in listed.headers
    filtered = registry.request("GET", f"{path}?artifactType=application/x.signature")
    assert filtered.headers["oci-filters-applied"] == "artifactType"
    assert filtered.json["manifests"] == [
        everything[everything.index(entry(signature.descriptor, "application/x.signature"))]
    ]  # type: ignore[index]
    assert registry.request("DELETE", f"/v2/{name}/manifests/{sbom.descriptor.digest}").status == 202
    left = registry.request("GET", path).json["manifests"]  # type: ignore[index]
    assert len(left) == 3


def test_a_referrer_may_come_before_its_subject(registry: RunningRegistry, name: str, image: RandomImage) -> None:
    push_artifact(registry, name, artifact(image.descriptor))
    answer = registry.request("GET", f"/v2/{name}/referrers/{image.descriptor.digest}")
    assert len(answer.json["manifests"]) == 1  # type: ignore[index]


def test_referrers_of_nothing_are_an_empty_index(registry: RunningRegistry) -> None:
    answer = registry.request("GET", f"/v2/no/such/repository/referrers/{DIGEST}")
    assert (answer.status, answer.json["manifests"]) == (200, [])  # type: ignore[index]
    assert registry.request("GET", "/v2/no/such/repository/referrers/latest").status == 400


def test_referrers_come_in_pages_when_they_are_large(registry: RunningRegistry, name: str) -> None:
    subject = Descriptor.of(b"subject", media.OCI_MANIFEST)
    pushed = [artifact(subject, **{"org.example": str(n) * 1_500_000}) for n in range(4)]
    for manifest in pushed:
        push_artifact(registry, name, manifest)
    found, path, pages = [], f"/v2/{name}/referrers/{subject.digest}?artifactType=application%2Fx.sbom", 0
    while path:
        answer = registry.request("GET", path)
        assert len(answer.body) <= 4 * 2**20
        found += [entry["digest"] for entry in answer.json["manifests"]]  # type: ignore[index]
        path, pages = next_page(answer.headers.get("link")), pages + 1
    assert (pages, found) == (2, sorted(manifest.descriptor.digest for manifest in pushed))


def test_tags_are_listed_in_pages(registry: RunningRegistry, name: str) -> None:
    manifest = artifact()
    push_artifact(registry, name, manifest)
    tags = ["A", "a", "b-1", "b.1", "b_1", "latest"]
    for tag in reversed(tags):
        assert registry.push_manifest(name, tag, manifest.descriptor, manifest.raw).status == 201
    path = f"/v2/{name}/tags/list"

    def listed(query: str) -> tuple[list[str], str]:
        answer = registry.request("GET", path + query)
        assert answer.status == 200
        return answer.json["tags"], next_page(answer.headers.get("link"))  # type: ignore[index]

    assert listed("") == (sorted(tags), "")
    assert listed("?n=2") == (sorted(tags)[:2], f"{path}?n=2&last={sorted(tags)[1]}")
    assert listed("?n=6") == (sorted(tags), "")
    assert listed("?n=0") == ([], "")
    assert listed("?last=b") == (sorted(tags)[2:], "")
    assert listed("?n=1&last=latest") == ([], "")
    assert registry.request("GET", path + "?n=-1").status == 400
    collected, place = [], "?n=1"
    while place:
        page, following = listed(place)
        collected += page
        place = following.removeprefix(path)
    assert collected == sorted(tags)


def test_nested_names_do_not_collide(registry: RunningRegistry, name: str, tmp_path: Path) -> None:
    names = [f"{name}/a", f"{name}/a/b", f"{name}/a/tags/list", f"{name}/a/manifests/x", f"{name}/blobs/uploads"]
    images = {each: random_image(tmp_path / str(n), seed=n) for n, each in enumerate(names)}
    for each, image in images.items():
        registry.push(image, each, "latest")
    for each, image in images.items():
        assert registry.request("GET", f"/v2/{each}/manifests/latest").body == image.manifest.raw
        assert registry.request("GET", f"/v2/{each}/tags/list").json == {"name": each, "tags": ["latest"]}
    catalog, path = [], "/v2/_catalog?n=2"
    while path:
        answer = registry.request("GET", path)
        catalog += answer.json["repositories"]  # type: ignore[index]
        path = next_page(answer.headers.get("link"))
    assert catalog == sorted(catalog)
    assert [each for each in catalog if each.startswith(f"{name}/")] == sorted(names)


def test_a_deleted_tag_leaves_its_manifest(registry: RunningRegistry, name: str, image: RandomImage) -> None:
    registry.push(image, name, "one")
    registry.push(image, name, "two")
    assert registry.request("DELETE", f"/v2/{name}/manifests/one").status == 202
    assert registry.request("GET", f"/v2/{name}/manifests/one").codes == ["MANIFEST_UNKNOWN"]
    assert registry.request("DELETE", f"/v2/{name}/manifests/one").status == 404
    for reference in ("two", image.descriptor.digest):
        assert registry.request("GET", f"/v2/{name}/manifests/{reference}").status == 200


def test_a_deleted_manifest_takes_its_tags_along(registry: RunningRegistry, name: str, tmp_path: Path) -> None:
    images = [random_image(tmp_path / str(n), seed=n) for n in range(2)]
    for image, tags in zip(images, (("one", "two"), ("other",)), strict=True):
        for tag in tags:
            registry.push(image, name, tag)
    path = f"/v2/{name}/manifests/{images[0].descriptor.digest}"
    assert registry.request("DELETE", path).status == 202
    assert registry.request("DELETE", path).status == 404
    assert registry.request("GET", f"/v2/{name}/manifests/two").status == 404
    assert registry.request("GET", f"/v2/{name}/tags/list").json == {"name": name, "tags": ["other"]}


def test_a_deleted_blob_is_gone_here_only(registry: RunningRegistry, name: str) -> None:
    for each in (name, f"{name}/other"):
        registry.push_blob(each, DATA)
    path = f"/v2/{name}/blobs/{DIGEST}"
    assert registry.request("DELETE", path).status == 202
    assert registry.request("DELETE", path).codes == ["BLOB_UNKNOWN"]
    assert registry.request("GET", path).status == 404
    assert registry.request("HEAD", f"/v2/{name}/other/blobs/{DIGEST}").status == 200
    registry.push_blob(name, DATA)
    assert registry.request("GET", path).body == DATA


def test_an_unknown_repository_is_said_to_be_unknown(registry: RunningRegistry) -> None:
    for path in ("tags/list", "manifests/latest", f"manifests/{DIGEST}"):
        answer = registry.request("GET", f"/v2/no/such/{path}")
        assert (answer.status, answer.codes) == (404, ["NAME_UNKNOWN"])
    assert os.listdir(registry.root / "repositories") == ["content"]


def next_page(link: str | None) -> str:
    if link is None:
        return ""
    assert link.startswith("<")
    assert link.endswith('>; rel="next"')
    return link[1 : link.index(">")]
