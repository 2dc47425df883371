"""Mirrors as users set them up: a real cache before a registry, and the places that skopeo goes to."""

from __future__ import annotations

import shutil
import subprocess
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import Error
from argosy.oci.reference import Reference
from argosy.remote.credentials import Credentials
from argosy.remote.mirrors import connect
from argosy.remote.registries import Folders, Registries
from argosy.remote.transport import RetryPolicy, Transport
from support.docker_registry import docker_registry
from support.images import random_image
from support.registry import running_registry
from support.stores import argosy
from support.web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.images import RandomImage
    from support.registry import RunningRegistry
    from support.web import Site


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("mirrors") / "registry", expected_stderr=None) as running:
        yield running


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> RandomImage:
    made = random_image(tmp_path_factory.mktemp("mirrors") / "image", layers=3, size=300_000)
    registry.push(made, "team/app", "1")
    return made


def configured(folder: Path, text: str) -> dict[str, str]:
    """The environment of a user with this registries.toml."""
    path = folder / "config/argosy/registries.toml"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return {"XDG_CONFIG_HOME": str(folder / "config"), "HOME": str(folder)}


def test_a_pull_through_cache_serves_what_the_origin_had(
    registry: RunningRegistry, image: RandomImage, tmp_path: Path
) -> None:
    """docker-registry as a cache: the first pull fills it, the second needs the origin no more."""
    with docker_registry(tmp_path / "cache", mirror_of=registry.address) as cache:
        text = f'[[registry]]\nprefix = "registry.invalid"\n[[registry.mirror]]\nlocation = "{cache}"'
        environ = configured(tmp_path, text)
        for number in range(2):
            done = argosy(
                tmp_path / f"store{number}", "--debug", "pull", "-q", "registry.invalid/team/app:1", environ=environ
            )
            assert (done.returncode, done.stdout) == (0, b"registry.invalid/team/app:1\n"), done.stderr
            assert f"* registry.invalid/team/app:1 comes from {cache}/team/app".encode() in done.stderr
            listed = argosy(tmp_path / f"store{number}", "images", "--digests", "--format", "{{.Digest}}")
            assert listed.stdout.decode().strip() == image.descriptor.digest


def damaged(reply: Reply) -> Reply:
    return replace(reply, body=reply.body[:-1] + bytes([reply.body[-1] ^ 1]))


@pytest.mark.parametrize(
    "change",
    [
        lambda reply: Reply(status=500),
        lambda reply: Reply(status=404),
        lambda reply: replace(reply, cut=10),
        lambda reply: replace(reply, body=reply.body[:-1]),
        damaged,
    ],
)
def test_a_pull_gets_from_the_origin_what_its_mirror_spoils(
    registry: RunningRegistry, image: RandomImage, tmp_path: Path, change: Callable[[Reply], Reply]
) -> None:
    def spoiled(seen: Seen) -> Reply:
        reply = forward(registry.address, seen)
        return change(reply) if "/blobs/" in seen.path else reply

    with serving(spoiled) as mirror:
        text = f'[[registry]]\nprefix = "{registry.address}"\n[[registry.mirror]]\nlocation = "{mirror.address}"'
        environ, store = configured(tmp_path, text), tmp_path / "store"
        done = argosy(store, "pull", "-q", f"{registry.address}/team/app:1", environ=environ)
        assert (done.returncode, done.stderr) == (0, b"")
        assert "GET /v2/team/app/manifests/1" in mirror.lines
        assert argosy(store, "check", "-q").returncode == 0


def test_what_is_pushed_goes_to_the_registry_that_is_named(
    registry: RunningRegistry, image: RandomImage, tmp_path: Path
) -> None:
    with serving(lambda seen: forward(registry.address, seen)) as mirror:
        text = f'[[registry]]\nprefix = "{registry.address}"\n[[registry.mirror]]\nlocation = "{mirror.address}"'
        environ, name = configured(tmp_path, text), f"{registry.address}/team/app:1"
        assert argosy(tmp_path / "store", "pull", "-q", name, environ=environ).returncode == 0
        asked = len(mirror.seen)
        done = argosy(tmp_path / "store", "push", "-q", name, environ=environ)
        assert (done.returncode, done.stderr, len(mirror.seen)) == (0, b"", asked)


def test_a_file_with_a_mistake_stops_a_pull_and_names_the_key(tmp_path: Path) -> None:
    environ = configured(tmp_path, '[[registry]]\nlocation = "docker.io"\nmirrors = ["a"]')
    done = argosy(tmp_path / "store", "pull", "debian:12", environ=environ)
    assert done.stderr.decode() == (
        f"error: cannot use {tmp_path}/config/argosy/registries.toml [registries-invalid]\n"
        "  registry[0].mirrors: unknown; known are prefix, location, insecure, blocked, mirror-by-digest-only, mirror\n"
        "  hint: mend it, or move it away\n"
    )


def test_info_shows_what_was_read(tmp_path: Path) -> None:
    environ = configured(
        tmp_path,
        '[[registry]]\nprefix = "docker.io"\n[[registry.mirror]]\nlocation = "mirror.lan:5000/hub"\n'
        '[[registry]]\nlocation = "lab.lan:5000"\ninsecure = true\n'
        '[[registry]]\nlocation = "evil.test"\nblocked = true',
    )
    path = f"{tmp_path}/config/argosy/registries.toml"
    text = argosy(tmp_path / "store", "info", environ=environ).stdout.decode()
    assert f"  {path}\n" in text
    assert f"  docker.io: from mirror.lan:5000/hub, then docker.io ({path})\n" in text
    assert f"  lab.lan:5000: from lab.lan:5000, insecure ({path})\n" in text
    assert f"  evil.test: blocked ({path})\n" in text
    said = argosy(tmp_path / "store", "info", "--format", "{{index .RegistryConfig.Files 0}}", environ=environ)
    assert said.stdout.decode().strip() == path
    broken = configured(tmp_path, "[[registry]]")
    text = argosy(tmp_path / "store", "info", environ=broken).stdout.decode()
    assert f"  problem: cannot use {path}: registry[0].location: it is empty\n" in text


