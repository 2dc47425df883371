"""Debian as a layer: which packages, at which versions, and the tree that they make.

Three steps that can be taken apart: *resolve* asks the host's apt for versions and
hashes, *fetch* downloads exactly those files, *assemble* lets mmdebstrap install
exactly those files and nothing else. So the tree is a function of the list of
packages, on whichever host and day it is made.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
from typing import TYPE_CHECKING
from urllib.parse import quote, unquote

import msgspec

from ..errors import Corrupt, RuntimeFailed, Unsupported
from ..linux import userns
from ..linux.files import write_atomic
from . import programs
from .sources import host_sources

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .recipes import OsRecipe

_URI = re.compile(r"'(?P<uri>[^']+)' (?P<file>\S+) (?P<size>\d+) SHA256:(?P<sha256>[0-9a-f]{64})")
#: Documentation that images do without; licences stay. dpkg keeps to it later too, as in Debian's slim images.
LEFT_OUT = (
    "path-exclude=/usr/share/man/*",
    "path-exclude=/usr/share/info/*",
    "path-exclude=/usr/share/groff/*",
    "path-exclude=/usr/share/lintian/*",
    "path-exclude=/usr/share/linda/*",
    "path-exclude=/usr/share/locale/*",
    "path-include=/usr/share/locale/locale.alias",
    "path-exclude=/usr/share/doc/*",
    "path-include=/usr/share/doc/*/copyright",
)
#: bookworm's packages expect the merged /usr to be there before the first of them is unpacked.
_MERGED_USR = 'for d in bin sbin lib lib64; do mkdir -p "$1/usr/$d"; ln -s "usr/$d" "$1/$d"; done'


class Deb(msgspec.Struct, frozen=True, kw_only=True):
    """One package file. *file* is its name, with «%3a» where the version has a colon."""

    file: str
    size: int
    sha256: str

    @property
    def name(self) -> str:
        return self.file.split("_")[0]

    @property
    def version(self) -> str:
        return unquote(self.file.split("_")[1])


class Debian:
    """apt with state of its own under *folder* (which may be deleted at any time), configured as the host's.

    The host's package state is never touched, and its hooks never run.
    """

    def __init__(self, folder: Path, *, architecture: str, environ: Mapping[str, str], apt: Path) -> None:
        self._folder = folder
        self.architecture = architecture
        self._environ = environ
        self._apt = apt
        self.debs = folder / "debs"

    def refresh(self, release: OsRecipe) -> None:
        """Get the indexes of today. Raises Unsupported, Unavailable, RuntimeFailed."""
        programs.require("apt-get", package="apt", environ=self._environ)
        self._mode()
        self._configure(release)
        self._get(["update", "--error-on=any"], doing=f"reading the package lists of {release.title}")

    def resolve(self, packages: Sequence[str]) -> tuple[Deb, ...]:
        """Every file that installing *packages* into an empty system takes, by name."""
        said = self._get(
            ["--print-uris", "-o", "Acquire::ForceHash=SHA256", "install", *packages], doing="choosing packages"
        )
        debs = [
            Deb(file=match["file"], size=int(match["size"]), sha256=match["sha256"]) for match in _URI.finditer(said)
        ]
        if not debs:
            raise RuntimeFailed("apt chose no packages", code="program-failed", context=said[-1000:], exit_status=1)
        return tuple(sorted(debs, key=lambda deb: deb.file))

    def fetch(self, debs: Sequence[Deb], release: OsRecipe) -> None:
        """Bring the files into `debs`; those that are there and whole are not downloaded again.

        Raises RuntimeFailed where the archive has dropped a version meanwhile, Corrupt (digest-mismatch).
        """
        missing = [deb for deb in debs if not self._is_whole(deb)]
        if not missing:
            return
        if not (self._folder / "apt.conf").exists():  # the cache was deleted
            self.refresh(release)
        os.makedirs(self.debs / "partial", exist_ok=True)
        self._get(
            ["--download-only", "-o", f"Dir::Cache::archives={self.debs}", "install"]
            + [f"{deb.name}={deb.version}" for deb in debs],
            doing=f"downloading {len(missing)} packages",
        )
        for deb in missing:
            if not self._is_whole(deb):
                raise Corrupt(
                    f"package {deb.file} is damaged",
                    code="digest-mismatch",
                    context=f"{self.debs / deb.file} has not the digest sha256:{deb.sha256} that its index promises",
                )

    def newest(self, debs: Sequence[Deb]) -> int:
        """When the newest of the packages was made, in seconds of the epoch.

        Source: deb(5); dpkg-deb writes the date of the changelog into each member's header.
        """
        times = []
        for deb in debs:
            with open(self.debs / deb.file, "rb") as file:
                times.append(int(file.read(36)[24:36]))
        return max(times)

    def assemble(self, debs: Sequence[Deb], release: OsRecipe, *, epoch: int, work: Path, target: Path) -> None:
        """Write the installed tree as a tar to *target*; *work* is an empty folder for what is in between."""
        mmdebstrap = programs.require("mmdebstrap", package="mmdebstrap", environ=self._environ)
        repository = work / "repository"
        self._repository(debs, release, repository, self._plain_environment(work))
        argv = [
            mmdebstrap,
            f"--mode={self._mode()}",
            "--variant=essential",
            f"--architectures={self.architecture}",
            f"--include={','.join(deb.name for deb in debs)}",
            *(f"--dpkgopt={option}" for option in LEFT_OUT),
            f"--setup-hook={_MERGED_USR}",
            "--skip=check/signed-by,check/qemu",  # the one source is ours, and architectures are the host's
            "--format=tar",
            release.codename,
            "-",
            f"deb [trusted=yes] copy:{quote(str(repository))} {release.codename} main",
        ]
        environ = self._plain_environment(work) | {"SOURCE_DATE_EPOCH": str(epoch)}
        with open(target, "wb") as out:
            programs.run(argv, doing=f"installing {len(debs)} Debian packages", environ=environ, stdout=out)

    def _mode(self) -> str:
        """How mmdebstrap becomes root of the tree. Raises Unsupported (no-subordinate-ids), best before downloads."""
        if os.geteuid() == 0:
            return "root"
        mapping, reason = userns.available_mapping(path=self._environ.get("PATH", ""))
        if mapping.is_single:
            raise Unsupported(
                "the OS layer cannot be made by this user: its files have many owners",
                code="no-subordinate-ids",
                context=reason,
                hint="as administrator: apt install uidmap, "
                "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER; or build as root",
            )
        return "unshare"

    def _repository(self, debs: Sequence[Deb], release: OsRecipe, folder: Path, environ: Mapping[str, str]) -> None:
        """A package archive of these files alone; others may read it, since mmdebstrap's user is another one."""
        lists = folder / "dists" / release.codename / "main" / f"binary-{self.architecture}"
        pool = folder / "pool"
        os.makedirs(lists)
        os.makedirs(pool)
        index = "".join(self._paragraph(deb, pool, environ) for deb in debs).encode()
        _write_public(lists / "Packages", index)
        summary = (
            f"Suite: {release.codename}\nCodename: {release.codename}\nComponents: main\n"
            f"Architectures: {self.architecture}\nSHA256:\n"
            f" {hashlib.sha256(index).hexdigest()} {len(index)} main/binary-{self.architecture}/Packages\n"
        )
        _write_public(folder / "dists" / release.codename / "Release", summary.encode())

    def _paragraph(self, deb: Deb, pool: Path, environ: Mapping[str, str]) -> str:
        source = self.debs / deb.file
        try:
            os.link(source, pool / deb.file)
        except OSError:  # another file system
            shutil.copyfile(source, pool / deb.file)
        os.chmod(pool / deb.file, 0o644)
        control = programs.run(["dpkg-deb", "--field", str(source)], doing=f"reading {deb.file}", environ=environ)
        return f"{control.rstrip()}\nFilename: pool/{deb.file}\nSize: {deb.size}\nSHA256: {deb.sha256}\n\n"

    def _is_whole(self, deb: Deb) -> bool:
        try:
            with open(self.debs / deb.file, "rb") as file:
                whole = hashlib.file_digest(file, "sha256").hexdigest() == deb.sha256
        except FileNotFoundError:
            return False
        if not whole:
            os.unlink(self.debs / deb.file)
        return whole

    def _configure(self, release: OsRecipe) -> None:
        """Write the sources and an apt.conf that takes the host's way to the network and nothing else of it."""
        for name in ("lists/partial", "cache/archives/partial", "debs/partial"):
            os.makedirs(self._folder / name, exist_ok=True)
        sources = host_sources(release.codename, self._apt)
        write_atomic(self._folder / "status", b"", sync=False)
        write_atomic(
            self._folder / "sources.list", "".join(f"{source.line()}\n" for source in sources).encode(), sync=False
        )
        write_atomic(self._folder / "apt.conf", self._settings().encode(), sync=False)

    def _settings(self) -> str:
        dump = programs.run(["apt-config", "dump"], doing="reading apt's settings", environ=self._environ)
        network = [
            line
            for line in dump.splitlines()
            if line.startswith("Acquire::") and not line.startswith(("Acquire::IndexTargets", "Acquire::Languages"))
        ]
        folder = self._folder
        own = {
            "Dir::Etc::main": "/dev/null",
            "Dir::Etc::parts": "/dev/null",
            "Dir::Etc::sourcelist": folder / "sources.list",
            "Dir::Etc::sourceparts": "/dev/null",
            "Dir::Etc::preferences": "/dev/null",
            "Dir::Etc::preferencesparts": "/dev/null",
            "Dir::State": folder,
            "Dir::State::status": folder / "status",
            "Dir::State::lists": folder / "lists",
            "Dir::Cache": folder / "cache",
            "APT::Architecture": self.architecture,
            "APT::Install-Recommends": "false",
            "APT::Sandbox::User": "root",
            "Acquire::Languages": "none",
        }
        lines = [*network, *(f'{name} "{value}";' for name, value in own.items())]
        lines.append(f'#clear APT::Architectures;\nAPT::Architectures {{ "{self.architecture}"; }};')
        return "\n".join(lines) + "\n"

    def _get(self, arguments: Sequence[str], *, doing: str) -> str:
        environ = dict(self._environ) | {"APT_CONFIG": str(self._folder / "apt.conf"), "LC_ALL": "C.UTF-8"}
        return programs.run(["apt-get", "-qq", "-y", *arguments], doing=doing, environ=environ)

    def _plain_environment(self, work: Path) -> dict[str, str]:
        """Nothing of the user's own settings may reach the image."""
        path = self._environ.get("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        return {"PATH": path, "HOME": "/", "LC_ALL": "C.UTF-8", "TMPDIR": str(work)}


def _write_public(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    os.chmod(path, 0o644)
