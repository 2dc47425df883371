"""One blob over several connections, and many pulls at once, against our own registry."""

from __future__ import annotations

import os
import random
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Error
from argosy.oci.descriptor import Descriptor
from argosy.ops.fetch import fetching, pieces
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from argosy.store import gc
from argosy.store.blobs import OCTETS, BlobStore
from support import flaky as faults
from support.flaky import flaky
from support.images import random_image
from support.registry import running_registry
from support.stores import command, environment

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.flaky import FlakyProxy
    from support.registry import RunningRegistry

NAME = "team/data"
DATA = random.Random(7).randbytes(1_000_003)
BLOB = Descriptor.of(DATA, OCTETS)
PIECE = 100_000


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("fetch") / "registry", expected_stderr=None) as running:
        running.push_blob(NAME, DATA)
        yield running


@pytest.fixture
def proxy(registry: RunningRegistry) -> Iterator[FlakyProxy]:
    with flaky(registry.address) as running:
        yield running


@pytest.fixture
def store(tmp_path: Path) -> BlobStore:
    return BlobStore(tmp_path / "store")


def fetched(store: BlobStore, proxy: FlakyProxy, *, connections: int = 4, attempts: int = 3) -> int:
    """Fetch BLOB to its end; gives the bytes that were told."""
    transport = Transport({}, read_timeout_s=5, sleep=lambda s: None, retries=RetryPolicy(attempts=attempts))
    told: list[int] = []
    try:
        with (
            store.assemble(BLOB) as assembly,
            fetching(
                BLOB,
                assembly,
                repository=Repository(transport, proxy.address, NAME),
                connections=connections,
                piece=PIECE,
                advanced=told.append,
            ),
        ):
            assembly.commit()
    finally:
        transport.close()
    return sum(told)


def ranges_of(proxy: FlakyProxy) -> list[str]:
    return sorted(seen.headers.get("range", "all") for seen in proxy.site.seen if faults.is_blob(seen))


def test_a_large_blob_comes_in_ranges_each_asked_for_once(store: BlobStore, proxy: FlakyProxy) -> None:
    assert fetched(store, proxy) == len(DATA)
    expected = [f"bytes={at}-{min(at + PIECE, len(DATA)) - 1}" for at in range(0, len(DATA), PIECE)]
    assert (ranges_of(proxy), proxy.carried) == (sorted(expected), len(DATA))
    assert store.path(BLOB.digest).read_bytes() == DATA


def test_one_connection_asks_for_all_of_it(store: BlobStore, proxy: FlakyProxy) -> None:
    assert fetched(store, proxy, connections=1) == len(DATA)
    assert (ranges_of(proxy), proxy.carried) == (["all"], len(DATA))


def test_a_registry_that_ignores_ranges_is_asked_once(store: BlobStore, proxy: FlakyProxy) -> None:
    proxy.ignores_range = True
    assert fetched(store, proxy) == len(DATA)
    assert (len(ranges_of(proxy)), store.path(BLOB.digest).read_bytes()) == (1, DATA)


@pytest.mark.parametrize("cut", [0, 1, 50_000, 99_999])
def test_connections_that_break_are_taken_up_where_they_broke(store: BlobStore, proxy: FlakyProxy, cut: int) -> None:
    proxy.fault = faults.first(5, faults.cut_after(cut))
    assert fetched(store, proxy, attempts=6) == len(DATA)  # should one request meet all five
    assert (store.path(BLOB.digest).read_bytes(), proxy.carried) == (DATA, len(DATA))


def test_an_error_of_one_range_is_the_error_of_all_and_what_came_is_kept(store: BlobStore, proxy: FlakyProxy) -> None:
    def refuse(seen: faults.Seen, reply: faults.Reply) -> faults.Reply:
        late = seen.headers.get("range", "").startswith("bytes=500000-")
        return faults.Reply(status=403, headers={}) if late else reply

    proxy.fault = refuse
    with pytest.raises(Error) as caught:
        fetched(store, proxy)
    assert caught.value.code == "access-denied"
    proxy.fault, proxy.carried = faults.none, 0
    with store.assemble(BLOB) as assembly:
        missing = sum(end - start for start, end in assembly.missing())
    assert PIECE <= missing < len(DATA)
    assert fetched(store, proxy) == missing == proxy.carried
    assert store.path(BLOB.digest).read_bytes() == DATA


def test_pieces_cover_what_is_missing_and_nothing_else() -> None:
    assert list(pieces([(0, 5), (7, 20), (30, 31)], 6)) == [(0, 5), (7, 13), (13, 19), (19, 20), (30, 31)]
    assert list(pieces([], 6)) == []


def test_twenty_pulls_of_one_image_fetch_it_once(registry: RunningRegistry, proxy: FlakyProxy, tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=3, size=400_000, seed=20)
    registry.push(image, NAME, "twenty")
    root, name = tmp_path / "store", f"{proxy.address}/{NAME}:twenty"
    running = [
        subprocess.Popen(
            command("pull", "-q", name), env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        for _ in range(20)
    ]
    ended = [(process.wait(), process.stdout.read().decode().strip()) for process in running if process.stdout]
    for process in running:
        assert process.stdout is not None
        process.stdout.close()
    assert ended == [(0, name)] * 20
    layers = sum(layer.size for layer in image.manifest.layers)
    configs = proxy.carried - layers
    assert 0 <= configs <= 20 * image.manifest.config.size  # each reads it to see what it is about
    assert sorted(os.listdir(root / "tmp")) == []
    assert gc.unfinished(BlobStore(root)) == []
