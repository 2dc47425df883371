"""Who pulls and removes images: argosy, podman, docker, skopeo with umoci; each on a store in a folder of its own.

A side is a context manager: entering it does what is not measured (it starts a
daemon), and what it gives does the measured things. Commands run in a mount namespace
of their own, so that what a peer mounts ends with it.
"""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ..support.docker_daemon import docker_daemon
from ..support.peer_tree import PLACE, in_tree
from .figures import Taken, measure

OURS, PODMAN, DOCKER = "argosy", "podman", "docker"
ARGOSY = str(Path(sys.executable).parent / "argosy")
ENVIRONMENT = {
    "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
    "HOME": "/root",
    "TMPDIR": "/var/tmp",
    "PODMAN_IGNORE_CGROUPSV1_WARNING": "1",
}
_PRIVATE = ("/usr/bin/unshare", "--mount", "--propagation", "private", "--")
#: {side: the programs without which it is left out}
_NEEDS = {
    PODMAN: ("podman",),
    DOCKER: ("docker", "dockerd", "containerd", "runc"),
    "skopeo + umoci": ("skopeo", "umoci"),
}


class Engine(NamedTuple):
    """One image of one side."""

    #: until a container could start
    pull: Callable[[], Taken]
    #: the image that was pulled, with all that nothing else needs; None where the peer has no such command
    remove: Callable[[], Taken] | None


#: from a reference and a folder, which is made or taken up again
Side = Callable[[str, Path], AbstractContextManager[Engine]]


def sides() -> dict[str, Side]:
    """Ours first; newer peers where $ARGOSY_BENCH_PEERS is a system's root with them (tests/support/peer_tree.py)."""
    found: dict[str, Side] = {OURS: argosy, PODMAN: podman, DOCKER: docker, "skopeo + umoci": umoci}
    for name, programs in _NEEDS.items():
        if missing := [program for program in programs if shutil.which(program) is None]:
            print(f"without {name}: {', '.join(missing)} not found (scripts/setup test brings what Debian has)")
            del found[name]
    newer = os.environ.get("ARGOSY_BENCH_PEERS")
    if newer is None:
        print("without newer peers: ARGOSY_BENCH_PEERS names no root of a system that has them")
        return found
    tree = Path(newer)
    return {**found, "newer podman": partial(podman, tree=tree), "newer docker": partial(docker, tree=tree)}


@contextmanager
def argosy(reference: str, folder: Path) -> Iterator[Engine]:
    command = (ARGOSY, "--root", str(folder))
    yield Engine(_measured(*command, "pull", "-q", reference), _measured(*command, "rmi", reference))


@contextmanager
def podman(reference: str, folder: Path, *, tree: Path | None = None) -> Iterator[Engine]:
    folder.mkdir(parents=True, exist_ok=True)
    inside = PLACE if tree else str(folder)
    places = ("--root", f"{inside}/root", "--runroot", f"{inside}/run", "--tmpdir", f"{inside}/tmp")
    alone = in_tree(tree, folder) if tree else _PRIVATE
    command = (*alone, "podman", *places, "--cgroup-manager", "cgroupfs", "--events-backend", "file")
    pull = _measured(*command, "pull", "-q", "--tls-verify=false", reference, temporary=inside)
    yield Engine(pull, _measured(*command, "rmi", reference))


@contextmanager
def docker(reference: str, folder: Path, *, tree: Path | None = None) -> Iterator[Engine]:
    """The client's time is the time; the processor time is the daemon's too."""
    with docker_daemon(keep=folder, storage_driver="overlay2", tree=tree) as daemon:
        client = shutil.which("docker", path=daemon.environment["PATH"]) or "docker"

        def measured(*words: str) -> Taken:
            before = processor_of_tree(daemon.pid)
            wall, processor = measure((client, *words), daemon.environment)
            return Taken(wall, processor + processor_of_tree(daemon.pid) - before)

        yield Engine(lambda: measured("pull", "-q", reference), lambda: measured("rmi", reference))


@contextmanager
def umoci(reference: str, folder: Path) -> Iterator[Engine]:
    folder.mkdir(parents=True)
    copy = f"skopeo copy -q --src-tls-verify=false docker://{reference} oci:{folder}/layout:1"
    unpack = f"umoci unpack --image {folder}/layout:1 {folder}/bundle"
    yield Engine(_measured(*_PRIVATE, "/bin/sh", "-c", f"{copy} && {unpack} 2>/dev/null"), None)


def _measured(*words: str, temporary: str = "/var/tmp") -> Callable[[], Taken]:
    """*temporary* is where the command puts what it does not keep: podman leaves that when it is killed."""
    return lambda: measure(words, {**ENVIRONMENT, "TMPDIR": temporary})


def processor_of_tree(pid: int) -> float:
    """Milliseconds that *pid*, its descendants and those of them that are gone have used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    own = sum(map(int, fields[11:15])) * 1e3 / os.sysconf("SC_CLK_TCK")
    return own + sum(map(processor_of_tree, children(pid)))


def children(pid: int) -> list[int]:
    """Those that *pid* has now."""
    found: list[int] = []
    for task in Path(f"/proc/{pid}/task").iterdir():
        found += map(int, (task / "children").read_text().split())
    return found
