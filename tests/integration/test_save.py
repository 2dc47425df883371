"""What `save` writes: which images under which names, the same bytes each time, complete or not there at all."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import tarfile
import threading
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.oci.manifest import encode_index
from argosy.oci.platform import Platform
from argosy.ops.save import save, select
from support.image_archives import Shelf, docker_members, layout_members, tar_of, whole
from support.images import Layout, RandomImage, random_image
from support.stores import Program, argosy, command, environment, load_image

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners of layers)")
CONTAINERD, OCI = "io.containerd.image.name", "org.opencontainers.image.ref.name"


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image")


@pytest.fixture
def here(tmp_path: Path, image: RandomImage) -> Program:
    load_image(tmp_path / "store", image, "box:1", "localhost:5000/lab/box:26.11")
    return Program(tmp_path / "store")


def archive_of(here: Program, *words: str) -> bytes:
    done = argosy(here.root, "save", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    return done.stdout


def document(archive: bytes, name: str) -> object:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        file = members.extractfile(name)
        assert file is not None
        return json.load(file)


def members_of(archive: bytes) -> list[str]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        return members.getnames()


def test_the_archive_is_an_oci_layout_and_dockers(here: Program, image: RandomImage) -> None:
    archive = archive_of(here, "box:1")
    config, layers = image.manifest.config, image.manifest.layers
    blobs = [f"blobs/sha256/{each.digest.hex}" for each in (image.descriptor, config, *layers)]
    documents = ["oci-layout", "index.json", "manifest.json", "repositories", "blobs", "blobs/sha256"]
    assert members_of(archive) == [*documents, *blobs]
    entry = {"mediaType": image.descriptor.media_type, "digest": image.descriptor.digest, "size": image.descriptor.size}
    assert document(archive, "index.json") == {
        "schemaVersion": 2,
        "mediaType": "application/vnd.oci.image.index.v1+json",
        "manifests": [{**entry, "annotations": {CONTAINERD: "docker.io/library/box:1", OCI: "1"}}],
    }
    assert document(archive, "manifest.json") == [
        {"Config": blobs[1], "RepoTags": ["docker.io/library/box:1"], "Layers": blobs[2:]}
    ]
    assert document(archive, "repositories") == {"box": {"1": layers[-1].digest.hex}}
    with tarfile.open(fileobj=io.BytesIO(archive)) as members:
        found = [(each.uid, each.gid, each.mtime, each.mode) for each in members if each.isfile()]
        assert set(found) == {(0, 0, 0, 0o644)}


def test_equal_images_give_equal_bytes(here: Program, image: RandomImage, tmp_path: Path) -> None:
    other = tmp_path / "other"
    load_image(other, image, "box:1")
    assert archive_of(here, "box:1") == archive_of(Program(other), "box:1") == archive_of(here, "box:1", "box:1")


def test_ids_give_images_without_names_and_repositories_all_tags(here: Program, image: RandomImage) -> None:
    here("tag", "box:1", "box:2")
    whole_repository = document(archive_of(here, "box"), "manifest.json")
    assert isinstance(whole_repository, list)
    assert whole_repository[0]["RepoTags"] == ["docker.io/library/box:1", "docker.io/library/box:2"]
    nameless = archive_of(here, image.manifest.config.digest.short)
    assert document(nameless, "manifest.json")[0]["RepoTags"] is None  # type: ignore[index]
    assert "annotations" not in document(nameless, "index.json")["manifests"][0]  # type: ignore[index]


def test_several_images_share_their_blobs(here: Program, image: RandomImage, tmp_path: Path) -> None:
    other = random_image(tmp_path / "other", seed=7)
    load_image(here.root, other, "other:1")
    archive = archive_of(here, "other:1", "localhost:5000/lab/box:26.11", "box:1")
    assert [item["RepoTags"] for item in document(archive, "manifest.json")] == [  # type: ignore[attr-defined]
        ["docker.io/library/other:1"],
        ["localhost:5000/lab/box:26.11", "docker.io/library/box:1"],
    ]
    names = members_of(archive)
    assert len(names) == len(set(names))


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
def test_every_form_comes_back_with_its_digests(here: Program, image: RandomImage, tmp_path: Path, form: str) -> None:
    here("save", "--format", form, "-o", str(tmp_path / "saved"), "box:1")
    back = Program(tmp_path / "back")
    said = back("load", "-q", "-i", str(tmp_path / "saved"))
    nameless = f"Loaded image ID: {image.manifest.config.digest}"
    assert said == (nameless if form == "docker-dir" else "Loaded image: box:1")
    shelf = Shelf(tmp_path / "back")
    assert shelf.refs.list()[0].descriptor == image.descriptor
    assert whole(shelf, image)


def test_an_index_goes_out_with_what_is_here_of_it(tmp_path: Path) -> None:
    """As after a pull, which brings one platform; --platform leaves the index out."""
    layout = Layout(tmp_path / "layout")
    images = [
        random_image(layout.folder, seed=seed, platform=Platform(os="linux", architecture=name))
        for seed, name in enumerate(("amd64", "riscv64"))
    ]
    entries = [
        replace(each.descriptor, platform=Platform(os="linux", architecture=name))
        for each, name in zip(images, ("amd64", "riscv64"), strict=True)
    ]
    index = encode_index(tuple(entries))
    layout.put(index.raw, index.descriptor.media_type)
    (layout.folder / "index.json").write_bytes(
        encode_index((replace(index.descriptor, annotations={OCI: "localhost/many:1"}),)).raw
    )
    shelf = Shelf(tmp_path / "store")
    members = layout_members(layout)
    del members[f"blobs/sha256/{images[1].manifest.config.digest.hex}"]
    shelf.load(tar_of(members), streamed=True)
    here = Program(shelf.root)
    archive = archive_of(here, "localhost/many:1")
    assert document(archive, "index.json")["manifests"][0]["digest"] == index.descriptor.digest  # type: ignore[index]
    assert sum(name.startswith("blobs/sha256/") for name in members_of(archive)) == 2 + 1 + 2
    alone = archive_of(here, "--platform", "linux/amd64", "localhost/many:1")
    assert document(alone, "index.json")["manifests"][0]["digest"] == images[0].descriptor.digest  # type: ignore[index]
    assert "[platform-not-in-index]" in here.refusal("save", "--platform", "linux/riscv64", "localhost/many:1")


def test_a_name_with_a_digest_comes_back(tmp_path: Path, image: RandomImage) -> None:
    name = f"localhost:5000/box@{image.descriptor.digest}"
    load_image(tmp_path / "store", image, name)
    archive = archive_of(Program(tmp_path / "store"), name)
    assert document(archive, "manifest.json")[0]["RepoTags"] is None  # type: ignore[index]
    assert argosy(tmp_path / "back", "load", "-q", stdin=archive).stdout.decode() == f"Loaded image: {name}\n"


# ---- where it goes


def test_a_file_takes_its_place_when_it_is_complete(here: Program, image: RandomImage, tmp_path: Path) -> None:
    target = tmp_path / "saved.tar"
    target.write_bytes(b"old")
    here("save", "-o", str(target), "box:1")
    assert target.read_bytes() == archive_of(here, "box:1")
    assert stat.S_IMODE(target.stat().st_mode) == 0o600  # as Docker's
    os.chmod(here.root / "blobs/sha256" / image.manifest.layers[0].digest.hex, 0o644)
    (here.root / "blobs/sha256" / image.manifest.layers[0].digest.hex).write_bytes(b"x" * image.manifest.layers[0].size)
    before = target.read_bytes()
    assert "[digest-mismatch]" in here.refusal("save", "-o", str(target), "box:1")
    assert target.read_bytes() == before
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image", "saved.tar", "store"]


@pytest.mark.parametrize("form", ["oci-dir", "docker-dir"])
def test_a_folder_that_holds_something_is_left_alone(here: Program, tmp_path: Path, form: str) -> None:
    target = tmp_path / "saved"
    target.mkdir()
    here("save", "--format", form, "-o", str(target), "box:1")
    before = sorted(target.rglob("*"))
    assert "[folder-not-empty]" in here.refusal("save", "--format", form, "-o", str(target), "box:1")
    assert sorted(target.rglob("*")) == before


def test_a_pipe_and_a_device_are_written_to_as_they_are(here: Program, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    read: list[bytes] = []
    reader = threading.Thread(target=lambda: read.append((tmp_path / "pipe").read_bytes()))
    reader.start()
    here("save", "-o", str(tmp_path / "pipe"), "box:1")
    reader.join()
    assert read == [archive_of(here, "box:1")]
    here("save", "-o", "/dev/null", "box:1")
    assert stat.S_ISCHR(os.stat("/dev/null").st_mode)


def test_a_link_is_followed(here: Program, tmp_path: Path) -> None:
    (tmp_path / "link.tar").symlink_to(tmp_path / "real.tar")
    here("save", "-o", str(tmp_path / "link.tar"), "box:1")
    assert (tmp_path / "link.tar").is_symlink()
    assert (tmp_path / "real.tar").read_bytes() == archive_of(here, "box:1")


def test_no_archive_goes_to_a_terminal(here: Program) -> None:
    controller, terminal = os.openpty()
    try:
        done = subprocess.run(
            command("save", "box:1"),
            env=environment(here.root),
            stdout=terminal,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    finally:
        os.close(controller)
        os.close(terminal)
    assert done.returncode == 1
    assert b"refusing to write an archive to a terminal [is-a-terminal]" in done.stderr


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("nothing:1",), "tag-unknown"),
        (("--format", "zip", "box:1"), "format-unknown"),
        (("--format", "oci-dir", "box:1"), "usage"),
        (("--platform", "linux/mips", "box:1"), "platform-not-in-index"),
        (("-o", "/nowhere/a.tar", "box:1"), "no-such-file"),
        (("-o", "/tmp", "box:1"), "is-a-folder"),
        (("--format", "oci-dir", "-o", "/nowhere/a", "box:1"), "no-such-file"),
    ],
)
def test_what_cannot_be_saved_is_said(here: Program, words: tuple[str, ...], code: str) -> None:
    message = here.refusal("save", *words)
    assert f"[{code}]" in message
    assert "hint: " in message


def test_an_image_that_has_lost_a_blob_is_not_saved(here: Program, image: RandomImage, tmp_path: Path) -> None:
    os.unlink(here.root / "blobs/sha256" / image.manifest.layers[0].digest.hex)
    message = here.refusal("save", "-o", str(tmp_path / "a.tar"), "box:1")
    assert "error: box:1 is not complete [blob-unknown]" in message
    assert image.manifest.layers[0].digest in message
    assert not (tmp_path / "a.tar").exists()


def test_dockers_archive_survives_the_way_through(tmp_path: Path, image: RandomImage) -> None:
    """Layers that came uncompressed go out so, and the id stays."""
    shelf = Shelf(tmp_path / "store")
    shelf.load(tar_of(docker_members(image, "box:1")), streamed=True)
    out = io.BytesIO()
    images = select(["box:1"], refs=shelf.refs, blobs=shelf.blobs)
    save(images, "docker-archive", blobs=shelf.blobs, place=out)
    back = Shelf(tmp_path / "back")
    loaded = back.load(out.getvalue(), streamed=False)
    assert loaded[0].image_id == image.manifest.config.digest
    assert back.refs.list()[0].descriptor == shelf.refs.list()[0].descriptor
