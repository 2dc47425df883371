"""Small images made of nothing but Python: an OCI layout folder with random, reproducible content.

Equal arguments give equal bytes. The result is also a ContentSource, so a test can
push it, read it through `Image`, or hand the folder to skopeo (`oci:FOLDER:TAG`).
"""

from __future__ import annotations

import gzip
import io
import random
import tarfile
from typing import TYPE_CHECKING

import msgspec

from argosy.errors import NotFound
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest, VerifyingReader
from argosy.oci.manifest import Manifest, encode_index, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.wire import encode

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import BinaryIO

MTIME = 1_700_000_000  # seconds; any fixed moment will do
#: {(family, compression): media type of a layer}
LAYER_TYPES = {
    ("oci", "gzip"): media.OCI_LAYER_GZIP,
    ("oci", "zstd"): media.OCI_LAYER_ZSTD,
    ("oci", "none"): media.OCI_LAYER,
    ("docker", "gzip"): media.DOCKER_LAYER_GZIP,
    ("docker", "none"): media.DOCKER_LAYER,
}


class Layout:
    """An OCI layout folder: `blobs/`, `index.json`, `oci-layout`. A ContentSource."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / "blobs/sha256").mkdir(parents=True, exist_ok=True)
        (folder / "oci-layout").write_bytes(b'{"imageLayoutVersion":"1.0.0"}')

    def put(self, raw: bytes, media_type: str) -> Descriptor:
        descriptor = Descriptor.of(raw, media_type)
        self.path(descriptor.digest).write_bytes(raw)
        return descriptor

    def path(self, digest: Digest) -> Path:
        return self.folder / "blobs" / digest.algorithm / digest.hex

    def read(self, digest: Digest) -> bytes:
        return self.path(digest).read_bytes()

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        try:
            stream = self.path(descriptor.digest).open("rb")
        except FileNotFoundError as error:
            raise NotFound(f"no blob {descriptor.digest} in {self.folder}", code="blob-unknown") from error
        if offset:
            stream.seek(offset)
            return stream
        return VerifyingReader(stream, descriptor.digest, size=descriptor.size)  # type: ignore[return-value]

    def publish(self, descriptor: Descriptor, tag: str = "latest") -> None:
        """Write index.json so that `oci:FOLDER:TAG` finds *descriptor*."""
        named = msgspec.structs.replace(descriptor, annotations={"org.opencontainers.image.ref.name": tag})
        (self.folder / "index.json").write_bytes(encode_index((named,)).raw)


class RandomImage:
    """One image in a layout: what was made, to compare with what arrives."""

    def __init__(self, layout: Layout, manifest: Manifest, tars: tuple[bytes, ...]) -> None:
        self.layout = layout
        self.manifest = manifest
        #: uncompressed layers, lowest first
        self.tars = tars

    @property
    def folder(self) -> Path:
        return self.layout.folder

    @property
    def descriptor(self) -> Descriptor:
        return self.manifest.descriptor

    @property
    def diff_ids(self) -> tuple[Digest, ...]:
        return tuple(Digest.of(tar) for tar in self.tars)

    def blobs(self) -> Iterator[tuple[Descriptor, bytes]]:
        """Config and layers with their bytes, in pushing order; the manifest is not among them."""
        for child in self.manifest.children():
            yield child, self.layout.read(child.digest)


def random_image(
    folder: Path,
    *,
    layers: int = 2,
    size: int = 20_000,
    family: str = "oci",
    compression: str = "gzip",
    platform: Platform | None = None,
    env: tuple[str, ...] = (),
    seed: int = 0,
    tag: str = "latest",
) -> RandomImage:
    """An image of *layers* layers with about *size* bytes of files each, as an OCI layout in *folder*.

    *family* is "oci" or "docker" (media types), *compression* "gzip", "zstd" or "none"; *env* are «NAME=value».
    """
    layout, source = Layout(folder), random.Random(f"{seed} {layers} {size}")
    tars = tuple(layer_tar(source, size, name=f"layer{number}") for number in range(layers))
    layer_type = LAYER_TYPES[family, compression]
    blobs = tuple(layout.put(compress(tar, compression), layer_type) for tar in tars)
    config_type, manifest_type = (
        (media.OCI_CONFIG, media.OCI_MANIFEST) if family == "oci" else (media.DOCKER_CONFIG, media.DOCKER_MANIFEST)
    )
    execution = {"Env": ["PATH=/usr/bin:/bin", *env]}
    platform = platform or Platform(os="linux", architecture="amd64")
    config = layout.put(config_json(tars, platform, **execution), config_type)
    if family == "oci":
        manifest = encode_manifest(config, blobs)
    else:
        document = {"schemaVersion": 2, "mediaType": manifest_type, "config": config, "layers": blobs}
        manifest = Manifest.parse(encode(document), manifest_type)
    layout.put(manifest.raw, manifest_type)
    layout.publish(manifest.descriptor, tag)
    return RandomImage(layout, manifest, tars)


def image_of(
    folder: Path, tars: tuple[bytes, ...], *, tag: str = "latest", platform: Platform | None = None, **execution: object
) -> RandomImage:
    """An image of the layers *tars*, lowest first, as an OCI layout in *folder*; *execution* fills its config."""
    layout = Layout(folder)
    blobs = tuple(layout.put(compress(tar, "gzip"), media.OCI_LAYER_GZIP) for tar in tars)
    config = layout.put(config_json(tars, platform or Platform.host(), **execution), media.OCI_CONFIG)
    manifest = encode_manifest(config, blobs)
    layout.put(manifest.raw, media.OCI_MANIFEST)
    layout.publish(manifest.descriptor, tag)
    return RandomImage(layout, manifest, tars)


def layer_tar(source: random.Random, size: int, *, name: str = "layer") -> bytes:
    """A tar of a folder with three random files, a symbolic and a hard link."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        _add(archive, name, kind=tarfile.DIRTYPE, mode=0o755)
        for number, share in enumerate((size // 2, size // 3, size - size // 2 - size // 3)):
            _add(archive, f"{name}/file{number}", source.randbytes(share), mode=0o644 | (0o111 * (number % 2)))
        _add(archive, f"{name}/link", kind=tarfile.SYMTYPE, target="file0", mode=0o777)
        # The file's own mode: Docker gives the file whatever mode its last name has, GNU tar does not.
        _add(archive, f"{name}/hard", kind=tarfile.LNKTYPE, target=f"{name}/file1", mode=0o755)
    return out.getvalue()


def compress(tar: bytes, compression: str) -> bytes:
    if compression == "gzip":
        return gzip.compress(tar, 1, mtime=0)
    if compression == "zstd":
        try:
            from compression import zstd
        except ImportError:
            from backports import zstd
        return zstd.compress(tar)
    return tar


def config_json(tars: tuple[bytes, ...], platform: Platform, **execution: object) -> bytes:
    """A config as Docker writes it; *execution* fills its `config` object (Env=…, Cmd=…)."""
    return encode(
        {
            "created": "2026-01-02T03:04:05Z",
            "architecture": platform.architecture,
            "os": platform.os,
            **({"variant": platform.variant} if platform.variant else {}),
            "config": {"Env": ["PATH=/usr/bin:/bin"], "Cmd": ["/bin/true"], **execution},
            "rootfs": {"type": "layers", "diff_ids": [Digest.of(tar) for tar in tars]},
            "history": [{"created": "2026-01-02T03:04:05Z", "created_by": f"layer {n}"} for n in range(len(tars))],
        }
    )


def _add(
    archive: tarfile.TarFile,
    name: str,
    data: bytes = b"",
    *,
    kind: bytes = tarfile.REGTYPE,
    mode: int = 0o644,
    target: str = "",
) -> None:
    info = tarfile.TarInfo(name)
    info.type, info.mode, info.mtime, info.size, info.linkname = kind, mode, MTIME, len(data), target
    archive.addfile(info, io.BytesIO(data))
