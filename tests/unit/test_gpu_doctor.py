"""doctor: each broken link is the one that is named, and nothing after it is tried."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from argosy.errors import NotFound
from argosy.gpu.roots import DriverRoots
from argosy.linux.features import Feature, HostFeatures
from argosy.ops.doctor import Check, Diagnosis, examine
from tests.support import driver_roots
from tests.support.driver_roots import GPUS, TRIPLET, VERSION
from tests.support.stores import argosy

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.runtime.oci_runtime import OciRuntime

YES, NO = Feature(available=True), Feature(available=False, reason="forbidden here", hint="ask for it")
FEATURES = HostFeatures(
    key="test",
    cgroup="v2",
    mount=NO,
    user_namespace=YES,
    newuidmap=NO,
    overlay=YES,
    writable_layers=YES,
    overlay_userns=YES,
    overlay_layerwise=YES,
    erofs_file=NO,
    idmapped_mounts=YES,
    openat2=YES,
)


def no_runtime() -> OciRuntime:
    raise NotFound("neither crun nor runc is here", code="no-runtime", hint="apt install crun")


def examined(folder: Path) -> Diagnosis:
    return examine(
        DriverRoots.at(folder), find_runtime=no_runtime, probe_features=lambda: FEATURES, store=folder / "store"
    )


def shape(diagnosis: Diagnosis) -> list[str]:
    return [check.status for check in diagnosis.gpu]


def test_a_whole_chain_names_versions_nodes_and_gpus(tmp_path: Path) -> None:
    driver_roots.build(tmp_path, nodes="file")
    diagnosis = examined(tmp_path)
    assert shape(diagnosis) == ["ok", "ok", "ok", "skipped", "ok"]
    assert diagnosis.first_missing is None
    facts = {check.name: check.fact for check in diagnosis.gpu}
    assert facts["kernel module"] == f"version {VERSION} is loaded"
    assert facts["driver libraries"] == f"version {VERSION}, 9 files in {tmp_path}/usr/lib/{TRIPLET}"
    assert facts["GPUs"] == "; ".join(
        f"{number}  {gpu.name}  {gpu.uuid}  {gpu.bus_id}" for number, gpu in enumerate(GPUS)
    )


def _no_node(folder: Path) -> None:
    (folder / "dev/nvidia-uvm").unlink()


def _no_libcuda(folder: Path) -> None:
    (folder / f"usr/lib/{TRIPLET}/libcuda.so.{VERSION}").unlink()


@pytest.mark.parametrize(
    ("options", "damage", "name", "fact"),
    [
        pytest.param({"module": False}, None, "kernel module", "the PCI bus has no NVIDIA GPU", id="no module"),
        pytest.param({}, _no_node, "device nodes", "/dev/nvidia-uvm", id="no uvm node"),
        pytest.param({"libraries": False}, None, "driver libraries", "no NVIDIA driver libraries", id="no libraries"),
        pytest.param({}, _no_libcuda, "driver libraries", f"the driver has no libcuda.so.{VERSION}", id="no libcuda"),
        pytest.param(
            {"module_version": "550.54.15"}, None, "driver libraries", "Driver/library version mismatch", id="mismatch"
        ),
    ],
)
def test_the_first_broken_link_is_named_and_the_rest_not_tried(
    tmp_path: Path, options: dict[str, object], damage: object, name: str, fact: str
) -> None:
    driver_roots.build(tmp_path, nodes="file", **options)  # type: ignore[arg-type]
    if callable(damage):
        damage(tmp_path)
    diagnosis = examined(tmp_path)
    missing = diagnosis.first_missing
    assert missing is not None
    assert missing.name == name
    assert fact in missing.fact
    assert missing.hint
    place = [check.name for check in diagnosis.gpu].index(name)
    assert {check.status for check in diagnosis.gpu[:place]} <= {"ok", "skipped"}
    assert {check.status for check in diagnosis.gpu[place + 1 :]} == {"not reached"} or place == 4


def test_a_gpu_without_its_module_is_seen_on_the_bus(tmp_path: Path) -> None:
    driver_roots.build(tmp_path, nodes="file")
    (tmp_path / "proc/driver/nvidia/version").unlink()
    for path in (tmp_path / "dev").glob("nvidia[0-9]"):
        path.unlink()
    missing = examined(tmp_path).first_missing
    assert missing is not None
    assert missing.fact.endswith(f"the PCI bus has an NVIDIA GPU at {GPUS[0].bus_id}, {GPUS[1].bus_id}")
    assert missing.hint.startswith("as root: modprobe nvidia")


@pytest.mark.skipif(os.geteuid() == 0, reason="needs an ordinary user")
def test_a_node_that_this_user_may_not_open_is_named_with_its_group(tmp_path: Path) -> None:
    driver_roots.build(tmp_path, nodes="file")
    (tmp_path / "dev/nvidia0").chmod(0)
    missing = examined(tmp_path).first_missing
    assert missing is not None
    assert missing.fact.startswith(f"this user may not use {tmp_path}/dev/nvidia0")


def test_the_host_is_reported_part_by_part(tmp_path: Path) -> None:
    driver_roots.build(tmp_path, nodes="file")
    assert examined(tmp_path).host == (
        Check(name="container runtime", status="failed", fact="neither crun nor runc is here", hint="apt install crun"),
        Check(name="store", status="ok", fact=f"{tmp_path}/store (will be made)"),
        Check(name="user namespaces", status="ok", fact="available"),
        Check(name="subordinate ids", status="failed", fact="forbidden here", hint="ask for it"),
        Check(name="overlay", status="ok", fact="available"),
        Check(name="rootless overlay", status="ok", fact="available"),
        Check(name="EROFS layers", status="absent", fact="forbidden here", hint="ask for it"),
        Check(name="id-mapped mounts", status="ok", fact="available"),
        Check(name="control groups", status="ok", fact="v2"),
    )


def test_the_verb_exits_0_for_a_whole_chain_and_1_for_a_broken_one(tmp_path: Path) -> None:
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    driver_roots.build(whole, nodes="file")
    driver_roots.build(broken, nodes="file", libraries=False)
    done = argosy(tmp_path / "store", "doctor", "--driver-root", str(whole), "--format", "json")
    answer = json.loads(done.stdout)
    assert (done.returncode, answer["Ok"], answer["FirstMissing"]) == (0, True, "")
    assert answer["Gpu"][0] == {"Name": "kernel module", "Status": "ok", "Fact": f"version {VERSION} is loaded"}
    done = argosy(tmp_path / "store", "--driver-root", str(broken), "doctor")
    assert done.returncode == 1
    assert b"\nFirst missing link: driver libraries.\n  no NVIDIA driver libraries" in done.stdout
