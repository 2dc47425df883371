"""Archives of every form come in: what they hold is here afterwards, under which names, with which digests."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
import os
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.archives.files import Folder
from argosy.errors import NotFound
from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.image import Image
from argosy.oci.manifest import encode_index, encode_manifest
from argosy.oci.platform import Platform
from argosy.ops.progress import Finished, Warned
from support.image_archives import (
    Shelf,
    docker_document,
    docker_members,
    layout_members,
    tar_of,
    whole,
    with_links,
)
from support.images import Layout, compress, random_image
from support.stores import Program, argosy

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.oci.descriptor import Descriptor
    from argosy.ops.load import Loaded
    from argosy.ops.progress import Event
    from support.images import RandomImage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners of layers)")
CONTAINERD, OCI = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path / "store")


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image", layers=3)


@pytest.fixture(params=["a file", "a stream"])
def streamed(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "a stream")


def named(loaded: tuple[Loaded, ...]) -> list[str | None]:
    return [each.reference.familiar() if each.reference is not None else None for each in loaded]


def described(image: RandomImage, **annotations: str) -> Descriptor:
    named = {CONTAINERD: annotations.get("full"), OCI: annotations.get("short")}
    kept = {name: value for name, value in named.items() if value is not None}
    return replace(image.descriptor, annotations=kept or None)


def publish(layout: Layout, *entries: Descriptor) -> None:
    (layout.folder / "index.json").write_bytes(encode_index(entries).raw)


# ---- layouts


@pytest.mark.parametrize("family", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_a_layout_keeps_its_digests(
    shelf: Shelf, tmp_path: Path, streamed: bool, family: str, compression: str
) -> None:
    if (family, compression) == ("docker", "zstd"):
        family = "oci"  # Docker has no type for it
    image = random_image(tmp_path / "image", family=family, compression=compression)
    publish(image.layout, described(image, full="docker.io/library/box:1"))
    loaded = shelf.load(tar_of(layout_members(image.layout)), streamed=streamed)
    assert named(loaded) == ["box:1"]
    assert loaded[0].image_id == image.manifest.config.digest
    record = shelf.refs.list()[0]
    assert (record.descriptor, record.manifest) == (image.descriptor, image.descriptor)
    assert record.size == sum(map(len, image.tars))
    assert whole(shelf, image)


@pytest.mark.parametrize(
    ("annotations", "names"),
    [
        ({"full": "docker.io/library/box:1", "short": "1"}, ["box:1"]),  # docker, containerd, buildkit
        ({"short": "localhost:5000/lab/box:1"}, ["localhost:5000/lab/box:1"]),  # podman, skopeo
        ({"short": "1"}, ["1:latest"]),  # umoci; docker and podman take the tag for the name, too
        ({}, [None]),
        ({"full": "Not A Name"}, [None]),
    ],
)
def test_names_come_from_the_annotations(
    shelf: Shelf, image: RandomImage, annotations: dict[str, str], names: list[str | None]
) -> None:
    publish(image.layout, described(image, **annotations))
    assert named(shelf.load(tar_of(layout_members(image.layout)), streamed=False)) == names


def test_a_name_that_is_none_is_told(shelf: Shelf, image: RandomImage) -> None:
    events: list[Event] = []
    publish(image.layout, described(image, full="Not A Name"))
    shelf.load(tar_of(layout_members(image.layout)), streamed=False, progress=events.append)
    warned = [event.text for event in events if isinstance(event, Warned)]
    assert len(warned) == 1
    assert warned[0].startswith("the archive calls an image 'Not A Name', which is no name: ")


def test_a_name_with_a_digest_is_kept_where_it_is_the_images(shelf: Shelf, image: RandomImage) -> None:
    right = f"localhost:5000/box@{image.descriptor.digest}"
    wrong = f"localhost:5000/box@{Digest.of(b'')}"
    publish(image.layout, described(image, full=right), described(image, full=wrong))
    assert named(shelf.load(tar_of(layout_members(image.layout)), streamed=False)) == [right]


def test_an_image_without_a_name_is_listed_as_none_unless_it_has_one(shelf: Shelf, image: RandomImage) -> None:
    archive = tar_of(layout_members(image.layout))
    publish(image.layout, image.descriptor)
    nameless = tar_of(layout_members(image.layout))
    assert named(shelf.load(nameless, streamed=True)) == [None]
    assert [record.is_untagged for record in shelf.refs.list()] == [True]
    shelf.load(archive, streamed=True)
    assert shelf.names() == ["latest:latest"]
    shelf.load(nameless, streamed=True)
    assert shelf.names() == ["latest:latest"]


def test_several_names_and_images_come_in_their_order(shelf: Shelf, tmp_path: Path, streamed: bool) -> None:
    layout = Layout(tmp_path / "layout")
    first, second = (random_image(layout.folder, seed=seed) for seed in (1, 2))
    publish(
        layout,
        described(second, full="localhost/b:2"),
        described(first, full="docker.io/library/a:1"),
        described(second, full="localhost/b:1"),
    )
    loaded = shelf.load(tar_of(layout_members(layout)), streamed=streamed)
    assert named(loaded) == ["localhost/b:2", "localhost/b:1", "a:1"]
    assert [each.image_id for each in loaded] == [second.manifest.config.digest] * 2 + [first.manifest.config.digest]


@pytest.fixture
def platforms(tmp_path: Path) -> tuple[Layout, dict[str, RandomImage]]:
    """An index within an index, for three platforms, and an attestation, as BuildKit makes them."""
    layout = Layout(tmp_path / "layout")
    images = {
        name: random_image(layout.folder, seed=seed, platform=Platform(os="linux", architecture=name))
        for seed, name in enumerate(("s390x", Platform.host().architecture, "riscv64"))
    }
    config = layout.put(b"{}", media.OCI_CONFIG)
    statement = layout.put(b'{"in-toto": true}', "application/vnd.in-toto+json")
    attestation = encode_manifest(config, (statement,))
    layout.put(attestation.raw, media.OCI_MANIFEST)
    unknown = replace(attestation.descriptor, platform=Platform(os="unknown", architecture="unknown"))
    entries = [
        replace(image.descriptor, platform=Platform(os="linux", architecture=name)) for name, image in images.items()
    ]
    inner = encode_index((*entries[1:], unknown))
    layout.put(inner.raw, media.OCI_INDEX)
    outer = encode_index((entries[0], inner.descriptor))
    layout.put(outer.raw, media.OCI_INDEX)
    publish(layout, replace(outer.descriptor, annotations={CONTAINERD: "docker.io/library/many:1"}))
    return layout, images


def test_an_index_comes_whole_and_this_machines_image_is_unpacked(
    shelf: Shelf, platforms: tuple[Layout, dict[str, RandomImage]], streamed: bool
) -> None:
    layout, images = platforms
    own = images[Platform.host().architecture]
    loaded = shelf.load(tar_of(layout_members(layout)), streamed=streamed)
    assert [each.image_id for each in loaded] == [own.manifest.config.digest]
    record = shelf.refs.list()[0]
    assert record.descriptor.is_index
    assert record.manifest == own.descriptor
    documents = {path.name for path in (layout.folder / "blobs/sha256").iterdir()}
    assert {digest.hex for digest in shelf.blobs.walk()} == documents
    assert {name: whole(shelf, image) for name, image in images.items()} == {
        name: image is own for name, image in images.items()
    }


def test_platform_chooses_one_image_and_keeps_the_index(
    shelf: Shelf, platforms: tuple[Layout, dict[str, RandomImage]]
) -> None:
    layout, images = platforms
    wanted = Platform(os="linux", architecture="riscv64")
    loaded = shelf.load(tar_of(layout_members(layout)), streamed=False, platform=wanted)
    assert [each.image_id for each in loaded] == [images["riscv64"].manifest.config.digest]
    assert whole(shelf, images["riscv64"])
    assert shelf.refs.list()[0].descriptor.is_index
    assert shelf.blobs.stat(images["s390x"].manifest.config.digest) is None


def test_a_platform_that_is_not_there_is_named(shelf: Shelf, platforms: tuple[Layout, dict[str, RandomImage]]) -> None:
    with pytest.raises(NotFound) as caught:
        shelf.load(tar_of(layout_members(platforms[0])), streamed=False, platform=Platform.parse("linux/mips"))
    assert caught.value.code == "platform-not-in-index"
    assert caught.value.message == "many:1 is not here for linux/mips"
    assert "linux/riscv64, linux/s390x" in caught.value.context
    assert shelf.names() == []


def test_of_an_index_that_is_not_all_there_what_is_there_comes(
    shelf: Shelf, platforms: tuple[Layout, dict[str, RandomImage]], streamed: bool
) -> None:
    """As after a pull of one platform. A layer that is missing makes its platform one that is missing."""
    layout, images = platforms
    members = layout_members(layout)
    del members[f"blobs/sha256/{images['s390x'].descriptor.digest.hex}"]
    own = images[Platform.host().architecture]
    del members[f"blobs/sha256/{own.manifest.layers[0].digest.hex}"]
    events: list[Event] = []
    loaded = shelf.load(tar_of(members), streamed=streamed, progress=events.append)
    assert [each.image_id for each in loaded] == [images["riscv64"].manifest.config.digest]
    warned = [event.text for event in events if isinstance(event, Warned)]
    assert warned == [f"many:1 is for linux/riscv64; this machine is {Platform.host()}"]


def test_what_is_no_image_in_a_layout_is_refused(shelf: Shelf, tmp_path: Path) -> None:
    layout = Layout(tmp_path / "layout")
    config = layout.put(b"{}", "application/vnd.cncf.helm.config.v1+json")
    manifest = encode_manifest(config, ())
    layout.put(manifest.raw, media.OCI_MANIFEST)
    publish(layout, manifest.descriptor)
    with pytest.raises(Exception, match="is not a container image") as caught:
        shelf.load(tar_of(layout_members(layout)), streamed=False)
    assert (type(caught.value).__name__, caught.value.code) == ("Unsupported", "not-an-image")  # type: ignore[attr-defined]


# ---- Docker's archives


@pytest.mark.parametrize("compressed", [False, True])
def test_dockers_old_archive_keeps_the_id_and_gives_one_manifest_everywhere(
    shelf: Shelf, tmp_path: Path, image: RandomImage, streamed: bool, compressed: bool
) -> None:
    """The manifest follows from what the archive holds; so it is written out here."""
    members = docker_members(image, "box:1", "localhost:5000/lab/box:2", compressed=compressed)
    loaded = shelf.load(tar_of(members), streamed=streamed)
    assert named(loaded) == ["box:1", "localhost:5000/lab/box:2"]
    assert {each.image_id for each in loaded} == {image.manifest.config.digest}
    blobs = [
        image.layout.read(layer.digest) if compressed else tar
        for layer, tar in zip(image.manifest.layers, image.tars, strict=True)
    ]
    kind = media.OCI_LAYER_GZIP if compressed else media.OCI_LAYER
    layers = tuple(media.Descriptor.of(blob, kind) for blob in blobs)
    expected = encode_manifest(replace(image.manifest.config, media_type=media.OCI_CONFIG), layers)
    assert {record.descriptor for record in shelf.refs.list()} == {expected.descriptor}
    assert all(shelf.snapshotter.has(diff_id) for diff_id in image.diff_ids)


def test_documents_may_come_first_or_last_in_a_stream(shelf: Shelf, image: RandomImage) -> None:
    members = docker_members(image, "box:1")
    backwards = dict(reversed(members.items()))
    shelf.load(tar_of(members), streamed=True)
    shelf.load(tar_of(backwards), streamed=True)
    assert shelf.names() == ["box:1"]


def test_links_stand_for_equal_layers(shelf: Shelf, tmp_path: Path, streamed: bool) -> None:
    """As Docker wrote a layer that two images, or one twice, have."""
    image = random_image(tmp_path / "image", layers=1)
    config = json.loads(image.layout.read(image.manifest.config.digest))
    config["rootfs"]["diff_ids"] *= 2
    members = {
        "a/layer.tar": image.tars[0],
        "config.json": json.dumps(config).encode(),
        "manifest.json": docker_document("config.json", ["a/layer.tar", "b/layer.tar"], ("twice:1",)),
    }
    loaded = shelf.load(with_links(members, {"b/layer.tar": "../a/layer.tar"}), streamed=streamed)
    assert named(loaded) == ["twice:1"]
    made = Image(shelf.refs.list()[0].manifest, shelf.blobs).manifest
    assert [layer.digest for layer in made.layers] == [*image.diff_ids] * 2


def test_an_archive_of_both_kinds_is_read_as_a_layout_with_dockers_names(
    shelf: Shelf, image: RandomImage, streamed: bool
) -> None:
    """As Docker 25 and BuildKit write it: its names count, its manifest stands."""
    publish(image.layout, described(image, full="docker.io/library/box:1"))
    members = layout_members(image.layout)
    config = f"blobs/sha256/{image.manifest.config.digest.hex}"
    layers = [f"blobs/sha256/{layer.digest.hex}" for layer in image.manifest.layers]
    members["manifest.json"] = docker_document(config, layers, ("box:1", "box:2"))
    assert named(shelf.load(tar_of(members), streamed=streamed)) == ["box:1", "box:2"]
    assert {record.descriptor for record in shelf.refs.list()} == {image.descriptor}


def test_configs_and_layers_may_have_any_names(shelf: Shelf, image: RandomImage, streamed: bool) -> None:
    """ggcr (ko, crane) names the config by its digest, bazel by path; leading «./» and folders do not matter."""
    members = {f"./x/{layer.digest.hex}.tar.gz": image.layout.read(layer.digest) for layer in image.manifest.layers}
    members[str(image.manifest.config.digest)] = image.layout.read(image.manifest.config.digest)
    names = [name.removeprefix("./") for name in members if name.endswith(".gz")]
    members["manifest.json"] = docker_document(
        str(image.manifest.config.digest), ["./" + name for name in names], ("ko:1",)
    )
    assert named(shelf.load(tar_of(members), streamed=streamed)) == ["ko:1"]
    assert whole(shelf, image)


def test_an_image_without_layers_comes(shelf: Shelf, streamed: bool) -> None:
    config = json.dumps(
        {"architecture": "amd64", "os": "linux", "rootfs": {"type": "layers", "diff_ids": None}}
    ).encode()
    members = {"c.json": config, "manifest.json": b'[{"Config":"c.json","RepoTags":["empty:1"],"Layers":null}]'}
    assert named(shelf.load(tar_of(members), streamed=streamed)) == ["empty:1"]


# ---- the outside


@pytest.mark.parametrize(
    "squeeze",
    [gzip.compress, bz2.compress, lzma.compress, lambda data: compress(data, "zstd")],
    ids=["gzip", "bzip2", "xz", "zstd"],
)
@pytest.mark.parametrize("streamed", [False, True])
def test_the_archive_itself_may_be_compressed(
    shelf: Shelf, image: RandomImage, squeeze: object, streamed: bool
) -> None:
    archive = squeeze(tar_of(docker_members(image, "box:1")))  # type: ignore[operator]
    assert named(shelf.load(archive, streamed=streamed)) == ["box:1"]


def test_folders_are_read_as_archives_are(shelf: Shelf, image: RandomImage) -> None:
    files = Folder(image.folder)
    try:
        assert named(shelf.take(files)) == ["latest:latest"]
    finally:
        files.close()
    assert whole(shelf, image)


def test_no_link_of_a_folder_is_followed(shelf: Shelf, image: RandomImage, tmp_path: Path) -> None:
    """A layout that somebody else made could name any file of ours as a blob."""
    path = image.layout.path(image.manifest.layers[0].digest)
    path.rename(tmp_path / "elsewhere")
    path.symlink_to(tmp_path / "elsewhere")
    files = Folder(image.folder)
    try:
        with pytest.raises(Exception, match="is not read") as caught:
            shelf.take(files)
    finally:
        files.close()
    assert caught.value.context == "it is a link, or lies behind one"  # type: ignore[attr-defined]
    assert shelf.names() == []


def test_what_is_here_is_not_copied_again(shelf: Shelf, image: RandomImage, streamed: bool) -> None:
    archive = tar_of(layout_members(image.layout))
    shelf.load(archive, streamed=streamed)
    before = {path: path.stat().st_ino for path in (shelf.root / "blobs/sha256").iterdir()}
    events: list[Event] = []
    shelf.load(archive, streamed=streamed, progress=events.append)
    assert {path: path.stat().st_ino for path in (shelf.root / "blobs/sha256").iterdir()} == before
    assert {event.status for event in events if isinstance(event, Finished)} == {"Already exists"}


def test_layers_come_back_after_their_snapshots_were_removed(shelf: Shelf, image: RandomImage) -> None:
    archive = tar_of(layout_members(image.layout))
    shelf.load(archive, streamed=True)
    for diff_id in image.diff_ids:
        shelf.snapshotter.remove(diff_id)
    shelf.load(archive, streamed=True)
    assert whole(shelf, image)


# ---- the verb


def test_the_verb_reads_files_pipes_redirects_and_folders(tmp_path: Path, image: RandomImage) -> None:
    archive = tmp_path / "a.tar"
    archive.write_bytes(tar_of(docker_members(image, "box:1")))
    here = Program(tmp_path / "store")
    assert here("load", "-i", str(archive)) == "Loaded image: box:1"
    assert here("load", "-i", str(image.folder), "-q") == "Loaded image: latest:latest"
    piped = argosy(here.root, "load", stdin=archive.read_bytes())
    assert (piped.returncode, piped.stdout) == (0, b"Loaded image: box:1\n")
    (tmp_path / "a.tar").write_bytes(tar_of(docker_members(image)))
    assert here("load", "--input", str(archive)) == f"Loaded image ID: {image.manifest.config.digest}"
    assert here("check", "-q") == ""


def test_nothing_is_said_on_stdout_but_what_was_loaded(tmp_path: Path, image: RandomImage) -> None:
    done = argosy(tmp_path / "store", "load", "-q", stdin=tar_of(docker_members(image, "box:1")))
    assert (done.stdout, done.stderr) == (b"Loaded image: box:1\n", b"")


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "not-an-image-archive"),
        (b"x" * 2000, "archive-damaged"),
        (tar_of({"etc/passwd": b"root"}), "not-an-image-archive"),
        (tar_of({"repositories": b"{}"}), "not-an-image-archive"),
        (tar_of({"manifest.json": b"[]"}), "not-an-image-archive"),
        (tar_of({"manifest.json": b"<html>"}), "manifest-invalid"),
        (tar_of({"index.json": b'{"schemaVersion":2,"manifests":[]}'}), "not-an-image-archive"),
        (tar_of({"index.json": b'{"schemaVersion":2,"manifests":[]}', "oci-layout": b"{}"}), "layout-invalid"),
        (
            tar_of(
                {"index.json": b'{"schemaVersion":2,"manifests":[]}', "oci-layout": b'{"imageLayoutVersion":"2.0"}'}
            ),
            "layout-version",
        ),
    ],
    ids=[
        "empty",
        "noise",
        "a root",
        "Docker before 1.10",
        "no images",
        "a page",
        "no entries",
        "no version",
        "version 2",
    ],
)
def test_what_is_no_archive_of_images_is_said(tmp_path: Path, content: bytes, code: str) -> None:
    for words, stdin in ((("load",), content), (("load", "-i", str(tmp_path / "a")), b"")):
        (tmp_path / "a").write_bytes(content)
        done = argosy(tmp_path / "store", *words, stdin=stdin)
        assert done.returncode == 1
        assert f"[{code}]" in done.stderr.decode()
        if code in ("archive-damaged", "not-an-image-archive"):
            assert f"\n  {words[-1] if len(words) > 1 else 'the standard input'}: " in done.stderr.decode()


def test_a_file_that_is_not_there_is_said(tmp_path: Path) -> None:
    assert "[no-such-file]" in Program(tmp_path / "store").refusal("load", "-i", str(tmp_path / "nothing.tar"))
