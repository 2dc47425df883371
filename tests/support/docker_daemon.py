"""A Docker daemon of the tests' own: images can be loaded, tagged, pushed and pulled; containers made, not run.

    with docker_daemon() as docker:
        docker("pull", reference)       # standard output
        docker.refusal("pull", absent)  # standard error of a command that must fail

The programs are Debian's, unpacked by `scripts/setup test`. Sockets, images and settings
lie in a temporary folder, and a mount namespace of its own hides /run and /etc of
the machine from being written, so a Docker that the machine has is not touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux.files import remove_tree

from .peer_tree import PLACE, in_tree

if TYPE_CHECKING:
    from collections.abc import Iterator

PEERS = Path(__file__).resolve().parents[2] / ".tools/peers/usr"
START_S = 60.0  # seconds; 0.3 with files in the cache, 10 from a slow disk
STOP_S = 30.0  # seconds; about 1.5, most of it waiting for containerd
#: Nothing here needs a network, a service manager or a kernel module.
_SETTINGS = (
    "--bridge=none --iptables=false --ip6tables=false --ip-masq=false --ip-forward=false --userland-proxy=false"
).split()
#: dockerd writes /etc/docker/key.json (before version 23) and /run/docker wherever its own folders are.
_ALONE = """
mount -t tmpfs none /run && mkdir -p /run/etc/upper /run/etc/work &&
mount -t overlay -o lowerdir=/etc,upperdir=/run/etc/upper,workdir=/run/etc/work none /etc && exec "$@"
"""


class Docker:
    """The client, connected to the daemon."""

    def __init__(self, folder: Path, environment: dict[str, str], pid: int) -> None:
        self.environment = {**environment, "DOCKER_HOST": f"unix://{folder}/socket", "DOCKER_CONFIG": str(folder)}
        #: of dockerd, whose children are containerd and those that unpack
        self.pid = pid

    def __call__(self, *words: object, stdin: bytes | None = None) -> str:
        """Standard output of a command that must succeed."""
        ended = self._run(words, stdin)
        assert ended.returncode == 0, f"docker {' '.join(map(str, words))}\n{ended.stderr.decode()}"
        return ended.stdout.decode().strip()

    def data(self, *words: object) -> bytes:
        """The same as bytes, for archives."""
        ended = self._run(words, None)
        assert ended.returncode == 0, ended.stderr.decode()
        return ended.stdout

    def refusal(self, *words: object, stdin: bytes | None = None) -> str:
        """Standard error of a command that must fail."""
        ended = self._run(words, stdin)
        assert ended.returncode != 0, f"docker {' '.join(map(str, words))} succeeded\n{ended.stdout.decode()}"
        return ended.stderr.decode().strip()

    def _run(self, words: tuple[object, ...], stdin: bytes | None) -> subprocess.CompletedProcess[bytes]:
        command = ["docker", *map(str, words)]
        return subprocess.run(
            command, input=stdin or b"", capture_output=True, env=self.environment, timeout=120, check=False
        )


@contextmanager
def docker_daemon(
    *, keep: Path | None = None, storage_driver: str = "vfs", tree: Path | None = None
) -> Iterator[Docker]:
    """Start a daemon and give a client of it; a skip where that is not possible.

    Its folder is *keep*, which stays and may be an earlier daemon's, or a temporary one. *tree* has another
    system with its dockerd (see peer_tree.py); the client stays this one.
    """
    environment = _environment()
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
    folder = keep or Path(tempfile.mkdtemp(prefix="docker-"))  # a socket's path has 107 characters at most
    # Docker 29 would keep images in containerd's way, with other ids and other words.
    (folder / "daemon.json").write_text('{"features": {"containerd-snapshotter": false}}')
    inside = PLACE if tree else str(folder)
    places = {"config-file": "daemon.json", "data-root": "data", "exec-root": "exec", "pidfile": "pid"}
    words = [f"--{name}={inside}/{value}" for name, value in places.items()]
    command = ["dockerd", f"--host=unix://{inside}/socket", *words, *_SETTINGS, f"--storage-driver={storage_driver}"]
    # The shell's exec leaves one process, so that a signal to it is one to dockerd.
    alone = ("unshare", "--mount", "--propagation", "private", "sh", "-c", _ALONE, "sh")
    with (folder / "log").open("wb") as log:
        daemon = subprocess.Popen(
            [*(in_tree(tree, folder) if tree else alone), *command],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            env=environment,
        )
    try:
        docker = Docker(folder, environment, daemon.pid)
        _await(daemon, docker, folder)
        yield docker
    finally:
        _stop(daemon)
        if keep is None:
            remove_tree(folder)


def _environment() -> dict[str, str]:
    """PATH with the unpacked programs first, and nothing of a Docker that the user has set up."""
    path = f"{PEERS}/bin:{PEERS}/sbin:{os.environ['PATH']}:/usr/sbin:/sbin"
    if os.geteuid() != 0:
        pytest.skip("needs root, to run a Docker daemon")
    for program in ("docker", "dockerd", "containerd", "runc"):
        if shutil.which(program, path=path) is None:
            pytest.skip(f"no peer client docker: {program} is missing (scripts/setup test unpacks it on Debian)")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("DOCKER_")}
    return {**kept, "PATH": path}


def _await(daemon: subprocess.Popen[bytes], docker: Docker, folder: Path) -> None:
    """The socket is there long before the daemon answers on it, so ask."""
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and daemon.poll() is None:
        if (folder / "socket").exists() and _answers(docker):
            return
        time.sleep(0.05)
    log = (folder / "log").read_text()[-5000:]
    raise AssertionError(f"dockerd did not start ({START_S:.0f} s; status {daemon.poll()}):\n{log}")


def _answers(docker: Docker) -> bool:
    try:
        docker("version")
    except AssertionError:
        return False
    return True


def _stop(daemon: subprocess.Popen[bytes]) -> None:
    daemon.terminate()
    try:
        daemon.wait(STOP_S)
    except subprocess.TimeoutExpired:  # containerd dies with it (PR_SET_PDEATHSIG)
        daemon.kill()
        daemon.wait()
