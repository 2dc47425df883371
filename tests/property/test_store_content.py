"""What must hold of the store for any content, any cutting and any order of events."""

from __future__ import annotations

import itertools
import os
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from argosy.oci.descriptor import OCI_LAYER, OCI_MANIFEST, Descriptor
from argosy.oci.digest import Digest
from argosy.oci.manifest import encode_index, encode_manifest
from argosy.oci.reference import Reference
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.listing import read_listing
from argosy.store.refs import RefStore, Summary
from support.images import Platform, config_json
from support.stores import sweep

if TYPE_CHECKING:
    import random

    from argosy.store.assembly import Assembly

NAMES = ("a:1", "a:2", "b/c:1", "localhost:5000/x:latest", "d@" + str(Digest.of(b"d")))


@settings(max_examples=60, deadline=None)
@given(data=st.binary(max_size=4000), cuts=st.lists(st.integers(0, 4000), max_size=8))
def test_a_blob_is_the_same_for_any_cutting(data: bytes, cuts: list[int]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, blob = BlobStore(Path(folder)), Descriptor.of(data, "application/x-test")
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        with store.ingest(blob) as part:
            for start, end in itertools.pairwise(edges):
                part.write(data[start:end])
            assert part.commit() == blob
        assert store.path(blob.digest).read_bytes() == data
        assert gc.unfinished(store) == []


@settings(max_examples=80, deadline=None)
@given(
    data=st.binary(min_size=1, max_size=4000),
    cuts=st.lists(st.integers(0, 4000), max_size=8),
    dice=st.randoms(use_true_random=False),
    stops=st.sets(st.integers(0, 8)),
    damage=st.none() | st.integers(0, 3999),
)
def test_an_assembly_ends_as_its_blob_in_any_order_with_any_interruption_and_damage(
    data: bytes, cuts: list[int], dice: random.Random, stops: set[int], damage: int | None
) -> None:
    with tempfile.TemporaryDirectory() as folder:
        store, blob = BlobStore(Path(folder)), Descriptor.of(data, "application/x-test")
        edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
        pieces = list(itertools.pairwise(edges))
        dice.shuffle(pieces)
        for number, piece in enumerate(pieces):
            with store.assemble(blob) as assembly:
                write(assembly, data, *piece)
                if number not in stops:
                    for other in pieces[number + 1 :]:
                        write(assembly, data, *other)
                    break
            if damage is not None and os.path.exists(store.part_path(blob.digest)):
                flip(store.part_path(blob.digest), damage)
        with store.assemble(blob) as assembly:
            for start, end in assembly.missing():
                write(assembly, data, start, end)
            assert assembly.missing() == []
            assembly.commit()
        assert store.path(blob.digest).read_bytes() == data
        assert (
            gc.unfinished(store)
            == [name for name in os.listdir(Path(folder, "ingest")) if not name.endswith((".lock", ".maker"))]
            == []
        )


def write(assembly: Assembly, data: bytes, start: int, end: int) -> None:
    writer = assembly.writer(start)
    writer.write(data[start:end])
    writer.close()


def flip(path: str, place: int) -> None:
    """What a power cut may leave: another byte."""
    with open(path, "r+b") as file:
        old = file.seek(place) is not None and file.read(1)
        if old:
            file.seek(place)
            file.write(bytes([old[0] ^ 1]))


class Naming(RuleBasedStateMachine):
    """RefStore and its derived listing against a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        self.folder = tempfile.TemporaryDirectory()
        self.root = Path(self.folder.name)
        self.refs = RefStore(self.root)
        self.named: dict[str, int] = {}

    def teardown(self) -> None:
        self.folder.cleanup()

    @rule(name=st.sampled_from(NAMES), number=st.integers(0, 2))
    def set(self, name: str, number: int) -> None:
        manifest = Descriptor.of(b"manifest %d" % number, OCI_MANIFEST)
        summary = Summary(manifest=manifest, image_id=Digest.of(b"config %d" % number), created="", size=number)
        self.refs.set(Reference.parse(name), manifest, summary=summary)
        self.named[name] = number

    @rule(name=st.sampled_from(NAMES))
    def delete(self, name: str) -> None:
        assert self.refs.delete(Reference.parse(name)) == (self.named.pop(name, None) is not None)

    @rule()
    def lose_the_cache(self) -> None:
        (self.root / "cache/refs.tsv").unlink(missing_ok=True)

    @invariant()
    def all_agree(self) -> None:
        records = {r.reference.familiar(): r.size for r in self.refs.list() if not r.is_untagged}
        rows = {row.familiar: row.size for row in read_listing(self.root) if not row.is_untagged}
        assert records == rows == self.named

    @invariant()
    def no_image_is_both_named_and_untagged(self) -> None:
        untagged = {r.image_id for r in self.refs.list() if r.is_untagged}
        assert not untagged & {r.image_id for r in self.refs.list() if not r.is_untagged}


TestNaming = Naming.TestCase
TestNaming.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)


@settings(max_examples=40, deadline=None)
@given(
    images=st.lists(st.sets(st.integers(0, 5), min_size=1), min_size=1, max_size=4),
    named=st.sets(st.integers(0, 3)),
    indexed=st.booleans(),
)
def test_nothing_reachable_is_ever_collected(images: list[set[int]], named: set[int], indexed: bool) -> None:
    """«Nothing reachable is ever collected», and everything else is: images are sets of shared layers."""
    with tempfile.TemporaryDirectory() as folder:
        blobs = BlobStore(Path(folder))
        contents, roots = [], []
        for layers in images:
            tars = tuple(b"layer %d" % number for number in sorted(layers))
            config = blobs.put(config_json(tars, Platform(os="linux", architecture="amd64")), "application/x-config")
            children = tuple(blobs.put(tar, OCI_LAYER) for tar in tars)
            manifest = encode_manifest(config, children)
            top = blobs.put(manifest.raw, OCI_MANIFEST)
            content = {top.digest, *(child.digest for child in manifest.children())}
            if indexed:
                index = encode_index((top,))
                top = blobs.put(index.raw, index.descriptor.media_type)
                content.add(top.digest)
            contents.append(content)
            roots.append(top)
        for digest in blobs.walk():
            os.utime(blobs.path(digest), (1000, 1000))
        kept = [number for number in sorted(named) if number < len(images)]
        sweep(blobs, lambda: gc.reachable([roots[number] for number in kept], blobs))
        assert set(blobs.walk()) == set().union(*(contents[number] for number in kept))
