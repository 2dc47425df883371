"""Manifests as text: the documents that `docker manifest inspect` prints, to the byte, and rows for --format."""

from __future__ import annotations

from base64 import b64encode
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from ..oci.descriptor import DOCKER_INDEX, DOCKER_MANIFEST, OCI_INDEX, OCI_MANIFEST
from ..oci.go_json import encode_as_go, reindented
from ..oci.manifest import Manifest, docker_form, platform_in_docker_form
from ..ops.manifest import Member
from . import output
from .rows import LazyRow

if TYPE_CHECKING:
    from ..oci.manifest import Index
    from ..ops.manifest import Members

_HEADERS = {
    "Platform": "PLATFORM",
    "Digest": "DIGEST",
    "Size": "SIZE",
    "Layers": "LAYERS",
    "MediaType": "MEDIA TYPE",
}
_COLUMNS = ("Platform", "Digest", "Size", "Layers")


def document(found: Member | Members, *, verbose: bool) -> str:
    """What Docker prints: a manifest as it is, an index by its descriptors; *verbose* with all manifests in full."""
    if isinstance(found, Member):
        raw = encode_as_go(_in_full(found), "\t") if verbose else reindented(found.document.raw, "\t")
    elif verbose:
        raw = encode_as_go([_in_full(member, annotations=found.is_own) for member in found.members], "\t")
    else:
        index = found.document
        raw = docker_form(index.descriptor.media_type if found.is_own else _docker_type(index), index.manifests)
    return raw.decode(errors="replace") + "\n"


def show_rows(found: Member | Members, template: str) -> None:
    """A row for each manifest, the way --format asks for; only what it asks for is fetched."""
    members = (found,) if isinstance(found, Member) else found.members
    rows = [
        LazyRow(
            Platform=partial(_platform, member),
            Digest=str(member.descriptor.digest),
            Size=partial(_size, member),
            Layers=partial(_layers, member),
            MediaType=member.descriptor.media_type,
        )
        for member in members
    ]
    output.show(
        [{name: row[name] for name in _HEADERS} for row in rows] if template == "json" else rows,
        columns=_COLUMNS,
        headers=_HEADERS,
        template=template,
    )


def _docker_type(index: Index) -> str:
    """What Docker calls an index: it goes by the first manifest. Source: distribution, manifestlist.FromDescriptors."""
    return OCI_INDEX if index.manifests and index.manifests[0].media_type == OCI_MANIFEST else DOCKER_INDEX


def _in_full(member: Member, *, annotations: bool = False) -> dict[str, object]:
    """Docker's ImageManifest. An index within an index, which Docker refuses, has no view of its own.

    Docker shows no annotations; those of lists that are composed here would be nowhere else to be seen.
    """
    shown = member.document
    facts: dict[str, object] = {
        "Ref": str(member.reference),
        "Descriptor": _descriptor(member, annotations=annotations),
        "Raw": b64encode(shown.raw).decode(),
    }
    if isinstance(shown, Manifest):
        kind = "SchemaV2Manifest" if shown.descriptor.media_type == DOCKER_MANIFEST else "OCIManifest"
        facts[kind] = msgspec.Raw(shown.raw)
    return facts


def _descriptor(member: Member, *, annotations: bool) -> dict[str, object]:
    shown = member.descriptor
    return {
        "mediaType": shown.media_type,
        "digest": shown.digest,
        "size": shown.size,
        **({"annotations": shown.annotations} if annotations and shown.annotations else {}),
        "platform": platform_in_docker_form(member.platform),
    }


def _platform(member: Member) -> str:
    return str(member.platform) if member.platform is not None else "-"


def _size(member: Member) -> str:
    return output.human_size(member.size)


def _layers(member: Member) -> str:
    return str(len(member.document.layers)) if isinstance(member.document, Manifest) else "index"
