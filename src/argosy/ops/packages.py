"""Which packages an image holds, from what package managers leave in it: Debian's and Python's wheels.

Their databases come from an image and are as hostile as the rest of it: sizes are
those of the files that are there, names lead nowhere but into the image.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Literal

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from ..layer.view import ImageView, Place

PackageKind = Literal["deb", "wheel"]

DPKG = b"var/lib/dpkg"
WHEEL_SUFFIX = b".dist-info"
#: Databases that are not read, by the package manager that people know them by.
UNREAD = {
    "rpm": (
        b"var/lib/rpm/rpmdb.sqlite",
        b"var/lib/rpm/Packages",
        b"var/lib/rpm/Packages.db",
        b"usr/lib/sysimage/rpm/rpmdb.sqlite",
        b"usr/lib/sysimage/rpm/Packages.db",
    ),
    "apk": (b"lib/apk/db/installed", b"usr/lib/apk/db/installed"),
}

_DEBIANS = b"usr/lib/python3/dist-packages/"  # Debian's own Python packages: pip leaves a RECORD, dpkg none
_LIMIT = 1 << 25  # bytes of one database; that of 5,000 Debian packages has a fifth of it
_HEAD = 1 << 16  # bytes of a wheel's METADATA in which its headers end; a description follows
_ABSENT = ("not-installed", "config-files")  # dpkg's states of packages without files
_FIELD = re.compile(rb"^(Package|Status|Version|Architecture|Installed-Size):(.*)", re.MULTILINE)
_HEADER = re.compile(rb"^(Name|Version):(.*)", re.MULTILINE | re.IGNORECASE)


class Package(msgspec.Struct, frozen=True, kw_only=True):
    """An installed package."""

    kind: PackageKind
    #: as people write it; with «:architecture» where that is not the image's own
    name: str
    version: str
    #: what describes it: dpkg's status or a file of status.d, a wheel's .dist-info folder
    record: bytes
    architecture: str = ""
    #: bytes that it says it takes, 0 where it does not say
    declared: int = 0

    @property
    def key(self) -> tuple[PackageKind, str]:
        """What stays the same from version to version: PyPI's names know no «_», «.» and capitals."""
        return self.kind, re.sub(r"[-_.]+", "-", self.name).lower() if self.kind == "wheel" else self.name


class Extent(msgspec.Struct, frozen=True):
    """How much of an image something takes."""

    size: int
    files: int


def debs(view: ImageView) -> list[Package]:
    """What dpkg has installed; in images without it (distroless), what status.d lists."""
    records = [DPKG + b"/status"]
    listed = view.folder(DPKG + b"/status.d") or {}
    records += [DPKG + b"/status.d/" + name for name in sorted(listed) if not name.endswith(b".md5sums")]
    found = [package for record in records for package in _paragraphs(_read(view, record) or b"", record)]
    own = next((package.architecture for package in found if package.name == "dpkg"), "")
    foreign = own and {own, "all", ""}
    return [
        msgspec.structs.replace(package, name=f"{package.name}:{package.architecture}")
        if foreign and package.architecture not in foreign
        else package
        for package in found
    ]


def _paragraphs(text: bytes, record: bytes) -> Iterator[Package]:
    for paragraph in re.split(rb"\n[ \t]*\n", text):
        fields = {name: value.strip().decode(errors="replace") for name, value in _FIELD.findall(paragraph)}
        name, version = fields.get(b"Package"), fields.get(b"Version")
        if name and version and not fields.get(b"Status", "").endswith(_ABSENT):
            size = fields.get(b"Installed-Size", "")
            yield Package(
                kind="deb",
                name=name,
                version=version,
                record=record,
                architecture=fields.get(b"Architecture", ""),
                declared=int(size) * 1024 if size.isdecimal() and len(size) < 12 else 0,
            )


