"""Manifests and indexes: bytes kept, both vocabularies read, hostile documents refused."""

from __future__ import annotations

import pytest

from argosy.errors import Corrupt, NotFound
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.go_json import reindented
from argosy.oci.manifest import MANIFEST_LIMIT, Index, Manifest, encode_index, encode_list, encode_manifest, parse
from argosy.oci.platform import Platform

CONFIG = Descriptor.of(b"{}", media.OCI_CONFIG)
LAYERS = (Descriptor.of(b"one", media.OCI_LAYER_GZIP), Descriptor.of(b"two", media.OCI_LAYER_ZSTD))
D = CONFIG.digest
CONFIG_JSON = f'{{"mediaType":"{media.OCI_CONFIG}","digest":"{D}","size":2}}'


def child(platform: str | None, *, media_type: str = media.OCI_MANIFEST, content: bytes = b"") -> Descriptor:
    raw = content or (platform or "none").encode()
    parsed = Platform.parse(platform) if platform and platform != "unknown/unknown" else None
    if platform == "unknown/unknown":
        parsed = Platform(os="unknown", architecture="unknown")
    return Descriptor(media_type=media_type, digest=Digest.of(raw), size=len(raw), platform=parsed)


def test_a_manifest_is_read_with_its_bytes_kept() -> None:
    raw = (
        f'{{ "schemaVersion": 2, "mediaType": "{media.DOCKER_MANIFEST}", "unknown": [1],\n "config": {CONFIG_JSON},'
        f' "layers": [{CONFIG_JSON}], "annotations": {{"a": "b"}} }}'
    ).encode()
    assert parse(raw) == Manifest(
        raw=raw,
        descriptor=Descriptor(media_type=media.DOCKER_MANIFEST, digest=Digest.of(raw), size=len(raw)),
        config=CONFIG,
        layers=(CONFIG,),
        artifact_type=None,
        subject=None,
        annotations={"a": "b"},
    )


def test_an_index_is_read_with_its_platforms() -> None:
    raw = (
        f'{{"schemaVersion":2,"mediaType":"{media.OCI_INDEX}","manifests":[{{"mediaType":"{media.OCI_MANIFEST}",'
        f'"digest":"{D}","size":2,"platform":{{"os":"linux","architecture":"arm","variant":"v7"}}}}]}}'
    ).encode()
    index = parse(raw)
    assert isinstance(index, Index)
    assert [str(entry.platform) for entry in index.children()] == ["linux/arm/v7"]
    assert index.raw == raw


def test_encoding_is_the_same_each_time_and_reads_back() -> None:
    made = encode_manifest(CONFIG, LAYERS, annotations={"b": "2", "a": "1"}, subject=LAYERS[0], artifact_type="x/y")
    again = encode_manifest(CONFIG, LAYERS, annotations={"a": "1", "b": "2"}, subject=LAYERS[0], artifact_type="x/y")
    assert made == again == parse(made.raw)
    assert made.children() == (CONFIG, *LAYERS)
    assert made.raw.startswith(b'{"schemaVersion":2,"mediaType":"application/vnd.oci.image.manifest.v1+json",')


def test_an_index_reads_back() -> None:
    made = encode_index((child("linux/amd64"), child("linux/arm64")), annotations={"z": "1"})
    assert parse(made.raw) == made


@pytest.mark.parametrize(
    ("sent", "own", "kind"),
    [
        (media.DOCKER_MANIFEST, None, media.DOCKER_MANIFEST),
        (f"{media.OCI_MANIFEST}; charset=utf-8", media.OCI_MANIFEST, media.OCI_MANIFEST),
        (media.OCI_MANIFEST.upper(), None, media.OCI_MANIFEST),
        ("application/json", media.DOCKER_MANIFEST, media.DOCKER_MANIFEST),
        (None, None, media.OCI_MANIFEST),
        ("text/plain", None, media.OCI_MANIFEST),
    ],
)
def test_the_type_is_the_transports_else_the_documents_own(sent: str | None, own: str | None, kind: str) -> None:
    own_field = f'"mediaType":"{own}",' if own else ""
    raw = f'{{"schemaVersion":2,{own_field}"config":{CONFIG_JSON},"layers":[]}}'.encode()
    assert parse(raw, sent).descriptor.media_type == kind


