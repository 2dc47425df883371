"""Archives that go from one program to another: podman, skopeo, umoci and buildah on one side, argosy on the other."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from typing import TYPE_CHECKING

import pytest

from argosy.linux.files import remove_tree
from argosy.oci.digest import Digest
from support.busybox import busybox_image
from support.image_archives import Shelf, whole
from support.images import RandomImage, random_image
from support.stores import Program, load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., str]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners of layers)")
NAME = "localhost:5000/lab/box:26.11"
DOCKERFILE = """
FROM scratch
COPY busybox /bin/busybox
CMD ["/bin/busybox", "echo", "built"]
"""


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Run]:
    """podman over storage of its own."""
    need("podman")
    run_root = tempfile.mkdtemp(prefix="archives-")  # podman takes 50 characters at most here
    options = ("--root", tmp_path / "podman", "--runroot", run_root, "--storage-driver", "vfs", "--runtime", "runc")
    try:
        yield lambda *words: run("podman", *options, "--cgroup-manager", "cgroupfs", *words)
    finally:
        remove_tree(run_root)
        remove_tree(tmp_path / "podman")


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return busybox_image(tmp_path / "image")


@pytest.fixture
def here(tmp_path: Path, image: RandomImage) -> Program:
    load_image(tmp_path / "store", image, NAME)
    return Program(tmp_path / "store")


@pytest.fixture
def back(tmp_path: Path) -> Program:
    """An empty store, to load into."""
    return Program(tmp_path / "back")


def need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no peer client {program}")


def run(*command: object) -> str:
    words = [str(word) for word in command]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"{' '.join(words)}\n{ended.stderr}"
    return ended.stdout.strip()


# ---- what we save


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
def test_podman_loads_what_we_save_with_its_digest(
    here: Program, image: RandomImage, podman: Run, tmp_path: Path, form: str
) -> None:
    here("save", "--format", form, "-o", str(tmp_path / "saved"), NAME)
    podman("load", "-q", "-i", tmp_path / "saved")
    names, digest, image_id = podman(
        "images", "--no-trunc", "--digests", "--format", "{{.Repository}}:{{.Tag}} {{.Digest}} {{.ID}}"
    ).split()
    assert (digest, image_id) == (image.descriptor.digest, image.manifest.config.digest)
    by_path = f"localhost{tmp_path}/saved:latest"  # podman names a folder by its path
    assert names == {"docker-dir": "<none>:<none>", "oci-dir": by_path}.get(form, NAME)


def test_podman_loads_several_images_and_names(here: Program, image: RandomImage, podman: Run, tmp_path: Path) -> None:
    other = random_image(tmp_path / "other", compression="none")
    load_image(here.root, other, "docker.io/library/other:1")
    here("tag", NAME, "box:1")
    here("save", "-o", str(tmp_path / "saved.tar"), NAME, "box:1", "other:1")
    podman("load", "-q", "-i", tmp_path / "saved.tar")
    found = podman("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    assert sorted(found) == [
        f"docker.io/library/box:1 {image.manifest.config.digest}",
        f"docker.io/library/other:1 {other.manifest.config.digest}",
        f"{NAME} {image.manifest.config.digest}",
    ]


@pytest.mark.parametrize("family", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_skopeo_reads_both_sides_of_what_we_save(tmp_path: Path, family: str, compression: str) -> None:
    """The layout has our digest; of Docker's side skopeo makes a manifest of its own, the id is the same."""
    image = random_image(tmp_path / "image", family=family, compression=compression)
    load_image(tmp_path / "store", image, NAME)
    Program(tmp_path / "store")("save", "-o", str(tmp_path / "a.tar"), NAME)
    names = [f"oci-archive:{tmp_path}/a.tar", f"docker-archive:{tmp_path}/a.tar:{NAME}"]
    if family == "oci":  # skopeo 1.9 does not look at Docker's manifests in a layout when a tag is given
        names.append(f"oci-archive:{tmp_path}/a.tar:26.11")
    for name in names:
        if name.startswith("oci-"):
            assert run("skopeo", "inspect", "--format", "{{.Digest}}", name) == image.descriptor.digest
        config = run("skopeo", "inspect", "--raw", "--config", name)
        assert Digest.of(config.encode()) == image.manifest.config.digest
    run("skopeo", "copy", "--preserve-digests", f"oci-archive:{tmp_path}/a.tar", f"dir:{tmp_path}/copied")
    assert Digest.of((tmp_path / "copied/manifest.json").read_bytes()) == image.descriptor.digest


