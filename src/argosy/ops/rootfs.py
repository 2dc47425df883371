"""The root file system of one container: image layers, a generated layer, a writable one on top.

Everything is mounted in the caller's private namespace (see
`runtime.oci_runtime.enter_namespace`) and dies with it. The generated layer holds
what a launch adds to the image (mount points, driver links, ld.so.cache), so the
writable layer holds the container's own changes and nothing else.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..linux import mounts, paths
from ..oci.edits import ContainerEdits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from ..oci.digest import Digest
    from ..snapshots import Snapshotter

_MOUNTS = "mounts"  # folder of a container in which everything is mounted
#: Renames and metadata-only copies would leave marks in the upper layer that a tar cannot hold.
_OVERLAY_OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
_USER_OPTIONS = ("index=off",)  # with userxattr the kernel refuses the other two words, and never does them


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """A mounted root: its path, an open descriptor of it, and the edits that its generated layer was made for."""

    path: str
    fd: int
    edits: ContainerEdits


@contextmanager
def image_view(
    snapshotter: Snapshotter, diff_ids: tuple[Digest, ...], folder: Path, *, userxattr: bool
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The image alone, read-only: a descriptor of its root, and its layers' folders, topmost first.

    Everything is mounted below folder/mounts, itself a file system in memory, which
    takes all of it along when it is unmounted at the end (each unmount waits for the
    kernel's readers, 2 ms). The caller is in a private mount namespace.
    """
    place = folder / _MOUNTS
    place.mkdir(exist_ok=True)
    mounts.Tmpfs(target=str(place)).execute()
    with ExitStack() as stack:
        stack.callback(mounts.unmount, str(place))
        steps, lowers = snapshotter.lowers(diff_ids, place)
        for step in steps:
            step.execute()
        view, empty = place / "image", place / "empty"
        view.mkdir()
        empty.mkdir()  # overlay wants two lowers when nothing is writable (before Linux 6.5)
        names = tuple(str(lower) for lower in lowers)
        mounts.Overlay(lowers=(*names, str(empty)), target=str(view), userxattr=userxattr).execute()
        root_fd = paths.open_root(view)
        stack.callback(os.close, root_fd)
        yield root_fd, names or (str(empty),)


@contextmanager
def mounted(
    snapshotter: Snapshotter,
    diff_ids: tuple[Digest, ...],
    folder: Path,
    edits_for: Callable[[int], ContainerEdits],
    *,
    userxattr: bool,
    volatile: bool = False,
) -> Iterator[RootFs]:
    """The container's root, writable, below folder/mounts; unmounted at the end.

    *edits_for* is given a descriptor of the image's root and says what the generated
    layer must hold (links, files, mount points): some of it depends on the image.
    *volatile* skips syncs of the writable layer, for a container that is thrown
    away. Raises what the kernel refuses, as Unsupported or RuntimeFailed.
    """
    from . import generated

    with image_view(snapshotter, diff_ids, folder, userxattr=userxattr) as (image_fd, lowers):
        edits = edits_for(image_fd)
        made = folder / "generated"
        upper, work, merged = folder / "upper", folder / "work", folder / _MOUNTS / "rootfs"
        for place in (made, upper, work, merged):
            place.mkdir(exist_ok=True)
        generated.build(edits, image_root_fd=image_fd, folder=made)
        for place in (made, upper):
            _like_root_of_image(image_fd, place)
        options = _USER_OPTIONS if userxattr else _OVERLAY_OPTIONS
        overlay = mounts.Overlay(
            lowers=(str(made), *lowers),
            upper=str(upper),
            work=str(work),
            target=str(merged),
            userxattr=userxattr,
            options=(*options, "volatile") if volatile else options,
        )
        overlay.execute()
        root_fd = paths.open_root(merged)
        try:
            yield RootFs(path=str(merged), fd=root_fd, edits=edits)
        finally:
            os.close(root_fd)


def _like_root_of_image(image_fd: int, folder: Path) -> None:
    """The topmost folder of an overlay gives the root its mode, owner and time; they are the image's."""
    root = os.fstat(image_fd)
    os.chown(folder, root.st_uid, root.st_gid)
    os.chmod(folder, root.st_mode & 0o7777)
    os.utime(folder, ns=(root.st_atime_ns, root.st_mtime_ns))
