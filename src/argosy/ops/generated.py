"""The generated layer: what a launch adds to an image, in a folder between image and writable layer.

It holds links, small files, the loader's configuration, and a mount point for every
bind that the image has no place for, so that neither mounting nor the loader leaves
a trace in the writable layer. The image is read through a descriptor of its root;
its links are followed on paper, inside that root, and nothing of it is run.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from ..linux import files, paths

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..oci.edits import BindMount, ContainerEdits

_FOLDER_MODE = 0o755
_FILE_MODE = 0o644
#: The runtime mounts file systems of its own there; mount points below them cannot be prepared.
_KERNEL_FOLDERS = ("/dev/", "/proc/", "/sys/")
#: These are folders of their own whatever an image has there. crun 1.8 makes its device nodes through a link
#: /dev without regard to the root: in a folder of the host.
_OWN_FOLDERS = frozenset({"/dev", "/proc", "/sys"})
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC


class Generated(msgspec.Struct, frozen=True, kw_only=True):
    """What was written, as real paths in the image, sorted."""

    folders: tuple[str, ...] = ()
    mount_points: tuple[str, ...] = ()
    links: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    def describe(self) -> tuple[str, ...]:
        """One line each, for --debug."""
        rows = (
            ("folder", self.folders),
            ("mount point", self.mount_points),
            ("link", self.links),
            ("file", self.files),
        )
        return tuple(f"generated {kind} {path}" for kind, found in rows for path in found)


def build(edits: ContainerEdits, *, image_root_fd: int, folder: str) -> Generated:
    """Fill *folder* (what is in it goes first) for *edits* over the image behind *image_root_fd*.

    Folders that the image has too carry its mode, owner, times and extended
    attributes, because overlay shows those of the topmost. Links and files replace
    what the image has of the same name; so do the mount points of read-only driver
    files where the image has a link, which would lead the mount elsewhere, and those of
    files whose link leads into /dev, /proc or /sys. The latter three are always folders.
    Raises InvalidInput (codes "image-link-loop", "image-link-to-kernel") and OSError of the disk.
    """
    _empty(folder)
    layer = _Layer(image_root_fd, folder)
    try:
        if edits.library_folders:
            from .loader import configuration

            edits = edits.merge(configuration(edits, image_root_fd=image_root_fd, resolve=layer.resolve))
        for mount in edits.mounts:
            layer.add_mount_point(mount)
        for path in edits.folders:
            layer.add_folder(path)
        for link in edits.links:
            layer.add_link(link.path, link.target)
        for file in edits.files:
            layer.add_file(file.path, file.content, file.mode)
        return layer.finish()
    finally:
        layer.close()


def _empty(folder: str) -> None:
    os.makedirs(folder, exist_ok=True)
    for entry in os.scandir(folder):
        if entry.is_dir(follow_symlinks=False):
            files.remove_tree(entry.path)
        else:
            os.unlink(entry.path)


class _Layer:
    """The folder being filled. All names are absolute as the container sees them."""

    def __init__(self, image_fd: int, folder: str) -> None:
        self._image_fd = image_fd
        self._folder_fd = paths.open_root(folder)
        self._resolved: dict[str, str] = {"/": "/"}
        #: {real folder: times to give it at the end, None for one that the image does not have}
        self._folders: dict[str, tuple[int, int] | None] = {}
        self._mount_points: list[str] = []
        self._links: list[str] = []
        self._files: list[str] = []

    def close(self) -> None:
        os.close(self._folder_fd)

    def resolve(self, path: str) -> str:
        """*path* without links, «.» and «..», by the image's links; the rest of a missing path stays as it is."""
        known = self._resolved.get(path)
        if known is None:
            known = self._resolved[path] = self._walk(path)
        return known

    def add_mount_point(self, mount: BindMount) -> None:
        """A place for *mount* unless the image has one of the right kind."""
        is_folder = os.path.isdir(mount.host_path)
        if is_folder:
            self.add_folder(mount.container_path)
            return
        real = self._name(mount.container_path) if _is_driver_file(mount) else self.resolve(mount.container_path)
        if _is_led_to_kernel(mount.container_path, real):
            real = self._name(mount.container_path)
            _refuse_kernel(mount.container_path, real)
        status = self._image_status(real)
        if real.startswith(_KERNEL_FOLDERS) or (status is not None and stat.S_ISREG(status.st_mode)):
            return
        self._put_file(real, b"", _FILE_MODE)
        self._mount_points.append(real)

    def add_folder(self, path: str) -> None:
        """A folder at *path* unless the image has one."""
        real = self.resolve(path)
        _refuse_kernel(path, real)
        status = self._image_status(real)
        if real == "/" or real.startswith(_KERNEL_FOLDERS) or (status is not None and stat.S_ISDIR(status.st_mode)):
            return
        self._make_folder(real)

    def add_link(self, path: str, target: str) -> None:
        """A link, unless the image has the very same."""
        real = self._name(path)
        if self._link_text(real) == target:
            return
        self._make_folder(os.path.dirname(real))
        paths.symlink_in_root(self._folder_fd, target, real)
        self._links.append(real)

    def add_file(self, path: str, content: bytes, mode: int) -> None:
        real = self._name(path)
        self._put_file(real, content, mode)
        self._files.append(real)

    def finish(self) -> Generated:
        """Times last, since writing into a folder changes them; children before parents."""
        for folder, times in sorted(self._folders.items(), reverse=True):
            if times is not None:
                os.utime(folder.lstrip("/"), ns=times, dir_fd=self._folder_fd, follow_symlinks=False)
        return Generated(
            folders=tuple(sorted(self._folders)),
            mount_points=tuple(sorted(self._mount_points)),
            links=tuple(sorted(self._links)),
            files=tuple(sorted(self._files)),
        )

    def _name(self, path: str) -> str:
        """*path* with its folder resolved but its last name taken as it is."""
        folder, name = os.path.split(os.path.normpath(path))
        return os.path.join(self.resolve(folder), name)

    def _walk(self, path: str) -> str:
        pending, done, followed = path.split("/")[::-1], list[str](), 0
        while pending:
            name = pending.pop()
            if name == "..":
                del done[-1:]
            elif name not in ("", "."):
                done.append(name)
                target = self._link_text("/" + "/".join(done))
                if target is None:
                    continue
                followed += 1
                if followed > paths.MOST_LINKS:
                    raise InvalidInput(f"links of the image at {path!r} lead round in a circle", code="image-link-loop")
                del done[0 if target.startswith("/") else -1 :]
                pending += target.split("/")[::-1]
        return "/" + "/".join(done)

    def _link_text(self, real: str) -> str | None:
        """The text of the image's link at *real* (resolved but for its last name)."""
        if real in _OWN_FOLDERS:
            return None
        try:
            return paths.readlink(self._image_fd, real)
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT, errno.ENOTDIR):
                return None
            raise

    def _image_status(self, real: str) -> os.stat_result | None:
        try:
            return paths.lstat_in_root(self._image_fd, real)
        except (FileNotFoundError, NotADirectoryError):
            return None

    def _put_file(self, real: str, content: bytes, mode: int) -> None:
        self._make_folder(os.path.dirname(real))
        paths.write_file_in_root(self._folder_fd, real, content, mode)

    def _make_folder(self, real: str) -> None:
        """Make *real* and what is above it; each as the image has it, or root's with mode 0755."""
        if real == "/" or real in self._folders:
            return
        self._make_folder(os.path.dirname(real))
        os.mkdir(real.lstrip("/"), _FOLDER_MODE, dir_fd=self._folder_fd)
        status = self._image_status(real)
        like_image = status is not None and stat.S_ISDIR(status.st_mode)
        fd = os.open(
            real.lstrip("/"), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._folder_fd
        )
        try:
            if status is not None and like_image:
                self._copy_attributes(real, status, fd)
            else:
                os.fchmod(fd, _FOLDER_MODE)  # whatever the umask is
        finally:
            os.close(fd)
        self._folders[real] = (status.st_atime_ns, status.st_mtime_ns) if status is not None and like_image else None

    def _copy_attributes(self, real: str, status: os.stat_result, fd: int) -> None:
        image_folder = paths.open_in_root(self._image_fd, real, _FOLDER)
        try:
            _copy_xattrs(f"/proc/self/fd/{image_folder}", fd)
        finally:
            os.close(image_folder)
        with _tolerated():  # owners that have no number in this user namespace
            os.fchown(fd, status.st_uid, status.st_gid)
        os.fchmod(fd, stat.S_IMODE(status.st_mode))


