"""When each image was last run: the time of an empty file a image. Lost with cache/, and no harm done."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

from ..oci.digest import ALGORITHMS, Digest

if TYPE_CHECKING:
    from collections.abc import Mapping

    from _typeshed import StrPath


def note(root: StrPath, image_id: Digest) -> None:
    """The image is used now. Neither synced nor certain: a full disk keeps nobody from running (20 µs)."""
    path = _path(root, image_id)
    with suppress(OSError):
        try:
            os.utime(path)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(path), exist_ok=True)
            os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o644))


def forget(root: StrPath, image_id: Digest) -> None:
    """The image is gone."""
    with suppress(OSError):
        os.unlink(_path(root, image_id))


def last(root: StrPath) -> Mapping[Digest, float]:
    """{image id: seconds since the epoch} of the images whose last run is known."""
    found = {}
    for algorithm in ALGORITHMS:
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(_folder(root, algorithm)) as entries:
            for entry in entries:
                with suppress(FileNotFoundError):
                    found[Digest(f"{algorithm}:{entry.name}")] = entry.stat(follow_symlinks=False).st_mtime
    return found


def _path(root: StrPath, image_id: Digest) -> str:
    return os.path.join(_folder(root, image_id.algorithm), image_id.hex)


def _folder(root: StrPath, algorithm: str) -> str:
    return os.path.join(root, "cache", "used", algorithm)
