"""The driver's user-mode parts below a root, and the edits that put them into a container.

Files are taken only from the host, and only with the exact version that was found,
so that a second driver lying about is never mixed in. Where they go is decided by
the image (ImageLayout). GPU selection is select.py's; device nodes are devices.py's.
"""

from __future__ import annotations

import os
import re
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, NotFound, Unsupported
from ..linux import ldcache
from ..oci.edits import BindMount, ContainerEdits, DeviceNode, Link
from . import contents, elf
from .devices import Nodes
from .inventory import Gpu, module_version, visible_gpus
from .layout import ImageLayout
from .roots import DriverRoots as DriverRoots
from .roots import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

_VERSION = r"[0-9]{2,}(?:\.[0-9]+){1,3}"  # 550.54.15; libcuda.so.1.1 of WSL is no version of a driver
_VERSIONED = re.compile(rf"(lib(?:cuda|nvidia-ml))\.so\.({_VERSION})")
_SERVICE_OPTIONS = ("nosuid", "nodev", "noexec", "rbind", "rprivate")  # not ro: it broke nested Slurm (toolkit 1.18.2)


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A library file of the driver. *base* is its name without «.so…»."""

    base: str
    file_name: str
    host_path: str
    soname: str
    bits: int = 64
    #: links beside it on the host that belong to it and are no SONAME («libcuda.so»)
    links: tuple[str, ...] = ()


class Driver:
    """One version of the driver below one root.

    `find` looks for it; `gpus` and `edits` look again at each call, since devices come
    and go. The library files are listed once.
    """

    def __init__(self, roots: DriverRoots, version: str, folders: Sequence[str]) -> None:
        self.roots = roots
        #: of the libraries; the kernel module's is *module_version*
        self.version = version
        self.module_version = module_version(roots)
        self._folders = tuple(folders)
        self._root = Folder(roots.driver)
        self._root_path = os.path.realpath(roots.driver)
        self._machine = os.uname().machine

    @classmethod
    def find(cls, roots: DriverRoots) -> Driver:
        """The driver whose version is the kernel module's, else the first in search order.

        Raises NotFound (code "no-nvidia-driver"); its context names where was looked.
        """
        root, wanted = Folder(roots.driver), module_version(roots)
        found: dict[str, None] = {}
        for stage in search_stages(root):
            found |= dict.fromkeys(_versions(root, stage))
            if wanted in found or (wanted is None and found):
                break
        if not found:
            raise NotFound(
                "no NVIDIA driver libraries",
                code="no-nvidia-driver",
                context=f"looked for libcuda.so.* and libnvidia-ml.so.* {where_looked(root)}",
                hint="install the driver's user-mode part (libcuda1 on Debian, nvidia-driver-cuda on RHEL), or name "
                "the folder that holds it with --driver-root",
            )
        version = wanted if wanted in found else next(iter(found))
        everywhere = tuple(folder for stage in search_stages(root) for folder in stage)
        return cls(roots, version, _folders_with(root, everywhere, f".so.{version}"))

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that can be handed out."""
        return visible_gpus(self.roots)

    def check_versions(self) -> None:
        """Raises Unsupported when libraries and kernel module differ: NVML would refuse inside the container too."""
        if self.module_version in (None, self.version):
            return
        raise Unsupported(
            "Driver/library version mismatch",  # NVML's own words, which people search for
            code="driver-version-mismatch",
            context=f"the loaded kernel module is {self.module_version}, the libraries are {self.version}",
            hint="the driver was upgraded under a running kernel module: reboot, or unload and load the nvidia modules",
        )

    def no_libcuda(self) -> NotFound:
        """The error for a driver whose compute part is not installed."""
        return NotFound(
            f"the driver has no libcuda.so.{self.version}",
            code="driver-library-missing",
            context=f"looked {where_looked(self._root)}",
            hint="install the compute part of the driver: libcuda1 on Debian, nvidia-driver-cuda-libs on RHEL",
        )

    def libraries(self, capabilities: frozenset[str]) -> tuple[Library, ...]:
        """Libraries that these capabilities need, by file name."""
        found = {
            library.file_name: library
            for folder, name in reversed(tuple(self._candidates(self._folders)))  # the first folder wins
            if (library := self._library(folder, name, capabilities, 64)) is not None
        }
        return tuple(found[name] for name in sorted(found))

    def libraries32(self, capabilities: frozenset[str]) -> tuple[Library, ...]:
        """The same for 32-bit programs; most hosts have none."""
        triplet = ImageLayout(machine=self._machine).triplet(32)
        folders = tuple(folder.format(triplet=triplet) for folder in contents.LIBRARY_FOLDERS_32)
        found = {
            library.file_name: library
            for folder, name in reversed(tuple(self._candidates(_distinct(self._root, folders))))
            if (library := self._library(folder, name, capabilities, 32)) is not None
        }
        return tuple(found[name] for name in sorted(found))

    def edits(
        self, gpus: Sequence[Gpu], capabilities: Iterable[str], layout: ImageLayout | None = None
    ) -> ContainerEdits:
        """What a container of an image with *layout* needs to use *gpus* (none: the driver's files alone).

        Without *layout* files keep their paths below the root. Raises Unsupported
        (versions differ), NotFound (a device node or libcuda is missing), Corrupt (a
        node is another driver's).
        """
        wanted = frozenset(capabilities)
        self.check_versions()
        nodes = self._nodes(gpus, wanted)
        libraries = self.libraries(wanted)
        if "compute" in wanted and not any(library.base == "libcuda" for library in libraries):
            raise self.no_libcuda()
        if "compat32" in wanted:
            libraries += self.libraries32(wanted)
        places = {library: self._folder_in_container(library, layout) for library in libraries}
        mounts = [_mount(library.host_path, f"{folder}/{library.file_name}") for library, folder in places.items()]
        mounts += [*self._binaries(wanted, layout), *self._firmware(), *self._configs(wanted), *self._services(wanted)]
        own_folders = (folder for library, folder in places.items() if library.base not in contents.SUBFOLDERS)
        return ContainerEdits(
            # For an NVIDIA runtime below us: already injected (nvidia-container-toolkit sets it, too).
            env=("NVIDIA_VISIBLE_DEVICES=void",),
            device_nodes=nodes,
            mounts=tuple(sorted(mounts, key=lambda mount: mount.container_path)),
            links=tuple(link for library, folder in places.items() for link in self._links(library, folder)),
            library_folders=tuple(dict.fromkeys(own_folders)),
            additional_gids=tuple(dict.fromkeys(node.gid for node in nodes if node.gid and _is_restricted(node))),
        )

    def _nodes(self, gpus: Sequence[Gpu], capabilities: frozenset[str]) -> tuple[DeviceNode, ...]:
        nodes = Nodes(self.roots)
        needed = {name: nodes.find(name) for name in ("nvidiactl", *(f"nvidia{gpu.minor}" for gpu in gpus))}
        missing = [nodes.shown(name) for name, node in needed.items() if node is None]
        if missing:
            raise NotFound(
                f"no device node {', '.join(missing)}",
                code="device-node-missing",
                context="the driver makes its nodes when it is first used",
                hint="as root: nvidia-modprobe -c 0 -u, or nvidia-smi",
            )
        found = {node.path: node for node in (*nodes.control(capabilities), *needed.values()) if node is not None}
        if capabilities & {"graphics", "display"}:
            found |= {node.path: node for gpu in gpus for node in nodes.rendering(gpu)}
        return tuple(found.values())

    def _candidates(self, folders: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(folder, name) of everything that could be a library of this version, plug-in folders included."""
        for folder in folders:
            for place in (folder, *(f"{folder}/{sub}" for sub in sorted(set(contents.SUBFOLDERS.values())))):
                for name in self._root.names(place):
                    if name.startswith("lib") and ".so." in name:
                        yield place, name

    def _library(self, folder: str, name: str, capabilities: frozenset[str], bits: int) -> Library | None:
        base, _, suffix = name.partition(".so.")
        if not _is_wanted(base, name, versioned=suffix == self.version, capabilities=capabilities):
            return None
        real = self._root.real(f"{folder}/{name}")
        facts = _elf_facts(real) if real is not None else None
        if real is None or facts is None:
            return None
        if facts.machine not in (0, elf.MACHINES.get((self._machine, bits), facts.machine)) or facts.bits != bits:
            return None
        if base in contents.AMBIGUOUS_LIBRARIES and not _needs_own_core(facts):
            return None
        return Library(
            base=base,
            file_name=name,
            host_path=real,
            soname=facts.soname or self._soname_by_links(folder, base, real) or name,
            bits=bits,
            links=(f"{base}.so",) if self._root.real(f"{folder}/{base}.so") == real else (),
        )

    def _soname_by_links(self, folder: str, base: str, real: str) -> str | None:
        """For a file that is no ELF file (a stand-in): what a link NAME.so.N beside it suggests, else NAME.so.1."""
        for name in self._root.names(folder):
            if re.fullmatch(rf"{re.escape(base)}\.so\.[0-9]", name) and self._root.real(f"{folder}/{name}") == real:
                return name
        return f"{base}.so.1"

    def _folder_in_container(self, library: Library, layout: ImageLayout | None) -> str:
        if layout is None:
            return os.path.dirname(self._inside(library.host_path))
        folder = layout.library_folder(library.bits)
        return f"{folder}/{contents.SUBFOLDERS[library.base]}" if library.base in contents.SUBFOLDERS else folder

    def _inside(self, host_path: str) -> str:
        """A path of this machine as seen below the driver root; the root ends at a component, never within one."""
        if self._root_path == "/" or not host_path.startswith(self._root_path + "/"):
            return host_path
        return host_path[len(self._root_path) :]

    def _links(self, library: Library, folder: str) -> Iterator[Link]:
        if library.soname != library.file_name:
            yield Link(path=f"{folder}/{library.soname}", target=library.file_name)
        for name in library.links:
            yield Link(path=f"{folder}/{name}", target=library.soname)
        for name, target in contents.FIXED_LINKS.get(library.base, ()):
            if name not in library.links:
                yield Link(path=f"{folder}/{name}", target=target.format(version=self.version))

    def _binaries(self, capabilities: frozenset[str], layout: ImageLayout | None) -> Iterator[BindMount]:
        for name in _names(contents.BINARIES, capabilities):
            for folder in contents.BINARY_FOLDERS:
                status, real = self._root.status(f"{folder}/{name}"), self._root.real(f"{folder}/{name}")
                if real and status and stat.S_ISREG(status.st_mode) and status.st_mode & 0o111:
                    # /usr/bin is on every image's PATH; the host's folder need not be.
                    yield _mount(real, f"{folder if layout is None else '/usr/bin'}/{name}")
                    break

    def _firmware(self) -> Iterator[BindMount]:
        custom = (Folder(self.roots.sys).text("module/firmware_class/parameters/path") or "").strip()
        standard = (folder.format(release=os.uname().release) for folder in contents.FIRMWARE_FOLDERS)
        for folder in (*((custom,) if custom else ()), *standard):
            place = f"{folder}/nvidia/{self.version}"
            names = [name for name in self._root.names(place) if fnmatchcase(name, "gsp*.bin")]
            for name in names:
                if (real := self._root.real(f"{place}/{name}")) is not None:
                    yield _mount(real, f"/lib/firmware/nvidia/{self.version}/{name}")
            if names:
                return

    def _configs(self, capabilities: frozenset[str]) -> Iterator[BindMount]:
        for table, home in ((contents.ETC_FILES, "/etc"), (contents.SHARE_FILES, "/usr/share")):
            for name in _names(table, capabilities):
                found = (self._root.real(f"{folder}/{name}") for folder in contents.DATA_FOLDERS)
                real = next((path for path in found if path is not None), None)
                if real is not None:
                    yield _mount(real, f"{home}/{name}")

    def _services(self, capabilities: frozenset[str]) -> Iterator[BindMount]:
        """Sockets of the driver's services, where they are and may be used."""
        for name in _names(contents.SOCKETS, capabilities):
            found = (self._root.real(f"{folder}/{name}") for folder in contents.SOCKET_FOLDERS)
            real = next((path for path in found if path is not None), None)
            if real is not None and stat.S_ISSOCK(os.stat(real).st_mode) and os.access(real, os.R_OK | os.W_OK):
                yield BindMount(host_path=real, container_path=f"/run/{name}", options=_SERVICE_OPTIONS)
        if "compute" in capabilities:
            real, status = self._root.real(contents.MPS_FOLDER), self._root.status(contents.MPS_FOLDER)
            if real and status and stat.S_ISDIR(status.st_mode) and os.access(real, os.R_OK | os.X_OK):
                yield BindMount(host_path=real, container_path=contents.MPS_FOLDER, options=_SERVICE_OPTIONS)


def search_stages(root: Folder) -> Iterator[tuple[str, ...]]:
    """Folders to look for libraries in, in stages; a later one counts only when the earlier gave nothing."""
    triplet = ImageLayout(machine=os.uname().machine).triplet()
    yield _distinct(root, (folder.format(triplet=triplet) for folder in contents.LIBRARY_FOLDERS))
    yield _distinct(root, _folders_of_cache(root))
    yield _distinct(root, contents.HOSTED_FOLDERS)


def where_looked(root: Folder) -> str:
    """«in …, then …», for errors and `doctor`."""
    triplet = ImageLayout(machine=os.uname().machine).triplet()
    standard = ", ".join(root.shown(folder.format(triplet=triplet)) for folder in contents.LIBRARY_FOLDERS)
    hosted = ", ".join(root.shown(folder) for folder in contents.HOSTED_FOLDERS)
    return f"in {standard}; then by {root.shown('/etc/ld.so.cache')}; then in {hosted}"


def _folders_of_cache(root: Folder) -> Iterator[str]:
    """Folders in which the root's own ld.so.cache has libraries of the driver."""
    data = root.read("/etc/ld.so.cache", ldcache.CACHE_LIMIT)
    if data is None:
        return
    try:
        entries = ldcache.parse(data)
    except Corrupt:
        return  # not ours to repair; there is one more place to look
    flags = ldcache.FLAGS.get((os.uname().machine, 64))
    for entry in entries:
        if entry.flags == flags and entry.name.partition(".so")[0] in ("libcuda", "libnvidia-ml"):
            real = root.real(entry.path)
            if real is not None:
                inside = os.path.relpath(os.path.dirname(real), os.path.realpath(root.path))
                yield f"/{inside}"


def _distinct(root: Folder, folders: Iterable[str]) -> tuple[str, ...]:
    """Those that exist, each real folder once (/lib64 is often a link to /usr/lib64)."""
    by_real: dict[str, str] = {}
    for folder in folders:
        real = root.real(folder)
        if real is not None:
            by_real.setdefault(real, folder)
    return tuple(by_real.values())


def _versions(root: Folder, folders: Iterable[str]) -> Iterator[str]:
    """Versions of the driver in these folders: libcuda's before libnvidia-ml's."""
    matches = [found for folder in folders for name in root.names(folder) if (found := _VERSIONED.fullmatch(name))]
    for base in ("libcuda", "libnvidia-ml"):
        yield from (found[2] for found in matches if found[1] == base)


def _folders_with(root: Folder, folders: Iterable[str], ending: str) -> tuple[str, ...]:
    return tuple(folder for folder in folders if any(name.endswith(ending) for name in root.names(folder)))


def _is_wanted(base: str, name: str, *, versioned: bool, capabilities: frozenset[str]) -> bool:
    if not versioned:
        patterns = _names(contents.UNVERSIONED_LIBRARIES, capabilities)
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    if base in contents.LEFT_OUT:
        return False
    if base in contents.AMBIGUOUS_LIBRARIES:
        return bool(capabilities & {"graphics", "display"})
    if any(base in names for names in contents.LIBRARIES.values()):
        return base in _names(contents.LIBRARIES, capabilities)
    return bool(capabilities & contents.CAPABILITIES_OF_UNKNOWN)


def _names(table: dict[str, tuple[str, ...]], capabilities: frozenset[str]) -> tuple[str, ...]:
    """The table's names for these capabilities; `display` has what `graphics` has."""
    wanted = capabilities | ({"graphics"} if "display" in capabilities else set())
    return tuple(dict.fromkeys(name for key, names in table.items() if key in wanted for name in names))


def _needs_own_core(facts: elf.Elf) -> bool:
    return any(name.partition(".so")[0] in contents.OWN_GRAPHICS_CORES for name in facts.needed)


def _elf_facts(path: str) -> elf.Elf | None:
    """Facts of a library; a regular file that is no ELF file stands in for a 64-bit one without a SONAME."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return elf.read(fd)
    except Corrupt:
        return elf.Elf(bits=64, machine=0)
    finally:
        os.close(fd)


def _is_restricted(node: DeviceNode) -> bool:
    return node.file_mode is not None and node.file_mode & 0o006 != 0o006


def _mount(host_path: str, container_path: str) -> BindMount:
    return BindMount(host_path=host_path, container_path=container_path)