def _is_led_to_kernel(path: str, real: str) -> bool:
    """Whether a link of the image leads from elsewhere into a file system of the kernel, which does not exist yet."""
    return f"{real}/".startswith(_KERNEL_FOLDERS) and not f"{os.path.normpath(path)}/".startswith(_KERNEL_FOLDERS)


def _refuse_kernel(path: str, real: str) -> None:
    if _is_led_to_kernel(path, real):
        raise InvalidInput(
            f"nothing can be mounted at {path!r} in this image",
            code="image-link-to-kernel",
            context=f"its links lead to {real!r}, where the kernel's own file systems will be",
        )


def _is_driver_file(mount: BindMount) -> bool:
    """By the options that only driver files (and CDI's) carry; a user's volume follows links as Docker's do."""
    return {"ro", "nosuid", "nodev"} <= set(mount.options)


def _copy_xattrs(source: str, fd: int) -> None:
    """All but overlay's own marks, which mean something else here; as far as this user may set them."""
    try:
        names = os.listxattr(source)
    except OSError:
        return  # a file system without any
    for name in names:
        if not name.startswith(("trusted.overlay.", "user.overlay.")):
            with _tolerated():
                os.setxattr(fd, name, os.getxattr(source, name))


@contextmanager
def _tolerated() -> Iterator[None]:
    """What an unprivileged user may not copy is left as it is: the folder's content matters more."""
    try:
        yield
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EACCES, errno.EINVAL, errno.EOPNOTSUPP, errno.ENODATA):
            raise
