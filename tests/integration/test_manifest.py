"""manifest inspect, create, annotate, push and rm as users type them, beside docker, podman and skopeo."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.linux.files import remove_tree
from argosy.oci import descriptor as media
from argosy.oci.manifest import encode_index, parse
from argosy.oci.platform import Platform
from argosy.store.blobs import BlobStore
from support.docker_registry import docker_registry
from support.images import RandomImage, random_image
from support.registry import RunningRegistry, running_registry
from support.stores import Program, argosy, load_image

if TYPE_CHECKING:
    from collections.abc import Iterator

PLATFORMS = {"amd64": Platform.parse("linux/amd64"), "arm64": Platform.parse("linux/arm64/v8")}


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("manifests") / "registry") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


@pytest.fixture
def name(request: pytest.FixtureRequest) -> str:
    """A repository of the test's own."""
    found = re.sub(r"[^a-z0-9]+", "-", request.node.name.removeprefix("test_").lower()).strip("-")
    return f"manifests/{found[-60:].strip('-')}"


def images(folder: Path, family: str = "oci") -> dict[str, RandomImage]:
    return {
        name: random_image(folder / f"{family}-{name}", size=3000, family=family, platform=platform, seed=seed)
        for seed, (name, platform) in enumerate(PLATFORMS.items())
    }


def push_images(registry: RunningRegistry, name: str, made: dict[str, RandomImage]) -> list[str]:
    """Each under its own tag; gives the references."""
    return [registry.push(image, name, tag) for tag, image in made.items()]


def pushed(registry: RunningRegistry, name: str, tag: str = "1") -> tuple[bytes, str]:
    """(bytes, media type) of what a registry has."""
    answer = registry.request("GET", f"/v2/{name}/manifests/{tag}")
    assert answer.status == 200, answer
    return answer.body, answer.headers["content-type"]


# --- docker, as the measure ---------------------------------------------------------


class DockerManifest:
    """`docker manifest`, which needs no daemon, with lists of a test's own."""

    def __init__(self, folder: Path) -> None:
        self._environment = {**os.environ, "DOCKER_CONFIG": str(folder), "DOCKER_HOST": f"unix://{folder}/none"}

    def __call__(self, verb: str, *words: str) -> str:
        done = subprocess.run(
            ["docker", "manifest", verb, *words], capture_output=True, env=self._environment, check=False, timeout=60
        )
        assert done.returncode == 0, f"docker manifest {verb} {' '.join(words)}\n{done.stderr.decode()}"
        return done.stdout.decode()


