"""«RESOLVE_IN_ROOT: Treat the directory referred to by dirfd as the root directory while resolving» (openat2(2)).

The walk by components must agree with the kernel on any tree and any path.
"""

from __future__ import annotations

import os
import stat
import tempfile
from typing import TYPE_CHECKING

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from argosy.linux import features, files, paths

if TYPE_CHECKING:
    from collections.abc import Callable

openat2_works = pytest.mark.skipif(
    not features._tried(features._try_openat2, "").available, reason="openat2 is missing (Linux 5.6)"
)

NAMES = st.sampled_from(["a", "b", "c", ".", "..", ""])
PATHS = st.lists(NAMES, min_size=1, max_size=6).map("/".join)
#: {path of folders, files and links: text of the link, None for a file, "" for a folder}
TREES = st.dictionaries(
    st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=3).map("/".join),
    st.one_of(st.none(), st.just(""), PATHS.map(lambda path: path or "/")),
    max_size=8,
)
FLAGS = st.sampled_from([0, os.O_NOFOLLOW, os.O_DIRECTORY, os.O_NOFOLLOW | os.O_DIRECTORY]).map(
    lambda flags: flags | os.O_PATH
)


def _plant(root: str, tree: dict[str, str | None]) -> None:
    """Make what can be made, shallow first; what lies beneath a file or link is left out."""
    for path, kind in sorted(tree.items()):
        parent = os.path.dirname(os.path.join(root, path))
        if any(os.path.lexists(up) and not stat.S_ISDIR(os.lstat(up).st_mode) for up in _ups(root, path)):
            continue
        os.makedirs(parent, exist_ok=True)
        full = os.path.join(root, path)
        if os.path.lexists(full):
            continue
        if kind is None:
            open(full, "w").close()
        elif kind == "":
            os.mkdir(full)
        else:
            os.symlink(kind, full)


def _ups(root: str, path: str) -> list[str]:
    parts = path.split("/")
    return [os.path.join(root, *parts[:count]) for count in range(1, len(parts))]


def _outcome(way: bool | None, action: Callable[[], int]) -> object:
    """(device, inode) of what was opened, or the name of the error."""
    paths._has_openat2 = way
    try:
        fd = action()
    except OSError as error:
        return error.errno
    finally:
        paths._has_openat2 = None
    try:
        found = os.fstat(fd)
        return found.st_dev, found.st_ino
    finally:
        os.close(fd)


@openat2_works
@settings(max_examples=300, deadline=None)
@given(tree=TREES, path=PATHS, flags=FLAGS)
def test_the_walk_agrees_with_openat2(tree: dict[str, str | None], path: str, flags: int) -> None:
    folder = tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None)
    root_fd = paths.open_root(folder)
    try:
        _plant(folder, tree)
        for open_ in (paths.open_in_root, paths.open_beneath_nofollow):
            outcomes = [_outcome(way, lambda o=open_: o(root_fd, path, flags)) for way in (None, False)]  # type: ignore[misc]
            assert outcomes[0] == outcomes[1], (open_.__name__, tree, path, flags)
    finally:
        os.close(root_fd)
        files.remove_tree(folder)
