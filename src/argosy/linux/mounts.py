"""Mount operations as values: described, ordered, executed, undone.

Only execute() needs privilege (root, or root of a user namespace). Paths of any length
and with any characters work, and so do hundreds of layers: options go through
fsconfig one at a time where the kernel can, and long names are shortened to
descriptors.
"""

from __future__ import annotations

import errno
import os
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import Conflict, NotFound, RuntimeFailed, Unauthorized, Unsupported
from . import syscalls

if TYPE_CHECKING:
    from collections.abc import Iterator

_PAGE = 4095  # bytes of options that mount(2) takes
_PATHS = frozenset({"lowerdir+", "datadir+", "upperdir", "workdir"})  # overlay's options that name folders


class Bind(Struct, frozen=True, kw_only=True, tag=True):
    """A file or folder of the host seen at *target* too; target must exist and be of the same sort."""

    source: str
    target: str
    read_only: bool = False
    recursive: bool = True
    #: MS_NOSUID, MS_NODEV, MS_NOEXEC, MS_NOATIME; added to the flags of the source's mount.
    flags: int = 0
    #: MS_PRIVATE, MS_SLAVE or MS_SHARED; 0 leaves what the mount inherits.
    propagation: int = syscalls.MS_PRIVATE

    def describe(self) -> str:
        kind = "rbind" if self.recursive else "bind"
        return f"mount --{kind}{_flag_words(self.read_only, self.flags)} {self.source} {self.target}"

    def execute(self) -> None:
        with _reporting(self.describe()):
            try:
                _bind_by_tree(self)
            except OSError as error:
                if error.errno not in (errno.ENOSYS, errno.E2BIG):
                    raise
                _bind_classic(self)


class Tmpfs(Struct, frozen=True, kw_only=True, tag=True):
    """An empty file system in memory; *size* in bytes, 0 for the kernel's default (half of the memory)."""

    target: str
    size: int = 0
    mode: int = 0o755
    flags: int = syscalls.MS_NOSUID | syscalls.MS_NODEV

    def options(self) -> str:
        return f"mode={self.mode:o}" + (f",size={self.size}" if self.size else "")

    def describe(self) -> str:
        return f"mount -t tmpfs -o {self.options()}{_flag_words(False, self.flags)} tmpfs {self.target}"

    def execute(self) -> None:
        with _reporting(self.describe()):
            syscalls.mount("tmpfs", self.target, "tmpfs", self.flags, self.options())


class Kernel(Struct, frozen=True, kw_only=True, tag=True):
    """One of the kernel's own file systems: proc, sysfs, cgroup2, mqueue, devpts."""

    kind: str
    target: str
    options: str = ""
    flags: int = syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC

    def describe(self) -> str:
        chosen = f" -o {self.options}" if self.options else ""
        return f"mount -t {self.kind}{chosen}{_flag_words(False, self.flags)} {self.kind} {self.target}"

    def execute(self) -> None:
        with _reporting(self.describe()):
            syscalls.mount(self.kind, self.target, self.kind, self.flags, self.options or None)


