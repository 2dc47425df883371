"""The driver's user-mode parts below a root, and the edits that put them into a container.

Files are taken only from the host, and only with the exact version that was found,
so that a second driver lying about is never mixed in. Where they go is decided by
the image (ImageLayout). GPU selection is select.py's; device nodes are devices.py's.
"""

from __future__ import annotations

import os
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from ..errors import NotFound, Unsupported
from ..oci.edits import BindMount, ContainerEdits, DeviceNode, Link
from . import contents
from .devices import Nodes
from .inventory import module_version, visible_gpus
from .libraries import Libraries, folders_with, search_stages, versions, where_looked
from .roots import DriverRoots as DriverRoots
from .roots import Folder

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .inventory import Gpu
    from .layout import ImageLayout
    from .libraries import Library

_SERVICE_OPTIONS = ("nosuid", "nodev", "noexec", "rbind", "rprivate")  # not ro: it broke nested Slurm (toolkit 1.18.2)


class Driver:
    """One version of the driver below one root.

    `find` looks for it; `gpus` and `edits` look again at each call, since devices come
    and go.
    """

    def __init__(self, roots: DriverRoots, version: str, folders: Sequence[str]) -> None:
        self.roots = roots
        #: of the libraries; the kernel module's is *module_version*
        self.version = version
        self.module_version = module_version(roots)
        self._root = Folder(roots.driver)
        self._root_path = os.path.realpath(roots.driver)
        self._libraries = Libraries(self._root, version, folders)

    @classmethod
    def find(cls, roots: DriverRoots) -> Driver:
        """The driver whose version is the kernel module's, else the first in search order.

        Raises NotFound (code "no-nvidia-driver"); its context names where was looked.
        """
        root, wanted = Folder(roots.driver), module_version(roots)
        found: dict[str, None] = {}
        for stage in search_stages(root):
            found |= dict.fromkeys(versions(root, stage))
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
        return cls(roots, version, folders_with(root, everywhere, f".so.{version}"))

    def gpus(self) -> tuple[Gpu, ...]:
        """The GPUs that can be handed out."""
        return visible_gpus(self.roots)

    @property
    def is_running(self) -> bool:
        """Whether it is the running kernel's, so that its libraries may be loaded and asked."""
        loaded_here = self.roots.has_real_module and self.module_version is not None
        return loaded_here or self.roots.has_real_devices

    def nvml(self) -> str | None:
        """The file of the management library; None when it is not installed."""
        found = (file for file in self.libraries(frozenset({"utility"})) if file.base == "libnvidia-ml")
        return next((file.host_path for file in found), None)

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
        """Library files that these capabilities need, by file name; 64-bit ones."""
        return self._libraries.of(capabilities)

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
            libraries += self._libraries.of32(wanted)
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
        for name in contents.names_for(contents.BINARIES, capabilities):
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
            for name in contents.names_for(table, capabilities):
                found = (self._root.real(f"{folder}/{name}") for folder in contents.DATA_FOLDERS)
                real = next((path for path in found if path is not None), None)
                if real is not None:
                    yield _mount(real, f"{home}/{name}")

    def _services(self, capabilities: frozenset[str]) -> Iterator[BindMount]:
        """Sockets of the driver's services, where they are and may be used."""
        for name in contents.names_for(contents.SOCKETS, capabilities):
            found = (self._root.real(f"{folder}/{name}") for folder in contents.SOCKET_FOLDERS)
            real = next((path for path in found if path is not None), None)
            if real is not None and stat.S_ISSOCK(os.stat(real).st_mode) and os.access(real, os.R_OK | os.W_OK):
                yield BindMount(host_path=real, container_path=f"/run/{name}", options=_SERVICE_OPTIONS)
        if "compute" in capabilities:
            real, status = self._root.real(contents.MPS_FOLDER), self._root.status(contents.MPS_FOLDER)
            if real and status and stat.S_ISDIR(status.st_mode) and os.access(real, os.R_OK | os.X_OK):
                yield BindMount(host_path=real, container_path=contents.MPS_FOLDER, options=_SERVICE_OPTIONS)


def _is_restricted(node: DeviceNode) -> bool:
    return node.file_mode is not None and node.file_mode & 0o006 != 0o006


def _mount(host_path: str, container_path: str) -> BindMount:
    return BindMount(host_path=host_path, container_path=container_path)
