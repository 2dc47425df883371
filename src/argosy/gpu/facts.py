"""What this host can say to an image's requirements, from what is cheap to know up to what NVML must be asked for."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error, NotFound
from . import nvml
from .branches import cuda_of
from .driver import Driver
from .inventory import module_version, visible_gpus
from .require import Facts, unmet

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .require import Failure
    from .roots import DriverRoots

_TIMEOUT_S = 10.0  # without the persistence daemon a first open takes 2–3 s a GPU


def known(roots: DriverRoots) -> Facts | None:
    """Driver and GPUs without loading a library; None when no driver runs here.

    Libraries alone are no driver: machines on which images are built and login nodes have them.
    """
    version, gpus = module_version(roots), visible_gpus(roots)
    if version is None and gpus:  # gVisor and the like pass the devices on and hide the module
        version = _library_version(roots)
    if version is None:
        return None
    return Facts(driver=version, cuda=cuda_of(version), gpus=gpus)


def unmet_here(environment: Mapping[str, str], roots: DriverRoots) -> tuple[Facts | None, tuple[Failure, ...]]:
    """(facts of this host, what it does not meet of an image's requirements). NVML is asked only if it matters.

    Without facts nothing is unmet. Single-threaded callers only.
    """
    facts = known(roots)
    if facts is None:
        return None, ()
    if unmet(environment, facts, certain=True):
        facts = _asked(roots, facts)
    return facts, unmet(environment, facts)


def _asked(roots: DriverRoots, facts: Facts) -> Facts:
    """*facts* with CUDA's version, architectures and brands as NVML tells them; as they are where it does not."""
    try:
        driver = Driver.find(roots)
        library = driver.nvml() if driver.is_running else None
        if library is None:
            return facts
        found = nvml.ask(library, timeout_s=_TIMEOUT_S)
    except Error:  # doctor says what is wrong with the driver
        return facts
    return Facts(driver=facts.driver, cuda=found.cuda_version or facts.cuda, gpus=nvml.with_facts(facts.gpus, found))


def _library_version(roots: DriverRoots) -> str | None:
    try:
        return Driver.find(roots).version
    except NotFound:
        return None
