"""manifest create and annotate: an index of several platforms, composed here before it is pushed."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, InvalidInput
from ..oci.descriptor import Descriptor
from ..oci.image import read_manifest
from ..oci.manifest import Index, Manifest
from ..oci.platform import Platform
from ..store.lists import Entry, ManifestList
from .manifest import platform_of

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..oci.image import ContentSource
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..store.blobs import BlobStore
    from ..store.lists import ListStore
    from ..store.refs import RefStore


def create(
    reference: Reference,
    names: Sequence[Reference],
    *,
    lists: ListStore,
    refs: RefStore,
    blobs: BlobStore,
    connect: Callable[[Reference], Repository],
    amend: bool = False,
) -> ManifestList:
    """Compose a list of the manifests that *names* mean: images of this host, else of their registries.

    With *amend* they are added to the list that there is; one that is in it is replaced,
    and keeps what was annotated as long as it is the same manifest.

    Raises Conflict (list-exists), InvalidInput (reference-has-digest, manifest-is-list),
    and what looking the names up raises. The list is as before then.
    """
    if reference.digest is not None:
        raise InvalidInput(
            f"a manifest list cannot be called {reference.familiar()}",
            code="reference-has-digest",
            context="its digest is known when it is complete",
        )
    if not amend and lists.find(reference) is not None:
        raise _exists(reference)
    entries = [_entry_of(name, refs, blobs, connect) for name in dict.fromkeys(names)]

    def merge(before: ManifestList | None) -> ManifestList:
        if before is not None and not amend:
            raise _exists(reference)
        return _merged(reference, before.entries if before is not None else (), entries)

    return lists.update(reference, merge)


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """What to say of a manifest in its list; what is empty stays as it is."""

    os: str = ""
    architecture: str = ""
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()
    annotations: Mapping[str, str] = {}


def annotate(reference: Reference, name: str, changes: Changes, *, lists: ListStore) -> ManifestList:
    """Change what a list says of one of its manifests; the manifest itself stays as it is.

    Raises NotFound (list-unknown, manifest-not-in-list), InvalidInput (platform-invalid).
    """

    def change(before: ManifestList | None) -> ManifestList:
        known = before if before is not None else lists.get(reference)
        chosen = known.entry(name)
        changed = msgspec.structs.replace(chosen, descriptor=annotated(chosen.descriptor, changes))
        entries = tuple(changed if entry is chosen else entry for entry in known.entries)
        return msgspec.structs.replace(known, entries=entries)

    return lists.update(reference, change)


def annotated(descriptor: Descriptor, changes: Changes) -> Descriptor:
    """*descriptor* with *changes*; features are added to those that there are. Pure. Raises InvalidInput."""
    old = descriptor.platform or Platform(os="", architecture="")
    named = _normal(changes.os or old.os, changes.architecture or old.architecture, changes.variant or old.variant)
    platform = msgspec.structs.replace(
        named,
        os_version=changes.os_version or old.os_version,
        os_features=tuple(dict.fromkeys((*old.os_features, *changes.os_features))),
    )
    annotations = {**(descriptor.annotations or {}), **changes.annotations}
    return msgspec.structs.replace(
        descriptor,
        platform=platform if platform.os or platform.architecture else None,
        annotations=dict(sorted(annotations.items())) or None,
    )


def _normal(os: str, architecture: str, variant: str) -> Platform:
    """The three in Go's words (arm64 for aarch64). Raises InvalidInput (platform-invalid)."""
    parts = [part for part in (os, architecture, variant) if part]
    if any("/" in part for part in parts):
        raise InvalidInput(f"not a platform: {parts!r}", code="platform-invalid", hint="--os linux --arch arm64")
    if not os or not architecture:
        return Platform(os=os, architecture=architecture, variant=variant)
    return Platform.parse("/".join(parts))


def _entry_of(name: Reference, refs: RefStore, blobs: BlobStore, connect: Callable[[Reference], Repository]) -> Entry:
    record = refs.find(name)
    if record is not None:
        return _entry(name, read_manifest(record.manifest, blobs), blobs, is_local=True)
    repository = connect(name)
    return _entry(name, repository.resolve(name).document, repository, is_local=False)


def _entry(name: Reference, document: Manifest | Index, source: ContentSource, *, is_local: bool) -> Entry:
    if isinstance(document, Index):
        document = read_manifest(_only_image(name, document), source)
    if isinstance(document, Index):
        raise _is_list(name, document)
    found = document.descriptor
    descriptor = Descriptor(
        media_type=found.media_type, digest=found.digest, size=found.size, platform=platform_of(document, source)
    )
    return Entry(source=name, descriptor=descriptor, raw=document.raw, is_local=is_local)


def _only_image(name: Reference, index: Index) -> Descriptor:
    """The one image of an index that holds attestations beside it, as BuildKit pushes even for a single platform."""
    images = [child for child in index.manifests if child.platform is not None and child.platform.os != "unknown"]
    if len(images) != 1:
        raise _is_list(name, index)
    return images[0]


def _is_list(name: Reference, index: Index) -> InvalidInput:
    held = (f"{child.platform or 'no platform'}: {name.familiar_name}@{child.digest}" for child in index.manifests)
    return InvalidInput(
        f"{name.familiar()} is a manifest list",
        code="manifest-is-list",
        context="\n".join(("lists hold manifests, not lists; this one holds", *held)),
        hint="name those that you want, by their digests",
    )


def _merged(reference: Reference, before: Sequence[Entry], entries: Sequence[Entry]) -> ManifestList:
    merged = {entry.source: entry for entry in before}
    for entry in entries:
        old = merged.get(entry.source)
        if old is not None and old.descriptor.digest == entry.descriptor.digest:
            entry = msgspec.structs.replace(entry, descriptor=old.descriptor)
        merged[entry.source] = entry
    return ManifestList(reference=reference, entries=tuple(merged.values()))


def _exists(reference: Reference) -> Conflict:
    return Conflict(
        f"refusing to amend an existing manifest list with no --amend flag: {reference.familiar()}",
        code="list-exists",
        hint="--amend adds to it; argosy manifest rm removes it",
    )
