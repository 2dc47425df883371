"""Every parser of what comes from outside, as a function of bytes: it returns, or raises one of the kinds named.

Used three times: by `make fuzz` (atheris), by hypothesis, and to replay the corpus. Nothing
of a test runner is imported, since atheris instruments what is imported here.
"""

from __future__ import annotations

import io
import os
import tempfile
from typing import TYPE_CHECKING, NamedTuple, cast

from argosy.archives.docker import parse_docker
from argosy.archives.outer import uncompressed
from argosy.archives.tar import TarFile
from argosy.errors import Corrupt, Error, InvalidInput, NotFound, Unauthorized, Unsupported
from argosy.gpu import elf
from argosy.gpu.select import GpuRequest, parse_capabilities
from argosy.layer import pax
from argosy.layer.archive import entries
from argosy.layer.compression import decompressed
from argosy.layer.erofs import IndexBuilder
from argosy.layer.erofs_reader import IndexReader
from argosy.linux import ldcache
from argosy.oci import manifest as manifests
from argosy.oci.config import ImageConfig
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import Index
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.registry import ranges
from argosy.remote import download, pages
from argosy.remote.auth import parse_challenges
from argosy.remote.credentials import Credentials
from argosy.remote.messages import HttpResponse, retry_after
from argosy.remote.registries import Folders, Registries
from argosy.store import unsettled
from argosy.store.blobs import BlobStore
from argosy.store.lists import ListStore
from argosy.store.records import ContainerStore
from argosy.store.refs import RefStore

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from argosy.layer.contents import LayerContents
    from argosy.remote.registries import Rule

MOST = 1 << 20  # bytes of output that are looked at; a bomb is another test's
_URL = "https://r.test/v2/a/tags/list"
_HOST = Platform(os="linux", architecture="amd64")
_BLOB = Descriptor.of(bytes(20_000), "application/x-test")


class Parser(NamedTuple):
    parse: Callable[[bytes], object]
    #: what it may raise
    errors: tuple[type[Error], ...]


def _text(data: bytes) -> str:
    return data.decode("latin-1")


def _reference(data: bytes) -> None:
    reference = Reference.parse(data.decode(errors="surrogateescape"))
    assert Reference.parse(str(reference)) == Reference.parse(reference.familiar()) == reference


def _platform(data: bytes) -> None:
    platform = Platform.parse(data.decode(errors="surrogateescape"))
    assert Platform.parse(str(platform)) == platform


def _manifest(data: bytes) -> None:
    document = manifests.parse(data)
    assert (document.raw, document.descriptor.digest) == (data, Digest.of(data))
    document.children()
    if isinstance(document, Index):
        document.select(_HOST)


def _config(data: bytes) -> None:
    config = ImageConfig.parse(data)
    assert ImageConfig.parse(config.with_(author="x").raw).diff_ids == config.diff_ids


def _response(**headers: str) -> HttpResponse:
    return HttpResponse(206, {name.replace("_", "-"): value for name, value in headers.items()}, io.BytesIO())


def _link(data: bytes) -> None:
    onward = pages.following(_response(link=_text(data)), _URL)
    assert onward is None or onward.startswith("https://r.test/"), onward


def _ranges(data: bytes) -> None:
    for start, count in ranges.parse(_text(data), 1000) or ():
        assert 0 <= start < start + count <= 1000


def _tar(data: bytes) -> None:
    """Indexed, and the index read back: what one takes the other must find."""
    out, reader = io.BytesIO(), entries(io.BytesIO(data))
    builder = IndexBuilder(out)
    for entry in reader:
        builder.add(entry, reader.read)
    builder.finish("0" * 64, reader.position)
    with _File(out.getvalue()) as path, IndexReader(path) as index:
        _walk(index)


def _index(data: bytes) -> None:
    with _File(data) as path, IndexReader(path, path) as index:
        _walk(index, can_read=True)


def _walk(contents: LayerContents, *, can_read: bool = False) -> None:
    stack, most = [contents.root], 100_000
    while stack and most:
        for node in contents.children(stack.pop()).values():
            most -= 1
            if node.kind == "folder":
                stack.append(node)
            elif node.kind == "file" and can_read:
                contents.read(node, 0, 16)


def _inflate(open_stream: Callable[[io.BytesIO], object]) -> Callable[[bytes], None]:
    def parse(data: bytes) -> None:
        stream, most = cast("io.BytesIO", open_stream(io.BytesIO(data))), MOST
        while most > 0 and (piece := stream.read(1 << 16)):
            most -= len(piece)

    return parse


def _tar_file(data: bytes) -> None:
    with _File(data) as path, open(path, "rb") as file:
        TarFile(file.fileno()).is_whole()


def _journal(data: bytes) -> None:
    """Whatever the journal says, the blob that comes of it is the right one."""
    with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
        store = BlobStore(folder)
        path = store.part_path(_BLOB.digest)
        os.makedirs(os.path.dirname(path))
        for name, content in ((path, bytes(12_000)), (f"{path}.journal", data)):
            with open(name, "wb") as file:
                file.write(content)
        with store.assemble(_BLOB) as assembly:
            for start, end in assembly.missing():
                writer = assembly.writer(start)
                writer.write(bytes(end - start))
                writer.close()
            assembly.commit()
        assert store.stat(_BLOB.digest) == _BLOB.size


