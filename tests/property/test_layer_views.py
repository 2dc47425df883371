"""Two images differ as their whole trees do; damaged indexes end in Corrupt."""

from __future__ import annotations

import io
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from argosy.errors import Corrupt, InvalidInput
from argosy.layer.compare import compare
from argosy.layer.erofs_reader import IndexReader
from argosy.layer.view import ImageView
from argosy.snapshots.erofs import ErofsSnapshotter
from tests.property.test_layer_trees import apply_or_code, layers
from tests.support.archives import archive, device, diff_id, file, folder, gnu_long, hardlink, pax, pax_sparse, symlink
from tests.support.views import index_of, rows

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from hypothesis.strategies import DrawFn

    from argosy.layer.contents import Node
    from tests.support.trees import Tree

TAR = archive(
    pax((b"SCHILY.xattr.user.note", b"v" * 40)),
    folder(b"d", 0o1777, uid=70_000),
    *[file(b"d/a file with a name %03d" % number, b"x" * 30 * number) for number in range(60)],
    hardlink(b"d/second", b"d/a file with a name 007"),
    folder(b"d/e"),
    folder(b"d/e/f"),
    gnu_long(b"t" * 700, b"K"),
    symlink(b"d/e/l", b"t"),
    pax_sparse(b"sparse", 100_000, (512, b"a" * 512), (70_001, b"b" * 9)),
    pax_sparse(b"sparse too", 100_000, (512, b"a" * 512), (51_200, b"b" * 512)),
    device(b"null", b"3", 1, 3),
    file(b"d/.wh.gone"),
    file(b"d/e/.wh..wh..opq"),
    file(b"implied/x", b"x"),
)
INDEX = index_of(TAR)
#: Where the bytes are that say something: all but long runs of zeros.
TELLING = [at for at, byte in enumerate(INDEX) if byte or INDEX[max(at - 8, 0) : at + 8].strip(b"\0")]


@st.composite
def damaged(draw: DrawFn) -> bytes:
    """The index with a few bytes changed, cut or gone."""
    index = bytearray(INDEX)
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.sampled_from(TELLING))
        index[at] = draw(st.integers(0, 255))
    if draw(st.booleans()):
        at = draw(st.integers(0, len(index) // 32)) * 32
        index[at : at + 32] = draw(st.sampled_from([index[1280:1312], index[4096:4128], bytes(32), b"\xff" * 32]))
    return bytes(index[: draw(st.integers(0, len(index)))]) if draw(st.integers(0, 9)) == 0 else bytes(index)


def look_at_everything(index: Path, tar: Path) -> int:
    """How many files a walk finds, with the start and the end of each read."""
    count = 0
    with IndexReader(str(index), str(tar), (b"implied", b"not/there")) as reader:
        view = ImageView([reader])
        for _, place in view.walk():
            count += 1
            if place.node.kind == "file":
                view.read(place, 0, 2000)
                view.read(place, max(place.node.size - 2000, 0), 2000)
    return count


def found_or_error(index: Path, tar: Path) -> int | tuple[str, str]:
    try:
        return look_at_everything(index, tar)
    except Corrupt as error:
        return error.code, error.message


@pytest.fixture
def tar(tmp_path: Path) -> Path:
    (tmp_path / "layer.tar").write_bytes(TAR)
    return tmp_path / "layer.tar"


def test_the_index_as_it_is_has_every_file(tmp_path: Path, tar: Path) -> None:
    (tmp_path / "index").write_bytes(INDEX)
    assert look_at_everything(tmp_path / "index", tar) == 1 + 60 + 1 + 2 + 1 + 2 + 1 + 2


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(damaged())
def test_a_damaged_index_is_corrupt_or_harmless(tmp_path: Path, tar: Path, index: bytes) -> None:
    (tmp_path / "index").write_bytes(index)
    assert found_or_error(tmp_path / "index", tar) in (
        *range(len(index)),
        ("layer-index-damaged", f"the index {tmp_path / 'index'} is damaged"),
    )


def looks(tree: Tree) -> Tree:
    """The rows without what compare does not read: bytes of files, and which names are one file."""
    return {
        name: (*row[:3], row[3][0] if isinstance(row[3], tuple) and str(row[0])[0] == "-" else row[3], row[4])
        for name, row in tree.items()
    }


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(layers, min_size=1, max_size=4),
    st.lists(st.integers(0, 3), max_size=4),
    st.lists(st.integers(0, 3), max_size=4),
)
def test_two_images_differ_as_their_whole_trees_do(
    tmp_path: Path, tars: list[bytes], first: list[int], second: list[int]
) -> None:
    snapshotter = ErofsSnapshotter(tmp_path)
    good = [diff_id(tar) for tar in tars if not apply_or_code(snapshotter, tar)] or [diff_id(archive())]
    snapshotter.apply(diff_id(archive()), io.BytesIO(archive()))
    with ExitStack() as opened:
        contents = [opened.enter_context(snapshotter.contents(name)) for name in good]
        before, after = (ImageView([contents[n % len(good)] for n in numbers]) for numbers in (first, second))
        changes = list(compare(before, after))
        was, now = looks(rows(before)), looks(rows(after))
    found = {(change.letter, change.path.decode()) for change in changes if change.letter != "C" or change.aspects}
    assert found == {
        *(("A", path) for path in now.keys() - was.keys()),
        *(("D", path) for path in was.keys() - now.keys()),
        *(("C", path) for path in now.keys() & was.keys() if now[path] != was[path]),
    }
    assert len(changes) == len({change.path for change in changes})


def test_a_folder_may_look_as_a_layer_has_it_that_it_hides(tmp_path: Path) -> None:
    """The emptied folder of the upper layer is the same in both images, not how it looks."""
    emptied = archive(file(b"b/.wh..wh..opq"))
    for name, tar in (("emptied", emptied), ("below", archive(folder(b"b", 0o700)))):
        (tmp_path / name).write_bytes(index_of(tar))
    with (
        IndexReader(str(tmp_path / "emptied"), "", (b"b",)) as upper,
        IndexReader(str(tmp_path / "below")) as lower,
    ):
        [change] = compare(ImageView([upper]), ImageView([lower, upper]))
        assert (change.path, change.aspects) == (b"b", ("mode",))


def test_a_folder_in_the_place_of_an_index_is_refused_and_closed(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        IndexReader(str(tmp_path))
    assert caught.value.code == "is-a-folder"


class Watched(IndexReader):
    """Remembers which folders were asked for."""

    def __init__(self, index: str) -> None:
        super().__init__(index)
        self.asked: list[int] = []

    def children(self, folder: Node) -> Mapping[bytes, Node]:
        self.asked.append(folder.inode)
        return super().children(folder)


def test_layers_of_both_images_are_not_walked(tmp_path: Path) -> None:
    """Only folders in which something else has a part are looked up in them."""
    base = archive(*[file(b"%d/%d/f" % (number % 9, number), b"x") for number in range(99)])
    paths = [tmp_path / name for name in ("base", "old", "new")]
    for path, tar in zip(paths, (base, archive(file(b"3/30/g")), archive(file(b"3/12/.wh.f"))), strict=True):
        path.write_bytes(index_of(tar))
    with Watched(str(paths[0])) as shared, IndexReader(str(paths[1])) as old, IndexReader(str(paths[2])) as new:
        found = [(change.letter, change.path) for change in compare(ImageView([shared, old]), ImageView([shared, new]))]
        assert found == [("D", b"3/12/f"), ("D", b"3/30/g")]
        assert len(set(shared.asked)) == len(("", "3", "3/12", "3/30"))
