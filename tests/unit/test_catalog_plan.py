"""A plan: which layers, wheels and settings a flavour has, with the math libraries and without."""

from __future__ import annotations

import msgspec
import pytest

from argosy.catalog import recipes
from argosy.catalog.plan import Plan, Settings, layers_of, machine_of
from argosy.catalog.recipes import Versions
from argosy.catalog.wheels import Wheel
from argosy.errors import Unsupported
from argosy.oci.platform import Platform

AMD64 = Platform(os="linux", architecture="amd64")
WANTED = recipes.wanted("nvidia/cuda:13-devel", recipes.load())


def plan(*, math: bool) -> Plan:
    settings = Settings(platform=AMD64, math=math)
    names = {
        name.replace("{major}", "13")
        for flavour in ("base", "runtime", "devel")
        for layer in layers_of(WANTED, flavour, settings)
        for name in layer.wheels
    }
    wheels = {name: Wheel(project=name, version="13.1", file=f"{name}.whl", sha256="0" * 64, size=1) for name in names}
    return Plan(
        wanted=WANTED,
        settings=settings,
        versions=Versions(version="13.5.0", of=dict.fromkeys(names, "13.1"), machine="x86_64", driver="580"),
        wheels=wheels,
        debs=(),
        flavour_debs={},
        debian_epoch=0,
    )


def test_without_math_the_large_libraries_are_in_no_layer_and_no_variable() -> None:
    small, whole = plan(math=False), plan(math=True)
    assert {layer.title for layer in whole.layers("runtime")} - {layer.title for layer in small.layers("runtime")} == {
        "CUDA runtime compilation",
        "cuBLAS",
        "cuFFT and cuRAND",
        "cuSOLVER",
        "cuSPARSE",
        "NPP",
        "NCCL",
    }
    missing = set(whole.environment("devel")) - set(small.environment("devel"))
    assert missing == {"NV_LIBNPP_VERSION", "NV_LIBCUSPARSE_VERSION", "NV_LIBCUBLAS_VERSION", "NCCL_VERSION"}
    assert whole.wheels_of(whole.layers("runtime")[-1])[0].project == "nvidia-nccl-cu13"


def test_a_flavour_has_the_settings_of_those_below_it() -> None:
    environment = plan(math=False).environment
    assert set(environment("base")) < set(environment("runtime")) < set(environment("devel"))
    assert environment("base") == {
        "NVARCH": "x86_64",
        "NVIDIA_REQUIRE_CUDA": "cuda>=13.5 driver>=580",
        "NV_CUDA_CUDART_VERSION": "13.1",
        "CUDA_VERSION": "13.5.0",
        "PATH": "/usr/local/nvidia/bin:/usr/local/cuda/bin"
        ":/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "LD_LIBRARY_PATH": "/usr/local/nvidia/lib:/usr/local/nvidia/lib64",
        "NVIDIA_VISIBLE_DEVICES": "all",
        "NVIDIA_DRIVER_CAPABILITIES": "compute,utility",
    }


def test_what_is_built_is_the_whole_stack() -> None:
    assert plan(math=False).flavours == ("base", "runtime", "devel")
    base = msgspec.structs.replace(plan(math=False), wanted=msgspec.structs.replace(WANTED, flavour="base"))
    assert base.flavours == ("base",)


def test_other_machines_have_no_cuda() -> None:
    assert machine_of(Platform(os="linux", architecture="arm64")) == ("aarch64", "arm64")
    with pytest.raises(Unsupported) as caught:
        machine_of(Platform(os="linux", architecture="riscv64"))
    assert (caught.value.code, caught.value.message) == ("platform-unsupported", "no CUDA images for linux/riscv64")
