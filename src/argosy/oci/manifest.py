"""Manifests and indexes: the bytes as they came, and a read-only view of them.

Digest and size always come from the bytes; nothing here serialises a parsed
document again. Source: image-spec «manifest.md», «image-index.md».
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, TypeVar

import msgspec

from ..errors import Corrupt, InvalidInput, NotFound
from . import descriptor as media
from .descriptor import Descriptor
from .wire import decode, encode

if TYPE_CHECKING:
    from .platform import Platform

MANIFEST_LIMIT = 4 * 2**20  # bytes; the least a registry should accept, distribution-spec «Pushing manifests»


class _ManifestDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    config: Descriptor
    layers: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: Mapping[str, str] | None = None


class _IndexDocument(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    manifests: tuple[Descriptor, ...]
    schema_version: int = 2
    media_type: str | None = None
    artifact_type: str | None = None
    subject: Descriptor | None = None
    annotations: Mapping[str, str] | None = None


_ABSENT = msgspec.Raw(b"")  # no JSON value is empty, so this is «not there»


class _Kind(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """The few fields that tell what a document is, whatever else it holds."""

    schema_version: int | None = None
    media_type: str | None = None
    manifests: msgspec.Raw = _ABSENT
    layers: msgspec.Raw = _ABSENT
    config: msgspec.Raw = _ABSENT
    fs_layers: msgspec.Raw = _ABSENT


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One image (or artifact): its config and its layers, lowest first."""

    raw: bytes
    descriptor: Descriptor
    config: Descriptor
    layers: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes, media_type: str) -> Manifest:
        """Raises Corrupt with the JSON path of the first fault."""
        view = _decode(raw, _ManifestDocument, "manifest")
        _check_version(view.schema_version, "manifest")
        return cls(
            raw=raw,
            descriptor=Descriptor.of(raw, media_type),
            config=view.config,
            layers=view.layers,
            artifact_type=view.artifact_type,
            subject=view.subject,
            annotations=view.annotations or {},
        )

    def children(self) -> tuple[Descriptor, ...]:
        """Everything that must exist before this manifest may: config, then layers."""
        return (self.config, *self.layers)


class Index(msgspec.Struct, frozen=True, kw_only=True):
    """Several manifests under one name, one a platform."""

    raw: bytes
    descriptor: Descriptor
    manifests: tuple[Descriptor, ...]
    artifact_type: str | None
    subject: Descriptor | None
    annotations: Mapping[str, str]

    @classmethod
    def parse(cls, raw: bytes, media_type: str) -> Index:
        """Raises Corrupt with the JSON path of the first fault."""
        view = _decode(raw, _IndexDocument, "index")
        _check_version(view.schema_version, "index")
        return cls(
            raw=raw,
            descriptor=Descriptor.of(raw, media_type),
            manifests=view.manifests,
            artifact_type=view.artifact_type,
            subject=view.subject,
            annotations=view.annotations or {},
        )

    def children(self) -> tuple[Descriptor, ...]:
        return self.manifests

    def select(self, platform: Platform, *, name: str = "this image") -> Descriptor:
        """The manifest that serves *platform* best; the first of equals.

        Raises NotFound (platform-not-in-index) that lists what there is.
        """
        ranked = [
            (rank, place)
            for place, child in enumerate(self.manifests)
            if (child.is_manifest or child.is_index)
            and child.platform is not None
            and (rank := platform.rank(child.platform)) is not None
        ]
        if ranked:
            return self.manifests[min(ranked)[1]]
        if len(self.manifests) == 1 and self.manifests[0].platform is None:
            return self.manifests[0]
        offered = sorted(
            {str(c.platform) for c in self.manifests if c.platform is not None and c.platform.os != "unknown"}
        )
        raise NotFound(
            "no image for this machine",
            code="platform-not-in-index",
            context=f"{name} offers {', '.join(offered) or 'no platform at all'}; wanted {platform}",
            hint=f"pull another with --platform {offered[0]}, or build it here" if offered else "",
        )


