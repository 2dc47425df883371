"""What hostile and clumsy people send: images whose parts lie, manifests that are none, damaged stores.

Tables of (what, …) that the tests go through, and the judge of what the program said.
Archives that are hostile by themselves are in `archives.HOSTILE`.
"""

from __future__ import annotations

import contextlib
import gc
import gzip
import io
import re
import shutil
from typing import TYPE_CHECKING, NamedTuple

from argosy import cli
from argosy.cli import output
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.wire import encode

from .archives import archive, file
from .busybox import APPLETS, tar_of
from .images import Layout, RandomImage, compress, config_json
from .stores import environment
from .web import Reply, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

    from .web import Seen, Site

ESCAPE = "\x1b[31m"  # colours a terminal red that obeys it
_STYLE = re.compile(r"error: \S.*[^.] \[[a-z0-9-]+\]\n(?:  .+\n)*")


class Said(NamedTuple):
    """What a command line ended with."""

    status: int
    output: str
    error: str

    @property
    def code(self) -> str:
        """The one code on stderr; warnings and lines of progress may stand before."""
        found = re.findall(r"^error: .* \[([a-z0-9-]+)\]$", self.error, re.MULTILINE)
        return found[0] if len(found) == 1 else f"{len(found)} errors: {self.error}"


def say(root: Path, *words: str, **environ: str) -> Said:
    """Run a command line in this process, as `argosy.cli.main` does; for verbs that enter no namespace."""
    out, err = io.StringIO(), io.StringIO()
    output._warned.clear()  # each command line is a process of its own elsewhere
    gc.freeze()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = cli.main(words, environment(root, environ))
    gc.collect()  # a failure's traceback holds the connection, which elsewhere ends with the process
    gc.unfreeze()
    return Said(status, out.getvalue(), err.getvalue())


def assert_one_error(said: Said, status: int, code: str) -> None:
    """One error in the style of the project, nothing that drives a terminal, the status that Docker has."""
    assert (said.status, said.code) == (status, code), said
    assert "\x1b" not in said.output + said.error, said
    assert _STYLE.fullmatch(said.error[said.error.index("error: ") :]), said.error


# ---- images


def image_of(
    folder: Path, *tars: bytes, blobs: tuple[bytes, ...] = (), config: bytes | None = None, **execution: object
) -> RandomImage:
    """An image of *tars*; *blobs* are sent in their place, *config* instead of the one that fits."""
    shutil.rmtree(folder, ignore_errors=True)
    layout = Layout(folder)
    layers = tuple(layout.put(blob, media.OCI_LAYER_GZIP) for blob in blobs or tuple(compress(t, "gzip") for t in tars))
    document = config if config is not None else config_json(tars, Platform.host(), **execution)
    manifest = encode_manifest(layout.put(document, media.OCI_CONFIG), layers)
    layout.put(manifest.raw, media.OCI_MANIFEST)
    return RandomImage(layout, manifest, tars)


def runnable(folder: Path, *layers: bytes | Mapping[str, bytes | str | int], **execution: object) -> RandomImage:
    """Busybox, and *layers* above: tars, or members as `tar_of` takes them. Nothing else: no /etc, no /dev."""
    program = shutil.which("busybox")
    assert program is not None, "scripts/setup test installs busybox-static"
    with open(program, "rb") as stream:
        data = stream.read()
    base = tar_of({"bin/": 0o755, "bin/busybox": data, **{f"bin/{applet}": "busybox" for applet in APPLETS}})
    tars = (base, *(layer if isinstance(layer, bytes) else tar_of(layer) for layer in layers))
    return image_of(folder, *tars, **{"Cmd": ["sh", "-c", "echo ran"], "Env": ["PATH=/bin"], **execution})


# ---- streams that are not what they seem


def _tar(number: int) -> bytes:
    """Every case has content of its own: a layer that is here already is not unpacked again."""
    return archive(file(b"file-%d" % number, b"x" * 5000))


