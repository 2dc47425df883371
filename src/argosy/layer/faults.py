"""What archives do wrong beyond their format; one wording for those who index and those who unpack."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Corrupt

if TYPE_CHECKING:
    from collections.abc import Iterator

_NOT_A_FOLDER = "archive-parent-not-folder"


def not_a_folder(path: bytes, name: bytes, why: str) -> Corrupt:
    return Corrupt(
        f"the archive puts a file into {shown(path)}",
        code=_NOT_A_FOLDER,
        context=f"{shown(name)} is {why}",
    )


@contextmanager
def nothing_to_hide() -> Iterator[None]:
    """Passes over a mark that lies in what is no folder: lower layers show nothing there.

    When a file or a link replaces a folder, umoci (0.4.7) marks what the folder held, too.
    """
    try:
        yield
    except Corrupt as error:
        if error.code != _NOT_A_FOLDER:
            raise


def link_missing(path: bytes, target: bytes) -> Corrupt:
    return Corrupt(
        f"the archive links {shown(path)} to {shown(target)}, which is not in it",
        code="archive-link-missing",
        context="a hard link must name a file that the same layer holds before it",
    )


def shown(path: bytes) -> str:
    """A name for people; bytes that are no UTF-8 escaped."""
    return repr(path.decode(errors="backslashreplace"))
