"""Images that are small to send and large to take: each ends with one error, or works, in bounded memory and time."""

from __future__ import annotations

import gzip
import os
import resource
import subprocess
import sys
import time
from typing import TYPE_CHECKING, NamedTuple

import pytest

from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.platform import Platform
from argosy.oci.wire import encode
from support import archives
from support.archives import archive, file, hardlink, header, pax
from support.hostile import PLATFORM, Liar, Said, assert_one_error, described
from support.images import config_json
from support.stores import command, environment

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
MEMORY = 256 << 20  # bytes that any process of a verb may have at its peak
PATIENCE_S = 120.0
KINDS = ("erofs", "unpacked")
HOST = Platform.host()


class Bomb(NamedTuple):
    """An image: layers as (tar or None, blob), and how their descriptors lie; what comes of it."""

    make: Callable[[Liar], bytes]
    #: code of the error; "" when the image is taken
    code: str = ""
    only_whole: bool = False


def manifest_of(liar: Liar, *layers: Mapping[str, object], config: bytes) -> bytes:
    liar.put(config)
    document = {"schemaVersion": 2, "mediaType": media.OCI_MANIFEST, "config": described(config, media.OCI_CONFIG)}
    return encode(document | {"layers": layers})


def image(liar: Liar, *tars: bytes, **fields: object) -> bytes:
    """An honest image of *tars*; *fields* of its config."""
    blobs = [liar.put(gzip.compress(tar, 1, mtime=0)) for tar in tars]
    layers = [described(blob, media.OCI_LAYER_GZIP) for blob in blobs]
    return manifest_of(liar, *layers, config=config_json(tars, HOST)[:-1] + _members(fields))


def _members(fields: Mapping[str, object]) -> bytes:
    return (b"," + encode(fields)[1:]) if fields else b"}"


def ten_gigabytes(liar: Liar) -> bytes:
    """A file of 10 GB of zeros; a hundred members of 100 kB each."""
    head = gzip.compress(header(b"zeros", size=10 << 30), mtime=0)
    zeros = gzip.compress(bytes(100 << 20), 9, mtime=0)
    blob = liar.put(head + zeros * 103)
    diff_id = f"sha256:{3:064x}"
    config = config_json((), HOST).replace(b'"diff_ids":[]', b'"diff_ids":["%s"]' % diff_id.encode())
    return manifest_of(liar, described(blob, media.OCI_LAYER_GZIP), config=config)


def one_layer_often(liar: Liar) -> bytes:
    tar = archive(file(b"a", b"x"))
    layer = described(liar.put(gzip.compress(tar, mtime=0)), media.OCI_LAYER_GZIP)
    return manifest_of(liar, *[layer] * 10_000, config=config_json((tar,) * 10_000, HOST))


def many_layers(liar: Liar) -> bytes:
    return image(liar, *(archive(file(b"f%d" % number)) for number in range(3000)))


def many_platforms(liar: Liar) -> bytes:
    good = liar.put(image(liar, archive(file(b"a"))))
    children = [
        described(good, media.OCI_MANIFEST, platform={"os": "linux", "architecture": f"x{n}"}) for n in range(9999)
    ]
    children.append(described(good, media.OCI_MANIFEST, platform=PLATFORM))
    return encode({"schemaVersion": 2, "mediaType": media.OCI_INDEX, "manifests": children})


def two_sizes(liar: Liar) -> bytes:
    tar = archive(file(b"a", b"x"))
    blob = liar.put(gzip.compress(tar, mtime=0))
    layers = [described(blob, media.OCI_LAYER_GZIP, size=len(blob) + extra) for extra in (0, 1)]
    return manifest_of(liar, *layers, config=config_json((tar, tar), HOST))


def sha512(liar: Liar) -> bytes:
    tar = archive(file(b"a", b"512"))
    blob = gzip.compress(tar, mtime=0)
    digest = Digest.of(blob, "sha512")
    liar.content[str(digest)] = blob
    config = config_json((tar,), HOST).replace(str(Digest.of(tar)).encode(), str(Digest.of(tar, "sha512")).encode())
    return manifest_of(liar, described(blob, media.OCI_LAYER_GZIP, digest=str(digest)), config=config)


def _steps(count: int) -> list[dict[str, str]]:
    return [{"created_by": "RUN " + "x" * 90}] * count


