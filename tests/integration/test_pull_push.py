"""Pull and push as a user types them, against our registry, the reference registry and skopeo."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import NotFound, Unsupported
from argosy.linux.features import probe
from argosy.oci.descriptor import DOCKER_FOREIGN_LAYER, DOCKER_INDEX, OCI_CONFIG, OCI_INDEX, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import Image
from argosy.oci.manifest import encode_index, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.ops.progress import Finished, Warned
from argosy.ops.pull import pull
from argosy.ops.push import push
from argosy.remote.repository import Repository
from argosy.remote.transport import Transport
from argosy.snapshots import choose
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore, Summary
from support.docker_registry import PASSWORD, USER, docker_registry
from support.images import random_image
from support.registry import running_registry
from support.stores import argosy, load_image
from support.tokens import guarded
from support.web import Reply, Seen, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from argosy.ops.progress import Event
    from argosy.ops.pull import Pulled
    from argosy.ops.push import Pushed
    from argosy.snapshots import Snapshotter
    from support.images import RandomImage


class Here:
    """A store of this test's own, and the verbs on it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        root.mkdir()
        self.blobs, self.refs = BlobStore(root), RefStore(root)
        self.snapshotter: Snapshotter = choose(root, probe(folder=str(root), path=os.environ["PATH"]))
        self.transport = Transport({})
        self.events: list[Event] = []

    def repository(self, reference: Reference) -> Repository:
        return Repository(self.transport, reference.registry, reference.repository)

    def pull(self, name: str, platform: str | None = None, *, all_platforms: bool = False) -> Pulled:
        reference = Reference.parse(name)
        return pull(
            reference,
            repository=self.repository(reference),
            blobs=self.blobs,
            refs=self.refs,
            snapshotter=self.snapshotter,
            platform=Platform.parse(platform) if platform else None,
            all_platforms=all_platforms,
            progress=self.events.append,
        )

    def push(self, name: str, platform: str | None = None) -> Pushed:
        reference = Reference.parse(name)
        return push(
            reference,
            repository=self.repository(reference),
            blobs=self.blobs,
            refs=self.refs,
            platform=Platform.parse(platform) if platform else None,
            progress=self.events.append,
        )

    def tag(self, old: str, new: str) -> None:
        record = self.refs.get(Reference.parse(old))
        self.refs.set(Reference.parse(new), record.descriptor, summary=record.summary)

    @property
    def statuses(self) -> list[str]:
        """How each piece of work ended, since the last look."""
        found = sorted(event.status for event in self.events if isinstance(event, Finished))
        self.events.clear()
        return found


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    made = Here(tmp_path / "here")
    yield made
    made.transport.close()


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with running_registry(tmp_path_factory.mktemp("ours") / "registry") as running:
        yield running.address


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("theirs") / "registry") as address:
        yield address


@pytest.fixture(params=["ours", "theirs"])
def registry(request: pytest.FixtureRequest, ours: str, theirs: str) -> str:
    return ours if request.param == "ours" else theirs


def skopeo_push(image: RandomImage, name: str, *options: str) -> None:
    skopeo(
        "copy",
        "--preserve-digests",
        "--dest-tls-verify=false",
        *options,
        f"oci:{image.folder}:latest",
        f"docker://{name}",
    )


