"""Stub libraries: the loader takes them, linkers' tables are right, every name of the API is there."""

from __future__ import annotations

import ctypes
import struct
from typing import TYPE_CHECKING

import pytest

from argosy.catalog import stubs
from argosy.gpu import elf

if TYPE_CHECKING:
    from pathlib import Path

CUDA_H = """\
#define cuMemAlloc                          cuMemAlloc_v2
    #define cuMemcpyHtoD                    __CUDA_API_PTDS(cuMemcpyHtoD_v2)
    #define cuStreamQuery                   __CUDA_API_PTSZ(cuStreamQuery)
#define CUDA_VERSION 13050
CUresult CUDAAPI cuInit(unsigned int Flags);
CUresult CUDAAPI cuMemAlloc(CUdeviceptr *dptr, size_t bytesize);
typedef void (CUDA_CB *CUhostFn)(void *userData);
"""
NVML_H = """\
#define nvmlInit                                nvmlInit_v2
nvmlReturn_t DECLDIR nvmlInit_v2(void);
nvmlReturn_t DECLDIR nvmlShutdown(void);
"""


def test_names_include_versions_and_per_thread_streams() -> None:
    assert stubs.cuda_functions(CUDA_H) == (
        "cuInit",
        "cuMemAlloc",
        "cuMemAlloc_v2",
        "cuMemcpyHtoD_v2",
        "cuMemcpyHtoD_v2_ptds",
        "cuStreamQuery",
        "cuStreamQuery_ptsz",
    )
    assert stubs.nvml_functions(NVML_H) == ("nvmlInit_v2", "nvmlShutdown")


def test_the_loader_takes_a_stub_and_each_function_returns_the_error(tmp_path: Path) -> None:
    machine = {"x86_64": "x86_64", "aarch64": "aarch64"}[_machine()]
    names = [f"cuFunction{number}" for number in range(700)]
    path = tmp_path / "libcuda.so"
    path.write_bytes(stubs.library("libcuda.so.1", names, machine=machine, result=stubs.CUDA_ERROR_STUB_LIBRARY))
    library = ctypes.CDLL(str(path))
    assert {getattr(library, name)() for name in names} == {34}
    with pytest.raises(AttributeError):
        _ = library.cuUnknown


@pytest.mark.parametrize(("machine", "number"), [("x86_64", elf.EM_X86_64), ("aarch64", elf.EM_AARCH64)])
def test_a_stub_carries_its_soname(machine: str, number: int) -> None:
    data = stubs.library("libcuda.so.1", ["cuInit"], machine=machine, result=34)
    assert elf.read(data) == elf.Elf(bits=64, machine=number, soname="libcuda.so.1")


def test_code_of_arm_is_one_move_and_a_return() -> None:
    data = stubs.library("libcuda.so.1", ["cuInit"], machine="aarch64", result=34)
    assert struct.pack("<II", 0x52800440, 0xD65F03C0) in data


def test_equal_names_in_any_order_give_equal_bytes() -> None:
    one = stubs.library("libcuda.so.1", ["cuB", "cuA", "cuA"], machine="x86_64", result=34)
    assert one == stubs.library("libcuda.so.1", ["cuA", "cuB"], machine="x86_64", result=34)


def _machine() -> str:
    import os

    return os.uname().machine
