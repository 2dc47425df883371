"""Names by which a layer takes files of lower layers away.

Source: image-spec «layer.md#whiteouts»; the `.wh..wh.` names of AUFS are passed over as
Docker does. In a folder on disk overlayfs has its own marks; see `apply` and `diff`.
"""

from __future__ import annotations

from typing import Literal

from ..errors import Corrupt
from .entry import OPAQUE_NAME, WHITEOUT_PREFIX

_META_PREFIX = WHITEOUT_PREFIX + WHITEOUT_PREFIX

#: What overlayfs calls its marks, below "trusted." or (userxattr mounts) "user.".
OPAQUE_XATTR = b"overlay.opaque"
ORIGIN_XATTR = b"overlay.origin"
WHITEOUT_XATTR = b"overlay.whiteout"

Mark = tuple[Literal["whiteout", "opaque", "ignored"], bytes]


def mark_of(path: bytes) -> Mark | None:
    """What an entry of this name stands for; None for an ordinary file.

    («whiteout», path of the file that goes), («opaque», path of the folder whose lower
    content goes), («ignored», path) for leftovers of AUFS. Raises Corrupt, code
    archive-whiteout-invalid, for names that hide nothing nameable.
    """
    if WHITEOUT_PREFIX not in path:
        return None
    folder, _, name = path.rpartition(b"/")
    if folder and (mark := _mark_of_parent(path, folder)):
        return mark
    if not name.startswith(WHITEOUT_PREFIX):
        return None
    if name == OPAQUE_NAME:
        return "opaque", folder
    if name.startswith(_META_PREFIX):
        return "ignored", path
    hidden = name[len(WHITEOUT_PREFIX) :]
    if hidden in (b"", b".", b".."):
        raise _invalid(path, "it hides no file that could exist")
    return "whiteout", folder + b"/" + hidden if folder else hidden


def _mark_of_parent(path: bytes, folder: bytes) -> Mark | None:
    for part in folder.split(b"/"):
        if part.startswith(_META_PREFIX):
            return "ignored", path
        if part.startswith(WHITEOUT_PREFIX):
            raise _invalid(path, "a whiteout is no folder")
    return None


def _invalid(path: bytes, why: str) -> Corrupt:
    return Corrupt(
        f"the archive holds the whiteout {path.decode(errors='backslashreplace')!r}",
        code="archive-whiteout-invalid",
        context=why,
    )
