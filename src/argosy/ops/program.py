"""Whether the program that a container shall run can be run, found out before the start.

The kernel's answer to execve is one number, and a runtime passes it on as «No such
file» even when the file is there and its interpreter or loader is missing. Docker's
statuses: 127 for what is not there, 126 for what is there and cannot be run.
"""

from __future__ import annotations

import os
import stat
import struct
from typing import TYPE_CHECKING

from ..errors import InvalidInput, RuntimeFailed
from ..linux import paths

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_HEAD = 4096  # bytes; holds a «#!» line (the kernel reads 256) and, in all known files, ELF's program headers
_DEPTH = 4  # scripts whose interpreter is a script; BINPRM_MAX_RECURSION is 4
_PT_INTERP = 3
_ELF_HEADER = 52  # bytes of the smaller one, of 32-bit programs
_WORD_LIMIT = 32 * 4096  # bytes of one argument or variable with its NUL; MAX_ARG_STRLEN of Linux
_WORDS_LIMIT = 6 * 2**20  # bytes of all of them whatever ulimit -s says; three quarters of _STK_LIM of Linux
_BINFMT = "/proc/sys/fs/binfmt_misc"
#: {e_machine: name}; elf.h
_MACHINES = {3: "i386", 8: "mips", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "x86_64", 183: "aarch64", 243: "riscv64"}
_NATIVE = {"x86_64": (62, 3), "aarch64": (183, 40)}


def check(
    root_fd: int, program: str, *, working_dir: str, environment: tuple[str, ...], mounted: Iterable[str] = ()
) -> None:
    """Raises RuntimeFailed with exit status 127 or 126 that says which file is missing or why it can't be run.

    Says nothing of files at or below *mounted* (volumes, the driver): they are not the
    image's, and the runtime will judge them where they will be.
    """
    places = frozenset(_resolved(root_fd, target) for target in mounted)
    path = _find(root_fd, program, working_dir, environment, places)
    for _ in range(_DEPTH):
        if path is None or _is_mounted(root_fd, path, places):
            return None
        head = _head(root_fd, path)
        interpreter = _interpreter(head or b"")
        if interpreter is None:
            return None if head is None else _check_format(program, path, head)
        if not interpreter.startswith("/"):
            interpreter = f"{working_dir}/{interpreter}"
        if not _is_mounted(root_fd, interpreter, places) and not _is_there(root_fd, interpreter):
            raise RuntimeFailed(
                f"cannot run {program!r}: what it needs to start is missing in this image",
                code="interpreter-not-found",
                context=f"{path} asks for {interpreter}",
                hint="the file was made for another system (glibc or musl?), or its first line names a program that is "
                "not installed",
                exit_status=127,
            )
        path = interpreter
    raise _unusable(program, f"scripts whose interpreters are scripts, more than {_DEPTH} deep")


def check_size(arguments: tuple[str, ...], environment: tuple[str, ...]) -> None:
    """Raises RuntimeFailed (exit status 126) for words that execve refuses: the kernel says E2BIG and not which.

    Also InvalidInput (not-utf8, nul-character): config.json or the kernel cannot carry such words.
    """
    try:
        sizes = [len(word.encode()) + 1 for word in (*arguments, *environment)]
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "arguments and variables of a container must be UTF-8", code="not-utf8", context=repr(error.object[:80])
        ) from error
    if cut := next((word for word in (*arguments, *environment) if "\0" in word), None):
        raise InvalidInput(
            "an argument or variable holds a NUL character", code="nul-character", context=repr(cut[:80])
        )
    total, limit = sum(sizes) + 8 * len(sizes), min(os.sysconf("SC_ARG_MAX"), _WORDS_LIMIT)
    if max(sizes) > _WORD_LIMIT or total > limit:
        raise RuntimeFailed(
            "the arguments and variables of the container are too long",
            code="arguments-too-long",
            context=f"{total} bytes in all, {max(sizes)} in the longest; Linux takes {limit} and {_WORD_LIMIT}",
            hint="pass what is long as a file: -v FILE:/PLACE",
            exit_status=126,
        )


