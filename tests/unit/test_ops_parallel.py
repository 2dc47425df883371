"""Several things at once: order, limit, and how the first error ends the rest."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Cancelled, NotFound
from argosy.ops.parallel import in_parallel

if TYPE_CHECKING:
    from argosy.ops.parallel import Check


@pytest.mark.parametrize("count", [0, 1, 2, 50])
def test_everything_is_done_once(count: int) -> None:
    done: list[int] = []
    in_parallel(lambda item, check: done.append(item), range(count))
    assert sorted(done) == list(range(count))


def test_no_more_than_the_limit_at_once() -> None:
    barrier = threading.Barrier(3)
    running, most = [0], [0]
    lock = threading.Lock()

    def work(item: int, check: Check) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        barrier.wait(10)  # only passes when three run at the same time
        with lock:
            running[0] -= 1

    in_parallel(work, range(6), limit=3)
    assert most == [3]


@pytest.mark.parametrize("count", [1, 2])
def test_a_fault_of_the_work_is_never_taken_for_the_end_of_it(count: int) -> None:
    def work(item: int, check: Check) -> None:
        raise IndexError("pop from an empty list of its own")

    with pytest.raises(IndexError):
        in_parallel(work, range(count))


def test_the_first_error_stops_the_others_and_is_raised() -> None:
    both, ended = threading.Barrier(2), []

    def work(item: str, check: Check) -> None:
        both.wait(10)
        if item == "bad":
            raise NotFound("no blob", code="blob-unknown")
        try:
            while True:
                check()
        except Cancelled:
            ended.append(item)
            raise

    with pytest.raises(NotFound) as caught:
        in_parallel(work, ["good", "bad", "never begun"], limit=2)
    assert (caught.value.code, ended) == ("blob-unknown", ["good"])
