"""The root file system of one container: image layers, a generated layer, a writable one on top.

Everything is mounted in the caller's private namespace (see
`runtime.oci_runtime.enter_namespace`) and dies with it. The generated layer holds
what a launch adds to the image (mount points, driver links, ld.so.cache), so the
writable layer holds the container's own changes and nothing else.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, RuntimeFailed
from ..linux import files, mounts, paths
from ..oci.edits import ContainerEdits

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..oci.digest import Digest
    from ..snapshots import Snapshotter

#: Renames and metadata-only copies would leave marks in the upper layer that a tar cannot hold.
_OVERLAY_OPTIONS = ("redirect_dir=off", "metacopy=off", "index=off")
_USER_OPTIONS = ("index=off",)  # with userxattr the kernel refuses the other two words, and never does them


class RootFs(msgspec.Struct, frozen=True, kw_only=True):
    """A mounted root: its path, an open descriptor of it, and the edits that its generated layer was made for."""

    path: str
    fd: int
    edits: ContainerEdits


def place_in(workspace: str) -> str:
    """Where `mounted` puts the root."""
    return f"{workspace}/rootfs"


@contextmanager
def workspace(folder: str) -> Iterator[str]:
    """A file system in memory at folder/mounts, for all that need not outlive a run: mounts, bundle, generated files.

    It takes everything mounted in it along when it is unmounted at the end (each
    unmount waits for the kernel's readers, 2 ms), and nothing of it has to be deleted.
    The caller is in a private mount namespace.
    """
    place = f"{folder}/mounts"
    _make_folder(place)
    mounts.Tmpfs(target=place).execute()
    try:
        yield place
    finally:
        mounts.unmount(place)


def _make_folder(path: str) -> None:
    """Unless it is there. Where it lies exists: made anew behind an `rm`, that were a container without a record."""
    with suppress(FileExistsError):
        os.mkdir(path)


@contextmanager
def image_view(
    snapshotter: Snapshotter, diff_ids: tuple[Digest, ...], place: str, *, userxattr: bool
) -> Iterator[tuple[int, tuple[str, ...]]]:
    """The image alone, read-only: a descriptor of its root, and its layers' folders, topmost first.

    *place* is a workspace; the layers stay mounted in it.
    """
    steps, lowers = snapshotter.lowers(diff_ids, place)
    for step in steps:
        step.execute()
    view, empty = f"{place}/image", f"{place}/empty"
    os.mkdir(view)
    os.mkdir(empty)  # overlay wants two lowers when nothing is writable (before Linux 6.5)
    if lowers:  # an image may have no layers
        mounts.Overlay(lowers=(*lowers, empty), target=view, userxattr=userxattr).execute()
    root_fd = paths.open_root(view)
    try:
        yield root_fd, lowers or (empty,)
    finally:
        os.close(root_fd)


@contextmanager
def container_view(
    snapshotter: Snapshotter, diff_ids: tuple[Digest, ...], upper: str, place: str, *, userxattr: bool
) -> Iterator[int]:
    """A container's files, its image's and its own, read-only: a descriptor of their root.

    Without what a launch generates and without volumes: those are on no disk of ours.
    *place* is a workspace. A container that runs may write to *upper* meanwhile; what is
    seen of that then is not defined, as the kernel says.
    """
    with image_view(snapshotter, diff_ids, place, userxattr=userxattr) as (_, lowers):
        view = f"{place}/container"
        os.mkdir(view)
        options = _USER_OPTIONS if userxattr else _OVERLAY_OPTIONS
        mounts.Overlay(lowers=(upper, *lowers), target=view, userxattr=userxattr, options=options).execute()
        root_fd = paths.open_root(view)
        try:
            yield root_fd
        finally:
            os.close(root_fd)


@contextmanager
def mounted(
    snapshotter: Snapshotter,
    diff_ids: tuple[Digest, ...],
    folder: str,
    place: str,
    edits_for: Callable[[int], ContainerEdits],
    *,
    userxattr: bool,
    volatile: bool = False,
) -> Iterator[RootFs]:
    """The container's root, writable, at place_in(place); its own files go to folder/upper, on a file system that can.

    *place* is a workspace. *edits_for* is given a descriptor of the image's root and
    says what the generated layer must hold (links, files, mount points): some of it
    depends on the image. *volatile* skips syncs of the writable layer, for a container
    that is thrown away. Raises what the kernel refuses, as Unsupported or RuntimeFailed.
    """
    from . import generated

    made, root = f"{place}/generated", place_in(place)
    upper, work = f"{folder}/upper", f"{folder}/work"
    for path in (made, root, upper, work):
        _make_folder(path)
    with image_view(snapshotter, diff_ids, place, userxattr=userxattr) as (image_fd, lowers):
        edits = edits_for(image_fd)
        generated.build(edits, image_root_fd=image_fd, folder=made)
        _like_root_of_image(image_fd, made)
        with _hinting_at_place(folder):
            _like_root_of_image(image_fd, upper)
    options = _USER_OPTIONS if userxattr else _OVERLAY_OPTIONS
    overlay = mounts.Overlay(
        lowers=(made, *lowers),
        upper=upper,
        work=work,
        target=root,
        userxattr=userxattr,
        options=(*options, "volatile") if volatile else options,
    )
    with _hinting_at_place(folder):
        overlay.execute()
    root_fd = paths.open_root(root)
    try:
        yield RootFs(path=root, fd=root_fd, edits=edits)
    finally:
        os.close(root_fd)


@contextmanager
def files_at_rest() -> Iterator[None]:
    """For reading a container's files: where its program changes them meanwhile, Conflict (file-changed) says so."""
    try:
        yield
    except (FileNotFoundError, NotADirectoryError) as error:
        raise _changed(f"{os.fsdecode(error.filename or '')!r} was there and is gone") from error
    except Conflict as error:
        raise _changed(error.message) from error


def _changed(what: str) -> Conflict:
    return Conflict(
        "the container's program changed files while they were read",
        code="file-changed",
        context=what,
        hint="do it again, or when the program has ended or is at rest",
    )


@contextmanager
def _hinting_at_place(folder: str) -> Iterator[None]:
    """What goes wrong inside may be the fault of the file system that *folder* is on."""
    try:
        yield
    except (OSError, RuntimeFailed) as error:
        known = files.translate(error) if isinstance(error, OSError) else error
        known.hint = f"no overlay may write to {folder}? ARGOSY_LOCAL names a folder on another disk"
        raise known from error


def _like_root_of_image(image_fd: int, folder: str) -> None:
    """The topmost folder of an overlay gives the root its mode, owner and time; they are the image's."""
    root = os.fstat(image_fd)
    os.chown(folder, root.st_uid, root.st_gid)
    os.chmod(folder, root.st_mode & 0o7777)
    os.utime(folder, ns=(root.st_atime_ns, root.st_mtime_ns))
