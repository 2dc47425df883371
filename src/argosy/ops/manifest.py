"""manifest inspect: manifests and indexes as their registries have them, without a pull."""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from ..oci.image import CONFIG_LIMIT, read_blob, read_manifest
from ..oci.manifest import Index, Manifest
from ..oci.platform import Platform
from ..oci.wire import decode

if TYPE_CHECKING:
    from ..oci.descriptor import Descriptor
    from ..oci.image import ContentSource
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..store.lists import ListStore


class Member:
    """One manifest, alone or in an index. What is not at hand is fetched when it is asked for, and once."""

    def __init__(self, reference: Reference, descriptor: Descriptor, source: ContentSource | None = None) -> None:
        #: under which it can be asked for
        self.reference = reference
        #: with what its index says of it
        self.descriptor = descriptor
        self._source = source

    @classmethod
    def of(
        cls, reference: Reference, descriptor: Descriptor, document: Manifest, source: ContentSource | None = None
    ) -> Member:
        """A member whose document is here already."""
        member = cls(reference, descriptor, source)
        member.__dict__["document"] = document
        return member

    @cached_property
    def document(self) -> Manifest | Index:
        """Raises NotFound, Corrupt, Unavailable."""
        assert self._source is not None
        return read_manifest(self.descriptor, self._source)

    @cached_property
    def platform(self) -> Platform | None:
        """What the index says, else what the config says; None where nobody does."""
        if self.descriptor.platform is not None or self._source is None or isinstance(self.document, Index):
            return self.descriptor.platform
        return platform_of(self.document, self._source)

    @property
    def size(self) -> int:
        """Bytes that fetching it moves: config and layers as they are stored."""
        return sum(child.size for child in self.document.children())


class Members(msgspec.Struct, frozen=True, kw_only=True):
    """An index, in a registry or still being composed."""

    #: as a registry has it, or will have it
    document: Index
    members: tuple[Member, ...]
    #: still being composed here
    is_own: bool


def look_up(reference: Reference, *, lists: ListStore, repository: Repository) -> Member | Members:
    """What *reference* names: a list that is being composed here, else what the registry has. Nothing is pulled.

    Raises NotFound (tag-unknown …), Unauthorized, Unavailable, Corrupt.
    """
    own = lists.find(reference)
    if own is not None:
        members = tuple(Member.of(entry.source, entry.descriptor, entry.manifest) for entry in own.entries)
        return Members(document=own.index, members=members, is_own=True)
    resolved = repository.resolve(reference)
    if isinstance(resolved.document, Manifest):
        return Member.of(reference, resolved.descriptor, resolved.document, repository)
    return Members(
        document=resolved.document,
        members=tuple(
            Member(msgspec.structs.replace(reference, digest=child.digest), child, repository)
            for child in resolved.document.manifests
        ),
        is_own=False,
    )


def look_up_entry(reference: Reference, name: str, *, lists: ListStore) -> Member:
    """The manifest *name* of a list that is being composed. Raises NotFound (list-unknown, manifest-not-in-list)."""
    entry = lists.get(reference).entry(name)
    return Member.of(entry.source, entry.descriptor, entry.manifest)


def platform_of(manifest: Manifest, source: ContentSource) -> Platform | None:
    """What the config of an image says, Windows' version too; None for what is no image."""
    raw = read_blob(manifest.config, source, limit=CONFIG_LIMIT)
    try:
        return decode(raw, Platform)
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError):
        return None
