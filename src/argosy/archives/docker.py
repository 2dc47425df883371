"""Docker's archives: manifest.json names a config and the layers of each image; the manifest itself is not there.

So one is made: equal archives give equal manifests, on every machine, since layers stay as
they are in the archive, compressed or not. The config keeps its bytes, and with them
the image its id.
Source: moby `image/tarexport`. Archives from before Docker 1.10 have no manifest.json.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error
from ..layer.compression import Compression, compression_of
from ..oci.config import ImageConfig
from ..oci.descriptor import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_LAYER_ZSTD, Descriptor
from ..oci.digest import CHUNK, Digest, new_hasher
from ..oci.image import CONFIG_LIMIT
from ..oci.manifest import encode_manifest
from ..oci.wire import decode
from .files import missing, read_document
from .names import member_name
from .source import MemberSource

if TYPE_CHECKING:
    from ..oci.manifest import Manifest
    from .files import Files

DOCUMENT_LIMIT = 1 << 24  # bytes of manifest.json; 300 images with 127 layers have 3.5 MB
_LAYER_TYPES: dict[Compression, str] = {"none": OCI_LAYER, "gzip": OCI_LAYER_GZIP, "zstd": OCI_LAYER_ZSTD}
#: How programs name a config by its digest: Docker, podman and skopeo; ggcr; layouts.
_CONFIG_NAME = re.compile(r"(?:.*/)?(?:sha256:)?([0-9a-f]{64})(?:\.json)?")


class DockerImage(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of Docker's document: members of the archive, layers lowest first, and names, which are not checked."""

    config: str
    layers: tuple[str, ...]
    names: tuple[str, ...] = ()


class _Item(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    config: str
    repo_tags: tuple[str, ...] | None = None
    layers: tuple[str, ...] | None = None


def parse_docker(raw: bytes) -> tuple[DockerImage, ...]:
    """Raises Corrupt (manifest-invalid; archive-path-escapes for a member's name that leads out)."""
    try:
        items = decode(raw, tuple[_Item, ...])
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt("manifest.json of the archive is damaged", code="manifest-invalid", context=str(error)) from error
    return tuple(
        DockerImage(
            config=member_name(item.config),
            layers=tuple(map(member_name, item.layers or ())),
            names=tuple(dict.fromkeys(item.repo_tags or ())),
        )
        for item in items
    )


def read_config(image: DockerImage, files: Files) -> ImageConfig:
    """Raises NotFound (archive-member-missing), Corrupt (also where a name that is a digest promises another one)."""
    raw = read_document(files, image.config, CONFIG_LIMIT)
    if raw is None:
        raise missing(image.config)
    match = _CONFIG_NAME.fullmatch(image.config)
    if match is not None and Digest.of(raw).hex != match[1]:
        raise Corrupt(
            f"{image.config} of the archive is damaged",
            code="digest-mismatch",
            context=f"its bytes have digest {Digest.of(raw)}",
        )
    return ImageConfig.parse(raw)


def with_manifest(image: DockerImage, config: ImageConfig, files: Files) -> tuple[Manifest, MemberSource]:
    """The manifest of *image*, made, and where it and its blobs are to be read.

    An uncompressed layer has the digest that the config promises, and is checked when
    it is read. A compressed one is read here once, for its digest.
    Raises NotFound (archive-member-missing), Corrupt (layers-mismatch), Unsupported (layer-compression).
    """
    if len(image.layers) != len(config.diff_ids):
        raise Corrupt(
            f"{image.config} of the archive is damaged",
            code="layers-mismatch",
            context=f"manifest.json names {len(image.layers)} layers, the config {len(config.diff_ids)}",
        )
    pairs = zip(image.layers, config.diff_ids, strict=True)
    layers = tuple(_layer(name, diff_id, files) for name, diff_id in pairs)
    described = Descriptor.of(config.raw, OCI_CONFIG)
    manifest = encode_manifest(described, layers)
    members = {layer.digest: name for layer, name in zip(layers, image.layers, strict=True)}
    made = {manifest.descriptor.digest: manifest.raw, described.digest: config.raw}
    return manifest, MemberSource(files, lambda descriptor: members.get(descriptor.digest, ""), made)


def _layer(name: str, diff_id: Digest, files: Files) -> Descriptor:
    size = files.size(name)
    if size is None:
        raise missing(name)
    try:
        kind = _compression(name, files)
    except Error as error:
        raise type(error)(
            f"{name} of the archive: {error.message}", code=error.code, context=error.context, hint=error.hint
        ) from error
    known = files.digest(name)
    if kind == "none" and known is not None and known.algorithm == diff_id.algorithm and known != diff_id:
        raise Corrupt(
            f"{name} of the archive is not the layer that its config promises",
            code="digest-mismatch",
            context=f"its bytes have digest {known}, not {diff_id}",
        )
    digest = diff_id if kind == "none" else known or _digest_of(name, files)
    return Descriptor(media_type=_LAYER_TYPES[kind], digest=digest, size=size)


def _compression(name: str, files: Files) -> Compression:
    with files.open(name) as stream:
        return compression_of(stream.read(6))


def _digest_of(name: str, files: Files) -> Digest:
    hasher = new_hasher("sha256")
    with files.open(name) as stream:
        while data := stream.read(CHUNK):
            hasher.update(data)
    return Digest.from_hasher(hasher)