def wheel(view: ImageView, folder: bytes) -> Package | None:
    """The package that the .dist-info *folder* describes; None when it describes none, or one that is dpkg's."""
    text = _read(view, folder + b"/METADATA", _HEAD)
    if text is None or (folder.startswith(_DEBIANS) and view.find(folder + b"/RECORD") is None):
        return None
    head = re.split(rb"\r?\n\r?\n", text, maxsplit=1)[0]
    fields = {name.lower(): value.strip().decode(errors="replace") for name, value in reversed(_HEADER.findall(head))}
    name, version = fields.get(b"name"), fields.get(b"version")
    return Package(kind="wheel", name=name, version=version, record=folder) if name and version else None


def is_database(path: bytes) -> bool:
    """Whether the file at *path* tells about packages; images that are built anew may change nothing but its bytes."""
    return path.startswith(DPKG + b"/") or WHEEL_SUFFIX + b"/" in path


def wheel_folders(paths: Iterable[bytes]) -> set[bytes]:
    """The .dist-info folders that *paths* are or lie in."""
    found = set()
    for path in paths:
        if WHEEL_SUFFIX in path:
            start, _, rest = (path + b"/").partition(WHEEL_SUFFIX + b"/")
            if rest or path.endswith(WHEEL_SUFFIX):
                found.add(start + WHEEL_SUFFIX)
    return found


def unread(view: ImageView) -> dict[str, Place]:
    """Databases of packages that are here and not read, by package manager."""
    return {
        manager: place
        for manager, paths in UNREAD.items()
        for place in [next(filter(None, map(view.find, paths)), None)]
        if place is not None
    }


def extent(view: ImageView, package: Package) -> Extent:
    """What the files that the package lists take in *view*, each once; what it declares, where it lists none."""
    places: dict[tuple[int, int], Place] = {}
    for path in _wheel_files(view, package) if package.kind == "wheel" else _deb_files(view, package):
        place = view.find(path)
        if place is not None and not place.is_folder:
            places[place.layer, place.node.inode] = place
    if not places:
        return Extent(package.declared, 0)
    return Extent(sum(place.node.stored for place in places.values()), len(places))


def _deb_files(view: ImageView, package: Package) -> Iterator[bytes]:
    if package.record.startswith(DPKG + b"/status.d/"):
        for line in (_read(view, package.record + b".md5sums") or b"").splitlines():
            yield line.partition(b"  ")[2]
        return
    name = package.name.partition(":")[0]
    for stem in (name, f"{name}:{package.architecture}"):
        text = _read(view, DPKG + b"/info/" + stem.encode() + b".list")
        if text is not None:
            yield from (line.lstrip(b"/") for line in text.splitlines())
            return


def _wheel_files(view: ImageView, package: Package) -> Iterator[bytes]:
    """What RECORD lists; the folder of metadata alone where somebody removed that."""
    site = package.record.rpartition(b"/")[0]
    text = _read(view, package.record + b"/RECORD")
    if text is None:
        yield from (package.record + b"/" + name for name in view.folder(package.record) or ())
        return
    for line in text.splitlines():
        path = _first_cell(line)
        yield path.lstrip(b"/") if path.startswith(b"/") else _joined(site, path)


def _first_cell(line: bytes) -> bytes:
    """The path of a line of RECORD, which is quoted where it holds a comma."""
    if not line.startswith(b'"'):
        return line.partition(b",")[0]
    match = re.match(rb'"((?:[^"]|"")*)"', line)
    return match[1].replace(b'""', b'"') if match else b""


def _joined(folder: bytes, path: bytes) -> bytes:
    """*path* from *folder* on, with «..» taken as pip writes it (../../../bin/x)."""
    parts = folder.split(b"/") if folder else []
    for part in path.split(b"/"):
        if part == b"..":
            del parts[-1:]
        elif part not in (b"", b"."):
            parts.append(part)
    return b"/".join(parts)


def _read(view: ImageView, path: bytes, limit: int = _LIMIT) -> bytes | None:
    """At most *limit* bytes of the file at *path*; None where there is no file."""
    place = view.find(path)
    if place is None or place.node.kind != "file":
        return None
    return view.read(place, 0, min(place.node.size, limit))