BOMBS: Mapping[str, Bomb] = {
    "a path of 100,000 parts": Bomb(
        lambda liar: image(liar, archive(pax((b"path", b"a/" * 100_000 + b"x")), file(b"a"))), "archive-name-too-long"
    ),
    "a path of 2,000 parts": Bomb(lambda liar: image(liar, archive(pax((b"path", b"a/" * 2000 + b"x")), file(b"a")))),
    "20,000 names of one file": Bomb(
        lambda liar: image(liar, archive(file(b"f", b"x"), *(hardlink(b"l%d" % n, b"f") for n in range(20_000))))
    ),
    "100,000 names of one file": Bomb(
        lambda liar: image(liar, archive(file(b"f", b"x"), *(hardlink(b"l%d" % n, b"f") for n in range(100_000)))),
        only_whole=True,
    ),
    "a remark of 1 MB": Bomb(
        lambda liar: image(liar, archive(pax((b"comment", b"x" * (1 << 20))), file(b"a"))), "archive-limit"
    ),
    "a million files": Bomb(lambda liar: image(liar, archives.many(1_000_000)), only_whole=True),
    "one layer 10,000 times": Bomb(one_layer_often),
    "3,000 layers": Bomb(many_layers, only_whole=True),
    "10,000 platforms": Bomb(many_platforms),
    "15 MB of history": Bomb(lambda liar: image(liar, archive(file(b"a", b"h")), history=_steps(140_000))),
    "20 MB of history": Bomb(
        lambda liar: image(liar, archive(file(b"a")), history=_steps(190_000)), "config-too-large"
    ),
    "one blob of two sizes": Bomb(two_sizes, "size-mismatch"),
    "sha512 throughout": Bomb(sha512),
}


def measured(root: Path, *words: str, kind: str) -> tuple[Said, int]:
    """What a command line ended with, and the peak of memory of any process of it, in bytes.

    Asked by a small process in between: a child begins with the peak of whoever forked it.
    """
    out, err, peak = (root.with_name(f"{root.name}.{name}") for name in ("out", "err", "peak"))
    environ = environment(root, {"ARGOSY_SNAPSHOTTER": kind})
    with out.open("wb") as stdout, err.open("wb") as stderr:
        between = (sys.executable, "-c", _BETWEEN, str(peak), *command(*words))
        done = subprocess.run(between, env=environ, stdout=stdout, stderr=stderr, check=False)
    return Said(done.returncode, out.read_text(), err.read_text()), int(peak.read_text()) << 10


_BETWEEN = """
import os, resource, sys
pid = os.posix_spawn(sys.argv[2], sys.argv[2:], os.environ)
status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
with open(sys.argv[1], "w") as file:
    file.write(str(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss))
sys.exit(status)
"""


@pytest.mark.parametrize("what", BOMBS)
def test_a_bomb_does_no_harm(tmp_path: Path, what: str, pytestconfig: pytest.Config) -> None:
    bomb, whole = BOMBS[what], pytestconfig.getoption("--whole")
    if bomb.only_whole and not whole:
        return
    liar = Liar()
    raw = bomb.make(liar)
    liar.tagged["bomb"] = (raw, media.OCI_INDEX if b'"manifests"' in raw else media.OCI_MANIFEST)
    with liar.serving() as site:
        for kind in KINDS if whole else (KINDS[len(what) % 2],):
            assert_borne(tmp_path / kind, f"{site.address}/bomb:t", kind, bomb.code)


def assert_borne(root: Path, name: str, kind: str, code: str) -> None:
    began = time.monotonic()
    said, peak = measured(root, "pull", "-q", name, kind=kind)
    assert (peak < MEMORY, time.monotonic() - began < PATIENCE_S) == (True, True), (peak, said)
    if code:
        assert_one_error(said, 1, code)
    elif said.status and kind == "unpacked":
        assert said.code in ("too-many-names", "disk-full"), said  # of one file, or of files on this disk
    else:
        assert (said.status, said.output, "error: " in said.error) == (0, f"{name}\n", False), said
    checked, peak = measured(root, "check", kind=kind)
    assert (checked.status, checked.error, peak < MEMORY) == (0, "", True), (checked, peak)
    removed, peak = measured(root, "rmi", "-f", name, kind=kind)
    assert (removed.status, peak < MEMORY) == (0, True), (removed, peak)
    assert os.listdir(root / "tmp") == []


@pytest.mark.parametrize("kind", KINDS)
def test_ten_megabytes_that_become_ten_gigabytes_fill_no_memory(tmp_path: Path, kind: str) -> None:
    """The disk (here: the largest file that is allowed) ends it; what was written is given back."""
    liar = Liar()
    liar.tagged["bomb"] = (ten_gigabytes(liar), media.OCI_MANIFEST)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (64 << 20, before[1]))
    try:
        with liar.serving() as site:
            said, peak = measured(tmp_path / "store", "pull", "-q", f"{site.address}/bomb:t", kind=kind)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert_one_error(said, 1, "file-too-large")
    assert peak < MEMORY
    assert os.listdir(tmp_path / "store/tmp") == []
    assert not list((tmp_path / "store/layers").glob("*/*"))
