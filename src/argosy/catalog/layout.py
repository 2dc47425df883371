"""The CUDA tree: where each member of a wheel goes, and the files that no wheel has.

The shape is that of NVIDIA's own images: /usr/local/cuda-X.Y with targets/, links
that nvcc.profile and NVIDIA's packages expect, ld.so.conf.d, stubs of the driver's
libraries. NVIDIA goes through /etc/alternatives for /usr/local/cuda; a plain link
does the same here, since an image holds one toolkit.
"""

from __future__ import annotations

import calendar
import re
import zipfile
from importlib import resources
from typing import TYPE_CHECKING

from ..layer.entry import Entry, clean_path
from ..linux import ldcache
from . import stubs
from .tree import Member, file, link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
    from pathlib import Path
    from typing import BinaryIO

    from .recipes import Recipe, Take, Versions
    from .wheels import Wheel

_LIBRARY = re.compile(r"(?P<name>lib[^/]+\.so)(?:\.[0-9.]+)?")
_LICENCE = re.compile(r"[^/]+\.dist-info/(?:licenses/)?(?P<name>[Ll]icense[^/]*|LICENSE[^/]*|NOTICE[^/]*)")
LICENCE = "NGC-DL-CONTAINER-LICENSE"
_NS = 10**9


class CudaLayout:
    """Paths of one release of a recipe. All are relative to the root of the image."""

    def __init__(self, recipe: Recipe, versions: Versions) -> None:
        self.versions = versions
        self.root = versions.fill(recipe.root)
        self.target = f"{self.root}/targets/{versions.target}"
        self.library_folders = (f"{self.target}/lib", f"usr/lib/{versions.machine}-linux-gnu")
        self._rules = tuple(
            (versions.fill(prefix), versions.fill(place, root=self.root)) for prefix, place in recipe.layout.items()
        )

    def place(self, member: str) -> str | None:
        """Where a wheel's member goes; None when it is left out."""
        for prefix, place in self._rules:
            if member.startswith(prefix):
                return place + member[len(prefix) :] if place else None
        return None

    def is_library(self, path: str) -> bool:
        """Whether programs load it: a shared library by its full name, in a folder that the loader searches."""
        above, _, name = path.rpartition("/")
        return above in self.library_folders and _LIBRARY.fullmatch(name) is not None

    def members(self, wheel: Path, take: Take) -> Iterator[Member]:
        """What one wheel brings. Data is read from the wheel when the layer is written."""
        archive = zipfile.ZipFile(
            wheel
        )  # open as long as a member can still be read: each opening parses the whole list
        for info in archive.infolist():
            path = None if info.is_dir() else self.place(info.filename)
            if path is None:
                continue
            if take == "all" or (take == "libraries") == self.is_library(path):
                yield _member(archive, info, path)

    def licence(self, wheel: Path) -> bytes:
        """The licence text that the wheel carries; empty when it has none."""
        with zipfile.ZipFile(wheel) as archive:
            names = [name for name in archive.namelist() if _LICENCE.fullmatch(name)]
            return archive.read(min(names)) if names else b""

    def licences(self, wheels: Sequence[Wheel], paths: Sequence[Path], *, epoch: int) -> Iterator[Member]:
        """The licence of each wheel, where its packages keep their copyright files."""
        for wheel, path in zip(wheels, paths, strict=True):
            if text := self.licence(path):
                yield file(f"usr/share/doc/{wheel.project}/copyright", text, epoch=epoch)

    def header(self, wheel: Path, name: str) -> str | None:
        """The text of a header in the wheel, None when it has no such header."""
        with zipfile.ZipFile(wheel) as archive:
            for member in archive.namelist():
                if self.place(member) == f"{self.target}/include/{name}":
                    return archive.read(member).decode(errors="replace")
        return None

    def foundation(self, licence: bytes, *, epoch: int) -> Iterator[Member]:
        """What the lowest CUDA layer has besides libraries: links, the loader's configuration, the licence."""
        major, short, target = self.versions.major, self.versions.short, self.versions.target
        yield link("usr/local/cuda", f"cuda-{short}", epoch=epoch)
        yield link(f"usr/local/cuda-{major}", f"cuda-{short}", epoch=epoch)
        for name in ("lib64", "lib"):  # nvcc.profile says lib, everybody else lib64
            yield link(f"{self.root}/{name}", f"targets/{target}/lib", epoch=epoch)
        libraries = f"/usr/local/cuda/targets/{target}/lib\n"
        yield file("etc/ld.so.conf.d/000_cuda.conf", libraries, epoch=epoch)
        yield file(
            f"etc/ld.so.conf.d/988_cuda-{major}.conf", f"/usr/local/cuda-{major}/targets/{target}/lib\n", epoch=epoch
        )
        yield file("etc/ld.so.conf.d/nvidia.conf", "/usr/local/nvidia/lib\n/usr/local/nvidia/lib64\n", epoch=epoch)
        if licence:
            yield file(LICENCE, licence, epoch=epoch)

    def entrypoint(self, *, epoch: int) -> Iterator[Member]:
        """Our own /opt/nvidia/nvidia_entrypoint.sh and its parts."""
        files = resources.files(__package__).joinpath("files/cuda")
        script = files.joinpath("nvidia_entrypoint.sh").read_bytes()
        yield file("opt/nvidia/nvidia_entrypoint.sh", script, epoch=epoch, mode=0o755)
        parts = sorted(files.joinpath("entrypoint.d").iterdir(), key=lambda part: part.name)
        for part in parts:
            yield file(f"opt/nvidia/entrypoint.d/{part.name}", part.read_bytes(), epoch=epoch)

    def development(
        self, libraries: Iterable[str], header: Callable[[str], str | None], *, epoch: int
    ) -> Iterator[Member]:
        """What linking needs: «libX.so» for every library, the stubs of the driver's libraries, folder links."""
        target = self.versions.target
        yield link(f"{self.root}/include", f"targets/{target}/include", epoch=epoch)
        yield link(f"{self.root}/extras/CUPTI/include", f"../../targets/{target}/include", epoch=epoch)
        yield link(f"{self.root}/extras/CUPTI/lib64", f"../../targets/{target}/lib", epoch=epoch)
        for path, linked in self.development_links(libraries).items():
            yield link(path, linked, epoch=epoch)
        machine = self.versions.machine
        if (text := header("cuda.h")) is not None:
            more = "".join(header(name) or "" for name in ("cudaGL.h", "cudaEGL.h", "cudaVDPAU.h", "cudaProfiler.h"))
            functions = stubs.cuda_functions(text + more)
            result = stubs.CUDA_ERROR_STUB_LIBRARY
            stub = stubs.library("libcuda.so.1", functions, machine=machine, result=result)
            yield file(f"{self.target}/lib/stubs/libcuda.so", stub, epoch=epoch)
        if (text := header("nvml.h")) is not None:
            functions, result = stubs.nvml_functions(text), stubs.NVML_ERROR_LIBRARY_NOT_FOUND
            stub = stubs.library("libnvidia-ml.so.1", functions, machine=machine, result=result)
            yield file(f"{self.target}/lib/stubs/libnvidia-ml.so", stub, epoch=epoch)

    def development_links(self, libraries: Iterable[str]) -> dict[str, str]:
        """{…/libX.so: libX.so.N} for the libraries at *libraries* that have a version in their name."""
        links = {}
        for path in libraries:
            above, _, name = path.rpartition("/")
            match = _LIBRARY.fullmatch(name)
            if match is not None and match["name"] != name:
                links[f"{above}/{match['name']}"] = name
        return links

    def loader_cache(self, below: bytes, libraries: Iterable[str]) -> bytes:
        """ld.so.cache of an image: *below*, that of its Debian, and *libraries* under the names that ldconfig gives."""
        flags = ldcache.FLAGS[self.versions.machine, 64]
        ours = [
            ldcache.Entry(name=path.rpartition("/")[2], path=self._searched(path), flags=flags)
            for path in sorted(libraries)
        ]
        return ldcache.render(ldcache.merge(ldcache.parse(below), ours))

    def _searched(self, path: str) -> str:
        """The path by which ldconfig comes to it: through /usr/local/cuda, as 000_cuda.conf says."""
        if path.startswith(f"{self.root}/"):
            return f"/usr/local/cuda/{path[len(self.root) + 1 :]}"
        return f"/lib/{path.removeprefix('usr/lib/')}"  # x86_64-linux-gnu.conf names /lib first, and that is merged


