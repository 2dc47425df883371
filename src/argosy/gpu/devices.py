"""Device nodes of the driver: which there are, and with which numbers a container gets them.

On this machine only character devices count, and their major number must be the
one that /proc/devices gives the driver, so that a node somebody put there for
another device is never handed on. Under another root a node may also be a regular
file that stands for one, holding JSON such as {"major": 195, "minor": 0} or nothing (then
the numbers follow from the name); a made-up host needs no privilege that way.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt
from ..oci.edits import DeviceNode
from .roots import DriverRoots, Folder

if TYPE_CHECKING:
    from .inventory import Gpu

NVIDIA_MAJOR = 195  # Documentation/admin-guide/devices.txt
#: {node: (names of its driver in /proc/devices, minor)}; before driver 550.40 it was «nvidia-frontend»
_CONTROL: dict[str, tuple[tuple[str, ...], int]] = {
    "nvidiactl": (("nvidia", "nvidia-frontend"), 255),
    "nvidia-uvm": (("nvidia-uvm",), 0),
    "nvidia-uvm-tools": (("nvidia-uvm",), 1),
    "nvidia-modeset": (("nvidia", "nvidia-frontend"), 254),
}
_GPU_DRIVER = ("nvidia", "nvidia-frontend")
_DISPLAY = frozenset({"graphics", "display"})


class _StandIn(msgspec.Struct, frozen=True, kw_only=True):
    """What a regular file in the place of a node may say."""

    major: int | None = None
    minor: int | None = None
    mode: int = 0o666
    uid: int = 0
    gid: int = 0


class Nodes:
    """The nodes below one dev folder."""

    def __init__(self, roots: DriverRoots) -> None:
        self._roots = roots
        self._dev = Folder(roots.dev)
        self._majors = _majors(Folder(roots.proc).text("devices") or "")

    def find(self, name: str) -> DeviceNode | None:
        """The node /dev/*name*, or None. Raises Corrupt for a device of another driver."""
        status, real = self._dev.status(name), self._dev.real(name)
        if status is None or real is None:
            return None
        drivers, minor = _expected(name)
        if stat.S_ISCHR(status.st_mode):
            self._check(name, drivers, status)
            return _node(name, real, status)
        if self._roots.has_real_devices or not stat.S_ISREG(status.st_mode):
            return None
        return _stand_in(name, real, self._dev.read(name) or b"", self._major(drivers), minor)

    def control(self, capabilities: frozenset[str]) -> tuple[DeviceNode, ...]:
        """Nodes that every container with the driver gets, as far as they are there."""
        names = [name for name in _CONTROL if name != "nvidia-modeset" or capabilities & _DISPLAY]
        return tuple(node for name in names if (node := self.find(name)) is not None)

    def rendering(self, gpu: Gpu) -> tuple[DeviceNode, ...]:
        """/dev/dri nodes of one GPU, for graphics."""
        names = Folder(self._roots.sys).names(f"bus/pci/devices/{gpu.bus_id}/drm") if gpu.bus_id else ()
        wanted = (f"dri/{name}" for name in names if re.fullmatch(r"(card|renderD)[0-9]+", name))
        return tuple(node for name in wanted if (node := self.find(name)) is not None)

    def shown(self, name: str) -> str:
        return self._dev.shown(name)

    def _major(self, drivers: tuple[str, ...]) -> int:
        known = (self._majors[driver] for driver in drivers if driver in self._majors)
        return next(known, NVIDIA_MAJOR if drivers == _GPU_DRIVER else 0)

    def _check(self, name: str, drivers: tuple[str, ...], status: os.stat_result) -> None:
        expected = self._major(drivers)
        if not self._roots.has_real_devices or expected in (0, os.major(status.st_rdev)):
            return
        raise Corrupt(
            f"{self.shown(name)} is not a device of the NVIDIA driver",
            code="device-node-wrong",
            context=f"its major number is {os.major(status.st_rdev)}; the driver's is {expected}",
            hint=f"remove it and let nvidia-modprobe make it again: rm {self.shown(name)}; nvidia-modprobe -c 0 -u",
        )


def _expected(name: str) -> tuple[tuple[str, ...], int]:
    """(drivers, minor) of a node by its name; no drivers when any will do."""
    if name in _CONTROL:
        return _CONTROL[name]
    number = re.fullmatch(r"nvidia([0-9]+)", name)
    return (_GPU_DRIVER, int(number[1])) if number else ((), 0)


def _majors(text: str) -> dict[str, int]:
    """{driver: major} of the character devices in /proc/devices."""
    rows = (line.split() for line in text.partition("Block devices:")[0].splitlines())
    return {row[1]: int(row[0]) for row in rows if len(row) == 2 and row[0].isdecimal()}


def _node(name: str, real: str, status: os.stat_result) -> DeviceNode:
    return DeviceNode(
        path=f"/dev/{name}",
        host_path=real,
        major=os.major(status.st_rdev),
        minor=os.minor(status.st_rdev),
        file_mode=stat.S_IMODE(status.st_mode),
        uid=status.st_uid,
        gid=status.st_gid,
    )


def _stand_in(name: str, real: str, data: bytes, major: int, minor: int) -> DeviceNode | None:
    try:
        said = msgspec.json.decode(data, type=_StandIn) if data.strip() else _StandIn()
    except msgspec.MsgspecError:
        return None
    return DeviceNode(
        path=f"/dev/{name}",
        host_path=real,
        major=major if said.major is None else said.major,
        minor=minor if said.minor is None else said.minor,
        file_mode=said.mode,
        uid=said.uid,
        gid=said.gid,
    )
