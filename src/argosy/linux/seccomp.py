"""Seccomp: the default profile for given capabilities, and its compiled form.

crun compiles a profile at every start (15 ms of a 22 ms start); given the finished
program in an annotation it need not. libseccomp.so.2 compiles it once here and the
result lies in the cache folder. Other runtimes read the profile itself.
"""

from __future__ import annotations

import binascii
import ctypes
import errno
import os
import struct
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import Error, RuntimeFailed, Unsupported
from ..oci.digest import Digest
from . import files
from . import seccomp_profile as table

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

_ALLOW = "SCMP_ACT_ALLOW"
_FORMAT = 1  # of the compiled program; raise it when the prelude changes
_INSTRUCTION = struct.Struct("=HBBI")  # struct sock_filter: code, jump if true, jump if false, constant
_RET_ALLOW = 0x7FFF0000
_RET_ERRNO = 0x00050000
_PRIVATE_CALLS = 0xF0000  # ARM's own calls begin here; x32 sets bit 30 in all of its numbers
#: {name in the profile: (value for libseccomp, AUDIT_ARCH_* that the kernel reports)}
_ARCHITECTURES = {
    "SCMP_ARCH_X86_64": 0xC000003E,
    "SCMP_ARCH_X86": 0x40000003,
    "SCMP_ARCH_X32": 0x4000003E,  # libseccomp's own; the kernel reports X86_64 and sets a bit in the number
    "SCMP_ARCH_AARCH64": 0xC00000B7,
    "SCMP_ARCH_ARM": 0x40000028,
    "SCMP_ARCH_RISCV64": 0xC00000F3,
}
_OPERATORS = {
    "SCMP_CMP_NE": 1,
    "SCMP_CMP_LT": 2,
    "SCMP_CMP_LE": 3,
    "SCMP_CMP_EQ": 4,
    "SCMP_CMP_GE": 5,
    "SCMP_CMP_GT": 6,
    "SCMP_CMP_MASKED_EQ": 7,
}
_ACTIONS = {
    "SCMP_ACT_ALLOW": _RET_ALLOW,
    "SCMP_ACT_LOG": 0x7FFC0000,
    "SCMP_ACT_ERRNO": _RET_ERRNO,
    "SCMP_ACT_TRAP": 0x00030000,
    "SCMP_ACT_KILL": 0x00000000,
    "SCMP_ACT_KILL_THREAD": 0x00000000,
    "SCMP_ACT_KILL_PROCESS": 0x80000000,
}


def profile_for(capabilities: Iterable[str], architecture: str) -> dict[str, Any]:
    """The default profile as `linux.seccomp` of config.json, for a process that holds *capabilities*.

    *architecture* is Go's word (amd64, arm64). Raises Unsupported (code
    "no-seccomp-profile") for one that the table does not have. Equal arguments give
    equal profiles. Source: runtime-spec «config-linux.md», Seccomp.
    """
    if architecture not in table.ARCHITECTURES:
        raise Unsupported(
            f"no seccomp profile for {architecture}",
            code="no-seccomp-profile",
            context=f"there are profiles for {', '.join(sorted(table.ARCHITECTURES))}",
        )
    held = frozenset(capabilities)
    native, others = table.ARCHITECTURES[architecture]
    return {
        "defaultAction": "SCMP_ACT_ERRNO",
        "defaultErrnoRet": errno.EPERM,
        "architectures": [native, *others],
        "syscalls": [{"names": _names(held, architecture), "action": _ALLOW}, *_conditional(held)],
    }


