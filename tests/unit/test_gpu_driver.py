"""Finding the driver on made-up hosts of several distributions, and describing it as edits."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from argosy.errors import InvalidInput, NotFound, Unsupported
from argosy.gpu.driver import Driver
from argosy.gpu.inventory import Gpu, installed_gpus, module_version, visible_gpus
from argosy.gpu.layout import ImageLayout
from argosy.gpu.roots import DriverRoots
from argosy.oci.edits import ContainerEdits, DeviceNode, Link
from tests.support import driver_roots
from tests.support.driver_roots import GPUS, TRIPLET, UVM_MAJOR, VERSION
from tests.support.elf import shared_object

MACHINE = os.uname().machine
DEBIAN = ImageLayout(machine=MACHINE)
RHEL = ImageLayout(machine=MACHINE, multi_arch=False)
DEFAULT = ("utility", "compute")


def host(folder: Path, **options: object) -> DriverRoots:
    return DriverRoots.at(driver_roots.build(folder, **options))  # type: ignore[arg-type]


def in_container(edits: ContainerEdits) -> tuple[str, ...]:
    return tuple(mount.container_path for mount in edits.mounts)


@pytest.mark.parametrize("layout", driver_roots.LAYOUTS)
@pytest.mark.parametrize(("image", "folder"), [(DEBIAN, f"/usr/lib/{TRIPLET}"), (RHEL, "/usr/lib64")])
def test_every_host_gives_the_same_container(tmp_path: Path, layout: str, image: ImageLayout, folder: str) -> None:
    """Where the host keeps the driver does not show; where the image's loader looks decides."""
    driver = Driver.find(host(tmp_path, layout=layout))
    assert (driver.version, driver.module_version) == (VERSION, VERSION)
    edits = driver.edits(driver.gpus(), DEFAULT, image)
    names = ("cuda", "cudadebugger", "nvidia-allocator", "nvidia-cfg", "nvidia-gpucomp", "nvidia-ml")
    names += ("nvidia-nvvm", "nvidia-opencl", "nvidia-ptxjitcompiler")
    assert tuple(path for path in in_container(edits) if ".so" in path) == tuple(
        f"{folder}/lib{name}.so.{VERSION}" for name in names
    )
    assert {"/usr/bin/nvidia-smi", f"/lib/firmware/nvidia/{VERSION}/gsp_ga10x.bin"} <= set(in_container(edits))
    assert edits.library_folders == (folder,)
    assert edits.env == ("NVIDIA_VISIBLE_DEVICES=void",)
    assert Link(path=f"{folder}/libcuda.so.1", target=f"libcuda.so.{VERSION}") in edits.links
    assert Link(path=f"{folder}/libcuda.so", target="libcuda.so.1") in edits.links
    assert all(mount.host_path.startswith(f"{tmp_path}/") for mount in edits.mounts)
    assert all(os.path.realpath(mount.host_path) == mount.host_path for mount in edits.mounts)


@pytest.mark.parametrize(
    "kind", ["file", pytest.param("char", marks=pytest.mark.skipif(os.geteuid() != 0, reason="needs root"))]
)
def test_devices_have_the_drivers_numbers_whatever_stands_for_them(tmp_path: Path, kind: str) -> None:
    roots = host(tmp_path, nodes=kind)
    driver = Driver.find(roots)
    numbers = [(node.path, node.major, node.minor) for node in driver.edits(driver.gpus(), DEFAULT).device_nodes]
    assert numbers == [
        ("/dev/nvidiactl", 195, 255),
        ("/dev/nvidia-uvm", UVM_MAJOR, 0),
        ("/dev/nvidia-uvm-tools", UVM_MAJOR, 1),
        ("/dev/nvidia0", 195, 0),
        ("/dev/nvidia1", 195, 1),
    ]


