"""Wheels through the real pip, from an index that is a folder of small wheels."""

from __future__ import annotations

import hashlib
import os
import zipfile
from typing import TYPE_CHECKING

import pytest

from argosy.catalog.wheels import Wheel, Wheels
from argosy.errors import Corrupt, NotFound

if TYPE_CHECKING:
    from pathlib import Path


def make_wheel(folder: Path, project: str, version: str, metadata: str = "", content: bytes = b"library") -> Path:
    name = project.replace("-", "_")
    path = folder / f"{name}-{version}-py3-none-any.whl"
    with zipfile.ZipFile(path, "w") as archive:
        info = f"{name}-{version}.dist-info"
        archive.writestr("nvidia/cu13/lib/libx.so.13", content)
        archive.writestr(
            f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {project}\nVersion: {version}\n{metadata}\n"
        )
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path


@pytest.fixture
def index(tmp_path: Path) -> Path:
    folder = tmp_path / "index"
    folder.mkdir()
    pins = "Requires-Dist: nvidia-cuda-runtime==13.5.37.*; extra == 'all'\n"
    make_wheel(folder, "cuda-toolkit", "13.5.0", pins)
    make_wheel(folder, "cuda-toolkit", "13.4.1", pins.replace("13.5.37", "13.4.5"))
    make_wheel(folder, "nvidia-cuda-runtime", "13.5.37")
    make_wheel(folder, "nvidia-nccl-cu13", "2.30.1")
    return folder


@pytest.fixture
def wheels(tmp_path: Path, index: Path) -> Wheels:
    environ = {name: value for name, value in os.environ.items() if not name.startswith("PIP_")}
    environ |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(index), "PIP_CONFIG_FILE": os.devnull}
    return Wheels(tmp_path / "wheels", environ=environ)


def test_the_newest_release_of_a_series_brings_its_pins(wheels: Wheels) -> None:
    found = wheels.requirements("cuda-toolkit", "13", extra="all", machine="x86_64")
    assert found == ("13.5.0", {"nvidia-cuda-runtime": "==13.5.37.*"})
    assert wheels.requirements("cuda-toolkit", "13.4", extra="all", machine="x86_64")[0] == "13.4.1"


def test_a_release_that_the_index_lacks_is_not_found_and_the_others_are_listed(wheels: Wheels) -> None:
    with pytest.raises(NotFound) as caught:
        wheels.requirements("cuda-toolkit", "13.9", extra="all", machine="x86_64")
    assert (caught.value.code, caught.value.message) == (
        "release-unknown",
        "the Python index has no cuda-toolkit==13.9.*",
    )
    assert caught.value.context == "it has 13.4.1, 13.5.0"


def test_wheels_are_downloaded_once_and_their_digests_kept(wheels: Wheels, index: Path) -> None:
    found = wheels.resolve(["nvidia-nccl-cu13", "nvidia-cuda-runtime==13.5.37.*"])
    file = "nvidia_cuda_runtime-13.5.37-py3-none-any.whl"
    data = (index / file).read_bytes()
    runtime = Wheel(
        project="nvidia-cuda-runtime",
        version="13.5.37",
        file=file,
        sha256=hashlib.sha256(data).hexdigest(),
        size=len(data),
    )
    assert [wheel.project for wheel in found] == ["nvidia-nccl-cu13", "nvidia-cuda-runtime"]
    assert found[1] == runtime
    assert (wheels.folder / f"{file}.sha256").read_text() == f"{runtime.sha256}  {file}\n"
    assert wheels.resolve(["nvidia-cuda-runtime==13.5.37.*"]) == (runtime,)
    for path in index.iterdir():
        path.unlink()
    Wheels(wheels.folder, environ={}).ensure(found)  # nothing is missing, so pip is not asked


def test_a_wheel_that_changed_on_disk_is_noticed_and_removed(wheels: Wheels) -> None:
    (wheel,) = wheels.resolve(["nvidia-cuda-runtime"])
    path = wheels.path(wheel)
    path.write_bytes(path.read_bytes().replace(b"library", b"LIBRARY"))
    with pytest.raises(Corrupt) as caught:
        wheels.resolve(["nvidia-cuda-runtime"])
    assert caught.value.code == "digest-mismatch"
    assert not path.exists()
    assert wheels.resolve(["nvidia-cuda-runtime"]) == (wheel,)


def test_a_download_that_was_cut_short_is_made_again(wheels: Wheels) -> None:
    wheels.folder.mkdir()
    cut = wheels.folder / "nvidia_nccl_cu13-2.30.1-py3-none-any.whl"
    cut.write_bytes(b"PK\x03\x04 only the beginning")
    (wheel,) = wheels.resolve(["nvidia-nccl-cu13"])
    assert zipfile.is_zipfile(cut)
    assert wheel.size == cut.stat().st_size


def test_a_missing_wheel_must_come_back_as_it_was(wheels: Wheels, index: Path) -> None:
    (wheel,) = wheels.resolve(["nvidia-cuda-runtime"])
    wheels.path(wheel).unlink()
    again = Wheels(wheels.folder, environ=wheels._environ)
    again.ensure([wheel])
    assert again.path(wheel).exists()
    again.path(wheel).unlink()
    make_wheel(index, "nvidia-cuda-runtime", "13.5.37", content=b"another")
    with pytest.raises(Corrupt) as caught:
        Wheels(wheels.folder, environ=wheels._environ).ensure([wheel])
    assert caught.value.code == "digest-mismatch"
    assert caught.value.hint == "argosy catalog build --refresh NAME takes what the index has now"
