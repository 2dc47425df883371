"""Work beneath a root whose content is hostile: an image's files, a driver root.

All names go through descriptors, so that no link and no rename inside the root
can lead outside. openat2 does it in the kernel (Linux 5.6); where it is missing
or a seccomp filter forbids it, a walk by components with O_NOFOLLOW does.
Functions raise OSError as the kernel does unless they say otherwise.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from . import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrPath

MOST_LINKS = 40  # MAXSYMLINKS of the kernel
_RACES = 64  # tries after EAGAIN: somebody renames inside the root while we look
_FOLDER = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC

#: None until openat2 was tried once; the tests set it to False to exercise the walk.
_has_openat2: bool | None = None


def open_root(path: StrPath) -> int:
    """An O_PATH descriptor of a root folder. *path* itself is trusted and may hold links."""
    return os.open(path, _FOLDER)


def open_in_root(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open *path* as a process with that root would: links are followed but never leave it.

    «/» and «..» at the top mean the root. Links of /proc (magic links) are refused
    with ELOOP. The descriptor is close-on-exec.
    """
    fd = _by_kernel(root_fd, path, flags, mode, syscalls.RESOLVE_IN_ROOT | syscalls.RESOLVE_NO_MAGICLINKS)
    return _Walk(root_fd, follow=True).open(path, flags, mode) if fd is None else fd


def open_beneath_nofollow(root_fd: int, path: str, flags: int, mode: int = 0) -> int:
    """Open *path* only if no part of it is a link (ELOOP) and it stays beneath *root_fd* (EXDEV)."""
    fd = _by_kernel(root_fd, path, flags, mode, syscalls.RESOLVE_BENEATH | syscalls.RESOLVE_NO_SYMLINKS)
    return _Walk(root_fd, follow=False).open(path, flags, mode) if fd is None else fd


def exists(root_fd: int, path: str) -> bool:
    """Whether *path* leads to something; a dangling link does not."""
    try:
        os.close(open_in_root(root_fd, path, os.O_PATH))
    except (FileNotFoundError, NotADirectoryError):
        return False
    except OSError as error:
        if error.errno == errno.ELOOP:
            return False
        raise
    return True


def lstat_in_root(root_fd: int, path: str) -> os.stat_result:
    """stat of *path*; a link at its end is not followed."""
    fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        return os.fstat(fd)
    finally:
        os.close(fd)


def readlink(root_fd: int, path: str) -> str:
    """The text of the link at *path*; EINVAL when it is none."""
    fd = open_in_root(root_fd, path, os.O_PATH | os.O_NOFOLLOW)
    try:
        if not stat.S_ISLNK(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, os.strerror(errno.EINVAL), path)
        return os.readlink("", dir_fd=fd)
    finally:
        os.close(fd)


