"""The main job, step by step, as a user would type it; each step with its time.

Everything is kept under .demo/ of the checkout: the store, the registry's data, a
fake driver. A second run finds the images built and takes seconds.
"""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

CHECKOUT = Path(__file__).resolve().parent.parent
FOLDER = CHECKOUT / ".demo"
ARGOSY = str(CHECKOUT / ".venv/bin/argosy")
FLAVOURS = ("base", "runtime", "devel")


class Demo:
    """Runs commands and shows them, shortened to what a user would type."""

    def __init__(self) -> None:
        self.environment = {**os.environ, "ARGOSY_ROOT": str(FOLDER / "store"), "PYTHONUNBUFFERED": "1"}
        self._began = time.monotonic()
        self._number = 0

    def step(self, title: str) -> None:
        self._number += 1
        elapsed = time.monotonic() - self._began
        print(
            f"\n\033[1m{self._number}. {title}\033[0m  [{elapsed:.1f} s]"
            if sys.stdout.isatty()
            else f"\n{self._number}. {title}  [{elapsed:.1f} s]",
            flush=True,
        )

    def argosy(self, *words: str, expect: int = 0, keep: int | None = None, quiet: bool = False) -> str:
        """Run one verb; its output, of which the last *keep* lines are shown. A wrong exit status ends the demo."""
        if not quiet:
            print(f"$ argosy {typed(words)}", flush=True)
        began = time.monotonic()
        done = subprocess.run(
            (ARGOSY, *words), env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        took = time.monotonic() - began
        if not quiet or done.returncode != expect:
            lines = done.stdout.replace(str(CHECKOUT) + "/", "").rstrip().splitlines()
            hidden = len(lines) - keep if keep is not None else 0
            if hidden > 0:
                print(f"  … {hidden} lines")
                lines = lines[hidden:]
            print(
                "".join(f"  {line}\n" for line in lines) + f"  ({took:.2f} s, exit status {done.returncode})",
                flush=True,
            )
        if done.returncode != expect:
            sys.exit(f"demo: expected exit status {expect}, got {done.returncode}")
        return done.stdout


def typed(words: tuple[str, ...]) -> str:
    """The words as a user would type them in the checkout."""
    quoted = (word if shlex.quote(word) == word else f'"{word}"' for word in words)
    return " ".join(quoted).replace(f"{CHECKOUT}/", "")


@contextmanager
def registry(port: int, environment: dict[str, str]) -> Iterator[None]:
    """`argosy registry serve` on loopback, ended at the end."""
    command = (ARGOSY, "registry", "serve", "--root", str(FOLDER / "registry"), "--listen", f"127.0.0.1:{port}")
    server = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True)
    try:
        assert server.stdout is not None
        print("  " + server.stdout.readline().rstrip(), flush=True)
        yield
    finally:
        server.send_signal(signal.SIGTERM)
        server.wait(timeout=30)


def free_port() -> int:
    """5000, the usual one, or any that is free."""
    for port in (5000, 0):
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return int(probe.getsockname()[1])
    sys.exit("demo: no free port on 127.0.0.1")


def has_gpu() -> bool:
    return Path("/proc/driver/nvidia/version").exists() and Path("/dev/nvidiactl").exists()


def main() -> None:
    demo = Demo()
    work = FOLDER / "work"
    work.mkdir(parents=True, exist_ok=True)
    shutil.copy(CHECKOUT / "demo/vectorAdd.cu", work)
    port = free_port()
    prefix = f"localhost:{port}/"
    images = {flavour: f"{prefix}nvidia/cuda:13-{flavour}" for flavour in FLAVOURS}
    devel = images["devel"]

    demo.step("A registry of your own")
    print(f"$ argosy registry serve --root .demo/registry --listen 127.0.0.1:{port} &", flush=True)
    with registry(port, demo.environment):
        demo.step("The CUDA image in its three layers: OS, CUDA runtime, CUDA toolkit")
        demo.argosy("catalog", "build", "nvidia/cuda:13-devel", "--without-math", "--tag-prefix", prefix)
        demo.step("Push them, remove them here, pull them back")
        for name in images.values():
            demo.argosy("push", "-q", name)
        digest = digest_of(demo, devel)
        demo.argosy("rmi", "-f", *built_ids(demo), keep=4)
        for name in images.values():
            demo.argosy("pull", "-q", name)
        demo.argosy("images")
        expect(digest_of(demo, devel) == digest, "the pulled image has the digest of the pushed one")

        demo.step("A real compile inside the container")
        # Machine code for every generation: a driver older than the toolkit cannot compile its PTX at launch.
        compiler = ("nvcc", "-arch=all-major")
        demo.argosy(
            "run", "--rm", "-v", f"{work}:/work", devel, *compiler, "-o", "/work/vectorAdd", "/work/vectorAdd.cu"
        )

        demo.step("Change a container, make an image of it; the base image stays as it was")
        demo.argosy("rm", "-f", "adder", quiet=True) if "adder" in demo.argosy("ps", "-a", quiet=True) else None
        demo.argosy("run", "--name", "adder", "-v", f"{work}:/work", devel, "cp", "/work/vectorAdd", "/usr/local/bin/")
        demo.argosy("commit", "adder", "vectoradd:26.11")
        expect(digest_of(demo, devel) == digest, "the base image has the same digest as before")
        demo.argosy("history", "vectoradd:26.11")
        demo.argosy("rm", "adder")
        demo.argosy("ps", "-a")

        demo.step("Run it on a GPU")
        if has_gpu():
            demo.argosy("run", "--rm", "--gpus", "all", "vectoradd:26.11", "vectorAdd")
        else:
            print("  (this machine has no GPU, so this must fail before the start, with the reason)")
            demo.argosy("run", "--rm", "--gpus", "all", "vectoradd:26.11", "vectorAdd", expect=125)
        demo.argosy("doctor", expect=0 if has_gpu() else 1)

        demo.step("The same launch with a fake driver: what is injected")
        fake = FOLDER / "fake-driver"
        if not fake.exists():
            command = (sys.executable, "-m", "tests.support.driver_roots", str(fake))
            subprocess.run(command, cwd=CHECKOUT, check=True, stdout=subprocess.DEVNULL)
        gpus = ("--driver-root", str(fake), "run", "--rm", "--gpus", "all", "vectoradd:26.11")
        demo.argosy(*gpus, "nvidia-smi")
        demo.argosy(*gpus, "sh", "-c", "ls -l /dev/nvidia*; ldconfig -p | grep -E 'libcuda|libnvidia-ml'")

        demo.step("The stack of figure 1")
        demo.argosy("--driver-root", str(fake), "stack", "vectoradd:26.11")
    print(f"\ndone in {time.monotonic() - demo._began:.1f} s; everything is in .demo/, make clean removes it")


def digest_of(demo: Demo, name: str) -> str:
    document = json.loads(demo.argosy("inspect", name, quiet=True))
    return str(document[0]["Id"]) + " " + " ".join(document[0]["RootFS"]["Layers"])


def built_ids(demo: Demo) -> list[str]:
    """Ids of the images that this or an earlier demo left, under whatever port."""
    listed = demo.argosy("images", "--format", "{{.Repository}} {{.ID}}", quiet=True).splitlines()
    rows = (line.split(" ") for line in listed)
    return sorted({image_id for name, image_id in rows if name.endswith("/nvidia/cuda") or name == "vectoradd"})


def expect(fact: bool, sentence: str) -> None:
    print(f"  {'yes' if fact else 'NO'}: {sentence}", flush=True)
    if not fact:
        sys.exit(1)


if __name__ == "__main__":
    main()