class Overlay(Struct, frozen=True, kw_only=True, tag=True):
    """Folders laid over each other; without *upper* the result is read-only."""

    #: Topmost first; at least one (two when there is no upper and the kernel is older than 6.5).
    lowers: tuple[str, ...]
    target: str
    upper: str = ""
    work: str = ""
    #: Folders reached only through redirects of the lowers; see storage-formats, data-only layers.
    data_lowers: tuple[str, ...] = ()
    #: Keep marks in user.overlay.* instead of trusted.overlay.*; a must inside user namespaces.
    userxattr: bool = False
    #: Further options, («index=off», «volatile», …).
    options: tuple[str, ...] = ()
    flags: int = 0

    def settings(self) -> tuple[tuple[str, str], ...]:
        """(key, value) in the order in which fsconfig takes them; value empty for flags."""
        pairs = [("lowerdir+", path) for path in self.lowers]
        pairs += [("datadir+", path) for path in self.data_lowers]
        if self.upper:
            pairs += [("upperdir", self.upper), ("workdir", self.work)]
        if self.userxattr:
            pairs.append(("userxattr", ""))
        for option in self.options:
            key, _, value = option.partition("=")
            pairs.append((key, value))
        return tuple(pairs)

    def describe(self) -> str:
        chosen = ",".join(f"{key}={value}" if value else key for key, value in self.settings())
        return f"mount -t overlay -o {chosen}{_flag_words(False, self.flags)} overlay {self.target}"

    def execute(self) -> None:
        with _reporting(self.describe()), ExitStack() as stack:
            settings = tuple((key, _short(value, stack) if key in _PATHS else value) for key, value in self.settings())
            try:
                attach("overlay", "overlay", settings, self.target, self.flags)
            except NoSuchOption:
                self._execute_classic(stack)

    def _execute_classic(self, stack: ExitStack) -> None:
        """Before Linux 6.8: all layers in one option string, escaped, or by descriptor where that is too long."""
        for name in (_escaped, lambda path: _by_descriptor(path, stack)):
            options = os.fsencode(self._option_string(name))
            if len(options) <= _PAGE:
                return syscalls.mount("overlay", self.target, "overlay", self.flags, options)
        raise Unsupported(
            f"cannot overlay {len(self.lowers)} layers on {self.target}",
            code="too-many-layers",
            context=f"the options take {len(options)} bytes and this kernel ({os.uname().release}) accepts {_PAGE}",
            hint="Linux 6.8 takes layers one at a time; or flatten the image",
        )

    def _option_string(self, name: _Naming) -> str:
        layers = ":".join(name(path) for path in self.lowers) + "".join("::" + name(path) for path in self.data_lowers)
        parts = [f"lowerdir={layers}"]
        for key, value in self.settings()[len(self.lowers) + len(self.data_lowers) :]:
            parts.append(f"{key}={name(value) if key in _PATHS else value}" if value else key)
        return ",".join(parts)


class Erofs(Struct, frozen=True, kw_only=True, tag=True):
    """An EROFS image in a regular file, read-only, with its data in further files (Linux 6.12, root)."""

    index: str
    target: str
    #: In the order of the image's device table, exactly as many.
    devices: tuple[str, ...] = ()
    flags: int = 0

    def describe(self) -> str:
        chosen = "".join(f",device={path}" for path in self.devices)
        return f"mount -t erofs -o ro{chosen}{_flag_words(False, self.flags)} {self.index} {self.target}"

    def execute(self) -> None:
        with _reporting(self.describe()), ExitStack() as stack:
            devices = tuple(("device", _short(path, stack)) for path in self.devices)
            index = _short(self.index, stack)
            try:
                attach("erofs", index, (("ro", ""), *devices), self.target, self.flags | syscalls.MS_RDONLY)
            except NoSuchOption:
                options = ",".join(f"{key}={value}" for key, value in devices)
                syscalls.mount(index, self.target, "erofs", self.flags | syscalls.MS_RDONLY, options)


Mount = Bind | Tmpfs | Kernel | Overlay | Erofs


class MountPlan(Struct, frozen=True, kw_only=True):
    """Mounts in the order in which they are made; undone in reverse."""

    mounts: tuple[Mount, ...]

    def describe(self) -> tuple[str, ...]:
        """One command line a mount, for people."""
        return tuple(mount.describe() for mount in self.mounts)

    def execute(self) -> None:
        """Make all mounts, or none: what was made before a failure is undone."""
        for done, mount in enumerate(self.mounts):
            try:
                mount.execute()
            except BaseException:
                MountPlan(mounts=self.mounts[:done]).undo()
                raise

    def undo(self) -> None:
        """Unmount in reverse order; mounts still in use vanish when their last user ends. Idempotent."""
        for mount in reversed(self.mounts):
            unmount(mount.target)

    @contextmanager
    def mounted(self) -> Iterator[None]:
        self.execute()
        try:
            yield
        finally:
            self.undo()


