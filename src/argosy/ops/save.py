"""save: which images under which names go into an archive, and how much of each.

Content goes out as it came: layers keep their compression, documents their bytes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..archives.family import choose, family_of
from ..archives.writing import FolderMembers, Outgoing, TarMembers, write_dir, write_layout
from ..errors import InvalidInput, NotFound
from ..oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import BinaryIO

    from ..layer.compression import Sink
    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..oci.image import ContentSource
    from ..oci.platform import Platform
    from ..store.blobs import BlobStore
    from ..store.refs import RefRecord, RefStore


def select(
    texts: Iterable[str], *, refs: RefStore, blobs: BlobStore, platform: Platform | None = None
) -> tuple[Outgoing, ...]:
    """The images that *texts* mean, each once with all its names, in the order in which they are first named.

    A name without tag and digest means all tags of its repository, and an image id the
    image without a name, as for `docker save`. All that is here of an index is taken;
    with *platform* that image alone, without the index.

    Raises NotFound (tag-unknown, platform-not-in-index; blob-unknown for an image that is damaged here).
    """
    #: {digest that a name means: its record, names}
    found: dict[Digest, tuple[RefRecord, list[Reference]]] = {}
    for text in texts:
        for record, name in _named(text, refs):
            _, names = found.setdefault(record.descriptor.digest, (record, []))
            if name is not None and name not in names:
                names.append(name)
    return tuple(_outgoing(record, tuple(names), blobs, platform) for record, names in found.values())


def save(
    images: tuple[Outgoing, ...],
    form: str,
    *,
    blobs: BlobStore,
    place: str | Sink,
    content: ContentSource | None = None,
) -> None:
    """Write *images* into the empty folder that *place* names, or as a tar into *place*.

    *form* is podman's word: docker-archive (Docker's and an OCI layout at once), oci-archive, oci-dir or docker-dir.

    *content* is where blobs are read, the store itself by default.

    Raises NotFound for a blob that was dropped and cannot be had again, Corrupt when one is damaged here,
    Exhausted; what was written then is of no use.
    """
    members = FolderMembers(place) if isinstance(place, str) else TarMembers(place)
    source = _Store(blobs, content)
    if form == "docker-dir":
        if len(images) != 1:
            raise InvalidInput(f"{form} holds one image, not {len(images)}", code="usage", hint="--format oci-dir")
        write_dir(images[0], source, members)
    else:
        write_layout(images, source, members, docker=form == "docker-archive")
    members.close()


class _Store:
    """The store as a source that can tell what it has."""

    def __init__(self, blobs: BlobStore, content: ContentSource | None = None) -> None:
        self._blobs = blobs
        self._content = content or blobs

    def has(self, descriptor: Descriptor) -> bool:
        return self._blobs.holds(descriptor.digest)

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        return self._content.open(descriptor, offset=offset)


def _named(text: str, refs: RefStore) -> list[tuple[RefRecord, Reference | None]]:
    """(image, name that was asked for; None where an id was)."""
    records = _whole_repository(text, refs)
    if records:
        return [(record, record.reference) for record in records]
    record = refs.lookup(text)
    return [(record, None if _is_id(text, record) else record.reference)]


def _whole_repository(text: str, refs: RefStore) -> list[RefRecord]:
    """Every tag of the repository that *text* names; none where it names a tag, a digest or an id."""
    if "@" in text or ":" in text.rpartition("/")[2]:
        return []
    try:
        name = Reference.parse(text).name
    except InvalidInput:
        return []
    return [each for each in refs.list() if each.reference.name == name and each.reference.tag is not None]


def _is_id(text: str, record: RefRecord) -> bool:
    """Whether *text* found *record* by its id: no name of a store's is a beginning of its own image's id."""
    return record.is_untagged or record.image_id.hex.startswith(text.removeprefix("sha256:"))


def _outgoing(record: RefRecord, names: tuple[Reference, ...], blobs: BlobStore, platform: Platform | None) -> Outgoing:
    name = names[0].familiar() if names else record.image_id.short
    source = _Store(blobs)
    family = family_of(record.descriptor, source, name)
    if platform is not None:
        manifest = choose(family, platform, name).manifest
        return Outgoing(names=names, documents=(manifest,), manifest=manifest)
    chosen = next(
        (each.manifest for each in family.images if each.manifest.descriptor.digest == record.manifest.digest), None
    )
    if chosen is None:
        raise NotFound(
            f"{name} is not complete",
            code="blob-unknown",
            context=f"its manifest {record.manifest.digest}, or a blob of it, is missing",
            hint="argosy check shows what is; pulling the image again brings it back",
        )
    return Outgoing(names=names, documents=family.documents, manifest=chosen)
