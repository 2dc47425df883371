"""NVML through ctypes: with a small library that we compile, and with things that are no NVML."""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Error, NotFound, Unavailable, Unsupported
from argosy.gpu import nvml
from argosy.gpu.inventory import Gpu
from argosy.gpu.nvml import NvmlFacts, NvmlGpu
from support.nvml import compiled

if TYPE_CHECKING:
    from pathlib import Path


def test_everything_is_asked_in_one_round(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert nvml.ask(compiled(tmp_path)) == NvmlFacts(
        driver_version="550.54.15",
        cuda_version="12.4",
        gpus=(
            NvmlGpu(
                index=0,
                uuid="GPU-1234",
                name="NVIDIA A100",
                bus_id="0000:3b:00.0",
                minor=3,
                memory_bytes=40 << 30,
                compute_capability="8.0",
                brand="nvidia",
                mig=False,
            ),
        ),
    )
    assert capfd.readouterr() == ("", "")  # the library's own output is not ours


@pytest.mark.parametrize(
    ("status", "kind", "code", "message"),
    [
        (18, Unsupported, "driver-version-mismatch", "Driver/library version mismatch"),
        (9, Unsupported, "nvml-driver-not-loaded", "the kernel module is not loaded"),
        (999, Unavailable, "nvml-failed", "the driver refused"),
    ],
)
def test_nvmls_errors_become_ours(tmp_path: Path, status: int, kind: type[Error], code: str, message: str) -> None:
    with pytest.raises(kind) as caught:
        nvml.ask(compiled(tmp_path, init=status))
    error = caught.value
    assert (error.code, error.message, error.context) == (code, message, f"nvmlInit_v2 returned {status}")


def test_a_library_that_is_none_says_why(tmp_path: Path) -> None:
    (tmp_path / "libnvidia-ml.so.1").write_bytes(b"not a library" * 99)
    with pytest.raises(NotFound) as caught:
        nvml.ask(str(tmp_path / "libnvidia-ml.so.1"))
    assert caught.value.code == "nvml-unloadable"
    assert "invalid ELF header" in caught.value.context


def test_another_library_is_not_taken_for_nvml() -> None:
    with pytest.raises(Unavailable) as caught:
        nvml.ask("libc.so.6")
    assert (caught.value.code, caught.value.context) == ("nvml-failed", "nvmlInit_v2 returned 13")


def test_a_driver_that_hangs_is_given_up(tmp_path: Path) -> None:
    """Opening a pipe nobody writes to blocks, as a wedged driver does."""
    os.mkfifo(tmp_path / "libnvidia-ml.so.1")
    began = time.monotonic()
    with pytest.raises(Unavailable) as caught:
        nvml.ask(str(tmp_path / "libnvidia-ml.so.1"), timeout_s=0.2)
    assert caught.value.code == "nvml-hangs"
    assert time.monotonic() - began < 5


def test_facts_are_added_to_the_gpu_at_the_same_address() -> None:
    known = NvmlGpu(
        index=0, uuid="GPU-1", name="A100", bus_id="0000:3b:00.0", memory_bytes=1, compute_capability="8.0", mig=True
    )
    facts = NvmlFacts(driver_version="1", cuda_version="12.4", gpus=(known,))
    first, other = Gpu(index=1, minor=4, bus_id="0000:3b:00.0"), Gpu(index=0, minor=5, bus_id="0000:01:00.0")
    assert nvml.with_facts((other, first), facts) == (
        other,
        Gpu(
            index=1,
            minor=4,
            uuid="GPU-1",
            name="A100",
            bus_id="0000:3b:00.0",
            memory_bytes=1,
            compute_capability="8.0",
            mig=True,
        ),
    )
