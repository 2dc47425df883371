"""Descriptors and media types: what a blob is, how large, and by which name.

Docker's schema 2 and the OCI types say the same things in two vocabularies;
the families here are the one place that knows both. Source: image-spec «media-types.md».
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated

import msgspec

from .digest import Digest
from .platform import Platform

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_EMPTY = "application/vnd.oci.empty.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
OCI_LAYER_GZIP = "application/vnd.oci.image.layer.v1.tar+gzip"
OCI_LAYER_ZSTD = "application/vnd.oci.image.layer.v1.tar+zstd"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
DOCKER_LAYER_GZIP = "application/vnd.docker.image.rootfs.diff.tar.gzip"
DOCKER_FOREIGN_LAYER = "application/vnd.docker.image.rootfs.foreign.diff.tar.gzip"
OCI_FOREIGN_LAYER_GZIP = "application/vnd.oci.image.layer.nondistributable.v1.tar+gzip"
_FOREIGN_PREFIX = "application/vnd.oci.image.layer.nondistributable."

INDEX_TYPES = frozenset({OCI_INDEX, DOCKER_INDEX})
MANIFEST_TYPES = frozenset({OCI_MANIFEST, DOCKER_MANIFEST})
CONFIG_TYPES = frozenset({OCI_CONFIG, DOCKER_CONFIG})
LAYER_PREFIXES = ("application/vnd.oci.image.layer.", "application/vnd.docker.image.rootfs.")
#: {Docker's name of a type: OCI's name of the same}; skopeo converts no OCI manifest in which others stand.
OCI_NAMES = {
    DOCKER_INDEX: OCI_INDEX,
    DOCKER_MANIFEST: OCI_MANIFEST,
    DOCKER_CONFIG: OCI_CONFIG,
    DOCKER_LAYER: OCI_LAYER,
    DOCKER_LAYER_GZIP: OCI_LAYER_GZIP,
    DOCKER_FOREIGN_LAYER: OCI_FOREIGN_LAYER_GZIP,
}
#: What a client accepts when it asks for a manifest, best first.
ACCEPTED = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)


class Descriptor(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """A pointer to content: type, digest, size in bytes. Source: image-spec «descriptor.md»."""

    media_type: str
    digest: Digest
    size: Annotated[int, msgspec.Meta(ge=0)]
    urls: tuple[str, ...] = ()
    annotations: Mapping[str, str] | None = None
    #: base64 of the content itself, when the index carries it
    data: str | None = None
    artifact_type: str | None = None
    platform: Platform | None = None

    @property
    def is_index(self) -> bool:
        return self.media_type in INDEX_TYPES

    @property
    def is_manifest(self) -> bool:
        return self.media_type in MANIFEST_TYPES

    @property
    def is_layer(self) -> bool:
        """A tar that may be compressed; an encrypted one (ocicrypt) is none that we can read."""
        return self.media_type.startswith(LAYER_PREFIXES) and not self.media_type.endswith("+encrypted")

    @property
    def is_foreign(self) -> bool:
        """A layer that may be had from its addresses only, and not passed on (Windows' base layers)."""
        return self.media_type == DOCKER_FOREIGN_LAYER or self.media_type.startswith(_FOREIGN_PREFIX)

    @property
    def in_oci_terms(self) -> Descriptor:
        """The same content under OCI's name of its type."""
        return msgspec.structs.replace(self, media_type=OCI_NAMES.get(self.media_type, self.media_type))

    @classmethod
    def of(cls, raw: bytes, media_type: str) -> Descriptor:
        """The descriptor of exactly these bytes."""
        return cls(media_type=media_type, digest=Digest.of(raw), size=len(raw))
