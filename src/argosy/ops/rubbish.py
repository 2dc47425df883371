"""What interrupted work leaves in a store: harmless, known by its name and place, and gone with `check --repair`."""

from __future__ import annotations

import os
import re
import time
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..linux.files import remove_tree
from ..oci.digest import ALGORITHMS, Digest
from ..store import gc
from ..store.blobs import JOURNAL
from . import leftovers

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrPath

    from ..store.blobs import BlobStore
    from ..store.records import ContainerStore

#: as linux.files.write_atomic names what it has not renamed yet, and store.derived its caches
_ASIDE = re.compile(r"\..+\.\d+\.[0-9a-f]{8}|(refs|containers)\.tsv\.\d+\.[0-9a-f]{8}")
_PLACES = ("", "refs", "manifests", "unsettled", "names", "cache", "layers")
_WRITING_S = 3600.0  # seconds; nobody takes so long for a small file


def find(blobs: BlobStore, containers: ContainerStore) -> tuple[str, ...]:
    """Paths in the store, sorted in each sort: parts of transfers, files aside, layers without facts, tmp/ …"""
    root = blobs.root
    parts = [os.path.relpath(path, root) for path in gc.unfinished(blobs)]
    husks = [f"containers/{container_id}" for container_id in containers.husks()]
    others = sorted((*_journals(root), *_asides(root), *_half_layers(blobs), *husks))
    return (*parts, *others, *(f"tmp/{name}" for name in leftovers.names(root)))


def remove(blobs: BlobStore, containers: ContainerStore) -> list[str]:
    """Remove what nobody is at work with; gives a line for each sort of things that went."""
    root, done = blobs.root, []
    before_ns = gc.idle_before_ns(blobs)
    parts = gc.remove_parts(part for part in gc.parts_of(blobs) if part.touched_ns < before_ns)
    if parts.parts:
        done.append(f"removed {parts.parts} parts of interrupted transfers ({parts.size} bytes)")
    done += [f"removed tmp/{each.name}" for each in leftovers.remove(root, leftovers.find(root))]
    for path in (*_journals(root), *_half_layers(blobs), *_old(root, _asides(root))):
        remove_tree(os.path.join(root, path))
        done.append(f"removed {path}")
    return done + [f"removed containers/{container_id}" for container_id in containers.remove_husks()]


def _journals(root: StrPath) -> Iterator[str]:
    """Those without the part that they tell about."""
    for name in _names(root, "ingest"):
        if name.endswith(JOURNAL) and not os.path.lexists(os.path.join(root, "ingest", name.removesuffix(JOURNAL))):
            yield f"ingest/{name}"


def _asides(root: StrPath) -> Iterator[str]:
    places = [*_PLACES, *(f"containers/{name}" for name in _names(root, "containers"))]
    for algorithm in ALGORITHMS:
        places += [
            f"dropped/{algorithm}",
            *(f"layers/{algorithm}/{name}" for name in _names(root, f"layers/{algorithm}")),
        ]
    for place in places:
        for name in _names(root, place):
            if _ASIDE.fullmatch(name):
                yield os.path.join(place, name)


def _half_layers(blobs: BlobStore) -> Iterator[str]:
    """Folders of layers without layer.json: not there for anybody, unless their tar is the last copy of a blob."""
    root, last_copies = blobs.root, blobs.dropped.layers()
    for algorithm in _names(root, "layers"):
        for name in _names(root, f"layers/{algorithm}"):
            try:
                diff_id = Digest.parse(f"{algorithm}:{name}")
            except InvalidInput:
                continue
            if diff_id not in last_copies and not os.path.exists(
                os.path.join(root, "layers", algorithm, name, "layer.json")
            ):
                yield f"layers/{algorithm}/{name}"


def _old(root: StrPath, paths: Iterator[str]) -> Iterator[str]:
    for path in paths:
        try:
            if time.time() - os.lstat(os.path.join(root, path)).st_mtime > _WRITING_S:
                yield path
        except FileNotFoundError:
            continue


def _names(root: StrPath, place: str) -> list[str]:
    try:
        return sorted(os.listdir(os.path.join(root, place)))
    except (FileNotFoundError, NotADirectoryError):
        return []
