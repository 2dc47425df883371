"""Where `save` and `export` write: -o, or the standard output where that is no terminal."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from .host import Host


@contextmanager
def archive_output(path: str | None, host: Host) -> Iterator[BinaryIO]:
    """The file at *path*, complete at the end or not there; «-» and None mean the standard output."""
    from ..linux.outputs import buffered, output_file

    require_no_terminal(path, host)
    if path in (None, "-"):
        with buffered(1, "the standard output", close=False) as out:
            yield out
        return
    with output_file(os.path.abspath(path)) as out:
        yield out


def require_no_terminal(path: str | None, host: Host) -> None:
    """Raises InvalidInput (is-a-terminal): bytes of an archive make a terminal do anything."""
    if path in (None, "-") and host.stdout_is_terminal:
        raise InvalidInput(
            "cowardly refusing to write an archive to a terminal",
            code="is-a-terminal",
            hint="name a file with -o FILE, or redirect the output",
        )
