"""Made-up GPU hosts as folders: a driver root with dev, proc and sys, in several distributions' layouts.

`python -m tests.support.driver_roots FOLDER [--layout debian]` makes one by hand; then
`argosy --driver-root FOLDER run --gpus all …` puts it into a container. The libraries are ELF
stubs that have names but nothing to run; nvidia-smi is a shell script that prints
the GPUs whose device nodes it sees.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import stat
from pathlib import Path

import msgspec

from argosy.linux import ldcache
from tests.support import elf

VERSION = "999.88.77"  # a driver that cannot exist
TRIPLETS = {"x86_64": "x86_64-linux-gnu", "aarch64": "aarch64-linux-gnu"}
TRIPLET = TRIPLETS.get(os.uname().machine, f"{os.uname().machine}-linux-gnu")
UVM_MAJOR, CAPS_MAJOR = 511, 510  # dynamic on real machines

#: {base name: number of its SONAME, "" for one whose SONAME is the file's own name}
LIBRARIES = {
    "libcuda": "1",
    "libcudadebugger": "1",
    "libnvidia-ml": "1",
    "libnvidia-cfg": "1",
    "libnvidia-ptxjitcompiler": "1",
    "libnvidia-nvvm": "4",
    "libnvidia-opencl": "1",
    "libnvidia-allocator": "1",
    "libnvidia-gpucomp": "",
    "libnvidia-encode": "1",
    "libnvidia-opticalflow": "1",
    "libnvcuvid": "1",
    "libnvidia-eglcore": "",
    "libnvidia-glcore": "",
    "libnvidia-tls": "",
    "libGLX_nvidia": "0",
    "libEGL_nvidia": "0",
    "libnvidia-gtk3": "",
}
WITH_SO_LINK = ("libcuda", "libnvidia-ml", "libnvidia-encode", "libnvcuvid", "libnvidia-ptxjitcompiler")


class FakeGpu(msgspec.Struct, frozen=True, kw_only=True):
    """A GPU of the made-up host."""

    minor: int
    bus_id: str
    uuid: str
    name: str = "NVIDIA A100-SXM4-40GB"


GPUS = (
    FakeGpu(minor=0, bus_id="0000:3b:00.0", uuid="GPU-5a1b6c3e-0d52-4e1f-9a37-3f2b6d9c1a00"),
    FakeGpu(minor=1, bus_id="0000:af:00.0", uuid="GPU-c07d1f94-88b2-4b6a-b1de-7e4a90f3d201"),
)

#: {layout: (folder of the libraries, folder of the programs)}
LAYOUTS = {
    "debian": (f"usr/lib/{TRIPLET}", "usr/bin"),
    "rhel": ("usr/lib64", "usr/bin"),
    "cache": ("var/lib/nvidia/lib64", "usr/bin"),
    "current": (f"usr/lib/{TRIPLET}/nvidia/current", "usr/lib/nvidia/current"),
    "hosted": ("usr/local/nvidia/lib64", "usr/local/nvidia/bin"),
}


def build(
    folder: Path,
    *,
    layout: str = "debian",
    gpus: tuple[FakeGpu, ...] = GPUS,
    version: str = VERSION,
    module_version: str | None = None,
    libraries: bool = True,
    module: bool = True,
    nodes: str = "auto",
) -> Path:
    """Make a whole host below *folder* and return it.

    *module_version* other than *version* is a driver upgraded under a running module;
    *libraries* False a host without the user-mode part, *module* False one whose
    module is not loaded. *nodes*: «char» makes devices (as root), «file» files that
    stand for them, «auto» the former where it is allowed.
    """
    _distribution(folder, layout)
    for name in ("dev", "proc", "sys"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    if libraries:
        _libraries(folder, layout, version)
        _programs(folder, layout, version, gpus)
        _files(folder, version)
    if module:
        _procfs(folder, module_version or version, gpus)
        _sysfs(folder, gpus)
        _nodes(folder, gpus, nodes)
    return folder


def _distribution(folder: Path, layout: str) -> None:
    """A merged /usr as the layout's distribution has it."""
    (folder / "usr/lib64").mkdir(parents=True, exist_ok=True)
    (folder / "usr/lib").mkdir(parents=True, exist_ok=True)
    for name in ("lib", "lib64"):
        _link(folder / name, f"usr/{name}")
    (folder / "etc").mkdir(exist_ok=True)
    if layout in ("debian", "current"):
        (folder / "etc/debian_version").write_text("12.9\n")
    (folder / "run").mkdir(exist_ok=True)
    (folder / "var").mkdir(exist_ok=True)
    _link(folder / "var/run", "/run")


