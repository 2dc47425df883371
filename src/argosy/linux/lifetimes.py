"""A process named for good: pids come round again, a pid with its start time within one boot does not.

`ps` begins here, so nothing is imported that costs.
"""

from __future__ import annotations

import os


def boot_id() -> str:
    """Changes with each boot; start times mean something only within one."""
    with open("/proc/sys/kernel/random/boot_id") as file:
        return file.read().strip()


def pid_space() -> int:
    """Number of this process's pid namespace."""
    return os.stat("/proc/self/ns/pid").st_ino


def start_time(pid: int) -> int | None:
    """Clock ticks after boot at which *pid* started; None when there is no such process.

    With the boot id it names a process for good. Source: proc(5), stat field 22.
    """
    fields = _stat_fields(pid)
    return None if fields is None else int(fields[19])


def is_alive(pid: int, started: int) -> bool:
    """Whether the process that started then still runs; zombies have ended."""
    fields = _stat_fields(pid)
    return fields is not None and int(fields[19]) == started and fields[0] not in (b"Z", b"X")


def _stat_fields(pid: int) -> list[bytes] | None:
    """Fields of /proc/PID/stat from the state on (field 3); the name before may hold anything, «)» too."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            line = file.read()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return line.rpartition(b")")[2].split()