def unmount(target: str, *, lazy: bool = True) -> bool:
    """Unmount the topmost mount at *target*; False when nothing is mounted there."""
    try:
        syscalls.umount2(target, (syscalls.MNT_DETACH if lazy else 0) | syscalls.UMOUNT_NOFOLLOW)
    except OSError as error:
        if error.errno in (errno.EINVAL, errno.ENOENT):
            return False
        if error.errno == errno.EBUSY:
            raise Conflict(f"{target} is in use", code="mount-busy", hint=f"fuser -vm {target}") from error
        raise _failed(f"umount {target}", error) from error
    return True


def private_namespace(*, propagation: int = syscalls.MS_SLAVE) -> None:
    """Give this process a mount namespace of its own, so that all it mounts dies with it, kill -9 included.

    Slave rather than private: a disk that the administrator mounts or unmounts on
    the host still appears or goes here (private would keep it busy), while nothing
    of ours travels back. Needs root or a user namespace; affects all threads, so
    call it before there are any.
    """
    with _reporting("unshare --mount"):
        syscalls.unshare(syscalls.CLONE_NEWNS)
        syscalls.mount(None, "/", None, syscalls.MS_REC | propagation)


def mount_points(prefix: str = "/") -> tuple[str, ...]:
    """Paths of this namespace's mounts at or beneath *prefix*, in the order of mounting."""
    inside = prefix.rstrip("/") + "/"
    with open("/proc/self/mountinfo", "rb") as table:
        points = [_unescaped(line.split(b" ", 5)[4]) for line in table]
    return tuple(point for point in points if point == prefix or point.startswith(inside))


class NoSuchOption(OSError):
    """The kernel's overlay has no «lowerdir+» yet, or there is no fsopen at all."""


def attach(kind: str, source: str, settings: tuple[tuple[str, str], ...], target: str, flags: int = 0) -> None:
    """Mount by fsopen, fsconfig, fsmount and move_mount; (key, "") sets a flag.

    Raises OSError, with what the file system said as its notes; NoSuchOption where
    the kernel is too old.
    """
    try:
        fd = syscalls.fsopen(kind)
    except OSError as error:
        if error.errno == errno.ENOSYS:
            raise NoSuchOption(error.errno, error.strerror, kind) from error
        raise
    try:
        _configure(fd, (("source", source), *settings))
        syscalls.fsconfig_create(fd)
        mount_fd = syscalls.fsmount(fd, syscalls.mount_attributes(flags))
    except OSError as error:
        messages = syscalls.fsconfig_messages(fd)
        if messages:
            error.add_note("\n".join(messages))
        raise
    finally:
        os.close(fd)
    try:
        syscalls.move_mount(mount_fd, target)
    finally:
        os.close(mount_fd)


def _configure(fd: int, settings: tuple[tuple[str, str], ...]) -> None:
    for key, value in settings:
        try:
            if value:
                syscalls.fsconfig_string(fd, key, value)
            else:
                syscalls.fsconfig_flag(fd, key)
        except OSError as error:
            if error.errno == errno.EINVAL and key in ("lowerdir+", "datadir+"):
                raise NoSuchOption(error.errno, error.strerror, key) from error
            raise


def _short(path: str, stack: ExitStack) -> str:
    """*path*, or a name by descriptor where fsconfig would refuse its length; open until *stack* ends.

    Overlay reads a backslash in upperdir as an escape but not in lowerdir+; a descriptor settles that too.
    """
    if len(os.fsencode(path)) <= syscalls.FSCONFIG_STRING_LIMIT and "\\" not in path:
        return path
    return _by_descriptor(path, stack)


def _by_descriptor(path: str, stack: ExitStack) -> str:
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    stack.callback(os.close, fd)
    return f"/proc/self/fd/{fd}"


def _escaped(path: str) -> str:
    """As overlay's own option parser reads it: separators of layers and of options behind a backslash."""
    return path.replace("\\", "\\\\").replace(":", "\\:").replace(",", "\\,")