@pytest.mark.parametrize(
    ("raw", "media_type", "code", "message"),
    [
        (b"<!DOCTYPE html><p>Sign in", media.OCI_MANIFEST, "manifest-invalid", "not a valid manifest"),
        (b"", None, "manifest-invalid", "not a valid manifest"),
        (b"[]", None, "manifest-invalid", "not a valid manifest"),
        (b'"text"', None, "manifest-invalid", "not a valid manifest"),
        (b"{}", None, "manifest-invalid", "not a valid manifest"),
        (b"\xff\xfe{}", None, "manifest-invalid", "not a valid manifest"),
        (b"[" * 100_000, None, "manifest-invalid", "not a valid manifest"),
        (b'{"config":' + b"[" * 100_000, None, "manifest-invalid", "not a valid manifest"),
        (b'{"schemaVersion":1,"fsLayers":[]}', None, "manifest-schema1", "manifest has the retired schema 1"),
        (b'{"fsLayers":[]}', None, "manifest-schema1", "manifest has the retired schema 1"),
        (
            f'{{"mediaType":"{media.OCI_INDEX}","manifests":[]}}'.encode(),
            media.OCI_MANIFEST,
            "manifest-type-mismatch",
            f"manifest was sent as {media.OCI_MANIFEST} but says that it is {media.OCI_INDEX}",
        ),
        (
            f'{{"manifests":[],"config":{CONFIG_JSON},"layers":[]}}'.encode(),
            media.OCI_INDEX,
            "manifest-ambiguous",
            "manifest has the fields of both an image and an index",
        ),
        (
            b'{"mediaType":"application/vnd.oci.image.config.v1+json"}',
            None,
            "manifest-type-unknown",
            "not a manifest: its type is 'application/vnd.oci.image.config.v1+json'",
        ),
        (
            f'{{"schemaVersion":3,"config":{CONFIG_JSON},"layers":[]}}'.encode(),
            None,
            "manifest-invalid",
            "manifest has schema version 3, not 2",
        ),
        (b'{"layers":[]}', None, "manifest-invalid", "not a valid manifest"),
        (
            f'{{"config":{CONFIG_JSON.replace(str(D), "sha256:123")},"layers":[]}}'.encode(),
            None,
            "manifest-invalid",
            "manifest holds a bad digest",
        ),
        (
            f'{{"config":{CONFIG_JSON.replace(":2}", ":-1}")},"layers":[]}}'.encode(),
            None,
            "manifest-invalid",
            "not a valid manifest",
        ),
        (
            f'{{"config":{CONFIG_JSON.replace(":2}", ":2.5}")},"layers":[]}}'.encode(),
            None,
            "manifest-invalid",
            "not a valid manifest",
        ),
        (f'{{"config":{CONFIG_JSON},"layers":null}}'.encode(), None, "manifest-invalid", "not a valid manifest"),
        (b" " * (MANIFEST_LIMIT + 1), None, "manifest-too-large", "manifest is too large"),
    ],
)
def test_a_bad_manifest_is_corrupt(raw: bytes, media_type: str | None, code: str, message: str) -> None:
    with pytest.raises(Corrupt) as caught:
        parse(raw, media_type)
    assert (caught.value.code, caught.value.message) == (code, message)


def test_a_web_page_is_called_one() -> None:
    with pytest.raises(Corrupt) as caught:
        parse(b"\n<html>", media.OCI_MANIFEST)
    assert caught.value.context == "it is an HTML or XML page; is the address that of a registry?"


def test_the_fault_is_named_by_its_path() -> None:
    with pytest.raises(Corrupt) as caught:
        parse(f'{{"config":{CONFIG_JSON},"layers":[{CONFIG_JSON},{{"mediaType":"a","digest":"{D}"}}]}}'.encode())
    assert caught.value.context == "Object missing required field `size` - at `$.layers[1]`"


@pytest.mark.parametrize("digest", ["null", "5", "[]", "{}", "true", "1.5"])
def test_a_digest_that_is_no_text_is_corrupt(digest: str) -> None:
    """null counts as absent, also where it may not be."""
    with pytest.raises(Corrupt) as caught:
        parse(CONFIG_JSON.replace(f'"{D}"', digest).join(('{"schemaVersion":2,"layers":[],"config":', "}")).encode())
    assert (caught.value.code, "$.config" in caught.value.context) == ("manifest-invalid", True)


@pytest.mark.parametrize(
    ("machine", "offers", "chosen"),
    [
        ("linux/amd64", ["linux/arm64", "linux/amd64"], "linux/amd64"),
        ("linux/arm/v7", ["linux/arm/v6", "linux/arm/v7"], "linux/arm/v7"),
        ("linux/arm/v7", ["linux/arm/v5", "linux/arm/v6"], "linux/arm/v6"),
        ("linux/arm64", ["linux/amd64", "linux/arm64/v8"], "linux/arm64/v8"),
        ("linux/amd64", ["unknown/unknown", "linux/amd64"], "linux/amd64"),
    ],
)
def test_the_best_platform_of_an_index_is_chosen(machine: str, offers: list[str], chosen: str) -> None:
    index = encode_index(tuple(child(offer) for offer in offers))
    assert index.select(Platform.parse(machine)) == child(chosen)


