"""Other people's clients against our registry: skopeo, podman, buildah.

The docker client needs a daemon for push and pull: test_docker_client.py.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux.files import remove_tree
from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.manifest import parse
from support.images import random_image
from support.registry import RunningRegistry, running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    Run = Callable[..., str]


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("peers") / "registry") as running:
        yield running


def skopeo(*arguments: object) -> str:
    return _run("skopeo", *arguments)


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Run]:
    """podman over storage of its own."""
    yield from _engine(tmp_path, "podman", "--cgroup-manager", "cgroupfs")


@pytest.fixture
def buildah(tmp_path: Path) -> Iterator[Run]:
    yield from _engine(tmp_path, "buildah")


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_skopeo_carries_an_oci_image_there_and_back_unchanged(
    registry: RunningRegistry, tmp_path: Path, compression: str
) -> None:
    _need("skopeo")
    image = random_image(tmp_path / "image", layers=3, compression=compression)
    remote = f"docker://{registry.address}/peers/skopeo:{compression}"
    skopeo("copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{image.folder}:latest", remote)
    skopeo("copy", "--src-tls-verify=false", remote, f"dir:{tmp_path}/back")
    assert (tmp_path / "back/manifest.json").read_bytes() == image.manifest.raw
    for child, data in image.blobs():
        assert (tmp_path / "back" / child.digest.hex).read_bytes() == data
    found = skopeo("inspect", "--tls-verify=false", "--format", "{{.Digest}}", remote)
    assert found.strip() == image.descriptor.digest


def test_skopeo_converts_to_docker_types_and_reads_them_back(registry: RunningRegistry, tmp_path: Path) -> None:
    _need("skopeo")
    image = random_image(tmp_path / "image")
    remote = f"docker://{registry.address}/peers/docker-types:1"
    skopeo("copy", "--format", "v2s2", "--dest-tls-verify=false", f"oci:{image.folder}:latest", remote)
    raw = skopeo("inspect", "--raw", "--tls-verify=false", remote).encode()
    assert parse(raw).descriptor.media_type == media.DOCKER_MANIFEST
    skopeo("copy", "--src-tls-verify=false", remote, f"docker-archive:{tmp_path}/image.tar:peers/again:1")
    again = f"docker://{registry.address}/peers/docker-types:2"
    skopeo("copy", "--dest-tls-verify=false", f"docker-archive:{tmp_path}/image.tar", again)
    assert parse(skopeo("inspect", "--raw", "--tls-verify=false", again).encode()).children()[0].digest == (
        parse(raw).children()[0].digest
    )


def test_skopeo_copies_between_repositories_lists_and_deletes(registry: RunningRegistry, tmp_path: Path) -> None:
    """The copy goes by cross-repository mount; `delete` by digest."""
    _need("skopeo")
    reference = registry.push(random_image(tmp_path / "image", family="docker"), "peers/source", "v1")
    target = f"docker://{registry.address}/peers/target:v1"
    skopeo("copy", "--src-tls-verify=false", "--dest-tls-verify=false", f"docker://{reference}", target)
    assert '"v1"' in skopeo("list-tags", "--tls-verify=false", f"docker://{registry.address}/peers/target")
    skopeo("delete", "--tls-verify=false", target)
    assert registry.request("GET", "/v2/peers/target/tags/list").json == {"name": "peers/target", "tags": []}


def test_podman_pulls_what_was_pushed_and_pushes_it_again(
    registry: RunningRegistry, podman: Run, tmp_path: Path
) -> None:
    image = random_image(tmp_path / "image")
    reference = registry.push(image, "peers/podman", "v1")
    image_id = podman("pull", "--quiet", "--tls-verify=false", reference).strip()
    assert f"sha256:{image_id}" == image.manifest.config.digest
    digest_file = tmp_path / "digest"
    target = f"{registry.address}/peers/podman-again:v1"
    podman("push", "--tls-verify=false", "--digestfile", digest_file, image_id, target)
    pushed = Digest.parse(digest_file.read_text())
    answer = registry.request("GET", "/v2/peers/podman-again/manifests/v1")
    assert (answer.status, answer.headers["docker-content-digest"]) == (200, pushed)
    podman("rmi", "--force", "--all")
    assert podman("pull", "--quiet", "--tls-verify=false", target).strip() == image_id


def test_podman_pushes_a_list_of_platforms(registry: RunningRegistry, podman: Run, tmp_path: Path) -> None:
    reference = registry.push(random_image(tmp_path / "image"), "peers/listed", "one")
    podman("manifest", "create", "listed")
    podman("manifest", "add", "--tls-verify=false", "listed", f"docker://{reference}")
    podman("manifest", "push", "--all", "--tls-verify=false", "listed", f"docker://{registry.address}/peers/listed:all")
    answer = registry.request("GET", "/v2/peers/listed/manifests/all")
    assert answer.status == 200
    assert parse(answer.body, answer.headers["content-type"]).descriptor.is_index


def test_a_client_that_tries_https_first_finds_its_way(registry: RunningRegistry, tmp_path: Path) -> None:
    """skopeo greets with TLS, is answered 400, and goes on in plain HTTP."""
    _need("skopeo")
    reference = registry.push(random_image(tmp_path / "image"), "peers/tls")
    skopeo("inspect", "--tls-verify=false", f"docker://{reference}")


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_buildah_pushes_a_built_image(registry: RunningRegistry, buildah: Run, tmp_path: Path, form: str) -> None:
    container = buildah("from", "scratch").strip()
    (tmp_path / "file").write_bytes(os.urandom(200_000))
    buildah("copy", container, tmp_path / "file", "/file")
    image_id = buildah("commit", "--format", form, container).strip()
    target = f"{registry.address}/peers/buildah:{form}"
    buildah("push", "--tls-verify=false", image_id, f"docker://{target}")
    answer = registry.request("GET", f"/v2/peers/buildah/manifests/{form}")
    manifest = parse(answer.body, answer.headers["content-type"])
    assert manifest.descriptor.media_type == (media.OCI_MANIFEST if form == "oci" else media.DOCKER_MANIFEST)
    assert manifest.children()[0].digest == f"sha256:{image_id.removeprefix('sha256:')}"


def _engine(tmp_path: Path, program: str, *options: str) -> Iterator[Run]:
    """A program of the containers family with storage of its own."""
    _need(program)
    if os.geteuid() != 0:
        pytest.skip("needs root (for storage without id mappings)")
    run_root = Path(tempfile.mkdtemp(prefix="peer-"))  # podman takes 50 characters at most here
    home = ("--root", tmp_path / "engine", "--runroot", run_root, "--storage-driver", "vfs")
    try:
        yield lambda *arguments: _run(program, *home, *options, *arguments)
    finally:
        remove_tree(run_root)
        remove_tree(tmp_path / "engine")


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no peer client {program}")


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"{' '.join(words)}\n{ended.stderr}"
    return ended.stdout