def skopeo(*words: str) -> str:
    done = subprocess.run(["skopeo", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def raw_manifest(name: str) -> bytes:
    done = subprocess.run(
        ["skopeo", "inspect", "--raw", "--tls-verify=false", f"docker://{name}"], capture_output=True, check=True
    )
    return done.stdout


def index_of(folder: Path, *platforms: str) -> tuple[RandomImage, ...]:
    """Images for several platforms, and an index of them in the layout of the first."""
    images = tuple(
        random_image(folder, seed=seed, platform=Platform.parse(name)) for seed, name in enumerate(platforms)
    )
    entries = tuple(
        Descriptor(
            media_type=image.descriptor.media_type,
            digest=image.descriptor.digest,
            size=image.descriptor.size,
            platform=Platform.parse(name),
        )
        for image, name in zip(images, platforms, strict=True)
    )
    layout = images[0].layout
    layout.publish(layout.put(encode_index(entries).raw, OCI_INDEX))
    return images


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_what_skopeo_pushed_keeps_its_digest_through_pull_and_push(
    registry: str, here: Here, tmp_path: Path, compression: str
) -> None:
    image = random_image(tmp_path / "image", layers=3, compression=compression)
    name = f"{registry}/team/{compression}:1"
    skopeo_push(image, name)
    pulled = here.pull(name)
    assert (pulled.is_new, pulled.record.descriptor, pulled.record.image_id) == (
        True,
        image.descriptor,
        image.manifest.config.digest,
    )
    assert here.statuses == ["Download complete"] * 3 + ["Pull complete"] * 3
    assert sorted(here.snapshotter.walk()) == sorted(image.diff_ids)
    assert pulled.record.size == sum(map(len, image.tars))
    here.tag(name, f"{registry}/team/{compression}-again:2")
    pushed = here.push(f"{registry}/team/{compression}-again:2")
    assert (pushed.name, pushed.descriptor) == ("2", image.descriptor)
    assert Digest.of(raw_manifest(f"{registry}/team/{compression}-again:2")) == image.descriptor.digest


def test_docker_media_types_are_kept(registry: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", family="docker")
    for descriptor, raw in image.blobs():
        here.blobs.put(raw, descriptor.media_type)
    here.blobs.put(image.manifest.raw, image.descriptor.media_type)
    name = f"{registry}/docker/app:1"
    summary = Summary(manifest=image.descriptor, image_id=image.manifest.config.digest, created="", size=1)
    here.refs.set(Reference.parse(name), image.descriptor, summary=summary)
    assert here.push(name).descriptor == image.descriptor
    assert raw_manifest(name) == image.manifest.raw


def test_a_second_pull_moves_one_manifest(ours: str, here: Here, tmp_path: Path) -> None:
    image = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")[0]
    skopeo_push(image, f"{ours}/team/again:1", "--all")
    with serving(lambda seen: forward(ours, seen)) as proxy:
        name = f"{proxy.address}/team/again:1"
        first = here.pull(name, "linux/amd64")
        assert here.statuses == ["Download complete"] * 2 + ["Pull complete"] * 2
        proxy.seen.clear()
        second = here.pull(name, "linux/amd64")
        assert (second.is_new, second.record) == (False, first.record)
        assert proxy.lines == ["GET /v2/", "GET /v2/team/again/manifests/1"]
        assert here.statuses == ["Already exists"] * 2


@pytest.mark.parametrize("processors", [1, 2, 3, 64])
def test_a_pull_brings_the_same_on_small_and_large_machines(
    ours: str, here: Here, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, processors: int
) -> None:
    name = f"{ours}/team/machines:{processors}"
    image = random_image(tmp_path / "image", seed=processors, layers=3)
    skopeo_push(image, name)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(processors)))
    assert here.pull(name).record.descriptor.digest == image.descriptor.digest
    assert all(here.snapshotter.has(diff_id) for diff_id in image.diff_ids)


def test_layers_that_are_here_are_not_fetched_for_another_image(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=2)
    skopeo_push(image, f"{ours}/team/base:1")
    here.pull(f"{ours}/team/base:1")
    with serving(lambda seen: forward(ours, seen)) as proxy:
        skopeo_push(image, f"{ours}/team/other:1")
        here.pull(f"{proxy.address}/team/other:1")
        assert proxy.lines == ["GET /v2/", "GET /v2/team/other/manifests/1"]


def test_a_prune_while_layers_arrive_spoils_no_pull(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=2)
    skopeo_push(image, f"{ours}/team/pruned:1")

    class Pruning(list["Event"]):
        """Each layer that is complete is removed by somebody, as no name holds it yet."""

        def append(self, event: Event) -> None:
            super().append(event)
            if isinstance(event, Finished) and event.status == "Pull complete":
                for diff_id in tuple(here.snapshotter.walk()):
                    here.snapshotter.remove(diff_id)

    here.events = Pruning()
    pulled = here.pull(f"{ours}/team/pruned:1")
    config = Image(pulled.record.manifest, here.blobs).config
    assert [here.snapshotter.has(diff_id) for diff_id in config.diff_ids] == [True, True]


@pytest.mark.parametrize("media_type", [OCI_INDEX, DOCKER_INDEX])
def test_an_index_gives_the_platform_that_is_asked_for(ours: str, here: Here, tmp_path: Path, media_type: str) -> None:
    images = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")
    name = f"{ours}/team/multi{len(media_type)}:1"
    skopeo_push(images[0], name, "--all")
    raw = raw_manifest(name).replace(OCI_INDEX.encode(), media_type.encode())
    digest = here.repository(Reference.parse(name)).push_manifest(raw, media_type, "1")
    record = here.pull(name, "linux/arm64").record
    assert record.descriptor == Descriptor(media_type=media_type, digest=digest, size=len(raw))
    assert record.manifest.digest == images[1].descriptor.digest
    assert all(here.snapshotter.has(diff_id) for diff_id in images[1].diff_ids)
    assert not any(here.snapshotter.has(diff_id) for diff_id in images[0].diff_ids)


def test_an_index_is_pushed_when_all_its_platforms_are_here(ours: str, theirs: str, here: Here, tmp_path: Path) -> None:
    images = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")
    name, target = f"{ours}/team/whole:1", f"{theirs}/team/whole:1"
    skopeo_push(images[0], name, "--all")
    here.pull(name, "linux/amd64", all_platforms=True)
    assert not any(here.snapshotter.has(diff_id) for diff_id in images[1].diff_ids)
    here.tag(name, target)
    pushed = here.push(target)
    assert Digest.of(raw_manifest(target)) == pushed.descriptor.digest
    skopeo("copy", "--all", "--src-tls-verify=false", f"docker://{target}", f"dir:{tmp_path}/back")


def test_an_index_with_missing_platforms_says_so_and_one_platform_can_be_pushed(
    ours: str, theirs: str, here: Here, tmp_path: Path
) -> None:
    images = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")
    name, target = f"{ours}/team/part:1", f"{theirs}/team/part:1"
    skopeo_push(images[0], name, "--all")
    here.pull(name, "linux/amd64")
    here.tag(name, target)
    with pytest.raises(NotFound) as caught:
        here.push(target)
    assert (caught.value.code, caught.value.context) == (
        "platforms-missing",
        "missing here and in the registry: linux/arm64",
    )
    assert here.push(target, "linux/amd64").descriptor.digest == images[0].descriptor.digest
    # The registry that has the rest already takes the index.
    here.tag(name, f"{ours}/team/part:2")
    assert here.push(f"{ours}/team/part:2").name == "2"


def test_what_the_registry_has_is_not_sent(registry: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=2)
    name = f"{registry}/team/mounts:1"
    skopeo_push(image, name)
    here.pull(name)
    here.events.clear()
    assert here.push(name).descriptor == image.descriptor
    assert here.statuses == ["Layer already exists"] * 3
    here.tag(name, f"{registry}/other/place:1")
    with serving(lambda seen: forward(registry, seen)):
        here.push(f"{registry}/other/place:1")
    assert here.statuses == ["Mounted from team/mounts"] * 3


def test_a_push_that_changes_nothing_takes_two_requests(registry: str, here: Here, tmp_path: Path) -> None:
    """However many layers there are; the first request finds out whether the registry speaks TLS."""
    image = random_image(tmp_path / "image", layers=12)
    name = f"{registry}/team/nothing:1"
    skopeo_push(image, name)
    here.pull(name)
    here.events.clear()
    with serving(lambda seen: forward(registry, seen)) as proxy:
        target = f"{proxy.address}/team/nothing:1"
        here.tag(name, target)
        here.push(target)
        manifest = f"/v2/team/nothing/manifests/{image.descriptor.digest}"
        assert proxy.lines == ["GET /v2/", f"HEAD {manifest}", "PUT /v2/team/nothing/manifests/1"]
    assert here.statuses == ["Layer already exists"] * 13


def test_a_blob_that_the_registry_lost_is_sent_again(registry: str, here: Here, tmp_path: Path) -> None:
    """Collectors of garbage did that; pushing again is how people mend it."""
    images = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")
    name = f"{registry}/team/lost:1"
    skopeo_push(images[0], name, "--all")
    here.pull(name, "linux/amd64", all_platforms=True)
    for image in images:
        for lost in image.manifest.children():
            path = f"/v2/team/lost/blobs/{lost.digest}"
            assert forward(registry, Seen(method="DELETE", target=path, headers={}, body=b"")).status == 202
            here.events.clear()
            here.push(name)
            assert here.statuses == [*["Layer already exists"] * 5, "Pushed"]
            found = forward(registry, Seen(method="GET", target=path, headers={}, body=b""))
            assert Digest.of(found.body) == lost.digest


def test_a_mount_is_tried_from_several_repositories_and_the_nearest_first(
    ours: str, here: Here, tmp_path: Path
) -> None:
    image = random_image(tmp_path / "image", layers=1)
    names = [f"{ours}/{place}:1" for place in ("elsewhere/a", "team/sub/b", "team/sub/c")]
    skopeo_push(image, names[0])
    here.pull(names[0])
    for name in names[1:]:  # names that the registry does not have the image under
        here.tag(names[0], name)
    here.events.clear()
    with serving(lambda seen: forward(ours, seen)) as proxy:
        for name in (*names, f"{ours}/team/sub/new:1"):
            here.tag(names[0], name.replace(ours, proxy.address))
        here.push(f"{proxy.address}/team/sub/new:1")
        config, layer = (child.digest for child in image.manifest.children())
        mounts = [line for line in proxy.lines if "mount=" in line]
        assert sorted(mounts) == sorted(
            f"POST /v2/team/sub/new/blobs/uploads/?mount={digest}&from={place}"
            for digest in (config, layer)
            for place in ("team/sub/b", "team/sub/c", "elsewhere/a")
        )
        assert [line for line in mounts if layer in line][-1].endswith("from=elsewhere/a")
        assert "PATCH" not in {seen.method for seen in proxy.seen}
    assert here.statuses == ["Mounted from elsewhere/a"] * 2


def test_an_upload_that_a_refused_mount_began_is_used(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=1)
    load_image(here.root, image, f"{ours}/nowhere/a:1")
    with serving(lambda seen: forward(ours, seen)) as proxy:
        here.tag(f"{ours}/nowhere/a:1", f"{proxy.address}/nowhere/a:1")
        here.tag(f"{ours}/nowhere/a:1", f"{proxy.address}/used/b:1")
        here.push(f"{proxy.address}/used/b:1")
        methods = sorted(seen.method for seen in proxy.seen)
    assert methods == ["GET", *["HEAD"] * 3, *["POST"] * 2, *["PUT"] * 3]
    assert here.statuses == ["Pushed"] * 2


def test_where_reading_is_not_allowed_nothing_is_mounted_and_the_push_goes_on(
    ours: str, here: Here, tmp_path: Path
) -> None:
    image = random_image(tmp_path / "image", layers=3)
    load_image(here.root, image, f"{ours}/secret/a:1")

    def refuse(seen: Seen) -> Reply:
        if "from=secret/a" in seen.target:
            return Reply(status=401, headers={"WWW-Authenticate": f'Bearer realm="http://{proxy.address}/token"'})
        return Reply(status=403) if seen.path == "/token" else forward(ours, seen)

    with serving(refuse) as proxy:
        for name in ("secret/a", "open/b"):
            here.tag(f"{ours}/secret/a:1", f"{proxy.address}/{name}:1")
        here.push(f"{proxy.address}/open/b:1")
        assert here.statuses == ["Pushed"] * 4


def test_indexes_within_indexes_keep_every_digest(registry: str, here: Here, tmp_path: Path) -> None:
    """An image, an index of it, and an index of both, so that the image comes at two depths."""
    images = index_of(tmp_path / "image", "linux/amd64", "linux/arm64")
    layout = images[0].layout
    inner = layout.put(encode_index(tuple(image.descriptor for image in images)).raw, OCI_INDEX)
    outer = layout.put(encode_index((images[0].descriptor, inner)).raw, OCI_INDEX)
    name = f"{registry}/team/nested:1"
    load_image(here.root, images[1], f"{registry}/unnamed/b:1")
    load_image(here.root, images[0], f"{registry}/unnamed/a:1")
    for index in (inner, outer):
        here.blobs.put(layout.read(index.digest), OCI_INDEX)
    summary = here.refs.get(Reference.parse(f"{registry}/unnamed/a:1")).summary
    here.refs.set(Reference.parse(name), outer, summary=summary)
    assert here.push(name).descriptor == outer
    for document in (outer, inner, *(image.descriptor for image in images)):
        assert Digest.of(raw_manifest(f"{name.removesuffix(':1')}@{document.digest}")) == document.digest


def test_what_is_named_by_sha512_is_put_under_that_name(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=1)
    load_image(here.root, image, f"{ours}/unnamed/long:1")
    long = Digest.of(image.manifest.raw, "sha512")
    with here.blobs.ingest(algorithm="sha512") as part:
        part.write(image.manifest.raw)
        part.commit()
    index = encode_index((replace(image.descriptor, digest=long),))
    here.blobs.put(index.raw, OCI_INDEX)
    summary = here.refs.get(Reference.parse(f"{ours}/unnamed/long:1")).summary
    here.refs.set(Reference.parse(f"{ours}/team/long:1"), index.descriptor, summary=summary)
    here.push(f"{ours}/team/long:1")
    found = forward(ours, Seen(method="GET", target=f"/v2/team/long/manifests/{long}", headers={}, body=b""))
    assert found.body == image.manifest.raw


def test_an_artifact_in_an_index_travels_along(registry: str, here: Here, tmp_path: Path) -> None:
    """As BuildKit's attestations do: a manifest of platform unknown, whose layer is no archive."""
    image = random_image(tmp_path / "image", layers=1)
    layout = image.layout
    statement = layout.put(b'{"_type":"https://in-toto.io/Statement/v0.1"}', "application/vnd.in-toto+json")
    config = layout.put(b'{"architecture":"unknown","os":"unknown"}', OCI_CONFIG)
    artifact = encode_manifest(config, (statement,))
    layout.put(artifact.raw, artifact.descriptor.media_type)
    unknown = replace(artifact.descriptor, platform=Platform.parse("unknown/unknown"))
    known = replace(image.descriptor, platform=Platform.parse("linux/amd64"))
    index = layout.put(encode_index((known, unknown)).raw, OCI_INDEX)
    layout.publish(index)
    source, target = f"{registry}/team/attested:1", f"{registry}/other/attested:1"
    skopeo_push(image, source, "--all")
    here.pull(source, "linux/amd64", all_platforms=True)
    here.tag(source, target)
    assert here.push(target).descriptor.digest == index.digest
    found = raw_manifest(f"{target.removesuffix(':1')}@{artifact.descriptor.digest}")
    assert found == artifact.raw


@pytest.mark.parametrize("is_here", [False, True])
def test_a_foreign_layer_is_not_passed_on(ours: str, here: Here, tmp_path: Path, is_here: bool) -> None:
    """Windows' base layers: only their addresses travel, as with Docker."""
    image = random_image(tmp_path / "image", layers=2)
    foreign = replace(image.manifest.layers[0], media_type=DOCKER_FOREIGN_LAYER, urls=("https://example.test/layer",))
    manifest = encode_manifest(image.manifest.config, (foreign, image.manifest.layers[1]))
    name = f"{ours}/windows/app{is_here:d}:1"
    load_image(here.root, image, f"{ours}/unnamed/c:1")
    here.blobs.put(manifest.raw, manifest.descriptor.media_type)
    summary = here.refs.get(Reference.parse(f"{ours}/unnamed/c:1")).summary
    here.refs.set(Reference.parse(name), manifest.descriptor, summary=summary)
    if not is_here:
        here.blobs.delete(foreign.digest)
    here.push(name)
    assert here.statuses == ["Pushed", "Pushed", "Skipped foreign layer"]
    assert raw_manifest(name) == manifest.raw
    head = Seen(method="HEAD", target=f"/v2/windows/app{is_here:d}/blobs/{foreign.digest}", headers={}, body=b"")
    assert forward(ours, head).status == 404


def test_all_tags_are_pushed_with_one_login(ours: str, tmp_path: Path) -> None:
    image, store = random_image(tmp_path / "image", layers=1), tmp_path / "store"
    with guarded(ours) as door:
        store.mkdir()
        load_image(store, image, *(f"{door.address}/all/tags:{tag}" for tag in ("1", "2", "latest")))
        done = argosy(store, "push", "-a", f"{door.address}/all/tags")
        assert (done.returncode, done.stderr) == (0, b"")
        assert len(door.token_requests) == 1
        lines = done.stdout.decode().splitlines()
        assert [line for line in lines if "digest: " in line] == [
            f"{tag}: digest: {image.descriptor.digest} size: {image.descriptor.size}" for tag in ("1", "2", "latest")
        ]
        assert argosy(store, "push", "-a", f"{door.address}/all/tags:1").returncode == 1


def test_who_pushes_an_id_is_told_that_a_name_says_where_to(tmp_path: Path) -> None:
    store = tmp_path / "store"
    store.mkdir()
    load_image(store, random_image(tmp_path / "image"), "box:1")
    image_id = argosy(store, "images", "-q").stdout.decode().strip()
    said = argosy(store, "push", image_id).stderr.decode()
    assert f"hint: argosy tag {image_id} REGISTRY/NAME:TAG, and push that name" in said


def test_basic_login_pull_and_push(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    environ = {"HOME": str(tmp_path / "home"), "XDG_CONFIG_HOME": str(tmp_path / "config")}
    store = tmp_path / "store"
    with docker_registry(tmp_path / "registry", login=True) as address:
        name = f"{address}/private/app:1"
        skopeo_push(image, name, f"--dest-creds={USER}:{PASSWORD}")
        refused = argosy(store, "pull", name, environ=environ)
        assert (refused.returncode, b"[login-required]" in refused.stderr) == (1, True)
        assert f"hint: argosy login {address}".encode() in refused.stderr
        wrong = argosy(store, "login", "-u", USER, "--password-stdin", address, stdin=b"wrong\n", environ=environ)
        assert (wrong.returncode, b"[login-refused]" in wrong.stderr, b"wrong" in wrong.stderr) == (1, True, False)
        right = argosy(store, "login", "-u", USER, "--password-stdin", address, stdin=b"secret\n", environ=environ)
        assert (right.returncode, right.stdout) == (0, b"Login Succeeded\n")
        pulled = argosy(store, "pull", name, environ=environ)
        assert (pulled.returncode, pulled.stderr) == (0, b"")
        assert argosy(store, "push", name, environ=environ).returncode == 0
        left = argosy(store, "logout", address, environ=environ)
        assert (left.returncode, left.stdout) == (0, f"Removing login credentials for {address}\n".encode())
        assert argosy(store, "pull", name, environ=environ).returncode == 1


@pytest.mark.parametrize("scope_in_realm", [False, True])
def test_bearer_tokens_that_wear_out_in_the_middle(ours: str, here: Here, tmp_path: Path, scope_in_realm: bool) -> None:
    image = random_image(tmp_path / "image", layers=4)
    with guarded(ours, scope_in_realm=scope_in_realm) as door:
        door.uses = 2
        name = f"{door.address}/team/tokens{scope_in_realm:d}:1"
        skopeo_push(image, name.replace(door.address, ours))
        assert here.pull(name).record.descriptor == image.descriptor
        assert len(door.token_requests) > 1
        here.tag(name, f"{door.address}/team/more{scope_in_realm:d}:1")
        assert here.push(f"{door.address}/team/more{scope_in_realm:d}:1").descriptor == image.descriptor


def test_one_token_serves_a_whole_pull(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=4)
    skopeo_push(image, f"{ours}/team/token:1")
    with guarded(ours) as door:
        here.pull(f"{door.address}/team/token:1")
        assert len(door.token_requests) == 1


def test_the_lines_of_pull_and_push_are_dockers(ours: str, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=2)
    name, store = f"{ours}/team/lines", tmp_path / "store"
    skopeo_push(image, f"{name}:latest")
    short = [layer.digest.short for layer in image.manifest.layers]
    done = argosy(store, "pull", name)
    lines = done.stdout.decode().splitlines()
    assert (done.returncode, done.stderr) == (0, b"")
    assert lines[:2] == ["Using default tag: latest", "latest: Pulling from team/lines"]
    assert sorted(lines[2:6]) == sorted(
        f"{digest}: {status}" for digest in short for status in ("Download complete", "Pull complete")
    )
    assert lines[6:] == [
        f"Digest: {image.descriptor.digest}",
        f"Status: Downloaded newer image for {name}:latest",
        f"{name}:latest",
    ]
    again = argosy(store, "pull", f"{name}:latest").stdout.decode().splitlines()
    assert again[-2:] == [f"Status: Image is up to date for {name}:latest", f"{name}:latest"]
    assert argosy(store, "pull", "-q", name).stdout.decode() == f"{name}:latest\n"
    pushed = argosy(store, "push", name).stdout.decode().splitlines()
    assert pushed[:2] == ["Using default tag: latest", f"The push refers to repository [{name}]"]
    assert pushed[-1] == f"latest: digest: {image.descriptor.digest} size: {image.descriptor.size}"


def test_what_is_no_image_is_said(ours: str, here: Here, tmp_path: Path) -> None:
    folder = tmp_path / "layout"
    image = random_image(folder)
    chart = image.layout.put(b"{}", "application/vnd.cncf.helm.config.v1+json")
    manifest = encode_manifest(chart, ())
    name = Reference.parse(f"{ours}/charts/app:1")
    repository = here.repository(name)
    repository.push_blob(chart, lambda offset: image.layout.open(chart, offset=offset))
    repository.push_manifest(manifest.raw, manifest.descriptor.media_type, "1")
    with pytest.raises(Unsupported) as caught:
        here.pull(str(name))
    assert (caught.value.code, caught.value.context) == (
        "not-an-image",
        "it is an artifact of type application/vnd.cncf.helm.config.v1+json",
    )


def test_a_foreign_platform_is_pulled_with_a_warning_and_refused_when_another_was_asked_for(
    ours: str, here: Here, tmp_path: Path
) -> None:
    image = random_image(tmp_path / "image", platform=Platform.parse("linux/riscv64"))
    name = f"{ours}/team/riscv:1"
    skopeo_push(image, name)
    with pytest.raises(NotFound) as caught:
        here.pull(name, "linux/amd64")
    assert caught.value.code == "platform-not-in-index"
    here.pull(name)
    host = Platform.host()
    assert Warned(f"{name} is for linux/riscv64; this machine is {host}") in here.events
    with pytest.raises(NotFound) as caught:
        here.push(name, "linux/amd64")
    assert (caught.value.code, caught.value.context) == ("platform-not-in-index", "it has one platform, linux/riscv64")
    here.push(name, "linux/riscv64")


def test_an_image_by_digest_is_named_by_digest(ours: str, here: Here, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    skopeo_push(image, f"{ours}/team/digest:1")
    record = here.pull(f"{ours}/team/digest:1@{image.descriptor.digest}").record
    assert str(record.reference) == f"{ours}/team/digest@{image.descriptor.digest}"


def test_a_registry_on_loopback_may_speak_tls_with_a_ca_that_is_named(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    store, folder = tmp_path / "store", tmp_path / "registry"
    with docker_registry(folder, tls=True) as address:
        name = f"{address}/team/tls:1"
        skopeo_push(image, name)
        untrusted = argosy(store, "pull", name)
        assert (untrusted.returncode, b"[tls-failed]" in untrusted.stderr, b"SSL_CERT_FILE" in untrusted.stderr) == (
            1,
            True,
            True,
        )
        trusted = argosy(store, "pull", "-q", name, environ={"SSL_CERT_FILE": str(folder / "cert.pem")})
        assert (trusted.returncode, trusted.stderr) == (0, b"")
        bad = argosy(store, "pull", name, environ={"SSL_CERT_FILE": str(tmp_path / "absent")})
        assert (bad.returncode, b"[ca-file-invalid]" in bad.stderr) == (1, True)
