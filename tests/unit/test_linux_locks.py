"""Locks: flock where it reaches everybody; on what is held, names may change meanwhile."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Unavailable
from argosy.linux import locks

if TYPE_CHECKING:
    from pathlib import Path


def test_a_lock_keeps_others_out_until_the_time_is_over(tmp_path: Path) -> None:
    path = tmp_path / "lock"
    with locks.locked(path), pytest.raises(Unavailable) as caught, locks.locked(path, timeout_s=0.01):
        pass
    assert (caught.value.code, caught.value.message) == ("locked", f"{path} is locked by another process")
    with locks.locked(path, timeout_s=0):
        pass


def test_shared_locks_do_not_exclude_each_other(tmp_path: Path) -> None:
    with locks.locked(tmp_path / "lock", shared=True), locks.locked(tmp_path / "lock", shared=True, timeout_s=0):
        pass


def test_what_is_held_has_its_name_whoever_renamed_it_before(tmp_path: Path) -> None:
    path, told = str(tmp_path / "part"), []
    first = locks.hold(path, os.O_RDWR | os.O_CREAT)

    def second() -> None:
        held = locks.hold(path, os.O_RDWR | os.O_CREAT, waiting=lambda: told.append("waits"))
        told.append("named" if held.is_named else "not named")
        held.release()

    thread = threading.Thread(target=second)
    thread.start()
    while not told:
        pass
    os.rename(path, f"{path}.done")
    assert not first.is_named
    first.release()
    thread.join()
    assert told == ["waits", "named"]


def test_a_work_file_is_idle_when_nobody_holds_it(tmp_path: Path) -> None:
    path = str(tmp_path / "part")
    held = locks.hold(path, os.O_RDWR | os.O_CREAT)
    with locks.idle(path) as fd:
        assert fd is None
    held.release()
    with locks.idle(path) as fd:
        assert fd is not None
        with pytest.raises(Unavailable):
            locks.hold(path, os.O_RDWR, timeout_s=0)
    locks.hold(path, os.O_RDWR, timeout_s=0).release()
    os.unlink(path)
    with locks.idle(path) as fd:
        assert fd is None


def test_only_leases_need_names_of_a_nodes_own(tmp_path: Path) -> None:
    assert locks.flock_reaches_all(str(tmp_path))
    assert locks.own_name(f"{tmp_path}/a.part", str(tmp_path)) == f"{tmp_path}/a.part"
