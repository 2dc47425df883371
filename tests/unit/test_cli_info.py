"""info and version: facts under Docker's names, and none that fails the whole."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING, Any

import pytest

import argosy
from argosy.cli import main
from argosy.cli.host import Host
from argosy.errors import InvalidInput
from argosy.oci.platform import Platform
from support import driver_roots
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path


def environ(root: Path, **more: str) -> dict[str, str]:
    return {"ARGOSY_ROOT": str(root / "store"), "PATH": os.environ["PATH"], "HOME": str(root), **more}


def facts(root: Path, capsys: pytest.CaptureFixture[str], *argv: str, **more: str) -> Any:
    assert main([*argv, "info", "--format", "json"], environ(root, **more)) == 0
    return json.loads(capsys.readouterr().out)


def test_info_counts_images_and_names_the_store(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    load_image(tmp_path / "store", random_image(tmp_path / "image"), "a:1", "a:2")
    found = facts(tmp_path, capsys)
    assert {name: found[name] for name in ("Images", "Names", "Containers", "Root", "DockerRootDir")} == {
        "Images": 1,
        "Names": 2,
        "Containers": 0,
        "Root": str(tmp_path / "store"),
        "DockerRootDir": str(tmp_path / "store"),
    }
    assert found["Driver"] == found["Snapshots"]
    assert found["KernelVersion"] == os.uname().release
    assert all(set(feature) == {"Available", "Reason", "Hint"} for feature in found["Features"].values())


def test_info_names_driver_and_gpus_of_the_driver_root(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    fake = driver_roots.build(tmp_path / "fake")
    found = facts(tmp_path, capsys, "--driver-root", str(fake))["GPU"]
    assert (found["Driver"], found["Module"], found["Root"], found["Problem"]) == (
        driver_roots.VERSION,
        driver_roots.VERSION,
        str(fake),
        "",
    )
    assert [gpu["UUID"] for gpu in found["GPUs"]] == [gpu.uuid for gpu in driver_roots.GPUS]
    assert facts(tmp_path, capsys, ARGOSY_DRIVER_ROOT=str(fake))["GPU"] == found


def test_a_driver_root_that_is_not_there_is_a_fact(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    found = facts(tmp_path, capsys, "--driver-root", str(tmp_path / "nowhere"))["GPU"]
    assert found["Problem"] == f"no folder {str(tmp_path / 'nowhere')!r} to look for the driver in"


def test_info_is_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info"], environ(tmp_path)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:3] == [f"argosy {argosy.__version__}", f" Store: {tmp_path / 'store'}", "  Images: 0 under 0 names"]


def test_version_answers_in_dockers_fields(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version", "-f", "{{.Client.Version}} {{.Server.Os}}/{{.Server.Arch}}"], environ(tmp_path)) == 0
    assert capsys.readouterr().out == f"{argosy.__version__} {Platform.host()}\n"


def test_version_is_text_for_people(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"], environ(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert [line.partition(":")[0].strip() for line in shown.splitlines()[1:]] == [
        "Python",
        "Runtime",
        "Kernel",
        "Platform",
    ]


@pytest.mark.parametrize(
    ("settings", "variables", "root"),
    [
        ({"root": "/a"}, {"ARGOSY_ROOT": "/b"}, "/a"),
        ({}, {"ARGOSY_ROOT": "/b"}, "/b"),
        ({}, {"ARGOSY_ROOT": "", "HOME": "/home/me"}, "/home/me/.local/share/argosy"),
        ({}, {"HOME": "/home/me", "XDG_DATA_HOME": "/data"}, "/data/argosy"),
        ({}, {"HOME": "/home/me", "XDG_DATA_HOME": "relative"}, "/home/me/.local/share/argosy"),
    ],
)
def test_the_store_is_placed_by_flag_environment_and_user(
    settings: dict[str, str], variables: dict[str, str], root: str
) -> None:
    host = Host(settings, variables)
    host._uid = 1000
    assert str(host.root) == root


def test_roots_store_is_the_systems() -> None:
    host = Host({}, {})
    host._uid = 0
    assert str(host.root) == "/var/lib/argosy"


def test_a_user_without_a_home_must_name_a_store() -> None:
    host = Host({}, {})
    host._uid = 1000
    with pytest.raises(InvalidInput, match="no home folder is known"):
        host.root  # noqa: B018


def test_features_are_probed_once_and_damaged_ones_again(tmp_path: Path) -> None:
    first = Host({}, environ(tmp_path)).features
    cache = tmp_path / "store/cache" / f"features-{os.uname().nodename}.json"
    kept = cache.read_bytes()
    cache.write_bytes(kept.replace(b'"key":"', b'"key":"another boot '))
    assert Host({}, environ(tmp_path)).features == first
    assert cache.read_bytes() == kept
    cache.write_bytes(b"{")
    assert Host({}, environ(tmp_path)).features == first


@pytest.mark.parametrize(("columns", "width"), [("132", 132), ("0", 80), ("x", 80), ("", 80)])
def test_the_width_is_what_columns_says(columns: str, width: int) -> None:
    assert Host({}, {"COLUMNS": columns}).width == width


def test_times_are_rfc_3339_with_nanoseconds() -> None:
    stamp = Host({}, {}).now()
    assert (len(stamp), stamp[10], stamp[19], stamp[-1]) == (30, "T", ".", "Z")
