"""What a layer holds, looked at where it lies: nothing is mounted, nothing unpacked.

`erofs_reader` answers from an index, `tree_reader` from an unpacked folder, both with
the same values; `view` puts the layers of an image on top of each other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Literal, Protocol

import msgspec

from .entry import NO_XATTRS

if TYPE_CHECKING:
    from types import TracebackType

NodeKind = Literal["file", "folder", "symlink", "character", "block", "fifo", "socket", "whiteout"]


class Node(msgspec.Struct, frozen=True, kw_only=True, gc=False):
    """What a layer has under a name. A whiteout takes that name of lower layers away and says nothing else."""

    kind: NodeKind
    #: the same for all names of one file, different for different files of the layer
    inode: int
    #: permission bits (0o7777)
    mode: int = 0
    uid: int = 0
    gid: int = 0
    mtime_ns: int = 0
    #: bytes that a reader of the file sees
    size: int = 0
    #: bytes that are really there, to the block of what holds them; fewer where the file has holes
    stored: int = 0
    #: names of the file in this layer; 1 for folders
    links: int = 1
    #: text of a symlink
    target: bytes = b""
    major: int = 0
    minor: int = 0
    #: without the marks of overlayfs
    xattrs: Mapping[bytes, bytes] = NO_XATTRS
    #: the folder hides what lower layers have in it
    opaque: bool = False
    #: the layer uses the folder but does not describe it: it looks as the layers below have it
    implied: bool = False


class LayerContents(Protocol):
    """The files of one layer. A context manager; not for several threads.

    Marks of the image (`.wh.` names) and of overlayfs come as whiteouts and opaque
    folders. Everything that is read is checked as far as it must be to stay finite and
    inside the layer.

    Raises Corrupt (layer-index-damaged) for what cannot be, and Errors as linux.files
    translates the kernel's.
    """

    @property
    def root(self) -> Node:
        """The layer's own root folder; it is never implied."""

    def children(self, folder: Node) -> Mapping[bytes, Node]:
        """What lies in a folder of this layer, by name, in no order; read once and kept."""

    def read(self, file: Node, offset: int, size: int) -> bytes:
        """At most *size* bytes of a file of this layer from byte *offset* on; fewer only at its end."""

    def __enter__(self) -> LayerContents: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
