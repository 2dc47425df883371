"""The CUDA tree: members of wheels land where NVIDIA's images have them, with sane modes, links and loader cache."""

from __future__ import annotations

import json
import subprocess
import zipfile
from typing import TYPE_CHECKING

import pytest

from argosy.catalog import recipes
from argosy.catalog.layout import CudaLayout, newest_member, versions_file
from argosy.catalog.recipes import Versions
from argosy.linux import ldcache

if TYPE_CHECKING:
    from pathlib import Path

CUDA = recipes.find("nvidia/cuda", recipes.load())
VERSIONS = Versions(version="13.5.0", of={}, machine="x86_64", driver="580")
LAYOUT = CudaLayout(CUDA, VERSIONS)
LIB = "usr/local/cuda-13.5/targets/x86_64-linux/lib"
X86_64 = ldcache.FLAGS["x86_64", 64]


@pytest.fixture
def wheel(tmp_path: Path) -> Path:
    path = tmp_path / "nvidia_cuda_thing-13.5.1-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        for name, mode, text in (
            ("nvidia/cu13/lib/libthing.so.13", 0o644, "library"),
            ("nvidia/cu13/lib/libthing_static.a", 0o644, "static"),
            ("nvidia/cu13/bin/tool", 0o744, "tool"),
            ("nvidia/cu13/include/thing.h", 0o664, "int thing(void);"),
            ("nvidia_cuda_thing-13.5.1.dist-info/licenses/License.txt", 0o644, "terms"),
        ):
            info = zipfile.ZipInfo(name, (2026, 10, 13, 3, 4, 48))
            info.external_attr = mode << 16
            archive.writestr(info, text)
    return path


@pytest.mark.parametrize(
    ("member", "place"),
    [
        ("nvidia/cu13/bin/nvcc", "usr/local/cuda-13.5/bin/nvcc"),
        ("nvidia/cu13/lib/libcudart.so.13", f"{LIB}/libcudart.so.13"),
        ("nvidia/cu13/include/cuda.h", "usr/local/cuda-13.5/targets/x86_64-linux/include/cuda.h"),
        ("nvidia/cu13/lib/libnvvm.so.4", "usr/local/cuda-13.5/nvvm/lib64/libnvvm.so.4"),
        ("nvidia/cu13/nvvm/bin/cicc", "usr/local/cuda-13.5/nvvm/bin/cicc"),
        ("nvidia/cu13/cccl/lib/cmake/cub/cub-config.cmake", f"{LIB}/cmake/cub/cub-config.cmake"),
        ("nvidia/cu13/compute-sanitizer/docs/index.html", None),
        ("nvidia/nccl/lib/libnccl.so.2", "usr/lib/x86_64-linux-gnu/libnccl.so.2"),
        ("nvidia/nccl/include/nccl.h", "usr/include/nccl.h"),
        ("nvidia_cuda_nvcc-13.5.37.dist-info/RECORD", None),
        ("elsewhere/file", None),
    ],
)
def test_members_go_where_nvidia_has_them(member: str, place: str | None) -> None:
    assert LAYOUT.place(member) == place


def test_libraries_and_development_files_are_told_apart_and_modes_are_normal(wheel: Path) -> None:
    libraries = {member.entry.path: member for member in LAYOUT.members(wheel, "libraries")}
    development = {member.entry.path: member.entry.mode for member in LAYOUT.members(wheel, "development")}
    assert list(libraries) == [f"{LIB}/libthing.so.13".encode()]
    assert development == {
        f"{LIB}/libthing_static.a".encode(): 0o644,
        b"usr/local/cuda-13.5/bin/tool": 0o755,
        b"usr/local/cuda-13.5/targets/x86_64-linux/include/thing.h": 0o644,
    }
    library = libraries[f"{LIB}/libthing.so.13".encode()]
    assert (library.entry.mtime_ns, library.entry.size) == (1_791_860_688 * 10**9, 7)
    with library.open() as data:
        assert data.read() == b"library"
    assert newest_member(wheel) == 1_791_860_688
    assert LAYOUT.licence(wheel) == b"terms"
    assert LAYOUT.header(wheel, "thing.h") == "int thing(void);"


