"""NVML, the driver's management library: the dozen calls that we use, made in a child that can be killed.

A wedged driver blocks its caller in the kernel for good, so nothing here runs in
our own process: `ask` forks, the child loads the library and answers in JSON, and
after the time limit it is killed and forgotten.
Source: nvml.h of CUDA 12; the numbers and structures there are stable since CUDA 6.
"""

from __future__ import annotations

import ctypes
import os
import select
import signal
import time
from typing import TYPE_CHECKING

import msgspec

from ..errors import Error, NotFound, Unauthorized, Unavailable, Unsupported
from .inventory import Gpu, normal_bus_id

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import NoReturn

TIMEOUT_S = 30.0  # without persistence daemon a first open takes 2–3 s a GPU (gvisor#9215)
_TEXT = 96  # bytes; NVML_DEVICE_NAME_V2_BUFFER_SIZE, the largest of its texts
_NOT_SUPPORTED = 3
_FUNCTION_NOT_FOUND = 13
#: nvmlBrandType_t, by number, in the words of images' NVIDIA_REQUIRE_* variables
_BRANDS = (
    "unknown quadro tesla nvs grid geforce titan vapps vpc vcs vws cloudgaming quadrortx nvidiartx nvidia "
    "geforcertx titanrtx".split()
)

#: {nvmlReturn_t: (kind, code, what it means, hint)}; others become "nvml-failed"
_ERRORS: dict[int, tuple[type[Error], str, str, str]] = {
    4: (
        Unauthorized,
        "nvml-no-permission",
        "this user may not use the device nodes",
        "check owner, group and mode of /dev/nvidia*; the administrator may add you to their group",
    ),
    9: (Unsupported, "nvml-driver-not-loaded", "the kernel module is not loaded", "as root: modprobe nvidia"),
    10: (
        Unavailable,
        "nvml-timeout",
        "the driver did not answer in time",
        "try again; then look at dmesg for Xid lines",
    ),
    12: (NotFound, "nvml-library", "a library that it needs is missing", "install the whole user-mode driver"),
    15: (Unavailable, "gpu-lost", "a GPU has fallen off the bus", "look at dmesg for Xid 79; reboot"),
    16: (Unavailable, "gpu-needs-reset", "a GPU needs a reset", "as root: nvidia-smi --gpu-reset"),
    17: (
        Unauthorized,
        "nvml-blocked",
        "the operating system blocks the driver",
        "check cgroup device rules and SELinux",
    ),
    18: (
        Unsupported,
        "driver-version-mismatch",
        "Driver/library version mismatch",
        "the driver was upgraded under a running kernel module: reboot, or unload and load the nvidia modules",
    ),
}


class NvmlGpu(msgspec.Struct, frozen=True, kw_only=True):
    """One GPU as NVML sees it; None where the driver does not say."""

    index: int
    uuid: str
    name: str
    bus_id: str
    minor: int | None = None
    memory_bytes: int | None = None
    compute_capability: str | None = None
    brand: str | None = None
    mig: bool | None = None


class NvmlFacts(msgspec.Struct, frozen=True, kw_only=True):
    """What one round of questions gave. *cuda_version* is the newest that the driver supports («13.0»)."""

    driver_version: str
    cuda_version: str
    gpus: tuple[NvmlGpu, ...] = ()


class _Answer(msgspec.Struct, frozen=True, kw_only=True):
    """What the child sends: facts, or NVML's error, or why the library could not be loaded."""

    facts: NvmlFacts | None = None
    call: str = ""
    status: int = 0
    unloadable: str = ""


def ask(library: str, *, timeout_s: float = TIMEOUT_S) -> NvmlFacts:
    """Initialise *library* (a path of libnvidia-ml.so.*) and ask about everything, in a child.

    Raises NotFound ("nvml-unloadable"), Unavailable ("nvml-hangs") when time is over,
    and what the table above makes of NVML's own errors. Single-threaded callers only.
    """
    data = _in_child(lambda: _answer(library), timeout_s, library)
    answer = msgspec.json.decode(data, type=_Answer)
    if answer.unloadable:
        raise NotFound(
            f"{library} cannot be loaded",
            code="nvml-unloadable",
            context=answer.unloadable,
            hint="install the user-mode driver again",
        )
    if answer.facts is None:
        raise translate(answer.call, answer.status)
    return answer.facts