def _libraries(folder: Path, layout: str, version: str) -> None:
    place = folder / LAYOUTS[layout][0]
    place.mkdir(parents=True, exist_ok=True)
    for base, number in LIBRARIES.items():
        _library(place, base, number, version)
        if base in WITH_SO_LINK:
            _link(place / f"{base}.so", f"{base}.so.{number}")
    (place / "vdpau").mkdir(exist_ok=True)
    _library(place / "vdpau", "libvdpau_nvidia", "1", version)
    (place / "libnvidia-egl-gbm.so.1.1.2").write_bytes(elf.shared_object("libnvidia-egl-gbm.so.1"))
    if layout == "cache":
        _cache(folder, place)
    if layout == "current":
        _alternatives(folder, place)
    if layout == "debian" and os.uname().machine == "x86_64":
        _libraries32(folder / "usr/lib/i386-linux-gnu", version)


def _library(place: Path, base: str, number: str, version: str, bits: int = 64) -> None:
    file_name = f"{base}.so.{version}"
    soname = f"{base}.so.{number}" if number else file_name
    (place / file_name).write_bytes(elf.shared_object(soname, needed=("libc.so.6",), bits=bits))
    if soname != file_name:
        _link(place / soname, file_name)


def _libraries32(place: Path, version: str) -> None:
    place.mkdir(parents=True, exist_ok=True)
    for base in ("libcuda", "libnvidia-ml", "libnvidia-ptxjitcompiler"):
        _library(place, base, "1", version, bits=32)


def _cache(folder: Path, place: Path) -> None:
    """The only trace of the libraries: the host's own ld.so.cache."""
    flags = ldcache.FLAGS[os.uname().machine, 64]
    inside = "/" + str(place.relative_to(folder))
    names = sorted(name for name in os.listdir(place) if name.startswith("lib") and name.count(".") == 2)
    entries = (ldcache.Entry(name=name, path=f"{inside}/{name}", flags=flags) for name in names)
    (folder / "etc/ld.so.cache").write_bytes(ldcache.render(entries))


def _alternatives(folder: Path, place: Path) -> None:
    """Debian: links through /etc/alternatives, all of them absolute."""
    alternatives = folder / "etc/alternatives"
    alternatives.mkdir(parents=True, exist_ok=True)
    inside = "/" + str(place.relative_to(folder))
    for name in ("libcuda.so.1", "libnvidia-ml.so.1"):
        _link(folder / f"usr/lib/{TRIPLET}/{name}", f"/etc/alternatives/nvidia--{name}-{TRIPLET}")
        _link(alternatives / f"nvidia--{name}-{TRIPLET}", f"{inside}/{name}")
    (folder / "usr/bin").mkdir(parents=True, exist_ok=True)
    _link(folder / "usr/bin/nvidia-smi", "/etc/alternatives/nvidia--nvidia-smi")
    _link(alternatives / "nvidia--nvidia-smi", "/usr/lib/nvidia/current/nvidia-smi")


def _programs(folder: Path, layout: str, version: str, gpus: tuple[FakeGpu, ...]) -> None:
    place = folder / LAYOUTS[layout][1]
    place.mkdir(parents=True, exist_ok=True)
    scripts = {
        "nvidia-smi": nvidia_smi(version, gpus),
        "nvidia-debugdump": "#!/bin/sh\nexit 0\n",
        "nvidia-cuda-mps-control": "#!/bin/sh\nexit 0\n",
    }
    for name, text in scripts.items():
        (place / name).write_text(text)
        (place / name).chmod(0o755)


