"""The registry's disk: one pool of blobs, and a folder of small link files for each repository.

    <root>/blobs/<algorithm>/<hex>              the bytes (store/blobs.py), manifests included
    <root>/uploads/                             unfinished uploads (uploads.py)
    <root>/repositories/<name>/_blobs/…         empty file: this repository holds the blob
                              /_manifests/…     descriptor of a manifest that it holds
                              /_tags/<tag>      descriptor that the tag names
                              /_referrers/<subject>/<digest>   descriptor of a manifest with that subject

No component of a name may begin with «_», so `a` and `a/_tags` cannot both be
repositories and names nest freely. Each file is written aside and renamed;
deleting and tagging in one repository hold its lock. All of it blocks.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from heapq import heappop, heappush
from typing import TYPE_CHECKING

from ..errors import InvalidInput, NotFound
from ..linux.files import create_exclusive, reporting, sync_folder, write_atomic
from ..linux.locks import locked
from ..oci.descriptor import Descriptor
from ..oci.reference import is_repository
from ..oci.wire import decode, encode
from ..store.blobs import BlobStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from ..oci.digest import Digest


#: Follows «/» among the bytes, so that `name + _PAST_BELOW` lies past all names below *name*, and no other.
_PAST_BELOW = "0"


class Storage:
    """All repositories under one root. Any number of threads and processes may share it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self._repositories = os.path.join(root, "repositories")

    def repository(self, name: str) -> Repository:
        """The repository of that name, which need not exist yet. Raises InvalidInput (name-invalid)."""
        if not is_repository(name):
            raise InvalidInput(
                f"not a repository name: {name!r}",
                code="name-invalid",
                hint="names are lower-case words joined by «/», «.», «_», «__» or dashes, 255 characters at most",
            )
        return Repository(name, os.path.join(self._repositories, name), self.blobs)

    def names(self, *, after: str = "") -> Iterator[str]:
        """Every repository that holds or held a manifest, past *after*, in the order of their bytes.

        Lazy, and each step reads one folder: the next name is the least of a heap of all
        folders that may hold one, for a folder's own name comes before those below it.
        Who pages through while others push meets every repository that was there
        all the time, once.
        """
        heap = [""]
        while heap:
            name = heappop(heap)
            children = _folders(os.path.join(self._repositories, name))
            if "_manifests" in children and name > after:
                yield name
            for child in children:
                path = f"{name}/{child}" if name else child
                if not child.startswith("_") and f"{path}{_PAST_BELOW}" > after:
                    heappush(heap, path)


class Repository:
    """One repository's links. What it holds, it holds by digest; tags are names for some of that."""

    def __init__(self, name: str, folder: str, blobs: BlobStore) -> None:
        self.name = name
        self.blobs = blobs
        self._folder = folder

    def require(self) -> None:
        """Raises NotFound (repository-unknown) unless a manifest was ever pushed here."""
        if not os.path.isdir(self._path("_manifests")):
            raise NotFound(f"repository {self.name!r} is not known here", code="repository-unknown")

    @contextmanager
    def changing(self) -> Iterator[None]:
        """Alone among those who delete or tag here: a check made inside still holds when the change is made."""
        ensure_folder(self._folder)
        with locked(self._path("_lock")):
            yield

    def blob_size(self, digest: Digest) -> int | None:
        """Size of a blob that this repository holds; None when it does not."""
        if not os.path.exists(self._path("_blobs", digest.algorithm, digest.hex)):
            return None
        return self.blobs.stat(digest)

    def link_blob(self, digest: Digest) -> None:
        """Hold a blob of the pool. Idempotent."""
        path = self._path("_blobs", digest.algorithm, digest.hex)
        if not os.path.exists(path):
            ensure_folder(os.path.dirname(path))
            create_exclusive(path)

    def unlink_blob(self, digest: Digest) -> bool:
        """Let a blob go; False when it was not held. The pool keeps its bytes, others may hold them."""
        return _remove(self._path("_blobs", digest.algorithm, digest.hex))

    def manifest(self, digest: Digest) -> Descriptor | None:
        return _read(self._path("_manifests", digest.algorithm, digest.hex))

    def link_manifest(self, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        _write(self._path("_manifests", digest.algorithm, digest.hex), descriptor)

    def unlink_manifest(self, digest: Digest) -> bool:
        return _remove(self._path("_manifests", digest.algorithm, digest.hex))

    def size(self, digest: Digest) -> int | None:
        """Size of what this repository holds under *digest*, manifest or blob; None when it holds nothing."""
        manifest = self.manifest(digest)
        return manifest.size if manifest is not None else self.blob_size(digest)

    def tag(self, tag: str) -> Descriptor | None:
        """What *tag* names; None when there is no such tag or its manifest was deleted."""
        descriptor = _read(self._path("_tags", tag))
        return descriptor if descriptor is not None and self.manifest(descriptor.digest) is not None else None

    def tags(self) -> list[str]:
        """All tags, in the order of their bytes."""
        return sorted(_names(self._path("_tags")))

    def set_tag(self, tag: str, descriptor: Descriptor) -> None:
        """Point *tag* at a manifest held here: the last step of a push."""
        _write(self._path("_tags", tag), descriptor)

    def delete_tag(self, tag: str) -> bool:
        return _remove(self._path("_tags", tag))

    def add_referrer(self, subject: Digest, descriptor: Descriptor) -> None:
        digest = descriptor.digest
        _write(self._path("_referrers", *subject.split(":"), f"{digest.algorithm}-{digest.hex}"), descriptor)

    def remove_referrer(self, subject: Digest, digest: Digest) -> bool:
        return _remove(self._path("_referrers", *subject.split(":"), f"{digest.algorithm}-{digest.hex}"))

    def referrers(self, subject: Digest, *, after: str = "") -> Iterator[tuple[str, Descriptor]]:
        """(place, descriptor) of the manifests with *subject*, in a fixed order, those past *after* only."""
        folder = self._path("_referrers", *subject.split(":"))
        for name in sorted(_names(folder)):
            descriptor = _read(os.path.join(folder, name)) if name > after else None
            if descriptor is not None:
                yield name, descriptor

    def _path(self, *parts: str) -> str:
        return os.path.join(self._folder, *parts)


def ensure_folder(path: str) -> None:
    """Make *path* and what is missing above it, each name synced. Idempotent."""
    if os.path.isdir(path):
        return
    parent = os.path.dirname(path) or "."
    ensure_folder(parent)
    with reporting("make", path):
        try:
            os.mkdir(path)
        except FileExistsError:  # another process was faster
            return
        sync_folder(parent)


def _write(path: str, descriptor: Descriptor) -> None:
    """Replace a link file, unless it says this already."""
    if _read(path) != descriptor:
        ensure_folder(os.path.dirname(path))
        write_atomic(path, encode(descriptor))


def _read(path: str) -> Descriptor | None:
    with reporting("read", path):
        try:
            with open(path, "rb", buffering=0) as stream:
                return decode(stream.read(), Descriptor)
        except FileNotFoundError:
            return None


def _remove(path: str) -> bool:
    with reporting("remove", path):
        try:
            os.unlink(path)
        except FileNotFoundError:
            return False
        sync_folder(os.path.dirname(path))
        return True


def _folders(path: str) -> list[str]:
    try:
        with os.scandir(path) as entries:
            return [entry.name for entry in entries if entry.is_dir(follow_symlinks=False)]
    except FileNotFoundError:
        return []


def _names(folder: str) -> list[str]:
    """Names of link files; those being written begin with a dot."""
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except FileNotFoundError:
        return []
