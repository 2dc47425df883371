"""Which names take files away."""

from __future__ import annotations

import pytest

from argosy.layer.whiteouts import Mark, mark_of


@pytest.mark.parametrize(
    ("path", "mark"),
    [
        (b"a/b", None),
        (b"a/x.wh.b", None),
        (b"a.wh./b", None),
        (b".wh.a", ("whiteout", b"a")),
        (b"d/.wh.a", ("whiteout", b"d/a")),
        (b"d/.wh.a.wh.b", ("whiteout", b"d/a.wh.b")),
        (b"d/.wh. ", ("whiteout", b"d/ ")),
        (b"d/.wh..wh..opq", ("opaque", b"d")),
        (b".wh..wh..opq", ("opaque", b"")),
        (b".wh..wh.plnk", ("ignored", b".wh..wh.plnk")),
        (b".wh..wh.plnk/5.6", ("ignored", b".wh..wh.plnk/5.6")),
        (b"d/.wh..wh.orph/x", ("ignored", b"d/.wh..wh.orph/x")),
    ],
)
def test_marks_are_told_by_their_names(path: bytes, mark: Mark | None) -> None:
    assert mark_of(path) == mark
