"""Wheels from the Python index that the user's own pip is set up for: found, downloaded once, checked, listed.

pip runs in this interpreter's environment; its configuration decides the index.
Each file's digest is written beside it when it arrives and checked whenever the
file is used again.
"""

from __future__ import annotations

import hashlib
import os
import re
import sys
import tempfile
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error, NotFound, RuntimeFailed, Unsupported
from ..linux.files import write_atomic
from ..linux.processes import find_program, run_program
from . import programs

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_REPORTED = re.compile(r"^\s*(?:Saved|File was already downloaded) (?P<path>.+\.whl)\s*$", re.M)
_REQUIREMENT = re.compile(r"(?P<name>[A-Za-z0-9._-]+)\s*(?P<version>[^;\[]*?)\s*(?:;\s*(?P<marker>.*))?")
_OFFERED = re.compile(r"\(from versions: (?P<versions>[^)]*)\)")


class Wheel(msgspec.Struct, frozen=True, kw_only=True):
    """One file of the index. *project* is normalised («nvidia-cuda-nvcc»)."""

    project: str
    version: str
    file: str
    sha256: str
    size: int


class Wheels:
    """A folder of wheels, filled through pip."""

    def __init__(self, folder: Path, *, environ: Mapping[str, str], python: str = sys.executable) -> None:
        self.folder = folder
        self._environ = environ
        self._python = python
        #: files whose digest was right when this process looked
        self._checked: set[str] = set()

    def path(self, wheel: Wheel) -> Path:
        return self.folder / wheel.file

    def requirements(self, project: str, version: str, *, extra: str, machine: str) -> tuple[str, dict[str, str]]:
        """(the newest release that fits *version*, {project: version it pins}) of a package that only has requirements.

        Raises NotFound (release-unknown) that lists what the index has, Unavailable, RuntimeFailed.
        """
        wanted = f"{project}=={version}" + ("" if version.count(".") >= 2 else ".*")
        with tempfile.TemporaryDirectory(prefix="argosy-") as name:
            self._pip([wanted], Path(name))
            file = next(Path(name).glob("*.whl"))
            found = _version_of(file.name)
            with zipfile.ZipFile(file) as archive:
                metadata = next(entry for entry in archive.namelist() if entry.endswith(".dist-info/METADATA"))
                text = archive.read(metadata).decode()
        return found, pinned(text, extra=extra, machine=machine)

    def resolve(self, requirements: Sequence[str]) -> tuple[Wheel, ...]:
        """Bring what fits each requirement («name==1.2.*») and say what it is, in their order."""
        os.makedirs(self.folder, exist_ok=True)
        if not requirements:
            return ()
        self._drop_cut()
        said = self._pip(requirements, self.folder)
        files = {_project_of(Path(path).name): Path(path).name for path in _REPORTED.findall(said)}
        names = [normalised(requirement) for requirement in requirements]
        missing = [name for name in names if name not in files]
        if missing:
            raise RuntimeFailed(
                f"pip brought no wheel of {', '.join(missing)}",
                code="program-failed",
                context=said[-1000:],
                exit_status=1,
            )
        return tuple(self._described(files[name]) for name in names)

    def ensure(self, wheels: Sequence[Wheel]) -> None:
        """Have exactly these files, downloading what is missing. Raises Corrupt (digest-mismatch)."""
        missing = [wheel for wheel in wheels if not self._is_whole(wheel)]
        if not missing:
            return
        os.makedirs(self.folder, exist_ok=True)
        self._drop_cut()
        self._pip([f"{wheel.project}=={wheel.version}" for wheel in missing], self.folder)
        for wheel in missing:
            if not self._is_whole(wheel):
                raise Corrupt(
                    f"wheel {wheel.file} is not the one that was used before",
                    code="digest-mismatch",
                    context=f"the index no longer has a file with digest sha256:{wheel.sha256}",
                    hint="argosy catalog build --refresh NAME takes what the index has now",
                )
            self._record(wheel)

    def _described(self, file: str) -> Wheel:
        """The wheel, its digest checked against the one written when it arrived, or written now."""
        path = self.folder / file
        wheel = Wheel(
            project=_project_of(file),
            version=_version_of(file),
            file=file,
            sha256=_sha256(path),
            size=path.stat().st_size,
        )
        known = self._recorded(file)
        if known is None:
            self._record(wheel)
        elif known != wheel.sha256:  # damage on our disk, not a change of the index: wheels are never replaced there
            os.unlink(path)
            os.unlink(self._record_path(file))
            raise Corrupt(
                f"wheel {file} in the cache is damaged",
                code="digest-mismatch",
                context=f"{path} had digest sha256:{known} when it was downloaded, now sha256:{wheel.sha256}; removed",
                hint="run the command again to download it afresh",
            )
        self._checked.add(file)
        return wheel

    def _drop_cut(self) -> None:
        """Downloads that were cut short go, for pip would trip over them; what has a digest was whole once."""
        for path in self.folder.glob("*.whl"):
            if self._recorded(path.name) is None and not zipfile.is_zipfile(path):
                os.unlink(path)

    def _is_whole(self, wheel: Wheel) -> bool:
        path = self.folder / wheel.file
        try:
            if wheel.file in self._checked or (path.stat().st_size == wheel.size and _sha256(path) == wheel.sha256):
                self._checked.add(wheel.file)
                return True
            os.unlink(path)
        except FileNotFoundError:
            pass
        return False

    def _record_path(self, file: str) -> Path:
        return self.folder / f"{file}.sha256"

    def _recorded(self, file: str) -> str | None:
        try:
            return self._record_path(file).read_text(encoding="ascii").split()[0]
        except (FileNotFoundError, IndexError):
            return None

    def _record(self, wheel: Wheel) -> None:
        """As sha256sum writes it, so that `sha256sum -c` reads it."""
        write_atomic(self._record_path(wheel.file), f"{wheel.sha256}  {wheel.file}\n".encode(), sync=False)

    def _pip(self, requirements: Sequence[str], folder: Path) -> str:
        argv = [
            *self._program(),
            *("download", "--no-deps", "--only-binary=:all:", "--progress-bar=off", "--retries=2"),
            *("--disable-pip-version-check", "--no-input", "--dest", str(folder)),
            *requirements,
        ]
        try:
            return programs.run(argv, doing="downloading from the Python index", environ=self._environ)
        except RuntimeFailed as error:
            raise _unknown(error, requirements) from error

    def _program(self) -> list[str]:
        """pip of this interpreter, else one on PATH (environments made by uv have none)."""
        # Asked of the interpreter itself, for `argosy` may run without its site folder.
        own = run_program([self._python, "-c", "import pip"], env=self._environ)
        if own.status == 0:
            return [self._python, "-m", "pip"]
        for name in ("pip3", "pip"):
            found = find_program(name, path=self._environ.get("PATH", ""))
            if found is not None:
                return [found]
        raise Unsupported(
            "pip is not installed",
            code="program-missing",
            context=f"the catalogue downloads NVIDIA's wheels with it; {self._python} has no module pip",
            hint=f"{self._python} -m ensurepip, or apt-get install python3-pip",
        )


