"""From --gpus and a container's environment to edits, on made-up hosts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.errors import NotFound
from argosy.gpu.roots import DriverRoots
from argosy.gpu.select import ALL, GpuRequest
from argosy.oci.edits import ContainerEdits
from argosy.ops.gpu_edits import choose, edits_for
from tests.support import driver_roots

if TYPE_CHECKING:
    from pathlib import Path

EVERY = GpuRequest(count=ALL)


def test_no_request_and_an_empty_one_add_nothing(tmp_path: Path) -> None:
    roots = DriverRoots.at(tmp_path)  # a host with nothing at all
    environment = {"NVIDIA_VISIBLE_DEVICES": "all"}
    assert edits_for((), roots=roots, environment=environment) == ContainerEdits()
    assert edits_for((GpuRequest(count=0),), roots=roots, environment=environment) == ContainerEdits()


def test_several_requests_add_up(tmp_path: Path) -> None:
    roots = DriverRoots.at(driver_roots.build(tmp_path, nodes="file"))
    requests = (GpuRequest(ids=("1",), capabilities=("utility",)), GpuRequest(ids=("0", "1"), capabilities=("video",)))
    injection = choose(requests, roots=roots, environment={"NVIDIA_DRIVER_CAPABILITIES": "graphics"})
    assert injection is not None
    assert [gpu.index for gpu in injection.gpus] == [1, 0]
    assert injection.capabilities == ("utility", "video")


@pytest.mark.parametrize(
    ("environment", "capabilities"),
    [
        ({}, ("utility", "compute")),
        ({"NVIDIA_DRIVER_CAPABILITIES": "utility"}, ("utility",)),
        ({"NVIDIA_DRIVER_CAPABILITIES": "compute,utility"}, ("compute", "utility")),
    ],
)
def test_the_containers_environment_names_the_capabilities(
    tmp_path: Path, environment: dict[str, str], capabilities: tuple[str, ...]
) -> None:
    roots = DriverRoots.at(driver_roots.build(tmp_path, nodes="file"))
    injection = choose((EVERY,), roots=roots, environment=environment)
    assert injection is not None
    assert injection.capabilities == capabilities


def test_the_driver_alone_has_control_nodes_but_no_gpu(tmp_path: Path) -> None:
    roots = DriverRoots.at(driver_roots.build(tmp_path, nodes="file"))
    edits = edits_for((GpuRequest(driver_only=True),), roots=roots, environment={})
    assert [node.path for node in edits.device_nodes] == [
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
    ]


def test_without_a_gpu_the_error_says_what_was_looked_for_and_where(tmp_path: Path) -> None:
    driver_roots.build(tmp_path, module=False, libraries=False)
    with pytest.raises(NotFound) as caught:
        edits_for((EVERY,), roots=DriverRoots.at(tmp_path), environment={})
    error = caught.value
    assert (error.code, error.message) == ("no-nvidia-gpu", "no NVIDIA GPU visible")
    assert error.hint == "argosy doctor names the first missing link and how to mend it"
    lines = error.context.splitlines()
    assert lines[:4] == [
        "looked for, in this order:",
        f"  {tmp_path}/proc/driver/nvidia/version: absent, the nvidia kernel module is not loaded",
        f"  {tmp_path}/dev/nvidiactl: absent",
        f"  {tmp_path}/dev/nvidia0: absent",
    ]
    assert lines[4].startswith(f"  libcuda.so.*: absent in {tmp_path}/usr/lib64, ")
