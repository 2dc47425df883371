"""With a real GPU and its driver: what we find, what NVML says, and whether what we inject computes."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from argosy.errors import NotFound
from argosy.gpu import nvml
from argosy.gpu.driver import Driver
from argosy.gpu.inventory import module_version, visible_gpus
from argosy.gpu.layout import ImageLayout
from argosy.gpu.roots import DriverRoots
from argosy.gpu.select import ALL, GpuRequest
from argosy.linux.processes import find_program
from argosy.oci import descriptor as media
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.ops.gpu_edits import edits_for

from ..support.busybox import tar_of
from ..support.images import Layout, RandomImage, compress, config_json
from ..support.stores import argosy, load_image

HOST = DriverRoots.host()


def _missing() -> str:
    """Why nothing here can run, in the words of ALLOWED_SKIPS; "" when it can."""
    if not visible_gpus(HOST):
        return "no NVIDIA GPU: no /dev/nvidia0"
    try:
        Driver.find(HOST)
    except NotFound as error:
        return f"no NVIDIA GPU: {error.message}"
    return ""


pytestmark = pytest.mark.skipif(bool(_missing()), reason=_missing() or "runs")


def smi() -> str:
    """The host's own nvidia-smi, which a hosted driver keeps away from the usual places."""
    driver = Driver.find(HOST)
    mounts = driver.edits((), ("utility",)).mounts
    return next(mount.host_path for mount in mounts if mount.host_path.endswith("/nvidia-smi"))


def said(*words: str) -> str:
    return subprocess.run((smi(), *words), check=True, capture_output=True, text=True, timeout=120).stdout


def asked() -> nvml.NvmlFacts:
    libraries = Driver.find(HOST).libraries(frozenset({"utility"}))
    return nvml.ask(next(library.host_path for library in libraries if library.base == "libnvidia-ml"))


def test_libraries_module_and_nvml_agree_on_the_version() -> None:
    driver = Driver.find(HOST)
    driver.check_versions()
    assert asked().driver_version == driver.version
    assert module_version(HOST) in (None, driver.version)


