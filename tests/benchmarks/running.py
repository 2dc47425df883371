"""`argosy run --rm IMAGE true` against bare runc on the same config.json, and against podman.

The bundle for runc and crun is a ready folder with the image's files; its
config.json is the one that `argosy run` wrote, seccomp profile included; the root
file system's path and the sources of the three files in /etc alone are changed. Podman
runs the same image with the host's network from a store of its own.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

from ..support.busybox import busybox_image
from ..support.stores import load_image
from .figures import compare, ratio

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.images import RandomImage
    from .figures import Options

ROUNDS = 25
#: Before each run. The first move of a process between cgroups in a while waits 10 to 20 ms for the kernel's readers,
#: those right after it do not: back to back, each side would be measured with the other's wait already paid.
REST_S = 0.2


def main(folder: Path, options: Options) -> Iterator[bool]:
    program = str(Path(sys.executable).parent / "argosy")
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "ARGOSY_ROOT": str(folder / "store"), "HOME": "/root"}
    image = busybox_image(folder / "busybox")
    load_image(folder / "store", image, "bench:1")
    bundle = _bundle(folder, program, environment, image)
    podman = _podman(folder, environment)
    private = ("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c")
    without_unified = "mountpoint -q /sys/fs/cgroup/unified && umount /sys/fs/cgroup/unified; exec "
    sides = {
        "argosy run --rm bench:1 true": (program, "run", "--rm", "bench:1", "true"),
        "runc run (ready bundle, same config.json)": (
            "/usr/sbin/runc",
            "--root",
            f"{folder}/runc",
            "run",
            "-b",
            bundle,
            "b",
        ),
        "crun run (the same, in a shell's namespace)": (
            *private,
            f"{without_unified}crun --root {folder}/crun run -b {bundle} b",
        ),
        "podman run --rm --network host bench:1 true": (
            *podman,
            *("run", "--rm", "--network", "host", *_own_limits(), "bench:1", "true"),
        ),
    }
    print("Start of a container (ratios of wall time; each run starts from rest)")
    figures = compare(sides, rounds=options.rounds or ROUNDS, environment=environment, rest_s=REST_S)
    ours, runc, _, pods = (median(figure.wall) for figure in figures.values())
    yield ratio("argosy run to bare runc run", ours, runc, 1.5)
    yield ratio("argosy run to podman run", ours, pods, 0.5)


def _own_limits() -> tuple[str, ...]:
    """podman asks for more files and processes than a user without CAP_SYS_RESOURCE may have."""
    return ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")


def _bundle(folder: Path, program: str, environment: dict[str, str], image: RandomImage) -> str:
    """The image's files in a folder, and the config.json that `argosy run` gives its runtime."""
    runtime = folder / "store/bin/crun"
    runtime.parent.mkdir(exist_ok=True)
    runtime.write_text(
        '#!/bin/sh\nfor word; do [ -e "$word/config.json" ] && cp "$word/config.json" '
        f'{folder}/config.json; done\nexec {shutil.which("crun")} "$@"\n'
    )
    runtime.chmod(0o755)
    subprocess.run((program, "run", "--rm", "bench:1", "true"), env=environment, check=True)
    runtime.unlink()
    config = json.loads((folder / "config.json").read_text())
    bundle = folder / "bundle"
    rootfs = bundle / "rootfs"
    rootfs.mkdir(parents=True)
    for tar in image.tars:
        with tarfile.open(fileobj=io.BytesIO(tar)) as archive:
            archive.extractall(rootfs, filter="fully_trusted")
    config["root"]["path"] = str(rootfs)
    config["annotations"] = {}
    for mount in config["mounts"]:
        if mount["type"] == "bind":  # hosts, hostname and resolv.conf of the container that is gone: the host's own
            mount["source"] = mount["destination"]
    (bundle / "config.json").write_text(json.dumps(config))
    return str(bundle)


def _podman(folder: Path, environment: dict[str, str]) -> tuple[str, ...]:
    """podman's command for a store of its own, with the image in it."""
    program = shutil.which("podman")
    if program is None:
        sys.exit("bench: podman is missing; scripts/setup test installs it")
    command = (
        *(
            program,
            "--root",
            f"{folder}/podman",
            "--runroot",
            f"{folder}/podman-run",
            "--tmpdir",
            f"{folder}/podman-tmp",
        ),
        *("--cgroup-manager", "cgroupfs", "--events-backend", "file", "--runtime", "runc"),
    )
    subprocess.run(
        ("skopeo", "copy", "-q", f"oci:{folder}/busybox:latest", f"docker-archive:{folder}/busybox.tar:bench:1"),
        env=environment,
        check=True,
    )
    subprocess.run((*command, "load", "-q", "-i", f"{folder}/busybox.tar"), env=environment, check=True, stdout=2)
    os.unlink(folder / "busybox.tar")
    return command