def _zstd(tar: bytes) -> bytes:
    return compress(tar, "zstd")


#: {what: (the layer's tar, the blob that is sent, code of the error; "" when it is fine)}
STREAMS: Mapping[str, tuple[bytes, bytes, str]] = {
    "gzip, cut": (_tar(1), gzip.compress(_tar(1))[:-20], "compression-truncated"),
    "gzip, its first two bytes": (_tar(2), b"\x1f\x8b", "compression-truncated"),
    "gzip with rubbish behind it": (_tar(3), gzip.compress(_tar(3)) + b"rubbish", "compression-damaged"),
    "gzip with a wrong checksum": (_tar(4), gzip.compress(_tar(4))[:-8] + bytes(8), "compression-damaged"),
    "gzip in two members": (_tar(5), gzip.compress(_tar(5)[:999]) + gzip.compress(_tar(5)[999:]), ""),
    "ten thousand empty members": (_tar(6), gzip.compress(b"") * 10_000 + gzip.compress(_tar(6)), ""),
    "zstd, cut": (_tar(7), _zstd(_tar(7))[:-5], "compression-truncated"),
    "zstd with rubbish behind it": (_tar(8), _zstd(_tar(8)) + b"rubbish", "compression-damaged"),
    "zstd that wants two gigabytes": (
        _tar(9),
        b"\x28\xb5\x2f\xfd\x00\xa8" + _zstd(_tar(9))[6:],
        "compression-damaged",
    ),
    "xz": (_tar(10), b"\xfd7zXZ\0rest", "layer-compression"),
    "nothing at all": (_tar(11), b"", "digest-mismatch"),
    "a page": (b"<html>", b"<html>", "archive-truncated"),
    "a tar that stops in a file": (_tar(12)[:700], gzip.compress(_tar(12)[:700]), "archive-truncated"),
    "another layer": (_tar(13), gzip.compress(_tar(14)), "digest-mismatch"),
    "a tar without its end": (_tar(15)[:-1024], gzip.compress(_tar(15)[:-1024]), ""),
    "a tar with rubbish behind its end": (_tar(16) + b"x" * 999, gzip.compress(_tar(16) + b"x" * 999), ""),
}


def gzip_bomb_of(tar: bytes, megabytes: int) -> bytes:
    """*tar*, then zeros that nobody promised."""
    out = io.BytesIO()
    with gzip.GzipFile(fileobj=out, mode="wb", compresslevel=9, mtime=0) as stream:
        stream.write(tar)
        for _ in range(megabytes):
            stream.write(bytes(1 << 20))
    return out.getvalue()


# ---- documents that lie


class Liar:
    """A registry that sends what it was told to, for tag `t` of the repository `what/N`; all else by its digest."""

    def __init__(self) -> None:
        #: by digest
        self.content: dict[str, bytes] = {}
        #: {path of a repository: (bytes, type) of the tag t}
        self.tagged: dict[str, tuple[bytes, str]] = {}

    def put(self, raw: bytes) -> bytes:
        self.content[str(Digest.of(raw))] = raw
        return raw

    def put_image(self, image: RandomImage) -> bytes:
        """Everything of *image*; its manifest's bytes."""
        for _, raw in image.blobs():
            self.put(raw)
        return self.put(image.manifest.raw)

    def answer(self, seen: Seen) -> Reply:
        name, kind, tail = (*seen.path.removeprefix("/v2/").rsplit("/", 2), "", "")[:3]
        if kind == "tags":
            return Reply(body=b'{"tags":["13-devel","13-base","\\u001b[31m"]}')
        if tail == "t":
            raw, media_type = self.tagged[name]
            return Reply(headers={"Content-Type": media_type} if media_type else {}, body=raw)
        if tail in self.content:
            return Reply(body=self.content[tail], headers={"Content-Type": media.OCI_MANIFEST})
        return Reply(status=404 if kind else 200, body=f"<html>{ESCAPE}nothing".encode())

    def serving(self) -> contextlib.AbstractContextManager[Site]:
        return serving(self.answer)