def _find(
    root_fd: int, program: str, working_dir: str, environment: tuple[str, ...], places: frozenset[str]
) -> str | None:
    """Path of *program* in the image, by PATH as execvp does; None when it may be in what is mounted."""
    variables = dict(entry.partition("=")[::2] for entry in environment)
    search = variables.get("PATH", "")
    if "/" in program:
        candidates = [program if program.startswith("/") else f"{working_dir}/{program}"]
    else:
        candidates = [f"{folder or working_dir}/{program}" for folder in search.split(":")]
    denied = None
    for candidate in candidates:
        if _is_mounted(root_fd, candidate, places):
            return None
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


def _is_mounted(root_fd: int, path: str, places: frozenset[str]) -> bool:
    """Whether *path*, through the image's links, leads to or into one of *places*."""
    return bool(places) and any(place in places for place in _walk(root_fd, path))


def _resolved(root_fd: int, path: str) -> str:
    """*path* without links, as far as the image has it."""
    return [*_walk(root_fd, path)][-1]


def _walk(root_fd: int, path: str) -> Iterator[str]:
    """Where *path* leads in the image, place by place from «/» on, links followed; what is absent counts as named."""
    names, place, links = path.split("/")[::-1], [""], 0
    yield "/"
    while names:
        name = names.pop()
        if name in ("", "."):
            continue
        if name == "..":
            place = place[:-1] or [""]
            yield "/".join(place) or "/"
            continue
        here = "/".join((*place, name))
        target = _link(root_fd, here) if links < paths.MOST_LINKS else None
        if target is None:
            place.append(name)
            yield here
            continue
        links += 1
        place = [""] if target.startswith("/") else place
        names += target.split("/")[::-1]


def _link(root_fd: int, path: str) -> str | None:
    try:
        return paths.readlink(root_fd, path)
    except OSError:
        return None


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


def _head(root_fd: int, path: str) -> bytes | None:
    """The first bytes; None when we may not read it (which does not stop the kernel from running it)."""
    try:
        fd = paths.open_in_root(root_fd, path, os.O_RDONLY)
    except OSError:
        return None
    try:
        return os.read(fd, _HEAD)
    finally:
        os.close(fd)


def _check_format(program: str, path: str, head: bytes) -> None:
    """Refuse what the kernel has no loader for, as far as that can be known: others may be registered."""
    registered = _registered_loaders()
    if registered:
        return
    if not head.startswith(b"\x7fELF"):
        raise _unusable(program, f"{path} in the image is neither an ELF program nor a script that begins with #!")
    if len(head) < _ELF_HEADER:
        raise _unusable(program, f"{path} in the image is an ELF file of {len(head)} bytes, not even a header")
    native = _NATIVE.get(os.uname().machine)
    machine = int.from_bytes(head[18:20], "big" if head[5] == 2 else "little")
    if native is None or (registered is None and machine in _MACHINES):
        return
    if machine not in native:
        name = _MACHINES.get(machine, f"machine {machine}")
        raise _unusable(program, f"{path} in the image is for {name}, this machine is {os.uname().machine}")


def _registered_loaders() -> list[str] | None:
    """Emulators and the like that the kernel starts for foreign files; None where binfmt_misc is not mounted."""
    try:
        names = os.listdir(_BINFMT)
    except OSError:
        return None
    return [name for name in names if name not in ("register", "status")] if "register" in names else None


def _unusable(program: str, why: str) -> RuntimeFailed:
    return RuntimeFailed(
        f"cannot run {program!r}: not a program for this machine",
        code="program-format",
        context=why,
        exit_status=126,
    )


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
    except (struct.error, OverflowError):  # cut short, or no program headers where it says; the kernel will judge
        return None
    return None
