"""System calls that Python's os module lacks, one wrapper each.

Constants carry their C names. Every wrapper raises OSError with errno and the
path concerned, never returns -1. The calls above number 424 share their numbers
on every architecture. Nothing here decides anything; see mounts, paths, userns.
"""

from __future__ import annotations

import ctypes
import os
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import StrOrBytesPath

# mount(2)
MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20

# umount2(2)
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

# unshare(2), setns(2)
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUSER = 0x10000000

# openat2(2)
RESOLVE_NO_XDEV = 0x01
RESOLVE_NO_MAGICLINKS = 0x02
RESOLVE_NO_SYMLINKS = 0x04
RESOLVE_BENEATH = 0x08
RESOLVE_IN_ROOT = 0x10

# *at(2)
AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000

# fsopen(2), fsconfig(2), fsmount(2), open_tree(2), move_mount(2), mount_setattr(2)
FSOPEN_CLOEXEC = 1
FSCONFIG_SET_FLAG = 0
FSCONFIG_SET_STRING = 1
FSCONFIG_CMD_CREATE = 6
FSCONFIG_STRING_LIMIT = 255  # bytes; strndup_user(…, 256) in the kernel's fs/fsopen.c
FSMOUNT_CLOEXEC = 1
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x04
MOVE_MOUNT_T_EMPTY_PATH = 0x40
MOUNT_ATTR_RDONLY = 0x01
MOUNT_ATTR_NOSUID = 0x02
MOUNT_ATTR_NODEV = 0x04
MOUNT_ATTR_NOEXEC = 0x08
MOUNT_ATTR_NOATIME = 0x10
MOUNT_ATTR_IDMAP = 0x00100000

# renameat2(2)
RENAME_NOREPLACE = 1

# mallopt(3)
M_TRIM_THRESHOLD = -1
M_MMAP_THRESHOLD = -3
# prctl(2)
PR_SET_PDEATHSIG = 1
PR_SET_DUMPABLE = 4
PR_SET_NO_NEW_PRIVS = 38

# statfs(2), f_type
NFS_SUPER_MAGIC = 0x6969
TMPFS_MAGIC = 0x01021994
CGROUP2_SUPER_MAGIC = 0x63677270

# Numbers shared by all architectures.
_NR_OPEN_TREE = 428
_NR_MOVE_MOUNT = 429
_NR_FSOPEN = 430
_NR_FSCONFIG = 431
_NR_FSMOUNT = 432
_NR_OPENAT2 = 437
_NR_MOUNT_SETATTR = 442
#: {machine: number of renameat2}, the one call here that is older than the shared numbers.
_NR_RENAMEAT2 = {"x86_64": 316, "aarch64": 276}

