"""doctor: why a GPU does not reach a container, as a chain of facts in which the first broken link is named.

Each link of the chain needs the one before, so what comes after a failure is not
tried. What this host offers besides (runtime, kernel features, store) is reported
next to it, link by link apart. Nothing is changed.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Error, NotFound, Unauthorized, Unsupported
from ..gpu import nvml
from ..gpu.devices import Nodes
from ..gpu.driver import Driver
from ..gpu.inventory import installed_gpus, module_version, visible_gpus
from ..gpu.roots import DriverRoots, Folder

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..gpu.inventory import Gpu
    from ..linux.features import HostFeatures
    from ..runtime.oci_runtime import OciRuntime

Status = Literal["ok", "failed", "not reached", "skipped", "absent"]
_NVIDIA_VENDOR = "0x10de"  # pci.ids
_DISPLAY_CLASSES = ("0x0300", "0x0302")  # VGA and 3D controllers
#: Features that change how things are done, not whether they can be.
_FEATURES = {
    "overlay": "overlay",
    "overlay_userns": "rootless overlay",
    "erofs_file": "EROFS layers",
    "idmapped_mounts": "id-mapped mounts",
}


class Check(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One link. *failed*: broken, see hint; *not reached*: an earlier one is; *absent*: done without."""

    name: str
    status: Status
    fact: str
    hint: str = ""


class Diagnosis(msgspec.Struct, frozen=True, kw_only=True):
    """All checks in their order: the chain to a GPU, then the host."""

    gpu: tuple[Check, ...]
    host: tuple[Check, ...]

    @property
    def first_missing(self) -> Check | None:
        """The first broken link of the chain to a GPU; None when it is whole."""
        return next((check for check in self.gpu if check.status == "failed"), None)


def examine(
    roots: DriverRoots,
    *,
    find_runtime: Callable[[], OciRuntime],
    probe_features: Callable[[], HostFeatures],
    store: Path,
    nvml_timeout_s: float = nvml.TIMEOUT_S,
) -> Diagnosis:
    """Check everything. The two callables may raise Errors, which become failed checks."""
    chain = _Chain(roots, nvml_timeout_s)
    return Diagnosis(gpu=tuple(chain.checks()), host=tuple(_host(find_runtime, probe_features, store)))


class _Chain:
    """The links to a GPU; each raises an Error when it is broken, else gives its fact."""

    def __init__(self, roots: DriverRoots, nvml_timeout_s: float) -> None:
        self._roots = roots
        self._timeout_s = nvml_timeout_s
        self._nodes = Nodes(roots)
        self._nvml: nvml.NvmlFacts | None = None

    def checks(self) -> Iterator[Check]:
        broken = ""
        for name, link in (
            ("kernel module", self._module),
            ("device nodes", self._device_nodes),
            ("driver libraries", self._libraries),
            ("NVML", self._management),
            ("GPUs", self._gpus),
        ):
            if broken:
                yield Check(name=name, status="not reached", fact=f"needs the {broken}")
                continue
            try:
                fact = link()
                yield Check(name=name, status="ok", fact=fact)
            except _Skipped as skipped:
                yield Check(name=name, status="skipped", fact=str(skipped))
            except Error as error:
                broken = name
                fact = ": ".join(part for part in (error.message, error.context) if part)
                yield Check(name=name, status="failed", fact=fact, hint=error.hint)

    def _module(self) -> str:
        version = module_version(self._roots)
        if version is not None:
            return f"version {version} is loaded"
        if visible_gpus(self._roots):  # gVisor and the like pass the devices on and hide the module
            return "not shown here, but its devices are there"
        where = Folder(self._roots.proc).shown("driver/nvidia/version")
        raise NotFound(
            "the nvidia kernel module is not loaded",
            code="module-not-loaded",
            context=f"no {where}; {self._hardware()}",
            hint=self._module_hint(),
        )

    def _hardware(self) -> str:
        devices = self._pci_gpus()
        if devices:
            return f"the PCI bus has an NVIDIA GPU at {', '.join(devices)}"
        dev = Folder(self._roots.dev)
        if dev.status("dxg") is not None:
            return f"{dev.shown('dxg')} is there: this is WSL 2, whose driver this release does not hand on yet"
        if Folder(self._roots.driver).status("/etc/nv_tegra_release") is not None:
            return "this is a Tegra (Jetson), whose GPU this release does not hand on yet"
        return "the PCI bus has no NVIDIA GPU"

    def _module_hint(self) -> str:
        if self._pci_gpus():
            return "as root: modprobe nvidia (and install the driver's kernel part first if there is no such module)"
        return "use a machine with an NVIDIA GPU, or name another host's folder with --driver-root"

    def _pci_gpus(self) -> tuple[str, ...]:
        sys = Folder(self._roots.sys)
        return tuple(
            name
            for name in sys.names("bus/pci/devices")
            if (sys.text(f"bus/pci/devices/{name}/vendor") or "").strip() == _NVIDIA_VENDOR
            and (sys.text(f"bus/pci/devices/{name}/class") or "").startswith(_DISPLAY_CLASSES)
        )

    def _device_nodes(self) -> str:
        gpus = installed_gpus(self._roots)
        visible = visible_gpus(self._roots)
        wanted = ["nvidiactl", "nvidia-uvm"]
        wanted += [f"nvidia{gpu.minor}" for gpu in visible] or [f"nvidia{gpu.minor}" for gpu in gpus] or ["nvidia0"]
        missing = [self._nodes.shown(name) for name in wanted if self._nodes.find(name) is None]
        if missing:
            raise NotFound(
                f"no {', '.join(missing)}",
                code="device-node-missing",
                context="the driver makes its nodes when root first uses it",
                hint="as root: nvidia-modprobe -c 0 -u; in a container, start that with its GPUs",
            )
        self._check_access(wanted)
        return "; ".join(self._shown(name) for name in wanted)

    def _check_access(self, names: list[str]) -> None:
        found = [node for name in names if (node := self._nodes.find(name)) is not None]
        closed = [node for node in found if not os.access(node.host_path, os.R_OK | os.W_OK)]
        if not closed:
            return
        status = os.stat(closed[0].host_path)
        raise Unauthorized(
            f"this user may not use {', '.join(node.host_path for node in closed)}",
            code="device-node-closed",
            context=self._shown(closed[0].path.removeprefix("/dev/")),
            hint=f"as root: usermod -a -G {_group(status.st_gid)} USER, or chmod 0666; then log in again",
        )

    def _shown(self, name: str) -> str:
        """«/dev/nvidia0 crw-rw-rw- root:root»"""
        node = self._nodes.find(name)
        status = os.stat(node.host_path) if node else None
        if status is None:
            return self._nodes.shown(name)
        owner = f"{_user(status.st_uid)}:{_group(status.st_gid)}"
        return f"{self._nodes.shown(name)} {stat.filemode(status.st_mode)} {owner}"

    def _libraries(self) -> str:
        driver = Driver.find(self._roots)
        driver.check_versions()
        found = driver.libraries(frozenset({"compute", "utility"}))
        if not any(library.base == "libcuda" for library in found):
            raise driver.no_libcuda()
        folders = dict.fromkeys(os.path.dirname(library.host_path) for library in found)
        return f"version {driver.version}, {len(found)} files in {', '.join(folders)}"

    def _management(self) -> str:
        driver = Driver.find(self._roots)
        if not driver.is_running:
            raise _Skipped("not asked, since this driver is not the running kernel's")
        library = driver.nvml()
        if library is None:
            raise NotFound(
                f"no libnvidia-ml.so.{driver.version}",
                code="nvml-missing",
                hint="install nvidia-smi's package: libnvidia-ml1 on Debian, nvidia-driver-cuda-libs on RHEL",
            )
        self._nvml = nvml.ask(library, timeout_s=self._timeout_s)
        return f"driver {self._nvml.driver_version}, CUDA up to {self._nvml.cuda_version}, {len(self._nvml.gpus)} GPUs"

    def _gpus(self) -> str:
        gpus = visible_gpus(self._roots)
        if self._nvml is not None:
            gpus = nvml.with_facts(gpus, self._nvml)
        if not gpus:
            raise Unsupported(
                "the driver has no GPU to give",
                code="no-nvidia-gpu",
                hint="look at dmesg for NVRM lines: a GPU that fails to start is left out",
            )
        return "; ".join(map(_described, gpus))


