"""Leases: whatever happens to their holders, one at a time has one, and those of the dead are given up."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.errors import Unavailable
from argosy.linux import leases
from argosy.linux.processes import Process

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture(autouse=True)
def no_patience_with_the_dead(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "DRAIN_S", 0.0)


def lease_of(path: Path, **changes: object) -> None:
    """Put a lease there as another process would hold it; *changes* are to this one's identity."""
    process = msgspec.structs.replace(Process.own(), **changes)
    text = msgspec.json.encode({"process": process, "word": "0123456789abcdef"})
    path.with_name(f"{path.name}.lease").write_bytes(text)


def dead_pid() -> int:
    pid = os.fork()
    if pid == 0:
        os._exit(0)
    os.waitpid(pid, 0)
    return pid


def test_a_lease_keeps_others_out_and_leaves_nothing(tmp_path: Path) -> None:
    lease = leases.take(tmp_path / "x")
    assert os.listdir(tmp_path) == ["x.lease"]
    with pytest.raises(Unavailable) as caught:
        leases.take(tmp_path / "x", timeout_s=0)
    assert (caught.value.code, caught.value.message) == ("locked", f"{tmp_path}/x is locked by another process")
    assert caught.value.context == f"process {os.getpid()} on {os.uname().nodename} has it; waited 0 s"
    lease.release()
    lease.release()
    assert os.listdir(tmp_path) == []
    leases.take(tmp_path / "x", timeout_s=0).release()


def test_waiting_is_told_once_and_only_when_there_is_a_wait(tmp_path: Path) -> None:
    told: list[str] = []
    leases.take(tmp_path / "x", waiting=lambda: told.append("free")).release()
    lease = leases.take(tmp_path / "x")
    timer = threading.Timer(0.1, lease.release)
    timer.start()
    leases.take(tmp_path / "x", waiting=lambda: told.append("held")).release()
    timer.join()
    assert told == ["held"]


@pytest.mark.parametrize("changes", [{"pid": "dead"}, {"start": 1}], ids=["no such process", "a later one's pid"])
def test_the_lease_of_a_dead_process_is_given_up_at_once(tmp_path: Path, changes: dict[str, object]) -> None:
    lease_of(tmp_path / "x", **{**changes, **({"pid": dead_pid()} if "pid" in changes else {})})
    leases.take(tmp_path / "x", timeout_s=0).release()
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("changes", [{"boot": "another"}, {"space": 1}], ids=["another host", "another pid namespace"])
def test_of_those_that_cannot_be_looked_up_the_lease_holds_until_it_expires(
    tmp_path: Path, changes: dict[str, object], monkeypatch: pytest.MonkeyPatch
) -> None:
    lease_of(tmp_path / "x", pid=dead_pid(), **changes)
    monkeypatch.setattr(leases, "EXPIRY_S", 0.2)
    with pytest.raises(Unavailable):
        leases.take(tmp_path / "x", timeout_s=0.1)
    began = time.monotonic()
    leases.take(tmp_path / "x").release()
    assert time.monotonic() - began >= 0.2
    assert os.listdir(tmp_path) == []


def test_what_a_dead_process_has_asked_for_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be its lease's removal, done when the next one has the lease."""
    monkeypatch.setattr(leases, "DRAIN_S", 0.3)
    lease_of(tmp_path / "x", pid=dead_pid())
    with pytest.raises(Unavailable):
        leases.take(tmp_path / "x", timeout_s=0.1)
    leases.take(tmp_path / "x").release()


def test_the_wait_for_a_dead_process_begins_with_its_death(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """However long its lease was seen before."""
    monkeypatch.setattr(leases, "DRAIN_S", 0.4)
    pid = os.fork()
    if pid == 0:
        leases.take(tmp_path / "x")
        time.sleep(60)
        os._exit(0)
    while not (tmp_path / "x.lease").exists():
        time.sleep(0.01)
    died: list[float] = []

    def kill() -> None:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        died.append(time.monotonic())

    timer = threading.Timer(0.8, kill)
    timer.start()
    leases.take(tmp_path / "x").release()
    timer.join()
    assert time.monotonic() - died[0] >= 0.4


def test_an_expired_lease_may_be_in_any_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.05)
    for text in (b"", b"\0" * 100, b"{}", b'{"process":'):
        (tmp_path / "x.lease").write_bytes(text)
        leases.take(tmp_path / "x").release()