def parse(raw: bytes, media_type: str | None = None) -> Manifest | Index:
    """A manifest or an index, by *media_type*, else by the document's own word, else by its fields.

    Raises Corrupt when it is neither (an HTML page, a schema 1 manifest), or when
    the transport's type and the document's disagree.
    """
    if len(raw) > MANIFEST_LIMIT:
        raise Corrupt(
            "manifest is too large",
            code="manifest-too-large",
            context=f"{len(raw)} bytes; the limit is {MANIFEST_LIMIT}",
        )
    kind = _decode(raw, _Kind, "manifest")
    if kind.schema_version == 1 or kind.fs_layers:
        raise Corrupt(
            "manifest has the retired schema 1",
            code="manifest-schema1",
            hint="push the image again with a client of this decade",
        )
    known = media.INDEX_TYPES | media.MANIFEST_TYPES
    stated = media_type.partition(";")[0].strip().lower() if media_type else None
    own = kind.media_type
    if stated in known and own in known and stated != own:
        raise Corrupt(f"manifest was sent as {stated} but says that it is {own}", code="manifest-type-mismatch")
    chosen = stated if stated in known else own
    if chosen is None:
        chosen = media.OCI_INDEX if kind.manifests else media.OCI_MANIFEST
    if kind.manifests and (kind.layers or kind.config):
        # The same bytes must not be an image to one reader and an index to another (CVE-2021-41190).
        raise Corrupt("manifest has the fields of both an image and an index", code="manifest-ambiguous")
    if chosen in media.INDEX_TYPES:
        return Index.parse(raw, chosen)
    if chosen in media.MANIFEST_TYPES:
        return Manifest.parse(raw, chosen)
    raise Corrupt(f"not a manifest: its type is {chosen!r}", code="manifest-type-unknown")


def encode_manifest(
    config: Descriptor,
    layers: tuple[Descriptor, ...],
    *,
    annotations: Mapping[str, str] | None = None,
    subject: Descriptor | None = None,
    artifact_type: str | None = None,
) -> Manifest:
    """A new OCI manifest; equal inputs give equal bytes."""
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST}
    if artifact_type is not None:
        document["artifactType"] = artifact_type
    document |= {"config": config, "layers": layers}
    if subject is not None:
        document["subject"] = subject
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return Manifest.parse(encode(document), media.OCI_MANIFEST)


def encode_index(manifests: tuple[Descriptor, ...], *, annotations: Mapping[str, str] | None = None) -> Index:
    """A new OCI index; equal inputs give equal bytes."""
    document: dict[str, object] = {"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": manifests}
    if annotations:
        document["annotations"] = dict(sorted(annotations.items()))
    return Index.parse(encode(document), media.OCI_INDEX)


def encode_list(manifests: tuple[Descriptor, ...]) -> Index:
    """A new index of *manifests* in the order given; equal inputs give equal bytes.

    Docker's own form where all of them are Docker's, so that old clients read it: the very
    bytes of `docker manifest push`. That form has no annotations, so an OCI index where
    there are some, or any of the manifests is OCI's.
    """
    if all(child.media_type == media.DOCKER_MANIFEST and not child.annotations for child in manifests):
        return Index.parse(docker_form(media.DOCKER_INDEX, manifests), media.DOCKER_INDEX)
    return encode_index(manifests)


def docker_form(media_type: str, manifests: Iterable[Descriptor]) -> bytes:
    """An index as `docker manifest` prints it: platforms always, other facts than these never."""
    from .go_json import encode_as_go  # `run` needs this module, but no list

    entries = [
        {
            "mediaType": child.media_type,
            "size": child.size,
            "digest": child.digest,
            "platform": platform_in_docker_form(child.platform),
        }
        for child in manifests
    ]
    return encode_as_go({"schemaVersion": 2, "mediaType": media_type, "manifests": entries}, "   ")


def platform_in_docker_form(platform: Platform | None) -> dict[str, object]:
    """In the order of Docker's fields, those that may not be left out as empty texts."""
    if platform is None:
        return {"architecture": "", "os": ""}
    fields = {
        "os.version": platform.os_version,
        "os.features": platform.os_features,
        "variant": platform.variant,
    }
    known = {name: value for name, value in fields.items() if value}
    return {"architecture": platform.architecture, "os": platform.os, **known}


_T = TypeVar("_T")


def _decode(raw: bytes, kind: type[_T], what: str) -> _T:
    try:
        return decode(raw, kind)
    except InvalidInput as error:
        raise Corrupt(f"{what} holds a bad digest", code="manifest-invalid", context=error.message) from error
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt(f"not a valid {what}", code="manifest-invalid", context=_explain(raw, error)) from error


def _explain(raw: bytes, error: Exception) -> str:
    start = raw.lstrip()[:1]
    if start == b"<":
        return "it is an HTML or XML page; is the address that of a registry?"
    return str(error) or type(error).__name__


def _check_version(version: int, what: str) -> None:
    if version != 2:
        raise Corrupt(f"{what} has schema version {version}, not 2", code="manifest-invalid")
