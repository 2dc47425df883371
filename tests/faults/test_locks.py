"""Processes that are killed at any moment while they take turns: never are there two at once, never is there none."""

from __future__ import annotations

import os
import random
import signal
import time
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from argosy.linux import leases, locks
from support.restricted import Limits, restricted

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from argosy.linux.leases import Lease

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(
    params=["disk", pytest.param("links", marks=needs_root), pytest.param("local locks", marks=needs_root)],
)
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Path]:
    if request.param == "disk":
        yield tmp_path
        return
    limits = Limits() if request.param == "links" else Limits(locks="local")
    with restricted(tmp_path / "disk", tmp_path / "place", limits) as place:
        yield place


def work_alone(folder: Path, seed: int, enter: Callable[[], Callable[[], None]]) -> None:
    """Again and again: enter, claim to be the only one, look whether that holds, leave."""
    dice, inside, own = random.Random(seed), folder / "inside", f"{os.getpid()}"
    while True:
        leave = enter()
        inside.write_text(own)
        if dice.random() < 0.5:
            time.sleep(dice.uniform(0, 0.002))
        if inside.read_text() != own:
            (folder / "violated").touch()
        with (folder / "turns").open("ab") as turns:
            turns.write(b".")
        leave()


@pytest.fixture(autouse=True)
def little_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DRAIN_S", 0.1)


def killed_in_turn(folder: Path, turns: int, enter: Callable[[], Callable[[], None]]) -> None:
    dice = random.Random(5)

    def start(seed: int) -> int:
        pid = os.fork()
        if pid == 0:
            with suppress(BaseException):
                work_alone(folder, seed, enter)
            (folder / "failed").touch()
            os._exit(1)
        return pid

    pids = [start(seed) for seed in range(6)]
    for turn in range(turns):
        time.sleep(dice.uniform(0, 0.02))
        place = dice.randrange(len(pids))
        os.kill(pids[place], signal.SIGKILL)
        os.waitpid(pids[place], 0)
        pids[place] = start(100 + turn)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    enter()()
    assert not (folder / "violated").exists()
    assert not (folder / "failed").exists()
    assert (folder / "turns").stat().st_size > 0


def test_of_many_who_take_a_lease_one_at_a_time_works(folder: Path) -> None:
    def enter() -> Callable[[], None]:
        lease: Lease = leases.take(folder / "x", timeout_s=20)
        return lease.release

    killed_in_turn(folder, 60, enter)


def test_of_many_who_hold_a_work_file_one_at_a_time_works(folder: Path) -> None:
    def enter() -> Callable[[], None]:
        held = locks.hold(str(folder / "part"), os.O_RDWR | os.O_CREAT, timeout_s=20)
        return held.release

    killed_in_turn(folder, 60, enter)


@needs_root
def test_without_hard_links_a_death_in_the_making_costs_time_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.5)
    with restricted(tmp_path / "disk", tmp_path / "place", Limits(hard_links=False)) as folder:

        def enter() -> Callable[[], None]:
            return leases.take(folder / "x", timeout_s=20).release

        killed_in_turn(folder, 30, enter)


@needs_root
@pytest.mark.parametrize("limits", [Limits(), Limits(locks="unsupported"), Limits(locks="local")], ids=str)
def test_a_lock_on_a_file_system_without_flock_keeps_out_the_other_machine(tmp_path: Path, limits: Limits) -> None:
    disk, here, there = tmp_path / "disk", tmp_path / "here", tmp_path / "there"
    with restricted(disk, here, limits), restricted(disk, there, limits):
        with locks.locked(here / "lock"):
            for shared in (False, True):
                with (
                    pytest.raises(locks.Unavailable) as caught,
                    locks.locked(there / "lock", shared=shared, timeout_s=0.1),
                ):
                    pass
                assert caught.value.message == f"{there}/lock is locked by another process"
        with locks.locked(there / "lock", timeout_s=0):
            pass
        held = locks.hold(str(here / "part"), os.O_RDWR | os.O_CREAT)
        with pytest.raises(locks.Unavailable):
            locks.hold(str(there / "part"), os.O_RDWR | os.O_CREAT, timeout_s=0)
        held.release()
        assert [name for name in os.listdir(disk) if name.endswith(leases.SUFFIX)] == []
