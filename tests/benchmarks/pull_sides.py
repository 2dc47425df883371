"""Who pulls: each side makes ready what is not measured, then pulls into a new folder until a container could start.

A side is a context manager that gives a function; calling it is the measured part.
Commands run in a mount namespace of their own, so that what a peer mounts ends with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from ..support.docker_daemon import docker_daemon
from .figures import measure

ARGOSY = str(Path(sys.executable).parent / "argosy")
ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "HOME": "/root", "TMPDIR": "/var/tmp"}
_PRIVATE = ("/usr/bin/unshare", "--mount", "--propagation", "private", "--")

#: gives (wall, processor) milliseconds
Pull = Callable[[], tuple[float, float]]
#: from a reference and a folder that does not exist yet
Side = Callable[[str, Path], AbstractContextManager[Pull]]


@contextmanager
def argosy(reference: str, folder: Path) -> Iterator[Pull]:
    yield _command(ARGOSY, "--root", str(folder), "pull", "-q", reference)


@contextmanager
def podman(reference: str, folder: Path) -> Iterator[Pull]:
    yield _command(*podman_command(folder), "pull", "-q", "--tls-verify=false", reference)


@contextmanager
def docker(reference: str, folder: Path) -> Iterator[Pull]:
    with docker_daemon(keep=folder, storage_driver="overlay2") as daemon:
        client = shutil.which("docker", path=daemon.environment["PATH"]) or "docker"

        def pull() -> tuple[float, float]:
            before = processor_of_tree(daemon.pid)
            wall, processor = measure((client, "pull", "-q", reference), daemon.environment)
            return wall, processor + processor_of_tree(daemon.pid) - before

        yield pull


@contextmanager
def skopeo_and_umoci(reference: str, folder: Path) -> Iterator[Pull]:
    folder.mkdir(parents=True)
    copy = f"skopeo copy -q --src-tls-verify=false docker://{reference} oci:{folder}/layout:1"
    yield _command("/bin/sh", "-c", f"{copy} && umoci unpack --image {folder}/layout:1 {folder}/bundle 2>/dev/null")


def podman_command(folder: Path) -> tuple[str, ...]:
    """podman on a store of its own."""
    places = ("--root", f"{folder}/root", "--runroot", f"{folder}/run", "--tmpdir", f"{folder}/tmp")
    return (*_PRIVATE, "podman", *places, "--cgroup-manager", "cgroupfs", "--events-backend", "file")


def _command(*words: str) -> Pull:
    return lambda: measure((*_PRIVATE, *words) if words[0] != _PRIVATE[0] else words, ENVIRONMENT)


def processor_of_tree(pid: int) -> float:
    """Milliseconds that *pid*, its descendants and those of them that are gone have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) * 1e3 / os.sysconf("SC_CLK_TCK")
    return own + sum(map(processor_of_tree, children(pid)))


def children(pid: int) -> list[int]:
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found
