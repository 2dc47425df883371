"""Whether the program that a container shall run can be run, found out before the start.

The kernel's answer to execve is one number, and a runtime passes it on as «No such
file» even when the file is there and its interpreter or loader is missing. Docker's
statuses: 127 for what is not there, 126 for what is there and cannot be run.
"""

from __future__ import annotations

import os
import stat
import struct

from ..errors import RuntimeFailed
from ..linux import paths

_HEAD = 4096  # bytes; holds a «#!» line (the kernel reads 256) and, in all known files, ELF's program headers
_DEPTH = 4  # scripts whose interpreter is a script; BINPRM_MAX_RECURSION is 4
_PT_INTERP = 3


def check(root_fd: int, program: str, *, working_dir: str, environment: tuple[str, ...]) -> None:
    """Raises RuntimeFailed with exit status 127 or 126 that says which file is missing or why it can't be run."""
    path = _find(root_fd, program, working_dir, environment)
    for _ in range(_DEPTH):
        interpreter = _interpreter(_head(root_fd, path))
        if interpreter is None:
            return
        if not interpreter.startswith("/"):
            interpreter = f"{working_dir}/{interpreter}"
        if not _is_there(root_fd, interpreter):
            raise RuntimeFailed(
                f"cannot run {program!r}: what it needs to start is missing in this image",
                code="interpreter-not-found",
                context=f"{path} asks for {interpreter}",
                hint="the file was made for another system (glibc or musl?), or its first line names a program that is "
                "not installed",
                exit_status=127,
            )
        path = interpreter


def _find(root_fd: int, program: str, working_dir: str, environment: tuple[str, ...]) -> str:
    """Path of *program* in the image, by PATH as execvp does."""
    variables = dict(entry.partition("=")[::2] for entry in environment)
    search = variables.get("PATH", "")
    if "/" in program:
        candidates = [program if program.startswith("/") else f"{working_dir}/{program}"]
    else:
        candidates = [f"{folder or working_dir}/{program}" for folder in search.split(":")]
    denied = None
    for candidate in candidates:
        mode = _mode(root_fd, candidate)
        if mode is None:
            continue
        if stat.S_ISREG(mode) and mode & 0o111:
            return candidate
        if stat.S_ISREG(mode) or "/" in program:
            denied = denied or (candidate, "a folder" if stat.S_ISDIR(mode) else "a file without permission to execute")
    if denied is not None:
        raise RuntimeFailed(
            f"cannot run {program!r}: permission denied",
            code="program-not-executable",
            context=f"{denied[0]} in the image is {denied[1]}",
            exit_status=126,
        )
    raise RuntimeFailed(
        f"no program {program!r} in this image",
        code="program-not-found",
        context="there is no such file" if "/" in program else f"executable file not found in $PATH: {search}",
        exit_status=127,
    )


def _mode(root_fd: int, path: str) -> int | None:
    try:
        fd = paths.open_in_root(root_fd, path, os.O_PATH)
    except OSError:
        return None
    try:
        return os.fstat(fd).st_mode
    finally:
        os.close(fd)


def _is_there(root_fd: int, path: str) -> bool:
    mode = _mode(root_fd, path)
    return mode is not None and stat.S_ISREG(mode)


def _head(root_fd: int, path: str) -> bytes:
    """The first bytes; none when we may not read it (which does not stop the kernel from running it)."""
    try:
        fd = paths.open_in_root(root_fd, path, os.O_RDONLY)
    except OSError:
        return b""
    try:
        return os.read(fd, _HEAD)
    finally:
        os.close(fd)


def _interpreter(head: bytes) -> str | None:
    """What the kernel starts instead of the file: the program of a «#!» line, the loader of an ELF file."""
    if head.startswith(b"#!"):
        words = head[2:256].split(b"\n", 1)[0].split()
        return os.fsdecode(words[0]) if words else None
    if not head.startswith(b"\x7fELF\x02\x01"):  # 64-bit, little-endian: all that we run on
        return None
    try:
        table, (size, count) = struct.unpack_from("<Q", head, 32)[0], struct.unpack_from("<HH", head, 54)
        for place in range(count):
            kind, offset, length = struct.unpack_from("<I4xQ16xQ", head, table + place * size)
            if kind == _PT_INTERP and offset + length <= len(head):
                return os.fsdecode(head[offset : offset + length].rstrip(b"\0"))
    except struct.error:  # cut short, or no program headers where it says; the kernel will judge
        return None
    return None
