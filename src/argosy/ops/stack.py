"""The stack of an image or container, from the GPUs of the host up to the writable layer, as values.

The figure of NVIDIA's DGX guide: what the host has, what a launch adds, what the
image brings, what is the container's own. Drawing it is the front end's work.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Error
from .history import history

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from ..gpu.driver import Driver
    from ..gpu.inventory import Gpu
    from ..gpu.roots import DriverRoots
    from ..oci.config import ImageConfig
    from ..oci.digest import Digest
    from ..oci.edits import ContainerEdits
    from ..oci.image import Image

Kind = Literal[
    "gpus", "driver", "injected", "os", "cuda-runtime", "cuda-libraries", "cuda-toolkit", "layers", "writable"
]

CATALOG = "argosy catalog: "  # how the layers of our own catalogue begin their history
#: What a launch with --gpus adds unless told otherwise (nvidia-injection.md: the default of --gpus).
_CAPABILITIES = ("compute", "utility")
#: (kind, words in the title of a catalogue's layer or among the packages that a step installs), first match wins
_WORDS: tuple[tuple[Kind, re.Pattern[str]], ...] = (
    (
        "cuda-toolkit",
        re.compile(
            r"toolkit|compiler|cuda.tools|nvcc|command-line-tools|minimal-build|cu\S*-dev(el)?\b|headers|debug|profil|cupti"
        ),
    ),
    (
        "cuda-libraries",
        re.compile(r"cuda.libraries|cublas|cufft|curand|cusolver|cusparse|npp\b|nccl|nvjpeg|nvrtc|cudnn|compilation"),
    ),
    ("cuda-runtime", re.compile(r"cuda.runtime|cudart|cuda.compat")),
)
_TITLES: dict[Kind, str] = {
    "os": "OS layer",
    "cuda-runtime": "CUDA runtime",
    "cuda-libraries": "CUDA libraries",
    "cuda-toolkit": "CUDA toolkit",
    "layers": "Your layers",
}
_LOOKED_AT = 4096  # characters of a step of the history; the time of some patterns grows with the square
_INSTALLS = re.compile(r"\b(?:apt-get|apt|dnf|microdnf|yum|zypper|apk|tdnf)\b.*\b(?:install|add)\b", re.DOTALL)


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One thing inside a slab: a layer, a GPU, a group of files."""

    name: str
    #: bytes; None where it has no size
    size: int | None = None
    #: diff-id of a layer
    digest: str = ""


