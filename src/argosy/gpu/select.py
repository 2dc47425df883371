"""Which GPUs a container is to get: Docker's --gpus, NVIDIA_VISIBLE_DEVICES, NVIDIA_DRIVER_CAPABILITIES.

Text becomes a GpuRequest here; a request chooses among the GPUs of a host without
touching it. What cannot be given is an error, never silently fewer GPUs.
Source: docker CLI opts/gpus.go (grammar), nvidia-container-toolkit internal/config/image (variables).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput, NotFound, Unsupported
from .contents import CAPABILITIES, DEFAULT_CAPABILITIES
from .inventory import normal_bus_id

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .inventory import Gpu

ALL = -1
_GENERIC = ("gpu", "nvidia")  # Docker's words for the kind of device, no capabilities of the driver
_DRIVERS = ("", "nvidia")


class GpuRequest(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One request: the first *count* GPUs (ALL: every one), or those named in *ids*; never both."""

    count: int = 0
    ids: tuple[str, ...] = ()
    #: capabilities of the driver that were named; () leaves it to NVIDIA_DRIVER_CAPABILITIES
    capabilities: tuple[str, ...] = ()
    options: Mapping[str, str] = msgspec.field(default_factory=dict)
    #: the driver's files and control nodes, but no GPU (NVIDIA_VISIBLE_DEVICES=none)
    driver_only: bool = False

    @classmethod
    def parse(cls, text: str) -> GpuRequest:
        """The value of --gpus: `all`, `2`, `device=1`, `"device=0,2"`, `count=2,capabilities=utility`, ….

        One CSV record; fields are `key=value` or a count. Raises InvalidInput (code
        "gpu-request-invalid").
        """
        fields = _fields(text)
        if "count" in fields and "device" in fields:
            raise _invalid(
                text, "a count and a list of devices exclude each other", "quote a list with commas: '\"device=0,2\"'"
            )
        if fields.get("driver", "") not in _DRIVERS:
            raise _invalid(text, f"there is no driver {fields['driver']!r}", "leave it out, or write driver=nvidia")
        ids = tuple(_named(text, fields["device"])) if "device" in fields else ()
        return cls(
            count=0 if ids else _count(text, fields.get("count", "1")),
            ids=ids,
            capabilities=_driver_capabilities(text, fields.get("capabilities", "")),
            options=_options(text, fields.get("options", "")),
        )

    @classmethod
    def from_visible_devices(cls, value: str | None) -> GpuRequest | None:
        """What a value of NVIDIA_VISIBLE_DEVICES asks for; None for «no injection» (unset, empty, `void`).

        `none` asks for the driver without a GPU; `all` in a list is all of them.
        """
        members = tuple(member.strip() for member in (value or "").split(",") if member.strip())
        if not members or "void" in members:
            return None
        if "all" in members:
            return cls(count=ALL)
        if "none" in members:
            return cls(driver_only=True)
        return cls(ids=tuple(dict.fromkeys(members)))

    @property
    def is_empty(self) -> bool:
        """Nothing at all is asked for (`--gpus 0`)."""
        return self.count == 0 and not self.ids and not self.driver_only

    def select(self, gpus: Sequence[Gpu]) -> tuple[Gpu, ...]:
        """The GPUs of *gpus* that are meant, each once, in the order of the request.

        Raises NotFound (codes "gpu-unknown", "not-enough-gpus"; the context lists what
        there is), InvalidInput ("gpu-ambiguous"), Unsupported ("mig-unsupported").
        """
        if self.count == ALL or "all" in self.ids:
            return tuple(gpus)
        if self.count > len(gpus):
            raise NotFound(
                f"{self.count} GPUs asked for, {len(gpus)} here",
                code="not-enough-gpus",
                context=_listing(gpus),
                hint="--gpus all takes those that there are",
            )
        if self.ids:
            return tuple(dict.fromkeys(_find(name, gpus) for name in self.ids))
        return tuple(gpus[: self.count])


def parse_capabilities(text: str | None) -> tuple[str, ...]:
    """A value of NVIDIA_DRIVER_CAPABILITIES; unset and empty mean utility and compute, `all` every one.

    Raises InvalidInput (code "capability-unknown") listing the valid ones.
    """
    words = tuple(word.strip() for word in (text or "").split(",") if word.strip())
    if not words:
        return DEFAULT_CAPABILITIES
    if "all" in words:
        # 32-bit libraries only when named: hardly a host has them, and the images that do not name them need none
        return tuple(word for word in CAPABILITIES if word != "compat32" or word in words)
    unknown = [word for word in words if word not in CAPABILITIES]
    if unknown:
        raise InvalidInput(
            f"unknown driver capability {unknown[0]!r}",
            code="capability-unknown",
            context=f"capabilities are {', '.join(CAPABILITIES)} and all",
            hint="set NVIDIA_DRIVER_CAPABILITIES by -e, or name them in --gpus 'all,\"capabilities=utility,compute\"'",
        )
    return tuple(word for word in CAPABILITIES if word in words)


