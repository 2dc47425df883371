"""Put an image of the tests into a store without a registry, and run the program on that store."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from argosy.oci.config import ImageConfig
from argosy.oci.reference import Reference
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore, Summary

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .images import RandomImage

SOURCE = Path(__file__).resolve().parents[2] / "src"


def load_image(root: Path, image: RandomImage, *names: str) -> None:
    """Blobs first, then each of *names*, as pull does."""
    blobs, refs = BlobStore(root), RefStore(root)
    for descriptor, raw in image.blobs():
        blobs.put(raw, descriptor.media_type)
    blobs.put(image.manifest.raw, image.descriptor.media_type)
    config = ImageConfig.parse(image.layout.read(image.manifest.config.digest))
    summary = Summary(
        manifest=image.descriptor,
        image_id=image.manifest.config.digest,
        created=config.created,
        size=sum(len(tar) for tar in image.tars),
    )
    needs = (*image.manifest.children(), image.descriptor)
    for name in names:
        gc.publish(Reference.parse(name), image.descriptor, summary=summary, needs=needs, blobs=blobs, refs=refs)


def sweep(blobs: BlobStore, needed: Callable[[], gc.Reached]) -> gc.Swept:
    """As a prune removes blobs and parts: all that nothing needs and nobody is at work with."""
    before_ns = gc.idle_before_ns(blobs)
    swept = gc.set_aside(blobs, {*blobs.walk(), *blobs.dropped.walk()}, needed, before_ns=before_ns)
    for path in swept.files:
        os.unlink(path)
    parts = gc.remove_parts(part for part in gc.parts_of(blobs) if part.touched_ns < before_ns)
    return gc.Swept(blobs=swept.blobs, parts=parts.parts, size=swept.size + parts.size)


class Program:
    """Our program on a store of a test's own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def __call__(self, *words: str) -> str:
        """Standard output of a verb that must succeed."""
        done = argosy(self.root, *words)
        assert done.returncode == 0, f"argosy {' '.join(words)}\n{done.stderr.decode()}"
        return done.stdout.decode().strip()

    def refusal(self, *words: str) -> str:
        """Standard error of a verb that must fail."""
        done = argosy(self.root, *words)
        assert done.returncode != 0, f"argosy {' '.join(words)} succeeded\n{done.stdout.decode()}"
        return done.stderr.decode().strip()

    def digest(self, reference: str) -> str:
        """Of the manifest or index that the name means."""
        return self("images", "--no-trunc", "--format", "{{.Digest}}", reference)


def argosy(
    root: Path, *words: str, stdin: bytes = b"", environ: Mapping[str, str] | None = None, timeout_s: float = 120
) -> subprocess.CompletedProcess[bytes]:
    """Run the program in a child process on the store *root*; nothing is judged."""
    return subprocess.run(
        command(*words),
        env=environment(root, environ),
        input=stdin,
        capture_output=True,
        timeout=timeout_s,
        check=False,
    )


def command(*words: str) -> tuple[str, ...]:
    return (sys.executable, "-m", "argosy", *words)


def environment(root: Path, more: Mapping[str, str] | None = None) -> dict[str, str]:
    """This process's environment, with the store named and nothing of the user's own driver or login."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("ARGOSY_", "NVIDIA_", "DOCKER_"))}
    return {**kept, "PYTHONPATH": str(SOURCE), "ARGOSY_ROOT": str(root), **(more or {})}
