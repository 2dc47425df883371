"""What an archive says that it holds: index.json of an OCI layout, manifest.json of Docker, or that of a `dir:` folder.

Only documents are read here. An archive may be a layout and Docker's at once (Docker 25
and later write such, and so do we): then the layout tells the manifests, whose bytes
it has, and Docker's document can add names.
Sources: image-spec «image-layout.md»; moby `image/tarexport`; containers/image `directory`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, InvalidInput, Unsupported
from ..oci import manifest as manifests
from ..oci.descriptor import Descriptor
from ..oci.manifest import MANIFEST_LIMIT
from ..oci.wire import decode
from .docker import DOCUMENT_LIMIT, DockerImage, parse_docker
from .files import read_document
from .source import MemberSource

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..oci.digest import Digest
    from .files import Files

#: Under which annotation of an index's entry each program keeps the image's name, best first.
CONTAINERD_NAME = "io.containerd.image.name"  # in full
OCI_NAME = "org.opencontainers.image.ref.name"  # in full (podman, skopeo) or the tag alone (docker, containerd, umoci)

NAMES_LIMIT = 1 << 13  # images and names of an archive
_LAYOUT_VERSION = "1."  # beginning of those that are known


class Listed(msgspec.Struct, frozen=True, kw_only=True):
    """An entry of a layout: a manifest or an index, and what it is called; the texts are not checked."""

    descriptor: Descriptor
    names: tuple[str, ...] = ()


class Contents(msgspec.Struct, frozen=True, kw_only=True):
    """All images of an archive, in its order."""

    source: MemberSource
    listed: tuple[Listed, ...] = ()
    docker: tuple[DockerImage, ...] = ()


class _Layout(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    image_layout_version: str


def read_contents(files: Files) -> Contents:
    """Raises InvalidInput (not-an-image-archive), Unsupported, Corrupt (damaged documents)."""
    index = read_document(files, "index.json", MANIFEST_LIMIT)
    docker = read_document(files, "manifest.json", DOCUMENT_LIMIT)
    if index is None and docker is None:
        raise _not_an_archive(files)
    if index is None and docker is not None and docker.lstrip()[:1] == b"{":
        return _contents_of_dir(docker, files)
    contents = Contents(
        source=MemberSource(files, member_of_layout),
        listed=() if index is None else _listed(index, files),
        docker=() if docker is None else parse_docker(docker),
    )
    _check_count(contents)
    return contents


def member_of_layout(descriptor: Descriptor) -> str:
    """Where an OCI layout keeps a blob."""
    return f"blobs/{descriptor.digest.algorithm}/{descriptor.digest.hex}"


def _contents_of_dir(raw: bytes, files: Files) -> Contents:
    """The one image of skopeo's `dir:`, which has no name."""
    top = manifests.parse(raw).descriptor

    def member_of(descriptor: Descriptor) -> str:
        if descriptor.digest == top.digest:
            return "manifest.json"
        is_document = descriptor.is_manifest or descriptor.is_index
        return f"{descriptor.digest.hex}.manifest.json" if is_document else descriptor.digest.hex

    return Contents(source=MemberSource(files, member_of), listed=(Listed(descriptor=top),))


def _listed(raw: bytes, files: Files) -> tuple[Listed, ...]:
    """The entries of index.json, each digest once with all its names."""
    layout = read_document(files, "oci-layout", MANIFEST_LIMIT)
    if layout is not None:
        _check_version(layout)
    index = manifests.Index.parse(raw, "index.json")
    found: dict[Digest, Listed] = {}
    for entry in index.manifests:
        if not (entry.is_manifest or entry.is_index):
            continue  # image-spec: types that are not known are to be passed over
        before = found.get(entry.digest, Listed(descriptor=entry))
        name = _name_in(entry.annotations or {})
        names = before.names if not name or name in before.names else (*before.names, name)
        found[entry.digest] = Listed(descriptor=before.descriptor, names=names)
    return tuple(found.values())


def _name_in(annotations: Mapping[str, str]) -> str:
    return annotations.get(CONTAINERD_NAME) or annotations.get(OCI_NAME) or ""


def _check_version(raw: bytes) -> None:
    try:
        version = decode(raw, _Layout).image_layout_version
    except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
        raise Corrupt("oci-layout of the archive is damaged", code="layout-invalid", context=str(error)) from error
    if not version.startswith(_LAYOUT_VERSION):
        raise Unsupported(f"OCI layouts of version {version!r} are not known", code="layout-version")


def _check_count(contents: Contents) -> None:
    """A document of some megabytes must not make a million files of names."""
    names = [image.names for image in contents.listed] + [image.names for image in contents.docker]
    if len(names) + sum(map(len, names)) > NAMES_LIMIT:
        raise Corrupt(f"the archive lists more than {NAMES_LIMIT} images and names", code="archive-limit")


def _not_an_archive(files: Files) -> InvalidInput:
    if files.size("repositories") is not None:
        context = "it has no manifest.json: a Docker before 1.10 wrote it"
        hint = "load and save it with a Docker from 1.10 to 24"
    else:
        context = "it has neither index.json nor manifest.json"
        hint = "of a file system's archive argosy import makes an image"
    return InvalidInput("no archive of images", code="not-an-image-archive", context=context, hint=hint)
