"""A plan frees what it says, takes nothing that is needed, and leaves nothing that it named: for any store."""

from __future__ import annotations

import io
import os
import random
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.linux import room
from argosy.oci.descriptor import OCI_CONFIG, OCI_LAYER, OCI_LAYER_GZIP, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_manifest
from argosy.oci.reference import Reference
from argosy.ops import df, prune, prune_plan, space
from argosy.ops.compressed import find_spares
from argosy.ops.selection import Selection
from argosy.snapshots.erofs import ErofsSnapshotter
from argosy.store import gc, uses
from argosy.store.blobs import BlobStore
from argosy.store.records import Container, ContainerStore
from argosy.store.refs import RefStore, Summary, untagged
from support.images import Platform, compress, config_json, layer_tar

if TYPE_CHECKING:
    from argosy.remote.repository import Repository
    from argosy.runtime.oci_runtime import OciRuntime

#: compressed and uncompressed ones: the blob of the latter has the name of its layer
TARS = tuple(layer_tar(random.Random(number), 3_000 * (number + 1), name=f"layer{number}") for number in range(6))
KINDS = ("gzip", "none", "gzip", "zstd", "gzip", "none")


class Made(msgspec.Struct, frozen=True):
    """An image to make."""

    layers: frozenset[int]
    #: names; none is an image that lost its last
    names: int
    #: containers, stopped ones
    containers: int
    #: whether its layers are unpacked
    unpacked: bool


