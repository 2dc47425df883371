"""A push under each fault: what arrived is not sent again, the tag is set last, the second push succeeds."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, Error, NotFound, Unavailable
from argosy.oci.digest import Digest
from argosy.oci.reference import Reference
from argosy.ops.progress import Advanced, Finished, Started
from argosy.ops.push import push
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from argosy.remote.unfinished import Unfinished
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore
from support.docker_registry import docker_registry
from support.flaky import flaky, none, nth
from support.images import random_image
from support.registry import running_registry
from support.relay import relaying
from support.stores import command, environment, load_image
from support.tokens import guarded
from support.web import Reply, Seen, forward

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from argosy.ops.progress import Event
    from argosy.ops.push import Pushed
    from support.images import RandomImage
    from support.registry import RunningRegistry
    from support.relay import Relay

SIZE = 12_000_000  # bytes of the one layer; random, so the blob is a little larger
HEADS = 20_000  # bytes that all heads of a push's requests have together, with room


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> RandomImage:
    return random_image(tmp_path_factory.mktemp("pushed") / "image", layers=1, size=SIZE, compression="none", seed=7)


@pytest.fixture(scope="module")
def ours(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("ours") / "registry", expected_stderr=None) as running:
        yield running


@pytest.fixture(scope="module")
def theirs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with docker_registry(tmp_path_factory.mktemp("theirs") / "registry") as address:
        yield address


@pytest.fixture
def relay(ours: RunningRegistry) -> Iterator[Relay]:
    with relaying(ours.address) as running:
        yield running


class Here:
    """A store with one image, and a client that does not wait long."""

    def __init__(self, root: Path, image: RandomImage) -> None:
        self.root, self.image = root, image
        root.mkdir()
        self.blobs, self.refs = BlobStore(root), RefStore(root)
        self.unfinished = Unfinished(str(root / "cache/uploads"))
        self.attempts, self.connect_timeout_s = 3, 10.0
        self.events: list[Event] = []
        self.total = sum(child.size for child in image.manifest.children())

    def push(self, name: str) -> Pushed:
        """A name is made for it, alone, so that nothing is mounted."""
        reference = Reference.parse(name)
        for record in self.refs.list():
            self.refs.delete(record.reference)
        load_image(self.root, self.image, name)
        transport = Transport(
            {},
            plain_http=True,
            sleep=lambda s: time.sleep(min(s, 0.05)),
            retries=RetryPolicy(attempts=self.attempts),
            connect_timeout_s=self.connect_timeout_s,
            read_timeout_s=10,
        )
        try:
            return push(
                reference,
                repository=Repository(transport, reference.registry, reference.repository),
                blobs=self.blobs,
                refs=self.refs,
                unfinished=self.unfinished,
                progress=self.events.append,
            )
        finally:
            transport.close()

    def fails(self, name: str) -> Error:
        with pytest.raises(Error) as caught:
            self.push(name)
        return caught.value

    @property
    def records(self) -> list[Path]:
        """Of uploads that were begun and not finished."""
        folder = self.root / "cache/uploads"
        return sorted(folder.iterdir()) if folder.exists() else []


@pytest.fixture
def here(tmp_path: Path, image: RandomImage) -> Here:
    return Here(tmp_path / "here", image)


def has_whole(address: str, name: str, image: RandomImage) -> bool:
    """Whether the registry at *address* has all of *image* under NAME:1, byte by byte."""
    found = forward(address, get(f"/v2/{name}/manifests/1", accept=image.descriptor.media_type))
    blobs = (forward(address, get(f"/v2/{name}/blobs/{child.digest}")).body for child, _ in image.blobs())
    return found.body == image.manifest.raw and all(
        Digest.of(body) == child.digest for body, (child, _) in zip(blobs, image.blobs(), strict=True)
    )


def has_tag(address: str, name: str) -> bool:
    return forward(address, get(f"/v2/{name}/manifests/1")).status == 200


def get(target: str, **headers: str) -> Seen:
    return Seen(method="GET", target=target, headers=headers, body=b"")


@pytest.mark.parametrize("cut", [0, 1, 100, 400, 5_000, 1_000_000, SIZE // 2, SIZE - 1, SIZE + 1000])
def test_a_connection_cut_anywhere_costs_less_than_a_hundredth(
    here: Here, ours: RunningRegistry, relay: Relay, cut: int
) -> None:
    relay.cuts = [cut, cut]
    here.push(f"{relay.address}/cut/at{cut}:1")
    assert has_whole(ours.address, f"cut/at{cut}", here.image)
    assert relay.carried <= here.total * 1.01 + HEADS
    assert here.records == []


@pytest.mark.parametrize("cut", [400, 1_000_000, SIZE - 1])
def test_the_reference_registry_gets_it_whole_too(here: Here, theirs: str, cut: int) -> None:
    with relaying(theirs) as relay:
        relay.cuts = [cut, cut]
        here.push(f"{relay.address}/cut/at{cut}:1")
    assert has_whole(theirs, f"cut/at{cut}", here.image)


def test_a_layer_larger_than_any_connection_lives_arrives(here: Here, ours: RunningRegistry, relay: Relay) -> None:
    relay.cuts = [1_500_000] * 20
    here.push(f"{relay.address}/cut/often:1")
    assert has_whole(ours.address, "cut/often", here.image)
    assert relay.carried <= here.total * 1.01 + 2 * HEADS


def test_bars_go_on_where_the_registry_stands(here: Here, relay: Relay) -> None:
    relay.cuts = [SIZE // 2, SIZE // 2]
    here.push(f"{relay.address}/cut/bars:1")
    name = here.image.manifest.layers[0].digest.short
    events = [event for event in here.events if event.id == name]  # type: ignore[union-attr]
    last = max(place for place, event in enumerate(events) if isinstance(event, Started))
    assert isinstance(events[last + 1], Advanced)
    assert events[last + 1].count > SIZE // 4
    assert sum(event.count for event in events[last:] if isinstance(event, Advanced)) > SIZE
    assert events[-1] == Finished(name, "Pushed")


@pytest.mark.parametrize("status", [429, 502])
@pytest.mark.parametrize("is_acted_upon", [False, True])
def test_each_request_in_turn_fails_for_a_while(
    here: Here, ours: RunningRegistry, status: int, is_acted_upon: bool
) -> None:
    """Whether the registry never saw it, or only its answer was lost."""
    reply = Reply(status=status, headers={"Retry-After": "0"})
    with flaky(ours.address) as proxy:
        for number in range(20):
            name = f"each/of{status}-{is_acted_upon:d}-{number}"
            refuse = nth(number, reply, times=2)
            proxy.refusal = refuse if not is_acted_upon else lambda seen: None
            proxy.fault = (lambda seen, honest, refuse=refuse: refuse(seen) or honest) if is_acted_upon else none
            before = len(proxy.site.seen)
            here.push(f"{proxy.address}/{name}:1")
            assert has_whole(ours.address, name, here.image)
            if len(proxy.site.seen) - before < number:
                break
        else:
            pytest.fail("a push has fewer requests than that")
    assert here.records == []


def test_a_registry_that_stops_reading_for_a_while_is_borne(here: Here, relay: Relay) -> None:
    """Longer than it may take to connect, shorter than we wait for an answer."""
    here.connect_timeout_s, relay.stall_at = 0.3, SIZE // 2
    pushing = Pushing(here, f"{relay.address}/slow/app:1")
    relay.wait_for(SIZE // 2)
    time.sleep(1)
    relay.stall_at = None
    pushing.join()
    layer = here.image.manifest.layers[0].digest.short
    assert [event for event in here.events if isinstance(event, Started) and event.id == layer] == [
        Started(layer, here.image.manifest.layers[0].size, "Pushing")
    ]


def test_a_registry_that_lost_a_manifest_gets_it_again(here: Here, ours: RunningRegistry) -> None:
    """Its HEAD is answered with 500; that is no reason to keep it so."""
    here.push(f"{ours.address}/lost/manifest:1")
    digest = here.image.descriptor.digest
    (ours.root / "blobs" / digest.algorithm / digest.hex).unlink()
    assert not has_tag(ours.address, "lost/manifest")
    here.push(f"{ours.address}/lost/manifest:1")
    assert has_whole(ours.address, "lost/manifest", here.image)


def test_a_registry_that_asks_for_patience_gets_it_or_is_left(here: Here, ours: RunningRegistry) -> None:
    with flaky(ours.address) as proxy:
        proxy.refusal = lambda seen: Reply(status=429, headers={"Retry-After": "3600"}) if is_upload(seen) else None
        error = here.fails(f"{proxy.address}/later/app:1")
        assert isinstance(error, Unavailable)
        assert (error.code, error.retry_after, error.hint) == ("rate-limited", 3600.0, "try again in 60 minutes")
        assert not has_tag(ours.address, "later/app")
        proxy.refusal = lambda seen: None
        here.push(f"{proxy.address}/later/app:1")
    assert has_whole(ours.address, "later/app", here.image)


def is_upload(seen: Seen) -> bool:
    return seen.method in ("PATCH", "PUT") and "/blobs/uploads/" in seen.path


@pytest.mark.parametrize("uses", [1, 2, 3])
def test_tokens_that_wear_out_between_any_two_requests(here: Here, ours: RunningRegistry, uses: int) -> None:
    with guarded(ours.address) as door:
        door.uses = uses
        here.push(f"{door.address}/worn/out{uses}:1")
        assert len(door.token_requests) > 2
    assert has_whole(ours.address, f"worn/out{uses}", here.image)


def test_a_registry_that_dies_and_comes_back(here: Here, tmp_path: Path) -> None:
    """Killed in the middle of a layer; what it had on its disk is not sent again."""
    here.attempts = 8
    with Server(tmp_path / "registry") as server, relaying(server.address) as relay:
        relay.stall_at = SIZE // 2
        pushing = Pushing(here, f"{relay.address}/dies/app:1")
        relay.wait_for(SIZE // 2)
        wait_until(lambda: server.received > SIZE // 4)
        server.kill()
        relay.stall_at = None
        server.start()
        pushing.join()
        assert has_whole(server.address, "dies/app", here.image)
        assert relay.carried < here.total * 1.5
    assert here.records == []


def test_the_reference_registry_may_be_started_again(here: Here, tmp_path: Path) -> None:
    """Its addresses of uploads are then worth nothing, as it signs them with a new secret."""
    here.attempts = 8
    with ExitStack() as running:
        address = running.enter_context(docker_registry(tmp_path / "registry"))
        with relaying(address) as relay:
            relay.stall_at = SIZE // 2
            pushing = Pushing(here, f"{relay.address}/again/app:1")
            relay.wait_for(SIZE // 2)
            running.close()
            relay.stall_at = None
            with docker_registry(tmp_path / "registry", address=address):
                pushing.join()
                assert has_whole(address, "again/app", here.image)
    assert here.records == []


@pytest.mark.parametrize("point", [1, 1500, 1_000_000, SIZE // 2, SIZE - 100_000])
def test_a_push_that_is_killed_is_taken_up(
    here: Here, ours: RunningRegistry, relay: Relay, tmp_path: Path, point: int
) -> None:
    name = f"{relay.address}/killed/at{point}:1"
    load_image(here.root, here.image, name)
    relay.stall_at = point
    with subprocess.Popen(command("push", "-q", name), env=environment(here.root), stdout=subprocess.DEVNULL) as killed:
        relay.wait_for(point)
        killed.send_signal(signal.SIGKILL)
    relay.stall_at = None
    assert not has_tag(ours.address, f"killed/at{point}")
    done = subprocess.run(command("push", "-q", name), env=environment(here.root), capture_output=True, check=False)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{name}\n", b"")
    assert has_whole(ours.address, f"killed/at{point}", here.image)
    assert relay.carried <= here.total * 1.01 + HEADS
    assert here.records == []


def test_two_pushes_at_once_send_the_image_once(here: Here, ours: RunningRegistry, relay: Relay) -> None:
    name = f"{relay.address}/twice/app:1"
    load_image(here.root, here.image, name)
    both = [subprocess.Popen(command("push", "-q", name), env=environment(here.root)) for _ in range(2)]
    assert [process.wait(60) for process in both] == [0, 0]
    assert has_whole(ours.address, "twice/app", here.image)
    assert relay.carried <= here.total * 1.01 + HEADS
    assert here.records == []


def test_two_hosts_push_the_same_image_at_once(
    here: Here, ours: RunningRegistry, image: RandomImage, tmp_path: Path
) -> None:
    hosts = [here, Here(tmp_path / "there", image)]
    for pushing in [Pushing(each, f"{ours.address}/hosts/app:1") for each in hosts]:
        pushing.join()
    assert has_whole(ours.address, "hosts/app", here.image)


def test_a_name_that_is_moved_meanwhile_changes_nothing(
    here: Here, ours: RunningRegistry, relay: Relay, tmp_path: Path
) -> None:
    relay.stall_at = SIZE // 2
    pushing = Pushing(here, f"{relay.address}/moved/app:1")
    relay.wait_for(SIZE // 2)
    load_image(here.root, random_image(tmp_path / "other", seed=8), f"{relay.address}/moved/app:1")
    relay.stall_at = None
    pushing.join()
    assert has_whole(ours.address, "moved/app", here.image)


def test_a_blob_that_goes_meanwhile_is_named_and_the_tag_is_not_set(
    here: Here, ours: RunningRegistry, tmp_path: Path
) -> None:
    """Somebody removes the image: what is open is sent to its end, what is not is missed."""
    here.image = random_image(tmp_path / "many", layers=6, size=10_000, seed=9)
    with flaky(ours.address) as proxy:
        proxy.refusal = lambda seen: removed(here) if seen.method == "POST" else None
        error = here.fails(f"{proxy.address}/gone/app:1")
    assert (type(error), error.code) == (NotFound, "blob-unknown")
    assert any(child.digest in error.message for child in here.image.manifest.children())
    assert not has_tag(ours.address, "gone/app")
    here.push(f"{ours.address}/gone/app:1")
    assert has_whole(ours.address, "gone/app", here.image)


def removed(here: Here) -> None:
    for child in here.image.manifest.children():
        here.blobs.delete(child.digest)


@pytest.mark.parametrize("place", [0, 1])
def test_each_blob_in_turn_is_damaged_here(here: Here, ours: RunningRegistry, relay: Relay, place: int) -> None:
    name, victim = f"damaged/blob{place}", here.image.manifest.children()[place]
    load_image(here.root, here.image, f"{relay.address}/{name}:1")
    path = here.blobs.path(victim.digest)
    path.chmod(0o644)
    path.write_bytes(bytes([path.read_bytes()[0] ^ 1]) + path.read_bytes()[1:])
    error = here.fails(f"{relay.address}/{name}:1")
    assert (type(error), error.code, victim.digest in error.message) == (Corrupt, "digest-mismatch", True)
    assert relay.carried < here.total
    assert not has_tag(ours.address, name)
    assert forward(ours.address, get(f"/v2/{name}/blobs/{victim.digest}")).status == 404
    here.blobs.delete(victim.digest)
    here.push(f"{relay.address}/{name}:1")
    assert has_whole(ours.address, name, here.image)


class Pushing:
    """A push in a thread of its own."""

    def __init__(self, here: Here, name: str) -> None:
        self._failures: list[BaseException] = []
        self._thread = threading.Thread(target=self._push, args=(here, name))
        self._thread.start()

    def _push(self, here: Here, name: str) -> None:
        try:
            here.push(name)
        except BaseException as error:
            self._failures.append(error)

    def join(self) -> None:
        self._thread.join()
        if self._failures:
            raise self._failures[0]


class Server:
    """Our registry, which may be killed and started again at the same address."""

    def __init__(self, root: Path) -> None:
        self._root = root
        self.address = "127.0.0.1:0"
        self._process: subprocess.Popen[str] | None = None

    @property
    def received(self) -> int:
        """Bytes of unfinished uploads."""
        return sum(path.stat().st_size for path in (self._root / "uploads").glob("*"))

    def start(self) -> None:
        words = command("registry", "serve", "--root", str(self._root), "--listen", self.address)
        self._process = subprocess.Popen(words, env=environment(self._root), stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().strip()

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.communicate()

    def __enter__(self) -> Server:
        self.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.kill()


def wait_until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
