"""What files take on the disk: allocated blocks, not lengths. Holes, tails and inodes make the two differ."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable

    from _typeshed import StrPath

_BLOCK = 512  # bytes of st_blocks' unit, whatever the file system's own: stat(2)
_LONG = 2000  # characters of a path; the kernel takes 4095, and one name may have 255


def of(status: os.stat_result) -> int:
    """Bytes on the disk of one file."""
    return status.st_blocks * _BLOCK


def of_file(path: StrPath) -> int:
    """Bytes on the disk of one file, link or folder (without what is in it); 0 when it is gone."""
    try:
        return of(os.lstat(path))
    except (FileNotFoundError, NotADirectoryError):
        return 0


def of_tree(path: StrPath, *, skip: Iterable[str] = ()) -> int:
    """Bytes on the disk of *path* and all beneath it; what has several names counts once, what goes meanwhile not.

    *skip* are names right below *path* that are left out. The content may be hostile: no link is
    followed, any depth is borne; another file system mounted there is not entered.
    Raises PermissionError rather than a sum that is too small.
    """
    try:
        top = os.lstat(path)
    except (FileNotFoundError, NotADirectoryError):
        return 0
    walk = _Walk(top.st_dev)
    walk.count(os.fspath(path), frozenset(skip))
    return walk.size + of(top)


class _Walk:
    def __init__(self, device: int) -> None:
        self._device = device
        self._seen: set[int] = set()
        self.size = 0

    def count(self, top: str, skip: frozenset[str]) -> None:
        left: list[str | int] = [top]
        while left:
            place = left.pop()
            if isinstance(place, int):  # everything below this folder has been counted
                os.close(place)
                continue
            if len(place) > _LONG:
                fd = _open(place)
                if fd is None:
                    continue
                left.append(fd)
                place = f"/proc/self/fd/{fd}"
            left += self._folders(place, skip if place == top else frozenset())

    def _folders(self, place: str, skip: frozenset[str]) -> list[str]:
        """Count what is in a folder; gives the folders in it."""
        found = []
        try:
            with os.scandir(place) as entries:
                for entry in entries:
                    if entry.name not in skip and self._counted(entry):
                        found.append(f"{place}/{entry.name}")
        except (FileNotFoundError, NotADirectoryError):
            pass
        return found

    def _counted(self, entry: os.DirEntry[str]) -> bool:
        """Count one entry; whether it is a folder to go into."""
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return False
        if status.st_dev != self._device:
            return False
        is_folder = entry.is_dir(follow_symlinks=False)
        if status.st_nlink > 1 and not is_folder:
            if status.st_ino in self._seen:
                return False
            self._seen.add(status.st_ino)
        self.size += of(status)
        return is_folder


def _open(place: str) -> int | None:
    try:
        return os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return None
