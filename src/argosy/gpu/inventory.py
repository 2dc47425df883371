"""The GPUs of a host as values, from procfs alone: no library is loaded and no device opened.

Opening /dev/nvidia0 costs seconds on a machine without the persistence daemon, so
the facts that need NVML (memory, compute capability) are added only when asked for.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from .roots import DriverRoots, Folder

if TYPE_CHECKING:
    from collections.abc import Iterable

_GPUS = "driver/nvidia/gpus"
_VERSION_FILE = "driver/nvidia/version"
_NODE = re.compile(r"nvidia([0-9]{1,4})")
_MODULE_VERSION = re.compile(r"Module(?: for \S+)?\s+([0-9]+(?:\.[0-9]+)+)")


class Gpu(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One GPU. *index* is NVML's: the place by PCI address among the GPUs that are visible here."""

    index: int
    #: N of /dev/nvidiaN; need not equal the index
    minor: int
    uuid: str = ""
    name: str = ""
    #: as sysfs writes it: 0000:3b:00.0
    bus_id: str = ""
    #: None until NVML was asked
    memory_bytes: int | None = None
    compute_capability: str | None = None
    #: in the words that images use in NVIDIA_REQUIRE_*: tesla, geforce, nvidia, …
    brand: str | None = None
    #: split into MIG instances; None until NVML was asked
    mig: bool | None = None

    def __str__(self) -> str:
        return "  ".join(part for part in (str(self.index), self.name or "NVIDIA GPU", self.uuid, self.bus_id) if part)


def module_version(roots: DriverRoots) -> str | None:
    """Version of the loaded kernel module; None when none is loaded (or says none)."""
    found = _MODULE_VERSION.search(Folder(roots.proc).text(_VERSION_FILE) or "")
    return found[1] if found else None


def installed_gpus(roots: DriverRoots) -> tuple[Gpu, ...]:
    """GPUs that the kernel module drives, by PCI address; excluded ones are left out.

    A container of somebody else's shows them all in procfs, also those it has no node for.
    """
    proc = Folder(roots.proc)
    found = (_gpu(bus_id, proc.text(f"{_GPUS}/{bus_id}/information")) for bus_id in proc.names(_GPUS))
    return _numbered(gpu for gpu in found if gpu is not None)


def visible_gpus(roots: DriverRoots) -> tuple[Gpu, ...]:
    """GPUs that this host can hand out: they have a device node, and if procfs lists GPUs it lists them."""
    minors = _minors_with_node(roots)
    installed = installed_gpus(roots)
    if not installed:  # sandboxes such as gVisor have the nodes but not the folder
        return tuple(Gpu(index=index, minor=minor) for index, minor in enumerate(minors))
    return _numbered(gpu for gpu in installed if gpu.minor in minors)


def normal_bus_id(text: str) -> str:
    """sysfs's form of a PCI address: NVML writes eight digits of domain and upper case."""
    domain, _, rest = text.lower().partition(":")
    return f"{domain[-4:]:0>4}:{rest}"


def _minors_with_node(roots: DriverRoots) -> tuple[int, ...]:
    names = (_NODE.fullmatch(name) for name in Folder(roots.dev).names("/"))
    return tuple(sorted(int(name[1]) for name in names if name))


def _gpu(bus_id: str, text: str | None) -> Gpu | None:
    """One file of procfs: lines «Key: value», with keys in any order."""
    pairs = (line.partition(":") for line in (text or "").splitlines())
    facts = {key.strip().lower(): value.strip() for key, _, value in pairs}
    minor = facts.get("device minor", "")
    excluded = facts.get("gpu excluded") or facts.get("blacklisted") or "no"  # the old name of the same line
    if not minor.isdecimal() or excluded.lower() == "yes":
        return None
    uuid = facts.get("gpu uuid", "")
    return Gpu(
        index=0,
        minor=int(minor),
        uuid=uuid if "?" not in uuid else "",  # «GPU-????????-…» until the GPU was first opened
        name=facts.get("model", ""),
        bus_id=normal_bus_id(facts.get("bus location") or bus_id),
    )


def _numbered(gpus: Iterable[Gpu]) -> tuple[Gpu, ...]:
    ordered = sorted(gpus, key=lambda gpu: gpu.bus_id)
    return tuple(msgspec.structs.replace(gpu, index=index) for index, gpu in enumerate(ordered))