def test_skopeo_reads_folders(here: Program, image: RandomImage, tmp_path: Path) -> None:
    here("save", "--format", "oci-dir", "-o", str(tmp_path / "layout"), NAME)
    here("save", "--format", "docker-dir", "-o", str(tmp_path / "dir"), NAME)
    for name in (f"oci:{tmp_path}/layout:26.11", f"dir:{tmp_path}/dir"):
        assert run("skopeo", "inspect", "--format", "{{.Digest}}", name) == image.descriptor.digest


def test_umoci_unpacks_what_we_save(here: Program, tmp_path: Path) -> None:
    need("umoci")
    here("save", "--format", "oci-dir", "-o", str(tmp_path / "layout"), NAME)
    assert run("umoci", "list", "--layout", tmp_path / "layout") == "26.11"
    run("umoci", "unpack", "--image", f"{tmp_path}/layout:26.11", tmp_path / "bundle")
    assert (tmp_path / "bundle/rootfs/opt/hello").read_text() == "#!/bin/sh\necho hello from a layer\n"


# ---- what others save


@pytest.mark.parametrize("form", ["docker-archive", "oci-archive", "oci-dir", "docker-dir"])
def test_we_load_what_podman_saves(podman: Run, back: Program, image: RandomImage, tmp_path: Path, form: str) -> None:
    run("skopeo", "copy", f"oci:{image.folder}:latest", f"oci-archive:{tmp_path}/in.tar:{NAME}")
    podman("load", "-q", "-i", tmp_path / "in.tar")
    podman("save", "-q", "--format", form, "-o", tmp_path / "saved", NAME)
    loaded = back("load", "-q", "-i", str(tmp_path / "saved"))
    if form == "docker-dir":  # podman makes another config there, of Docker's type
        assert loaded.startswith("Loaded image ID: sha256:")
    else:
        assert loaded == f"Loaded image: {NAME}"
        assert back("images", "--no-trunc", "-q") == image.manifest.config.digest
    name = back("images", "-q")
    assert back("run", "--rm", name, "/opt/hello") == "hello from a layer"
    assert back("check", "-q") == ""


def test_we_load_several_images_of_podmans(podman: Run, back: Program, image: RandomImage, tmp_path: Path) -> None:
    """One archive, some layers in it for both; podman writes links for the old names of layers."""
    other = random_image(tmp_path / "other")
    for number, each in enumerate((image, other)):
        run("skopeo", "copy", f"oci:{each.folder}:latest", f"oci-archive:{tmp_path}/{number}.tar:{NAME}{number}")
        podman("load", "-q", "-i", f"{tmp_path}/{number}.tar")
    podman("tag", f"{NAME}0", "docker.io/library/box:1")
    names = (f"{NAME}0", "docker.io/library/box:1", f"{NAME}1")
    podman("save", "-q", "-m", "--format", "docker-archive", "-o", tmp_path / "saved.tar", *names)
    assert sorted(back("load", "-q", "-i", str(tmp_path / "saved.tar")).splitlines()) == [
        "Loaded image: box:1",
        f"Loaded image: {NAME}0",
        f"Loaded image: {NAME}1",
    ]
    ids = back("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").splitlines()
    assert f"{NAME}1 {other.manifest.config.digest}" in ids


@pytest.mark.parametrize(
    ("transport", "compression"),
    [("docker-archive", "gzip"), ("docker-archive", "none")]  # Docker's has no zstd for skopeo 1.9
    + [(each, kind) for each in ("oci-archive", "oci", "dir") for kind in ("gzip", "zstd", "none")],
)
def test_we_load_what_skopeo_copies(back: Program, tmp_path: Path, transport: str, compression: str) -> None:
    """Digests stay where skopeo leaves them; `docker-archive:` holds no manifest."""
    image = random_image(tmp_path / "image", compression=compression, layers=3)
    name = "" if transport == "dir" else f":{NAME}"
    keep = () if transport == "docker-archive" else ("--preserve-digests",)
    run("skopeo", "copy", *keep, f"oci:{image.folder}:latest", f"{transport}:{tmp_path}/saved{name}")
    loaded = back("load", "-q", "-i", str(tmp_path / "saved"))
    assert loaded == (f"Loaded image: {NAME}" if name else f"Loaded image ID: {image.manifest.config.digest}")
    shelf = Shelf(back.root)
    assert shelf.refs.list()[0].image_id == image.manifest.config.digest
    if transport != "docker-archive":
        assert shelf.refs.list()[0].descriptor == image.descriptor
        assert whole(shelf, image)
    assert all(shelf.snapshotter.has(diff_id) for diff_id in image.diff_ids)


