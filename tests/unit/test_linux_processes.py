"""Programs are started, waited for and named; their ends are put into words."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from argosy.errors import NotFound, RuntimeFailed, Unavailable
from argosy.linux import lifetimes, processes
from argosy.linux.processes import Completed

if TYPE_CHECKING:
    from pathlib import Path

SH = "/bin/sh"


def _sh(script: str, **options: object) -> Completed:
    return processes.run_program([SH, "-c", script], env={"PATH": "/usr/bin:/bin"}, **options)  # type: ignore[arg-type]


def test_a_program_reads_its_input_and_both_outputs_are_kept() -> None:
    assert _sh("cat; echo oops >&2; exit 3", stdin=b"hello") == Completed(
        argv=(SH, "-c", "cat; echo oops >&2; exit 3"), status=3, stdout=b"hello", stderr=b"oops\n"
    )


def test_only_the_last_bytes_of_an_output_are_kept() -> None:
    done = _sh("head -c 1000000 /dev/zero; echo end", limit=10)
    assert (done.status, done.stdout) == (0, b"\0" * 6 + b"end\n")


def test_the_environment_is_what_was_given() -> None:
    assert processes.run_program(["/usr/bin/env"], env={"A": "1"}).stdout == b"A=1\n"


def test_a_grandchild_that_keeps_the_output_open_is_not_waited_for() -> None:
    began = time.monotonic()
    done = _sh("sleep 20 & echo $!")
    os.kill(int(done.stdout), signal.SIGKILL)
    assert (done.status, time.monotonic() - began < 10) == (0, True)


def test_a_program_that_takes_too_long_is_killed() -> None:
    with pytest.raises(Unavailable) as caught:
        _sh("sleep 20", timeout_s=0.05)
    assert (caught.value.code, caught.value.message) == ("program-timeout", "sh did not end within 0.05 s")


def test_a_missing_program_and_one_without_rights_differ(tmp_path: Path) -> None:
    (tmp_path / "script").write_text("#!/bin/sh\n")
    with pytest.raises(NotFound) as missing:
        processes.run_program(["/no/such program", "x"], env={})
    assert (missing.value.code, missing.value.context) == ("program-not-found", "command: '/no/such program' x")
    with pytest.raises(RuntimeFailed) as refused:
        processes.run_program([str(tmp_path / "script")], env={})
    assert (refused.value.code, refused.value.exit_status) == ("program-not-executable", 126)


def test_a_failure_shows_the_last_lines_and_the_command() -> None:
    with pytest.raises(RuntimeFailed) as caught:
        _sh("seq 100 >&2; kill -KILL $$").check("counting")
    assert caught.value.message == "counting failed: killed by SIGKILL (137)"
    assert caught.value.context.splitlines()[:2] == ["91", "92"]
    assert caught.value.context.splitlines()[-1] == "command: /bin/sh -c 'seq 100 >&2; kill -KILL $$'"
    assert caught.value.status == 137


def test_descriptors_are_given_by_number_even_when_they_cross(tmp_path: Path) -> None:
    (tmp_path / "a").write_text("a")
    (tmp_path / "b").write_text("b")
    with open(tmp_path / "a") as first, open(tmp_path / "b") as second:
        crossed = {first.fileno(): second.fileno(), second.fileno(): first.fileno()}
        done = _sh(f"cat /proc/self/fd/{first.fileno()} /proc/self/fd/{second.fileno()}", fds=crossed)
    assert done.stdout == b"ba"


def test_signals_ignored_by_python_are_back_at_their_defaults() -> None:
    assert _sh("yes | head -1; kill -PIPE $$").status == 128 + signal.SIGPIPE


@pytest.mark.parametrize(
    ("wait_status", "status", "words"),
    [
        (0, 0, "exit status 0"),
        (3 << 8, 3, "exit status 3"),
        (9, 137, "killed by SIGKILL (137)"),
        (15 | 0x80, 143, "killed by SIGTERM (143)"),
        (36, 164, "killed by SIGRTMIN+2 (164)"),
    ],
)
def test_wait_statuses_are_numbers_and_words(wait_status: int, status: int, words: str) -> None:
    assert (processes.exit_status(wait_status), processes.describe_status(status)) == (status, words)


def test_a_process_is_named_by_pid_and_start_time() -> None:
    started = lifetimes.start_time(os.getpid())
    assert started is not None
    assert lifetimes.is_alive(os.getpid(), started)
    assert not lifetimes.is_alive(os.getpid(), started + 1)
    assert lifetimes.start_time(2**22 + 1) is None


def test_a_zombie_is_not_alive() -> None:
    pid = processes.spawn([SH, "-c", "exit 4"], env={})
    pidfd = os.pidfd_open(pid)
    assert processes.wait_pidfd(pidfd, 10)
    started = lifetimes.start_time(pid)
    assert started is not None
    assert not lifetimes.is_alive(pid, started)
    assert processes.wait(pid) == 4
    os.close(pidfd)


def test_programs_are_found_in_order_and_beyond_the_path(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "tool").write_text("#!/bin/sh\n")
    (tmp_path / "two" / "tool").chmod(0o755)
    path = f"{tmp_path}/one:{tmp_path}/two::relative"
    assert processes.find_program("tool", path=path) == f"{tmp_path}/two/tool"
    assert processes.find_program("tool", path="") is None
    assert processes.find_program("sh", path="", extra_folders=[str(tmp_path)]) in ("/usr/bin/sh", "/bin/sh")
    assert processes.find_program(f"{tmp_path}/one/tool", path=path) is None


def test_nothing_is_left_open() -> None:
    before = sorted(os.listdir("/proc/self/fd"))
    _sh("true", stdin=b"x")
    with pytest.raises(NotFound):
        processes.run_program(["/none"], env={})
    assert sorted(os.listdir("/proc/self/fd")) == before