_COLUMNS = (41, 24, 22)  # characters of nvidia-smi's three columns, without their edges
_HEADING = (
    ("GPU  Name", "Bus-Id          Disp.A", "Volatile Uncorr. ECC"),
    ("Fan  Temp   Perf          Pwr:Usage/Cap", "          Memory-Usage", "GPU-Util  Compute M."),
)
_READINGS = ("N/A   31C    P0              52W / 400W", "     0MiB / 40960MiB", "      0%      Default")


def nvidia_smi(version: str, gpus: tuple[FakeGpu, ...]) -> str:
    """A script with the two outputs people look at: the table, and the list of -L. Needs only /bin/sh."""
    width = sum(_COLUMNS) + 2
    title = f" NVIDIA-SMI {version:<22} Driver Version: {version:<14} CUDA Version: 13.0"
    head = ["+" + "-" * width + "+", "|" + title.ljust(width) + "|", _rule("-"), *map(_row, _HEADING), _rule("=")]
    return (
        "#!/bin/sh\n# Stands for NVIDIA's program on a made-up host.\nn=0\nlist=\n"
        '[ "$1" = -L ] && list=yes\n'
        f'if [ -z "$list" ]; then\n{_echo(head)}fi\n{"".join(map(_smi_gpu, gpus))}'
        'if [ $n = 0 ]; then echo "No devices found."; exit 6; fi\n'
    )


def _smi_gpu(gpu: FakeGpu) -> str:
    """Lines of the script for one GPU: shown only if its node is there, numbered as found."""
    first = _row((f"%3d {gpu.name}", f"00000000:{gpu.bus_id[5:].upper()} Off", "                   0"))
    return (
        f"if [ -e /dev/nvidia{gpu.minor} ]; then\n"
        f'if [ "$list" ]; then printf "GPU %d: {gpu.name} (UUID: {gpu.uuid})\\n" $n\n'
        f"else printf '{first}\\n' $n\n"
        f"{_echo([_row(_READINGS), _rule('-')])}fi\nn=$((n + 1))\nfi\n"
    )


def _echo(lines: list[str]) -> str:
    return "".join(f"echo '{line}'\n" for line in lines)


def _rule(dash: str) -> str:
    edge = "+" if dash == "-" else "|"
    return edge + "+".join(dash * width for width in _COLUMNS) + edge


def _row(cells: tuple[str, str, str]) -> str:
    return "|" + "|".join(f" {cell}".ljust(width) for cell, width in zip(cells, _COLUMNS, strict=True)) + "|"


def _files(folder: Path, version: str) -> None:
    firmware = folder / f"usr/lib/firmware/nvidia/{version}"
    firmware.mkdir(parents=True, exist_ok=True)
    for name in ("gsp_ga10x.bin", "gsp_tu10x.bin"):
        (firmware / name).write_bytes(b"\0" * 64)
    texts = {
        "etc/OpenCL/vendors/nvidia.icd": "libnvidia-opencl.so.1\n",
        "usr/share/glvnd/egl_vendor.d/10_nvidia.json": _json(ICD={"library_path": "libEGL_nvidia.so.0"}),
        "usr/share/egl/egl_external_platform.d/15_nvidia_gbm.json": _json(
            ICD={"library_path": "libnvidia-egl-gbm.so.1"}
        ),
        "usr/share/vulkan/icd.d/nvidia_icd.json": _json(ICD={"library_path": "libGLX_nvidia.so.0"}),
        "usr/share/nvidia/nvoptix.bin": "",
    }
    for name, text in texts.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    _socket(folder / "run/nvidia-persistenced/socket")


