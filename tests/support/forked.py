"""Run a piece of a test in a forked child: namespaces, mounts and identities end with it."""

from __future__ import annotations

import os
import pickle
import traceback
from typing import TYPE_CHECKING, Any, TypeVar

from argosy.linux import syscalls

if TYPE_CHECKING:
    from collections.abc import Callable

Result = TypeVar("Result")

NOBODY = 65534


def in_child(action: Callable[[], Result]) -> Result:
    """What *action* returns in a child process; its exception is raised here, its traceback as a note."""
    return side_by_side(action)[0]


def side_by_side(*actions: Callable[[], Result]) -> list[Result]:
    """As in_child, each in a child of its own, all at the same time."""
    children = [_begun(action) for action in actions]
    return [_ended(pid, read_end) for pid, read_end in children]


def _begun(action: Callable[[], Result]) -> tuple[int, int]:
    """(process, where its answer comes from)"""
    read_end, write_end = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer = pickle.dumps((True, action()))
        except BaseException as error:
            error.add_note(traceback.format_exc())
            error.__cause__ = error.__context__ = None
            answer = pickle.dumps((False, _portable(error)))
        with open(write_end, "wb") as stream:
            stream.write(answer)
        os._exit(0)
    os.close(write_end)
    return pid, read_end


def _ended(pid: int, read_end: int) -> Any:  # what the action returns
    with open(read_end, "rb") as stream:
        data = stream.read()
    os.waitpid(pid, 0)
    succeeded, value = pickle.loads(data)
    if not succeeded:
        raise value
    return value


def become_nobody() -> None:
    """Drop root for good, as a login of that user would look (dumpable, no groups)."""
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)
    syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)


def _portable(error: BaseException) -> BaseException:
    """The error if it survives pickling (errors with keyword arguments do not), else one with its text."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        text = f"{type(error).__name__}: {error!r} {getattr(error, 'context', '')}"
        return AssertionError("\n".join([text, *error.__notes__]))
    return error