def test_what_skopeo_makes_of_dockers_types_comes_too(back: Program, image: RandomImage, tmp_path: Path) -> None:
    run("skopeo", "copy", "--format", "v2s2", f"oci:{image.folder}:latest", f"dir:{tmp_path}/saved")
    back("load", "-q", "-i", str(tmp_path / "saved"))
    raw = (tmp_path / "saved/manifest.json").read_bytes()
    assert Shelf(back.root).refs.list()[0].descriptor.digest == Digest.of(raw)
    assert "docker" in json.loads(raw)["mediaType"]


def test_we_load_a_layout_that_umoci_made(back: Program, image: RandomImage, tmp_path: Path) -> None:
    need("umoci")
    run("umoci", "init", "--layout", tmp_path / "layout")
    run("umoci", "new", "--image", f"{tmp_path}/layout:1.0")
    (tmp_path / "layer.tar").write_bytes(image.tars[0])
    run("umoci", "raw", "add-layer", "--image", f"{tmp_path}/layout:1.0", tmp_path / "layer.tar")
    run("umoci", "tag", "--image", f"{tmp_path}/layout:1.0", "again")
    assert sorted(back("load", "-q", "-i", str(tmp_path / "layout")).splitlines()) == [
        "Loaded image: 1.0:latest",
        "Loaded image: again:latest",
    ]
    assert back("run", "--rm", "1.0", "/bin/busybox", "echo", "runs") == "runs"


def test_we_load_what_buildah_pushes(podman: Run, back: Program, tmp_path: Path) -> None:
    """A Dockerfile's image, out through buildah, which shares podman's storage."""
    need("buildah")
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    podman("build", "-q", "-t", "localhost/built:1", context)
    podman("push", "-q", "localhost/built:1", f"oci-archive:{tmp_path}/built.tar:localhost/built:1")
    assert back("load", "-q", "-i", str(tmp_path / "built.tar")) == "Loaded image: localhost/built:1"
    assert back("run", "--rm", "localhost/built:1") == "built"


def test_there_and_back_through_every_program_keeps_the_digest(
    here: Program, image: RandomImage, podman: Run, back: Program, tmp_path: Path
) -> None:
    here("save", "-o", str(tmp_path / "1.tar"), NAME)
    podman("load", "-q", "-i", tmp_path / "1.tar")
    podman("save", "-q", "--format", "oci-archive", "-o", tmp_path / "2.tar", NAME)
    run("skopeo", "copy", "--preserve-digests", f"oci-archive:{tmp_path}/2.tar:{NAME}", f"oci:{tmp_path}/3:{NAME}")
    assert back("load", "-q", "-i", str(tmp_path / "3")) == f"Loaded image: {NAME}"
    loaded = Shelf(back.root).refs.list()[0]
    assert loaded.image_id == image.manifest.config.digest
    found = run("skopeo", "inspect", "--format", "{{.Digest}}", f"oci-archive:{tmp_path}/2.tar")
    assert loaded.descriptor.digest == found


# ---- import, export


def test_podman_imports_what_we_export_and_the_reverse(
    here: Program, podman: Run, back: Program, tmp_path: Path
) -> None:
    here("run", "--name", "work", NAME, "sh", "-c", "echo mine > /made; chown 1000:100 /made")
    here("export", "-o", str(tmp_path / "ours.tar"), "work")
    podman("import", "-q", tmp_path / "ours.tar", "localhost/flat:1")
    podman("create", "--name", "theirs", "localhost/flat:1", "true")
    podman("export", "-o", tmp_path / "theirs.tar", "theirs")
    back("import", "-c", "CMD cat /made; stat -c %u:%g /made", str(tmp_path / "theirs.tar"), "flat:1")
    assert back("run", "--rm", "flat:1") == "mine\n1000:100"