def _procfs(folder: Path, version: str, gpus: tuple[FakeGpu, ...]) -> None:
    driver = folder / "proc/driver/nvidia"
    driver.mkdir(parents=True, exist_ok=True)
    (driver / "version").write_text(
        f"NVRM version: NVIDIA UNIX {os.uname().machine} Kernel Module  {version}  Tue Mar  5 22:23:56 UTC 2024\n"
        "GCC version:  gcc version 12.2.0 (Debian 12.2.0-14)\n"
    )
    (driver / "params").write_text("ResmanDebugLevel: 4294967295\nModifyDeviceFiles: 1\nDeviceFileUID: 0\n")
    for gpu in gpus:
        place = driver / "gpus" / gpu.bus_id
        place.mkdir(parents=True, exist_ok=True)
        (place / "information").write_text(
            f"Model: \t\t {gpu.name}\nIRQ:   \t\t 34\nGPU UUID: \t {gpu.uuid}\nVideo BIOS: \t 92.00.45.00.03\n"
            f"Bus Type: \t PCIe\nDMA Size: \t 47 bits\nDMA Mask: \t 0x7fffffffffff\nBus Location: \t {gpu.bus_id}\n"
            f"Device Minor: \t {gpu.minor}\nGPU Excluded:\t No\n"
        )
    (folder / "proc/devices").write_text(
        "Character devices:\n  1 mem\n195 nvidia\n195 nvidiactl\n226 drm\n"
        f"{CAPS_MAJOR} nvidia-caps\n{UVM_MAJOR} nvidia-uvm\n\nBlock devices:\n  8 sd\n"
    )


def _sysfs(folder: Path, gpus: tuple[FakeGpu, ...]) -> None:
    for number, gpu in enumerate(gpus):
        device = folder / "sys/bus/pci/devices" / gpu.bus_id
        for name in (f"card{number}", f"renderD{128 + number}"):
            (device / "drm" / name).mkdir(parents=True, exist_ok=True)
        for name, text in (("vendor", "0x10de"), ("device", "0x20b0"), ("class", "0x030200")):
            (device / name).write_text(f"{text}\n")
    parameters = folder / "sys/module/firmware_class/parameters"
    parameters.mkdir(parents=True, exist_ok=True)
    (parameters / "path").write_text("\n")


def _nodes(folder: Path, gpus: tuple[FakeGpu, ...], kind: str) -> None:
    numbers = {"nvidiactl": (195, 255), "nvidia-modeset": (195, 254)}
    numbers |= {"nvidia-uvm": (UVM_MAJOR, 0), "nvidia-uvm-tools": (UVM_MAJOR, 1)}
    for number, gpu in enumerate(gpus):
        numbers[f"nvidia{gpu.minor}"] = (195, gpu.minor)
        numbers[f"dri/card{number}"] = (226, number)
        numbers[f"dri/renderD{128 + number}"] = (226, 128 + number)
    for name, (major, minor) in numbers.items():
        path = folder / "dev" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        if kind == "file" or not _device(path, major, minor, must=kind == "char"):
            path.write_text(_json(major=major, minor=minor))


def _device(path: Path, major: int, minor: int, *, must: bool) -> bool:
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(major, minor))
    except PermissionError:
        if must:
            raise
        return False
    path.chmod(0o666)
    return True


def _socket(path: Path) -> None:
    """A socket nobody listens on; bound by a short name, since the whole path may be too long for one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    folder_fd = os.open(path.parent, os.O_PATH | os.O_DIRECTORY)
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(f"/proc/self/fd/{folder_fd}/{path.name}")
    finally:
        os.close(folder_fd)


def _json(**values: object) -> str:
    return json.dumps(values) + "\n"


def _link(path: Path, target: str) -> None:
    path.unlink(missing_ok=True)
    path.symlink_to(target)


def main() -> None:
    parser = argparse.ArgumentParser(description="Make a folder that looks like a host with an NVIDIA driver.")
    parser.add_argument("folder", type=Path)
    parser.add_argument("--layout", choices=LAYOUTS, default="debian")
    parser.add_argument("--version", default=VERSION)
    parser.add_argument("--module-version", help="of the kernel module, when it differs")
    parser.add_argument("--no-libraries", action="store_true")
    parser.add_argument("--no-module", action="store_true")
    parser.add_argument("--nodes", choices=("auto", "char", "file"), default="auto")
    options = parser.parse_args()
    build(
        options.folder,
        layout=options.layout,
        version=options.version,
        module_version=options.module_version,
        libraries=not options.no_libraries,
        module=not options.no_module,
        nodes=options.nodes,
    )
    print(f"a made-up host is in {options.folder}; use it with --driver-root {options.folder}")


if __name__ == "__main__":
    main()
