"""Who needs what: all that the names and containers of a store lead to, walked from the top."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, TypeVar

from ..errors import Corrupt, Error, InvalidInput, NotFound
from ..oci.config import ImageConfig
from ..oci.descriptor import CONFIG_TYPES, Descriptor
from ..oci.image import CONFIG_LIMIT, read_blob, read_manifest
from ..oci.manifest import Manifest
from ..oci.reference import Reference

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.digest import Digest
    from ..store.blobs import BlobStore
    from ..store.records import Container
    from ..store.refs import RefRecord

Value = TypeVar("Value")

CONTAINER = "container "
UNTAGGED = "untagged image "


class Survey:
    """What is needed, by whom, and where it came from. Damaged documents are noted, and lead no further."""

    def __init__(self, records: Iterable[RefRecord], containers: Iterable[Container], blobs: BlobStore) -> None:
        self._blobs = blobs
        #: {digest of a blob or a layer: the names of images and containers that need it}
        self.users: dict[Digest, list[str]] = {}
        #: {needed blob: its descriptor}
        self.needed: dict[Digest, Descriptor] = {}
        #: {needed blob: images under whose names registries may have it}
        self.origins: dict[Digest, list[Reference]] = {}
        #: {layer: the blobs that it can be made of}
        self.blobs_of: dict[Digest, list[Descriptor]] = {}
        #: {blob that is a layer: its diff-id}
        self.layers: dict[Digest, Digest] = {}
        #: {document that cannot be read: why}
        self.unreadable: dict[Digest, str] = {}
        for record in records:
            origin = None if record.is_untagged else record.reference
            self._walk(record.descriptor, name_of(record), origin, whole=False)
            self._walk(record.manifest, name_of(record), origin, whole=True)
        for container in containers:
            self._walk(container.manifest, f"{CONTAINER}{container.name}", _origin(container), whole=True)

    def absent(self) -> list[Descriptor]:
        """Needed blobs that are not here, dropped ones too; sorted by digest."""
        return [self.needed[digest] for digest in sorted(self.needed) if not is_here(digest, self._blobs)]

    def _walk(self, descriptor: Descriptor, name: str, origin: Reference | None, *, whole: bool) -> None:
        """An index needs itself; of its platforms only the one that is *whole*."""
        self._need(descriptor, name, origin)
        if not (descriptor.is_index or descriptor.is_manifest):
            return
        try:
            document = read_manifest(descriptor, self._blobs)
        except NotFound:
            return
        except Error as error:
            self.unreadable[descriptor.digest] = reason(error)
            return
        if not whole or not isinstance(document, Manifest):
            return
        for child in document.children():
            self._need(child, name, origin)
        if document.config.media_type in CONFIG_TYPES:
            self._walk_config(document, name)

    def _walk_config(self, manifest: Manifest, name: str) -> None:
        try:
            config = ImageConfig.parse(read_blob(manifest.config, self._blobs, limit=CONFIG_LIMIT))
        except NotFound:
            return
        except Error as error:
            self.unreadable[manifest.config.digest] = reason(error)
            return
        for diff_id in config.diff_ids:
            _note(self.users, diff_id, name)
        if len(manifest.layers) == len(config.diff_ids):
            for descriptor, diff_id in zip(manifest.layers, config.diff_ids, strict=True):
                _note(self.blobs_of, diff_id, descriptor)
                self.layers[descriptor.digest] = diff_id

    def _need(self, descriptor: Descriptor, name: str, origin: Reference | None) -> None:
        self.needed[descriptor.digest] = descriptor
        _note(self.users, descriptor.digest, name)
        if origin is not None:
            _note(self.origins, descriptor.digest, origin)


def name_of(record: RefRecord) -> str:
    """How a report calls an image."""
    return f"{UNTAGGED}{record.image_id.short}" if record.is_untagged else record.reference.familiar()


def reason(error: Error) -> str:
    """What is wrong, when the reader knows already with which thing."""
    return error.context if isinstance(error, Corrupt) and error.context else error.message


def is_here(digest: Digest, blobs: BlobStore) -> bool:
    """Whether there is something under the blob's name, readable or not."""
    try:
        return blobs.stat(digest) is not None
    except Error:
        return True


def _origin(container: Container) -> Reference | None:
    """Where a container's image was pulled from, if it was started by a name."""
    if container.image_id.hex.startswith(container.image.removeprefix("sha256:")):
        return None
    with suppress(InvalidInput):
        return Reference.parse(container.image)
    return None


def _note(found: dict[Digest, list[Value]], key: Digest, value: Value) -> None:
    values = found.setdefault(key, [])
    if value not in values:
        values.append(value)
