"""The reader of ELF files, on files made by tests/support/elf.py."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt
from argosy.gpu import elf
from tests.support.elf import EM_386, EM_AARCH64, shared_object

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = elf.MACHINES[os.uname().machine, 64]


@pytest.mark.parametrize(
    ("data", "expected"),
    [
        pytest.param(
            shared_object("libcuda.so.1", needed=("libc.so.6", "libm.so.6")),
            elf.Elf(bits=64, machine=MACHINE, soname="libcuda.so.1", needed=("libc.so.6", "libm.so.6")),
            id="a library with names",
        ),
        pytest.param(
            shared_object("libcuda.so.1", bits=32, machine=EM_386),
            elf.Elf(bits=32, machine=EM_386, soname="libcuda.so.1"),
            id="a 32-bit one",
        ),
        pytest.param(
            shared_object(None, machine=EM_AARCH64), elf.Elf(bits=64, machine=EM_AARCH64), id="a plug-in without names"
        ),
    ],
)
def test_names_and_machine_are_read(data: bytes, expected: elf.Elf) -> None:
    assert elf.read(data) == expected


def test_an_open_file_gives_what_its_bytes_give(tmp_path: Path) -> None:
    data = shared_object("libnvidia-ml.so.1", needed=("libc.so.6",))
    (tmp_path / "library").write_bytes(data)
    with open(tmp_path / "library", "rb") as file:
        assert elf.read(file.fileno()) == elf.read(data)
        assert file.tell() == 0


def test_this_interpreter_is_a_64_bit_program_that_needs_the_c_library() -> None:
    with open(os.path.realpath(sys.executable), "rb") as file:
        facts = elf.read(file.fileno())
    assert (facts.bits, facts.machine, facts.soname) == (64, MACHINE, None)
    assert any(name.startswith("libc.") for name in facts.needed)


def test_notes_are_read_with_owner_kind_and_data() -> None:
    data = shared_object("libcuda.so.1", note=("NVIDIA Corporation", 7, b'{"format":1}'))
    assert elf.notes(data) == (elf.Note(owner="NVIDIA Corporation", kind=7, data=b'{"format":1}'),)


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"", id="nothing"),
        pytest.param(b"#!/bin/sh\n" * 9, id="a script"),
        pytest.param(b"\x7fELF" + b"\xff" * 60, id="only a beginning"),
        pytest.param(shared_object("libcuda.so.1")[:150], id="cut in the program headers"),
    ],
)
def test_what_is_no_elf_file_is_corrupt(data: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        elf.read(data)
    assert (caught.value.code, caught.value.message) == ("elf-invalid", "not a usable ELF file")
