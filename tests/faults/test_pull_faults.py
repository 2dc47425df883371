"""Pulls over a network that misbehaves: the old tag stands, the second pull succeeds and fetches what is missing."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from typing import TYPE_CHECKING

import pytest
from msgspec.structs import replace

from argosy.errors import Corrupt, Error, Exhausted, Unavailable
from argosy.linux.features import probe
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.ops.pull import pull
from argosy.remote.messages import CHUNK
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from argosy.snapshots import choose
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore
from support import flaky as faults
from support.flaky import flaky
from support.images import config_json, random_image
from support.registry import running_registry
from support.stores import command, environment
from support.web import Reply, Seen

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from argosy.snapshots import Snapshotter
    from argosy.store.refs import RefRecord
    from support.flaky import Fault, FlakyProxy
    from support.images import RandomImage
    from support.registry import RunningRegistry

NAME = "team/app"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("faults") / "registry", expected_stderr=None) as running:
        yield running


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[FlakyProxy]:
    with flaky(registry.address) as running:
        yield running


class Here:
    """A store, an old image under the tag, and a client that does not wait long."""

    def __init__(self, root: Path, registry: RunningRegistry, proxy: FlakyProxy) -> None:
        root.mkdir()
        self.blobs, self.refs = BlobStore(root), RefStore(root)
        self.snapshotter: Snapshotter = choose(root, probe(folder=str(root), path=os.environ["PATH"]))
        self.transport = Transport({}, read_timeout_s=0.3, sleep=lambda s: None, retries=RetryPolicy(attempts=3))
        self.registry, self.proxy = registry, proxy
        self.reference = Reference.parse(f"{proxy.address}/{NAME}:1")

    def pull(self) -> RefRecord:
        repository = Repository(self.transport, self.reference.registry, self.reference.repository)
        return pull(
            self.reference,
            repository=repository,
            blobs=self.blobs,
            refs=self.refs,
            snapshotter=self.snapshotter,
        ).record

    def fails(self) -> Error:
        with pytest.raises(Error) as caught:
            self.pull()
        return caught.value

    def replaces(self, old: RandomImage, new: RandomImage) -> None:
        """The tag means *old* here and *new* in the registry."""
        self.registry.push(old, NAME, "1")
        self.pull()
        self.registry.push(new, NAME, "1")
        self.proxy.carried = 0

    def has_whole(self, image: RandomImage) -> bool:
        """Whether the tag means *image* and all of it is here, unpacked."""
        for descriptor, raw in image.blobs():
            with self.blobs.open(descriptor) as stream:
                assert stream.read() == raw
        return self.refs.get(self.reference).descriptor == image.descriptor and all(
            self.snapshotter.has(diff_id) for diff_id in image.diff_ids
        )


@pytest.fixture
def here(tmp_path: Path, registry: RunningRegistry, proxy: FlakyProxy) -> Iterator[Here]:
    made = Here(tmp_path / "here", registry, proxy)
    yield made
    made.transport.close()


@pytest.fixture
def old(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "old", seed=1)


@pytest.fixture
def new(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "new", layers=3, size=300_000, seed=2)


def total(image: RandomImage) -> int:
    return sum(child.size for child in image.manifest.children())


@pytest.mark.parametrize(
    ("fault", "kind", "code"),
    [
        (faults.cut_after(0), Unavailable, "connection-lost"),
        (faults.status(500), Unavailable, "registry-failed"),
        (faults.status(429, Retry_After="1"), Unavailable, "rate-limited"),
        (faults.status(404), Error, "blob-unknown"),
        (faults.status(403), Error, "access-denied"),
        (faults.corrupt_at(0), Corrupt, "digest-mismatch"),
        (faults.corrupt_at(100_000), Corrupt, "digest-mismatch"),
        (faults.stall_after(0), Unavailable, "timed-out"),
    ],
)
def test_a_fault_that_stays_leaves_the_old_tag_and_is_healed_by_the_next_pull(
    here: Here, old: RandomImage, new: RandomImage, fault: Fault, kind: type[Error], code: str
) -> None:
    here.replaces(old, new)
    here.proxy.fault = fault
    error = here.fails()
    assert isinstance(error, kind)
    assert error.code == code
    if code != "timed-out":
        assert any(child.digest in error.message for child in new.manifest.children()) or "127.0.0.1" in error.message
    assert here.has_whole(old)
    here.proxy.fault = faults.none
    here.pull()
    assert here.has_whole(new)


@pytest.mark.parametrize("ignores_range", [False, True])
@pytest.mark.parametrize(
    "fault",
    [
        faults.first(2, faults.cut_after(1000)),
        faults.cut_after(40_000),
        faults.first(2, faults.status(500)),
        faults.first(2, faults.status(429)),
        faults.first(2, faults.stall_after(1000)),
    ],
)
def test_a_fault_that_passes_is_not_noticed(
    here: Here, old: RandomImage, new: RandomImage, fault: Fault, ignores_range: bool
) -> None:
    if ignores_range:
        fault = faults.first(2, fault)  # a deaf source that is always cut never gets further
    here.replaces(old, new)
    here.proxy.fault, here.proxy.ignores_range = fault, ignores_range
    here.pull()
    assert here.has_whole(new)
    if not ignores_range:  # a read that times out may lose what it had
        assert total(new) <= here.proxy.carried <= total(new) + 2000


def test_the_next_pull_fetches_only_what_is_missing(here: Here, old: RandomImage, new: RandomImage) -> None:
    here.replaces(old, new)
    here.proxy.fault = faults.cut_after(50_000)
    here.transport = Transport({}, retries=RetryPolicy(attempts=1))
    here.fails()
    assert 50_000 < here.proxy.carried < total(new)
    here.proxy.fault = faults.none
    for _ in range(2):
        here.pull()
    here.transport.close()
    assert here.has_whole(new)
    config = new.manifest.config.size  # read anew by each attempt, before any layer
    unnoted = 2 * CHUNK  # two other layers were on their way when the first failed
    assert 0 <= here.proxy.carried - total(new) - config <= unnoted


def test_a_source_that_ignores_range_costs_time_and_nothing_else(
    here: Here, old: RandomImage, new: RandomImage
) -> None:
    here.replaces(old, new)
    here.proxy.fault = faults.cut_after(50_000)
    here.proxy.ignores_range = True
    assert here.fails().code == "connection-lost"
    here.proxy.fault = faults.none
    here.pull()
    assert here.has_whole(new)


@pytest.mark.parametrize("place", range(4))
def test_each_blob_in_turn_is_damaged_in_the_registry(
    here: Here, old: RandomImage, new: RandomImage, place: int
) -> None:
    """Equal length, one bit: the error names the blob, and the others are not fetched again afterwards."""
    here.replaces(old, new)
    victim = new.manifest.children()[place]

    def damage(seen: Seen, reply: Reply) -> Reply:
        return faults.corrupt_at(victim.size // 2)(seen, reply) if victim.digest in seen.path else reply

    here.proxy.fault = damage
    error = here.fails()
    assert (type(error), error.code, victim.digest in error.message) == (Corrupt, "digest-mismatch", True)
    assert here.has_whole(old)
    assert here.blobs.stat(victim.digest) is None
    here.proxy.fault = faults.none
    here.pull()
    assert here.has_whole(new)


def test_a_layer_that_is_not_what_the_config_promises_is_not_tagged(
    here: Here, old: RandomImage, new: RandomImage
) -> None:
    """All digests of blobs are right, but a diff-id is not that of the layer."""
    here.registry.push(old, NAME, "1")
    here.pull()
    lying = config_json((b"another", *new.tars[1:]), Platform.host())
    layout = new.layout
    config = layout.put(lying, new.manifest.config.media_type)
    manifest = encode_manifest(config, new.manifest.layers)
    here.registry.push_blob(NAME, lying)
    for _, raw in new.blobs():
        here.registry.push_blob(NAME, raw)
    assert here.registry.push_manifest(NAME, "1", manifest.descriptor, manifest.raw).status == 201
    error = here.fails()
    assert (type(error), error.code) == (Corrupt, "digest-mismatch")
    assert new.manifest.layers[0].digest in f"{error.message} {error.context}"
    assert here.has_whole(old)
    assert not here.snapshotter.has(Digest.of(b"another"))


def test_a_layer_that_is_no_archive_is_not_tagged(here: Here, old: RandomImage) -> None:
    here.registry.push(old, NAME, "1")
    here.pull()
    rubbish = os.urandom(5000)
    config = config_json((rubbish,), Platform.host())
    layout = old.layout
    layer = layout.put(rubbish, old.manifest.layers[0].media_type)
    manifest = encode_manifest(layout.put(config, old.manifest.config.media_type), (layer,))
    here.registry.push_blob(NAME, config)
    here.registry.push_blob(NAME, rubbish)
    here.registry.push_manifest(NAME, "1", manifest.descriptor, manifest.raw)
    error = here.fails()
    assert isinstance(error, Corrupt)
    assert layer.digest in f"{error.message} {error.context}"
    assert here.has_whole(old)


def test_a_full_disk_is_said_before_the_transfer(here: Here, old: RandomImage) -> None:
    here.registry.push(old, NAME, "1")
    here.pull()
    huge = replace(old.manifest.layers[0], digest=Digest.of(b"huge"), size=2**60)
    manifest = encode_manifest(old.manifest.config, (huge,) * len(old.tars))
    here.proxy.fault = lambda seen, reply: (
        Reply(body=manifest.raw, headers={"Content-Type": manifest.descriptor.media_type})
        if "/manifests/" in seen.path
        else reply
    )
    error = here.fails()
    assert (type(error), error.code) == (Exhausted, "disk-full")
    assert here.has_whole(old)


def test_a_pull_that_is_killed_is_taken_up(
    here: Here, old: RandomImage, tmp_path: Path, registry: RunningRegistry
) -> None:
    """SIGKILL in the middle of a layer; the next process continues the part."""
    big = random_image(tmp_path / "big", layers=1, size=4_000_000, seed=3)
    registry.push(big, NAME, "1")
    here.proxy.fault = faults.stall_after(2_000_000)
    root = tmp_path / "killed"
    words = command("pull", "-q", str(here.reference))
    process = subprocess.Popen(words, env=environment(root), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    part = root / f"ingest/sha256-{big.manifest.layers[0].digest.hex}.part"
    deadline = time.monotonic() + 30
    while not (part.exists() and part.stat().st_size > 1_000_000) and time.monotonic() < deadline:
        time.sleep(0.02)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = part.stat().st_size
    assert kept > 1_000_000
    here.proxy.fault, here.proxy.carried = faults.none, 0
    done = subprocess.run(words, env=environment(root), capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode().strip()) == (0, str(here.reference))
    missing = big.manifest.layers[0].size - kept
    assert 0 <= here.proxy.carried - missing - big.manifest.config.size <= big.manifest.layers[0].size // 100