@pytest.fixture
def docker(tmp_path: Path, request: pytest.FixtureRequest) -> DockerManifest:
    """With a parameter: of that major version at least; OCI's documents came with 23, `Raw` with 25."""
    if shutil.which("docker") is None:
        pytest.skip("no peer client docker")
    version = subprocess.run(["docker", "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"version (\d+)", version)
    assert found is not None
    least = getattr(request, "param", 0)
    if int(found[1]) < least:
        pytest.skip(f"no peer client docker {least} (found {found[1]})")
    return DockerManifest(tmp_path)


@pytest.mark.parametrize(
    ("docker", "family", "flags"),
    [(0, "docker", ()), (25, "docker", ("--verbose",)), (25, "oci", ()), (25, "oci", ("--verbose",))],
    indirect=["docker"],
)
def test_documents_are_printed_as_docker_prints_them(
    registry: RunningRegistry,
    docker: DockerManifest,
    here: Program,
    name: str,
    tmp_path: Path,
    family: str,
    flags: tuple[str, ...],
) -> None:
    made = images(tmp_path, family)
    references = push_images(registry, name, made)
    children = tuple(
        msgspec.structs.replace(image.descriptor, platform=PLATFORMS[tag], annotations={"a": "<b>"})
        for tag, image in made.items()
    )
    index = encode_index(children, annotations={"of": "the index"})
    assert registry.push_manifest(name, "all", index.descriptor, index.raw).status == 201
    for reference in (*references, f"{registry.address}/{name}:all"):
        ours = argosy(here.root, "manifest", "inspect", *flags, reference).stdout.decode()
        assert ours == docker("inspect", "--insecure", *flags, reference)


def test_a_list_of_dockers_images_is_the_very_list_that_docker_pushes(
    registry: RunningRegistry, docker: DockerManifest, here: Program, name: str, tmp_path: Path
) -> None:
    """In the repository of its images: docker 20 writes manifests anew for another, with other digests."""
    references = push_images(registry, name, images(tmp_path, "docker"))
    target = f"{registry.address}/{name}:list"
    created = docker("create", "--insecure", target, *references)
    assert here("manifest", "create", "--insecure", target, *references) == created.strip()
    for changes in ((), ("--variant", "v9", "--os-version", "10.0", "--os-features", "a,b")):
        if changes:
            docker("annotate", *changes, target, references[1])
            here("manifest", "annotate", *changes, target, references[1])
        assert argosy(here.root, "manifest", "inspect", target).stdout.decode() == docker("inspect", target)
        assert here("manifest", "inspect", target, references[1]) == docker("inspect", target, references[1]).strip()
        theirs = docker("push", "--insecure", target)
        assert here("manifest", "push", target).splitlines()[-1] == theirs.splitlines()[-1]
        raw, media_type = pushed(registry, name, "list")
        assert (media_type, parse(raw).descriptor.digest) == (media.DOCKER_INDEX, theirs.splitlines()[-1])


def test_docker_reads_an_index_of_ours(
    registry: RunningRegistry, docker: DockerManifest, here: Program, name: str, tmp_path: Path
) -> None:
    references = push_images(registry, name, images(tmp_path, "docker"))
    target = f"{registry.address}/{name}/list:1"
    here("manifest", "create", target, *references)
    here("manifest", "push", "--purge", target)
    shown = json.loads(docker("inspect", "--insecure", target))
    assert [entry["platform"]["architecture"] for entry in shown["manifests"]] == ["amd64", "arm64"]


# --- the way of an index ------------------------------------------------------------


def test_images_of_this_host_and_of_other_registries_are_copied(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    if shutil.which("docker-registry") is None:
        pytest.skip("no peer client docker-registry")
    made = images(tmp_path)
    load_image(here.root, made["amd64"], "app:amd64")
    far = registry.push(made["arm64"], name, "arm64")
    with docker_registry(tmp_path / "cncf") as address:
        target = f"{address}/lab/app:1"
        assert here("manifest", "create", target, "app:amd64", far) == f"Created manifest list {target}"
        lines = here("manifest", "push", target).splitlines()
        digests = [image.descriptor.digest for image in made.values()]
        assert lines[:2] == [f"Pushed ref {address}/lab/app@{digest} with digest: {digest}" for digest in digests]
        assert here("manifest", "push", target).splitlines() == lines[2:]  # nothing is sent twice
        other = Program(tmp_path / "other")
        for tag, platform in PLATFORMS.items():
            assert target in other("pull", "--platform", str(platform), target)
            assert other("inspect", "--format", "{{.Id}}", target) == made[tag].manifest.config.digest
        rows = other("manifest", "inspect", "--format", "{{.Platform}} {{.Layers}} {{.Digest}}", target).splitlines()
        assert rows == [f"{PLATFORMS[tag]} 2 {image.descriptor.digest}" for tag, image in made.items()]
    made_index = encode_index(
        tuple(msgspec.structs.replace(image.descriptor, platform=PLATFORMS[tag]) for tag, image in made.items())
    )
    assert lines[-1] == made_index.descriptor.digest


def test_blobs_of_the_same_registry_are_mounted(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    references = push_images(registry, f"{name}/source", images(tmp_path))
    target = f"{registry.address}/{name}/target:1"
    here("manifest", "create", target, *references)
    done = argosy(here.root, "manifest", "push", target)
    assert done.returncode == 0
    assert done.stderr.decode().count(f"Mounted from {name}/source\n") == 6  # two configs, four layers
    assert parse(*pushed(registry, f"{name}/target")).descriptor.media_type == media.OCI_INDEX


def test_skopeo_and_podman_read_an_index_of_ours(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    for program in ("skopeo", "podman"):
        if shutil.which(program) is None:
            pytest.skip(f"no peer client {program}")
    if os.geteuid() != 0:
        pytest.skip("needs root (for storage without id mappings)")
    made = images(tmp_path)
    push_images(registry, f"{name}/source", made)
    target = f"{registry.address}/{name}:1"
    here("manifest", "create", target, *(f"{registry.address}/{name}/source:{tag}" for tag in made))
    here("manifest", "annotate", "--annotation", "org.example=<x>", target, f"{registry.address}/{name}/source:arm64")
    digest = here("manifest", "push", "--purge", "--quiet", target)
    raw = run("skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{target}")
    assert parse(raw.encode()).descriptor.digest == digest
    assert parse(raw.encode()).children()[1].annotations == {"org.example": "<x>"}
    for tag, image in made.items():
        options = ("--override-arch", tag) if tag == "amd64" else ("--override-arch", tag, "--override-variant", "v8")
        found = run("skopeo", *options, "inspect", "--tls-verify=false", f"docker://{target}")
        assert json.loads(found)["Layers"] == [layer.digest for layer in image.manifest.layers]
    with podman(tmp_path) as engine:
        settings = tmp_path / "registries.conf"  # podman 4's manifest inspect has no --tls-verify
        settings.write_text(f'[[registry]]\nlocation = "{registry.address}"\ninsecure = true\n')
        listed = json.loads(
            run("env", f"CONTAINERS_REGISTRIES_CONF={settings}", *engine, "manifest", "inspect", target)
        )
        assert [entry["digest"] for entry in listed["manifests"]] == [
            image.descriptor.digest for image in made.values()
        ]
        for tag, image in made.items():
            identity = run(*engine, "pull", "-q", "--tls-verify=false", "--platform", str(PLATFORMS[tag]), target)
            assert f"sha256:{identity.strip()}" == image.manifest.config.digest


def test_an_index_of_podmans_is_shown_and_taken_apart(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    if shutil.which("podman") is None:
        pytest.skip("no peer client podman")
    if os.geteuid() != 0:
        pytest.skip("needs root (for storage without id mappings)")
    made = images(tmp_path)
    references = push_images(registry, name, made)
    target = f"{registry.address}/{name}:all"
    with podman(tmp_path) as engine:
        run(*engine, "manifest", "create", "listed")
        for reference in references:
            run(*engine, "manifest", "add", "--tls-verify=false", "listed", f"docker://{reference}")
        run(*engine, "manifest", "push", "--all", "--tls-verify=false", "listed", f"docker://{target}")
    digests = here("manifest", "inspect", "--format", "{{.Digest}}", target).split()
    assert digests == [image.descriptor.digest for image in made.values()]
    text = here.refusal("manifest", "create", "mine:1", target)
    assert "[manifest-is-list]" in text
    assert f"linux/amd64: {registry.address}/{name}@{digests[0]}" in text
    here("manifest", "create", "mine:1", f"{registry.address}/{name}@{digests[1]}")
    assert here("manifest", "inspect", "--format", "{{.Platform}}", "mine:1") == "linux/arm64/v8"


def test_an_image_with_attestations_counts_as_the_image(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    """BuildKit pushes an index even for one platform, which docker manifest create refuses."""
    made = images(tmp_path)
    push_images(registry, name, made)
    unknown = Platform(os="unknown", architecture="unknown")
    index = encode_index(
        (
            msgspec.structs.replace(made["amd64"].descriptor, platform=PLATFORMS["amd64"]),
            msgspec.structs.replace(made["arm64"].descriptor, platform=unknown),
        )
    )
    assert registry.push_manifest(name, "built", index.descriptor, index.raw).status == 201
    here("manifest", "create", "mine:1", f"{registry.address}/{name}:built")
    rows = here("manifest", "inspect", "--format", "{{.Platform}} {{.Digest}}", "mine:1")
    assert rows == f"linux/amd64 {made['amd64'].descriptor.digest}"


# --- lists, while they are composed -------------------------------------------------


def test_a_list_is_created_once_amended_annotated_and_removed(here: Program, tmp_path: Path) -> None:
    for tag, image in images(tmp_path).items():
        load_image(here.root, image, f"app:{tag}")
    assert here("manifest", "create", "mine", "app:arm64") == "Created manifest list docker.io/library/mine:latest"
    assert "[list-exists]" in here.refusal("manifest", "create", "mine", "app:amd64")
    here("manifest", "create", "-a", "mine", "app:amd64")
    here("manifest", "annotate", "--arch", "riscv64", "--variant", "rva23", "mine", "app:arm64")
    here("manifest", "annotate", "--annotation", "a=<b>", "--annotation", "c=", "mine", "app:amd64")
    rows = here("manifest", "inspect", "--format", "{{.Platform}}", "mine").split()
    assert rows == ["linux/riscv64/rva23", "linux/amd64"]
    full = json.loads(here("manifest", "inspect", "-v", "mine"))
    assert [entry["Ref"] for entry in full] == ["docker.io/library/app:arm64", "docker.io/library/app:amd64"]
    assert full[1]["Descriptor"]["annotations"] == {"a": "<b>", "c": ""}
    assert "[manifest-not-in-list]" in here.refusal("manifest", "annotate", "mine", "app:ppc64le", "--os", "linux")
    assert "[annotation-invalid]" in here.refusal("manifest", "annotate", "mine", "app:amd64", "--annotation", "x")
    done = argosy(here.root, "manifest", "rm", "nosuch", "mine")
    assert (done.returncode, b"[list-unknown]" in done.stderr) == (1, True)
    assert "[list-unknown]" in here.refusal("manifest", "push", "mine")
    assert "[list-unknown]" in here.refusal("manifest", "inspect", "mine", "app:amd64")


def test_layers_of_a_local_image_are_not_kept_for_a_list_and_the_list_says_so(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    made = images(tmp_path)
    load_image(here.root, made["amd64"], "app:amd64")
    load_image(here.root, made["arm64"], "app:arm64")
    target = f"{registry.address}/{name}:1"
    here("manifest", "create", target, "app:amd64", "app:arm64")
    here("rmi", "app:arm64")
    shown = argosy(here.root, "manifest", "inspect", target)
    assert shown.returncode == 0
    assert json.loads(shown.stdout)["manifests"][1]["digest"] == made["arm64"].descriptor.digest
    assert shown.stderr.startswith(b"warning: the content of app:arm64 is no longer here: list ")
    text = here.refusal("manifest", "push", target)
    assert text.startswith("error: the content of app:arm64 is no longer here [list-content-gone]")
    assert f"argosy manifest create --amend {target} app:arm64" in text
    assert registry.request("GET", f"/v2/{name}/tags/list").status == 404  # nothing was sent
    load_image(here.root, made["arm64"], "app:arm64")
    here("prune", "--all", "--force")
    assert "[list-content-gone]" in here.refusal("manifest", "push", target)
    for image in made.values():
        load_image(here.root, image, "again:1")
    here("manifest", "push", target)
    assert len(parse(*pushed(registry, name)).children()) == 2


def test_a_push_that_fails_sets_no_tag(registry: RunningRegistry, here: Program, name: str, tmp_path: Path) -> None:
    made = images(tmp_path)
    load_image(here.root, made["amd64"], "app:amd64")
    layer = made["amd64"].manifest.layers[0].digest
    path = BlobStore(here.root).path(layer)
    damaged = bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:]
    target = f"{registry.address}/{name}:1"
    here("manifest", "create", target, "app:amd64")
    path.chmod(0o600)
    path.write_bytes(damaged)
    assert layer in here.refusal("manifest", "push", target)
    assert registry.request("GET", f"/v2/{name}/manifests/1").status == 404


def test_two_images_for_one_platform_are_told_of(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    for seed in (1, 2):
        load_image(here.root, random_image(tmp_path / str(seed), size=1000, seed=seed), f"app:{seed}")
    target = f"{registry.address}/{name}:1"
    here("manifest", "create", target, "app:1", "app:2")
    done = argosy(here.root, "manifest", "push", "-q", target)
    assert done.stderr == b"warning: app:1 and app:2 are both for linux/amd64; clients take the first\n"


def test_inspecting_needs_no_pull_and_no_more_requests_than_it_shows(
    registry: RunningRegistry, here: Program, name: str, tmp_path: Path
) -> None:
    made = images(tmp_path)
    push_images(registry, name, made)
    index = encode_index(
        tuple(msgspec.structs.replace(image.descriptor, platform=PLATFORMS[tag]) for tag, image in made.items())
    )
    assert registry.push_manifest(name, "all", index.descriptor, index.raw).status == 201
    reference = f"{registry.address}/{name}:all"

    def requests(*words: str) -> int:
        done = argosy(here.root, "--debug", "manifest", "inspect", *words, reference)
        assert done.returncode == 0, done.stderr
        return done.stderr.count(b"> GET ") - 1  # the first asks whether it is http

    assert requests() == 1
    assert requests("--format", "{{.Platform}} {{.Digest}}") == 1
    assert requests("--format", "table") == 3
    assert requests("--verbose") == 3
    assert here("images", "-q") == ""
    table = here("manifest", "inspect", "--format", "table", reference).splitlines()
    assert table[0].split() == ["PLATFORM", "DIGEST", "SIZE", "LAYERS"]
    sizes = [sum(child.size for child in image.manifest.children()) for image in made.values()]
    assert [row.split() for row in table[1:]] == [
        [str(PLATFORMS[tag]), image.descriptor.digest, f"{size / 1000:.3g}kB", "2"]
        for (tag, image), size in zip(made.items(), sizes, strict=True)
    ]
    rows = [json.loads(line) for line in here("manifest", "inspect", "--format", "json", reference).splitlines()]
    assert set(rows[0]) == {"Platform", "Digest", "Size", "Layers", "MediaType"}


def test_what_cannot_be_looked_at_is_an_error(registry: RunningRegistry, here: Program, name: str) -> None:
    assert "[repository-unknown]" in here.refusal("manifest", "inspect", f"{registry.address}/{name}:1")
    assert "[usage]" in here.refusal("manifest", "inspect", "a", "b", "c")
    assert "[usage]" in here.refusal("manifest", "inspect", "-v", "--format", "json", "a")
    assert "[usage]" in here.refusal("manifest")
    assert "[reference-has-digest]" in here.refusal("manifest", "create", f"a@sha256:{'0' * 64}", "b")


def run(*words: str) -> str:
    done = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, f"{' '.join(words)}\n{done.stderr}"
    return done.stdout


class podman:  # noqa: N801  # reads as the program's name in a with statement
    """The words that begin a command line of podman with storage of its own."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def __enter__(self) -> tuple[str, ...]:
        self._run_root = Path(tempfile.mkdtemp(prefix="peer-"))  # podman takes 50 characters at most here
        storage = ("--root", str(self._folder / "engine"), "--runroot", str(self._run_root), "--storage-driver", "vfs")
        return ("podman", *storage, "--cgroup-manager", "cgroupfs")

    def __exit__(self, *exc: object) -> None:
        remove_tree(self._run_root)
        remove_tree(self._folder / "engine")
