"""Image and Layer: promises over a source of content.

Nothing is fetched, read or hashed until asked, and each fact once. A new kind of
source (a registry, the store, a layout folder) implements `open` alone.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from ..errors import Corrupt
from . import manifest as manifests
from .config import ImageConfig
from .manifest import MANIFEST_LIMIT, Index, Manifest

if TYPE_CHECKING:
    from typing import BinaryIO

    from .descriptor import Descriptor
    from .digest import Digest
    from .platform import Platform

CONFIG_LIMIT = 16 * 2**20  # bytes; the largest known config (1,000 history entries) has 0.5 MB


class ContentSource(Protocol):
    """Where blobs come from: the store, a registry, a layout folder, a test's dictionary."""

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """Stream a blob from byte *offset*; size and digest are checked at the end (whole reads only).

        The caller closes the stream. Stopping early verifies nothing.

        Raises NotFound (no such blob), Corrupt (wrong size or digest, at the last
        read), Unavailable (may be tried again).
        """


class Layer:
    """One layer: its blob (compressed as pushed) and the digest of its tar."""

    def __init__(self, descriptor: Descriptor, diff_id: Digest, source: ContentSource) -> None:
        self.descriptor = descriptor
        self.diff_id = diff_id
        self._source = source

    def open(self) -> BinaryIO:
        """The blob as it was pushed, verified at its end; the caller closes it."""
        return self._source.open(self.descriptor)


class Image:
    """One image for one platform. *descriptor* names its manifest."""

    def __init__(self, descriptor: Descriptor, source: ContentSource) -> None:
        self.descriptor = descriptor
        self.source = source

    @classmethod
    def select(
        cls, descriptor: Descriptor, source: ContentSource, platform: Platform, *, name: str = "this image"
    ) -> Image:
        """The image behind *descriptor*, through as many indexes as there are. Raises NotFound, Corrupt."""
        for _ in range(4):  # nested indexes are legal; deeper ones than this are a trap
            document = read_manifest(descriptor, source)
            if isinstance(document, Manifest):
                image = cls(descriptor, source)
                image.__dict__["manifest"] = document
                return image
            descriptor = document.select(platform, name=name)
        raise Corrupt(f"{name} nests indexes too deeply", code="index-too-deep")

    @cached_property
    def manifest(self) -> Manifest:
        document = read_manifest(self.descriptor, self.source)
        if not isinstance(document, Manifest):
            raise Corrupt(f"{self.descriptor.digest} is an index, not an image", code="manifest-type-mismatch")
        return document

    @cached_property
    def config(self) -> ImageConfig:
        """Raises Corrupt when it is no image config (an artifact has none)."""
        return ImageConfig.parse(read_blob(self.manifest.config, self.source, limit=CONFIG_LIMIT))

    @property
    def id(self) -> Digest:
        """The image id that people see: the digest of the config."""
        return self.manifest.config.digest

    @cached_property
    def layers(self) -> tuple[Layer, ...]:
        """Lowest first. Raises Corrupt when manifest and config count them differently."""
        blobs, diff_ids = self.manifest.layers, self.config.diff_ids
        if len(blobs) != len(diff_ids):
            raise Corrupt(
                f"image {self.descriptor.digest} is damaged",
                code="layers-mismatch",
                context=f"its manifest has {len(blobs)} layers, its config {len(diff_ids)}",
            )
        return tuple(Layer(blob, diff_id, self.source) for blob, diff_id in zip(blobs, diff_ids, strict=True))


def read_manifest(descriptor: Descriptor, source: ContentSource) -> Manifest | Index:
    """The manifest or index that *descriptor* names, verified. Raises NotFound, Corrupt."""
    return manifests.parse(read_blob(descriptor, source, limit=MANIFEST_LIMIT), descriptor.media_type)


def read_blob(descriptor: Descriptor, source: ContentSource, *, limit: int) -> bytes:
    """A small blob as bytes, verified. Raises NotFound, Corrupt (also when *descriptor* promises more than *limit*)."""
    if descriptor.size > limit:
        raise Corrupt(
            f"blob {descriptor.digest} is too large",
            code="blob-too-large",
            context=f"{descriptor.size} bytes; the limit is {limit}",
        )
    with source.open(descriptor) as stream:
        return stream.read()