def _fields(text: str) -> dict[str, str]:
    """{key: value} of the record; a field without «=» is the count."""
    fields: dict[str, str] = {}
    for field in _record(text, text):
        key, equals, value = field.partition("=")
        key, value = (key, value) if equals else ("count", key)
        if key not in ("count", "device", "driver", "capabilities", "options"):
            raise _invalid(text, f"unexpected key {key!r}", "keys are count, device, driver, capabilities and options")
        if key in fields:
            raise _invalid(text, f"{key} is there twice", "quote a list with commas: '\"device=0,2\"'")
        fields[key] = value
    return fields


def _record(text: str, whole: str) -> list[str]:
    """The fields of one CSV record. Source: RFC 4180; a quote within an unquoted field is refused as Go does."""
    if not text or "\n" in text or "\r" in text:
        raise _invalid(whole, "it is empty" if not text else "it is more than one line", "--gpus all")
    fields, position = [], 0
    while position <= len(text):
        read = _quoted_field if text.startswith('"', position) else _bare_field
        field, position = read(text, position, whole)
        fields.append(field)
    return fields


def _bare_field(text: str, start: int, whole: str) -> tuple[str, int]:
    """(field, where the next begins)"""
    field = text[start:].partition(",")[0]
    if '"' in field:
        raise _invalid(whole, "a quote inside a field that is not quoted", "quote a whole field: '\"device=0,2\"'")
    return field, start + len(field) + 1


def _quoted_field(text: str, start: int, whole: str) -> tuple[str, int]:
    end = start + 1
    while (end := text.find('"', end)) >= 0 and text.startswith('""', end):
        end += 2
    if end < 0 or text[end + 1 : end + 2] not in ("", ","):
        raise _invalid(whole, "a quoted field does not end with its quote", "quote a whole field: '\"device=0,2\"'")
    return text[start + 1 : end].replace('""', '"'), end + 2


def _count(text: str, value: str) -> int:
    if value in ("all", str(ALL)):
        return ALL
    if not value.isascii() or not value.isdecimal():
        raise _invalid(
            text, f"{value!r} is neither «all» nor a number of GPUs", "name GPUs with device=0 or device=GPU-…"
        )
    return min(int(value), 1 << 31) if len(value) < 11 else 1 << 31  # more than any host has, whatever it is


def _named(text: str, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",")]
    if not all(names):
        raise _invalid(text, "a device without a name", "device=0, or device=GPU-…")
    return list(dict.fromkeys(names))


def _driver_capabilities(text: str, value: str) -> tuple[str, ...]:
    words = tuple(word.strip() for word in value.split(",") if word.strip() and word.strip() not in _GENERIC)
    return parse_capabilities(",".join(words)) if words else ()


def _options(text: str, value: str) -> Mapping[str, str]:
    if not value:
        return {}
    pairs = (field.partition("=") for field in _record(value, text))
    return {key: word for key, _, word in pairs}


def _find(name: str, gpus: Sequence[Gpu]) -> Gpu:
    """The GPU with this index, UUID, unique beginning of a UUID, or PCI address."""
    if name.upper().startswith("MIG-") or _is_mig_index(name):
        raise Unsupported(
            f"MIG device {name!r} cannot be given yet",
            code="mig-unsupported",
            context="this release hands out whole GPUs",
            hint="name the whole GPU by index or UUID, or switch MIG off: nvidia-smi -mig 0",
        )
    if name.isascii() and name.isdecimal():
        found = [gpu for gpu in gpus if str(gpu.index) == name]
    else:
        found = [gpu for gpu in gpus if gpu.bus_id and gpu.bus_id == normal_bus_id(name)]
        found = found or _by_uuid(name, gpus)
    if len(found) > 1:
        raise InvalidInput(
            f"{name!r} is the beginning of {len(found)} GPUs' names",
            code="gpu-ambiguous",
            context=_listing(found),
            hint="write more of the UUID",
        )
    if not found:
        raise NotFound(f"no GPU {name!r}", code="gpu-unknown", context=_listing(gpus), hint="name one by index or UUID")
    return found[0]


def _by_uuid(name: str, gpus: Sequence[Gpu]) -> list[Gpu]:
    wanted = name.lower() if name.lower().startswith("gpu-") else f"gpu-{name.lower()}"
    if wanted == "gpu-":
        return []
    exact = [gpu for gpu in gpus if gpu.uuid.lower() == wanted]
    return exact or [gpu for gpu in gpus if gpu.uuid.lower().startswith(wanted)]


def _is_mig_index(name: str) -> bool:
    gpu, colon, instance = name.partition(":")
    return bool(colon) and gpu.isdecimal() and instance.isdecimal()


def _listing(gpus: Sequence[Gpu]) -> str:
    return "\n".join(map(str, gpus)) or "there are no GPUs here"


def _invalid(text: str, fact: str, hint: str) -> InvalidInput:
    return InvalidInput(f"not a GPU request: {text!r}", code="gpu-request-invalid", context=fact, hint=hint)
