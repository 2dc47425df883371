"""`run --gpus` in real containers, with drivers of made-up hosts and images of several distributions."""

from __future__ import annotations

import os
import re
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.oci import descriptor as media
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform

from ..support import driver_roots
from ..support.busybox import APPLETS, tar_of
from ..support.driver_roots import GPUS, TRIPLET, VERSION
from ..support.elf import shared_object
from ..support.images import Layout, RandomImage, compress, config_json
from ..support.stores import argosy, load_image

if TYPE_CHECKING:
    from collections.abc import Mapping

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")

#: {image: (files beside busybox, folder where its loader looks)}
IMAGES: Mapping[str, tuple[Mapping[str, bytes | str | int], str]] = {
    "debian": (
        {
            "etc/debian_version": b"12.9\n",
            "lib": "usr/lib",
            f"usr/lib/{TRIPLET}/": 0o755,
            f"usr/lib/{TRIPLET}/libown.so.1": shared_object("libown.so.1"),
            "etc/ld.so.conf": f"/usr/local/lib\n/usr/lib/{TRIPLET}\n".encode(),
        },
        f"/usr/lib/{TRIPLET}",
    ),
    "redhat": (
        {
            "lib64": "usr/lib64",
            "usr/lib64/": 0o755,
            "usr/lib64/libown.so.1": shared_object("libown.so.1"),
            "etc/ld.so.conf": b"/usr/lib64\n",
        },
        "/usr/lib64",
    ),
    "arch": (
        {
            "usr/lib64": "lib",
            "usr/lib/": 0o755,
            "usr/lib/libown.so.1": shared_object("libown.so.1"),
            "etc/ld.so.conf": b"/usr/lib\n",
        },
        "/usr/lib64",
    ),
}
BASE = {"bin/": 0o755, "sbin/": 0o755, "etc/": 0o755, "tmp/": 0o1777, "usr/": 0o755, "usr/bin/": 0o755}


def image(folder: Path, files: Mapping[str, bytes | str | int], *, env: tuple[str, ...] = ()) -> RandomImage:
    """busybox, the real (static) ldconfig, and *files*, in one layer."""
    busybox = shutil.which("busybox")
    assert busybox is not None, "scripts/setup test installs busybox-static"
    ldconfig = next(path for path in ("/sbin/ldconfig.real", "/sbin/ldconfig") if os.path.exists(path))
    programs = {"bin/busybox": Path(busybox).read_bytes(), "sbin/ldconfig": Path(ldconfig).read_bytes()}
    tars = (tar_of({**BASE, **programs, **{f"bin/{applet}": "busybox" for applet in APPLETS}, **files}),)
    layout = Layout(folder)
    blobs = tuple(layout.put(compress(tar, "gzip"), media.OCI_LAYER_GZIP) for tar in tars)
    config = config_json(tars, Platform.host(), Cmd=["sh"], Env=["PATH=/usr/bin:/bin:/sbin", *env])
    manifest = encode_manifest(layout.put(config, media.OCI_CONFIG), blobs)
    layout.put(manifest.raw, media.OCI_MANIFEST)
    return RandomImage(layout, manifest, tars)


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("gpu")
    for name, (files, _) in IMAGES.items():
        load_image(folder / "store", image(folder / name, files), f"{name}:1")
    wishing = ("NVIDIA_VISIBLE_DEVICES=all", "NVIDIA_DRIVER_CAPABILITIES=utility")
    load_image(folder / "store", image(folder / "wishing", {}, env=wishing), "wishing:1")
    return folder / "store"


