"""The docker client, through a daemon of the tests' own, against our registry and our images."""

from __future__ import annotations

import hashlib
import io
import json
import os
import re
import tarfile
from typing import TYPE_CHECKING

import pytest

from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import Manifest, encode_index, parse
from argosy.oci.platform import Platform
from support.busybox import busybox_image, tar_of
from support.docker_daemon import Docker, docker_daemon
from support.images import RandomImage, random_image
from support.registry import RunningRegistry, running_registry
from support.stores import Program

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("docker") / "registry") as running:
        yield running


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with docker_daemon() as client:
        yield client


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


def test_what_docker_pushed_is_pulled_with_its_digest_and_runs(
    registry: RunningRegistry, docker: Docker, here: Program, tmp_path: Path
) -> None:
    """Three layers and a config that docker made, with Docker's media types."""
    docker("load", stdin=docker_archive(busybox_image(tmp_path / "image"), "box:loaded"))
    name = f"{registry.address}/docker/box:1"
    docker("tag", "box:loaded", name)
    pushed = digest_in(docker("push", name))
    assert docker("inspect", "--format", "{{index .RepoDigests 0}}", name) == f"{registry.address}/docker/box@{pushed}"
    manifest = manifest_of(registry, "docker/box", "1")
    assert {layer.media_type for layer in manifest.layers} == {media.DOCKER_LAYER_GZIP}
    assert manifest.descriptor.media_type == media.DOCKER_MANIFEST
    assert f"Digest: {pushed}" in here("pull", name)
    assert here.digest(name) == pushed
    assert here("inspect", "--format", "{{.Id}}", name) == docker("inspect", "--format", "{{.Id}}", name)
    assert here("run", "--rm", name, "/opt/hello") == "hello from a layer"


@pytest.mark.parametrize("compression", ["gzip", "none"])
@pytest.mark.parametrize("family", ["oci", "docker"])
def test_what_argosy_pushed_is_pulled_by_docker_with_the_same_files(
    registry: RunningRegistry, docker: Docker, here: Program, tmp_path: Path, family: str, compression: str
) -> None:
    image = random_image(tmp_path / "image", family=family, compression=compression, layers=3)
    source = registry.push(image, f"docker/first-{family}-{compression}")
    name = f"{registry.address}/docker/second-{family}-{compression}:1"
    here("pull", source)
    here("tag", source, name)
    here("push", name)
    assert digest_in(docker("pull", name)) == image.descriptor.digest
    assert docker("inspect", "--format", "{{.Id}}", name) == image.manifest.config.digest
    assert json.loads(docker("inspect", "--format", "{{json .RootFS.Layers}}", name)) == list(image.diff_ids)
    assert files_in_docker(docker, name) == files_of(*image.tars)


def test_docker_pulls_the_zstd_layers_that_its_version_knows(
    registry: RunningRegistry, docker: Docker, tmp_path: Path
) -> None:
    """Since Docker 23; an older one says so rather than taking the bytes for a tar."""
    name = registry.push(random_image(tmp_path / "image", compression="zstd"), "docker/zstd")
    if int(docker("version", "--format", "{{.Server.Version}}").partition(".")[0]) >= 23:
        docker("pull", name)
    else:
        assert "archive/tar: invalid tar header" in docker.refusal("pull", name)


def test_docker_takes_its_platform_of_an_index(registry: RunningRegistry, docker: Docker, tmp_path: Path) -> None:
    images = {
        architecture: random_image(
            tmp_path / architecture, seed=seed, platform=Platform(os="linux", architecture=architecture)
        )
        for seed, architecture in enumerate(("amd64", "arm64", "riscv64"))
    }
    for image in images.values():
        registry.push(image, "docker/platforms", image.descriptor.digest)
    index = encode_index(tuple(described(image, name) for name, image in images.items()))
    registry.push_manifest("docker/platforms", "all", index.descriptor, index.raw)
    name = f"{registry.address}/docker/platforms:all"
    for architecture, image in images.items():
        assert digest_in(docker("pull", f"--platform=linux/{architecture}", name)) == index.descriptor.digest
        assert docker("inspect", "--format", "{{.Id}}", name) == image.manifest.config.digest


