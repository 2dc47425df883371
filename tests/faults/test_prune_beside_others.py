"""Pruning beside pulls that run or are killed, and everything at once: every name leads to a whole image."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import threading
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci.image import Image
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore
from support.images import random_image
from support.registry import running_registry
from support.stores import argosy, command, environment
from support.web import Reply, forward, serving

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.images import RandomImage
    from support.registry import RunningRegistry
    from support.web import Seen

WAIT_S = 60.0  # seconds; a loaded machine needs a few


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("beside") / "registry", expected_stderr=None) as running:
        yield running


class Gate:
    """A proxy before a registry that keeps one blob back until it is let through."""

    def __init__(self, registry: RunningRegistry, digest: str) -> None:
        self._registry, self._digest = registry, digest
        self.reached, self.opened = threading.Event(), threading.Event()

    def __call__(self, seen: Seen) -> Reply:
        if seen.method == "GET" and seen.path.endswith(self._digest):
            self.reached.set()
            self.opened.wait(WAIT_S)
        return forward(self._registry.address, seen)


def start(root: Path, *words: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        command(*words),
        env=environment(root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def ended(process: subprocess.Popen[bytes]) -> str:
    """What it said when it ended well."""
    _, said = process.communicate(timeout=WAIT_S)
    assert process.returncode == 0, said.decode()
    return said.decode()


def killed(process: subprocess.Popen[bytes]) -> None:
    """With all that it started."""
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate(timeout=WAIT_S)


def until_held(root: Path, image: RandomImage, count: int) -> None:
    """Wait until *count* layers of the image are complete blobs."""
    blobs, deadline = BlobStore(root), time.monotonic() + WAIT_S
    while sum(blobs.stat(layer.digest) is not None for layer in image.manifest.layers) < count:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_prune_beside_a_pull_leaves_it_what_it_has_fetched(registry: RunningRegistry, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=3, size=200_000)
    last = image.manifest.layers[-1]
    registry.push(image, "team/gated")
    gate = Gate(registry, last.digest)
    root = tmp_path / "store"
    with serving(gate) as proxy:
        pulling = start(root, "pull", f"{proxy.address}/team/gated")
        assert gate.reached.wait(WAIT_S)
        until_held(root, image, 2)
        for words in (("prune", "-af"), ("system", "prune", "-af"), ("prune", "-f", "--target", "0")):
            said = argosy(root, *words)
            assert b"Deleted Images" not in said.stdout
        held = [BlobStore(root).stat(layer.digest) for layer in image.manifest.layers]
        assert held[:2] == [layer.size for layer in image.manifest.layers[:2]]
        gate.opened.set()
        ended(pulling)
        fetched = [line for line in proxy.lines if line.startswith("GET") and "/blobs/" in line]
        assert len([line for line in fetched if line.endswith(last.digest)]) >= 1
        assert len(fetched) == len(set(fetched))  # nothing twice
    assert argosy(root, "check", "-q").returncode == 0


def test_what_a_killed_pull_left_goes_at_once(registry: RunningRegistry, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=3, size=200_000)
    registry.push(image, "team/killed")
    gate = Gate(registry, image.manifest.layers[-1].digest)
    root = tmp_path / "store"
    with serving(gate) as proxy:
        pulling = start(root, "pull", f"{proxy.address}/team/killed")
        assert gate.reached.wait(WAIT_S)
        until_held(root, image, 2)
        killed(pulling)
        gate.opened.set()
    time.sleep(0.1)  # ticks of the file system's clock
    said = argosy(root, "prune", "-f")
    assert said.returncode == 0, said.stderr
    assert (list(BlobStore(root).walk()), gc.unfinished(BlobStore(root))) == ([], [])
    assert list((root / "layers").rglob("layer.json")) == []
    assert list((root / "tmp").glob("layer-*")) == []


def test_a_pull_goes_on_where_a_killed_one_stopped_unless_somebody_pruned(
    registry: RunningRegistry, tmp_path: Path
) -> None:
    """What is left is worth something until it is asked to go: image prune keeps parts."""
    image = random_image(tmp_path / "image", layers=3, size=200_000)
    registry.push(image, "team/resumed")
    gate = Gate(registry, image.manifest.layers[-1].digest)
    root = tmp_path / "store"
    with serving(gate) as proxy:
        name = f"{proxy.address}/team/resumed"
        pulling = start(root, "pull", name)
        assert gate.reached.wait(WAIT_S)
        until_held(root, image, 2)
        killed(pulling)
        gate.opened.set()
        proxy.seen.clear()
        ended(start(root, "pull", name))
        fetched = {line.rpartition("/")[2] for line in proxy.lines if line.startswith("GET") and "/blobs/" in line}
        assert image.manifest.layers[0].digest not in fetched


@pytest.mark.parametrize("step", range(8))
def test_a_prune_that_is_killed_leaves_every_other_image_whole(
    registry: RunningRegistry, tmp_path: Path, step: int
) -> None:
    """Killed a bit later each time; a second prune does the rest."""
    root = tmp_path / "store"
    kept, *others = [random_image(tmp_path / f"image{seed}", seed=seed, layers=4, size=30_000) for seed in range(4)]
    names = [registry.push(image, f"team/kept{number}") for number, image in enumerate((kept, *others))]
    for name in names:
        assert argosy(root, "pull", "-q", name).returncode == 0
    pruning = (
        start(root, "system", "prune", "-af", "--filter", "until=1s", "--compressed")
        if step % 2
        else start(root, "prune", "-af")
    )
    time.sleep(0.15 + 0.03 * step)
    killed(pruning)
    whole(root)
    done = argosy(root, "prune", "-af")
    assert done.returncode == 0, done.stderr
    whole(root)
    assert argosy(root, "check", "-q").returncode == 0


def whole(root: Path) -> None:
    """Every name leads to an image that is here with all its content."""
    blobs = BlobStore(root)
    for record in RefStore(root).list():
        image = Image(record.manifest, blobs)
        for child in image.manifest.children():
            assert blobs.holds(child.digest), (record.reference.familiar(), child.digest)


def test_many_verbs_at_once_and_kills_leave_a_sound_store(registry: RunningRegistry, tmp_path: Path) -> None:
    """Pulls, tags, removals, prunes and drops at random, a third of them killed at a random moment."""
    root, source = tmp_path / "store", random.Random(7)
    images = [random_image(tmp_path / f"image{seed}", seed=seed, layers=2, size=20_000) for seed in range(3)]
    names = [registry.push(image, f"team/random{number}") for number, image in enumerate(images)]
    argosy(root, "df")
    running: list[subprocess.Popen[bytes]] = []
    for _ in range(40):
        name = source.choice(names)
        words = source.choice(
            [
                ("pull", "-q", name),
                ("pull", "-q", name),
                ("tag", name, f"other:{source.randrange(3)}"),
                ("rmi", "-f", source.choice([*names, "other:0", "other:1"])),
                ("prune", "-af"),
                ("system", "prune", "-f"),
                ("image", "prune", "-f", "--compressed"),
                ("push", "-q", name),
            ]
        )
        running.append(start(root, *words))
        while len(running) > 3:
            process = running.pop(0)
            if source.random() < 0.35:
                time.sleep(source.random() * 0.3)
                killed(process)
            else:
                process.communicate(timeout=WAIT_S)  # some must fail: their image is gone
    for process in running:
        process.communicate(timeout=WAIT_S)
    whole(root)
    for name in names:
        done = argosy(root, "pull", "-q", name)
        assert done.returncode == 0, done.stderr
    checked = argosy(root, "check")
    assert checked.returncode == 0, checked.stdout
    for image in images:
        for layer in image.manifest.layers:
            assert BlobStore(root).holds(layer.digest)
    assert argosy(root, "prune", "-af").returncode == 0
    assert list(BlobStore(root).walk()) == []