def versions_file(versions: Versions, wheels: Mapping[str, str]) -> str:
    """version.json as NVIDIA's toolkits carry it: which components are here, at which versions."""
    import json

    components = {"cuda": {"name": "CUDA SDK", "version": versions.version}}
    for project, version in sorted(wheels.items()):
        key = project.removeprefix("nvidia-").replace("-", "_")
        components[key] = {"name": project, "version": version}
    return json.dumps(components, indent=3) + "\n"


def newest_member(wheel: Path) -> int:
    """When the newest member of a wheel was made, in seconds of the epoch (zip times have no zone; taken as UTC)."""
    with zipfile.ZipFile(wheel) as archive:
        return max(_seconds(info) for info in archive.infolist())


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, path: str) -> Member:
    """Modes are normal ones: the wheels have 0744 for tools and group-writable folders."""
    executable = info.external_attr >> 16 & 0o100
    entry = Entry(
        path=clean_path(path.encode()),
        kind="file",
        mode=0o755 if executable else 0o644,
        size=info.file_size,
        mtime_ns=_seconds(info) * _NS,
    )
    return Member(entry=entry, data=_opener(archive, info))


def _seconds(info: zipfile.ZipInfo) -> int:
    return calendar.timegm((*info.date_time, 0, 0, 0))


def _opener(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> Callable[[], BinaryIO]:
    return lambda: archive.open(info)  # type: ignore[return-value]  # IO[bytes] has all that is used
