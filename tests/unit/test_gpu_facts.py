"""What a host says to an image's requirements: made-up hosts, and an NVML that we compile."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from argosy.gpu.facts import known, unmet_here
from argosy.gpu.roots import DriverRoots
from support import driver_roots
from support.nvml import compiled

NEEDS_12_4 = {"NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=tesla,driver>=470,driver<471"}


def host(folder: Path, version: str, **options: bool) -> DriverRoots:
    return DriverRoots.under(driver_roots.build(folder, version=version, nodes="file", **options))


def library_of(roots: DriverRoots) -> Path:
    return roots.driver / f"usr/lib/{driver_roots.TRIPLET}/libnvidia-ml.so.{driver_roots.VERSION}"


def test_the_kernel_module_and_the_branch_are_enough(tmp_path: Path) -> None:
    facts = known(host(tmp_path, "535.129.03"))
    assert facts is not None
    assert (facts.driver, facts.cuda, [gpu.minor for gpu in facts.gpus]) == ("535.129.03", "12.2", [0, 1])


@pytest.mark.parametrize(("version", "refused"), [("535.129.03", True), ("470.57.02", False), ("550.54.15", False)])
def test_a_driver_that_is_too_old_is_found_out_without_a_library(tmp_path: Path, version: str, refused: bool) -> None:
    """470 passes: the brand of a made-up GPU is not known."""
    assert bool(unmet_here(NEEDS_12_4, host(tmp_path, version))[1]) is refused


def test_libraries_without_a_module_are_no_driver(tmp_path: Path) -> None:
    assert unmet_here(NEEDS_12_4, host(tmp_path, "470.57.02", module=False)) == (None, ())


def test_a_module_without_libraries_is_one(tmp_path: Path) -> None:
    facts, failures = unmet_here(NEEDS_12_4, host(tmp_path, "535.129.03", libraries=False))
    assert (facts and facts.cuda, len(failures)) == ("12.2", 1)


def test_nvml_is_asked_where_the_branch_does_not_tell(tmp_path: Path) -> None:
    """The devices are this machine's, so the driver counts as running; its NVML says 12.4."""
    roots = host(tmp_path / "host", driver_roots.VERSION)
    roots = DriverRoots(driver=roots.driver, dev=Path("/dev"), proc=roots.proc, sys=roots.sys)
    shutil.copy(compiled(tmp_path), library_of(roots))
    facts, failures = unmet_here(NEEDS_12_4, roots)
    assert (facts and facts.cuda, failures) == ("12.4", ())
    assert [failure.requirement.expression for failure in unmet_here({"NVIDIA_REQUIRE_CUDA": "cuda>=12.5"}, roots)[1]]


def test_an_nvml_that_fails_leaves_it_unknown(tmp_path: Path) -> None:
    roots = host(tmp_path / "host", driver_roots.VERSION)
    roots = DriverRoots(driver=roots.driver, dev=Path("/dev"), proc=roots.proc, sys=roots.sys)
    library_of(roots).write_bytes(b"not a library")
    facts, failures = unmet_here(NEEDS_12_4, roots)
    assert (facts and facts.cuda, failures) == (None, ())
