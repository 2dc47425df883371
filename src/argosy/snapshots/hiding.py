"""What an unpacked layer hides of those below, where its own file system cannot say so.

overlayfs knows a whiteout by its device number and an opaque folder by an extended attribute. On
a file system that has neither (NFS), a layer is unpacked without them, and its facts list
the paths. They become whiteouts, all of them, in a small folder in memory that is put right
below the layer: a whiteout under a folder ends the search in lower layers as an opaque mark
does, and what the layer itself has lies above it.
"""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def hide(paths: Sequence[bytes], folder: str) -> str:
    """Make *folder*, with a whiteout at each of *paths*, none of which lies in another; gives *folder*.

    Where users make whiteouts, also in user namespaces, Linux is 5.8 or later, older than
    their overlays.
    """
    top = os.fsencode(folder)
    os.mkdir(top)
    for path in paths:
        place = top + b"/" + path
        os.makedirs(os.path.dirname(place), exist_ok=True)
        os.mknod(place, stat.S_IFCHR, 0)
    return folder
