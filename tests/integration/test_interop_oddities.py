"""Images that are made as few are, but may be: pulled, run, and pushed again byte for byte."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.manifest import Manifest, encode_index, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.wire import encode
from support.busybox import busybox_image, tar_of
from support.images import Layout, RandomImage, compress
from support.registry import RunningRegistry, running_registry
from support.stores import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (to run the images)")

EMPTY_TAR = bytes(1024)
#: gzip of an empty tar as BuildKit writes it: sha256:4f4fb700ef54…
BUILDKIT_EMPTY = bytes.fromhex("1f8b080000000000 00ff621805a360148c5800080000ffff2eafb5ef00040000".replace(" ", ""))
#: the same as older Docker daemons wrote it: sha256:a3ed95caeb02…
DOCKER_EMPTY = bytes.fromhex("1f8b08000009 6e8800ff621805a360148c5800080000ffff2eafb5ef00040000".replace(" ", ""))


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("odd") / "registry") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


class Oddity(msgspec.Struct, frozen=True, kw_only=True):
    """An image of busybox and something that few images have."""

    what: str
    #: (uncompressed, as sent, media type) of the layers above busybox
    layers: tuple[tuple[bytes, bytes, str], ...] = ()
    box_type: str = media.OCI_LAYER_GZIP
    config: Mapping[str, object] = {}
    annotations: Mapping[str, str] = {}
    is_docker: bool = False


def plain(name: str, compression: str = "gzip", media_type: str = media.OCI_LAYER_GZIP) -> tuple[bytes, bytes, str]:
    tar = tar_of({name: b"x"})
    return tar, compress(tar, compression), media_type


EMPTY = (
    (EMPTY_TAR, BUILDKIT_EMPTY, media.OCI_LAYER_GZIP),
    (EMPTY_TAR, DOCKER_EMPTY, media.OCI_LAYER_GZIP),
    (EMPTY_TAR, EMPTY_TAR, media.OCI_LAYER),
)
ODDITIES = (
    Oddity(what="no history", config={"history": None}),
    Oddity(what="a history of fewer steps than layers", layers=(plain("a"), plain("b")), config={"history": [{}]}),
    Oddity(
        what="a history of more steps than layers",
        config={"history": [{"created_by": "a"}, {"created_by": "b"}, {"created_by": "c", "empty_layer": True}]},
    ),
    Oddity(what="empty layers, the same ones several times", layers=(*EMPTY, plain("a"), *EMPTY)),
    Oddity(
        what="a layer of no bytes",
        layers=((b"", b"", media.OCI_LAYER), (b"", compress(b"", "gzip"), media.OCI_LAYER_GZIP)),
    ),
    Oddity(what="uncompressed layers", layers=(plain("a", "none", media.OCI_LAYER),)),
    Oddity(what="zstd layers", layers=(plain("a", "zstd", media.OCI_LAYER_ZSTD),)),
    Oddity(what="layers that are not compressed as they say", layers=(plain("a", "zstd"), plain("b", "none"))),
    Oddity(what="annotations", annotations={"org.opencontainers.image.title": "«a»", "x": ""}),
    Oddity(what="a foreign layer that the registry has", layers=(plain("a", "gzip", media.DOCKER_FOREIGN_LAYER),)),
    Oddity(
        what="Docker's types and its old fields",
        is_docker=True,
        box_type=media.DOCKER_LAYER_GZIP,
        layers=(plain("a", "none", media.DOCKER_LAYER), plain("b", "gzip", media.DOCKER_LAYER_GZIP)),
        config={
            "docker_version": "1.9",
            "container_config": {"Cmd": None},
            "container": "0" * 64,
            "Size": 7,
            "id": None,
        },
    ),
    Oddity(
        what="nulls wherever Docker writes them",
        config={"author": None, "os.features": None, "history": [{"created": None, "empty_layer": None}]},
    ),
)


@pytest.mark.parametrize("odd", ODDITIES, ids=lambda odd: odd.what)
def test_images_that_are_made_oddly_are_pulled_run_and_pushed_as_they_are(
    registry: RunningRegistry, here: Program, tmp_path: Path, odd: Oddity
) -> None:
    image = oddly_made(tmp_path / "image", odd)
    name = registry.push(image, "odd/source", image.descriptor.digest.hex[:12])
    here("pull", "-q", name)
    assert here.digest(name) == image.descriptor.digest
    assert here("run", "--rm", name, "cat", "/etc/group").startswith("root:x:0:")
    here("history", name)
    again = f"{registry.address}/odd/again:{image.descriptor.digest.hex[:12]}"
    here("tag", name, again)
    here("push", again)
    assert registry.request("GET", f"/v2/odd/again/manifests/{image.descriptor.digest}").body == image.manifest.raw
    assert here("check") is not None


def test_an_image_without_layers_is_pulled_and_has_nothing_to_run(
    registry: RunningRegistry, here: Program, tmp_path: Path
) -> None:
    layout = Layout(tmp_path / "image")
    config = layout.put(config_of((), {}), media.OCI_CONFIG)
    image = RandomImage(layout, encode_manifest(config, ()), ())
    name = registry.push(image, "odd/empty")
    here("pull", name)
    assert "[program-not-found]" in here.refusal("run", "--rm", name, "true")


def test_attestations_in_an_index_are_no_platforms(registry: RunningRegistry, here: Program, tmp_path: Path) -> None:
    """BuildKit lists them beside the images, as unknown/unknown."""
    image = busybox_image(tmp_path / "image")
    registry.push(image, "odd/attested")
    statement = image.layout.put(b"{}", "application/vnd.in-toto+json")
    config = image.layout.put(config_of((), {"architecture": "unknown", "os": "unknown"}), media.OCI_CONFIG)
    attestation = encode_manifest(config, (statement,))
    for blob in attestation.children():
        registry.push_blob("odd/attested", image.layout.read(blob.digest))
    registry.push_manifest("odd/attested", attestation.descriptor.digest, attestation.descriptor, attestation.raw)
    host, unknown = Platform.host(), Platform(os="unknown", architecture="unknown")
    note = {"vnd.docker.reference.digest": image.descriptor.digest, "vnd.docker.reference.type": "attestation-manifest"}
    replace = msgspec.structs.replace
    index = encode_index(
        (
            replace(attestation.descriptor, platform=unknown, annotations=note),
            replace(image.descriptor, platform=host),
        )
    )
    registry.push_manifest("odd/attested", "all", index.descriptor, index.raw)
    name = f"{registry.address}/odd/attested:all"
    here("pull", "-q", name)
    assert (here.digest(name), here("run", "--rm", name, "/opt/hello")) == (
        index.descriptor.digest,
        "hello from a layer",
    )
    here("pull", "-q", "--all-platforms", name)
    again = f"{registry.address}/odd/attested-again:all"
    here("tag", name, again)
    here("push", again)
    assert registry.request("GET", "/v2/odd/attested-again/manifests/all").body == index.raw
    assert "wanted linux/s390x" in here.refusal("pull", "--platform", "linux/s390x", name)


def test_artifacts_are_no_images(registry: RunningRegistry, here: Program, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "artifact")
    empty = layout.put(b"{}", media.OCI_EMPTY)
    model = layout.put(b"weights", "application/vnd.example.model")
    artifact = RandomImage(layout, encode_manifest(empty, (model,), artifact_type="application/vnd.example"), ())
    said = here.refusal("pull", registry.push(artifact, "odd/model"))
    assert "is not a container image [not-an-image]" in said
    assert "an artifact of type application/vnd.example with layers of type application/vnd.example.model" in said


def oddly_made(folder: Path, odd: Oddity) -> RandomImage:
    layout, box = Layout(folder), busybox_image(folder / "box")
    layers = [(tar, compress(tar, "gzip"), odd.box_type) for tar in box.tars]
    layers += odd.layers
    blobs = tuple(layout.put(sent, media_type) for _, sent, media_type in layers)
    tars = tuple(tar for tar, *_ in layers)
    if odd.annotations:
        blobs = tuple(msgspec.structs.replace(blob, annotations=odd.annotations) for blob in blobs)
    raw = config_of(tars, odd.config)
    if odd.is_docker:
        config = layout.put(raw, media.DOCKER_CONFIG)
        document = {"schemaVersion": 2, "mediaType": media.DOCKER_MANIFEST, "config": config, "layers": blobs}
        return RandomImage(layout, Manifest.parse(encode(document), media.DOCKER_MANIFEST), tars)
    return RandomImage(
        layout, encode_manifest(layout.put(raw, media.OCI_CONFIG), blobs, annotations=odd.annotations), tars
    )


def config_of(tars: tuple[bytes, ...], changes: Mapping[str, object]) -> bytes:
    """A config with nothing that the specification does not ask for; *changes* go on top."""
    host = Platform.host()
    rootfs = {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]}
    return encode({"architecture": host.architecture, "os": host.os, "rootfs": rootfs, **changes})