class Slab(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One band of the drawing."""

    kind: Kind
    title: str
    note: str = ""
    size: int | None = None
    parts: tuple[Part, ...] = ()

    @property
    def shown_parts(self) -> tuple[Part, ...]:
        """The parts, unless there is one only and it says what the title says."""
        return () if len(self.parts) == 1 and self.parts[0].name in (self.title, self.note) else self.parts


class Stack(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole drawing; *slabs* from the bottom up."""

    name: str
    id: str
    platform: str
    #: bytes of the image's layers
    size: int
    slabs: tuple[Slab, ...]
    #: name of the container that is drawn, if it is one
    container: str = ""


def stack(
    image: Image,
    name: str,
    *,
    usage: Callable[[Digest], int | None],
    host: Sequence[Slab],
    container: str = "",
    writable: int | None = None,
) -> Stack:
    """*image* on top of *host* (see host_slabs); *writable* is the size of a container's own layer.

    Raises NotFound and Corrupt for a damaged image.
    """
    slabs = layer_slabs(image, usage=usage)
    top = (
        (Slab(kind="writable", title="Writable layer", note=f"of container {container}", size=writable),)
        if container
        else ()
    )
    return Stack(
        name=name,
        id=str(image.id),
        platform=str(image.config.platform),
        size=sum(slab.size or 0 for slab in slabs),
        slabs=(*host, *slabs, *top),
        container=container,
    )


def layer_slabs(image: Image, *, usage: Callable[[Digest], int | None]) -> tuple[Slab, ...]:
    """The image's layers, lowest first, those of one kind together."""
    steps = [step for step in reversed(history(image, usage=usage)) if step.diff_id is not None]
    kinds = kinds_of([step.created_by for step in steps])
    groups: list[tuple[Kind, list[Part]]] = []
    for step, kind in zip(steps, kinds, strict=True):
        part = Part(name=layer_name(step.created_by, step.comment), size=step.size, digest=str(step.diff_id))
        if groups and groups[-1][0] == kind:
            groups[-1][1].append(part)
        else:
            groups.append((kind, [part]))
    return tuple(_slab(kind, parts, image.config) for kind, parts in groups)


def _slab(kind: Kind, parts: list[Part], config: ImageConfig) -> Slab:
    note = _os_name(parts[0].name, config) if kind == "os" else _cuda_version(config) if kind != "layers" else ""
    return Slab(
        kind=kind, title=_TITLES[kind], note=note, size=sum(part.size or 0 for part in parts), parts=tuple(parts)
    )


def kinds_of(created_by: Sequence[str]) -> list[Kind]:
    """What each layer of an image is, lowest first. Pure.

    Up to the topmost layer that brings a part of CUDA, a layer without a name of its
    own (a licence, an ld.so.conf.d entry) belongs to the part beneath it; what stands
    above is the user's.
    """
    kinds = [_kind(text) for text in created_by]
    top = max((place for place, kind in enumerate(kinds) if kind is not None), default=-1)
    found: list[Kind] = []
    for place, kind in enumerate(kinds):
        if place == 0 and kind is None:
            found.append("layers" if created_by[0].startswith("COPY ") else "os")
        elif kind is not None:
            found.append(kind)
        else:
            found.append(found[-1] if place < top else "layers")
    return found


def _kind(created_by: str) -> Kind | None:
    title = catalog_title(created_by)
    if title is None and not _INSTALLS.search(created_by[:_LOOKED_AT]):
        return None
    text = (created_by if title is None else title)[:_LOOKED_AT].lower()
    return next((kind for kind, words in _WORDS if words.search(text)), None)


def catalog_title(created_by: str) -> str | None:
    """The title of a layer of our catalogue, without the list of what is in it; None for other layers."""
    return created_by.removeprefix(CATALOG).partition(": ")[0].strip() if created_by.startswith(CATALOG) else None


def layer_name(created_by: str, comment: str = "") -> str:
    """A layer's name for people: the catalogue's title, else the command that made it, without builders' decoration."""
    title = catalog_title(created_by)
    if title is not None:
        return title
    text = re.sub(r"\s*# buildkit$", "", created_by[:_LOOKED_AT])
    text = re.sub(r"^(?:RUN )?(?:\|\d+ (?:\S+=\S* )*)?/bin/(?:ba)?sh -[a-z]+ (?:#\(nop\) +)?", "", text)
    text = re.sub(r"^RUN ", "", text)
    words = " ".join(text.split())
    return words or comment or "layer without a history"


def _os_name(lowest: str, config: ImageConfig) -> str:
    """What the lowest layer is: from the labels, the builder's command, or the catalogue's title."""
    labels = config.labels
    name, version = (labels.get(f"org.opencontainers.image.{key}", "") for key in ("ref.name", "version"))
    debian = re.match(r"# debian\.sh .*? out/ '([a-z]+)'", lowest)
    alpine = re.search(r"alpine-minirootfs-([\d.]+)-", lowest)
    if debian:
        return f"Debian {debian[1]}"
    if alpine:
        return f"Alpine {alpine[1]}"
    if lowest.startswith(("ADD ", "COPY ")):
        return f"{name.capitalize()} {version}".strip()
    return lowest


def _cuda_version(config: ImageConfig) -> str:
    return config.environment.get("CUDA_VERSION", "")


def host_slabs(roots: Callable[[], DriverRoots]) -> tuple[Slab, ...]:
    """GPUs, driver and what `run --gpus all` adds, from the bottom up; what is missing says so."""
    from ..gpu.driver import Driver
    from ..gpu.inventory import visible_gpus

    gpus: Sequence[Gpu] = ()
    try:
        places = roots()
        gpus = visible_gpus(places)
        driver = Driver.find(places)
        edits = driver.edits(gpus, _CAPABILITIES)
    except Error as error:
        nothing = Slab(kind="injected", title="Added at launch by --gpus: nothing", note="argosy doctor says why")
        return (_gpu_slab(gpus), Slab(kind="driver", title="NVIDIA driver", note=error.message), nothing)
    return (_gpu_slab(gpus), _driver_slab(driver), _injected_slab(edits))


def _gpu_slab(gpus: Sequence[Gpu]) -> Slab:
    parts = tuple(Part(name=f"GPU {gpu.index}  {gpu.name or 'NVIDIA GPU'}", size=gpu.memory_bytes) for gpu in gpus)
    return Slab(kind="gpus", title="GPUs of this host", note="" if gpus else "none found", parts=parts)


def _driver_slab(driver: Driver) -> Slab:
    module = driver.module_version
    return Slab(
        kind="driver",
        title=f"NVIDIA driver {driver.version}",
        note=f"kernel module {module}" if module else "no kernel module loaded",
    )


def _injected_slab(edits: ContainerEdits) -> Slab:
    libraries = [mount for mount in edits.mounts if ".so" in os.path.basename(mount.container_path)]
    programs = [mount for mount in edits.mounts if "/bin/" in mount.container_path]
    others = len(edits.mounts) - len(libraries) - len(programs)
    nodes = ", ".join(_ranges([node.path.removeprefix("/dev/") for node in edits.device_nodes]))
    parts = [
        Part(name=f"{len(libraries)} driver libraries", size=_total(mount.host_path for mount in libraries)),
        Part(name=_listed("programs", [os.path.basename(mount.container_path) for mount in programs])),
        Part(name=f"{len(edits.device_nodes)} device nodes: {nodes}"),
        Part(name=f"{len(edits.links)} links, ld.so.cache" + (f", {others} other files" if others else "")),
    ]
    return Slab(kind="injected", title="Added at launch by --gpus", note="the image stays as it is", parts=tuple(parts))


def _ranges(names: Sequence[str]) -> list[str]:
    """Device names with runs of numbers taken together: nvidia0-7."""
    numbers = sorted(int(found[1]) for name in names if (found := re.fullmatch(r"nvidia(\d+)", name)))
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    shown = [f"nvidia{run[0]}" + (f"-{run[-1]}" if len(run) > 1 else "") for run in runs]
    return [*shown, *(name for name in names if not re.fullmatch(r"nvidia\d+", name))]


def _listed(what: str, names: list[str]) -> str:
    return f"{len(names)} {what}: {', '.join(names)}" if names else f"no {what}"


def _total(paths: Iterable[str]) -> int:
    total = 0
    for path in paths:
        try:
            total += os.stat(path).st_size
        except OSError:  # it was there when it was found; a size is not worth a failure
            continue
    return total