@pytest.fixture(scope="module", params=driver_roots.LAYOUTS)
def driver(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_roots.build(tmp_path_factory.mktemp("driver"), layout=request.param)


@pytest.fixture(scope="module")
def debian(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return driver_roots.build(tmp_path_factory.mktemp("driver"))


def output(root: Path, driver: Path, *words: str) -> str:
    done = argosy(root, "--driver-root", str(driver), "run", *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def listed(text: str) -> dict[str, str]:
    """{name: path} of `ldconfig -p`."""
    return dict(re.findall(r"^\t(\S+) \(.*\) => (.*)$", text, re.MULTILINE))


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_finds_the_driver_of_every_host(root: Path, driver: Path, name: str) -> None:
    folder = IMAGES[name][1]
    script = "nvidia-smi -L; ls /dev/nvidia*; ldconfig -p; ls -lL $(dirname $0)"
    text = output(root, driver, "--rm", "--gpus", "all", f"{name}:1", "sh", "-c", script, f"{folder}/libcuda.so.1")
    for number, gpu in enumerate(GPUS):
        assert f"GPU {number}: {gpu.name} (UUID: {gpu.uuid})" in text
    nodes = [line for line in text.splitlines() if line.startswith("/dev/")]
    assert nodes == ["/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia0", "/dev/nvidia1", "/dev/nvidiactl"]
    libraries = listed(text)
    assert libraries["libcuda.so.1"] == f"{folder}/libcuda.so.1"
    assert libraries["libnvidia-ml.so.1"] == f"{folder}/libnvidia-ml.so.1"
    assert re.search(rf"-rw-r--r--.* [1-9][0-9]+ .* libcuda\.so\.{re.escape(VERSION)}$", text, re.MULTILINE)


@pytest.mark.parametrize("name", IMAGES)
def test_the_images_own_ldconfig_works_and_keeps_both(root: Path, debian: Path, name: str) -> None:
    """Twice: what it writes itself must be as good as what we wrote, and nothing may be busy."""
    script = "ldconfig && ldconfig -p && touch /sbin/new && mv /etc/ld.so.cache /etc/old"
    libraries = listed(output(root, debian, "--rm", "--gpus", "all", f"{name}:1", "sh", "-c", script))
    assert {"libown.so.1", "libcuda.so.1", "libnvidia-ml.so.1"} <= libraries.keys()


def test_driver_files_are_read_only_and_sockets_are_not(root: Path, debian: Path) -> None:
    text = output(root, debian, "--rm", "--gpus", "all", "debian:1", "cat", "/proc/self/mountinfo")
    options = {fields[4]: set(fields[5].split(",")) for line in text.splitlines() if (fields := line.split())}
    assert {"ro", "nosuid", "nodev"} <= options[f"/usr/lib/{TRIPLET}/libcuda.so.{VERSION}"]
    assert {"ro", "nosuid", "nodev"} <= options["/usr/bin/nvidia-smi"]
    assert {"rw", "nosuid", "nodev", "noexec"} <= options["/run/nvidia-persistenced/socket"]


def test_only_the_chosen_gpu_is_inside(root: Path, debian: Path) -> None:
    script = "ls /dev/nvidia[0-9]*; nvidia-smi -L; echo $NVIDIA_VISIBLE_DEVICES"
    text = output(root, debian, "--rm", "--gpus", f"device={GPUS[1].uuid}", "debian:1", "sh", "-c", script)
    assert text == f"/dev/nvidia1\nGPU 0: {GPUS[1].name} (UUID: {GPUS[1].uuid})\nvoid\n"


def test_nothing_of_the_driver_is_in_the_writable_layer(root: Path, debian: Path) -> None:
    output(root, debian, "--name", "kept", "--gpus", "all", "debian:1", "sh", "-c", "nvidia-smi; echo mine > /tmp/x")
    (container,) = (root / "containers").iterdir()
    upper = container / "upper"
    found = {os.path.relpath(path, upper) for path in upper.rglob("*")}
    assert argosy(root, "rm", "kept").returncode == 0
    assert found == {"tmp", "tmp/x"}


def test_an_image_that_wishes_for_gpus_gets_none_by_itself(root: Path, debian: Path) -> None:
    assert output(root, debian, "--rm", "wishing:1", "sh", "-c", "ls /dev | grep -c nvidia || true") == "0\n"


def test_the_images_capabilities_choose_the_drivers_parts(root: Path, debian: Path) -> None:
    utility = output(root, debian, "--rm", "--gpus", "all", "wishing:1", "ldconfig", "-p")
    assert "libnvidia-ml.so.1" in utility
    assert "libcuda.so.1" not in utility
    words = ("-e", "NVIDIA_DRIVER_CAPABILITIES=compute")
    assert "libcuda.so.1" in output(root, debian, "--rm", "--gpus", "all", *words, "wishing:1", "ldconfig", "-p")


@pytest.mark.parametrize(
    ("options", "gpus", "said"),
    [
        pytest.param({"module": False, "libraries": False}, "all", b"no NVIDIA GPU visible [no-nvidia-gpu]", id="none"),
        pytest.param({"libraries": False}, "all", b"no NVIDIA driver libraries [no-nvidia-driver]", id="no libraries"),
        pytest.param({"module_version": "550.54.15"}, "all", b"[driver-version-mismatch]", id="mismatch"),
        pytest.param({}, "device=7", b"no GPU '7' [gpu-unknown]", id="unknown GPU"),
        pytest.param({}, "3", b"3 GPUs asked for, 2 here [not-enough-gpus]", id="too many"),
        pytest.param({}, "device=0,1", b"not a GPU request: 'device=0,1' [gpu-request-invalid]", id="unquoted list"),
    ],
)
def test_what_cannot_work_fails_before_the_start(
    root: Path, tmp_path: Path, options: dict[str, object], gpus: str, said: bytes
) -> None:
    driver = driver_roots.build(tmp_path, **options)  # type: ignore[arg-type]
    done = argosy(root, "--driver-root", str(driver), "run", "--rm", "--gpus", gpus, "debian:1", "echo", "started")
    assert (done.returncode, done.stdout) == (125, b"")
    assert said in done.stderr
    assert os.listdir(root / "containers") == []