def list_in_root(root_fd: int, path: str) -> tuple[str, ...]:
    """Names in a folder, sorted; bytes that are no UTF-8 come as surrogates (os.fsencode takes them back)."""
    fd = open_in_root(root_fd, path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        return tuple(sorted(os.listdir(fd)))
    finally:
        os.close(fd)


def read_file_in_root(root_fd: int, path: str, limit: int) -> bytes:
    """The bytes of a regular file of at most *limit* bytes.

    Devices and pipes are never opened: one in a hostile root could block or act.
    Raises InvalidInput (code "not-a-regular-file", "file-too-large") beside OSError.
    """
    path_fd = open_in_root(root_fd, path, os.O_PATH)
    try:
        if not stat.S_ISREG(os.fstat(path_fd).st_mode):
            raise InvalidInput(f"{path!r} is not a regular file", code="not-a-regular-file")
        fd = os.open(f"/proc/self/fd/{path_fd}", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(path_fd)
    with open(fd, "rb") as file:
        data = file.read(limit + 1)
    if len(data) > limit:
        raise InvalidInput(f"{path!r} is larger than {limit} bytes", code="file-too-large")
    return data


def make_folders(root_fd: int, path: str, mode: int = 0o755, uid: int = -1, gid: int = -1) -> int:
    """Make *path* and its parents where absent; returns an O_PATH descriptor that the caller closes.

    Only folders that are made get *mode*, *uid* and *gid* (-1: ours). Links are
    followed inside the root, a dangling one by making what it points at.
    """
    return _Walk(root_fd, follow=True, make=(mode, uid, gid)).open(path, _FOLDER, 0)


def write_file_in_root(
    root_fd: int, path: str, data: bytes, mode: int = 0o644, uid: int = -1, gid: int = -1, *, folder_mode: int = 0o755
) -> None:
    """Put a new regular file at *path*, in place of any file or link there; missing folders are made.

    The name itself is replaced, never followed. EISDIR when a folder is there.
    """
    with parent_in_root(root_fd, path, make_mode=folder_mode, uid=uid, gid=gid) as (parent_fd, name):
        _remove_name(parent_fd, name)
        fd = os.open(name, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=parent_fd)
        with open(fd, "wb") as file:
            file.write(data)
            if (uid, gid) != (-1, -1):
                os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)


def symlink_in_root(
    root_fd: int, target: str, path: str, uid: int = -1, gid: int = -1, *, folder_mode: int = 0o755
) -> None:
    """Put a link with the text *target* at *path*, in place of any file or link there; missing folders are made."""
    with parent_in_root(root_fd, path, make_mode=folder_mode, uid=uid, gid=gid) as (parent_fd, name):
        _remove_name(parent_fd, name)
        os.symlink(target, name, dir_fd=parent_fd)
        if (uid, gid) != (-1, -1):
            os.chown(name, uid, gid, dir_fd=parent_fd, follow_symlinks=False)


@contextmanager
def parent_in_root(
    root_fd: int, path: str, *, make_mode: int | None = None, uid: int = -1, gid: int = -1
) -> Iterator[tuple[int, str]]:
    """(descriptor of the folder that holds *path*, its last name), for the *at calls; closed at the end.

    With *make_mode* missing folders are made. InvalidInput when the path has no last name («/», «a/..»).
    """
    folder, _, name = path.rstrip("/").rpartition("/")
    if name in ("", ".", ".."):
        raise InvalidInput(f"{path!r} does not end in a name", code="path-without-name")
    if make_mode is None:
        fd = open_in_root(root_fd, folder or "/", _FOLDER)
    else:
        fd = make_folders(root_fd, folder or "/", make_mode, uid, gid)
    try:
        yield fd, name
    finally:
        os.close(fd)


def _remove_name(parent_fd: int, name: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=parent_fd)


def _by_kernel(root_fd: int, path: str, flags: int, mode: int, resolve: int) -> int | None:
    """openat2, or None where this process cannot use it."""
    global _has_openat2
    if _has_openat2 is False:
        return None
    for _ in range(_RACES):
        try:
            fd = syscalls.openat2(root_fd, path or ".", flags, mode=_creation_mode(flags, mode), resolve=resolve)
        except OSError as error:
            if error.errno == errno.EAGAIN:
                continue
            if error.errno == errno.ENOSYS or (error.errno == errno.EPERM and not _openat2_works(root_fd)):
                _has_openat2 = False
                return None
            raise
        _has_openat2 = True
        return fd
    return None  # renamed at all times; the walk does not mind


def _creation_mode(flags: int, mode: int) -> int:
    # openat2 refuses a mode where open() ignores it.
    return mode if flags & (os.O_CREAT | os.O_TMPFILE & ~os.O_DIRECTORY) else 0


def _openat2_works(root_fd: int) -> bool:
    """Tells EPERM of a seccomp filter (old container engines) from EPERM of the file."""
    if _has_openat2:
        return True
    try:
        os.close(syscalls.openat2(root_fd, ".", _FOLDER))
    except PermissionError:
        return False
    return True


class _Walk:
    """Resolution by hand: a stack of open folders is «where we are», so «..» never asks the kernel."""

    def __init__(self, root_fd: int, *, follow: bool, make: tuple[int, int, int] | None = None) -> None:
        self._follow = follow
        self._make = make
        self._links = 0
        #: Descriptors of the folders from the root to here; the first is ours as well.
        self._stack = [os.open(".", _FOLDER, dir_fd=root_fd)]

    def open(self, path: str, flags: int, mode: int) -> int:
        try:
            return self._open(path, flags | os.O_CLOEXEC, mode)
        except OSError as error:
            raise OSError(error.errno, error.strerror, path) from None
        finally:
            for fd in self._stack:
                os.close(fd)

    def _open(self, path: str, flags: int, mode: int) -> int:
        if not self._follow and path.startswith("/"):
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))
        names = path.split("/")[::-1]
        new_or_fail = os.O_CREAT | os.O_EXCL
        as_it_is = bool(flags & os.O_NOFOLLOW) or flags & new_or_fail == new_or_fail
        while names:
            name = names.pop()
            if name in ("", "."):
                continue
            if name == "..":
                self._up()
                continue
            last = not any(names)
            as_folder = last and bool(names)  # a trailing slash asks for a folder, through a link too
            link = self._link_at(name, last and as_it_is and not as_folder)
            if link is not None:
                names += self._target(link)
            elif last and self._make is None:
                flags |= os.O_DIRECTORY if as_folder else 0
                return os.open(name, flags | os.O_NOFOLLOW, mode, dir_fd=self._stack[-1])
            else:
                self._down(name)
        return os.open(".", flags & ~(os.O_NOFOLLOW | new_or_fail), mode, dir_fd=self._stack[-1])

    def _up(self) -> None:
        if len(self._stack) > 1:
            os.close(self._stack.pop())
        elif not self._follow:
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    def _down(self, name: str) -> None:
        if self._make is not None:
            self._ensure(name, *self._make)
        self._stack.append(os.open(name, _FOLDER | os.O_NOFOLLOW, dir_fd=self._stack[-1]))

    def _ensure(self, name: str, mode: int, uid: int, gid: int) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=self._stack[-1])
        except FileExistsError:
            return
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=self._stack[-1])
        try:
            if (uid, gid) != (-1, -1):
                os.fchown(fd, uid, gid)
            os.fchmod(fd, mode)
        finally:
            os.close(fd)

    def _link_at(self, name: str, taken_as_it_is: bool) -> str | None:
        """The text of the link *name*, or None when it is no link or is to be opened as the link it is."""
        if taken_as_it_is:
            return None
        try:
            text = os.readlink(name, dir_fd=self._stack[-1])
        except OSError as error:
            if error.errno in (errno.EINVAL, errno.ENOENT):
                return None
            raise
        if not self._follow:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        return text

    def _target(self, link: str) -> list[str]:
        """Parts of a link's text, last first; an absolute one starts at the root again."""
        self._links += 1
        if self._links > MOST_LINKS:
            raise OSError(errno.ELOOP, os.strerror(errno.ELOOP))
        if link.startswith("/"):
            while len(self._stack) > 1:
                os.close(self._stack.pop())
        return link.split("/")[::-1]