def test_the_foundation_links_lib_and_lib64() -> None:
    members = {member.entry.path.decode(): member for member in LAYOUT.foundation(b"terms", epoch=0)}
    links = {path: m.entry.linkname.decode() for path, m in members.items() if m.entry.kind == "symlink"}
    assert links == {
        "usr/local/cuda": "cuda-13.5",
        "usr/local/cuda-13": "cuda-13.5",
        "usr/local/cuda-13.5/lib64": "targets/x86_64-linux/lib",
        "usr/local/cuda-13.5/lib": "targets/x86_64-linux/lib",
    }
    assert members["etc/ld.so.conf.d/000_cuda.conf"].data == b"/usr/local/cuda/targets/x86_64-linux/lib\n"
    assert members["NGC-DL-CONTAINER-LICENSE"].data == b"terms"


def test_every_library_with_a_version_gets_its_development_link() -> None:
    paths = [f"{LIB}/libcudart.so.13", f"{LIB}/libnvrtc-builtins.so.13.5", f"{LIB}/libnvperf_host.so"]
    assert LAYOUT.development_links(paths) == {
        f"{LIB}/libcudart.so": "libcudart.so.13",
        f"{LIB}/libnvrtc-builtins.so": "libnvrtc-builtins.so.13.5",
    }


def test_development_brings_stubs_of_the_drivers_libraries() -> None:
    headers = {"cuda.h": "CUresult CUDAAPI cuInit(unsigned);", "nvml.h": "nvmlReturn_t DECLDIR nvmlInit_v2(void);"}
    members = {m.entry.path.decode(): m.data for m in LAYOUT.development([], headers.get, epoch=0)}
    assert b"libcuda.so.1\0cuInit\0" in bytes(members[f"{LIB}/stubs/libcuda.so"])  # type: ignore[arg-type]
    assert b"libnvidia-ml.so.1\0nvmlInit_v2\0" in bytes(members[f"{LIB}/stubs/libnvidia-ml.so"])  # type: ignore[arg-type]


def test_the_loader_cache_lists_debians_libraries_and_cudas() -> None:
    libc = ldcache.Entry(name="libc.so.6", path="/lib/x86_64-linux-gnu/libc.so.6", flags=X86_64)
    data = LAYOUT.loader_cache(
        ldcache.render([libc]), [f"{LIB}/libcudart.so.13", "usr/lib/x86_64-linux-gnu/libnccl.so.2"]
    )
    assert {(entry.name, entry.path) for entry in ldcache.parse(data)} == {
        ("libc.so.6", "/lib/x86_64-linux-gnu/libc.so.6"),
        ("libcudart.so.13", "/usr/local/cuda/targets/x86_64-linux/lib/libcudart.so.13"),
        ("libnccl.so.2", "/lib/x86_64-linux-gnu/libnccl.so.2"),
    }


def test_version_json_names_the_components() -> None:
    assert json.loads(versions_file(VERSIONS, {"nvidia-cuda-runtime": "13.5.37"})) == {
        "cuda": {"name": "CUDA SDK", "version": "13.5.0"},
        "cuda_runtime": {"name": "nvidia-cuda-runtime", "version": "13.5.37"},
    }


def test_the_entrypoint_becomes_the_command_and_warns_without_a_driver(tmp_path: Path) -> None:
    """Run with a folder in the place of /opt/nvidia, on a machine that may have a driver or not."""
    for member in LAYOUT.entrypoint(epoch=0):
        path = tmp_path / member.entry.path.decode()
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bytes(member.data).replace(b"/opt/nvidia", str(tmp_path / "opt/nvidia").encode()))  # type: ignore[arg-type]
        path.chmod(member.entry.mode)
    script = str(tmp_path / "opt/nvidia/nvidia_entrypoint.sh")
    done = subprocess.run(
        [script, "sh", "-c", "echo $0 $NVIDIA_CPU_ONLY; exit 3"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 3
    missing = "The NVIDIA Driver was not detected" in done.stderr
    assert done.stdout == ("sh 1\n" if missing else "sh\n")
