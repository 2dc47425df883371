"""Extended attributes of files on disk, as far as they belong to a layer."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Attributes that belong to files; labels and measurements (security.selinux, .ima) belong to the host.
_KEPT = (b"user.", b"trusted.", b"security.capability", b"system.posix_acl_")


def file_xattrs(place: int | bytes) -> dict[bytes, bytes]:
    """The attributes of a descriptor or of a path whose last part is not followed; marks of overlayfs among them."""
    follow = isinstance(place, int)
    try:
        names = [os.fsencode(name) for name in os.listxattr(place, follow_symlinks=follow)]
    except OSError:  # a file system without them
        return {}
    return {name: os.getxattr(place, name, follow_symlinks=follow) for name in names if name.startswith(_KEPT)}


def overlay_mark(xattrs: Mapping[bytes, bytes], name: bytes) -> bytes | None:
    """The mark *name* (see whiteouts) in root's form or in a user's."""
    return xattrs.get(b"trusted." + name, xattrs.get(b"user." + name))
