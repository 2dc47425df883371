"""The default seccomp profile as data, and the cache of its compiled form."""

from __future__ import annotations

import base64
from typing import TYPE_CHECKING, Any

import pytest

from argosy.errors import Unsupported
from argosy.linux import seccomp

if TYPE_CHECKING:
    from pathlib import Path

DOCKER_DEFAULT = ("CAP_CHOWN", "CAP_SETUID", "CAP_SYS_CHROOT", "CAP_MKNOD")


def _allowed(profile: dict[str, Any]) -> set[str]:
    return set(profile["syscalls"][0]["names"])


def test_a_plain_container_may_do_the_usual_and_no_more() -> None:
    allowed = _allowed(seccomp.profile_for(DOCKER_DEFAULT, "amd64"))
    assert {"openat", "execve", "chroot", "arch_prctl", "fchmodat2"} <= allowed
    assert not allowed & {"mount", "unshare", "setns", "keyctl", "add_key", "bpf", "io_uring_setup", "clone", "clone3"}


def test_capabilities_open_their_calls() -> None:
    profile = seccomp.profile_for(["CAP_SYS_ADMIN", "CAP_SYS_NICE"], "amd64")
    assert {"mount", "unshare", "clone", "clone3", "mbind"} <= _allowed(profile)
    assert [rule for rule in profile["syscalls"] if rule["names"] in (["clone"], ["clone3"])] == []


def test_clone_may_make_no_namespaces_and_clone3_is_unknown() -> None:
    rules = seccomp.profile_for(DOCKER_DEFAULT, "amd64")["syscalls"]
    assert rules[-2:] == [
        {
            "names": ["clone"],
            "action": "SCMP_ACT_ALLOW",
            "args": [{"index": 0, "value": 0x7E020000, "op": "SCMP_CMP_MASKED_EQ"}],
        },
        {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": 38},
    ]


def test_architectures_bring_their_own_calls_and_their_32_bit_sisters() -> None:
    profile = seccomp.profile_for((), "arm64")
    assert profile["architectures"] == ["SCMP_ARCH_AARCH64", "SCMP_ARCH_ARM"]
    assert "set_tls" in _allowed(profile)
    assert "arch_prctl" not in _allowed(profile)
    with pytest.raises(Unsupported) as caught:
        seccomp.profile_for((), "m68k")
    assert caught.value.code == "no-seccomp-profile"


def test_equal_arguments_give_equal_profiles_in_any_order() -> None:
    assert seccomp.profile_for(DOCKER_DEFAULT, "amd64") == seccomp.profile_for(reversed(DOCKER_DEFAULT), "amd64")


def test_the_compiled_program_is_cached_and_a_damaged_cache_is_made_again(tmp_path: Path) -> None:
    profile = seccomp.profile_for(DOCKER_DEFAULT, "amd64")
    folder = tmp_path / "cache"
    program = seccomp.compiled(profile, str(folder))
    if program is None:
        pytest.skip("libseccomp.so.2 is missing (apt install libseccomp2)")
    (cached,) = folder.iterdir()
    whole = cached.read_bytes()
    assert len(base64.b64decode(program)) % 8 == 0
    for damaged in (b"", whole[:-8], b"\xff\xfe", whole.replace(b"A", b"B", 1)):
        cached.write_bytes(damaged)
        assert seccomp.compiled(profile, str(folder)) == program
        assert cached.read_bytes() == whole


def test_profiles_that_differ_have_programs_of_their_own(tmp_path: Path) -> None:
    programs = {seccomp.compiled(seccomp.profile_for(held, "amd64"), str(tmp_path)) for held in ((), ("CAP_BPF",))}
    assert len(programs) == 2 or programs == {None}
