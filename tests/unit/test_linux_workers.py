"""Worker processes: what they do, tell, and how they end."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING, Any

import pytest

from argosy.errors import Corrupt, RuntimeFailed, Unavailable
from argosy.linux.workers import run_workers

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def test_every_item_is_done_once_and_told() -> None:
    told: list[Any] = []
    run_workers(lambda item, tell: tell((item, os.getpid())), range(20), 3, told.append)
    assert sorted(item for item, _ in told) == list(range(20))
    assert os.getpid() not in {pid for _, pid in told}
    assert len({pid for _, pid in told}) <= 3


def test_the_first_items_are_begun_first() -> None:
    told: list[int] = []
    run_workers(lambda item, tell: tell(item), range(6), 1, told.append)
    assert told == list(range(6))


def test_nothing_to_do_is_done() -> None:
    run_workers(lambda item, tell: None, [], 2, lambda value: None)


def test_large_messages_arrive_whole() -> None:
    told: list[bytes] = []
    run_workers(lambda item, tell: tell(bytes([item]) * 300_000), range(4), 2, told.append)
    assert sorted(told) == [bytes([item]) * 300_000 for item in range(4)]


@pytest.mark.parametrize(
    "error",
    [
        Corrupt("blob x is damaged", code="digest-mismatch", context="facts", hint="try again"),
        Unavailable("busy", code="rate-limited", retry_after=3.5),
        RuntimeFailed("no", code="program-failed", status=3, exit_status=126),
        ValueError("a fault of ours"),
    ],
)
def test_an_error_comes_over_whole_and_ends_the_others(error: Exception) -> None:
    def work(item: int, tell: Callable[[Any], None]) -> None:
        if item == 1:
            raise error
        time.sleep(60)

    with pytest.raises(type(error)) as caught:
        run_workers(work, range(3), 3, lambda value: None)
    assert (str(caught.value), vars(caught.value)) == (str(error), vars(error))


def test_a_killed_worker_is_an_error() -> None:
    with pytest.raises(RuntimeFailed) as caught:
        run_workers(lambda item, tell: os.kill(os.getpid(), signal.SIGKILL), [1], 1, lambda value: None)
    assert (caught.value.code, caught.value.context) == ("worker-died", "killed by SIGKILL (137)")


def test_workers_end_with_a_parent_that_is_killed(tmp_path: Path) -> None:
    pids = tmp_path / "pids"

    def work(item: int, tell: Callable[[Any], None]) -> None:
        with open(pids, "a") as file:
            file.write(f"{os.getpid()}\n")
        time.sleep(60)

    parent = os.fork()
    if not parent:
        run_workers(work, range(2), 2, lambda value: None)
        os._exit(0)
    while not (pids.exists() and len(found := pids.read_text().split()) == 2):
        time.sleep(0.01)
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    deadline = time.monotonic() + 10
    while any(os.path.exists(f"/proc/{pid}") for pid in found) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not any(os.path.exists(f"/proc/{pid}") for pid in found)


def test_an_interrupt_ends_the_workers() -> None:
    def told(value: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_workers(lambda item, tell: (tell(item), time.sleep(60)), range(2), 2, told)
