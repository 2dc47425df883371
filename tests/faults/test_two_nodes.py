"""Two machines on one store, at random and killed at random; `python -m tests.faults two_nodes` does it for long.

ARGOSY_TEST_ROUNDS says how many rounds each place gets (default: one).
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.faults import two_nodes
from tests.support.restricted import require_fuse

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