def test_an_empty_file_stands_for_a_device_with_the_usual_numbers(tmp_path: Path) -> None:
    roots = host(tmp_path, nodes="file")
    for name in ("nvidiactl", "nvidia1"):
        (tmp_path / "dev" / name).write_text("")
    driver = Driver.find(roots)
    nodes = {node.path: node for node in driver.edits(driver.gpus()[1:], ("utility",)).device_nodes}
    assert nodes["/dev/nvidia1"] == DeviceNode(
        path="/dev/nvidia1", host_path=f"{tmp_path}/dev/nvidia1", major=195, minor=1, file_mode=0o666, uid=0, gid=0
    )
    assert nodes["/dev/nvidiactl"].minor == 255
    assert "/dev/nvidia0" not in nodes


def test_a_group_that_owns_closed_nodes_comes_along(tmp_path: Path) -> None:
    roots = host(tmp_path, nodes="file")
    (tmp_path / "dev/nvidia0").write_text('{"major": 195, "minor": 0, "mode": 432, "gid": 44}')
    driver = Driver.find(roots)
    assert driver.edits(driver.gpus()[:1], DEFAULT).additional_gids == (44,)


@pytest.mark.parametrize(
    ("capabilities", "present", "absent"),
    [
        pytest.param(("utility",), "libnvidia-ml", "libcuda", id="utility"),
        pytest.param(("compute",), "libcuda", "libnvidia-ml", id="compute"),
        pytest.param(("video",), "libnvcuvid", "libnvidia-glcore", id="video"),
        pytest.param(("graphics",), "libGLX_nvidia", "libnvidia-encode", id="graphics"),
        pytest.param(("display",), "libnvidia-egl-gbm", "libnvidia-gtk3", id="display"),
    ],
)
def test_capabilities_choose_the_libraries(
    tmp_path: Path, capabilities: tuple[str, ...], present: str, absent: str
) -> None:
    driver = Driver.find(host(tmp_path))
    bases = {library.base for library in driver.libraries(frozenset(capabilities))}
    assert present in bases
    assert absent not in bases


def test_graphics_brings_render_nodes_configuration_and_platform_libraries(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path))
    edits = driver.edits(driver.gpus()[:1], ("graphics",), DEBIAN)
    assert [node.path for node in edits.device_nodes] == [
        "/dev/nvidiactl",
        "/dev/nvidia-uvm",
        "/dev/nvidia-uvm-tools",
        "/dev/nvidia-modeset",
        "/dev/nvidia0",
        "/dev/dri/card0",
        "/dev/dri/renderD128",
    ]
    assert {
        "/etc/vulkan/icd.d/nvidia_icd.json",
        "/usr/share/glvnd/egl_vendor.d/10_nvidia.json",
        "/usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json",
        f"/usr/lib/{TRIPLET}/libnvidia-egl-gbm.so.1.1.2",
    } <= set(in_container(edits))
    assert Link(path=f"/usr/lib/{TRIPLET}/libGLX_indirect.so.0", target=f"libGLX_nvidia.so.{VERSION}") in edits.links


def test_video_libraries_keep_their_folder(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path))
    edits = driver.edits((), ("video",), RHEL)
    assert f"/usr/lib64/vdpau/libvdpau_nvidia.so.{VERSION}" in in_container(edits)
    assert edits.library_folders == ("/usr/lib64",)


@pytest.mark.skipif(MACHINE != "x86_64", reason="this kernel runs no 32-bit programs of x86")
def test_32_bit_libraries_come_only_when_asked_for(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path))
    with_them = driver.edits((), ("utility", "compat32"), DEBIAN)
    assert f"/usr/lib/i386-linux-gnu/libnvidia-ml.so.{VERSION}" in in_container(with_them)
    assert with_them.library_folders == (f"/usr/lib/{TRIPLET}", "/usr/lib/i386-linux-gnu")
    assert not any("i386" in path for path in in_container(driver.edits((), ("utility",), DEBIAN)))


def test_without_an_image_files_keep_their_paths_below_the_root(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path, layout="hosted"))
    edits = driver.edits((), ("utility",))
    assert {f"/usr/local/nvidia/lib64/libnvidia-ml.so.{VERSION}", "/usr/local/nvidia/bin/nvidia-smi"} <= set(
        in_container(edits)
    )


