"""Unpacking and indexing agree on every archive, and a layer's changes repeat themselves."""

from __future__ import annotations

import io
import os
import shutil
import stat
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from argosy.errors import Corrupt
from argosy.layer.archive import entries
from argosy.layer.diff import upper_entries, write_entries
from argosy.layer.erofs import IndexBuilder
from argosy.layer.writer import ArchiveWriter
from argosy.linux.files import remove_tree
from tests.support.archives import archive, device, diff_id, file, folder, hardlink, header, symlink
from tests.support.layers import applied, looking, merged, snapshotter_of
from tests.support.trees import Tree, describe

if TYPE_CHECKING:
    from pathlib import Path

    from argosy.snapshots import Snapshotter

NAMES = (b"a", b"b", b"c", b"a/a", b"a/b", b"b/a", b"a/b/c", b"b/a/b")
names = st.sampled_from(NAMES)
modes = st.sampled_from([0o755, 0o700, 0o1777, 0])
texts = st.sampled_from([b"a", b"/b", b"../c", b"a/b", b"/", b".", b"../../a", b"missing/x"])


@st.composite
def member(draw: st.DrawFn) -> bytes:
    name = draw(names)
    kind = draw(st.sampled_from("fffdddslhwwocp"))
    if kind == "f":
        return file(
            name, draw(st.sampled_from([b"", b"x", b"y" * 600])), mode=draw(modes), mtime=draw(st.integers(0, 9))
        )
    if kind == "d":
        return folder(name, draw(modes), uid=draw(st.integers(0, 3)), mtime=draw(st.integers(0, 9)))
    if kind in "sl":
        return symlink(name, draw(texts))
    if kind == "h":
        return hardlink(name, draw(names))
    if kind in "wo":
        above, _, last = name.rpartition(b"/")
        return file((above + b"/" if above else b"") + (b".wh." + last if kind == "w" else b".wh..wh..opq"))
    return device(name, b"3", draw(st.integers(0, 1)), 0) if kind == "c" else header(name, b"6")


layers = st.lists(member(), max_size=10).map(lambda members: archive(*members))


def index_of(tar: bytes, loose: int) -> bytes | str:
    """The index, or the code of why there is none."""
    out = io.BytesIO()
    builder, reader = IndexBuilder(out, loose=loose), entries(io.BytesIO(tar))
    try:
        for entry in reader:
            builder.add(entry, reader.read)
    except Corrupt as error:
        return error.code
    builder.finish("0" * 64, len(tar))
    return out.getvalue() + b"".join(sorted(builder.implied_folders()))


@settings(max_examples=200, deadline=None)
@given(tar=layers)
@example(tar=archive(header(b"b", b"2", link=b"a"), file(b"a/a"), folder(b"b")))  # a folder in the place of a link
def test_how_much_is_packed_away_changes_no_index(tar: bytes) -> None:
    assert index_of(tar, loose=0) == index_of(tar, loose=1) == index_of(tar, loose=10**6)


@pytest.fixture(autouse=True)
def needs_mounts(tmp_path: Path) -> None:
    snapshotter_of("erofs", tmp_path / "probe")


def tree_or_code(kind: str, scratch: Path, *tars: bytes) -> Tree | str:
    """The merged tree, or the code of the Corrupt that one of the layers is."""
    shutil.rmtree(scratch, ignore_errors=True)
    snapshotter = snapshotter_of(kind, scratch / "store")
    for tar in tars:
        if code := apply_or_code(snapshotter, tar):
            return code
    try:
        return merged(snapshotter, scratch / "view", *tars)
    finally:
        remove_tree(scratch)


def apply_or_code(snapshotter: Snapshotter, tar: bytes) -> str:
    try:
        snapshotter.apply(diff_id(tar), io.BytesIO(tar))
    except Corrupt as error:
        return error.code
    return ""


@settings(deadline=None, max_examples=50, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(layers, layers)
def test_both_kinds_of_snapshots_show_the_same(tmp_path: Path, lower: bytes, upper: bytes) -> None:
    indexed = tree_or_code("erofs", tmp_path / "erofs", lower, upper)
    assert indexed == tree_or_code("unpacked", tmp_path / "unpacked", lower, upper)


changes = st.lists(
    st.tuples(st.sampled_from(["write", "append", "mkdir", "rm", "link", "symlink", "chmod", "rename"]), names, names),
    max_size=12,
)


def perform(root: Path, steps: list[tuple[str, bytes, bytes]]) -> Tree:
    """Whatever of *steps* is possible, with fixed times."""
    for verb, first, second in steps:
        one, two = root / os.fsdecode(first), root / os.fsdecode(second)
        try:
            _perform(verb, one, two)
        except OSError:
            continue
    for folder_path, folders, files in os.walk(root):
        for name in (*folders, *files):
            os.utime(os.path.join(folder_path, name), ns=(0, 5), follow_symlinks=False)
    return describe(root)


def _perform(verb: str, one: Path, two: Path) -> None:
    if verb == "write":
        one.write_bytes(b"written")
    elif verb == "append":
        with one.open("ab") as opened:
            opened.write(b"more")
    elif verb == "mkdir":
        one.mkdir()
    elif verb == "rm":
        shutil.rmtree(one) if stat.S_ISDIR(one.lstat().st_mode) else one.unlink()
    elif verb == "link":
        os.link(one, two, follow_symlinks=False)
    elif verb == "symlink":
        os.symlink("a/b", two)
    elif verb == "chmod" and not one.is_symlink():
        one.chmod(0o711)
    elif verb == "rename":
        one.rename(two)


@settings(deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(st.sampled_from(["write", "mkdir"]), names, names), max_size=8), changes)
def test_changes_in_an_overlay_repeat_as_a_layer(
    tmp_path: Path, base: list[tuple[str, bytes, bytes]], steps: list[tuple[str, bytes, bytes]]
) -> None:
    shutil.rmtree(tmp_path / "run", ignore_errors=True)
    snapshotter = snapshotter_of("erofs", tmp_path / "run/store")
    lower = archive(*[folder(name) if verb == "mkdir" else file(name + b"-f", b"base") for verb, name, _ in base])
    diff_ids = applied(snapshotter, lower)
    expected = looking(snapshotter, diff_ids, tmp_path / "run/first", lambda root: perform(root, steps))
    out = io.BytesIO()
    upper_fd = os.open(tmp_path / "run/first/upper", os.O_RDONLY)
    try:
        with ArchiveWriter(out) as writer:
            write_entries(writer, upper_entries(upper_fd))
    finally:
        os.close(upper_fd)
    assert merged(snapshotter, tmp_path / "run/second", lower, out.getvalue()) == expected