def test_nvml_in_a_child_and_nvidia_smi_tell_the_same() -> None:
    rows = said("--query-gpu=uuid,name,memory.total,compute_cap", "--format=csv,noheader,nounits").strip().splitlines()
    theirs = [tuple(field.strip() for field in row.split(",")) for row in rows]
    ours = [(gpu.uuid, gpu.name, str((gpu.memory_bytes or 0) // 2**20), gpu.compute_capability) for gpu in asked().gpus]
    assert ours == theirs


def test_procfs_and_devices_give_the_gpus_that_nvml_gives() -> None:
    """Without any library: the same number, minors, and (where procfs has them) names and UUIDs."""
    gpus, known = visible_gpus(HOST), asked().gpus
    assert [gpu.minor for gpu in gpus] == [gpu.minor for gpu in known]
    for gpu, same in zip(gpus, known, strict=True):
        assert gpu.uuid in ("", same.uuid)
        assert gpu.bus_id in ("", same.bus_id)


def test_a_request_by_uuid_is_granted() -> None:
    gpus = nvml.with_facts(visible_gpus(HOST), asked())
    assert GpuRequest.parse(f"device={gpus[0].uuid}").select(gpus) == (gpus[0],)


def test_device_nodes_are_real_and_have_the_drivers_major() -> None:
    edits = edits_for((GpuRequest(count=ALL),), roots=HOST, environment={})
    nodes = {node.path: node for node in edits.device_nodes}
    assert {"/dev/nvidiactl", "/dev/nvidia-uvm"} <= nodes.keys()
    assert (nodes["/dev/nvidiactl"].major, nodes["/dev/nvidiactl"].minor) == (195, 255)
    for node in nodes.values():
        device = os.stat(node.host_path).st_rdev
        assert (os.major(device), os.minor(device)) == (node.major, node.minor)


def test_what_is_injected_is_enough_to_compute(tmp_path: Path) -> None:
    """The mounts and links of the edits as a folder of links, and nothing else of the driver."""
    edits = edits_for(
        (GpuRequest(count=ALL),), roots=HOST, environment={}, layout=ImageLayout(machine=os.uname().machine)
    )
    (folder,) = edits.library_folders
    for mount in edits.mounts:
        if mount.container_path.startswith(f"{folder}/"):
            (tmp_path / os.path.basename(mount.container_path)).symlink_to(mount.host_path)
    for link in edits.links:
        place = tmp_path / os.path.relpath(link.path, folder)
        place.parent.mkdir(exist_ok=True)
        place.symlink_to(link.target)
    program = Path(__file__).with_name("vector_add.py")
    environment = {"LD_LIBRARY_PATH": str(tmp_path), "PATH": os.environ["PATH"], "CUDA_CACHE_DISABLE": "1"}
    done = subprocess.run((sys.executable, "-I", program), env=environment, capture_output=True, text=True, timeout=300)
    assert (done.stdout, done.stderr) == (f"GPUs {len(visible_gpus(HOST))}\nOK\n", "")


def test_doctor_finds_the_chain_whole(tmp_path: Path) -> None:
    done = argosy(tmp_path, "doctor", "--format", "json")
    answer = json.loads(done.stdout)
    assert [(check["Name"], check["Status"]) for check in answer["Gpu"]] == [
        ("kernel module", "ok"),
        ("device nodes", "ok"),
        ("driver libraries", "ok"),
        ("NVML", "ok"),
        ("GPUs", "ok"),
    ]
    assert done.returncode == 0


def _libraries_of(program: str) -> set[str]:
    """Paths of what a program of the host is linked with, its loader included."""
    done = subprocess.run(("ldd", program), capture_output=True, text=True, check=True)
    return set(re.findall(r"(/\S+) \(0x", done.stdout))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
@pytest.mark.skipif(
    not any(find_program(name, path=os.environ.get("PATH", "")) for name in ("crun", "runc")),
    reason="no NVIDIA GPU beside crun or runc",
)
def test_nvidia_smi_in_a_container_lists_what_it_lists_outside(tmp_path: Path) -> None:
    """The image has a C library, a shell and ldconfig of the host, and nothing of the driver."""
    programs = {name: shutil.which(name) or f"/sbin/{name}" for name in ("dash", "cat", "ldconfig")}
    libraries = _libraries_of(smi()) | _libraries_of(programs["dash"]) | _libraries_of(programs["cat"])
    names = [path for path in libraries if "nvidia" not in path]
    names += [path for path in _libraries_of(sys.executable) if re.search(r"/lib(dl|m|pthread|rt)\.so", path)]
    files: dict[str, bytes | str | int] = {"etc/": 0o755, "etc/ld.so.conf": b"include /etc/ld.so.conf.d/*.conf\n"}
    folders = {os.path.dirname(path).lstrip("/") for path in names}
    files |= {f"{folder}/": 0o755 for folder in sorted(folders)}
    files |= {path.lstrip("/"): Path(path).read_bytes() for path in names}
    files |= {"bin/": 0o755, "sbin/": 0o755, "bin/sh": Path(programs["dash"]).read_bytes()}
    files |= {"bin/cat": Path(programs["cat"]).read_bytes(), "sbin/ldconfig": Path(programs["ldconfig"]).read_bytes()}
    layout, tar = Layout(tmp_path / "image"), tar_of(files)
    blob = layout.put(compress(tar, "gzip"), media.OCI_LAYER_GZIP)
    config = config_json((tar,), Platform.host(), Cmd=["sh"], Env=["PATH=/usr/bin:/bin:/sbin"])
    manifest = encode_manifest(layout.put(config, media.OCI_CONFIG), (blob,))
    layout.put(manifest.raw, media.OCI_MANIFEST)
    load_image(tmp_path / "store", RandomImage(layout, manifest, (tar,)), "host:1")
    script = "nvidia-smi -L && ldconfig -p && ldconfig && nvidia-smi -L"
    done = argosy(tmp_path / "store", "run", "--rm", "--gpus", "all", "host:1", "sh", "-c", script)
    assert done.returncode == 0, done.stderr.decode()
    listing = said("-L")
    text = done.stdout.decode()
    assert text.startswith(listing)
    assert text.endswith(listing)
    assert "libcuda.so.1 (libc6" in text