def compiled(profile: Mapping[str, Any], cache_folder: str) -> str | None:
    """Base64 of the profile's BPF program, from the cache or made now; None without libseccomp.so.2.

    Beyond what the runtime would compile, calls that libseccomp is too old to know
    are allowed by number, and calls younger than the profile give ENOSYS, not EPERM.
    """
    key = Digest.of(msgspec.json.encode([_FORMAT, profile])).hex
    path = os.path.join(cache_folder, f"seccomp-{key[:40]}")
    cached = _read_checked(path)
    if cached is not None:
        return cached
    try:
        program = binascii.b2a_base64(compile_profile(profile), newline=False).decode()
    except Unsupported:
        return None
    os.makedirs(cache_folder, exist_ok=True)
    # Derived and checked on reading, so it need not survive a power cut.
    files.write_atomic(path, f"{_checksum(program)} {program}".encode(), sync=False)
    return program


def compile_profile(profile: Mapping[str, Any]) -> bytes:
    """The profile as an array of struct sock_filter.

    Raises Unsupported (code "no-libseccomp") when the library is absent, RuntimeFailed
    ("seccomp-compile") when it refuses the profile.
    """
    library = _library()
    context = library.seccomp_init(_action(profile["defaultAction"], profile.get("defaultErrnoRet")))
    if not context:
        raise _refused("seccomp_init", errno.ENOMEM)
    try:
        young = _fill(library, context, profile)
        refuses = _ACTIONS[profile["defaultAction"]] == _RET_ERRNO
        prelude = _prelude(profile["architectures"], young) if refuses and profile.get("architectures") else b""
        return prelude + _exported(library, context)
    finally:
        library.seccomp_release(context)


def _names(held: frozenset[str], architecture: str) -> list[str]:
    names = {*table.ALWAYS.split(), *table.BY_ARCHITECTURE[architecture].split()}
    for capability in held & table.BY_CAPABILITY.keys():
        names.update(table.BY_CAPABILITY[capability].split())
    return sorted(names)


