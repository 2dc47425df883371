"""What a layer says about one of its folders, wherever the layer is kept."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Mapping

import msgspec

from ..linux.paths import open_beneath_nofollow
from .entry import NO_XATTRS
from .pax import is_overlay_xattr
from .whiteouts import OPAQUE_XATTR


class FolderFacts(msgspec.Struct, frozen=True, kw_only=True):
    """Metadata of a folder; *opaque* when it hides what lower layers have in it."""

    mode: int
    uid: int
    gid: int
    mtime_ns: int
    opaque: bool = False
    xattrs: Mapping[bytes, bytes] = NO_XATTRS


def folder_on_disk(root_fd: int, path: bytes) -> FolderFacts | bool:
    """The folder at *path* of an unpacked layer; False when nothing is there, True when something else is."""
    try:
        fd = open_beneath_nofollow(root_fd, os.fsdecode(path) or ".", os.O_PATH | os.O_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.ENOTDIR):
            return True
        if error.errno == errno.ENOENT:
            return False
        raise
    try:
        found = os.fstat(fd)
        if not stat.S_ISDIR(found.st_mode):
            return True
        xattrs = _xattrs(b"/proc/self/fd/%d" % fd)
    finally:
        os.close(fd)
    return FolderFacts(
        mode=found.st_mode & 0o7777,
        uid=found.st_uid,
        gid=found.st_gid,
        mtime_ns=found.st_mtime_ns,
        opaque=b"y" in (xattrs.get(b"trusted." + OPAQUE_XATTR), xattrs.get(b"user." + OPAQUE_XATTR)),
        xattrs={name: value for name, value in xattrs.items() if not is_overlay_xattr(name)},
    )


def make_folder_like(facts: FolderFacts, place: bytes) -> None:
    """Give the folder *place* all that *facts* says and this user may; its mark aside."""
    try:
        os.chown(place, facts.uid, facts.gid)
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.EINVAL, errno.EOVERFLOW):
            raise
    for name, value in facts.xattrs.items():
        try:
            os.setxattr(place, name, value)
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.EACCES, errno.EOPNOTSUPP):
                raise
    os.chmod(place, facts.mode)
    os.utime(place, ns=(facts.mtime_ns, facts.mtime_ns))


def _xattrs(place: bytes) -> dict[bytes, bytes]:
    try:
        names = os.listxattr(place)
    except OSError:  # a file system without them
        return {}
    return {os.fsencode(name): os.getxattr(place, name) for name in names if not name.startswith("security.selinux")}
