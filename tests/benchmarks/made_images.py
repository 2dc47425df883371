"""The images that are pulled: made once, kept in a folder outside the checkout, served from there.

`$ARGOSY_BENCH_CACHE` names the folder, else it is ~/.cache/argosy-bench; removing it
makes them anew. Layers are compressed as Docker and BuildKit do it, by level 6 of
gzip, since that is what users' images are; our own build would choose isal.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import random
import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, cast

import msgspec

from argosy.errors import Unavailable
from argosy.layer.archive import entries
from argosy.layer.compression import decompressed
from argosy.layer.diff import tree_entries, write_entries
from argosy.layer.entry import Entry
from argosy.layer.writer import ArchiveWriter
from argosy.linux.locks import locked
from argosy.oci.descriptor import OCI_CONFIG, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import Image, Layer
from argosy.oci.manifest import Manifest, encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.oci.wire import encode
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore

from ..support.docker_registry import docker_registry
from ..support.images import MTIME, Layout
from ..support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from typing import BinaryIO

    from argosy.layer.compression import Sink

ARGOSY = str(Path(sys.executable).parent / "argosy")
LEVEL = 6
#: More than 20,000 files as pip leaves them, compiled modules included, and one library as large as they come.
PACKAGES = "numpy scipy pandas sympy scikit-learn matplotlib transformers".split()
LARGE_PACKAGE = "nvidia-cufft-cu12"
_CHUNK = 1 << 20  # bytes
_FILES, _BYTES = "bench.files", "bench.bytes"  # annotations of the manifest: entries and bytes of the layers' tars
_NS = 10**9


class Made(NamedTuple):
    """An image of the benchmark: its name in the registry, what it is, and what makes its layers, lowest first."""

    name: str
    about: str
    #: each writes one uncompressed tar
    layers: Callable[[Path], Sequence[Callable[[Sink], None]]]


def cache() -> Path:
    return Path(os.environ.get("ARGOSY_BENCH_CACHE") or Path.home() / ".cache/argosy-bench")


class Served(NamedTuple):
    """A registry that runs, with images in it."""

    address: str
    #: of a blob's digest: the file in which this registry keeps it
    file: Callable[[Digest], Path]

    def reference(self, image: Made) -> str:
        return f"{self.address}/{image.name}"


@contextmanager
def served(*images: Made, by: str = "argosy") -> Iterator[Served]:
    """*images*, made if they are not there, in our own registry or (*by* "docker") in Debian's docker-registry.

    One benchmark at a time: what drops the caches of one, spoils another.
    """
    with _alone(), running_registry(cache() / "registry", expected_stderr=None) as ours:
        for image in images:
            if _document(ours.address, image) is None:
                print(f"making {image.about}; once, kept in {cache()}", flush=True)
                _make(image, ours.address)
        if by == "argosy":
            yield Served(ours.address, BlobStore(cache() / "registry").path)
            return
        with docker_registry(cache() / "docker-registry") as address:
            for image in images:
                if _document(address, image) is None:
                    _copy_image(f"docker://{ours.address}/{image.name}", f"docker://{address}/{image.name}")
            yield Served(address, _file_of_docker_registry)


@contextmanager
def _alone() -> Iterator[None]:
    cache().mkdir(parents=True, exist_ok=True)
    lock = cache() / "lock"
    with ExitStack() as stack:
        try:
            stack.enter_context(locked(lock, timeout_s=0))
        except Unavailable:
            print("another benchmark runs on this machine; waiting for its end", flush=True)
            stack.enter_context(locked(lock))
        yield


def _file_of_docker_registry(digest: Digest) -> Path:
    blobs = cache() / "docker-registry/data/docker/registry/v2/blobs"
    return blobs / digest.algorithm / digest.hex[:2] / digest.hex / "data"


def _copy_image(source: str, target: str) -> None:
    _run(("skopeo", "copy", "-q", "--src-tls-verify=false", "--dest-tls-verify=false", source, target))


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What a made image is; sizes are bytes."""

    files: int
    uncompressed_size: int
    layers: tuple[Descriptor, ...]

    def __str__(self) -> str:
        compressed = sum(layer.size for layer in self.layers)
        return (
            f"{self.uncompressed_size / 1e9:.2f} GB in {self.files} files, "
            f"{compressed / 1e9:.2f} GB in {len(self.layers)} layers of gzip level {LEVEL}"
        )


def facts(registry: Served, image: Made) -> Facts:
    """Of an image that is served."""
    manifest = _document(registry.address, image)
    assert manifest is not None, image.name
    assert manifest.annotations is not None, image.name
    return Facts(
        files=int(manifest.annotations[_FILES]),
        uncompressed_size=int(manifest.annotations[_BYTES]),
        layers=manifest.layers,
    )


def _document(address: str, image: Made) -> Manifest | None:
    """The image's manifest in the registry at *address*."""
    name, _, tag = image.name.partition(":")
    asked = urllib.request.Request(f"http://{address}/v2/{name}/manifests/{tag}", headers={"Accept": OCI_MANIFEST})
    try:
        with urllib.request.urlopen(asked) as answer:
            return Manifest.parse(answer.read(), OCI_MANIFEST)
    except urllib.error.HTTPError as error:
        if error.code != 404:
            raise
        return None