def _stored(place: str, read: Callable[[str], object]) -> Callable[[bytes], None]:
    """A file of the store with any content: *read* finds it or passes it over, without an error."""

    def parse(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
            path = os.path.join(folder, place)
            os.makedirs(os.path.dirname(path))
            with open(path, "wb") as file:
                file.write(data)
            read(folder)

    return parse


def _registries(name: str) -> Callable[[bytes], None]:
    def parse(data: bytes) -> None:
        with tempfile.TemporaryDirectory(dir=_SCRATCH) as folder:
            path = os.path.join(folder, name)
            os.makedirs(os.path.dirname(path))
            with open(path, "wb") as file:
                file.write(data)
            registries = Registries(Folders(user="", system=os.path.join(folder, "etc")))
            for wanted in ("docker.io/library/a", "r.test/b"):
                rule = registries.rule(wanted)
                for endpoint in (rule.origin, *rule.mirrors) if rule is not None else ():
                    registries.settings_of(endpoint, endpoint.host)
                    cast("Rule", rule).rewritten(Reference.parse(f"{wanted}:1"), endpoint)
            registries.credential_helpers()

    return parse


def _login(data: bytes) -> None:
    with _File(data) as path:
        credentials = Credentials({"REGISTRY_AUTH_FILE": path, "HOME": "/nonexistent", "DOCKER_CONFIG": "/nonexistent"})
        credentials.find("r.test", "a/b")


class _File:
    """The bytes as a file, for those who read by path."""

    def __init__(self, data: bytes) -> None:
        self._fd = os.memfd_create("fuzz")
        os.write(self._fd, data)
        os.lseek(self._fd, 0, os.SEEK_SET)

    def __enter__(self) -> str:
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *exc: object) -> None:
        os.close(self._fd)


_SCRATCH = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None

PARSERS: Mapping[str, Parser] = {
    "reference": Parser(_reference, (InvalidInput,)),
    "platform": Parser(_platform, (InvalidInput,)),
    "digest": Parser(lambda data: Digest.parse(_text(data)), (InvalidInput,)),
    "manifest": Parser(_manifest, (Corrupt, NotFound)),
    "config": Parser(_config, (Corrupt,)),
    "challenge": Parser(lambda data: parse_challenges(_text(data)), (Unauthorized, Corrupt)),
    "link": Parser(_link, (Corrupt,)),
    "content-range": Parser(lambda data: download._extent(_response(content_range=_text(data))), (Corrupt,)),
    "retry-after": Parser(lambda data: retry_after(_response(retry_after=_text(data))), ()),
    "range": Parser(_ranges, ()),
    "tar": Parser(_tar, (Corrupt,)),
    "pax": Parser(lambda data: (pax.xattrs(found := pax.records(data)), pax.sparse_map(found)), (Corrupt,)),
    "compression": Parser(_inflate(decompressed), (Corrupt, Unsupported)),
    "archive": Parser(_inflate(uncompressed), (Corrupt, Unsupported)),
    "archive-tar": Parser(_tar_file, (Corrupt,)),
    "docker-archive": Parser(parse_docker, (Corrupt, InvalidInput)),
    "erofs": Parser(_index, (Corrupt,)),
    "ld-cache": Parser(ldcache.parse, (Corrupt,)),
    "elf": Parser(lambda data: (elf.read(data), elf.notes(data)), (Corrupt,)),
    "gpus": Parser(lambda data: GpuRequest.parse(_text(data)), (InvalidInput,)),
    "capabilities": Parser(lambda data: parse_capabilities(_text(data)), (InvalidInput,)),
    "journal": Parser(_journal, ()),
    "mark": Parser(_stored("unsettled/0.json", lambda root: list(unsettled.walk(root))), ()),
    "ref": Parser(_stored("refs/a.json", lambda root: (RefStore(root).list(), RefStore(root).damaged())), ()),
    "list": Parser(_stored("manifests/a.json", lambda root: ListStore(root).damaged()), ()),
    "container": Parser(_stored(f"containers/{1:064x}/record.json", lambda root: ContainerStore(root).list()), ()),
    "registries": Parser(_registries("etc/argosy/registries.toml"), (InvalidInput,)),
    "registries-conf": Parser(_registries("etc/containers/registries.conf"), (InvalidInput,)),
    "hosts-toml": Parser(_registries("etc/containerd/certs.d/r.test/hosts.toml"), (InvalidInput,)),
    "daemon-json": Parser(_registries("etc/docker/daemon.json"), (InvalidInput,)),
    "login": Parser(_login, (InvalidInput, Corrupt)),
}


def parse(name: str, data: bytes) -> None:
    """Raises whatever *name*'s parser must not raise."""
    parser = PARSERS[name]
    try:
        parser.parse(data)
    except parser.errors:
        return
