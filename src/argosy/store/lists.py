"""Manifest lists that are being composed: one small JSON file each, until it is pushed and purged or removed.

A list holds the documents of the manifests that it names, so that it can be looked at
and annotated without a registry. It keeps no image: layers and configs of local
images stay where they are, and go when their image goes. Nothing here is an image
of this host before somebody pulls it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error, InvalidInput, NotFound
from ..linux.files import NO_FILE, remove_tree, reporting, sync_folder, write_atomic
from ..linux.locks import locked
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.manifest import Index, Manifest, encode_list
from ..oci.reference import Reference
from ..oci.wire import decode, encode
from .refs import SUFFIX, file_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import StrPath

#: how a file that is no list shows
_BROKEN = (msgspec.MsgspecError, InvalidInput, Corrupt, RecursionError, UnicodeDecodeError)


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One manifest of a list."""

    #: the name under which it was taken in
    source: Reference
    #: what the index will say of it, platform and annotations included
    descriptor: Descriptor
    #: the manifest, to the byte
    raw: bytes
    #: taken from this host's images; its blobs are in this store, as long as the image is
    is_local: bool

    @property
    def manifest(self) -> Manifest:
        return Manifest.parse(self.raw, self.descriptor.media_type)


class ManifestList(msgspec.Struct, frozen=True, kw_only=True):
    """An index on its way to be one, in the order in which its manifests were named."""

    reference: Reference
    entries: tuple[Entry, ...]

    @property
    def index(self) -> Index:
        """The document that a push makes of the list."""
        return encode_list(tuple(entry.descriptor for entry in self.entries))

    def entry(self, name: str) -> Entry:
        """The entry that *name* means: what it was taken in as, or its digest, alone or after a name.

        Raises NotFound (manifest-not-in-list), InvalidInput (reference-invalid).
        """
        try:
            digest: Digest | None = Digest.parse(name)
        except InvalidInput:
            wanted = Reference.parse(name)
            for entry in self.entries:
                if entry.source == wanted:
                    return entry
            digest = wanted.digest
        for entry in self.entries:
            if entry.descriptor.digest == digest:
                return entry
        raise NotFound(
            f"manifest for image {name} does not exist in {self.reference.familiar()}",
            code="manifest-not-in-list",
            context="it holds " + ", ".join(entry.source.familiar() for entry in self.entries),
        )


class ListStore:
    """The lists of this host. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self._folder = os.path.join(root, "manifests")

    def find(self, reference: Reference) -> ManifestList | None:
        """The list of this name, None when there is none. Raises Corrupt (list-damaged)."""
        path = self._path(reference)
        with reporting("read", path):
            try:
                with open(path, "rb", buffering=0) as file:
                    raw = file.read()
            except FileNotFoundError:
                return None
            except OSError as error:
                if error.errno in NO_FILE:
                    raise _damaged(reference, os.strerror(error.errno)) from error
                raise
        return _parse(raw, reference)

    def get(self, reference: Reference) -> ManifestList:
        """As find. Raises NotFound (list-unknown)."""
        found = self.find(reference)
        if found is None:
            raise _unknown(reference)
        return found

    def update(self, reference: Reference, change: Callable[[ManifestList | None], ManifestList]) -> ManifestList:
        """Put what *change* makes of the list in its place; nobody else changes a list meanwhile.

        What *change* raises leaves the list as it was.
        """
        with reporting("make", self._folder):
            os.makedirs(self._folder, exist_ok=True)
        with locked(os.path.join(self._folder, ".lock")):
            changed = change(self.find(reference))
            write_atomic(self._path(reference), encode(changed) + b"\n")
        return changed

    def delete(self, reference: Reference) -> None:
        """Forget a list, a damaged one too. Raises NotFound (list-unknown)."""
        path = self._path(reference)
        with reporting("remove", path):
            try:
                os.unlink(path)
            except FileNotFoundError as error:
                raise _unknown(reference) from error
            sync_folder(self._folder)

    def damaged(self) -> tuple[tuple[str, str], ...]:
        """(file name, what is wrong with it) of the lists that cannot be read, sorted."""
        found = []
        for name in self._names():
            path = os.path.join(self._folder, name)
            try:
                with reporting("read", path), open(path, "rb", buffering=0) as file:
                    reference = _decoded(file.read()).reference
            except NotFound:
                continue
            except (*_BROKEN, Error) as error:
                found.append((name, error.message if isinstance(error, Error) else str(error)))
                continue
            if file_name(reference) != name:
                found.append((name, f"it holds the list {reference}"))
        return tuple(sorted(found))

    def discard(self, name: str) -> None:
        """Remove what `damaged` found under *name*."""
        if "/" in name or not name.endswith(SUFFIX):
            raise InvalidInput(f"not a manifest list's file: {name!r}", code="name-invalid")
        remove_tree(os.path.join(self._folder, name))

    def _names(self) -> list[str]:
        with reporting("list", self._folder):
            try:
                names = os.listdir(self._folder)
            except FileNotFoundError:
                return []
        return [name for name in names if name.endswith(SUFFIX) and not name.startswith(".")]

    def _path(self, reference: Reference) -> str:
        return os.path.join(self._folder, file_name(reference))


def _decoded(raw: bytes) -> ManifestList:
    """Raises one of _BROKEN."""
    found = decode(raw, ManifestList)
    for entry in found.entries:
        if Digest.of(entry.raw, entry.descriptor.digest.algorithm) != entry.descriptor.digest:
            raise InvalidInput(f"the manifest of {entry.source} has changed", code="digest-mismatch")
        entry.manifest  # noqa: B018  # parsed, so that nobody meets its faults later
    return found


def _parse(raw: bytes, reference: Reference) -> ManifestList:
    try:
        return _decoded(raw)
    except _BROKEN as error:
        raise _damaged(reference, str(error)) from error


def _damaged(reference: Reference, why: str) -> Corrupt:
    return Corrupt(
        f"the manifest list {reference.familiar()} is damaged",
        code="list-damaged",
        context=why,
        hint=f"argosy manifest rm {reference.familiar()}, and create it again",
    )


def _unknown(reference: Reference) -> NotFound:
    return NotFound(
        f"no such manifest list: {reference.familiar()}",
        code="list-unknown",
        hint=f"argosy manifest create {reference.familiar()} MANIFEST…",
    )
