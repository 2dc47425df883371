"""What a usable GPU is known by, and whether it is here: the facts behind «no NVIDIA GPU visible»."""

from __future__ import annotations

import msgspec

from ..errors import NotFound
from .driver import Driver
from .inventory import module_version
from .libraries import where_looked
from .roots import DriverRoots, Folder


class Evidence(msgspec.Struct, frozen=True, kw_only=True):
    """One sign of a GPU: what was looked for, whether it was there, and where or why not."""

    what: str
    found: bool
    fact: str

    def __str__(self) -> str:
        return f"{self.what}: {self.fact}"


def gather(roots: DriverRoots) -> tuple[Evidence, ...]:
    """The signs in the order in which each needs the one before. Nothing is opened."""
    return (_module(roots), _node(roots, "nvidiactl"), _node(roots, "nvidia0"), _library(roots))


def no_gpu(roots: DriverRoots) -> NotFound:
    """The error of a request for GPUs on a host that has none to give."""
    signs = "\n".join(f"  {sign}" for sign in gather(roots))
    return NotFound(
        "no NVIDIA GPU visible",
        code="no-nvidia-gpu",
        context=f"looked for, in this order:\n{signs}",
        hint="argosy doctor names the first missing link and how to mend it",
    )


def _module(roots: DriverRoots) -> Evidence:
    what, version = Folder(roots.proc).shown("driver/nvidia/version"), module_version(roots)
    return Evidence(
        what=what,
        found=version is not None,
        fact=f"kernel module {version}" if version else "absent, the nvidia kernel module is not loaded",
    )


def _node(roots: DriverRoots, name: str) -> Evidence:
    dev = Folder(roots.dev)
    found = dev.status(name) is not None
    return Evidence(what=dev.shown(name), found=found, fact="there" if found else "absent")


def _library(roots: DriverRoots) -> Evidence:
    try:
        version = Driver.find(roots).version
    except NotFound:
        return Evidence(what="libcuda.so.*", found=False, fact=f"absent {where_looked(Folder(roots.driver))}")
    return Evidence(what="libcuda.so.*", found=True, fact=f"version {version}")
