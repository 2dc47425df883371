"""Containers after their start: list them, remove them, clean up after a supervisor that died.

The argosy process that runs a container is its supervisor; the record holds its
pid and start time. After a kill -9 nobody records the end, so the verbs `run ps rm
commit` begin with reap().
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, Error, NotFound, Unavailable
from ..linux import lifetimes, processes
from ..store.records import Container
from .supervisors import is_abandoned, is_elsewhere

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from ..runtime.oci_runtime import OciRuntime
    from ..store.records import ContainerStore

KILLED = 137  # 128 + SIGKILL: what a shell says of a program that was killed
_SUPERVISOR_LIMIT_S = 10.0  # a supervisor whose container is gone needs milliseconds to record it


class Reaped(msgspec.Struct, frozen=True, kw_only=True):
    """What reap() found. *containers* is the list as it is now, newest first."""

    containers: tuple[Container, ...]
    #: whose supervisor had died; they are cleaned up, those with --rm are removed
    cleaned: tuple[Container, ...] = ()
    #: (container, why it could not be cleaned up): left as it was, for the next verb
    problems: tuple[tuple[Container, Error], ...] = ()


def reap(
    containers: ContainerStore, runtime: Callable[[], OciRuntime], *, kill: Callable[[str], None] | None = None
) -> Reaped:
    """End and record what abandoned containers left running; idempotent, several at once are fine.

    *runtime* is called only when there is something to do: it gives the runtime,
    with this process in a namespace in which it can be used. *kill* ends a container by
    id and is called before, for all of them: see Host.kill.
    """
    records = containers.list()
    abandoned = [record for record in records if is_abandoned(record)]
    if not abandoned:
        return Reaped(containers=records)
    if kill is not None:
        for record in abandoned:
            kill(record.id)
    cleaned: list[Container] = []
    problems: list[tuple[Container, Error]] = []
    for record in abandoned:
        try:
            _clean(record, containers, runtime)
            cleaned.append(record)
        except NotFound as error:
            if error.code != "container-unknown":  # another verb was quicker
                problems.append((record, error))
        except Error as error:
            problems.append((record, error))
    return Reaped(containers=containers.list(), cleaned=tuple(cleaned), problems=tuple(problems))


def _clean(record: Container, containers: ContainerStore, runtime: Callable[[], OciRuntime]) -> None:
    record = containers.get(record.id)  # its supervisor may have recorded the end since the list was read
    if not is_abandoned(record):
        return
    runtime().delete(record.id)
    if record.auto_remove or record.status == "created":  # never started: `run` leaves nothing of these either
        containers.delete(record.id)
        return

    def ended(now: Container) -> Container:
        if now.status == "exited":
            return now
        return msgspec.structs.replace(now, status="exited", exit_code=KILLED, finished=_now(), pid=None)

    containers.change(record.id, ended)


def end(keys: Iterable[str], *, containers: ContainerStore, kill: Callable[[str], None]) -> frozenset[str]:
    """Kill those of *keys* that run, before `remove` of any, and give their keys; unknown ones are passed over."""
    ended = set()
    for key in keys:
        try:
            record = containers.get(key)
        except NotFound:
            continue
        if record.status == "running" and not is_elsewhere(record):
            kill(record.id)
            ended.add(key)
    return frozenset(ended)


def remove(
    key: str, *, containers: ContainerStore, runtime: Callable[[], OciRuntime], force: bool = False
) -> Container:
    """Remove the container that *key* names: the runtime's part, then the files, the record last.

    Raises NotFound (container-unknown), Conflict (container-running) unless *force*.
    """
    record = containers.get(key)
    running = record.status != "exited" and not is_abandoned(record) and record.pid is not None
    if running and is_elsewhere(record) and not force:
        raise Conflict(
            f'cannot remove container "/{record.name}": container is running on {record.host}',
            code="container-running",
            context=f"this is {os.uname().nodename}; nothing here can end it",
            hint=f"argosy rm -f {record.name}, there; here that forgets it, for a machine that does not come back",
        )
    if running and not force:
        raise Conflict(
            f'cannot remove container "/{record.name}": container is running: '
            "stop the container before removing or force remove",
            code="container-running",
            hint=f"argosy rm -f {record.name}",
        )
    if record.status != "exited" and not is_elsewhere(record):
        runtime().delete(record.id)
    if running and not is_elsewhere(record):
        _wait_for_supervisor(record)
    containers.delete(record.id)
    return record


def _wait_for_supervisor(record: Container) -> None:
    """Let the process that ran the container record its end, so that it does not miss the record."""
    if record.pid is None or record.start_time is None or record.pid == os.getpid():
        return
    try:
        pidfd = os.pidfd_open(record.pid)
    except ProcessLookupError:
        return
    try:
        if lifetimes.is_alive(record.pid, record.start_time):
            processes.wait_pidfd(pidfd, _SUPERVISOR_LIMIT_S)
    finally:
        os.close(pidfd)


def remove_left_behind(containers: ContainerStore, local: str) -> int:
    """Remove the writable layers in *local* (see ContainerStore.left_behind) that nobody uses; how many there were.

    Of containers that were removed by another machine, which cannot reach this one's disk.
    """
    from ..linux.files import remove_tree  # `ps` does without
    from ..linux.locks import idle

    count = 0
    for path in containers.left_behind(local):
        with idle(path) as fd:
            if fd is not None:
                remove_tree(path)
                count += 1
    return count


def writable_size(containers: ContainerStore, record: Container) -> int:
    """Bytes that the container's own files take in its writable layer; 0 where another machine has it, or nobody."""
    total = 0
    try:
        folders = [os.path.join(containers.writable(record), "upper")]
    except (Unavailable, NotFound):
        return 0
    while folders:
        try:
            with os.scandir(folders.pop()) as entries:
                for entry in entries:
                    if entry.is_dir(follow_symlinks=False):
                        folders.append(entry.path)
                    elif entry.is_file(follow_symlinks=False):
                        total += entry.stat(follow_symlinks=False).st_size
        except FileNotFoundError:  # it ends while we look
            continue
    return total


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
