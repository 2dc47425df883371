"""User namespaces for real: a child becomes nobody and then root of its own namespace."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING

import pytest

from argosy.errors import RuntimeFailed, Unsupported
from argosy.linux import mounts, processes, syscalls, userns
from argosy.linux.userns import IdMap
from support.forked import NOBODY, become_nobody, in_child

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
PATH = "/usr/bin:/bin"
RANGE = (IdMap(inside=0, outside=NOBODY), IdMap(inside=1, outside=300000, count=65536))
needs_newuidmap = pytest.mark.skipif(
    processes.find_program("newuidmap", path=PATH) is None, reason="newuidmap is missing (apt install uidmap)"
)


def _as_nobody(action: Callable[[], object], subids: Path | None = None) -> object:
    """Run as nobody; *subids* appears as /etc/subuid and /etc/subgid, in a mount namespace only."""

    def inside() -> object:
        if subids is not None:
            mounts.private_namespace()
            for name in ("/etc/subuid", "/etc/subgid"):
                mounts.Bind(source=str(subids), target=name).execute()
        become_nobody()
        return action()

    return in_child(inside)


@pytest.fixture
def subids(tmp_path: Path) -> Path:
    for name in ("/etc/subuid", "/etc/subgid"):
        if not os.path.exists(name):
            pytest.skip(f"{name} is missing, so nothing can be mounted over it (apt install uidmap)")
    path = tmp_path / "subids"
    path.write_text("nobody:300000:65536\n")
    path.chmod(0o644)
    return path


def test_without_ranges_one_id_is_mapped(tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.touch()
    subids = empty if os.path.exists("/etc/subuid") else None

    def enter() -> object:
        was_needed = userns.is_needed()
        mapping = userns.enter_user_namespace(path=PATH)
        with open("/proc/self/uid_map") as table:
            return (
                was_needed,
                userns.is_needed(),
                mapping.is_single,
                os.getresuid(),
                os.getresgid(),
                table.read().split(),
            )

    assert _as_nobody(enter, subids) == (True, False, True, (0, 0, 0), (0, 0, 0), ["0", str(NOBODY), "1"])


@needs_newuidmap
def test_with_ranges_files_can_belong_to_other_users(subids: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    work.mkdir()
    os.chown(work, NOBODY, NOBODY)
    for parent in list(tmp_path.parents)[:3]:
        if parent.stat().st_uid == 0 and str(parent) not in ("/", "/tmp"):
            parent.chmod(parent.stat().st_mode | 0o011)
    tmp_path.chmod(0o711)

    def enter() -> object:
        mapping = userns.enter_user_namespace(path=PATH)
        (work / "file").touch()
        os.chown(work / "file", 1000, 65534)
        return mapping.uids, mapping.gids, (work / "file").stat().st_uid

    assert _as_nobody(enter, subids) == (RANGE, RANGE, 1000)
    owner = (work / "file").stat()
    assert (owner.st_uid, owner.st_gid) == (300999, 365533)


@needs_newuidmap
def test_a_second_process_joins_the_namespace_of_the_first(subids: Path) -> None:
    def join() -> object:
        ready_r, ready_w = os.pipe()
        first = os.fork()
        if first == 0:
            userns.enter_user_namespace(path=PATH)
            mounts.Tmpfs(target="/mnt").execute()
            open("/mnt/mark", "w").close()
            os.write(ready_w, b"!")
            signal.pause()
        os.close(ready_w)  # so that a first process that failed is not waited for
        os.read(ready_r, 1)
        try:
            mapping = userns.join(first)
            return mapping.uids, os.getuid(), os.listdir("/mnt"), sorted(syscalls.capget())[:1]
        finally:
            os.kill(first, signal.SIGKILL)
            os.waitpid(first, 0)

    assert _as_nobody(join, subids) == (RANGE, 0, ["mark"], ["CAP_AUDIT_CONTROL"])


@needs_newuidmap
def test_newuidmap_that_refuses_is_quoted(subids: Path) -> None:
    """The ranges change between looking and mapping."""

    def enter() -> object:
        wanted = userns.UserMapping(uids=(*RANGE[:1], IdMap(inside=1, outside=100, count=5)), gids=RANGE)
        try:
            userns.enter_user_namespace(path=PATH, mapping=wanted)
        except RuntimeFailed as error:
            return error.code, error.context.splitlines()[0], "not allowed" in error.context
        return "mapped"

    assert _as_nobody(enter, subids) == ("id-mapping-failed", "newuidmap failed: exit status 1", True)


@needs_newuidmap
def test_ranges_of_a_directory_are_asked_of_getsubids(subids: Path) -> None:
    if processes.find_program("getsubids", path=PATH) is None:
        pytest.skip("getsubids is missing (apt install uidmap)")

    def ask() -> object:
        return [
            userns._ranges_from_directory(name, kind, PATH) for name in ("nobody", "daemon") for kind in ((), ("-g",))
        ]

    granted = (userns.IdRange(start=300000, count=65536),)
    assert _as_nobody(ask, subids) == [granted, granted, (), ()]


def test_several_threads_are_refused_with_a_reason() -> None:
    def enter() -> object:
        import threading

        stop = threading.Event()
        threading.Thread(target=stop.wait, daemon=True).start()
        try:
            userns.enter_user_namespace(path=PATH)
        except RuntimeFailed as error:
            return error.code, error.context
        finally:
            stop.set()
        return "entered"

    assert _as_nobody(enter) == (
        "user-namespace-threads",
        "this process has 2 threads; Linux asks for exactly one",
    )


def test_a_forbidden_namespace_names_the_setting() -> None:
    """A limit of zero in a user namespace of our own, as RHEL's hardening sets it for the host."""

    def enter() -> object:
        userns.enter_user_namespace(path=PATH, mapping=userns.single_mapping())
        with open("/proc/sys/user/max_user_namespaces", "w") as limit:
            limit.write("0")
        try:
            userns.enter_user_namespace(path=PATH, mapping=userns.single_mapping())
        except Unsupported as error:
            return error.code, error.context, error.hint
        return "entered"

    assert _as_nobody(enter) == (
        "no-user-namespace",
        "No space left on device (ENOSPC); the number of user namespaces is limited to none, as hardened RHEL "
        "systems set it (user.max_user_namespaces = 0)",
        "as administrator: sysctl -w user.max_user_namespaces=28633",
    )


def test_a_namespace_without_members_serves_idmapped_mounts() -> None:
    shifted = (IdMap(inside=0, outside=100000, count=10),)
    fd = userns.open_namespace(userns.UserMapping(uids=shifted, gids=shifted))
    try:
        assert os.readlink(f"/proc/self/fd/{fd}").startswith("user:[")
    finally:
        os.close(fd)