def described(raw: bytes, media_type: str, **fields: object) -> dict[str, object]:
    """A descriptor as JSON; *fields* lie about it."""
    found = Descriptor.of(raw, media_type)
    return {"mediaType": media_type, "digest": str(found.digest), "size": found.size, **fields}


PLATFORM = {"os": "linux", "architecture": Platform.host().architecture}


def lying_documents(image: RandomImage, liar: Liar) -> Iterator[tuple[str, bytes, str, str]]:
    """(what, document, type that is sent, code of the error; "" when it is fine) around the honest *image*."""
    good = liar.put_image(image)
    (layer,) = image.manifest.layers
    plain = described(image.layout.read(layer.digest), layer.media_type)
    oci, index = media.OCI_MANIFEST, media.OCI_INDEX

    def manifest(config: bytes | None = None, *layers: Mapping[str, object]) -> bytes:
        raw = image.layout.read(image.manifest.config.digest) if config is None else liar.put(config)
        document = {"schemaVersion": 2, "mediaType": oci, "config": described(raw, media.OCI_CONFIG)}
        return encode(document | {"layers": layers or (plain,)})

    def config(**fields: object) -> bytes:
        rootfs = {"type": "layers", "diff_ids": [str(d) for d in image.diff_ids]}
        return manifest(encode({"os": "linux", "architecture": PLATFORM["architecture"], "rootfs": rootfs, **fields}))

    def listed(*manifests: object, **fields: object) -> bytes:
        return encode({"schemaVersion": 2, "mediaType": index, "manifests": manifests, **fields})

    yield "an honest image", good, oci, ""
    yield "an honest image, sent as text", good, "text/plain", ""
    yield "a page", b"<!DOCTYPE html><html>hello", "text/html", "manifest-invalid"
    yield "a page, sent as a manifest", b"<html>hello", oci, "manifest-invalid"
    yield "nothing", b"", oci, "manifest-invalid"
    yield "30 MB", b" " * 30_000_000, oci, "response-too-large"
    yield "100,000 brackets", b"[" * 100_000, oci, "manifest-invalid"
    yield "100,000 braces", b'{"a":' * 100_000, oci, "manifest-invalid"
    yield "null", b"null", oci, "manifest-invalid"
    yield "bytes that are no text", b'{"mediaType":"\xff"}', oci, "manifest-invalid"
    yield "schema 1", encode({"schemaVersion": 1, "fsLayers": []}), "", "manifest-schema1"
    yield "an image, sent as an index", good, index, "manifest-type-mismatch"
    yield "a type that drives a terminal", good.replace(oci.encode(), b"a/\\u001b[31m"), "", "manifest-type-unknown"
    yield "both an image and an index", good[:-1] + b',"manifests":[]}', "", "manifest-ambiguous"
    yield "no config", encode({"schemaVersion": 2, "mediaType": oci, "layers": (plain,)}), oci, "manifest-invalid"
    yield "schema 3", good.replace(b'"schemaVersion":2', b'"schemaVersion":3'), oci, "manifest-invalid"
    yield "a negative size", manifest(None, plain | {"size": -1}), oci, "manifest-invalid"
    yield "a size beyond all disks", manifest(None, plain | {"size": 1 << 80}), oci, "disk-full"
    yield "a size one too small", manifest(None, plain | {"size": layer.size - 1}), oci, "size-mismatch"
    yield "a size one too large", manifest(None, plain | {"size": layer.size + 1}), oci, "size-mismatch"
    yield "a digest that climbs", manifest(None, plain | {"digest": "sha256:../../x"}), oci, "manifest-invalid"
    yield "a layer that is not there", manifest(None, plain | {"digest": f"sha256:{0:064x}"}), oci, "blob-unknown"
    yield "a layer of an odd type", manifest(None, plain | {"mediaType": ESCAPE}), oci, "not-an-image"
    encrypted = plain | {"mediaType": f"{layer.media_type}+encrypted"}
    yield "an encrypted layer", manifest(None, encrypted), oci, "not-an-image"
    yield "a config of another type", good.replace(media.OCI_CONFIG.encode(), b"a/b"), oci, "not-an-image"
    yield "a config that is a page", manifest(b"<html>"), oci, "config-invalid"
    yield "a config that is a list", manifest(b"[]"), oci, "config-invalid"
    yield "no diff-ids", config(rootfs={"type": "layers", "diff_ids": []}), oci, "layers-mismatch"
    yield "diff-ids that are null", config(rootfs={"diff_ids": None}), oci, "layers-mismatch"
    yield "two diff-ids for one layer", config(rootfs={"diff_ids": [*image.diff_ids] * 2}), oci, "layers-mismatch"
    yield "a diff-id that climbs", config(rootfs={"diff_ids": ["sha256:../x"]}), oci, "config-invalid"
    yield "a wrong diff-id", config(rootfs={"diff_ids": [f"sha256:{1:064x}"]}), oci, "digest-mismatch"
    nulls = dict.fromkeys(("Env", "Labels", "Volumes", "Entrypoint", "User", "WorkingDir"))
    yield "nulls everywhere, and a line as command", config(config=nulls | {"Cmd": "echo"}, history=None), oci, ""
    yield "a variable that is a number", config(config={"Env": [1]}), oci, "config-invalid"
    yield "a NUL in a variable", config(config={"Env": ["A=x\0y"]}), oci, "config-invalid"
    yield "5,000 steps of history", config(history=[{"created_by": f"{ESCAPE}RUN x"}] * 5_000), oci, ""
    yield "words for terminals", config(created=ESCAPE, config={"Labels": {ESCAPE: ESCAPE}, "Cmd": [ESCAPE]}), oci, ""
    foreign = described(good, oci, platform={"os": "linux", "architecture": ESCAPE})
    yield "an index without this platform", listed(foreign), index, "platform-not-in-index"
    yield "an index of nothing", listed(), index, "platform-not-in-index"
    page = liar.put(b"<html>child")
    yield "an index of a page", listed(described(page, oci, platform=PLATFORM)), index, "manifest-invalid"
    lie = described(good, index, platform=PLATFORM)
    yield "an index of an image that calls it an index", listed(lie), index, "manifest-type-mismatch"
    short = described(good, oci, platform=PLATFORM, size=5)
    yield "an index with a wrong size", listed(short), index, "size-mismatch"
    deep = listed(described(good, oci, platform=PLATFORM))
    for _ in range(9):
        deep = listed(described(liar.put(deep), index, platform=PLATFORM))
    yield "an index of an index of an index …", deep, index, "index-too-deep"
    itself = listed(
        {"mediaType": index, "digest": f"sha256:{2:064x}", "size": 400, "platform": PLATFORM}, pad="x" * 200
    )
    liar.content[f"sha256:{2:064x}"] = itself
    yield "an index of itself", itself, index, "size-mismatch"


# ---- damaged files


def flipped(data: bytes) -> bytes:
    """One bit in the middle, equal length."""
    at = len(data) // 2
    return data[:at] + bytes(byte ^ 1 for byte in data[at : at + 1]) + data[at + 1 :]


#: {what: the file's new bytes, None to delete it}
DAMAGES: Mapping[str, Callable[[bytes], bytes | None]] = {
    "one bit": flipped,
    "cut": lambda data: data[: len(data) // 2],
    "rubbish": lambda data: b"\xff\0\x1b[31m" * 9,
    "deleted": lambda data: None,
}


def damage(path: Path, how: str) -> None:
    mode, new = path.stat().st_mode & 0o7777, DAMAGES[how](path.read_bytes())
    path.unlink()
    if new is not None:
        path.write_bytes(new)
        path.chmod(mode)