def test_a_lasting_lease_of_another_host_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As long as it is renewed; here by hand, as the thread of a process elsewhere does it."""
    monkeypatch.setattr(leases, "EXPIRY_S", 0.3)
    lease_of(tmp_path / "x", boot="another")
    path, stop = tmp_path / "x.lease", threading.Event()

    def renew() -> None:
        while not stop.wait(0.05):
            path.touch()

    thread = threading.Thread(target=renew)
    thread.start()
    with pytest.raises(Unavailable):
        leases.take(tmp_path / "x", timeout_s=0.7)
    stop.set()
    thread.join()
    leases.take(tmp_path / "x").release()


def test_lasting_leases_are_renewed_by_one_thread_that_ends_with_the_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(leases, "RENEW_S", 0.02)
    first, second = (leases.take(tmp_path / name, lasting=True) for name in "xy")
    os.utime(tmp_path / "x.lease", (0, 0))
    os.utime(tmp_path / "y.lease", (0, 0))
    deadline = time.monotonic() + 20
    while min((tmp_path / f"{name}.lease").stat().st_mtime for name in "xy") == 0:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    assert [thread.name for thread in threading.enumerate()].count("leases") == 1
    first.release()
    assert [thread.name for thread in threading.enumerate()].count("leases") == 1
    second.release()
    assert [thread.name for thread in threading.enumerate()].count("leases") == 0


def test_what_the_dead_left_an_hour_ago_is_tidied_away(tmp_path: Path) -> None:
    lease_of(tmp_path / "dead", pid=dead_pid())
    lease_of(tmp_path / "elsewhere", boot="another")
    lease_of(tmp_path / "alive")
    lease_of(tmp_path / "young", pid=dead_pid())
    for name in ("made.lease.0123456789ab", "made.lease", "part"):
        (tmp_path / name).touch()
    for path in tmp_path.iterdir():
        if path.name != "young.lease":
            os.utime(path, (1000, 1000))
    leases.tidy(tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["alive.lease", "part", "young.lease"]


def test_a_lease_that_others_have_taken_over_is_neither_renewed_nor_removed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lease = leases.take(tmp_path / "x")
    lease.require()
    (tmp_path / "x.lease").write_bytes(b"another's")
    before = lease.renewed
    lease.renew()
    assert lease.renewed == before
    monkeypatch.setattr(leases, "EXPIRY_S", 0.0)
    with pytest.raises(Unavailable) as caught:
        lease.require()
    assert caught.value.code == "lease-lost"
    lease.release()
    assert (tmp_path / "x.lease").read_bytes() == b"another's"


def test_a_forked_child_neither_releases_nor_renews_what_its_parent_has(tmp_path: Path) -> None:
    lease = leases.take(tmp_path / "x", lasting=True)
    pid = os.fork()
    if pid == 0:
        lease.release()
        mine = leases.take(tmp_path / "y", lasting=True)
        mine.release()
        os._exit(0)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert (tmp_path / "x.lease").exists()
    lease.release()


def test_a_process_that_is_only_stopped_keeps_its_lease(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leases, "EXPIRY_S", 0.2)
    pid = os.fork()
    if pid == 0:
        leases.take(tmp_path / "x")
        os.kill(os.getpid(), signal.SIGSTOP)
        os._exit(0)
    os.waitpid(pid, os.WUNTRACED)
    with pytest.raises(Unavailable):
        leases.take(tmp_path / "x", timeout_s=0.4)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    leases.take(tmp_path / "x", timeout_s=0).release()