def translate(call: str, status: int) -> Error:
    """NVML's return value as one of our errors."""
    kind, code, meaning, hint = _ERRORS.get(
        status,
        (Unavailable, "nvml-failed", "the driver refused", "nvidia-smi may say more; look at dmesg for NVRM lines"),
    )
    return kind(meaning, code=code, context=f"{call} returned {status}", hint=hint)


def with_facts(gpus: Iterable[Gpu], facts: NvmlFacts) -> tuple[Gpu, ...]:
    """*gpus* with what NVML adds; matched by PCI address, else by device minor."""
    by_bus = {gpu.bus_id: gpu for gpu in facts.gpus}
    by_minor = {gpu.minor: gpu for gpu in facts.gpus}
    return tuple(_completed(gpu, by_bus.get(gpu.bus_id) or by_minor.get(gpu.minor)) for gpu in gpus)


def _completed(gpu: Gpu, known: NvmlGpu | None) -> Gpu:
    if known is None:
        return gpu
    return msgspec.structs.replace(
        gpu,
        uuid=known.uuid or gpu.uuid,
        name=known.name or gpu.name,
        bus_id=gpu.bus_id or known.bus_id,
        memory_bytes=known.memory_bytes,
        compute_capability=known.compute_capability,
        brand=known.brand,
        mig=known.mig,
    )


class _Memory(ctypes.Structure):
    """nvmlMemory_t"""

    _fields_ = (("total", ctypes.c_ulonglong), ("free", ctypes.c_ulonglong), ("used", ctypes.c_ulonglong))


class _Pci(ctypes.Structure):
    """nvmlPciInfo_t, version 3"""

    _fields_ = (
        ("bus_id_legacy", ctypes.c_char * 16),
        ("domain", ctypes.c_uint),
        ("bus", ctypes.c_uint),
        ("device", ctypes.c_uint),
        ("pci_device_id", ctypes.c_uint),
        ("pci_subsystem_id", ctypes.c_uint),
        ("bus_id", ctypes.c_char * 32),
    )


class _CallFailed(Exception):
    def __init__(self, call: str, status: int) -> None:
        super().__init__(call, status)
        self.call = call
        self.status = status


