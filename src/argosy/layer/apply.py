"""Puts one layer's entries into a folder, ready to be a lower folder of an overlay.

Runs with all rights as root, with those of a user namespace, or with a plain user's.
Why that is safe for hostile archives stands in `target`. Rules where readers of
layers differ are those of `erofs.IndexBuilder`; both make the same tree.
"""

from __future__ import annotations

import errno
import os
import stat
from contextlib import suppress
from typing import TYPE_CHECKING

import msgspec

from .faults import link_missing, nothing_to_hide
from .target import Folder, Target, joined
from .whiteouts import OPAQUE_XATTR, ORIGIN_XATTR, WHITEOUT_XATTR, mark_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from .archive import ArchiveReader
    from .entry import Entry

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_DEVICES = {"character": stat.S_IFCHR, "block": stat.S_IFBLK, "fifo": stat.S_IFIFO}
#: What the kernel answers for ids without a mapping, and for rights that a user lacks.
_OWNER_REFUSED = (errno.EPERM, errno.EINVAL, errno.EOVERFLOW)
_MODE_REFUSED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS)
_MKNOD_REFUSED = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.ENOSYS)
_LINK_REFUSED = (errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK)
_SET_IDS = stat.S_ISUID | stat.S_ISGID
_DEFAULT_ACL = b"system.posix_acl_default"
#: Not permitted, not on this file system, no valid value, more than this file system holds (ext4 says ENOSPC).
_XATTR_REFUSED = (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP, errno.EINVAL, errno.E2BIG, errno.ERANGE, errno.ENOSPC)


class Applied(msgspec.Struct, frozen=True, kw_only=True):
    """What the layer did not say or this user could not do."""

    #: folders that were made because something lies in them; the root never counts
    implied: tuple[bytes, ...]
    #: paths whose content in lower layers is hidden, where no mark on disk can say so; none lies in another
    hidden: tuple[bytes, ...] = ()
    #: one line a sort of loss, with its count
    warnings: tuple[str, ...]


def apply(reader: ArchiveReader, root_fd: int, *, user: bool = False) -> Applied:
    """Write all entries of *reader* into the empty folder *root_fd*; the archive is read to its end.

    *user* is for everything but the host's root: overlayfs marks go into user.overlay.*
    (mount with userxattr). Owners, modes, devices and extended attributes that kernel
    or file system refuse are passed over, and hard links become copies; the result says so. Where
    attributes cannot be had at all, whiteouts and opaque folders are told instead of
    marked. Nothing is synced.

    Raises OSError, and Corrupt as the reader and IndexBuilder do. Memory grows with
    folders, not with entries.
    """
    tree = Target(root_fd)
    try:
        work = _Application(reader, tree, user)
        for entry in reader:
            work.add(entry)
        work.finish()
        implied = tuple(sorted(path for path, folder in tree.folders.items() if folder.implied and path))
        return Applied(implied=implied, hidden=work.hidden(), warnings=work.warnings())
    finally:
        tree.close()