class Store:
    """A store of made images, and rubbish."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs, self.refs, self.containers = BlobStore(root), RefStore(root), ContainerStore(root)
        self.snapshotter = ErofsSnapshotter(root)
        (root / "dropped/sha256").mkdir(parents=True)  # two blocks that the first drop ever takes, and no plan counts

    def add(self, number: int, image: Made) -> None:
        numbers = sorted(image.layers)
        tars = tuple(TARS[each] for each in numbers)
        layers = tuple(
            self.blobs.put(compress(TARS[each], KINDS[each]), OCI_LAYER if KINDS[each] == "none" else OCI_LAYER_GZIP)
            for each in numbers
        )
        raw = config_json(tars, Platform(os="linux", architecture="amd64"), Labels={"number": str(number)})
        config = self.blobs.put(raw, OCI_CONFIG)
        manifest = encode_manifest(config, layers)
        top = self.blobs.put(manifest.raw, OCI_MANIFEST)
        if image.unpacked:
            for tar in tars:
                self.snapshotter.apply(Digest.of(tar), io.BytesIO(tar))
        summary = Summary(manifest=top, image_id=config.digest, created="2026-01-02T03:04:05Z", size=1)
        names = [Reference.parse(f"image{number}:{each}") for each in range(image.names)]
        for name in names or [untagged(top.digest)]:
            needs = (*manifest.children(), top)
            gc.publish(name, top, summary=summary, needs=needs, blobs=self.blobs, refs=self.refs)
        for each in range(image.containers):
            self._contain(f"{number:x}{each:x}", top, config.digest, tars)

    def _contain(self, start: str, manifest: Descriptor, image_id: Digest, tars: tuple[bytes, ...]) -> None:
        container = Container(
            id=start.ljust(64, "0"),
            name=f"container-{start}",
            image="",
            manifest=manifest,
            image_id=image_id,
            created="2026-01-02T03:04:05Z",
            command=("true",),
            status="exited",
            diff_ids=tuple(map(Digest.of, tars)),
        )
        upper = Path(self.containers.create(container)) / "upper"
        upper.mkdir()
        (upper / "written").write_bytes(b"x" * 9_000)

    def litter(self, seed: int) -> None:
        """A blob and a layer that nothing needs, a part of a download, and a folder of a dead process."""
        data = random.Random(seed).randbytes(5_000)
        self.blobs.put(data, OCI_LAYER)
        tar = layer_tar(random.Random(seed), 2_000)
        self.snapshotter.apply(Digest.of(tar), io.BytesIO(tar))
        with self.blobs.assemble(Descriptor.of(data + b"more", OCI_LAYER)) as assembly:
            writer = assembly.writer(0)
            writer.write(data)
            writer.close()
        (self.root / f"tmp/layer-dead-{seed}").mkdir(parents=True)
        (self.root / f"tmp/layer-dead-{seed}/layer.tar").write_bytes(data)

    def rest(self) -> None:
        """All makers have ended, a while ago."""
        self.blobs.rest()
        for place in ("blobs", "ingest", "layers"):
            for path in (self.root / place).rglob("*"):
                if path.stat().st_mtime_ns > gc.SETTLED_NS:
                    os.utime(path, ns=(10**18, 10**18))

    def look(self) -> space.Inventory:
        return space.look(refs=self.refs, containers=self.containers, blobs=self.blobs, snapshotter=self.snapshotter)

    def supply(self, inventory: space.Inventory, scope: prune.Scope, *, compressed: bool) -> prune_plan.Supply:
        spares = ()
        if compressed:
            spares = find_spares(
                inventory, inventory.images, blobs=self.blobs, snapshotter=self.snapshotter, connect=no_registry
            ).spares
        return prune.supply(
            inventory,
            scope,
            Selection(),
            refs=self.refs,
            containers=self.containers,
            blobs=self.blobs,
            spares=spares,
        )

    def execute(self, planned: prune_plan.Plan) -> prune.Freed:
        return prune.execute(
            planned,
            refs=self.refs,
            containers=self.containers,
            blobs=self.blobs,
            snapshotter=self.snapshotter,
            runtime=no_runtime,
        )

    def needed(self) -> gc.Reached:
        return space.needed(self.refs, self.containers, self.blobs)

    def here(self) -> gc.Reached:
        held = frozenset((*self.blobs.walk(), *self.blobs.dropped.walk()))
        return gc.Reached(blobs=held, diff_ids=frozenset(self.snapshotter.walk()))


def no_runtime() -> OciRuntime:
    raise AssertionError("stopped containers need no runtime")


def no_registry(reference: Reference) -> Repository:
    from argosy.errors import Unavailable

    raise Unavailable(f"{reference.registry} is not reached in a test", code="no-network")


IMAGES = st.lists(
    st.builds(
        Made,
        layers=st.frozensets(st.integers(0, 5), min_size=1),
        names=st.integers(0, 2),
        containers=st.integers(0, 2),
        unpacked=st.booleans(),
    ),
    max_size=5,
)
SCOPES = st.builds(
    prune.Scope, containers=st.booleans(), all_images=st.booleans(), leftovers=st.booleans(), build_cache=st.just(True)
)


@settings(max_examples=150, deadline=None)
@given(images=IMAGES, scope=SCOPES, litter=st.integers(0, 2), compressed=st.booleans())
def test_a_prune_frees_what_its_plan_says_and_nothing_that_is_needed(
    images: list[Made], scope: prune.Scope, litter: int, compressed: bool
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for number, image in enumerate(images):
            store.add(number, image)
        for seed in range(litter):
            store.litter(seed)
        store.rest()
        inventory = store.look()
        assert df.store_size(inventory, store.blobs) == room.of_tree(folder)
        planned = prune_plan.everything(store.supply(inventory, scope, compressed=compressed), inventory)

        before, layers = room.of_tree(folder), store.here().diff_ids
        freed = store.execute(planned)
        assert (freed.size, before - room.of_tree(folder)) == (planned.size, planned.size)

        needed, here = store.needed(), store.here()
        assert needed.blobs <= here.blobs
        assert needed.diff_ids & layers <= here.diff_ids
        assert here.blobs <= needed.blobs
        assert here.diff_ids <= needed.diff_ids
        stayed = 0 if scope.containers else sum(image.containers for image in images)
        assert len(store.containers.list()) == stayed
        named = {record.reference.familiar() for record in store.refs.list() if not record.is_untagged}
        assert named == kept_names(images, scope)
        if scope.leftovers:
            assert (gc.unfinished(store.blobs), list((Path(folder) / "tmp").glob("*"))) == ([], [])


def kept_names(images: list[Made], scope: prune.Scope) -> set[str]:
    """Which names must be left: without --all every one, with it those of images under containers that stay."""
    return {
        f"image{number}:{each}"
        for number, image in enumerate(images)
        for each in range(image.names)
        if not scope.all_images or (image.containers and not scope.containers)
    }


@settings(max_examples=40, deadline=None)
@given(images=IMAGES, share=st.floats(0, 1.2), compressed=st.booleans(), order=st.randoms(use_true_random=False))
def test_a_target_is_reached_with_what_is_worth_least_or_everything_went(
    images: list[Made], share: float, compressed: bool, order: random.Random
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store = Store(Path(folder))
        for number, image in enumerate(images):
            store.add(number, image)
        store.litter(1)
        store.rest()
        for record in store.refs.list():
            uses.note(store.root, record.image_id)
            moment = 2 * 10**9 + order.randrange(10**6)  # later than any name was set
            os.utime(Path(folder) / "cache/used/sha256" / record.image_id.hex, (moment, moment))
        inventory = store.look()
        used = df.store_size(inventory, store.blobs)
        target = int(used * share)
        supply = store.supply(inventory, prune.Scope(all_images=True, leftovers=True), compressed=compressed)
        planned = prune_plan.down_to(target, supply, inventory, used=used)

        everything = prune_plan.everything(supply, inventory)
        left = used - planned.size
        assert left <= target or planned.size == everything.size
        if planned.lines and used > target:
            assert left + planned.lines[-1].size > target or len(planned.lines) < 2  # no step too many
        gone = [image.last_used for image in planned.images if not image.is_dangling]
        stay = {image.image_id for image in supply.images} - {image.image_id for image in planned.images}
        kept = [image.last_used for image in supply.images if image.image_id in stay and not image.is_dangling]
        assert max(gone, default=0) <= min(kept, default=float("inf"))

        store.execute(planned)
        assert df.store_size(store.look(), store.blobs) == left
        assert store.needed().blobs <= store.here().blobs