def test_the_first_of_equals_is_chosen() -> None:
    first, second = child("linux/amd64", content=b"1"), child("linux/amd64", content=b"2")
    assert encode_index((first, second)).select(Platform.parse("linux/amd64")) == first


def test_a_single_manifest_without_a_platform_serves_every_machine() -> None:
    assert encode_index((child(None),)).select(Platform.parse("linux/s390x")) == child(None)


def test_what_is_no_image_is_never_chosen() -> None:
    other = child("linux/amd64", media_type="application/vnd.example+json")
    with pytest.raises(NotFound):
        encode_index((other,)).select(Platform.parse("linux/amd64"))


def test_a_missing_platform_lists_what_there_is() -> None:
    index = encode_index((child("linux/amd64"), child("linux/arm64"), child("unknown/unknown")))
    with pytest.raises(NotFound) as caught:
        index.select(Platform.parse("linux/riscv64"), name="docker.io/library/foo:1")
    assert (caught.value.code, caught.value.message) == ("platform-not-in-index", "no image for this machine")
    assert caught.value.context == "docker.io/library/foo:1 offers linux/amd64, linux/arm64; wanted linux/riscv64"
    assert caught.value.hint == "pull another with --platform linux/amd64, or build it here"


def test_a_descriptor_knows_its_family() -> None:
    kinds = {
        kind: (described.is_index, described.is_manifest, described.is_layer)
        for kind in (
            media.OCI_INDEX,
            media.DOCKER_INDEX,
            media.OCI_MANIFEST,
            media.DOCKER_MANIFEST,
            media.OCI_LAYER_ZSTD,
        )
        for described in (Descriptor.of(b"", kind),)
    }
    assert kinds == {
        media.OCI_INDEX: (True, False, False),
        media.DOCKER_INDEX: (True, False, False),
        media.OCI_MANIFEST: (False, True, False),
        media.DOCKER_MANIFEST: (False, True, False),
        media.OCI_LAYER_ZSTD: (False, False, True),
    }


DOCKER_LIST = """\
{
   "schemaVersion": 2,
   "mediaType": "application/vnd.docker.distribution.manifest.list.v2+json",
   "manifests": [
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 1,
         "digest": "sha256:ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb",
         "platform": {
            "architecture": "arm",
            "os": "linux",
            "variant": "v7"
         }
      },
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 1,
         "digest": "sha256:3e23e8160039594a33894f6564e1b1348bbd7a0088d42c4acb73eeaed59c009d",
         "platform": {
            "architecture": "amd64",
            "os": "windows",
            "os.version": "10.0.17763",
            "os.features": [
               "win32k",
               "\\u003cother\\u003e"
            ]
         }
      },
      {
         "mediaType": "application/vnd.docker.distribution.manifest.v2+json",
         "size": 1,
         "digest": "sha256:2e7d2c03a9507ae265ecf5b5356885a53393a2029d241394997265a1a25aefc6",
         "platform": {
            "architecture": "",
            "os": ""
         }
      }
   ]
}"""


def test_a_list_of_dockers_manifests_has_the_bytes_that_docker_pushes() -> None:
    """The layout of docker CLI 28.2, which shows platforms that are not known as empty texts."""
    windows = Platform(os="windows", architecture="amd64", os_version="10.0.17763", os_features=("win32k", "<other>"))
    platforms = (Platform.parse("linux/arm/v7"), windows, None)
    children = tuple(
        Descriptor(media_type=media.DOCKER_MANIFEST, digest=Digest.of(raw), size=1, platform=platform)
        for raw, platform in zip((b"a", b"b", b"c"), platforms, strict=True)
    )
    index = encode_list(children)
    assert index.raw.decode() == DOCKER_LIST
    assert (index.descriptor.media_type, index.manifests[:2]) == (media.DOCKER_INDEX, children[:2])


def test_another_list_is_an_oci_index_in_the_order_given() -> None:
    children = (child("linux/arm64"), child("linux/amd64", media_type=media.DOCKER_MANIFEST))
    assert encode_list(children) == encode_index(children)
    noted = Descriptor(
        media_type=media.DOCKER_MANIFEST, digest=D, size=2, platform=Platform.parse("amd64"), annotations={"a": "b"}
    )
    assert encode_list((noted,)) == encode_index((noted,))


def test_a_document_that_would_grow_to_gigabytes_is_not_laid_out_anew() -> None:
    inner = b'"]]]]", ' * 100 + b"0"
    deep = b"[" * 33 + inner + b"]" * 33
    assert reindented(deep, "\t") == deep
    flat = b"[" * 32 + inner + b"]" * 32
    assert reindented(flat, "\t").count(b"\n") == 164
