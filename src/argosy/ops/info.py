"""What this installation is: the store, the runtime, the kernel's features, the driver. Changes nothing.

Each part that cannot be had says why instead of failing the whole.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

from ..errors import Error
from ..oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from pathlib import Path

    from ..gpu.roots import DriverRoots
    from ..linux.features import HostFeatures
    from ..linux.userns import UserMapping
    from ..remote.registries import Registries
    from ..runtime.oci_runtime import OciRuntime
    from ..store.listing import Row
    from ..store.records import Container

    Facts = dict[str, Any]  # what --format sees: texts, numbers, truth values, maps and lists of them


def describe_store(
    root: Path, images: Sequence[Row], containers: Sequence[Container], *, snapshots: str, local: str
) -> Facts:
    """Counts and places. *snapshots* is the kind of the snapshotter; *local* as Host.local."""
    running = sum(container.status == "running" for container in containers)
    return {
        "Root": str(root),
        "Snapshots": snapshots,
        "WritableLayers": local or str(root / "containers"),
        "Images": len({row.image_id for row in images}),
        "Names": len(images),
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersStopped": len(containers) - running,
    }


def describe_runtime(find: Callable[[], OciRuntime]) -> Facts:
    """Which runtime starts containers here, or why none does."""
    try:
        runtime = find()
        return {
            "Name": runtime.name,
            "Version": runtime.version(),
            "Path": runtime.path,
            "CgroupManager": runtime.cgroup_manager,
            "Problem": "",
        }
    except Error as error:
        return {"Name": "", "Version": "", "Path": "", "CgroupManager": "", "Problem": error.message}


def describe_ids(mapping: UserMapping, why_single: str, features: HostFeatures) -> Facts:
    """What a user without root works with: the ids inside containers, and what is done otherwise than for root."""
    fallbacks = [
        "cgroups: containers stay in the cgroup of their argosy, without limits of their own",
        "devices: bound from the host, whose permissions decide; none can be made",
    ]
    if not features.erofs_file.available:
        fallbacks.append("layers: unpacked, as this user cannot mount EROFS")
    if mapping.is_single:
        fallbacks.append("owners: all files of images belong to root inside; -u takes 0 only")
    return {"Inside": mapping.describe(), "Reason": why_single, "Fallbacks": fallbacks}


def describe_registries(registries: Registries) -> Facts:
    """The files that speak of registries, and what they say: mirrors, other places, who is blocked or insecure."""
    facts: Facts = {"Files": registries.files, "Rules": [], "Problem": ""}
    try:
        facts["Rules"] = [
            {
                "Prefix": rule.prefix,
                "Mirrors": [mirror.location for mirror in rule.mirrors],
                "Location": rule.origin.location or rule.prefix,
                "Insecure": rule.origin.insecure,
                "Blocked": rule.blocked,
                "File": rule.file,
            }
            for rule in registries.rules()
        ]
    except Error as error:
        facts["Problem"] = f"{error.message}: {error.context}"
    return facts


def describe_features(features: HostFeatures) -> Facts:
    """{feature: available, the reason, the hint}."""
    return {
        name: {"Available": feature.available, "Reason": feature.reason, "Hint": feature.hint}
        for name, feature in features.all().items()
    }


def describe_driver(roots: Callable[[], DriverRoots]) -> Facts:
    """The NVIDIA driver and its GPUs in a few words; `doctor` tells more."""
    from ..gpu.driver import Driver
    from ..gpu.inventory import module_version, visible_gpus

    facts: Facts = {"Driver": "", "Module": "", "Root": "", "GPUs": [], "Problem": ""}
    try:
        places = roots()
        facts["Root"] = str(places.driver)
        facts["Module"] = module_version(places) or ""
        facts["GPUs"] = [
            {"Index": gpu.index, "Name": gpu.name, "UUID": gpu.uuid, "BusID": gpu.bus_id}
            for gpu in visible_gpus(places)
        ]
        facts["Driver"] = Driver.find(places).version
    except Error as error:
        facts["Problem"] = error.message
    return facts


def describe_machine() -> Facts:
    """Kernel, distribution, processors, memory in bytes."""
    kernel = os.uname()
    return {
        "KernelVersion": kernel.release,
        "OperatingSystem": _distribution(),
        "OSType": "linux",
        "Architecture": kernel.machine,
        "NCPU": len(os.sched_getaffinity(0)),
        "MemTotal": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
        "Name": kernel.nodename,
    }


def _distribution() -> str:
    for path in ("/etc/os-release", "/usr/lib/os-release"):
        try:
            with open(path, encoding="utf-8", errors="replace") as file:
                fields = dict(line.rstrip("\n").partition("=")[::2] for line in file)
        except OSError:
            continue
        return fields.get("PRETTY_NAME", "").strip("\"'")
    return ""


def versions(program: str, *, python: str, executable: str) -> Mapping[str, Any]:
    """What `version` shows, in the two halves that Docker's has; here both are one program."""
    kernel = os.uname()
    client = {
        "Version": program,
        "Os": "linux",
        "Arch": Platform.host().architecture,
        "KernelVersion": kernel.release,
        "Python": python,
        "Executable": executable,
    }
    return {"Client": client, "Server": client}
