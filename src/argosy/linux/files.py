"""Files on the trusted side: written aside and renamed, removed.

Nothing here resolves hostile paths (that is paths.py), except that remove_tree is
safe on a tree whose content is hostile. OSError becomes one of our errors in
translate(), the only table of its kind.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from ..errors import Conflict, Corrupt, Error, Exhausted, InvalidInput, NotFound, Unauthorized, Unavailable, Unsupported
from . import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from _typeshed import StrPath

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_DEEPEST = 64  # open folders that remove_tree holds at once
_REFUSALS = 100  # times that an emptied folder may turn out not to be empty

#: {errno: (kind, code, hint)}; what is not listed becomes a plain Error with code "os-error".
_KINDS: dict[int, tuple[type[Error], str, str]] = {
    errno.ENOSPC: (Exhausted, "disk-full", "free space with argosy prune, or place the store elsewhere with --root"),
    errno.EDQUOT: (Exhausted, "quota-exceeded", "free space with argosy prune, or ask for a larger quota"),
    errno.EFBIG: (Exhausted, "file-too-large", "raise the file size limit (ulimit -f), or use another file system"),
    errno.EMLINK: (Exhausted, "too-many-names", "this file system gives one file no more names; another may"),
    errno.EMFILE: (Exhausted, "too-many-open-files", "raise the limit with ulimit -n"),
    errno.ENFILE: (Exhausted, "too-many-open-files", "the whole system is out of file descriptors"),
    errno.ENOMEM: (Exhausted, "out-of-memory", ""),
    errno.EACCES: (
        Unauthorized,
        "permission-denied",
        "check the owner and mode; of a store: name another with --root",
    ),
    errno.EPERM: (Unauthorized, "not-permitted", "this needs other rights than this process has"),
    errno.EROFS: (Unsupported, "read-only-file-system", "place the store on a writable file system with --root"),
    errno.ENOENT: (NotFound, "no-such-file", ""),
    errno.ENODEV: (Unsupported, "no-such-device", ""),
    errno.EEXIST: (Conflict, "file-exists", ""),
    errno.ENOTEMPTY: (Conflict, "folder-not-empty", ""),
    errno.EBUSY: (Conflict, "busy", "something is mounted there or uses it"),
    errno.ETXTBSY: (Conflict, "busy", "the program is running"),
    errno.ENOTDIR: (InvalidInput, "not-a-folder", ""),
    errno.EISDIR: (InvalidInput, "is-a-folder", ""),
    errno.ELOOP: (InvalidInput, "too-many-links", ""),
    errno.ENAMETOOLONG: (InvalidInput, "name-too-long", ""),
    errno.EIO: (Corrupt, "input-output-error", "look at the kernel log (dmesg) for a failing disk"),
    errno.ESTALE: (Unavailable, "stale-file-handle", "the network file system changed underneath; try again"),
    errno.ENOSYS: (Unsupported, "not-in-this-kernel", ""),
    errno.EOPNOTSUPP: (Unsupported, "not-on-this-file-system", ""),
}


#: errnos that say: there is something else where a file should be
NO_FILE = frozenset({errno.EISDIR, errno.ELOOP, errno.ENXIO})


def translate(error: OSError, doing: str = "use", path: StrPath | None = None) -> Error:
    """Our error for the kernel's: «cannot {doing} {path}», the errno's text as context."""
    kind, code, hint = _KINDS.get(error.errno or 0, (Error, "os-error", ""))
    name = os.fspath(path) if path is not None else error.filename
    shown = os.fsdecode(name) if isinstance(name, (str, bytes)) else "a file"
    text = error.strerror or str(error)
    symbol = errno.errorcode.get(error.errno or 0)
    return kind(f"cannot {doing} {shown}", code=code, context=f"{text} ({symbol})" if symbol else text, hint=hint)


@contextmanager
def reporting(doing: str = "use", path: StrPath | None = None) -> Iterator[None]:
    """Any OSError inside becomes one of our errors; see translate."""
    try:
        yield
    except OSError as error:
        raise translate(error, doing, path) from error


def write_atomic(path: StrPath, data: bytes, *, mode: int = 0o644, sync: bool = True) -> None:
    """Replace *path* by *data*: readers see the old bytes or the new ones, also after a power cut.

    With *sync* false a power cut may leave either, or an empty file (derived files only).
    Raises Exhausted, Unauthorized and the rest of translate's table; the old file then stands.
    """
    folder, aside = _aside(path)
    with reporting("write", path):
        try:
            _write_new(aside, data, mode, sync)
            os.rename(aside, path)
        except BaseException:
            _unlink_if_there(aside)
            raise
        if sync:
            sync_folder(folder)


def write_instead(path: StrPath, data: bytes, *, sync: bool = True) -> None:
    """As write_atomic, and in the place of a folder too, as damaged disks have them where files should be."""
    if os.path.isdir(path) and not os.path.islink(path):
        remove_tree(path)
    write_atomic(path, data, sync=sync)


def create_exclusive(path: StrPath, data: bytes = b"", *, mode: int = 0o644, sync: bool = True) -> bool:
    """Make *path* with all of *data*, or return False where it exists already.

    The file appears complete or not at all (written aside, then hard-linked), which
    also holds on NFS, where O_EXCL alone would show an empty file first.
    """
    folder, aside = _aside(path)
    with reporting("create", path):
        try:
            _write_new(aside, data, mode, sync)
            linked = link_exclusive(aside, path)
        finally:
            _unlink_if_there(aside)
        if linked and sync:
            sync_folder(folder)
        return linked


def link_exclusive(source: StrPath, target: StrPath) -> bool:
    """Give *source* the second name *target*; False where that name is taken."""
    try:
        os.link(source, target, follow_symlinks=False)
    except FileExistsError:
        return False
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EOPNOTSUPP, errno.EMLINK, errno.ENOSYS):
            raise
        return _rename_exclusive(source, target)  # vfat, some FUSE: no hard links
    return True


def sync_folder(path: StrPath) -> None:
    """Make the names in a folder durable. File systems without folder fsync are taken as they are."""
    sync_file(path)


def sync_file(path: StrPath) -> None:
    """Make a file's bytes, or a folder's names, durable. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.EROFS, errno.EOPNOTSUPP):
            raise
    finally:
        os.close(fd)


