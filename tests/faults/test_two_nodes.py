"""Two machines on one store, at random and killed at random; `python -m tests.faults two_nodes` does it for long.

ARGOSY_TEST_ROUNDS says how many rounds each place gets (default: one).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.oci.reference import Reference
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore
from tests.faults import two_nodes
from tests.support.images import random_image
from tests.support.restricted import Limits, require_fuse, restricted
from tests.support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = int(os.environ.get("ARGOSY_TEST_ROUNDS", "1"))


@pytest.mark.parametrize("place", two_nodes.PLACES)
def test_machines_that_share_a_store_keep_it_whole(tmp_path: Path, place: two_nodes.Place) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root for mount namespaces")
    if two_nodes.PLACES[place] is not None:
        require_fuse()
    two_nodes.run(two_nodes.Plan(place=place, rounds=ROUNDS, seed=7), tmp_path)


def test_a_sweep_sees_what_was_absent_a_moment_ago_though_its_machine_remembers_that(tmp_path: Path) -> None:
    """Each machine believes for two seconds that a file is not there; NFS may for a minute."""
    limits, image = Limits(cache_s=2), random_image(tmp_path / "image")
    with (
        restricted(tmp_path / "disk", tmp_path / "here", limits) as here,
        restricted(tmp_path / "disk", tmp_path / "there", limits) as there,
    ):
        load_image(here, random_image(tmp_path / "other", seed=1), "other:1")
        blobs, refs = BlobStore(there), RefStore(there)
        assert refs.find_exact(Reference.parse("new:1")) is None
        assert [blobs.stat(each.digest) for each in (image.descriptor, image.manifest.config)] == [None, None]
        load_image(here, image, "new:1")
        assert refs.find_exact(Reference.parse("new:1")) is None, "the file system has asked again: no test"
        swept = gc.set_aside(
            blobs,
            tuple(blobs.walk()),
            lambda: gc.reachable(gc.roots(refs.list(), ()), blobs),
            before_ns=2**63,
        )
        assert swept == gc.Swept()
        assert len(set(blobs.walk())) == 8