def pinned(metadata: str, *, extra: str, machine: str) -> dict[str, str]:
    """{project: version} that a wheel's METADATA requires for *extra* on Linux of *machine*.

    Versions are as written: «==13.5.37.*», «<14,>=13.5.37». Source: core metadata, Requires-Dist.
    """
    pins = {}
    for line in metadata.splitlines():
        if not line:
            break  # the description follows
        name, _, value = line.partition(": ")
        match = _REQUIREMENT.fullmatch(value) if name == "Requires-Dist" else None
        if match is not None and _applies(match["marker"] or "", extra, machine):
            pins[normalised(match["name"])] = match["version"]
    return pins


def normalised(requirement: str) -> str:
    """The project of a requirement, as the index spells it. Source: «Names and normalization»."""
    match = re.match(r"[A-Za-z0-9._-]+", requirement)
    return re.sub(r"[-_.]+", "-", match[0] if match else requirement).lower()


def _applies(marker: str, extra: str, machine: str) -> bool:
    """NVIDIA's markers only ever list pairs of system and machine, so looking for ours in the text is enough."""
    if f"extra == '{extra}'" not in marker.replace('"', "'"):
        return False
    text = marker.replace('"', "'")
    return "platform_machine" not in text or f"sys_platform == 'linux' and platform_machine == '{machine}'" in text


def _unknown(error: RuntimeFailed, requirements: Sequence[str]) -> Error:
    """pip's «no matching distribution» as NotFound, with what there is."""
    if "No matching distribution found" not in error.context:
        return error
    match = _OFFERED.search(error.context)
    versions = match["versions"].split(", ") if match else []
    named = requirements[0] if len(requirements) == 1 else ", ".join(requirements)
    return NotFound(
        f"the Python index has no {named}",
        code="release-unknown",
        context=f"it has {', '.join(versions[-12:])}" if versions and versions != ["none"] else error.context,
        hint="argosy catalog ls",
    )


def _project_of(file: str) -> str:
    return normalised(file.split("-")[0])


def _version_of(file: str) -> str:
    return file.split("-")[1]


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