def ensure_own_folder(path: StrPath, *, hint: str) -> None:
    """Make a folder that is ours alone at a place where anybody may make one, as /tmp.

    Raises Conflict (code folder-not-ours) with *hint* when somebody else has been there before.
    """
    with reporting("make", path):
        try:
            os.mkdir(path, 0o700)
        except FileExistsError:
            found = os.lstat(path)
            if not stat.S_ISDIR(found.st_mode) or not _is_own(found):
                raise Conflict(
                    f"{os.fspath(path)} is not a folder of this user alone",
                    code="folder-not-ours",
                    context=f"another user owns it or may write to it (mode {stat.filemode(found.st_mode)})",
                    hint=hint,
                ) from None


def require_own(path: StrPath) -> None:
    """Raises Conflict (code not-ours) where *path* is another user's, or others may write to it; absent is fine."""
    with reporting("look at", path):
        try:
            found = os.stat(path)
        except FileNotFoundError:
            return
    if not _is_own(found):
        raise Conflict(
            f"{os.fspath(path)} is not this user's alone",
            code="not-ours",
            context=f"user {found.st_uid} owns it, its mode is {stat.filemode(found.st_mode)}",
            hint="change owner and mode, or remove it",
        )


def remove_tree(path: StrPath) -> None:
    """Remove a file or a folder with all it holds; nothing to do when it is gone.

    Safe on hostile content: goes by descriptors, never follows a link, never
    crosses into another mount (Conflict, code "mounted"), opens folders of mode
    0000, bears any depth, and does not mind others deleting at the same time.
    """
    folder, name = os.path.split(os.fspath(path).rstrip("/"))
    with reporting("remove", path):
        try:
            parent_fd = os.open(folder or ".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            _remove_at(parent_fd, name)
        finally:
            os.close(parent_fd)


def _is_own(found: os.stat_result) -> bool:
    return found.st_uid == os.geteuid() and not found.st_mode & 0o022


def _aside(path: StrPath) -> tuple[str, str]:
    """(the folder that *path* lies in, a hidden name there that nobody else takes)"""
    folder, name = os.path.split(os.fspath(path))
    folder = folder or "."
    return folder, os.path.join(folder, f".{name[:200]}.{os.getpid()}.{os.urandom(4).hex()}")


def _write_new(path: str, data: bytes, mode: int, sync: bool) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        os.fchmod(fd, mode)  # the umask must not decide
        view = memoryview(data)
        while view:
            view = view[os.write(fd, view) :]
        if sync:
            os.fsync(fd)
    finally:
        os.close(fd)


def _unlink_if_there(path: str) -> None:
    with suppress(OSError):  # gone already, or the folder itself is failing: the first error says more
        os.unlink(path)


def _rename_exclusive(source: StrPath, target: StrPath) -> bool:
    try:
        syscalls.renameat2(syscalls.AT_FDCWD, source, syscalls.AT_FDCWD, target, syscalls.RENAME_NOREPLACE)
    except FileExistsError:
        return False
    return True


def _remove_at(parent_fd: int, name: str) -> None:
    """As remove_tree, but leaves the mode of the parent, which is not part of the tree, alone."""
    try:
        is_folder = stat.S_ISDIR(os.lstat(name, dir_fd=parent_fd).st_mode)
    except FileNotFoundError:
        return
    if is_folder:
        _remove_folder(parent_fd, name)
    else:
        os.unlink(name, dir_fd=parent_fd)


def _remove_folder(parent_fd: int, name: str) -> None:
    """Depth first with a stack of open folders; what lies too deep is moved up and taken later."""
    top_fd = _open_for_removal(parent_fd, name)
    if top_fd is None:
        return
    stack: list[tuple[int, str, list[str]]] = [(top_fd, name, _emptied(top_fd))]
    refused = 0
    try:
        while stack:
            fd, own_name, folders = stack[-1]
            if folders:
                _descend(stack, folders.pop())
            elif left := _emptied(fd):  # somebody added entries, or deep folders were moved up here
                stack[-1] = (fd, own_name, left)
            elif _rmdir(stack[-2][0] if len(stack) > 1 else parent_fd, own_name):
                os.close(stack.pop()[0])
            else:  # a race, or NFS names of deleted open files, which come back for as long as those are open
                refused += 1
                if refused > _REFUSALS:
                    raise OSError(errno.ENOTEMPTY, os.strerror(errno.ENOTEMPTY), own_name)
    finally:
        for fd, _, _ in stack:
            os.close(fd)


def _descend(stack: list[tuple[int, str, list[str]]], name: str) -> None:
    fd = stack[-1][0]
    if len(stack) >= _DEEPEST:
        _move_up(fd, name, stack[0][0])
        return
    child_fd = _open_for_removal(fd, name)
    if child_fd is not None:
        stack.append((child_fd, name, _emptied(child_fd)))


def _move_up(fd: int, name: str, top_fd: int) -> None:
    """Bring a deep folder to the top, so that depth costs neither descriptors nor recursion."""
    child_fd = _open_for_removal(fd, name)  # renaming writes its «..», so it must be writable
    if child_fd is None:
        return
    os.close(child_fd)
    with suppress(FileNotFoundError):
        os.rename(name, f".deep-{os.urandom(8).hex()}", src_dir_fd=fd, dst_dir_fd=top_fd)


def _emptied(fd: int) -> list[str]:
    """Unlink all that is no folder; return the names of the folders."""
    with os.scandir(fd) as entries:
        found = [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    return [name for name, is_folder in found if is_folder or not _unlinked(fd, name)]


def _unlinked(fd: int, name: str) -> bool:
    """Unlink *name*; False when it is a folder."""
    try:
        os.unlink(name, dir_fd=fd)
    except FileNotFoundError:
        return True
    except IsADirectoryError:
        return False
    except OSError as error:
        raise _mounted(error, name) from error
    return True


def _open_for_removal(fd: int, name: str) -> int | None:
    """Open a folder and make sure that we may empty it; None when it is gone."""
    try:
        child_fd = _open_same_mount(fd, name)
    except FileNotFoundError:
        return None
    except NotADirectoryError:  # replaced meanwhile
        return None if _unlinked(fd, name) else _open_for_removal(fd, name)
    except PermissionError:
        _allow(fd, name)
        child_fd = _open_same_mount(fd, name)
    except OSError as error:
        raise _mounted(error, name) from error
    status = os.fstat(child_fd)
    if status.st_mode & 0o700 != 0o700 and status.st_uid == os.geteuid():
        os.fchmod(child_fd, 0o700)
    return child_fd


def _open_same_mount(fd: int, name: str) -> int:
    try:
        return syscalls.openat2(fd, name, _FOLDER, resolve=syscalls.RESOLVE_NO_XDEV | syscalls.RESOLVE_NO_SYMLINKS)
    except OSError as error:
        if error.errno not in (errno.ENOSYS, errno.EPERM, errno.E2BIG):
            raise
    return _open_same_device(fd, name)


def _open_same_device(fd: int, name: str) -> int:
    """As _open_same_mount without openat2 (Linux < 5.6): misses binds of the same file system."""
    child_fd = os.open(name, _FOLDER, dir_fd=fd)
    if os.fstat(child_fd).st_dev != os.fstat(fd).st_dev:
        os.close(child_fd)
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), name)
    return child_fd


def _mounted(error: OSError, name: str) -> Exception:
    if error.errno not in (errno.EXDEV, errno.EBUSY):
        return error
    return Conflict(
        f"cannot remove {name!r}: something is mounted there",
        code="mounted",
        context="nothing of the other file system was touched",
        hint="unmount it first (findmnt shows what it is)",
    )


def _allow(fd: int, name: str) -> None:
    """Give ourselves access to a folder of our own; what an O_PATH descriptor means cannot be swapped."""
    path_fd = os.open(name, os.O_PATH | os.O_NOFOLLOW | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
    try:
        os.chmod(f"/proc/self/fd/{path_fd}", 0o700)
    finally:
        os.close(path_fd)


def _rmdir(fd: int, name: str) -> bool:
    """Remove an emptied folder; False when it is not empty after all."""
    try:
        os.rmdir(name, dir_fd=fd)
    except FileNotFoundError:
        pass
    except OSError as error:
        if error.errno in (errno.ENOTEMPTY, errno.EEXIST):
            return False
        raise _mounted(error, name) from error
    return True
