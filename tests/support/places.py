"""Stores in the states from which verbs begin, each made once and copied for every fault that is tried on it.

The image «app» was pulled when it was old, and is newer in the registry by now; «fixed» is
nobody's to touch. Each test's fault must leave what is said of names here true.
"""

from __future__ import annotations

import os
import shutil
from functools import cache
from typing import TYPE_CHECKING

import msgspec

from argosy.store.blobs import BlobStore

from .hostile import Said, flipped, runnable, say
from .image_archives import docker_members, tar_of
from .layers import snapshotter_of
from .steps import watched
from .stores import argosy, command, environment

if TYPE_CHECKING:
    from pathlib import Path

    from .registry import RunningRegistry
    from .steps import Watched

KINDS = ("erofs", "unpacked")


class Place:
    """A store on which a verb is tried. The image «app» was pulled when it was old; «fixed» is nobody's to touch."""

    def __init__(self, root: Path, kind: str, app: str, fixed: str) -> None:
        self.root, self.kind, self.app, self.fixed = root, kind, app, fixed

    def say(self, *words: str) -> Said:
        return say(self.root, *words, ARGOSY_SNAPSHOTTER=self.kind)

    def run(self, *words: str) -> Said:
        done = argosy(self.root, *words, environ={"ARGOSY_SNAPSHOTTER": self.kind})
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def watched(self, words: tuple[str, ...], scratch: Path, **fault: object) -> Watched:
        environ = environment(self.root, {"ARGOSY_SNAPSHOTTER": self.kind})
        return watched(command(*words), environ, beneath=self.root, scratch=scratch, **fault)  # type: ignore[arg-type]

    def names(self) -> set[str]:
        return set(self.say("images", "-a", "--format", "{{.Repository}}:{{.Tag}}").output.split()) - {"<none>:<none>"}

    def version(self) -> str:
        """What runs under the name «app»: «old», «new», or nothing."""
        if self.app not in self.names():
            return ""
        ran = self.run("run", "--rm", self.app, "cat", "/opt/version")
        assert (ran.status, "error" in ran.error) == (0, False), ran
        return ran.output

    def report(self) -> dict[str, list[object]]:
        said = self.say("check", "--format", "json")
        assert (said.status in (0, 1), said.error) == (True, ""), said
        found: dict[str, list[object]] = msgspec.json.decode(said.output)
        return found

    def copied(self, to: Path) -> Place:
        shutil.rmtree(to, ignore_errors=True)
        if self.root.exists():
            shutil.copytree(self.root, to, symlinks=True)
        return Place(to, self.kind, self.app, self.fixed)


class Places:
    """Stores in the states from which the verbs begin, each made once."""

    def __init__(self, folder: Path, registry: RunningRegistry) -> None:
        self._folder, self._registry = folder, registry
        old = runnable(folder / "old-image", {"opt/": 0o755, "opt/version": b"old", "opt/pad": b"o" * 40_000})
        self.new = runnable(
            folder / "new-image",
            {"opt/": 0o755, "opt/version": b"new", "opt/noise": os.urandom(60_000)},
            {"srv/": 0o755, "srv/noise": os.urandom(60_000)},
        )
        self._old = old
        self._app = registry.push(old, "team/app", "1")
        #: an archive of the newer image under the name loaded:1
        self.archive = folder / "new.tar"
        self.archive.write_bytes(tar_of(docker_members(self.new, "loaded:1")))
        fixed = runnable(folder / "fixed-image", {"opt/": 0o755, "opt/fixed": b"fixed"})
        self._fixed = registry.push(fixed, "team/fixed", "1")
        self.used = cache(self._used)
        self.damaged = cache(self._damaged)
        self.dropped = cache(self._dropped)
        self.broken = cache(self._broken)

    def absent(self, kind: str) -> Place:
        self.used(kind)  # then the registry has the new one
        return Place(self._folder / f"absent-{kind}", kind, self._app, "")

    def _used(self, kind: str) -> Place:
        """Two images from the registry, where «app» is newer by now; a container that has written something."""
        snapshotter_of(kind, self._folder / "probe")
        place = Place(self._folder / kind, kind, self._app, self._fixed)
        self._registry.push(self._old, "team/app", "1")
        for name in (self._app, self._fixed):
            assert place.say("pull", "-q", name).status == 0
        kept = place.run("run", "--name", "kept", self._fixed, "sh", "-c", "echo precious > /thesis")
        assert kept.status == 0, kept
        self._registry.push(self.new, "team/app", "1")
        return place

    def bare(self, kind: str) -> Place:
        """As used; the layers are to be made again."""
        place = self.used(kind).copied(self._folder / f"bare-{kind}")
        for folder in (place.root / "layers").glob("*/*"):
            shutil.rmtree(folder)
        return place

    def _dropped(self, kind: str) -> Place:
        """As used; the compressed blobs of «fixed» were given up."""
        place = self.used(kind).copied(self._folder / f"dropped-{kind}")
        said = place.say("image", "prune", "-f", "--compressed", place.fixed)
        assert (place.root / "dropped").exists(), said
        return place

    def _broken(self, kind: str) -> Place:
        """As dropped; the layers that stand for blobs are damaged."""
        place = self.dropped(kind).copied(self._folder / f"broken-{kind}")
        for diff_id in BlobStore(place.root).dropped.layers():
            layer = place.root / "layers" / diff_id.algorithm / diff_id.hex
            if kind == "erofs":
                (layer / "layer.json").unlink()
                (layer / "index.erofs").write_bytes(b"x")
            else:
                shutil.rmtree(layer / "fs")
        return place

    def _damaged(self, kind: str) -> Place:
        """As used; a blob and a layer are damaged, another blob is missing."""
        place = self.used(kind).copied(self._folder / f"damaged-{kind}")
        blobs = sorted((place.root / "blobs/sha256").iterdir(), key=lambda path: path.stat().st_size)
        blobs[-1].chmod(0o644)
        blobs[-1].write_bytes(flipped(blobs[-1].read_bytes()))
        blobs[0].unlink()
        facts = next((place.root / "layers/sha256").glob("*/layer.json"))
        facts.write_bytes(b"{}")
        return place