def test_a_second_driver_version_is_not_mixed_in(tmp_path: Path) -> None:
    roots = host(tmp_path)
    place = tmp_path / f"usr/lib/{TRIPLET}"
    (place / "libcuda.so.111.22.33").write_bytes(shared_object("libcuda.so.1"))
    (tmp_path / "usr/lib64/libcuda.so.999.88.78").write_bytes(shared_object("libcuda.so.1"))
    driver = Driver.find(roots)
    assert driver.version == VERSION
    assert [library.file_name for library in driver.libraries(frozenset(DEFAULT)) if library.base == "libcuda"] == [
        f"libcuda.so.{VERSION}"
    ]


def test_a_library_that_no_table_knows_comes_with_compute(tmp_path: Path) -> None:
    roots = host(tmp_path)
    (tmp_path / f"usr/lib/{TRIPLET}/libnvidia-newthing.so.{VERSION}").write_bytes(
        shared_object("libnvidia-newthing.so.1")
    )
    driver = Driver.find(roots)
    assert "libnvidia-newthing" in {library.base for library in driver.libraries(frozenset({"compute"}))}
    assert "libnvidia-newthing" not in {library.base for library in driver.libraries(frozenset({"utility"}))}


def test_mesas_gl_is_left_alone_and_the_drivers_own_old_one_taken(tmp_path: Path) -> None:
    roots = host(tmp_path)
    place = tmp_path / f"usr/lib/{TRIPLET}"
    (place / f"libGL.so.{VERSION}").write_bytes(shared_object("libGL.so.1", needed=("libGLdispatch.so.0",)))
    (place / f"libEGL.so.{VERSION}").write_bytes(
        shared_object("libEGL.so.1", needed=(f"libnvidia-glcore.so.{VERSION}",))
    )
    bases = {library.base for library in Driver.find(roots).libraries(frozenset({"graphics"}))}
    assert "libEGL" in bases
    assert "libGL" not in bases


def test_links_of_a_root_cannot_lead_out_of_it(tmp_path: Path) -> None:
    """An absolute link means the root's own file, and a file outside is never mounted."""
    outside = tmp_path / "outside"
    outside.mkdir()
    (outside / f"libcuda.so.{VERSION}").write_bytes(shared_object("libcuda.so.1"))
    roots = host(tmp_path / "root", layout="current")
    (tmp_path / f"root/usr/lib/{TRIPLET}/libevil.so.{VERSION}").symlink_to(outside / f"libcuda.so.{VERSION}")
    driver = Driver.find(roots)
    mounts = driver.edits((), DEFAULT, DEBIAN).mounts
    assert all(mount.host_path.startswith(f"{tmp_path}/root/") for mount in mounts)
    assert not any("libevil" in mount.container_path for mount in mounts)


def test_a_root_is_stripped_at_a_component_only(tmp_path: Path) -> None:
    roots = host(tmp_path / "foo")
    driver = Driver.find(roots)
    assert driver._inside(f"{tmp_path}/foo/usr/lib/x") == "/usr/lib/x"
    assert driver._inside(f"{tmp_path}/foobar/usr/lib/x") == f"{tmp_path}/foobar/usr/lib/x"


def test_files_that_are_no_libraries_may_stand_for_them(tmp_path: Path) -> None:
    roots = host(tmp_path, libraries=False)
    place = tmp_path / f"usr/lib/{TRIPLET}"
    place.mkdir(parents=True)
    (place / f"libcuda.so.{VERSION}").write_bytes(b"")
    edits = Driver.find(roots).edits((), DEFAULT, DEBIAN)
    assert edits.links == (
        Link(path=f"/usr/lib/{TRIPLET}/libcuda.so.1", target=f"libcuda.so.{VERSION}"),
        Link(path=f"/usr/lib/{TRIPLET}/libcuda.so", target="libcuda.so.1"),
    )


def test_an_upgraded_driver_under_a_running_module_is_refused(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path, module_version="550.54.15"))
    with pytest.raises(Unsupported) as caught:
        driver.edits(driver.gpus(), DEFAULT)
    assert (caught.value.code, caught.value.message, caught.value.context) == (
        "driver-version-mismatch",
        "Driver/library version mismatch",
        f"the loaded kernel module is 550.54.15, the libraries are {VERSION}",
    )