def test_docker_makes_and_reads_a_manifest_list(
    registry: RunningRegistry, docker: Docker, here: Program, tmp_path: Path
) -> None:
    """`docker manifest` speaks to the registry itself, without the daemon."""
    host = Platform.host()
    images = [
        random_image(tmp_path / name, seed=seed, family="docker", platform=Platform(os="linux", architecture=name))
        for seed, name in enumerate((host.architecture, "s390x"))
    ]
    parts = [registry.push(image, "docker/list", f"part{number}") for number, image in enumerate(images)]
    name = f"{registry.address}/docker/list:all"
    docker("manifest", "create", "--insecure", name, *parts)
    pushed = docker("manifest", "push", name).splitlines()[-1]
    shown = json.loads(docker("manifest", "inspect", "--insecure", name))
    assert [entry["digest"] for entry in shown["manifests"]] == [image.descriptor.digest for image in images]
    assert f"Digest: {pushed}" in here("pull", name)
    assert here("inspect", "--format", "{{.Id}}", name) == images[0].manifest.config.digest


def test_docker_mounts_from_another_repository_and_sends_nothing_twice(
    registry: RunningRegistry, docker: Docker
) -> None:
    first, second = (f"{registry.address}/docker/{name}:1" for name in ("mount-from", "mount-to"))
    docker("import", "-", first, stdin=tar_of({"file": os.urandom(300_000)}))
    docker("tag", first, second)
    assert "Pushed" in docker("push", first)
    assert "Mounted from docker/mount-from" in docker("push", second)
    again = docker("push", second)
    assert "Layer already exists" in again
    assert digest_in(again) == digest_in(docker("push", first))


def test_docker_says_what_the_registry_lacks_in_its_own_words(
    registry: RunningRegistry, docker: Docker, tmp_path: Path
) -> None:
    """Clients of the Docker API choose their exceptions by these words."""
    image = random_image(tmp_path / "image", seed=7)
    name = registry.push(image, "docker/gone", "1")
    docker("pull", name)
    docker("rmi", name)
    assert registry.request("DELETE", f"/v2/docker/gone/manifests/{image.descriptor.digest}").status == 202
    by_digest = f"{registry.address}/docker/gone@{Digest.of(b'never pushed')}"  # since 24, docker keeps what it pulled
    for absent in (name, f"{registry.address}/docker/gone:2", by_digest):
        assert f"manifest for {absent} not found: manifest unknown: " in docker.refusal("pull", absent)
    never = f"{registry.address}/docker/never"
    assert f"repository {never} not found: name unknown: " in docker.refusal("pull", f"{never}:1")


def docker_archive(image: RandomImage, name: str) -> bytes:
    """What `docker save` gives, for `docker load`."""
    config = image.layout.read(image.manifest.config.digest)
    names = [f"{number}/layer.tar" for number in range(len(image.tars))]
    listing = json.dumps([{"Config": "config.json", "RepoTags": [name], "Layers": names}]).encode()
    return tar_of({"config.json": config, **dict(zip(names, image.tars, strict=True)), "manifest.json": listing})


def digest_in(text: str) -> Digest:
    found = re.search(r"digest: (\S+)", text, re.IGNORECASE)
    assert found, text
    return Digest.parse(found[1])


def described(image: RandomImage, architecture: str) -> Descriptor:
    return Descriptor(
        media_type=image.descriptor.media_type,
        digest=image.descriptor.digest,
        size=image.descriptor.size,
        platform=Platform(os="linux", architecture=architecture),
    )


def manifest_of(registry: RunningRegistry, name: str, tag: str) -> Manifest:
    answer = registry.request("GET", f"/v2/{name}/manifests/{tag}")
    found = parse(answer.body, answer.headers["content-type"])
    assert isinstance(found, Manifest), answer
    return found


def files_in_docker(docker: Docker, name: str) -> dict[str, object]:
    """The files of a container that was made of the image, without those that docker adds to each."""
    container = docker("create", name)
    try:
        found = files_of(docker.data("export", container))
    finally:
        docker("rm", container)
    return {
        path: row for path, row in found.items() if not path.startswith((".dockerenv", "dev", "etc", "proc", "sys"))
    }


def files_of(*tars: bytes) -> dict[str, object]:
    """{path: (mode, kind, content or target)} of archives on top of each other."""
    rows: dict[str, object] = {}
    for tar in tars:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            for member in archive:
                file = archive.extractfile(member) if member.isfile() or member.islnk() else None
                content = hashlib.sha256(file.read()).hexdigest() if file else member.linkname
                kind = tarfile.REGTYPE if member.islnk() else member.type
                rows[member.name.rstrip("/")] = (member.mode & 0o7777, kind, content)
    return rows
