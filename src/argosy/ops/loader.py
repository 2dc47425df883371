"""What an image's dynamic loader must be told so that it finds the driver's libraries.

ld.so.cache is written here, not by ldconfig: nothing of the image is run, and it
works in images that have no ldconfig (distroless) or another machine's. A drop-in
in ld.so.conf.d is added where the image's own ldconfig, when it runs later, would
forget the folders. musl reads a list of folders instead.
"""

from __future__ import annotations

import os
import re
import stat
from typing import TYPE_CHECKING

from ..errors import Corrupt, InvalidInput
from ..gpu import elf
from ..gpu.layout import ImageLayout
from ..linux import ldcache, paths
from ..oci.edits import ContainerEdits, GeneratedFile, Link

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

CACHE = "/etc/ld.so.cache"
CONF = "/etc/ld.so.conf"
DROP_IN = "/etc/ld.so.conf.d/00-nvidia-argosy.conf"
_INCLUDE = "include /etc/ld.so.conf.d/*.conf"
_CONF_LIMIT = 1 << 16  # bytes of one file of ld.so.conf.d
_LIBRARY = re.compile(r"(?:lib|ld-).*\.so(?:\..*)?")  # the names that ldconfig looks at


def configuration(edits: ContainerEdits, *, image_root_fd: int, resolve: Callable[[str], str]) -> ContainerEdits:
    """Links and files that make the libraries in *edits.library_folders* findable.

    *resolve* gives the real path in the image. SONAME links that the edits lack are
    added, as ldconfig would make them.
    """
    layout = ImageLayout.read(image_root_fd)
    image = _Image(image_root_fd, layout, resolve)
    links, new = _driver_entries(edits, layout)
    existing = image.cached()
    files = [GeneratedFile(path=CACHE, content=ldcache.render(ldcache.merge(existing or image.scanned(), new)))]
    if layout.musl:
        path = f"/etc/ld-musl-{layout.machine}.path"
        content = ldcache.musl_path(image.read(path, _CONF_LIMIT), edits.library_folders)
        files.append(GeneratedFile(path=path, content=content))
    else:
        files += image.drop_in(edits.library_folders, existing or ())
    return ContainerEdits(links=tuple(links), files=tuple(files))


def _driver_entries(edits: ContainerEdits, layout: ImageLayout) -> tuple[list[Link], list[ldcache.Entry]]:
    """SONAME links that are missing, and entries for the driver's libraries: by SONAME, and by «.so» link."""
    folders = set(edits.library_folders)
    known = {link.path: link for link in edits.links}
    links, entries = [], []
    for mount in edits.mounts:
        folder, name = os.path.split(mount.container_path)
        if folder not in folders or not _LIBRARY.fullmatch(name):
            continue
        facts = _facts(mount.host_path)
        soname, flags = _soname(facts, name, known, folder), ldcache.FLAGS.get((layout.machine, facts.bits))
        if flags is None:
            continue
        path = f"{folder}/{soname}"
        if soname != name and path not in known:
            links.append(Link(path=path, target=name))
        development = (link for link in edits.links if link.target == soname and os.path.dirname(link.path) == folder)
        for place in (path, *(link.path for link in development)):
            entries.append(ldcache.Entry(name=os.path.basename(place), path=place, flags=flags))
    return links, entries