#: A, B and C are sites on this machine; A knows nothing, B has what ends with «img», C has everything.
CASES = {
    "mirrors before the place": (
        'prefix = "example.com/foo"\nlocation = "C/bar"\nMIRROR = "A/x"\nMIRROR = "B/mirrors/foo"',
        "example.com/foo/img:1",
    ),
    "what no mirror has": (
        'prefix = "example.com/foo"\nlocation = "C/bar"\nMIRROR = "A/x"\nMIRROR = "B"',
        "example.com/foo/other:1",
    ),
    "a place within a name": ('prefix = "example.com"\nlocation = "B/deep/er"', "example.com/a/b/img:1"),
    "a digest": ('prefix = "example.com"\nlocation = "C"\nMIRROR = "B"', "example.com/img@DIGEST"),
    "by digest only, a tag": (
        'prefix = "example.com"\nlocation = "C"\nmirror-by-digest-only = true\nMIRROR = "B"',
        "example.com/img:1",
    ),
    "by digest only, a digest": (
        'prefix = "example.com"\nlocation = "C"\nmirror-by-digest-only = true\nMIRROR = "B"',
        "example.com/img@DIGEST",
    ),
    "each mirror by itself, a tag": (
        'prefix = "example.com"\nlocation = "C"\nMIRROR = "A/d"\npull-from-mirror = "digest-only"\n'
        'MIRROR = "B/t"\npull-from-mirror = "tag-only"',
        "example.com/img:1",
    ),
    "each mirror by itself, a digest": (
        'prefix = "example.com"\nlocation = "C"\nMIRROR = "A/d"\npull-from-mirror = "digest-only"\n'
        'MIRROR = "B/t"\npull-from-mirror = "tag-only"',
        "example.com/img@DIGEST",
    ),
    "Docker Hub": ('prefix = "docker.io"\nlocation = "C/hub"\nMIRROR = "A"', "docker.io/library/img:1"),
    "a part of Docker Hub": ('prefix = "docker.io/library"\nlocation = "C/official"', "docker.io/library/img:1"),
    "a wildcard": ('prefix = "*.example.com"\nlocation = "C/wild"', "a.b.example.com/x/img:1"),
    "a wildcard before its mirror": (
        'prefix = "*.example.com"\nlocation = "C"\nMIRROR = "B/wild"',
        "a.b.example.com/x/img:1",
    ),
    "the longest prefix": (
        'prefix = "example.com"\nlocation = "A"\n[[registry]]\ninsecure = true\n'
        'prefix = "example.com/foo"\nlocation = "C/longer"',
        "example.com/foo/img:1",
    ),
    "one repository": ('prefix = "example.com/foo/img"\nlocation = "C/one"', "example.com/foo/img:1"),
}


@pytest.mark.parametrize("case", CASES)
def test_the_same_places_are_asked_as_by_skopeo(image: RandomImage, tmp_path: Path, case: str) -> None:
    if shutil.which("skopeo") is None:
        pytest.skip("no peer client skopeo")
    text, name = CASES[case]
    document = Reply(headers={"Content-Type": image.descriptor.media_type}, body=image.manifest.raw)
    empty = Reply(status=404, body=b'{"errors":[{"code":"MANIFEST_UNKNOWN"}]}')
    with ExitStack() as stack:

        def site(has: str) -> Site:
            def answer(seen: Seen) -> Reply:
                if seen.path == "/v2/":
                    return Reply()
                return document if has in seen.path.replace("/manifests/", ":") else empty

            return stack.enter_context(serving(answer))

        sites = {"A": site("nothing"), "B": site("img:"), "C": site("/")}
        for key, there in sites.items():
            text = text.replace(f'"{key}', f'"{there.address}')
        text = text.replace("MIRROR =", "[[registry.mirror]]\ninsecure = true\nlocation =")
        path = tmp_path / ".config/containers/registries.conf"
        path.parent.mkdir(parents=True)
        path.write_text(f"[[registry]]\ninsecure = true\n{text}\n")
        name = name.replace("DIGEST", image.descriptor.digest)
        words = ["skopeo", "inspect", "--raw", f"docker://{name}"]
        environ = {"HOME": str(tmp_path), "PATH": "/usr/bin:/bin"}
        done = subprocess.run(words, env=environ, capture_output=True, text=True, check=False)
        theirs = asked(sites)
        assert theirs, f"skopeo has asked nobody: {done.stderr}"
        resolve(name, tmp_path / ".config")
        assert asked(sites) == theirs


def asked(sites: dict[str, Site]) -> list[str]:
    """Who was asked for which manifest, since the last look; sites in order, for skopeo's are asked one by one."""
    found = [f"{key} {seen.path}" for key, site in sites.items() for seen in site.seen if "/manifests/" in seen.path]
    for site in sites.values():
        site.seen.clear()
    return found


def resolve(name: str, config: Path) -> None:
    reference = Reference.parse(name)
    transport = Transport({}, retries=RetryPolicy(attempts=1))
    registries = Registries(Folders(user=str(config), system="/absent"))
    repository = connect(
        reference, transport=transport, credentials=Credentials({"HOME": "/absent"}), registries=registries
    )
    try:
        repository.resolve(reference)
    except Error as error:
        raise AssertionError(f"{error.message}: {error.context}") from error
    finally:
        transport.close()
