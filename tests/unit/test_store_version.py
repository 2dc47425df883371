"""version.json: a store is used by programs that understand it, and by no others."""

from __future__ import annotations

import json
import os
import stat
from typing import TYPE_CHECKING

import pytest

from argosy import __version__
from argosy.errors import Corrupt, InvalidInput, Unsupported
from argosy.store import version

if TYPE_CHECKING:
    from pathlib import Path


def written(root: Path) -> dict[str, object]:
    document: dict[str, object] = json.loads((root / "version.json").read_text())
    return document


@pytest.mark.parametrize("before", [None, (), ("bin",), ("registry",), ("blobs", "cache", ".hidden", "lost+found")])
def test_an_empty_or_absent_folder_becomes_a_store(tmp_path: Path, before: tuple[str, ...] | None) -> None:
    root = tmp_path / "a/b"
    for name in before or ():
        (root / name).mkdir(parents=True)
    version.check_version(root)
    version.check_version(root)
    assert written(root) == {"format": 1, "minimum": 1, "writer": f"argosy {__version__}"}


def test_several_who_make_a_store_at_once_have_one(tmp_path: Path) -> None:
    for turn in range(30):
        root, (read_end, write_end) = tmp_path / str(turn), os.pipe()
        pids = []
        for _ in range(4):
            pids.append(os.fork())
            if pids[-1] == 0:
                os.close(write_end)
                os.read(read_end, 1)  # all begin together
                try:
                    version.check_version(root)
                except BaseException:
                    os._exit(1)
                os._exit(0)
        os.close(read_end)
        os.close(write_end)
        assert [os.waitpid(pid, 0)[1] for pid in pids] == [0] * 4
        assert written(root)["format"] == version.FORMAT


def test_a_new_store_is_closed_to_other_users(tmp_path: Path) -> None:
    version.check_version(tmp_path / "a")
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o700


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("x")
    with pytest.raises(InvalidInput) as caught:
        version.check_version(tmp_path)
    assert (caught.value.code, os.listdir(tmp_path)) == ("store-foreign", ["thesis.tex"])
    assert caught.value.context == "it has no version.json but holds 'thesis.tex'"


def test_a_newer_store_that_old_programs_may_use_is_used(tmp_path: Path) -> None:
    text = '{"format": 7, "minimum": 1, "writer": "argosy 9.9", "more": []}'
    (tmp_path / "version.json").write_text(text)
    version.check_version(tmp_path)
    assert (tmp_path / "version.json").read_text() == text


def test_a_store_that_is_too_new_is_refused_and_says_who_wrote_it(tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text('{"format":7,"minimum":6,"writer":"argosy 9.9"}')
    with pytest.raises(Unsupported) as caught:
        version.check_version(tmp_path)
    assert caught.value.code == "store-too-new"
    assert caught.value.context == f"argosy 9.9 wrote it in format 7; argosy {__version__} knows format 1"


def test_a_store_that_is_too_old_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version.json").write_text('{"format":0,"minimum":0,"writer":"argosy 0.0.1"}')
    with pytest.raises(Unsupported) as caught:
        version.check_version(tmp_path)
    assert caught.value.code == "store-too-old"
    assert written(tmp_path)["format"] == 0


def test_an_older_store_is_migrated_step_by_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[int] = []
    monkeypatch.setattr(version, "MIGRATIONS", {-1: lambda root: steps.append(-1), 0: lambda root: steps.append(0)})
    (tmp_path / "version.json").write_text('{"format":-1,"minimum":-1,"writer":"argosy 0.0.1"}')
    version.check_version(tmp_path)
    version.check_version(tmp_path)
    assert (steps, written(tmp_path)) == ([-1, 0], {"format": 1, "minimum": 1, "writer": f"argosy {__version__}"})


@pytest.mark.parametrize("text", ["", "{", "[]", '"x"', '{"format":1}', '{"format":"x","minimum":1}', "[" * 4000])
def test_a_damaged_version_file_is_named(tmp_path: Path, text: str) -> None:
    (tmp_path / "version.json").write_text(text)
    with pytest.raises(Corrupt) as caught:
        version.check_version(tmp_path)
    assert (caught.value.code, caught.value.message) == (
        "store-version",
        f"the store's version file is damaged: {tmp_path}/version.json",
    )


def test_nothing_is_made_where_nothing_can_be_made() -> None:
    from pathlib import Path

    version.check_version(Path("/proc/self/no/such/store"))
