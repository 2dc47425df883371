"""The default seccomp profile in force: loaded into a child, and given to crun as an annotation."""

from __future__ import annotations

import base64
import ctypes
import errno
import json
import os
from typing import TYPE_CHECKING, Any

import pytest

from argosy.errors import Unsupported
from argosy.linux import mounts, processes, seccomp, syscalls
from argosy.oci.platform import Platform
from argosy.runtime import oci_runtime
from support.forked import in_child

if TYPE_CHECKING:
    from pathlib import Path

DEFAULT = ("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_SETGID", "CAP_SETUID", "CAP_SYS_CHROOT")
ARCHITECTURE = Platform.host().architecture
PATH = "/usr/sbin:/usr/bin:/bin"

#: {what is called: (number shared by all architectures, or on x86-64; arguments; errno, 0 for success)}
X86_64 = {
    "getppid": (110, (), 0),
    "socket(AF_INET)": (41, (2, 1, 0), 0),
    "socket(AF_ALG)": (41, (38, 5, 0), errno.EPERM),
    "socket(AF_VSOCK)": (41, (40, 1, 0), errno.EPERM),
    "personality(query)": (135, (0xFFFFFFFF,), 0),
    "personality(MMAP_PAGE_ZERO)": (135, (0x0100000,), errno.EPERM),
    "unshare(CLONE_NEWUSER)": (272, (0x10000000,), errno.EPERM),
    "clone(CLONE_NEWUSER)": (56, (0x10000000, 0, 0, 0, 0), errno.EPERM),
    "mount": (165, (0, 0, 0, 0, 0), errno.EPERM),
    "keyctl": (250, (0,), errno.EPERM),
}
SHARED = {
    "clone3": (435, (0, 0), errno.ENOSYS),
    "io_uring_setup": (425, (0, 0), errno.EPERM),
    "fsopen": (430, (0, 0), errno.EPERM),
    "fchmodat2 of a bad address": (452, (-100, 0, 0, 0), errno.EFAULT),
    "set_mempolicy_home_node": (450, (0, 0, 0, 0), errno.EPERM),
    "the first call after the profile": (467, (), errno.ENOSYS),
    "a call of the future": (700, (), errno.ENOSYS),
}


class _Program(ctypes.Structure):
    """struct sock_fprog"""

    _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_void_p))


def _load(program: bytes) -> None:
    buffer = ctypes.create_string_buffer(program, len(program))
    filter_ = _Program(len(program) // 8, ctypes.addressof(buffer))
    syscalls.prctl(syscalls.PR_SET_NO_NEW_PRIVS, 1)
    syscalls.prctl(22, 2, ctypes.addressof(filter_))  # PR_SET_SECCOMP, SECCOMP_MODE_FILTER


def _errno_of(number: int, arguments: tuple[int, ...]) -> int:
    libc = ctypes.CDLL(None, use_errno=True)
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *(ctypes.c_long(argument) for argument in arguments))
    return ctypes.get_errno() if result == -1 else 0


def _program(capabilities: tuple[str, ...]) -> bytes:
    try:
        return seccomp.compile_profile(seccomp.profile_for(capabilities, ARCHITECTURE))
    except Unsupported as error:
        pytest.skip(f"{error.message} ({error.hint})")


def test_calls_are_answered_as_docker_answers_them() -> None:
    program = _program(DEFAULT)
    calls = {**SHARED, **(X86_64 if ARCHITECTURE == "amd64" else {})}

    def call() -> dict[str, str]:
        _load(program)
        return {name: os.strerror(_errno_of(number, arguments)) for name, (number, arguments, _) in calls.items()}

    assert in_child(call) == {name: os.strerror(number) for name, (_, _, number) in calls.items()}


def test_cap_sys_admin_may_make_namespaces() -> None:
    program = _program((*DEFAULT, "CAP_SYS_ADMIN"))

    def call() -> object:
        _load(program)
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        return _errno_of(435, (0, 0)), _errno_of(461, (0, 0, 0))

    assert in_child(call) == (errno.EINVAL, errno.EFAULT)


def _bundle(folder: Path, profile: dict[str, Any], program: str) -> None:
    """A container that has the host's /usr to run things from."""
    rootfs = folder / "rootfs"
    rootfs.mkdir()
    for name in ("bin", "lib", "lib64"):
        (rootfs / name).symlink_to(f"usr/{name}")
    (rootfs / "usr").mkdir()
    (rootfs / "proc").mkdir()
    (rootfs / "dev").mkdir()
    script = "grep Seccomp: /proc/self/status; unshare -U true; echo $?; perl -e 'syscall(700); print $! + 0'"
    spec = {
        "ociVersion": "1.0.2",
        "process": {
            "args": ["/bin/sh", "-c", script],
            "env": ["PATH=/usr/bin"],
            "cwd": "/",
            "user": {"uid": 0, "gid": 0},
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [
            {"destination": "/proc", "type": "proc", "source": "proc"},
            {"destination": "/usr", "type": "bind", "source": "/usr", "options": ["rbind", "ro"]},
        ],
        "linux": {"namespaces": [{"type": "mount"}, {"type": "pid"}, {"type": "ipc"}], "seccomp": profile},
        "annotations": {oci_runtime.BPF_ANNOTATION: program},
    }
    (folder / "config.json").write_text(json.dumps(spec))


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root (CAP_SYS_ADMIN)")
def test_crun_takes_the_compiled_program(tmp_path: Path) -> None:
    crun = processes.find_program("crun", path=PATH)
    if crun is None:
        pytest.skip("crun is missing (apt install crun)")
    profile = seccomp.profile_for(DEFAULT, ARCHITECTURE)
    program = seccomp.compiled(profile, str(tmp_path / "cache"))
    if program is None:
        pytest.skip("libseccomp.so.2 is missing (apt install libseccomp2)")
    _bundle(tmp_path, profile, program)
    argv = [crun, f"--root={tmp_path}/state", "--cgroup-manager=disabled", "run", f"--bundle={tmp_path}", "c"]

    def run() -> processes.Completed:
        mounts.private_namespace()
        mounts.unmount("/sys/fs/cgroup/unified")  # crun refuses hybrid hosts, see its «drop all controllers»
        return processes.run_program(argv, env={"PATH": PATH}, timeout_s=60)

    done = in_child(run)
    # ENOSYS for a call of the future comes from our prelude alone: crun compiles none.
    assert done.check("crun").stdout.decode().split() == ["Seccomp:", "2", "1", str(errno.ENOSYS)]
    assert b"unshare: unshare failed: Operation not permitted" in done.stderr


def test_the_program_fits_the_annotation_and_the_kernel() -> None:
    program = _program(DEFAULT)
    assert len(program) // 8 < 4096  # BPF_MAXINSNS
    assert len(base64.b64encode(program)) < 1 << 16