class _Application:
    def __init__(self, reader: ArchiveReader, tree: Target, user: bool) -> None:
        self._reader = reader
        self._tree = tree
        self._user = user
        self._marks = b"user." if user else b"trusted."
        top = b"/proc/self/fd/%d" % tree.fd(b"")
        _make_plain(top)
        self._keeps_marks = _can_be_marked(top, self._marks + OPAQUE_XATTR)
        self._owner = (os.geteuid(), os.getegid())
        self._losses: dict[str, int] = {}
        #: Whiteouts that a file of the same layer has taken the place of; should a folder follow, it is opaque.
        self._overruled: set[bytes] = set()
        self._has_mknod = True  # until making a whiteout device was refused

    def add(self, entry: Entry) -> None:
        path = entry.path
        if b".wh." in path and (mark := mark_of(path)) is not None:
            with nothing_to_hide():
                self._mark(*mark)
            return
        if entry.kind == "folder":
            self._folder(entry)
            return
        parent, _, name = path.rpartition(b"/")
        real = self._tree.real(parent)
        if entry.kind == "character" and not entry.major and not entry.minor:
            self._hide(real, name)
            return
        _MAKERS[entry.kind](self, entry, real, name)

    # ---- kinds

    def _folder(self, entry: Entry) -> None:
        tree = self._tree
        parent, _, name = entry.path.rpartition(b"/")
        real = tree.real(parent) if entry.path else b""
        path = joined(real, name)
        folder = tree.folders.get(path)
        stale: set[bytes] = set()
        if folder is not None:  # the later of two entries wins whole
            stale = _xattr_names(b"/proc/self/fd/%d" % tree.fd(path)) - entry.xattrs.keys()
        else:
            hidden = path in self._overruled
            if tree.lstat(real, name) is not None:
                hidden |= tree.clear(real, name)
            folder = tree.make_folder(real, name)
            folder.opaque = hidden
        folder.implied = False
        folder.mode, folder.mtime_ns = entry.mode, entry.mtime_ns
        folder.default_acl = entry.xattrs.get(_DEFAULT_ACL)
        place = b"/proc/self/fd/%d" % tree.fd(path)
        if not self._give(place, entry.uid, entry.gid):
            folder.mode &= ~_SET_IDS
        for xattr in stale:
            os.removexattr(place, xattr)
        self._set_xattrs(place, entry.xattrs)

    def _file(self, entry: Entry, real: bytes, name: bytes) -> None:
        try:
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=self._tree.fd(real))
        except FileExistsError:
            self._replace(real, name)
            fd = os.open(name, _NEW_FILE, 0o600, dir_fd=self._tree.fd(real))
        try:
            if entry.size:
                self._write(fd, entry)
            # Owner first, it clears set-id bits and capabilities; mode late, it may forbid attributes to a plain user.
            mode = entry.mode
            if (entry.uid, entry.gid) != self._owner and not self._give(fd, entry.uid, entry.gid):
                mode &= ~_SET_IDS
            if entry.xattrs:
                self._set_xattrs(fd, entry.xattrs)
            self._set_mode(fd, mode)
            os.utime(fd, ns=(entry.mtime_ns, entry.mtime_ns))
        finally:
            os.close(fd)

    def _write(self, fd: int, entry: Entry) -> None:
        if entry.extents is None:
            for piece in self._reader.chunks():
                _write_all(fd, piece)
            return
        os.ftruncate(fd, entry.size)
        for start, length in entry.extents:
            os.lseek(fd, start, os.SEEK_SET)
            while length:
                piece = self._reader.read(length)
                length -= len(piece)
                _write_all(fd, piece)

    def _symlink(self, entry: Entry, real: bytes, name: bytes) -> None:
        self._made(real, name, lambda fd: os.symlink(entry.linkname, name, dir_fd=fd))
        self._dress(entry, real, name, has_mode=False)

    def _hardlink(self, entry: Entry, real: bytes, name: bytes) -> None:
        parent, _, target_name = entry.linkname.rpartition(b"/")
        other = self._tree.real(parent)
        found = self._tree.lstat(other, target_name)
        if found is None or stat.S_ISDIR(found.st_mode) or self._tree.is_whiteout(found, joined(other, target_name)):
            raise link_missing(entry.path, entry.linkname)
        old = self._tree.lstat(real, name)
        if old is not None and old.st_ino == found.st_ino:
            return
        # By way of another name, because what has this one may be the folder that holds the other end.
        free = name if old is None else b".link-" + os.urandom(8).hex().encode()
        source_fd = os.dup(self._tree.fd(other))  # asking for the other folder may close the tree's own
        try:
            self._link(source_fd, target_name, self._tree.fd(real), free)
        finally:
            os.close(source_fd)
        if old is not None:
            self._replace(real, name)
            fd = self._tree.fd(real)
            os.rename(free, name, src_dir_fd=fd, dst_dir_fd=fd)

    def _link(self, source_fd: int, target_name: bytes, fd: int, name: bytes) -> None:
        try:
            os.link(target_name, name, src_dir_fd=source_fd, dst_dir_fd=fd, follow_symlinks=False)
        except OSError as error:
            if error.errno not in _LINK_REFUSED:
                raise
            _copy(source_fd, target_name, fd, name)
            self._lost("hard links became copies: this file system has none")

    def _device(self, entry: Entry, real: bytes, name: bytes) -> None:
        mode, device = _DEVICES[entry.kind] | 0o600, os.makedev(entry.major, entry.minor)
        try:
            self._made(real, name, lambda fd: os.mknod(name, mode, device, dir_fd=fd))
        except OSError as error:
            if error.errno not in _MKNOD_REFUSED:
                raise
            self._lost("device nodes were left out: making them is not permitted here")
            return
        self._dress(entry, real, name, has_mode=True)

    def _made(self, real: bytes, name: bytes, make: Callable[[int], None]) -> None:
        try:
            make(self._tree.fd(real))
        except FileExistsError:
            self._replace(real, name)
            make(self._tree.fd(real))

    def _replace(self, real: bytes, name: bytes) -> None:
        if self._tree.clear(real, name):
            self._overruled.add(joined(real, name))

    # ---- whiteouts

    def _mark(self, kind: str, path: bytes) -> None:
        if kind == "opaque":
            self._tree.folders[self._tree.real(path)].opaque = True
        elif kind == "whiteout":
            parent, _, name = path.rpartition(b"/")
            self._hide(self._tree.real(parent), name)

    def _hide(self, real: bytes, name: bytes) -> None:
        """Take *name* of lower layers away; what this layer has there stays."""
        path = joined(real, name)
        self._tree.folders[real].origin = True
        found = self._tree.lstat(real, name)
        if path in self._tree.folders:
            self._tree.folders[path].opaque = True
        elif found is None:
            self._make_whiteout(real, name)
        elif not self._tree.is_whiteout(found, path):
            self._overruled.add(path)

    def _make_whiteout(self, real: bytes, name: bytes) -> None:
        if not self._keeps_marks:
            folder = self._tree.folders[real]
            folder.hidden = folder.hidden or set()
            return folder.hidden.add(name)
        fd = self._tree.fd(real)
        if self._has_mknod:
            try:
                return os.mknod(name, stat.S_IFCHR, 0, dir_fd=fd)
            except OSError as error:
                if error.errno not in _MKNOD_REFUSED:
                    raise
                self._has_mknod = False
        # Linux 6.7 knows empty files with an attribute too, in folders that say so; `finish` marks those.
        os.close(os.open(name, _NEW_FILE, 0o600, dir_fd=fd))
        os.setxattr(b"/proc/self/fd/%d/" % fd + name, self._marks + WHITEOUT_XATTR, b"y")
        return self._tree.file_whiteouts.add(joined(real, name))

    # ---- metadata

    def _dress(self, entry: Entry, real: bytes, name: bytes, *, has_mode: bool) -> None:
        """Owner, attributes, mode and time of something that cannot be opened."""
        fd = self._tree.fd(real)
        place = b"/proc/self/fd/%d/" % fd + name
        if (entry.uid, entry.gid) != self._owner:
            self._give(place, entry.uid, entry.gid, follow=False)
        self._set_xattrs(place, entry.xattrs, follow=False)
        if has_mode:
            self._set_mode(place, entry.mode)
        os.utime(name, ns=(entry.mtime_ns, entry.mtime_ns), dir_fd=fd, follow_symlinks=False)

    def _give(self, place: bytes | int, uid: int, gid: int, *, follow: bool = True) -> bool:
        """chown; *follow* where *place* is a descriptor, also as /proc/self/fd/N, which is a link.

        False when the owner exists here but another stays: set-id bits would be that one's.
        """
        try:
            os.chown(place, uid, gid, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _OWNER_REFUSED:
                raise
            found = os.stat(place, follow_symlinks=follow)
            if (found.st_uid, found.st_gid) == (uid, gid):
                return True
            if error.errno == errno.EPERM:
                self._lost("owners were left as they are: changing them is not permitted here")
                return False
            self._lost("owners were left as they are: their ids are not mapped here")
        return True

    def _set_mode(self, place: bytes | int, mode: int) -> None:
        try:
            os.chmod(place, mode)
        except OSError as error:
            if error.errno not in _MODE_REFUSED:
                raise
            self._lost("modes were left as they are: this file system keeps none")

    def _set_xattrs(self, place: bytes | int, xattrs: Mapping[bytes, bytes], *, follow: bool = True) -> None:
        for name, value in xattrs.items():
            if name != _DEFAULT_ACL:  # new files would inherit it; see finish
                self._set_xattr(place, name, value, follow=follow)

    def _set_xattr(self, place: bytes | int, name: bytes, value: bytes, *, follow: bool = True) -> None:
        try:
            os.setxattr(place, name, value, follow_symlinks=follow)
        except OSError as error:
            if error.errno not in _XATTR_REFUSED:
                raise
            space = name.partition(b".")[0].decode(errors="replace")
            self._lost(f"extended attributes of the kind {space!r} were left out: {error.strerror}")

    def _lost(self, what: str) -> None:
        self._losses[what] = self._losses.get(what, 0) + 1

    def warnings(self) -> tuple[str, ...]:
        return tuple(f"{count} × {what}" for what, count in sorted(self._losses.items()))

    # ---- the end

    def finish(self) -> None:
        """Marks, modes and times of folders, deepest first, so that no mode keeps us out and no write moves a time."""
        parents = {path.rpartition(b"/")[0] for path in self._tree.file_whiteouts}
        for path, folder in self._tree.deepest_first():
            fd = self._tree.fd(path)
            place = b"/proc/self/fd/%d" % fd
            if folder.implied and not self._user:
                self._give(place, 0, 0)
            if self._keeps_marks:
                self._mark_folder(place, folder, has_file_whiteouts=path in parents)
            if folder.default_acl is not None:
                self._set_xattr(place, _DEFAULT_ACL, folder.default_acl)
            self._set_mode(place, folder.mode)
            os.utime(place, ns=(folder.mtime_ns, folder.mtime_ns))

    def _mark_folder(self, place: bytes, folder: Folder, *, has_file_whiteouts: bool) -> None:
        if folder.opaque:
            os.setxattr(place, self._marks + OPAQUE_XATTR, b"y")
        elif has_file_whiteouts:
            os.setxattr(place, self._marks + OPAQUE_XATTR, b"x")
        if folder.origin:
            # See IndexBuilder: overlayfs looks for whiteouts here even where it merges nothing.
            os.setxattr(place, self._marks + ORIGIN_XATTR, b"")

    def hidden(self) -> tuple[bytes, ...]:
        """See Applied. The root's own mark is left out: overlayfs, too, passes over it."""
        if self._keeps_marks:
            return ()
        found = {path for path, folder in self._tree.folders.items() if folder.opaque and path}
        for path, folder in self._tree.folders.items():
            found.update(joined(path, name) for name in folder.hidden or ())
        return tuple(sorted(path for path in found if not _lies_in(path, found)))


_MAKERS: dict[str, Callable[[_Application, Entry, bytes, bytes], None]] = {
    "file": _Application._file,
    "symlink": _Application._symlink,
    "hardlink": _Application._hardlink,
    "character": _Application._device,
    "block": _Application._device,
    "fifo": _Application._device,
}


def _lies_in(path: bytes, others: set[bytes]) -> bool:
    """Whether one of *others* is a folder above *path*."""
    while path:
        path = path.rpartition(b"/")[0]
        if path in others:
            return True
    return False


def _can_be_marked(place: bytes, mark: bytes) -> bool:
    """Whether folders on this file system can carry overlayfs's marks."""
    try:
        os.setxattr(place, mark, b"n")  # means nothing
        os.removexattr(place, mark)
    except OSError as error:
        if error.errno not in _XATTR_REFUSED:
            raise
        return False
    return True


def _copy(source_fd: int, source: bytes, target_fd: int, target: bytes) -> None:
    """A second file like the first, where it cannot have a second name."""
    found = os.lstat(source, dir_fd=source_fd)
    times = (found.st_atime_ns, found.st_mtime_ns)
    if stat.S_ISLNK(found.st_mode):
        os.symlink(os.readlink(source, dir_fd=source_fd), target, dir_fd=target_fd)
        os.utime(target, ns=times, dir_fd=target_fd, follow_symlinks=False)
        return
    if not stat.S_ISREG(found.st_mode):
        os.mknod(target, found.st_mode, found.st_rdev, dir_fd=target_fd)
        return
    old = os.open(source, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source_fd)
    try:
        new = os.open(target, _NEW_FILE, 0o600, dir_fd=target_fd)
        try:
            while os.sendfile(new, old, None, 1 << 30):
                pass
            with suppress(OSError):  # told of the first already
                os.fchmod(new, stat.S_IMODE(found.st_mode))
            os.utime(new, ns=times)
        finally:
            os.close(new)
    finally:
        os.close(old)


def _make_plain(place: bytes) -> None:
    """Take away what new files inherit from a folder: its group by the set-gid bit, its default ACL."""
    with suppress(PermissionError):  # a file system without modes
        os.chmod(place, 0o700)
    for name in ("system.posix_acl_default", "system.posix_acl_access"):
        try:
            os.removexattr(place, name)
        except OSError as error:
            if error.errno not in (errno.ENODATA, errno.EOPNOTSUPP):
                raise


def _xattr_names(place: bytes) -> set[bytes]:
    """Attributes that a folder has from an earlier entry; those that the system gives (labels) are left alone."""
    try:
        names = os.listxattr(place)
    except OSError:  # no attributes on this file system
        return set()
    return {os.fsencode(name) for name in names if not name.startswith(("security.selinux", "system."))}


def _write_all(fd: int, data: bytes) -> None:
    written = os.write(fd, data)
    while written < len(data):
        data = data[written:]
        written = os.write(fd, data)