def _conditional(held: frozenset[str]) -> Iterator[dict[str, Any]]:
    """Rules that look at an argument, and clone3, whose arguments a filter cannot see."""
    yield _rule("socket", table.SOCKET_FAMILIES_BELOW, "SCMP_CMP_LT")
    for family in table.SOCKET_FAMILIES:
        yield _rule("socket", family, "SCMP_CMP_EQ")
    for domain in table.PERSONALITIES:
        yield _rule("personality", domain, "SCMP_CMP_EQ")
    if "CAP_SYS_ADMIN" not in held:
        yield _rule("clone", table.CLONE_NAMESPACES, "SCMP_CMP_MASKED_EQ")
        # ENOSYS makes glibc fall back to clone, where the rule above can look at the flags.
        yield {"names": ["clone3"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno.ENOSYS}


def _rule(name: str, value: int, operator: str) -> dict[str, Any]:
    return {"names": [name], "action": _ALLOW, "args": [{"index": 0, "value": value, "op": operator}]}


def _checksum(text: str) -> str:
    return Digest.of(text.encode()).hex


def _read_checked(path: str) -> str | None:
    """The cached program; None when there is none or the file is damaged."""
    try:
        with open(path, encoding="ascii") as file:
            checksum, _, program = file.read().partition(" ")
    except (OSError, UnicodeDecodeError):
        return None
    return program if program and checksum == _checksum(program) else None


def _library() -> ctypes.CDLL:
    try:
        library = ctypes.CDLL("libseccomp.so.2")
    except OSError as error:
        raise Unsupported(
            "libseccomp.so.2 is missing",
            code="no-libseccomp",
            context=str(error),
            hint="Debian, Ubuntu: apt install libseccomp2",
        ) from error
    library.seccomp_init.restype = ctypes.c_void_p
    library.seccomp_init.argtypes = [ctypes.c_uint32]
    library.seccomp_release.argtypes = [ctypes.c_void_p]
    library.seccomp_arch_add.argtypes = [ctypes.c_void_p, ctypes.c_uint32]
    library.seccomp_syscall_resolve_name.argtypes = [ctypes.c_char_p]
    library.seccomp_export_bpf.argtypes = [ctypes.c_void_p, ctypes.c_int]
    library.seccomp_rule_add_array.argtypes = [
        *(ctypes.c_void_p, ctypes.c_uint32, ctypes.c_int, ctypes.c_uint, ctypes.c_char_p)
    ]
    return library


def _fill(library: ctypes.CDLL, context: int, profile: Mapping[str, Any]) -> list[int]:
    """Add architectures and rules; returns the numbers of allowed calls that the library does not know."""
    for name in profile.get("architectures", []):
        _checked("seccomp_arch_add", library.seccomp_arch_add(context, _ARCHITECTURES[name]), errno.EEXIST)
    default = _action(profile["defaultAction"], profile.get("defaultErrnoRet"))
    young = []
    for rule in profile["syscalls"]:
        action = _action(rule["action"], rule.get("errnoRet"))
        if action == default:  # the library refuses rules that change nothing
            continue
        arguments = b"".join(_argument(argument) for argument in rule.get("args", []))
        for name in rule["names"]:
            number = library.seccomp_syscall_resolve_name(name.encode())
            if number != -1:  # __NR_SCMP_ERROR
                count = len(rule.get("args", []))
                result = library.seccomp_rule_add_array(context, action, number, count, arguments)
                # EDOM: the call exists on none of these architectures.
                _checked(f"rule for {name}", result, errno.EDOM, errno.EEXIST)
            elif action == _RET_ALLOW and not arguments and name in table.YOUNG_CALLS:
                young.append(table.YOUNG_CALLS[name])
    return sorted(young)


def _argument(argument: Mapping[str, Any]) -> bytes:
    """struct scmp_arg_cmp: which argument, operator, two data."""
    return struct.pack(
        "=IiQQ", argument["index"], _OPERATORS[argument["op"]], argument["value"], argument.get("valueTwo", 0)
    )


def _action(name: str, errno_ret: int | None) -> int:
    value = _ACTIONS[name]
    return value | (errno.EPERM if errno_ret is None else errno_ret) if value == _RET_ERRNO else value


def _checked(step: str, result: int, *accepted: int) -> None:
    if result < 0 and -result not in accepted:
        raise _refused(step, -result)


def _refused(step: str, number: int) -> Error:
    return RuntimeFailed(
        "libseccomp refused the profile", code="seccomp-compile", context=f"{step}: {os.strerror(number)}"
    )


def _exported(library: ctypes.CDLL, context: int) -> bytes:
    fd = os.memfd_create("seccomp", os.MFD_CLOEXEC)
    try:
        _checked("seccomp_export_bpf", library.seccomp_export_bpf(context, fd))
        return os.pread(fd, 1 << 20, 0)
    finally:
        os.close(fd)


def _prelude(architectures: Iterable[str], young: list[int]) -> bytes:
    """Instructions before libseccomp's: *young* numbers are allowed, those after the last known give ENOSYS.

    Jumps of BPF are relative and forward only, so a program may be put in front of
    another.
    """
    native = [_ARCHITECTURES[name] for name in architectures if name != "SCMP_ARCH_X32"]
    body = [
        (0x20, 0, 0, 0),  # ld [0]: number of the call
        (0x35, len(young) + 4, 0, _PRIVATE_CALLS),  # jge: to the end
        (0x25, len(young) + 2, 0, table.LAST_KNOWN_CALL),  # jgt LAST: to ENOSYS
        *((0x15, len(young) - place, 0, number) for place, number in enumerate(young)),  # jeq: to ALLOW
        (0x05, 0, 0, 2),  # ja: to the end
        (0x06, 0, 0, _RET_ALLOW),
        (0x06, 0, 0, _RET_ERRNO | errno.ENOSYS),
    ]
    head = [(0x20, 0, 0, 4)]  # ld [4]: architecture
    for place, value in enumerate(native):
        last = place == len(native) - 1
        head.append((0x15, len(native) - 1 - place, len(body) if last else 0, value))
    return b"".join(_INSTRUCTION.pack(*instruction) for instruction in head + body)
