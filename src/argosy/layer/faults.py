"""What archives do wrong beyond their format; one wording for those who index and those who unpack."""

from __future__ import annotations

from ..errors import Corrupt


def not_a_folder(path: bytes, name: bytes, why: str) -> Corrupt:
    return Corrupt(
        f"the archive puts a file into {shown(path)}",
        code="archive-parent-not-folder",
        context=f"{shown(name)} is {why}",
    )


def link_missing(path: bytes, target: bytes) -> Corrupt:
    return Corrupt(
        f"the archive links {shown(path)} to {shown(target)}, which is not in it",
        code="archive-link-missing",
        context="a hard link must name a file that the same layer holds before it",
    )


def shown(path: bytes) -> str:
    """A name for people; bytes that are no UTF-8 escaped."""
    return repr(path.decode(errors="backslashreplace"))
