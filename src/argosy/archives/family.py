"""What one name may lead to: a manifest, or an index with many below it, as far as it is all here.

An index of which only some platforms are here is the common case: a pull brings one. So
a platform that is not here, or not wholly, is left out, and the others count.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import Corrupt, NotFound, Unsupported
from ..oci.config import ImageConfig
from ..oci.descriptor import CONFIG_TYPES, Descriptor
from ..oci.image import CONFIG_LIMIT, ContentSource, read_blob, read_manifest
from ..oci.manifest import Index, Manifest
from ..oci.platform import Platform

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..oci.digest import Digest

_DEEPEST = 4  # indexes within indexes; real ones have one


class Holding(ContentSource, Protocol):
    """A ContentSource that can tell what it has."""

    def has(self, descriptor: Descriptor) -> bool: ...


class Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """An image of a family: its manifest, and the indexes that lead to it, outermost first."""

    manifest: Manifest
    path: tuple[Index, ...]
    platform: Platform


class Family(msgspec.Struct, frozen=True, kw_only=True):
    """All that is here below one descriptor."""

    #: parents first, each once; a manifest is here with all that it needs
    documents: tuple[Manifest | Index, ...]
    #: those of them that are images which can be run, in the order of their index
    images: tuple[Candidate, ...]
    #: what an index promises and is not here, or not wholly
    absent: tuple[Descriptor, ...]


def family_of(top: Descriptor, source: Holding, name: str) -> Family:
    """Raises NotFound when *top* itself is not here, Unsupported (not-an-image), Corrupt."""
    walk = _Walk(source, name)
    walk.look_at(top, ())
    if top in walk.absent:
        lacking = next(walk.lacking(read_manifest(top, source)))
        raise NotFound(
            f"{name} is not complete",
            code="blob-unknown",
            context=f"blob {lacking.digest} ({lacking.size} bytes) is missing",
        )
    family = Family(documents=tuple(walk.documents.values()), images=tuple(walk.images), absent=tuple(walk.absent))
    if not family.images:
        raise _not_an_image(family, name)
    return family


def choose(family: Family, wanted: Platform | None, name: str) -> Candidate:
    """The image for *wanted*, or for this machine, or else the first. Raises NotFound (platform-not-in-index)."""
    platform = wanted or Platform.host()
    ranked = [
        (rank, place)
        for place, image in enumerate(family.images)
        if (rank := platform.rank(image.platform)) is not None
    ]
    if ranked:
        return family.images[min(ranked)[1]]
    if wanted is None:
        return family.images[0]
    offered = sorted({str(image.platform) for image in family.images})
    raise NotFound(
        f"{name} is not here for {wanted}",
        code="platform-not-in-index",
        context=f"here is {', '.join(offered)}",
        hint=f"--platform {offered[0]}, or none",
    )


class _Walk:
    def __init__(self, source: Holding, name: str) -> None:
        self._source = source
        self._name = name
        self.documents: dict[Digest, Manifest | Index] = {}
        self.images: list[Candidate] = []
        self.absent: list[Descriptor] = []

    def look_at(self, descriptor: Descriptor, path: tuple[Index, ...]) -> None:
        """Each document once, however often indexes name it: indexes that name each other are soon done with."""
        if descriptor.digest in self.documents:
            return
        if len(path) > _DEEPEST:
            raise Corrupt(f"{self._name} nests indexes too deeply", code="index-too-deep")
        if not self._source.has(descriptor):
            self.absent.append(descriptor)
            return
        document = read_manifest(descriptor, self._source)
        if any(self.lacking(document)):
            self.absent.append(descriptor)
            return
        self.documents[descriptor.digest] = document
        if isinstance(document, Manifest):
            if _is_image(document):
                self.images.append(self._candidate(descriptor, document, path))
            return
        for child in document.manifests:
            if child.is_manifest or child.is_index:
                self.look_at(child, (*path, document))

    def lacking(self, document: Manifest | Index) -> Iterator[Descriptor]:
        """The blobs of a manifest that are not here; layers that are to be had from elsewhere do not count."""
        children = document.children() if isinstance(document, Manifest) else ()
        return (child for child in children if not child.urls and not self._source.has(child))

    def _candidate(self, descriptor: Descriptor, manifest: Manifest, path: tuple[Index, ...]) -> Candidate:
        platform = descriptor.platform
        if platform is None:
            platform = ImageConfig.parse(read_blob(manifest.config, self._source, limit=CONFIG_LIMIT)).platform
        return Candidate(manifest=manifest, path=path, platform=platform)


def _is_image(manifest: Manifest) -> bool:
    return manifest.config.media_type in CONFIG_TYPES and all(layer.is_layer for layer in manifest.layers)


def _not_an_image(family: Family, name: str) -> Unsupported | NotFound:
    manifest = next((each for each in family.documents if isinstance(each, Manifest)), None)
    if manifest is None:
        offered = sorted({str(each.platform or each.digest) for each in family.absent})
        return NotFound(
            f"no image of {name} is here",
            code="platforms-missing",
            context=f"of its index {', '.join(offered[:8]) or 'nothing'} would be needed",
        )
    kind = manifest.artifact_type or manifest.config.media_type
    return Unsupported(
        f"{name} is not a container image", code="not-an-image", context=f"it is an artifact of type {kind}"
    )
