"""Archives between the docker client, through a daemon of the tests' own, and argosy."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from argosy.oci.platform import Platform
from support.busybox import busybox_image
from support.docker_daemon import Docker, docker_daemon
from support.image_archives import Shelf, docker_members, tar_of
from support.images import random_image
from support.stores import Program, argosy, load_image

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.images import RandomImage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to run a Docker daemon")


@pytest.fixture(scope="module")
def docker() -> Iterator[Docker]:
    with docker_daemon() as client:
        yield client


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image")


def config_of(docker: Docker, name: str, field: str) -> object:
    return json.loads(docker("inspect", "--format", f"{{{{json {field}}}}}", name))


@pytest.mark.parametrize("family", ["oci", "docker"])
@pytest.mark.parametrize("compression", ["gzip", "none"])
def test_docker_loads_what_we_save(
    docker: Docker, here: Program, tmp_path: Path, family: str, compression: str
) -> None:
    image = random_image(tmp_path / "image", family=family, compression=compression, layers=3)
    load_image(here.root, image, f"saved/{family}:{compression}", "localhost:5000/lab/saved:1")
    archive = argosy(here.root, "save", f"saved/{family}:{compression}", "localhost:5000/lab/saved:1").stdout
    assert sorted(docker("load", stdin=archive).splitlines()) == [
        "Loaded image: localhost:5000/lab/saved:1",
        f"Loaded image: saved/{family}:{compression}",
    ]
    assert config_of(docker, f"saved/{family}:{compression}", ".Id") == image.manifest.config.digest
    assert config_of(docker, "localhost:5000/lab/saved:1", ".RootFS.Layers") == list(image.diff_ids)


def test_docker_loads_an_image_without_a_name_by_its_id(docker: Docker, here: Program, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", seed=11)
    load_image(here.root, image, "box:1")
    archive = argosy(here.root, "save", image.manifest.config.digest.short).stdout
    assert docker("load", stdin=archive) == f"Loaded image ID: {image.manifest.config.digest}"


def test_docker_loads_another_platforms_image(docker: Docker, here: Program, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", seed=12, platform=Platform(os="linux", architecture="riscv64"))
    load_image(here.root, image, "riscv:1")
    assert docker("load", stdin=argosy(here.root, "save", "riscv:1").stdout) == "Loaded image: riscv:1"


def test_we_load_what_docker_saves(docker: Docker, here: Program, tmp_path: Path) -> None:
    """Several images and tags in one archive, layers that are shared, from a file and from a pipe."""
    box, other = busybox_image(tmp_path / "box"), random_image(tmp_path / "other", seed=13)
    docker("load", stdin=tar_of(docker_members(box, "box:1")))
    docker("load", stdin=tar_of(docker_members(other, "localhost:5000/lab/other:2")))
    docker("tag", "box:1", "box:2")
    archive = docker.data("save", "box", "localhost:5000/lab/other:2")
    (tmp_path / "saved.tar").write_bytes(archive)
    expected = ["Loaded image: box:1", "Loaded image: box:2", "Loaded image: localhost:5000/lab/other:2"]
    assert sorted(here("load", "-q", "-i", str(tmp_path / "saved.tar")).splitlines()) == expected
    piped = argosy(tmp_path / "piped", "load", "-q", stdin=archive)
    assert sorted(piped.stdout.decode().splitlines()) == expected
    stores = [Shelf(root) for root in (here.root, tmp_path / "piped")]
    digests = [{str(each.reference): each.descriptor for each in store.refs.list()} for store in stores]
    assert digests[0] == digests[1]
    assert here("inspect", "--format", "{{.Id}}", "box:1") == box.manifest.config.digest
    assert here("run", "--rm", "box:2", "/opt/hello") == "hello from a layer"
    assert here("check", "-q") == ""


def test_we_load_what_docker_saves_by_id(docker: Docker, here: Program, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", seed=14)
    docker("load", stdin=tar_of(docker_members(image, "byid:1")))
    done = argosy(here.root, "load", "-q", stdin=docker.data("save", image.manifest.config.digest))
    assert done.stdout.decode() == f"Loaded image ID: {image.manifest.config.digest}\n"
    assert here("images", "--format", "{{.Repository}}:{{.Tag}}") == "<none>:<none>"


def test_there_and_back_keeps_the_id_and_the_manifest(docker: Docker, here: Program, tmp_path: Path) -> None:
    """Docker keeps no manifests, so one is made; it is the same each time."""
    image = random_image(tmp_path / "image", seed=15)
    load_image(here.root, image, "there:1")
    stores = [Shelf(tmp_path / name) for name in ("once", "twice")]
    archive = argosy(here.root, "save", "there:1").stdout
    for store in stores:
        docker("load", stdin=archive)
        store.load(docker.data("save", "there:1"), streamed=True)
        archive = argosy(store.root, "save", "there:1").stdout
    records = [store.refs.list()[0] for store in stores]
    assert records[0].descriptor == records[1].descriptor
    assert {each.image_id for each in records} == {image.manifest.config.digest}


def test_docker_imports_what_we_export_and_the_reverse(docker: Docker, here: Program, tmp_path: Path) -> None:
    load_image(here.root, busybox_image(tmp_path / "image"), "box:1")
    here("run", "--name", "work", "box:1", "sh", "-c", "echo mine > /made; chown 1000:100 /made")
    exported = argosy(here.root, "export", "work").stdout
    docker("import", "-", "flat:1", stdin=exported)
    container = docker("create", "flat:1", "true")
    back = Program(tmp_path / "back")
    words = ("import", "-c", "CMD cat /made; stat -c %u:%g /made", "-", "flat:1")
    done = argosy(back.root, *words, stdin=docker.data("export", container))
    assert done.returncode == 0, done.stderr
    assert back("run", "--rm", "flat:1") == "mine\n1000:100"


CHANGES = (
    'ENTRYPOINT ["/bin/sh", "-c"]',
    'CMD ["echo $A"]',
    'ENV A=1 PATH=/bin:$A "B"="c d"',
    "LABEL a=b c='d e'",
    "EXPOSE 80 443/udp",
    "VOLUME /data",
    "USER 1000:100",
    "WORKDIR /srv",
    "WORKDIR app",
    "ONBUILD RUN true",
    "HEALTHCHECK --interval=30s CMD true",
)


def test_changes_mean_what_they_mean_to_docker(docker: Docker, here: Program, image: RandomImage) -> None:
    words = [word for change in CHANGES for word in ("-c", change)]
    theirs = docker("import", *words, "-", stdin=image.tars[0])
    done = argosy(here.root, "import", *words, "-", stdin=image.tars[0])
    fields = "Entrypoint Cmd Env Labels ExposedPorts Volumes User WorkingDir OnBuild Healthcheck".split()
    ours = json.loads(here("inspect", done.stdout.decode().strip()))[0]["Config"]
    their_config = config_of(docker, theirs, ".Config")
    assert isinstance(their_config, dict)
    assert {name: ours.get(name) for name in fields} == {name: their_config.get(name) for name in fields}
