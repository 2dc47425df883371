"""Compressed blobs are given up and come back: the image runs, is whole, and keeps its digest on every way out."""

from __future__ import annotations

import gzip
import os
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux.features import probe
from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.image import Layer
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.ops.restore import is_held
from argosy.snapshots import choose
from argosy.store import uses
from argosy.store.blobs import BlobStore
from support.busybox import busybox_image
from support.images import Layout, RandomImage, config_json, layer_tar, random_image
from support.registry import running_registry
from support.stores import Program, argosy, load_image
from support.web import Reply, forward, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from argosy.snapshots import Snapshotter
    from support.registry import RunningRegistry
    from support.web import Seen

KINDS = ["erofs", "unpacked"] if os.geteuid() == 0 else ["unpacked-user"]
GONE = "127.0.0.1:1"  # nobody listens there


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("dropped") / "registry") as running:
        yield running


class Here:
    """A store of one kind of snapshots, and the program on it."""

    def __init__(self, root: Path, kind: str) -> None:
        self.root, self.kind = root, kind
        self.environ = {"ARGOSY_SNAPSHOTTER": kind}
        self.blobs = BlobStore(root)

    def say(self, *words: str) -> str:
        done = argosy(self.root, *words, environ=self.environ)
        assert done.returncode == 0, f"argosy {' '.join(words)}\n{done.stderr.decode()}"
        return done.stdout.decode()

    def refusal(self, *words: str) -> str:
        done = argosy(self.root, *words, environ=self.environ)
        assert done.returncode != 0, done.stdout.decode()
        return done.stderr.decode()

    def drop(self, *words: str) -> str:
        """What is printed after the plan."""
        return self.say("image", "prune", "-f", "--compressed", *words)

    def compressed(self, image: RandomImage) -> list[bool]:
        """Which of the image's layers are here as blobs."""
        return [self.blobs.stat(layer.digest) is not None for layer in image.manifest.layers]

    @property
    def snapshotter(self) -> Snapshotter:
        return choose(self.root, probe(folder=str(self.root), path=os.environ["PATH"]), self.kind)

    def layers(self, image: RandomImage) -> list[Layer]:
        pairs = zip(image.manifest.layers, image.diff_ids, strict=True)
        return [Layer(descriptor, diff_id, self.blobs) for descriptor, diff_id in pairs]


@pytest.fixture(params=KINDS)
def here(request: pytest.FixtureRequest, tmp_path: Path) -> Here:
    return erofs_store(tmp_path) if request.param == "erofs" else Here(tmp_path / "here", request.param)


def erofs_store(folder: Path) -> Here:
    found = probe(folder=str(folder), path=os.environ["PATH"]).erofs_file
    if not found.available:
        pytest.skip(f"this kernel cannot mount EROFS from a file: {found.reason}")
    return Here(folder / "here", "erofs")


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    """Its layers are zlib's, which we can make again where the tar is kept."""
    return random_image(tmp_path / "image", size=60_000)


def foreign_image(folder: Path) -> RandomImage:
    """Layers of several gzip members, as parallel compressors write them: no recipe makes those."""
    layout, source = Layout(folder), random.Random(str(folder))
    tars = tuple(layer_tar(source, 60_000, name=f"foreign{number}") for number in range(2))
    blobs = tuple(
        layout.put(gzip.compress(tar[:5000], mtime=0) + gzip.compress(tar[5000:], mtime=0), media.OCI_LAYER_GZIP)
        for tar in tars
    )
    config = layout.put(config_json(tars, Platform(os="linux", architecture="amd64")), media.OCI_CONFIG)
    manifest = encode_manifest(config, blobs)
    layout.put(manifest.raw, media.OCI_MANIFEST)
    layout.publish(manifest.descriptor)
    return RandomImage(layout, manifest, tars)


def test_an_image_runs_and_is_shown_as_before(here: Here, registry: RunningRegistry, tmp_path: Path) -> None:
    name = registry.push(busybox_image(tmp_path / "box"), f"{here.kind}/box")
    here.say("pull", "-q", name)
    verbs = (
        ("images", "--digests"),
        ("inspect", name),
        ("history", name),
        ("stack", name),
        ("run", "--rm", name, "/opt/hello"),
    )
    before = [here.say(*verb) for verb in verbs]
    assert "Dropped Compressed Blobs:\n" in here.drop(name)
    assert [here.say(*verb) for verb in verbs] == before
    assert "1 blobs dropped, their layers are here; " in here.say("check")
    for verb in (
        ("tag", name, "other:1"),
        ("run", "--name", "changed", "other:1", "touch", "/x"),
        ("commit", "changed", "mine:1"),
    ):
        here.say(*verb)
    assert here.say("run", "--rm", "mine:1", "/opt/hello") == "hello from a layer\n"
    here.say("check", "-q")
    ids = here.say("images", "-q", "--no-trunc").split()
    assert set(uses.last(here.root)) == set(ids)  # both were run


