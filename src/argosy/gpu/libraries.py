"""The driver's library files: which folders have them, in which version, and which a capability needs.

Only files with the exact version that was found count, so that a second driver
lying about is never mixed in; a search goes from the usual places over the root's own
ld.so.cache to where hosting services mount drivers.
"""

from __future__ import annotations

import errno
import os
import re
import stat
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt
from ..linux import ldcache
from . import contents, elf
from .layout import ImageLayout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .roots import Folder

_VERSION = r"[0-9]{2,}(?:\.[0-9]+){1,3}"  # 550.54.15; libcuda.so.1.1 of WSL is no version of a driver
_VERSIONED = re.compile(rf"(lib(?:cuda|nvidia-ml))\.so\.({_VERSION})")


class Library(msgspec.Struct, frozen=True, kw_only=True):
    """A library file of the driver. *base* is its name without «.so…»."""

    base: str
    file_name: str
    host_path: str
    soname: str
    bits: int = 64
    #: links beside it on the host that belong to it and are no SONAME («libcuda.so»)
    links: tuple[str, ...] = ()


class Libraries:
    """The libraries of one version below one root, in the folders that have some."""

    def __init__(self, root: Folder, version: str, folders: Sequence[str]) -> None:
        self._root = root
        self._version = version
        self._folders = tuple(folders)
        self._machine = os.uname().machine

    def of(self, capabilities: frozenset[str]) -> tuple[Library, ...]:
        """Libraries that these capabilities need, by file name."""
        return self._found(self._folders, capabilities, 64)

    def of32(self, capabilities: frozenset[str]) -> tuple[Library, ...]:
        """The same for 32-bit programs; most hosts have none."""
        triplet = ImageLayout(machine=self._machine).triplet(32)
        folders = (folder.format(triplet=triplet) for folder in contents.LIBRARY_FOLDERS_32)
        return self._found(_distinct(self._root, folders), capabilities, 32)

    def _found(self, folders: Sequence[str], capabilities: frozenset[str], bits: int) -> tuple[Library, ...]:
        found: dict[str, Library] = {}
        for folder, name in self._candidates(folders):
            if name not in found and (library := self._library(folder, name, capabilities, bits)) is not None:
                found[name] = library  # the first folder wins
        return tuple(found[name] for name in sorted(found))

    def _candidates(self, folders: Iterable[str]) -> Iterator[tuple[str, str]]:
        """(folder, name) of everything that could be a library of this version, plug-in folders included."""
        for folder in folders:
            for place in (folder, *(f"{folder}/{sub}" for sub in sorted(set(contents.SUBFOLDERS.values())))):
                for name in self._root.names(place):
                    if name.startswith("lib") and ".so." in name:
                        yield place, name

    def _library(self, folder: str, name: str, capabilities: frozenset[str], bits: int) -> Library | None:
        base, _, suffix = name.partition(".so.")
        if not _is_wanted(base, name, versioned=suffix == self._version, capabilities=capabilities):
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
            soname=facts.soname or (name if facts.machine else self._soname_by_links(folder, base, real)),
            bits=bits,
            links=(f"{base}.so",) if self._root.real(f"{folder}/{base}.so") == real else (),
        )

    def _soname_by_links(self, folder: str, base: str, real: str) -> str:
        """For a file that is no ELF file (a stand-in): what a link NAME.so.N beside it suggests, else NAME.so.1."""
        for name in (f"{base}.so.{number}" for number in range(10)):
            if self._root.real(f"{folder}/{name}") == real:
                return name
        return f"{base}.so.1"


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


def versions(root: Folder, folders: Iterable[str]) -> Iterator[str]:
    """Versions of the driver in these folders: libcuda's before libnvidia-ml's."""
    matches = [found for folder in folders for name in root.names(folder) if (found := _VERSIONED.fullmatch(name))]
    for base in ("libcuda", "libnvidia-ml"):
        yield from (found[2] for found in matches if found[1] == base)


def folders_with(root: Folder, folders: Iterable[str], ending: str) -> tuple[str, ...]:
    return tuple(folder for folder in folders if any(name.endswith(ending) for name in root.names(folder)))


def _is_wanted(base: str, name: str, *, versioned: bool, capabilities: frozenset[str]) -> bool:
    if not versioned:
        patterns = contents.names_for(contents.UNVERSIONED_LIBRARIES, capabilities)
        return any(fnmatchcase(name, pattern) for pattern in patterns)
    if base in contents.LEFT_OUT:
        return False
    if base in contents.AMBIGUOUS_LIBRARIES:
        return bool(capabilities & {"graphics", "display"})
    if any(base in names for names in contents.LIBRARIES.values()):
        return base in contents.names_for(contents.LIBRARIES, capabilities)
    return bool(capabilities & contents.CAPABILITIES_OF_UNKNOWN)


def _needs_own_core(facts: elf.Elf) -> bool:
    return any(name.partition(".so")[0] in contents.OWN_GRAPHICS_CORES for name in facts.needed)


def _elf_facts(path: str) -> elf.Elf | None:
    """Facts of a library; a regular file that is no ELF file stands in for a 64-bit one without a SONAME."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        if error.errno not in (errno.EACCES, errno.ENXIO):  # a container could not read it either; a socket
            raise
        return None
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return None
        return elf.read(fd)
    except Corrupt:
        return elf.Elf(bits=64, machine=0)
    finally:
        os.close(fd)
