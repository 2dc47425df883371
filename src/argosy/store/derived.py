"""Derived files in `cache/`: lines of text that say what many small records say, deletable at any time.

What is kept there is believed as long as the times of what it was derived from are what
they were. Times are coarse, so a change right after the reading could leave them as
they were: kept is only what had been unchanged for COARSEST_NS by then, by the clock that
stamps the records themselves (the time of a file made beside them). Every later change
then has a later time.

Text, and no msgspec or json: both cost more to import than a thousand lines to split.
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

END = "end"
#: Times may be this coarse (FAT 2 s, NFS version 2 and ext3 1 s, Linux otherwise 10 ms).
COARSEST_NS = 2 * 10**9


class Aside:
    """A file beside *path* that takes its place, if it comes to that; a context manager."""

    def __init__(self, path: str, *, mode: int = 0o644) -> None:
        self._target, self._mode = path, mode
        self._path = f"{path}.{os.getpid()}.{os.urandom(4).hex()}"
        #: «now» for the file system; None where nothing can be written
        self.now_ns: int | None = None

    def __enter__(self) -> Aside:
        try:
            os.makedirs(os.path.dirname(self._path), exist_ok=True)
            fd = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, self._mode)
        except OSError:
            return self
        try:
            self.now_ns = os.fstat(fd).st_mtime_ns
        finally:
            os.close(fd)
        return self

    def __exit__(self, *_: object) -> None:
        if self.now_ns is not None:
            try:  # noqa: SIM105 (contextlib costs a millisecond)
                os.unlink(self._path)
            except OSError:
                pass

    def keep(self, head: str, lines: Iterable[str]) -> None:
        """Best effort and not synced: what a power cut leaves is read as no cache (no END, or zeros)."""
        try:
            with open(self._path, "wb") as file:
                file.write("\n".join((head, *lines, END)).encode())
            os.rename(self._path, self._target)
        except OSError:
            return


def read_lines(path: str, head: str) -> list[str] | None:
    """The lines between *head* and the end; None when the file is absent, cut, or begins otherwise."""
    try:
        with open(path, "rb", buffering=0) as file:
            text = file.read().decode()
        first, *lines, end = text.split("\n")
    except (OSError, ValueError):
        return None
    return None if first != head or end != END or "\0" in text else lines
