"""Images written out: an OCI layout that is Docker's archive too, the layout alone, or skopeo's `dir:`.

Content goes out as it is in the store, so every digest survives; what is written depends
on the images and their names alone. Both documents in one tar are what Docker 25 and
later write; docker 20.10 (manifest.json), podman 4.3, skopeo 1.9, containerd 1.6 and
umoci read it.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Protocol

import msgspec

from ..errors import NotFound
from ..layer.entry import Entry
from ..layer.writer import ArchiveWriter
from ..linux.files import reporting, sync_folder
from ..oci.digest import CHUNK
from ..oci.manifest import Index, Manifest, encode_index
from ..oci.reference import Reference
from ..oci.wire import encode
from .contents import CONTAINERD_NAME, OCI_NAME, member_of_layout

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ..layer.compression import Sink
    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..oci.image import ContentSource

_LAYOUT = b'{"imageLayoutVersion":"1.0.0"}'
_DIR_VERSION = b"Directory Transport Version: 1.1\n"


class Outgoing(msgspec.Struct, frozen=True, kw_only=True):
    """An image that is to be written."""

    names: tuple[Reference, ...]
    #: what the names mean, a manifest or an index, and what is here below it; parents first
    documents: tuple[Manifest | Index, ...]
    #: the one of them that programs without indexes are to see
    manifest: Manifest


class Members(Protocol):
    """Where an archive's members go, one after the other."""

    def folder(self, name: str) -> None: ...
    def file(self, name: str, size: int, data: BinaryIO | bytes) -> None: ...


class TarMembers:
    """Members of a tar; all of root's and without a time, so that equal images give equal bytes."""

    def __init__(self, out: Sink) -> None:
        self._archive = ArchiveWriter(out)

    def folder(self, name: str) -> None:
        self._archive.add(Entry(path=name.encode(), kind="folder", mode=0o755))

    def file(self, name: str, size: int, data: BinaryIO | bytes) -> None:
        self._archive.add(Entry(path=name.encode(), kind="file", mode=0o644, size=size), data)

    def close(self) -> None:
        self._archive.close()


class FolderMembers:
    """Files in the folder *path*, which exists and is ours; each is synced."""

    def __init__(self, path: str) -> None:
        self._path = path
        self._folders = [path]

    def folder(self, name: str) -> None:
        self._folders.append(f"{self._path}/{name}")
        with reporting("make", f"{self._path}/{name}"):
            os.mkdir(f"{self._path}/{name}", 0o755)

    def file(self, name: str, size: int, data: BinaryIO | bytes) -> None:
        path = f"{self._path}/{name}"
        with reporting("write", path), open(path, "xb", buffering=0) as file:
            for piece in (data,) if isinstance(data, bytes) else iter(lambda: data.read(CHUNK), b""):
                view = memoryview(piece)
                while view:
                    view = view[file.write(view) :]
            os.fsync(file.fileno())

    def close(self) -> None:
        for folder in self._folders:
            sync_folder(folder)


def write_layout(images: tuple[Outgoing, ...], source: ContentSource, members: Members, *, docker: bool) -> None:
    """An OCI layout; with *docker* also the documents by which Docker reads it.

    Documents come first: who reads a stream then knows what the rest is.
    """
    members.file("oci-layout", len(_LAYOUT), _LAYOUT)
    documents = {"index.json": encode_index(tuple(_entries(images))).raw}
    if docker:
        documents |= {"manifest.json": _docker_manifest(images), "repositories": _repositories(images)}
    for name, raw in documents.items():
        members.file(name, len(raw), raw)
    blobs = _blobs_of(images)
    members.folder("blobs")
    for algorithm in sorted({digest.algorithm for digest in blobs}):
        members.folder(f"blobs/{algorithm}")
    for descriptor in blobs.values():
        _copy(descriptor, source, members, member_of_layout(descriptor))


def write_dir(image: Outgoing, source: ContentSource, members: Members) -> None:
    """skopeo's and podman's `dir:`: one manifest with its blobs, without a name."""
    members.file("version", len(_DIR_VERSION), _DIR_VERSION)
    members.file("manifest.json", len(image.manifest.raw), image.manifest.raw)
    for descriptor in {child.digest: child for child in image.manifest.children()}.values():
        _copy(descriptor, source, members, descriptor.digest.hex)


def _copy(descriptor: Descriptor, source: ContentSource, members: Members, name: str) -> None:
    """One blob, checked to its last byte. Layers that are to be had from elsewhere may not be here."""
    try:
        stream = source.open(descriptor)
    except NotFound:
        if descriptor.urls:
            return
        raise
    with stream:
        members.file(name, descriptor.size, stream)


def _blobs_of(images: tuple[Outgoing, ...]) -> dict[Digest, Descriptor]:
    """Manifests, then configs, then layers; each once."""
    manifests = [document for image in images for document in image.documents]
    found = {document.descriptor.digest: document.descriptor for document in manifests}
    found |= {each.config.digest: each.config for each in manifests if isinstance(each, Manifest)}
    return found | {layer.digest: layer for each in manifests if isinstance(each, Manifest) for layer in each.layers}


def _entries(images: Iterable[Outgoing]) -> Iterator[Descriptor]:
    """One entry a name, as containerd writes them; one without annotations for an image without a name."""
    for image in images:
        top = image.documents[0].descriptor
        for name in image.names:
            annotations = {CONTAINERD_NAME: str(name)}
            if name.tag is not None:
                annotations[OCI_NAME] = name.tag
            yield msgspec.structs.replace(top, annotations=annotations)
        if not image.names:
            yield top


def _docker_manifest(images: Iterable[Outgoing]) -> bytes:
    """Names in full: docker shortens them itself, and podman would put localhost/ before a short one."""
    document = [
        {
            "Config": member_of_layout(image.manifest.config),
            "RepoTags": [str(name) for name in image.names if name.tag is not None] or None,
            "Layers": [member_of_layout(layer) for layer in image.manifest.layers],
        }
        for image in images
    ]
    return encode(document)


def _repositories(images: Iterable[Outgoing]) -> bytes:
    """{repository: {tag: topmost layer}}: what Docker before 1.10 read, and some scripts still do."""
    found: dict[str, dict[str, str]] = {}
    for image in images:
        for name in image.names:
            if name.tag is not None and image.manifest.layers:
                found.setdefault(name.familiar_name, {})[name.tag] = image.manifest.layers[-1].digest.hex
    return encode(found)