def test_a_pull_fetches_no_layer_that_was_dropped(here: Here, registry: RunningRegistry, image: RandomImage) -> None:
    registry.push(image, "team/noop")
    with serving(lambda seen: forward(registry.address, seen)) as proxy:
        here.say("pull", "-q", f"{proxy.address}/team/noop")
        here.drop()
        assert here.compressed(image) == [False, False]
        assert all(is_held(layer, blobs=here.blobs, snapshotter=here.snapshotter) for layer in here.layers(image))
        proxy.seen.clear()
        here.say("pull", "--dry-run", f"{proxy.address}/team/noop")
        here.say("pull", "-q", f"{proxy.address}/team/noop")
        assert [line for line in proxy.lines if "/blobs/" in line] == []


def test_a_layer_that_is_gone_is_held_no_more_and_is_fetched(
    here: Here, registry: RunningRegistry, image: RandomImage
) -> None:
    name = registry.push(image, "team/gone")
    here.say("pull", "-q", name)
    here.drop()
    here.snapshotter.remove(image.diff_ids[0])
    held = [is_held(layer, blobs=here.blobs, snapshotter=here.snapshotter) for layer in here.layers(image)]
    assert held == [False, True]
    assert "it was dropped, and its layer is gone" in argosy(here.root, "check", environ=here.environ).stdout.decode()
    here.say("pull", "-q", name)
    assert here.compressed(image) == [True, False]
    here.say("check", "-q")


def test_run_fetches_what_it_needs_for_a_layer_that_is_gone(
    here: Here, registry: RunningRegistry, tmp_path: Path
) -> None:
    box = busybox_image(tmp_path / "box")
    name = registry.push(box, f"{here.kind}/run")
    here.say("pull", "-q", name)
    here.drop()
    here.snapshotter.remove(box.diff_ids[0])
    assert here.say("run", "--rm", name, "/opt/hello") == "hello from a layer\n"


def test_a_push_to_a_registry_that_has_it_brings_nothing_back(
    here: Here, registry: RunningRegistry, image: RandomImage
) -> None:
    name = registry.push(image, "team/same")
    here.say("pull", "-q", name)
    here.drop()
    assert f"digest: {image.descriptor.digest}" in here.say("push", name)
    assert here.compressed(image) == [False, False]


@pytest.mark.parametrize("make", [random_image, foreign_image])
def test_a_push_elsewhere_brings_back_the_same_bytes(
    here: Here, registry: RunningRegistry, tmp_path: Path, make: Callable[[Path], RandomImage]
) -> None:
    image = make(tmp_path / "pushed")
    name = registry.push(image, "team/elsewhere")
    here.say("pull", "-q", name)
    here.drop()
    with running_registry(tmp_path / "other") as other:
        there = f"{other.address}/copy/of:1"
        here.say("tag", name, there)
        assert f"digest: {image.descriptor.digest}" in here.say("push", there)
        for descriptor, raw in image.blobs():
            assert other.request("GET", f"/v2/copy/of/blobs/{descriptor.digest}").body == raw
    assert here.compressed(image) == [True, True]


@pytest.mark.parametrize("make", [random_image, foreign_image])
@pytest.mark.parametrize("form", ["docker-archive", "oci-archive"])
def test_an_archive_has_the_same_bytes(
    here: Here, registry: RunningRegistry, tmp_path: Path, make: Callable[[Path], RandomImage], form: str
) -> None:
    image = make(tmp_path / "saved")
    name = registry.push(image, f"team/saved-{form}")
    here.say("pull", "-q", name)
    here.drop()
    here.say("save", "--format", form, "-o", str(tmp_path / "archive.tar"), name)
    other = Here(tmp_path / "other", here.kind)
    other.say("load", "-q", "-i", str(tmp_path / "archive.tar"))
    for descriptor, raw in image.blobs():
        assert other.blobs.path(descriptor.digest).read_bytes() == raw
    assert f"{image.descriptor.digest}\n" == other.say("images", "--format", "{{.Digest}}")


def test_a_load_brings_dropped_blobs_back(here: Here, registry: RunningRegistry, image: RandomImage) -> None:
    name = registry.push(image, "team/loaded")
    archive = str(here.root.parent / "archive.tar")
    here.say("pull", "-q", name)
    here.say("save", "-o", archive, name)
    here.drop()
    here.say("load", "-q", "-i", archive)
    assert here.compressed(image) == [True, True]


def test_a_manifest_list_takes_in_what_was_dropped(here: Here, registry: RunningRegistry, image: RandomImage) -> None:
    name = registry.push(image, "team/part")
    here.say("pull", "-q", name)
    here.drop()
    with running_registry(here.root.parent / "other") as other:
        here.say("manifest", "create", f"{other.address}/team/list:1", name)
        here.say("manifest", "push", f"{other.address}/team/list:1")
        for descriptor, raw in image.blobs():
            assert other.request("GET", f"/v2/team/list/blobs/{descriptor.digest}").body == raw