#: Names of the capabilities; the index is the kernel's number.
CAPABILITIES: tuple[str, ...] = (
    *("CAP_CHOWN", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH", "CAP_FOWNER", "CAP_FSETID", "CAP_KILL", "CAP_SETGID"),
    *("CAP_SETUID", "CAP_SETPCAP", "CAP_LINUX_IMMUTABLE", "CAP_NET_BIND_SERVICE", "CAP_NET_BROADCAST", "CAP_NET_ADMIN"),
    *("CAP_NET_RAW", "CAP_IPC_LOCK", "CAP_IPC_OWNER", "CAP_SYS_MODULE", "CAP_SYS_RAWIO", "CAP_SYS_CHROOT"),
    *("CAP_SYS_PTRACE", "CAP_SYS_PACCT", "CAP_SYS_ADMIN", "CAP_SYS_BOOT", "CAP_SYS_NICE", "CAP_SYS_RESOURCE"),
    *("CAP_SYS_TIME", "CAP_SYS_TTY_CONFIG", "CAP_MKNOD", "CAP_LEASE", "CAP_AUDIT_WRITE", "CAP_AUDIT_CONTROL"),
    *("CAP_SETFCAP", "CAP_MAC_OVERRIDE", "CAP_MAC_ADMIN", "CAP_SYSLOG", "CAP_WAKE_ALARM", "CAP_BLOCK_SUSPEND"),
    *("CAP_AUDIT_READ", "CAP_PERFMON", "CAP_BPF", "CAP_CHECKPOINT_RESTORE"),
)

_libc = ctypes.CDLL(None, use_errno=True)
_libc.syscall.restype = ctypes.c_long
_libc.mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_libc.prctl.argtypes = [ctypes.c_int, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong, ctypes.c_ulong]


def _encoded(path: StrOrBytesPath) -> bytes:
    """*path* for C; a NUL inside, where C would stop reading, is refused as os.open does."""
    encoded = os.fsencode(path)
    if b"\0" in encoded:
        raise ValueError("embedded null byte")
    return encoded


def _raise(*paths: StrOrBytesPath | None) -> None:
    number = ctypes.get_errno()
    names = [os.fsdecode(path) for path in paths if path is not None]
    if len(names) == 2:
        raise OSError(number, os.strerror(number), names[0], None, names[1])
    raise OSError(number, os.strerror(number), *names)


def _syscall(number: int, *arguments: int | bytes | ctypes.Array[ctypes.c_char] | None) -> int:
    # Plain ints would be passed as 32 bits; pointers and NULL pass as they are.
    words = [ctypes.c_long(value) if isinstance(value, int) else value for value in arguments]
    return int(_libc.syscall(ctypes.c_long(number), *words))


def _packed(*values: int) -> ctypes.Array[ctypes.c_char]:
    """A C structure of unsigned 64-bit members."""
    return ctypes.create_string_buffer(b"".join(value.to_bytes(8, sys.byteorder) for value in values), 8 * len(values))


def mount(
    source: StrOrBytesPath | None,
    target: StrOrBytesPath,
    kind: str | None,
    flags: int = 0,
    data: str | bytes | None = None,
) -> None:
    """mount(2). *data* is at most one page; longer lists of options need fsconfig."""
    if (
        _libc.mount(
            None if source is None else _encoded(source),
            _encoded(target),
            None if kind is None else kind.encode(),
            flags,
            None if data is None else _encoded(data),
        )
        < 0
    ):
        _raise(source, target)


def umount2(target: StrOrBytesPath, flags: int = 0) -> None:
    if _libc.umount2(_encoded(target), flags) < 0:
        _raise(target)


def unshare(flags: int) -> None:
    """unshare(2). EINVAL for CLONE_NEWUSER means that this process has more than one thread."""
    if _libc.unshare(flags) < 0:
        _raise()


def setns(fd: int, flags: int = 0) -> None:
    if _libc.setns(fd, flags) < 0:
        _raise()


def openat2(folder_fd: int, path: StrOrBytesPath, flags: int, *, mode: int = 0, resolve: int = 0) -> int:
    """openat2(2), Linux 5.6; always O_CLOEXEC. EAGAIN: a rename raced with RESOLVE_IN_ROOT, try again."""
    how = _packed(flags | os.O_CLOEXEC, mode, resolve)
    fd = _syscall(_NR_OPENAT2, folder_fd, _encoded(path), how, len(how))
    if fd < 0:
        _raise(path)
    return fd


def fsopen(kind: str) -> int:
    """fsopen(2), Linux 5.2: the descriptor of a file system being configured."""
    fd = _syscall(_NR_FSOPEN, kind.encode(), FSOPEN_CLOEXEC)
    if fd < 0:
        _raise(kind)
    return fd


def fsconfig_flag(fd: int, key: str) -> None:
    if _syscall(_NR_FSCONFIG, fd, FSCONFIG_SET_FLAG, key.encode(), None, 0) < 0:
        _raise(key)


def fsconfig_string(fd: int, key: str, value: StrOrBytesPath) -> None:
    """Set *key*; *value* is at most FSCONFIG_STRING_LIMIT bytes."""
    if _syscall(_NR_FSCONFIG, fd, FSCONFIG_SET_STRING, key.encode(), _encoded(value), 0) < 0:
        _raise(value)


def fsconfig_create(fd: int) -> None:
    if _syscall(_NR_FSCONFIG, fd, FSCONFIG_CMD_CREATE, None, None, 0) < 0:
        _raise()


def fsconfig_messages(fd: int) -> tuple[str, ...]:
    """What the file system said about the calls so far, oldest first, without the severity letter."""
    messages: list[str] = []
    while True:
        try:
            line = os.read(fd, 4096)
        except OSError:  # ENODATA: nothing left
            return tuple(messages)
        if not line:
            return tuple(messages)
        messages.append(line.decode(errors="replace").strip().removeprefix("e ").removeprefix("w ").removeprefix("i "))


def fsmount(fd: int, attributes: int = 0) -> int:
    """fsmount(2): a mount that is not yet attached anywhere."""
    mount_fd = _syscall(_NR_FSMOUNT, fd, FSMOUNT_CLOEXEC, attributes)
    if mount_fd < 0:
        _raise()
    return mount_fd


def open_tree(folder_fd: int, path: StrOrBytesPath, flags: int) -> int:
    fd = _syscall(_NR_OPEN_TREE, folder_fd, _encoded(path), flags | OPEN_TREE_CLOEXEC)
    if fd < 0:
        _raise(path)
    return fd


def move_mount(mount_fd: int, target: StrOrBytesPath, *, folder_fd: int = AT_FDCWD, flags: int = 0) -> None:
    """Attach what *mount_fd* refers to at *target* (relative to *folder_fd*; empty with MOVE_MOUNT_T_EMPTY_PATH)."""
    flags |= MOVE_MOUNT_F_EMPTY_PATH
    if _syscall(_NR_MOVE_MOUNT, mount_fd, b"", folder_fd, _encoded(target), flags) < 0:
        _raise(target)


def mount_setattr(
    folder_fd: int,
    path: StrOrBytesPath,
    flags: int,
    *,
    set: int = 0,
    clear: int = 0,
    propagation: int = 0,
    userns_fd: int = 0,
) -> None:
    """mount_setattr(2), Linux 5.12; with AT_RECURSIVE for a whole tree of mounts."""
    attributes = _packed(set, clear, propagation, userns_fd)
    if _syscall(_NR_MOUNT_SETATTR, folder_fd, _encoded(path), flags, attributes, len(attributes)) < 0:
        _raise(path)


def renameat2(old_fd: int, old: StrOrBytesPath, new_fd: int, new: StrOrBytesPath, flags: int) -> None:
    """renameat2(2). EINVAL: the file system knows no such flag (NFS and RENAME_NOREPLACE)."""
    number = _NR_RENAMEAT2.get(os.uname().machine, -1)
    if _syscall(number, old_fd, _encoded(old), new_fd, _encoded(new), flags) < 0:
        _raise(old, new)


def prctl(option: int, arg2: int = 0, arg3: int = 0, arg4: int = 0, arg5: int = 0) -> int:
    result = int(_libc.prctl(option, arg2, arg3, arg4, arg5))
    if result < 0:
        _raise()
    return result


def keep_memory(largest: int, most: int) -> None:
    """Have freed memory used again: blocks of up to *largest* bytes (at most 32 MiB), as long as *most* lie unused.

    Otherwise glibc gives each large block back to the kernel, whose next one must be zeroed
    page by page. C libraries without mallopt are left as they are.
    """
    mallopt = getattr(_libc, "mallopt", None)
    if mallopt is not None:
        mallopt(M_MMAP_THRESHOLD, largest)
        mallopt(M_TRIM_THRESHOLD, most)


def capget(pid: int = 0) -> frozenset[str]:
    """Names of the effective capabilities of *pid* (0: this thread), in its own user namespace."""
    header = (ctypes.c_uint32 * 2)(0x20080522, pid)  # _LINUX_CAPABILITY_VERSION_3
    data = (ctypes.c_uint32 * 6)()  # two triples: effective, permitted, inheritable
    if _libc.capget(header, data) < 0:
        _raise()
    return capability_names(data[0] | data[3] << 32)


def capability_names(mask: int) -> frozenset[str]:
    """Names for a bit mask as /proc/PID/status shows it; bits that have no name yet are left out."""
    return frozenset(name for bit, name in enumerate(CAPABILITIES) if mask >> bit & 1)


def syncfs(fd: int) -> None:
    """syncfs(2): make durable whatever was written to the file system that holds *fd*."""
    if _libc.syncfs(fd) < 0:
        _raise()


def statfs_type(path: StrOrBytesPath) -> int:
    """f_type of the file system that holds *path* (NFS_SUPER_MAGIC, …); os.statvfs leaves it out."""
    buffer = ctypes.create_string_buffer(256)  # struct statfs is 120 bytes on 64-bit machines
    if _libc.statfs(_encoded(path), buffer) < 0:
        _raise(path)
    return int(ctypes.c_ulong.from_buffer(buffer).value) & 0xFFFFFFFF


def mount_attributes(flags: int) -> int:
    """The MOUNT_ATTR_* of MS_* flags; the four that both have share their bits."""
    return flags & (MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC) | (MOUNT_ATTR_NOATIME if flags & MS_NOATIME else 0)