def _make(image: Made, address: str) -> None:
    """Through an OCI layout, which is removed again, and skopeo."""
    work = cache() / "work"
    shutil.rmtree(work, ignore_errors=True)
    try:
        layout = Layout(work / "layout")
        with ThreadPoolExecutor(os.cpu_count()) as pool:  # zlib and sha256 release the interpreter lock
            made = list(pool.map(lambda write: _layer(layout, write), image.layers(work)))
        config = layout.put(_config([layer.diff_id for layer in made]), OCI_CONFIG)
        about = {
            _FILES: str(sum(layer.files for layer in made)),
            _BYTES: str(sum(layer.uncompressed_size for layer in made)),
        }
        manifest = encode_manifest(config, tuple(layer.descriptor for layer in made), annotations=about)
        layout.put(manifest.raw, manifest.descriptor.media_type)
        layout.publish(manifest.descriptor)
        _copy_image(f"oci:{layout.folder}:latest", f"docker://{address}/{image.name}")
    finally:
        shutil.rmtree(work, ignore_errors=True)


class _Layer(msgspec.Struct, frozen=True, kw_only=True):
    descriptor: Descriptor
    diff_id: Digest
    uncompressed_size: int
    files: int


def _layer(layout: Layout, write: Callable[[Sink], None]) -> _Layer:
    aside = layout.folder / f"blobs/{id(write)}"
    with aside.open("wb") as file:
        out = _Hashing(file)
        with gzip.GzipFile(filename="", mode="wb", compresslevel=LEVEL, fileobj=cast("BinaryIO", out), mtime=0) as tar:
            hashed = _Hashing(tar)
            write(hashed)
    descriptor = Descriptor(media_type=OCI_LAYER_GZIP, digest=out.digest, size=out.size)
    path = layout.path(descriptor.digest)
    aside.rename(path)
    with decompressed(path.open("rb")) as stream:
        files = sum(1 for _ in entries(stream))
    return _Layer(descriptor=descriptor, diff_id=hashed.digest, uncompressed_size=hashed.size, files=files)


class _Hashing:
    """A sink that hashes and counts what it passes on."""

    def __init__(self, out: Sink) -> None:
        self._out = out
        self._hasher = hashlib.sha256()
        self.size = 0

    def write(self, data: bytes) -> int:
        self._out.write(data)
        self._hasher.update(data)
        self.size += len(data)
        return len(data)

    def flush(self) -> None:
        pass

    @property
    def digest(self) -> Digest:
        return Digest(f"sha256:{self._hasher.hexdigest()}")


def _config(diff_ids: list[Digest]) -> bytes:
    host = Platform.host()
    return encode(
        {
            "created": "2026-01-02T03:04:05Z",
            "architecture": host.architecture,
            "os": host.os,
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
        }
    )


# ---- a CUDA and Python image


def _cuda_layers(work: Path) -> list[Callable[[Sink], None]]:
    """The layers of our catalog's image, and what a user's `pip install` puts on them."""
    store = work / "catalog"
    name = "nvidia/cuda:13-devel"
    _run((ARGOSY, "--root", str(store), "catalog", "build", "-q", "--without-math", name))
    blobs = BlobStore(store)
    image = Image(RefStore(store).get(Reference.parse(name)).manifest, blobs)
    layers = [partial(_copy_layer, layer) for layer in image.layers]
    for number, packages in enumerate((PACKAGES, [LARGE_PACKAGE])):
        folder = work / f"pip{number}"
        target = folder / "usr/local/lib/python3/dist-packages"
        _run((sys.executable, "-m", "pip", "install", "-qq", "--no-cache-dir", "--target", str(target), *packages))
        layers.append(partial(_write_tree, folder))
    return layers


def _run(command: Sequence[str]) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)


def _copy_layer(layer: Layer, out: Sink) -> None:
    with decompressed(layer.open()) as stream:
        while data := stream.read(_CHUNK):
            out.write(data)


def _write_tree(folder: Path, out: Sink) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with ArchiveWriter(out) as archive:
            write_entries(archive, tree_entries(fd))
    finally:
        os.close(fd)


# ---- images of many files


def _small_layers(work: Path) -> list[Callable[[Sink], None]]:
    """Four layers of 25,000 pieces of Python's own sources, 0.5 to 5 kB each."""
    text = b"".join(path.read_bytes() for path in sorted(Path(os.__file__).parent.glob("*.py")))
    return [partial(_write_pieces, text, number) for number in range(4)]


def _write_pieces(text: bytes, number: int, out: Sink) -> None:
    source = random.Random(number)
    with ArchiveWriter(out) as archive:
        for folder in range(250):
            above = f"srv/layer{number}/{folder:03}"
            archive.add(Entry(path=above.encode(), kind="folder", mode=0o755, mtime_ns=MTIME * _NS))
            for file in range(100):
                size = source.randrange(500, 5000)
                at = source.randrange(len(text) - size)
                path = f"{above}/piece-{file:02}.py".encode()
                entry = Entry(path=path, kind="file", mode=0o644, size=size, mtime_ns=MTIME * _NS)
                archive.add(entry, text[at : at + size])


def _empty_layers(count: int) -> Callable[[Path], list[Callable[[Sink], None]]]:
    return lambda work: [partial(_write_empty, f"srv{number}") for number in range(count)]


def _write_empty(top: str, out: Sink) -> None:
    with ArchiveWriter(out) as archive:
        for folder in range(1000):
            above = f"{top}/{folder:03}"
            archive.add(Entry(path=above.encode(), kind="folder", mode=0o755, mtime_ns=MTIME * _NS))
            for file in range(1000):
                path = f"{above}/{file:03}".encode()
                archive.add(Entry(path=path, kind="file", mode=0o644, mtime_ns=MTIME * _NS))


CUDA = Made(name="bench/cuda:1", about="a CUDA and Python image", layers=_cuda_layers)
SMALL = Made(name="bench/small:1", about="an image of 100,000 small files", layers=_small_layers)
EMPTY = Made(name="bench/empty:1", about="a layer of 1,000,000 empty files", layers=_empty_layers(1))
EMPTY_TWICE = Made(
    name="bench/empty-twice:1", about="two layers of 1,000,000 empty files each", layers=_empty_layers(2)
)