class _Nvml:
    """The loaded library, between nvmlInit and nvmlShutdown."""

    def __init__(self, path: str) -> None:
        self._library = ctypes.CDLL(path)
        self._call("nvmlInit_v2")

    def facts(self) -> NvmlFacts:
        count = ctypes.c_uint()
        self._call("nvmlDeviceGetCount_v2", ctypes.byref(count))
        return NvmlFacts(
            driver_version=self._text("nvmlSystemGetDriverVersion"),
            cuda_version=self._cuda_version(),
            gpus=tuple(self._gpu(index) for index in range(count.value)),
        )

    def close(self) -> None:
        self._call("nvmlShutdown")

    def _gpu(self, index: int) -> NvmlGpu:
        device = ctypes.c_void_p()
        self._call("nvmlDeviceGetHandleByIndex_v2", ctypes.c_uint(index), ctypes.byref(device))
        minor, memory, pci = ctypes.c_uint(), _Memory(), _Pci()
        major_capability, minor_capability, brand = ctypes.c_int(), ctypes.c_int(), ctypes.c_uint()
        mig, mig_pending = ctypes.c_uint(), ctypes.c_uint()
        has_minor = self._try("nvmlDeviceGetMinorNumber", device, ctypes.byref(minor))
        has_memory = self._try("nvmlDeviceGetMemoryInfo", device, ctypes.byref(memory))
        self._try("nvmlDeviceGetPciInfo_v3", device, ctypes.byref(pci))
        has_capability = self._try(
            "nvmlDeviceGetCudaComputeCapability", device, ctypes.byref(major_capability), ctypes.byref(minor_capability)
        )
        has_brand = self._try("nvmlDeviceGetBrand", device, ctypes.byref(brand))
        has_mig = self._try("nvmlDeviceGetMigMode", device, ctypes.byref(mig), ctypes.byref(mig_pending))
        return NvmlGpu(
            index=index,
            uuid=self._text("nvmlDeviceGetUUID", device),
            name=self._text("nvmlDeviceGetName", device),
            bus_id=normal_bus_id(pci.bus_id.decode(errors="replace")) if pci.bus_id else "",
            minor=minor.value if has_minor else None,
            memory_bytes=memory.total if has_memory else None,
            compute_capability=f"{major_capability.value}.{minor_capability.value}" if has_capability else None,
            brand=_BRANDS[brand.value] if has_brand and brand.value < len(_BRANDS) else None,
            mig=mig.value == mig_pending.value == 1 if has_mig else False,
        )

    def _cuda_version(self) -> str:
        version = ctypes.c_int()
        if not self._try("nvmlSystemGetCudaDriverVersion_v2", ctypes.byref(version)):
            return ""
        return f"{version.value // 1000}.{version.value % 1000 // 10}"  # 12040 is 12.4

    def _text(self, name: str, *arguments: ctypes.c_void_p) -> str:
        buffer = ctypes.create_string_buffer(_TEXT)
        found = self._try(name, *arguments, buffer, ctypes.c_uint(_TEXT))
        return buffer.value.decode(errors="replace") if found else ""

    def _try(self, name: str, *arguments: object) -> bool:
        """Call; False where this GPU or this driver does not have it."""
        try:
            self._call(name, *arguments)
        except _CallFailed as failure:
            if failure.status in (_NOT_SUPPORTED, _FUNCTION_NOT_FOUND):
                return False
            raise
        return True

    def _call(self, name: str, *arguments: object) -> None:
        try:
            function = getattr(self._library, name)
        except AttributeError:  # an older driver, or a stand-in with fewer symbols
            raise _CallFailed(name, _FUNCTION_NOT_FOUND) from None
        function.restype = ctypes.c_int
        status = function(*arguments)
        if status != 0:
            raise _CallFailed(name, status)


def _answer(library: str) -> _Answer:
    """The child's work."""
    try:
        nvml = _Nvml(library)
        facts = nvml.facts()
        nvml.close()
    except OSError as error:  # dlopen's
        return _Answer(unloadable=str(error))
    except _CallFailed as failure:
        return _Answer(call=failure.call, status=failure.status)
    return _Answer(facts=facts)


def _in_child(work: Callable[[], _Answer], timeout_s: float, library: str) -> bytes:
    """JSON of what *work* gives, made in a forked child; the child is gone or killed when this returns."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _work_and_exit(work, write_end)
    os.close(write_end)
    try:
        data = _read_until(read_end, time.monotonic() + timeout_s)
    finally:
        os.close(read_end)
        _end(pid)
    if data is None:
        raise Unavailable(
            "the NVIDIA driver does not answer",
            code="nvml-hangs",
            context=f"{library} was asked to initialise and had not finished after {timeout_s:g} s",
            hint="look at dmesg for NVRM and Xid lines; nvidia-persistenced shortens a slow first use",
        )
    if not data:
        raise Unavailable(
            "the NVIDIA driver's library ended the process that asked it",
            code="nvml-crashed",
            context=library,
            hint="install the user-mode driver again",
        )
    return data


def _work_and_exit(work: Callable[[], _Answer], write_end: int) -> NoReturn:
    try:
        null = os.open("/dev/null", os.O_RDWR)
        for fd in (0, 1, 2):  # whatever the library prints is not our output
            os.dup2(null, fd)
        os.write(write_end, msgspec.json.encode(work()))
    finally:
        os._exit(0)


def _read_until(fd: int, deadline: float) -> bytes | None:
    """All that comes until the other side closes; None when time is over."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    data = bytearray()
    while poll.poll(max(0.0, deadline - time.monotonic()) * 1000):
        chunk = os.read(fd, 1 << 16)
        if not chunk:
            return bytes(data)
        data += chunk
    return None


def _end(pid: int) -> None:
    """Kill and reap; a process stuck in the kernel cannot die yet and is left to init."""
    os.kill(pid, signal.SIGKILL)
    for _ in range(50):
        if os.waitpid(pid, os.WNOHANG)[0]:
            return
        time.sleep(0.002)