def _unescaped(field: bytes) -> str:
    """A path of /proc/self/mountinfo, where blanks and backslashes are octal."""
    parts = field.split(b"\\")
    return os.fsdecode(parts[0] + b"".join(bytes([int(part[:3], 8)]) + part[3:] for part in parts[1:]))


def _bind_by_tree(bind: Bind) -> None:
    """open_tree, mount_setattr, move_mount (Linux 5.12): never visible without its flags."""
    recursive = syscalls.AT_RECURSIVE if bind.recursive else 0
    tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, bind.source, syscalls.OPEN_TREE_CLONE | recursive)
    try:
        attributes = syscalls.mount_attributes(bind.flags | (syscalls.MS_RDONLY if bind.read_only else 0))
        if attributes or bind.propagation:
            syscalls.mount_setattr(
                tree_fd, "", syscalls.AT_EMPTY_PATH | recursive, set=attributes, propagation=bind.propagation
            )
        syscalls.move_mount(tree_fd, bind.target)
    finally:
        os.close(tree_fd)


def _bind_classic(bind: Bind) -> None:
    recursive = syscalls.MS_REC if bind.recursive else 0
    flags = bind.flags | (syscalls.MS_RDONLY if bind.read_only else 0)
    syscalls.mount(bind.source, bind.target, None, syscalls.MS_BIND | recursive)
    if bind.propagation:
        syscalls.mount(None, bind.target, None, bind.propagation | recursive)
    if flags:
        # A remount sets all flags anew, and a user namespace may not drop those that it found.
        # The ST_* of statvfs for ro, nosuid, nodev, noexec and noatime have the values of MS_*.
        kept = os.statvfs(bind.target).f_flag & 0x40F
        syscalls.mount(None, bind.target, None, syscalls.MS_REMOUNT | syscalls.MS_BIND | kept | flags)


def _flag_words(read_only: bool, flags: int) -> str:
    words = ["ro"] if read_only or flags & syscalls.MS_RDONLY else []
    named = (("nosuid", syscalls.MS_NOSUID), ("nodev", syscalls.MS_NODEV), ("noexec", syscalls.MS_NOEXEC))
    words += [word for word, flag in named if flags & flag]
    return f" -o {','.join(words)}" if words else ""


@contextmanager
def _reporting(action: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _failed(action, error) from error


def _failed(action: str, error: OSError) -> Exception:
    """The error of a mount: the command that would repeat it, what the kernel said, what helps."""
    shown = action if len(action) < 2000 else action[:900] + " … " + action[-900:]
    with suppress(KeyError):
        shown += f": {error.strerror} ({errno.errorcode[error.errno or 0]})"
    context = "\n".join([shown, *getattr(error, "__notes__", [])])
    number = error.errno
    if number in (errno.EPERM, errno.EACCES):
        return Unauthorized(
            "not allowed to mount",
            code="mount-not-permitted",
            context=context,
            hint="argosy doctor shows what this user may do",
        )
    if number in (errno.ENODEV, errno.ENOSYS):
        return Unsupported(
            "this kernel lacks the file system",
            code="no-such-file-system",
            context=context,
            hint="modprobe the module named above",
        )
    if number == errno.ENOTBLK:
        return Unsupported(
            "this file system cannot hold images that are mounted from files",
            code="no-mounts-from-files",
            context=context,
            hint="place the store on a disk file system with --root (tmpfs cannot); Linux 6.12 or later",
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        missing = os.fsdecode(error.filename or "")
        message = f"cannot mount, {missing} does not exist" if missing else "cannot mount, a folder is missing"
        return NotFound(message, code="mount-path-missing", context=context)
    if number == errno.EBUSY:
        return Conflict("the folders are in use by another mount", code="mount-busy", context=context)
    return RuntimeFailed(
        "the kernel refused a mount", code="mount-failed", context=context, hint="the kernel log (dmesg) may say more"
    )


if TYPE_CHECKING:
    from collections.abc import Callable

    _Naming = Callable[[str], str]
