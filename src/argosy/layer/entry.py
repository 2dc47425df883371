"""One member of a layer: its name, kind, metadata, and where its data lies.

Names come out of here clean: relative, without «.» and «..», so that nothing below
has to ask again. Symlink texts stay as they are; whoever walks them keeps them inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Literal

import msgspec

from ..errors import Corrupt

Kind = Literal["file", "folder", "symlink", "hardlink", "character", "block", "fifo"]

PATH_LIMIT = 4095  # bytes; PATH_MAX of Linux without its NUL, also the longest symlink text
NAME_LIMIT = 255  # bytes; NAME_MAX of Linux, a part between slashes
XATTR_NAME_LIMIT = 255  # bytes; XATTR_NAME_MAX
XATTRS_LIMIT = 1 << 16  # bytes of names and values an entry; XATTR_SIZE_MAX is the same for one value

WHITEOUT_PREFIX = b".wh."
OPAQUE_NAME = b".wh..wh..opq"

NO_XATTRS: Mapping[bytes, bytes] = MappingProxyType({})


class Entry(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """A member of an archive or a file of a folder, without its data.

    *path* is relative and clean; b"" is the root folder. *mode* has permission bits
    only (0o7777). *linkname* is the text of a symlink, or the clean path of the
    entry that a hard link joins. *size* counts the bytes that a reader of the file
    sees, *stored* those that the archive holds (fewer when sparse).
    """

    path: bytes
    kind: Kind
    mode: int = 0o644
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    size: int = 0
    linkname: bytes = b""
    major: int = 0
    minor: int = 0
    xattrs: Mapping[bytes, bytes] = NO_XATTRS
    #: byte in the uncompressed archive where the stored data begins
    offset: int = 0
    stored: int = 0
    #: (offset in the file, length) of each stored part, ascending; None: the file is one part
    extents: tuple[tuple[int, int], ...] | None = None

    @property
    def name(self) -> bytes:
        return self.path.rpartition(b"/")[2]

    @property
    def parent(self) -> bytes:
        """Path of the folder that holds it; b"" is the root."""
        return self.path.rpartition(b"/")[0]


def clean_path(raw: bytes) -> bytes:
    """*raw* relative to the root of the layer, without empty, «.» and trailing parts.

    Bytes that are no UTF-8 are kept. Raises Corrupt: archive-path-escapes for «..»,
    archive-name-invalid for NUL, archive-name-too-long.
    """
    if b"\0" in raw:
        raise _invalid(raw, "archive-name-invalid", "it contains a NUL byte")
    parts = [part for part in raw.split(b"/") if part not in (b"", b".")]
    if b".." in parts:
        raise _invalid(raw, "archive-path-escapes", "it goes up with '..', which no layer needs")
    path = b"/".join(parts)
    if len(path) > PATH_LIMIT or any(len(part) > NAME_LIMIT for part in parts):
        raise _invalid(
            raw[:300], "archive-name-too-long", f"Linux allows {NAME_LIMIT} bytes a part, {PATH_LIMIT} in all"
        )
    return path


def _invalid(raw: bytes, code: str, why: str) -> Corrupt:
    return Corrupt(f"the archive holds the name {raw.decode(errors='backslashreplace')!r}", code=code, context=why)
