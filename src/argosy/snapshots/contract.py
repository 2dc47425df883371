"""What every kind of snapshots promises. `tests/conformance/test_snapshots.py` is its suite."""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from ..layer.contents import LayerContents
    from ..linux.mounts import Mount
    from ..oci.digest import Digest


class Snapshotter(Protocol):
    """Turns layers into folders that overlayfs can put on top of each other.

    Vocabulary. A *layer* is an uncompressed tar, named by the digest of its bytes, the
    *diff-id*. Its *snapshot* is whatever this kind keeps so that the layer can be a
    lower folder: the tar with an index, or the unpacked files. A snapshot depends on
    nothing but its own layer, so images share snapshots in any combination, and layers
    are applied in any order and at the same time.

    Life-cycle. A snapshot is absent or complete; there is nothing between. `apply`
    builds aside, in the store's tmp folder, and renames as its last step; whatever
    interrupts it (an error, kill -9) leaves at most rubbish in tmp that the next apply
    of the layer or prune takes. Snapshots never change. `remove` makes one absent at once.
    Nothing is synced: after a power cut a snapshot may be damaged, so callers list it in
    `store.unsettled` before they apply it.

    Sharing. Threads and processes may call everything at the same time. When two apply
    the same layer, the second waits and finds it done. Removing what
    somebody has mounted is the caller's fault to avoid; the kernel then keeps the
    files until the mount goes.

    Content. The merged view of the lower folders equals what unpacking the layers in
    order with GNU tar gives: names, modes, owners, times to the nanosecond, links,
    extended attributes, devices, holes. Whiteouts and opaque folders concern lower
    layers only, wherever in the archive they stand. Marks of overlayfs in an archive
    are dropped. A folder that a layer uses but does not describe looks as the layer
    below has it. Without the rights for owners, devices or attributes (user
    namespaces) they are what this user may give.

    Errors beside those named: Exhausted (disk, quota), Unauthorized, as linux.files
    translates the kernel's.
    """

    #: Name of the kind, as written in the store.
    kind: str

    def has(self, diff_id: Digest) -> bool:
        """Whether the snapshot is complete. One look at the disk."""

    def apply(self, diff_id: Digest, tar: BinaryIO) -> None:
        """Make the snapshot of a layer from its uncompressed *tar*, which is read to its end but not closed.

        Does nothing, and need not read, when it exists. Costs the layer's bytes once
        on disk, and little memory.

        Raises Corrupt: digest-mismatch when *tar* is not the layer that *diff_id* names,
        or what `layer.archive` says about broken archives. Nothing is left then.
        """

    def verify(self, diff_id: Digest, open_tar: Callable[[], BinaryIO] | None = None) -> None:
        """Read the whole snapshot and compare it with what it was made of.

        A kind that keeps no tar makes the layer once more aside, from what *open_tar*
        gives, and compares the two; where that is None, raises NotFound, or gives something
        else than the layer, it can tell no more than that the snapshot is there.

        Raises NotFound (code layer-not-unpacked), Corrupt (digest-mismatch, layer-index-damaged,
        layer-facts-damaged, layer-files-missing, layer-files-damaged), Exhausted when there is no room to
        compare. The cure of what is corrupt is to remove it and to apply the layer again.
        """

    def mend(self, diff_id: Digest) -> None:
        """Make a damaged snapshot, or what is left of one, whole again of the tar that it keeps. Durable.

        For layers that nothing else could be made of. Raises NotFound where no tar is kept or left,
        Corrupt (as apply) where it is not the layer's; then nothing has changed.
        """

    def usage(self, diff_id: Digest) -> int:
        """Bytes of the layer, uncompressed: about what removing it frees. NotFound (code layer-not-unpacked)."""

    def room(self, diff_id: Digest) -> int:
        """Bytes that the snapshot takes on the disk, all of them: what removing it frees. 0 when absent."""

    def touched_ns(self, diff_id: Digest) -> int:
        """When the snapshot was made, in nanoseconds by the file system's clock. 0 when absent."""

    def open_tar(self, diff_id: Digest) -> BinaryIO | None:
        """The exact tar that the snapshot was made of; the caller closes it. None where this kind keeps none.

        Reading verifies nothing. Raises NotFound (layer-not-unpacked), Corrupt (size-mismatch).
        """

    def warnings(self, diff_id: Digest) -> tuple[str, ...]:
        """What could not be kept of the layer, a sentence a sort, for people. NotFound (code layer-not-unpacked)."""

    def contents(self, diff_id: Digest) -> LayerContents:
        """The layer's files, to be looked at without mounting anything; the caller closes it.

        Costs what is looked at; without the rights that `run` needs it may find folders
        that it cannot read.

        Raises NotFound (code layer-not-unpacked), Corrupt (layer-files-missing, size-mismatch,
        layer-index-damaged, layer-facts-damaged).
        """

    def remove(self, diff_id: Digest) -> None:
        """Delete the snapshot; nothing to do when it is absent."""

    def sync(self, diff_id: Digest) -> None:
        """Make a snapshot durable; nothing to do when it is absent. Quick once the kernel has written it by itself."""

    def walk(self) -> Iterator[Digest]:
        """Diff-ids of all complete snapshots, lazily, in no order."""

    def lowers(self, diff_ids: tuple[Digest, ...], mount_root: str) -> tuple[tuple[Mount, ...], tuple[str, ...]]:
        """How to see *diff_ids* (lowest layer first, as an image lists them) as lower folders of an overlay.

        Gives (mounts to make first, in order; folders, topmost first). *mount_root* is
        an empty folder on a writable file system, for mount points and small generated
        folders; it must stay while the overlay does. Mounting is the caller's: in a
        private namespace nothing needs to be undone. Of a layer that is listed twice
        only the upper place counts, which gives the same view.

        Raises NotFound (code layer-not-unpacked).
        """