def test_what_nothing_would_bring_back_stays(here: Here, tmp_path: Path) -> None:
    """An image that no registry has: kept whole where it cannot be made again."""
    image = foreign_image(tmp_path / "foreign")
    load_image(here.root, image, f"{GONE}/team/own:1")
    here.snapshotter  # noqa: B018 (the store has a kind)
    unpacked(here, image)
    said = here.drop()
    assert said.startswith("Kept: 2 compressed blobs (")
    assert here.compressed(image) == [True, True]


def test_an_image_of_ones_own_is_dropped_only_where_it_can_be_made_again(here: Here, image: RandomImage) -> None:
    load_image(here.root, image, "own:1")
    unpacked(here, image)
    here.drop("own:1")
    expected = [False, False] if here.kind == "erofs" else [True, True]
    assert here.compressed(image) == expected
    assert {record.recipe.partition(" ")[0] for record in records(here)} == (
        {"zlib"} if here.kind == "erofs" else set()
    )


def records(here: Here) -> list[object]:
    found = (here.blobs.dropped.find(digest) for digest in here.blobs.dropped.walk())
    return [record for record in found if record is not None]


def unpacked(here: Here, image: RandomImage) -> None:
    """As `run` or a pull leaves it."""
    import io

    snapshotter = here.snapshotter
    for tar in image.tars:
        snapshotter.apply(Digest.of(tar), io.BytesIO(tar))


def test_a_push_says_what_cannot_be_had_again(here: Here, registry: RunningRegistry, tmp_path: Path) -> None:
    image = foreign_image(tmp_path / "lost")
    registry.push(image, "team/lost")
    with serving(lambda seen: forward(registry.address, seen)) as proxy:
        name = f"{proxy.address}/team/lost:latest"
        here.say("pull", "-q", name)
        here.drop()

        def refuse(seen: Seen) -> Reply:
            return Reply(status=404) if "/blobs/" in seen.target else forward(registry.address, seen)

        proxy.answer = refuse
        with running_registry(tmp_path / "other", expected_stderr=None) as other:
            there = f"{other.address}/copy:1"
            here.say("tag", name, there)
            said = here.refusal("push", there)
    assert "[blob-not-restorable]" in said
    assert f"the compressed form of a layer of {there} cannot be had again" in said
    assert "it was dropped to save space on " in said
    assert f"is not in {proxy.address}/team/lost" in said
    assert f"hint: try again when {proxy.address} answers" in said
    if here.kind == "erofs":
        here.say("check", "-q")


@pytest.mark.skipif("erofs" not in KINDS, reason="needs root")
def test_a_recipe_of_another_version_is_named(tmp_path: Path, image: RandomImage, registry: RunningRegistry) -> None:
    here = erofs_store(tmp_path)
    load_image(here.root, image, f"{registry.address}/team/versions:1")
    unpacked(here, image)
    here.drop()
    for digest in here.blobs.dropped.walk():
        path = Path(here.blobs.dropped.path(digest))
        changed = path.read_bytes().replace(b'"recipe":"zlib 1.', b'"recipe":"zlib 0.').replace(b" 1 H4sI", b" 9 H4sI")
        assert changed != path.read_bytes()
        path.write_bytes(changed)
    said = here.refusal("push", f"{registry.address}/team/versions:1")
    assert "[blob-not-restorable]" in said
    assert "hint: install zlib 0." in said
    assert here.compressed(image) == [False, False]
    assert list((here.root / "ingest").glob("*.part")) == []


@pytest.mark.skipif("erofs" not in KINDS, reason="needs root")
def test_a_damaged_layer_that_is_the_last_copy_is_not_removed_by_a_repair(tmp_path: Path, image: RandomImage) -> None:
    here = erofs_store(tmp_path)
    load_image(here.root, image, "own:1")
    unpacked(here, image)
    here.drop()
    tar = here.root / f"layers/sha256/{image.diff_ids[0].hex}/layer.tar"
    tar.write_bytes(tar.read_bytes()[:-10] + b"xxxxxxxxxx")
    done = argosy(here.root, "check", "--repair", environ=here.environ)
    assert (done.returncode, tar.exists()) == (1, True)
    assert "argosy rmi -f own:1" in argosy(here.root, "check", environ=here.environ).stdout.decode()


def test_removing_the_image_removes_records_and_layers(
    here: Here, registry: RunningRegistry, image: RandomImage
) -> None:
    name = registry.push(image, "team/removed")
    here.say("pull", "-q", name)
    here.drop()
    here.say("rmi", name)
    assert (list(here.blobs.dropped.walk()), list(here.snapshotter.walk()), list(here.blobs.walk())) == ([], [], [])


def test_a_prune_frees_what_its_plan_says_of_records_too(
    here: Here, registry: RunningRegistry, image: RandomImage
) -> None:
    here.say("pull", "-q", registry.push(image, "team/pruned"))
    here.drop()
    said = here.say("prune", "-af").splitlines()
    [planned] = [line.removeprefix("Total: ") for line in said if line.startswith("Total: ")]
    assert said[-1] == f"Total reclaimed space: {planned}"


def test_names_are_for_dropping_alone(tmp_path: Path) -> None:
    refused = Program(tmp_path / "store").refusal("image", "prune", "a:1")
    assert "image prune takes the names of images with --compressed alone" in refused