def _facts(host_path: str) -> elf.Elf:
    """Of a library of the host; a file that stands in for one counts as a 64-bit library without names."""
    try:
        fd = os.open(host_path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return elf.Elf(bits=64, machine=0)
    try:
        return elf.read(fd) if stat.S_ISREG(os.fstat(fd).st_mode) else elf.Elf(bits=64, machine=0)
    except Corrupt:
        return elf.Elf(bits=64, machine=0)
    finally:
        os.close(fd)


def _soname(facts: elf.Elf, name: str, links: dict[str, Link], folder: str) -> str:
    if facts.soname and "/" not in facts.soname:
        return facts.soname
    pointing = (link.path for link in links.values() if link.target == name and os.path.dirname(link.path) == folder)
    return os.path.basename(next(pointing, name))


class _Image:
    """The loader's files of an image, read without leaving its root."""

    def __init__(self, root_fd: int, layout: ImageLayout, resolve: Callable[[str], str]) -> None:
        self._root_fd = root_fd
        self._layout = layout
        self._resolve = resolve

    def read(self, path: str, limit: int) -> bytes | None:
        try:
            return paths.read_file_in_root(self._root_fd, path, limit)
        except (OSError, InvalidInput):
            return None

    def cached(self) -> tuple[ldcache.Entry, ...] | None:
        """The image's own cache; None when there is none that could be used."""
        data = self.read(CACHE, ldcache.CACHE_LIMIT)
        try:
            return None if data is None else ldcache.parse(data)
        except Corrupt:
            return None  # as if it were absent: the loader does not use it either

    def scanned(self) -> Iterator[ldcache.Entry]:
        """Entries for the libraries in the folders that the loader knows by itself, and the configured ones."""
        folders = {self._resolve(folder): folder for folder in reversed((*self.configured(), *self._system_folders()))}
        for folder in reversed(folders.values()):
            yield from self._entries_in(folder)

    def configured(self) -> tuple[str, ...]:
        """Folders named in ld.so.conf and the files of ld.so.conf.d."""
        names = [CONF, *(f"{os.path.dirname(DROP_IN)}/{name}" for name in self._names(os.path.dirname(DROP_IN)))]
        texts = ((self.read(name, _CONF_LIMIT) or b"").decode(errors="replace") for name in names)
        lines = (line.partition("#")[0].strip() for text in texts for line in text.splitlines())
        return tuple(dict.fromkeys(line for line in lines if line.startswith("/")))

    def drop_in(self, folders: Iterable[str], existing: tuple[ldcache.Entry, ...]) -> Iterator[GeneratedFile]:
        """ld.so.conf.d entries for the folders that the image's own ldconfig would not search."""
        searched = {os.path.dirname(entry.path) for entry in existing} | set(self.configured())
        known = {self._resolve(folder) for folder in searched}
        missing = [folder for folder in folders if self._resolve(folder) not in known]
        if not missing:
            return
        yield GeneratedFile(path=DROP_IN, content=os.fsencode("\n".join(missing) + "\n"))
        text = (self.read(CONF, _CONF_LIMIT) or b"").decode(errors="surrogateescape")
        if not re.search(r"^\s*include\s+\S*ld\.so\.conf\.d/\*\.conf", text, re.MULTILINE):
            joined = text if not text or text.endswith("\n") else text + "\n"
            yield GeneratedFile(path=CONF, content=f"{joined}{_INCLUDE}\n".encode(errors="surrogateescape"))

    def _system_folders(self) -> tuple[str, ...]:
        return () if self._layout.musl else self._layout.system_folders()

    def _names(self, folder: str) -> tuple[str, ...]:
        try:
            return paths.list_in_root(self._root_fd, folder)
        except OSError:
            return ()

    def _entries_in(self, folder: str) -> Iterator[ldcache.Entry]:
        names = [name for name in self._names(folder) if _LIBRARY.fullmatch(name)]
        there = set(names)
        found: dict[str, ldcache.Entry] = {}
        for name in names:
            facts = self._library(f"{folder}/{name}")
            flags = ldcache.FLAGS.get((self._layout.machine, facts.bits)) if facts else None
            if facts is None or flags is None:
                continue
            soname = facts.soname if facts.soname and "/" not in facts.soname else name
            key = name if name.endswith(".so") else soname  # a «.so» link is listed by its own name
            path = f"{folder}/{key if key in there else name}"
            found.setdefault(key, ldcache.Entry(name=key, path=path, flags=flags))
        yield from found.values()

    def _library(self, path: str) -> elf.Elf | None:
        """Facts of a library for this machine; None for a linker script, another machine's, a dangling link."""
        try:
            if not stat.S_ISREG(self._status(path).st_mode):
                return None
            fd = paths.open_in_root(self._root_fd, path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            return None
        try:
            facts = elf.read(fd)
        except Corrupt:
            return None
        finally:
            os.close(fd)
        return facts if elf.MACHINES.get((self._layout.machine, facts.bits)) == facts.machine else None

    def _status(self, path: str) -> os.stat_result:
        fd = paths.open_in_root(self._root_fd, path, os.O_PATH)
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)
