"""What people see of a layer that comes, whichever thread is the last to speak."""

from __future__ import annotations

import pytest

from argosy.oci.descriptor import OCI_LAYER, Descriptor
from argosy.ops.bring import _Passage
from argosy.ops.progress import Advanced, Event, Finished, Started

LAYER = Descriptor.of(b"x" * 10, OCI_LAYER)
NAME = LAYER.digest.short


@pytest.mark.parametrize("counts", [(10,), (4, 6), (4,), (), (4, 6, 3)])
def test_all_bytes_are_told_once_though_the_last_thread_comes_late(counts: tuple[int, ...]) -> None:
    told: list[Event] = []
    passage = _Passage(LAYER, 0, told.append)
    for count in counts:
        passage.arrived(count)
    passage.ends()
    passage.arrived(6)  # a thread that says so only now
    assert [type(event) for event in told].count(Finished) == 1
    assert told[-2:] == [Finished(NAME, "Download complete"), Started(NAME, 10, "Extracting", 0)]
    assert sum(event.count for event in told if isinstance(event, Advanced)) == 10
