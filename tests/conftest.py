"""What holds for every test: nothing is left behind, and no skip goes unseen.

After each test descriptors, threads, child processes and mounts are counted again.
A skip must give a reason that is in ALLOWED_SKIPS; any other fails the run.
"""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux import mounts, syscalls
from argosy.store import makers

if TYPE_CHECKING:
    from collections.abc import Iterator

#: {beginning of a skip's reason: how to get what is missing}
ALLOWED_SKIPS = {
    "no NVIDIA GPU": "run `make test` on a machine with an NVIDIA driver",
    "needs root": "run `make test` as root",
    "needs an ordinary user": "run `make test` as an ordinary user",
    "no subordinate ids": "usermod --add-subuids 100000-165535 USER, on a machine where that is fine",
    "no FUSE": "apt install fuse3, on a machine with /dev/fuse",
    "no peer client": "apt-get install skopeo podman buildah",
    "no C compiler": "apt install gcc",
    "this kernel": "a newer kernel (6.12 mounts EROFS from a file)",
}

#: Programs that scripts/setup unpacks rather than installs; the machine's own come first.
PEERS = Path(__file__).resolve().parents[1] / ".tools/peers/usr"
os.environ["PATH"] += f":{PEERS}/bin:{PEERS}/sbin"

_unexplained: list[str] = []


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--whole", action="store_true", help="every step of the fault loops, not a sample (make faults)")


def pytest_configure() -> None:
    """A mount namespace of our own: what others mount meanwhile is not counted, what a test leaves stays in here."""
    if os.geteuid() == 0:
        mounts.private_namespace(propagation=syscalls.MS_PRIVATE)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.skipped and isinstance(report.longrepr, tuple):
        reason = report.longrepr[2].removeprefix("Skipped: ")
        if not reason.startswith(tuple(ALLOWED_SKIPS)):
            _unexplained.append(f"{report.nodeid}: {reason}")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    if _unexplained and session.exitstatus == 0:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    for line in _unexplained:
        terminalreporter.write_line(f"skipped without leave (tests/conftest.py ALLOWED_SKIPS): {line}", red=True)


@pytest.fixture(autouse=True)
def nothing_left_behind() -> Iterator[None]:
    """Count what a careless test leaves: descriptors, threads, children, mounts."""
    before = _belongings()
    yield
    after = _belongings()
    left = {what: sorted(after[what] - before[what]) for what in after if after[what] - before[what]}
    assert not left, f"left behind: {left}"


def _belongings() -> dict[str, set[str]]:
    return {
        "descriptors": set(_descriptors()),
        "threads": {thread.name for thread in threading.enumerate()},
        "children": set(_children()),
        "mounts": {line.split(" ", 5)[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()},
    }


def _descriptors() -> Iterator[str]:
    for name in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{name}")
        except FileNotFoundError:  # the listing's own
            continue
        if "/proc/" not in target and makers.SUFFIX not in target:  # held as long as the BlobStore of a fixture
            yield f"{name} -> {target}"


def _children() -> Iterator[str]:
    for task in os.listdir("/proc/self/task"):
        try:
            yield from Path(f"/proc/self/task/{task}/children").read_text().split()
        except FileNotFoundError:  # the thread has ended
            continue
