"""Images that do not fit are refused before their layers move, and a dry run says what a pull would do."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, NamedTuple

import msgspec
import pytest

from argosy.linux import mounts
from argosy.oci.manifest import encode_index
from argosy.oci.platform import Platform
from argosy.oci.wire import encode
from argosy.store.blobs import BlobStore
from support import driver_roots
from support.flaky import flaky
from support.forked import in_child
from support.images import random_image
from support.registry import running_registry
from support.stores import argosy
from support.web import forward, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.flaky import FlakyProxy
    from support.images import RandomImage
    from support.registry import RunningRegistry
    from support.web import Reply, Seen

CUDA_12_4 = "NVIDIA_REQUIRE_CUDA=cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=unknown,driver>=470,driver<471"
MOST_BEFORE_A_REFUSAL = 100_000  # bytes
SIZE = 400_000


class Said(NamedTuple):
    status: int
    output: str
    error: str


def say(root: Path, *words: str, **environ: str) -> Said:
    done = argosy(root, *words, environ=environ)
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("fit") / "registry", expected_stderr=None) as running:
        yield running


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[Counting]:
    with serving(Counting(registry.address)) as site:
        counting = site.answer
        assert isinstance(counting, Counting)
        counting.address = site.address
        yield counting


class Counting:
    """A proxy that counts every byte of what is answered."""

    def __init__(self, upstream: str) -> None:
        self._upstream = upstream
        self.address = ""
        self.carried = 0

    def __call__(self, seen: Seen) -> Reply:
        reply = forward(self._upstream, seen)
        self.carried += len(reply.body) + sum(len(name) + len(value) + 4 for name, value in reply.headers.items())
        return reply


def host(folder: Path, version: str, **options: bool) -> str:
    return str(driver_roots.build(folder, version=version, nodes="file", **options))


def pushed(registry: RunningRegistry, folder: Path, *env: str, name: str = "team/cuda", tag: str = "1") -> RandomImage:
    image = random_image(folder, layers=3, size=SIZE, env=env)
    registry.push(image, name, tag)
    return image


def held(root: Path) -> list[str]:
    """Names of what is in the store, caches aside."""
    found = [os.path.relpath(f"{folder}/{name}", root) for folder, _, names in os.walk(root) for name in names]
    return sorted(name for name in found if not name.startswith("cache/"))


def test_a_driver_that_is_too_old_refuses_the_image_before_its_layers_move(
    tmp_path: Path, registry: RunningRegistry, proxy: Counting
) -> None:
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name = f"{proxy.address}/team/cuda:1"
    driver = host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", name)
    assert said.status == 1
    assert said.error == (
        f"error: {name}: unsatisfied condition: cuda>=12.4, please update your driver to a newer version, "
        "or use an earlier cuda container [requirement-unsatisfied]\n"
        "  NVIDIA_REQUIRE_CUDA of the image: cuda>=12.4 or brand=tesla,driver>=470,driver<471 "
        "or brand=unknown,driver>=470,driver<471\n"
        "  this host: NVIDIA driver 535.129.03, CUDA up to 12.2, NVIDIA A100-SXM4-40GB\n"
        "  hint: it takes NVIDIA driver 550 or newer, which supports CUDA 12.4; a tag for CUDA 12.2 or older; "
        f"argosy pull --force {name} fetches it all the same\n"
    )
    assert 0 < proxy.carried < MOST_BEFORE_A_REFUSAL
    assert say(tmp_path / "store", "images", "-q").output == ""


def test_force_fetches_it_and_warns(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", "-q", "--force", name)
    assert (said.status, said.output) == (0, f"{name}\n")
    assert said.error.startswith(f"warning: {name}: unsatisfied condition: cuda>=12.4, please update")
    again = say(tmp_path / "store", "--driver-root", driver, "pull", "-q", name)
    assert again == (0, f"{name}\n", "")  # what is here is not judged again


@pytest.mark.parametrize(
    ("version", "env", "environ"),
    [
        ("550.54.15", (CUDA_12_4,), {}),
        ("470.57.02", (CUDA_12_4,), {}),  # a branch from which forward compatibility works
        ("535.129.03", (CUDA_12_4, "NVIDIA_DISABLE_REQUIRE=true"), {}),
        ("535.129.03", (CUDA_12_4,), {"NVIDIA_DISABLE_REQUIRE": "1"}),
        ("535.129.03", ("NVIDIA_REQUIRE_JETPACK=csv-mounts=all",), {}),
        ("535.129.03", ("CUDA_VERSION=12.1.0",), {}),
        ("535.129.03", (), {}),
    ],
)
def test_an_image_that_fits_is_pulled_without_a_word(
    tmp_path: Path, registry: RunningRegistry, version: str, env: tuple[str, ...], environ: dict[str, str]
) -> None:
    pushed(registry, tmp_path / "image", *env)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", version)
    said = say(tmp_path / "store", "--driver-root", driver, "pull", "-q", name, **environ)
    assert said == (0, f"{name}\n", "")


def test_images_of_the_first_generation_require_their_cuda(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", "CUDA_VERSION=12.6.77")
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", name)
    assert "unsatisfied condition: cuda>=12.6, please" in said.error
    assert "CUDA_VERSION of the image" in said.error


def test_the_misspelt_switch_is_pointed_out(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", name, NVIDIA_DISABLE_REQUIRES="1")
    assert "the variable is NVIDIA_DISABLE_REQUIRE, not NVIDIA_DISABLE_REQUIRES" in said.error


def test_without_a_driver_there_is_a_note(tmp_path: Path, registry: RunningRegistry) -> None:
    """People pull on login nodes."""
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "470.1", module=False)
    said = say(tmp_path / "store", "--driver-root", driver, "pull", name)
    assert said.status == 0
    assert said.error == f"note: {name} requires cuda>=12.4; there is no NVIDIA driver here to compare with\n"


def test_an_expression_that_nobody_can_read_is_no_refusal(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", "NVIDIA_REQUIRE_CUDA=cuda=>12.4")
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", name)
    assert said.status == 0
    assert said.error == f"note: {name}: NVIDIA_REQUIRE_CUDA says nothing: invalid expression 'cuda=>12.4'\n"


def test_run_judges_the_driver_only_when_gpus_are_asked_for(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "run", "--rm", "--gpus", "all", name, "true")
    assert (said.status, "[requirement-unsatisfied]" in said.error) == (125, True)
    said = say(tmp_path / "store", "--driver-root", driver, "run", "--rm", name, "true")
    assert "[requirement-unsatisfied]" not in said.error
    assert say(tmp_path / "store", "images", "-q").output != ""


def test_another_platform_is_not_judged_by_this_machines_driver(tmp_path: Path, registry: RunningRegistry) -> None:
    other = "arm64" if Platform.host().architecture == "amd64" else "amd64"
    image = random_image(tmp_path / "image", platform=Platform(os="linux", architecture=other), env=(CUDA_12_4,))
    name, driver = registry.push(image, "team/other", "1"), host(tmp_path / "host", "535.129.03")
    words = ("--driver-root", driver, "pull", "-q", "--platform", f"linux/{other}", name)
    assert say(tmp_path / "store", *words) == (0, f"{name}\n", "")


def test_force_takes_another_platform_than_was_asked_for(tmp_path: Path, registry: RunningRegistry) -> None:
    name = registry.push(random_image(tmp_path / "image"), "team/amd64", "1")
    refused = say(tmp_path / "store", "pull", "-q", "--platform", "linux/riscv64", name)
    assert (refused.status, "[platform-not-in-index]" in refused.error) == (1, True)
    forced = say(tmp_path / "store", "pull", "-q", "--force", "--platform", "linux/riscv64", name)
    warning = f"warning: {name} is for linux/amd64; linux/riscv64 was asked for\n"
    assert forced == (0, f"{name}\n", warning)


# ---- room on the disk


def on_a_disk_of(size: int, folder: Path, action: Callable[[Path], None]) -> None:
    """*action* with a store on a file system in memory, in a mount namespace that ends with it."""
    if os.geteuid() != 0:
        pytest.skip("needs root to mount a small file system")

    def inside() -> None:
        mounts.private_namespace()
        mounts.Tmpfs(target=str(folder), size=size).execute()
        action(folder / "store")

    folder.mkdir()
    in_child(inside)


@pytest.mark.parametrize("share", [0.4, 0.9])
def test_an_image_for_which_there_is_no_room_is_refused_with_the_numbers(
    tmp_path: Path, registry: RunningRegistry, proxy: Counting, share: float
) -> None:
    """Random bytes do not shrink: blobs and layers take twice 1.2 MB, less than is guessed before the ends are read."""
    image = pushed(registry, tmp_path / "image", name="team/large")
    blobs, layers = sum(layer.size for layer in image.manifest.layers), sum(map(len, image.tars))
    name = f"{proxy.address}/team/large:1"

    def full(root: Path) -> None:
        said = say(root, "pull", name)
        assert (said.status, said.error.splitlines()[0]) == (1, f"error: no room for {name} [disk-full]")
        assert "to fetch" in said.error
        assert f"are free in {root}" in said.error
        assert say(root, "images", "-q").output == ""
        carried = proxy.carried
        forced = say(root, "pull", "--force", name)
        assert forced.error.startswith(f"warning: no room for {name}: it needs ")
        assert (forced.status, "[disk-full]" in forced.error) == (1, True)
        assert carried < MOST_BEFORE_A_REFUSAL

    on_a_disk_of(int((blobs + layers) * share), tmp_path / "disk", full)


def test_an_image_that_just_fits_is_pulled(tmp_path: Path, registry: RunningRegistry) -> None:
    """A guess alone would refuse it: 2.2 bytes of a layer for one of its blob."""
    image = pushed(registry, tmp_path / "image", name="team/large")
    blobs, layers = sum(layer.size for layer in image.manifest.layers), sum(map(len, image.tars))
    name = f"{registry.address}/team/large:1"

    def just(root: Path) -> None:
        assert say(root, "pull", "-q", name) == (0, f"{name}\n", "")

    on_a_disk_of(int(blobs + layers * 1.6), tmp_path / "disk", just)


def test_a_source_that_sends_whole_blobs_is_not_asked_for_their_ends(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", name="team/large")

    def inside(proxy: FlakyProxy) -> Callable[[Path], None]:
        def full(root: Path) -> None:
            assert "[disk-full]" in say(root, "pull", f"{proxy.address}/team/large:1").error

        return full

    with flaky(registry.address) as proxy:
        proxy.ignores_range = True
        on_a_disk_of(2_000_000, tmp_path / "disk", inside(proxy))
        whole = [seen for seen in proxy.site.seen if "/blobs/" in seen.path and "range" in seen.headers]
        assert len(whole) == 1


# ---- --dry-run


def test_a_dry_run_says_what_would_move_and_writes_nothing(tmp_path: Path, registry: RunningRegistry) -> None:
    image = pushed(registry, tmp_path / "image", name="team/dry")
    store, name = tmp_path / "store", f"{registry.address}/team/dry:1"
    say(store, "images")
    before = held(store)
    said = say(store, "pull", "--dry-run", name)
    assert said.status == 0
    assert held(store) == before
    lines = said.output.splitlines()
    assert lines[0].split() == ["LAYER", "SIZE", "STATE"]
    assert [line.split(maxsplit=2)[::2] for line in lines[1:4]] == [
        [layer.digest.short, f"would be fetched from {registry.address}"] for layer in image.manifest.layers
    ]
    assert lines[4] == f"Digest: {image.descriptor.digest} (linux/amd64)"
    assert lines[5] == f"Fetch:  1.2MB of 1.2MB, 3 of 3 layers, from {registry.address}"
    assert lines[6] == f"Time:   unknown, nothing large was fetched from {registry.address} yet"
    assert (
        lines[7].startswith("Disk:   about 3.87MB: 1.2MB to fetch, about 2.67MB for its layers") or "Disk:" in lines[7]
    )
    assert lines[-1] == "Fits:   yes"


def test_a_dry_run_after_a_pull_knows_what_is_here_and_how_fast_it_came(
    tmp_path: Path, registry: RunningRegistry
) -> None:
    base = random_image(tmp_path / "base", layers=1, size=1_500_000, seed=1)
    registry.push(base, "team/base", "1")
    store, name = tmp_path / "store", f"{registry.address}/team/base"
    assert say(store, "pull", "-q", f"{name}:1").status == 0
    assert say(store, "tag", f"{name}:1", "copy:1").status == 0
    assert "shared with copy:1" in say(store, "pull", "--dry-run", f"{name}:1").output
    other = pushed(registry, tmp_path / "other", name="team/base", tag="2")
    plan = msgspec.json.decode(say(store, "pull", "--dry-run", "--format", "json", f"{name}:2").output)
    assert plan["BytesPerSecond"] > 0
    assert plan["Seconds"] == pytest.approx(plan["ToFetch"] / plan["BytesPerSecond"], rel=0.01)
    assert plan["ToFetch"] == sum(layer.size for layer in other.manifest.layers)
    assert {layer["State"] for layer in plan["Layers"]} == {"missing"}
    assert (plan["Fits"], plan["Problems"], plan["Source"]) == (True, [], registry.address)
    plan = msgspec.json.decode(say(store, "pull", "--dry-run", "--format", "json", f"{name}:1").output)
    (layer,) = plan["Layers"]
    assert (layer["State"], layer["SharedWith"], layer["ToFetch"], plan["ToFetch"]) == ("shared", ["copy:1"], 0, 0)


def test_what_an_interrupted_pull_has_brought_is_seen(tmp_path: Path, registry: RunningRegistry) -> None:
    image = pushed(registry, tmp_path / "image", name="team/begun")
    store, name, layer = tmp_path / "store", f"{registry.address}/team/begun:1", image.manifest.layers[0]
    say(store, "images")
    with BlobStore(store).assemble(layer) as part:
        writer = part.writer(0)
        writer.write(image.layout.read(layer.digest)[:100_000])
        writer.close()
    said = say(store, "pull", "--dry-run", name)
    assert f"would be fetched from {registry.address}, 100kB are here already" in said.output


def test_a_dry_run_names_the_mirror_that_answered(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", name="hub/team/mirrored")
    settings = tmp_path / "config/argosy/registries.toml"
    settings.parent.mkdir(parents=True)
    settings.write_text(
        '[[registry]]\nlocation = "localhost:1"\n'
        f'[[registry.mirror]]\nlocation = "{registry.address}/hub"\ninsecure = true\n'
    )
    name, environ = "localhost:1/team/mirrored:1", {"XDG_CONFIG_HOME": str(tmp_path / "config")}
    store = tmp_path / "store"
    assert f"3 of 3 layers, from {registry.address}\n" in say(store, "pull", "--dry-run", name, **environ).output
    assert say(store, "pull", "-q", name, **environ).status == 0
    again = say(store, "pull", "--dry-run", "--format", "json", name, **environ)
    assert msgspec.json.decode(again.output)["BytesPerSecond"] > 0


def test_a_dry_run_of_what_does_not_fit_says_why_and_fails(tmp_path: Path, registry: RunningRegistry) -> None:
    pushed(registry, tmp_path / "image", CUDA_12_4)
    name, driver = f"{registry.address}/team/cuda:1", host(tmp_path / "host", "535.129.03")
    said = say(tmp_path / "store", "--driver-root", driver, "pull", "--dry-run", name)
    assert (said.status, said.error) == (1, "")
    assert f"Fits:   no, {name}: unsatisfied condition: cuda>=12.4" in said.output
    forced = say(tmp_path / "store", "--driver-root", driver, "pull", "--dry-run", "--force", "--format", "json", name)
    assert forced.status == 0
    assert [problem["Code"] for problem in msgspec.json.decode(forced.output)["Problems"]] == [
        "requirement-unsatisfied"
    ]


def test_a_dry_run_counts_other_platforms_when_they_are_asked_for(tmp_path: Path, registry: RunningRegistry) -> None:
    images = [
        random_image(tmp_path / arch, platform=Platform(os="linux", architecture=arch), seed=number, layers=number + 1)
        for number, arch in enumerate(("amd64", "arm64"))
    ]
    for image in images:
        registry.push(image, "team/both", image.descriptor.digest.short)
    index = encode_index(
        tuple(
            msgspec.structs.replace(image.descriptor, platform=Platform(os="linux", architecture=arch))
            for image, arch in zip(images, ("amd64", "arm64"), strict=True)
        )
    )
    assert registry.push_manifest("team/both", "1", index.descriptor, index.raw).status == 201
    words = ("pull", "--dry-run", "--format", "json", "--all-platforms", f"{registry.address}/team/both:1")
    plan = msgspec.json.decode(say(tmp_path / "store", *words).output)
    wanted = {layer.digest: layer.size for image in images for layer in image.manifest.layers}
    wanted |= {image.manifest.config.digest: image.manifest.config.size for image in images[1:]}
    assert {layer["Digest"]: layer["Size"] for layer in plan["Layers"]} == wanted


# ---- --all-tags


def test_all_tags_are_pulled_and_failures_told_at_the_end(tmp_path: Path, registry: RunningRegistry) -> None:
    for tag in ("1", "2", "4"):
        registry.push(random_image(tmp_path / tag, seed=int(tag)), "team/tags", tag)
    config, layer = (registry.push_blob("team/tags", data) for data in (b"{}", b"a model"))
    artifact = encode(
        {
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.empty.v1+json", "digest": config, "size": 2},
            "layers": [{"mediaType": "application/x-model", "digest": layer, "size": 7}],
        }
    )
    answer = registry.request(
        "PUT", "/v2/team/tags/manifests/3", artifact, content_type="application/vnd.oci.image.manifest.v1+json"
    )
    assert answer.status == 201
    name = f"{registry.address}/team/tags"
    said = say(tmp_path / "store", "pull", "-a", "-q", name)
    assert (said.status, said.output) == (1, f"{name}:1\n{name}:2\n{name}:4\n")
    assert said.error.startswith(f"error: {name}:3 is not a container image [not-an-image]\n")
    assert said.error.count("error:") == 1
    assert say(tmp_path / "store", "images", "--format", "{{.Tag}}").output.split() == ["1", "2", "4"]


@pytest.mark.parametrize("tail", [":1", "@sha256:" + "0" * 64])
def test_all_tags_takes_a_name_without_one(tmp_path: Path, tail: str) -> None:
    said = say(tmp_path / "store", "pull", "--all-tags", f"localhost:1/team/tags{tail}")
    assert (said.status, said.error.splitlines()[0]) == (1, "error: --all-tags takes a name without a tag [usage]")


def test_all_tags_of_a_registry_that_goes_away_end_with_it(tmp_path: Path, registry: RunningRegistry) -> None:
    for tag in ("1", "2", "3"):
        registry.push(random_image(tmp_path / tag, seed=int(tag)), "team/going", tag)
    with flaky(registry.address) as proxy:
        proxy.fault = lambda seen, reply: msgspec.structs.replace(
            reply, status=403 if seen.path.endswith("/manifests/2") else reply.status
        )
        said = say(tmp_path / "store", "pull", "-a", "-q", f"{proxy.address}/team/going")
        asked = [seen.path for seen in proxy.site.seen]
    assert (said.status, said.output) == (1, f"{proxy.address}/team/going:1\n")
    assert not any(path.endswith("/manifests/3") for path in asked)


def test_format_is_for_dry_runs(tmp_path: Path) -> None:
    said = say(tmp_path / "store", "pull", "--format", "json", "localhost:1/a:1")
    assert (said.status, said.error.splitlines()[0]) == (125, "error: --format is for --dry-run [usage]")