def test_a_host_without_libraries_says_where_was_looked(tmp_path: Path) -> None:
    with pytest.raises(NotFound) as caught:
        Driver.find(host(tmp_path, libraries=False))
    assert caught.value.code == "no-nvidia-driver"
    assert f"{tmp_path}/usr/lib64, {tmp_path}/usr/lib/{TRIPLET}" in caught.value.context


def test_a_missing_node_is_named(tmp_path: Path) -> None:
    driver = Driver.find(host(tmp_path))
    gpus = driver.gpus()
    (tmp_path / "dev/nvidiactl").unlink()
    with pytest.raises(NotFound) as caught:
        driver.edits(gpus, DEFAULT)
    assert (caught.value.code, caught.value.message) == (
        "device-node-missing",
        f"no device node {tmp_path}/dev/nvidiactl",
    )


def test_a_driver_without_its_compute_part_is_named(tmp_path: Path) -> None:
    roots = host(tmp_path)
    (tmp_path / f"usr/lib/{TRIPLET}/libcuda.so.{VERSION}").unlink()
    with pytest.raises(NotFound) as caught:
        Driver.find(roots).edits((), DEFAULT)
    assert (caught.value.code, caught.value.message) == (
        "driver-library-missing",
        f"the driver has no libcuda.so.{VERSION}",
    )


def test_gpus_are_numbered_by_address_among_those_with_a_node(tmp_path: Path) -> None:
    roots = host(tmp_path)
    assert [(gpu.index, gpu.minor, gpu.uuid) for gpu in visible_gpus(roots)] == [
        (0, 0, GPUS[0].uuid),
        (1, 1, GPUS[1].uuid),
    ]
    (tmp_path / "dev/nvidia0").unlink()
    assert visible_gpus(roots) == (Gpu(index=0, minor=1, uuid=GPUS[1].uuid, name=GPUS[1].name, bus_id=GPUS[1].bus_id),)
    assert len(installed_gpus(roots)) == 2


def test_nodes_alone_are_gpus_where_procfs_shows_none(tmp_path: Path) -> None:
    roots = host(tmp_path, module=False)
    (tmp_path / "dev/nvidia2").write_text("")
    assert visible_gpus(roots) == (Gpu(index=0, minor=2),)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("NVRM version: NVIDIA UNIX x86_64 Kernel Module  550.54.15  Tue Mar  5 22:23:56 UTC 2024\n", "550.54.15"),
        ("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  560.35.03  Release Build\n", "560.35.03"),
        ("NVRM version: something else\n", None),
        ("", None),
    ],
)
def test_both_kernel_modules_tell_their_version(tmp_path: Path, text: str, expected: str | None) -> None:
    roots = host(tmp_path)
    (tmp_path / "proc/driver/nvidia/version").write_text(text)
    assert module_version(roots) == expected


def test_an_excluded_gpu_and_rubbish_are_left_out(tmp_path: Path) -> None:
    roots = host(tmp_path)
    gpus = tmp_path / "proc/driver/nvidia/gpus"
    (gpus / GPUS[0].bus_id / "information").write_text("Model: A\nDevice Minor: 0\nGPU Excluded: Yes\n")
    (gpus / GPUS[1].bus_id / "information").write_bytes(b"\xff\xfe: :\nDevice Minor: x\n")
    assert installed_gpus(roots) == ()


def test_a_root_that_is_no_folder_is_refused(tmp_path: Path) -> None:
    assert DriverRoots.under(Path("/")) == DriverRoots.host()
    with pytest.raises(InvalidInput) as caught:
        DriverRoots.under(tmp_path / "nothing")
    assert caught.value.code == "driver-root-invalid"


def test_a_driver_container_uses_this_machines_devices(tmp_path: Path) -> None:
    (tmp_path / "usr").mkdir()
    assert DriverRoots.at(tmp_path) == DriverRoots(
        driver=tmp_path, dev=Path("/dev"), proc=Path("/proc"), sys=Path("/sys")
    )