class _Skipped(Exception):
    """A link that says nothing here."""


def _described(gpu: Gpu) -> str:
    parts = [str(gpu)]
    if gpu.memory_bytes is not None:
        parts.append(f"{gpu.memory_bytes / 2**30:.0f} GiB")
    if gpu.compute_capability is not None:
        parts.append(f"compute capability {gpu.compute_capability}")
    if gpu.mig:
        parts.append("split into MIG instances")
    return "  ".join(parts)


def _host(
    find_runtime: Callable[[], OciRuntime], probe_features: Callable[[], HostFeatures], store: Path
) -> Iterator[Check]:
    yield _tried("container runtime", lambda: _runtime_fact(find_runtime()))
    yield _tried("store", lambda: _store_fact(store))
    try:
        features = probe_features()
    except Error as error:
        yield Check(name="kernel features", status="failed", fact=error.message, hint=error.hint)
        return
    privileged = features.mount.available
    for name, title in (("user_namespace", "user namespaces"), ("newuidmap", "subordinate ids")):
        feature = features.get(name)
        status: Status = "ok" if feature.available else "absent" if privileged else "failed"
        fact = "available" if feature.available else feature.reason
        if status == "absent":
            fact += "; root does without"
        yield Check(name=title, status=status, fact=fact, hint=feature.hint if status == "failed" else "")
    for name, title in _FEATURES.items():
        feature = features.get(name)
        if feature.available:
            yield Check(name=title, status="ok", fact="available")
        else:
            yield Check(name=title, status="absent", fact=feature.reason, hint=feature.hint)
    yield Check(name="control groups", status="ok" if features.cgroup != "none" else "absent", fact=features.cgroup)


def _tried(name: str, find: Callable[[], str]) -> Check:
    try:
        return Check(name=name, status="ok", fact=find())
    except Error as error:
        fact = ": ".join(part for part in (error.message, error.context) if part)
        return Check(name=name, status="failed", fact=fact, hint=error.hint)


def _runtime_fact(runtime: OciRuntime) -> str:
    return f"{runtime.version()} ({runtime.path})"


def _store_fact(store: Path) -> str:
    """The store, or the nearest folder above it that exists, must be writable."""
    place = store
    while not place.exists() and place != place.parent:
        place = place.parent
    if os.access(place, os.W_OK | os.X_OK):
        return str(store) if place == store else f"{store} (will be made)"
    raise Unauthorized(
        f"{store} is not writable",
        code="store-not-writable",
        context=f"{place} belongs to {_user(place.stat().st_uid)}",
        hint="place the store elsewhere with --root DIR or ARGOSY_ROOT",
    )


def _user(uid: int) -> str:
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    import grp

    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
