"""Requirements of a meta-package, and the messages of programs as our errors."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from argosy.catalog import programs
from argosy.catalog.wheels import normalised, pinned
from argosy.errors import Error, Exhausted, RuntimeFailed, Unavailable, Unsupported

if TYPE_CHECKING:
    from pathlib import Path

PAIR = "sys_platform == 'linux' and platform_machine == '{}' or sys_platform == 'win32' and platform_machine == 'AMD64'"
METADATA = f"""\
Metadata-Version: 2.5
Name: cuda-toolkit
Requires-Dist: nvidia-cuda-nvcc==13.5.37.*; ({PAIR.format("x86_64")}) and extra == 'all'
Requires-Dist: nvidia_cudla==13.5.25.*; ({PAIR.format("aarch64")}) and extra == "all"
Requires-Dist: nvidia-nvjitlink<14,>=13.5.37; extra == 'all'
Requires-Dist: nvidia-cublas==13.10.0.20.*; extra == 'cublas'
Requires-Dist: always-there

Requires-Dist: in-the-description==1
"""


def test_pins_are_those_of_the_extra_and_this_machine() -> None:
    assert pinned(METADATA, extra="all", machine="x86_64") == {
        "nvidia-cuda-nvcc": "==13.5.37.*",
        "nvidia-nvjitlink": "<14,>=13.5.37",
    }
    assert pinned(METADATA, extra="all", machine="aarch64") == {
        "nvidia-cudla": "==13.5.25.*",
        "nvidia-nvjitlink": "<14,>=13.5.37",
    }


def test_projects_are_named_as_the_index_names_them() -> None:
    assert normalised("Nvidia_CUDA.nvcc==13.*") == "nvidia-cuda-nvcc"


@pytest.mark.parametrize(
    ("said", "kind", "code"),
    [
        ("tar: write error: No space left on device", Exhausted, "disk-full"),
        ("Could not resolve 'deb.debian.org'", Unavailable, "network-unavailable"),
        ("NewConnectionError: Temporary failure in name resolution", Unavailable, "network-unavailable"),
        ("E: Unable to locate package nonsense", RuntimeFailed, "program-failed"),
    ],
)
def test_a_failed_program_becomes_an_error_with_its_last_lines(said: str, kind: type[Error], code: str) -> None:
    with pytest.raises(kind) as caught:
        programs.run(["/bin/sh", "-c", f'echo "{said}" >&2; exit 100'], doing="choosing packages", environ={})
    error = caught.value
    assert (type(error), error.code) == (kind, code)
    assert error.message.startswith("choosing packages")
    assert said in error.context
    assert "exit status 100" in error.context


def test_a_missing_program_says_which_package_brings_it(tmp_path: Path) -> None:
    with pytest.raises(Unsupported) as caught:
        programs.require("no-such-mmdebstrap", package="mmdebstrap", environ={"PATH": str(tmp_path)})
    assert caught.value.code == "program-missing"
    assert caught.value.hint == "apt-get install mmdebstrap"


def test_output_may_go_to_a_file(tmp_path: Path) -> None:
    with open(tmp_path / "out", "wb") as out:
        assert programs.run(["/bin/echo", "hello"], doing="greeting", environ=os.environ, stdout=out) == ""
    assert (tmp_path / "out").read_bytes() == b"hello\n"
