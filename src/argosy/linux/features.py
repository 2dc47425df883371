"""What this host's kernel and set-up offer to this user, found out by trying.

Distributions patch and forbid, so versions prove nothing: every feature is really
used once in a forked child with namespaces of its own, and nothing stays behind.
The whole probe takes some ten milliseconds; callers keep its JSON, keyed by
HostFeatures.key().
"""

from __future__ import annotations

import errno
import os
import struct
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Error, Unsupported
from . import files, lifetimes, mounts, processes, syscalls, userns

if TYPE_CHECKING:
    from collections.abc import Callable

_SEPARATOR = b"\0"  # between reason and hint on their way from the child


class Feature(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One ability of the host; *reason* says how it was found out, *hint* how to get it."""

    available: bool
    reason: str = ""
    hint: str = ""


class HostFeatures(msgspec.Struct, frozen=True, kw_only=True):
    """What probe() found. Mount features hold for the namespace this user would work in."""

    #: Boot, kernel and user that this is true for; see key().
    key: str
    #: "v1", "hybrid", "v2", or "none" where no cgroup file system is mounted.
    cgroup: str
    #: May mount as it is; false means that a user namespace is needed first.
    mount: Feature
    user_namespace: Feature
    #: newuidmap and newgidmap with ranges for this user; without it one id only.
    newuidmap: Feature
    overlay: Feature
    #: Folders of the file system that was tried can be the writable layer of an overlay (those of NFS cannot).
    writable_layers: Feature
    #: Overlay made inside a user namespace, with user.overlay.* marks.
    overlay_userns: Feature
    #: Layers given to overlay one at a time (Linux 6.8): any number, any characters.
    overlay_layerwise: Feature
    #: EROFS from a regular file, data in further files (Linux 6.12).
    erofs_file: Feature
    #: Mounts that show other owners (Linux 5.12), on the file system of the given folder.
    idmapped_mounts: Feature
    openat2: Feature

    def require(self, name: str) -> None:
        """Raise Unsupported (code "missing-" and the name) unless feature *name* is available."""
        feature = self.get(name)
        if not feature.available:
            raise Unsupported(
                f"this host lacks {name.replace('_', ' ')}",
                code=f"missing-{name.replace('_', '-')}",
                context=feature.reason,
                hint=feature.hint,
            )

    def get(self, name: str) -> Feature:
        value = getattr(self, name)
        if not isinstance(value, Feature):
            raise TypeError(f"{name} is not a yes-or-no feature")
        return value

    def all(self) -> dict[str, Feature]:
        """{name: feature} in the order of the fields, for doctor."""
        values = ((name, getattr(self, name)) for name in self.__struct_fields__)
        return {name: value for name, value in values if isinstance(value, Feature)}

    def to_json(self) -> bytes:
        return msgspec.json.encode(self)

    @classmethod
    def from_json(cls, data: bytes) -> HostFeatures:
        """Raises Corrupt (code "bad-features-cache") when *data* is not what to_json wrote."""
        try:
            return msgspec.json.decode(data, type=cls)
        except msgspec.MsgspecError as error:
            raise Corrupt(
                "the cached host features are damaged", code="bad-features-cache", context=str(error)
            ) from error


def key() -> str:
    """Names the boot, kernel, user and rights for which a probe holds."""
    rights = "-".join(sorted(syscalls.capget() & {"CAP_SYS_ADMIN"}))
    return f"{lifetimes.boot_id()}/{os.uname().release}/{os.geteuid()}/{rights}"


def probe(*, folder: str, path: str) -> HostFeatures:
    """Try everything. *folder* exists, is ours, and is on the file system that features are wanted for.

    *path* is $PATH (for newuidmap). A folder of its own is made inside *folder* and removed.
    Raises OSError where nothing could be found out, as on a full disk.
    """
    scratch = os.path.join(folder, f"probe-{os.getpid()}-{os.urandom(4).hex()}")
    os.mkdir(scratch, 0o700)
    try:
        return _probed(scratch, path)
    finally:
        files.remove_tree(scratch)


def _probed(scratch: str, path: str) -> HostFeatures:
    if userns.is_inside():
        may_mount = Feature(available=False, reason="this is a user namespace already", hint="root of the machine")
    else:
        may_mount = _tried(mounts.private_namespace, "root, or a user namespace")
    inside = _Inside(path, needed=not may_mount.available)
    return HostFeatures(
        key=key(),
        cgroup=cgroup_version(),
        mount=may_mount,
        user_namespace=_tried(
            lambda: userns.enter_user_namespace(path=path, mapping=userns.single_mapping()), "see the reason"
        ),
        newuidmap=_subordinate_ids(path),
        overlay=inside.tried(lambda: _try_overlay(scratch, "a", inside.needed), "modprobe overlay"),
        writable_layers=inside.tried(
            lambda: _try_writable_layer(scratch, inside.needed),
            "a store on a disk (ext4, xfs, btrfs); elsewhere these layers go to $ARGOSY_LOCAL or /var/tmp/argosy-UID",
        ),
        overlay_userns=_Inside(path, needed=True).tried(
            lambda: _try_overlay(scratch, "b", True), "Linux 5.11 or later"
        ),
        overlay_layerwise=inside.tried(lambda: _try_layerwise(scratch), "Linux 6.8 or later"),
        erofs_file=inside.tried(
            lambda: _try_erofs(scratch),
            "Linux 6.12 or later with EROFS, as root, and the store on a disk (tmpfs cannot)",
        ),
        idmapped_mounts=_tried(lambda: _try_idmapped(scratch), "Linux 5.12 or later, as root"),
        openat2=_tried(_try_openat2, "Linux 5.6 or later, and a seccomp filter that knows openat2"),
    )


def cgroup_version(root: str = "/sys/fs/cgroup") -> str:
    """ "v2" (unified), "hybrid" (v1 controllers beside a v2 tree), "v1" or "none"."""
    try:
        if syscalls.statfs_type(root) == syscalls.CGROUP2_SUPER_MAGIC:
            return "v2"
        unified = os.path.join(root, "unified")
        if os.path.isdir(unified) and syscalls.statfs_type(unified) == syscalls.CGROUP2_SUPER_MAGIC:
            return "hybrid"
        return (
            "v1" if any(os.path.isdir(os.path.join(root, name)) for name in ("memory", "devices", "pids")) else "none"
        )
    except FileNotFoundError:
        return "none"


class _Inside:
    """Tries things where this user would mount: in a user namespace, or in a mount namespace only."""

    def __init__(self, path: str, *, needed: bool) -> None:
        self.needed = needed
        self._path = path

    def tried(self, action: Callable[[], None], hint: str) -> Feature:
        def inside() -> None:
            if self.needed:
                userns.enter_user_namespace(path=self._path, mapping=userns.single_mapping())
            else:
                mounts.private_namespace()
            action()

        return _tried(inside, hint)


#: Faults of the moment: they tell nothing about the kernel, and a cached answer would outlive them.
_PASSING = frozenset(
    {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EINTR}
)
_UNKNOWN = 2  # exit status of a child that met one of them


def _tried(action: Callable[[], object], hint: str) -> Feature:
    """Run *action* in a forked child; its mounts and namespaces go with it."""
    read_end, write_end = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read_end)
        _try(action, write_end)
    os.close(write_end)
    with open(read_end, "rb") as answer:
        said = answer.read()
    status = processes.wait(pid)
    if status == 0:
        return Feature(available=True)
    if status == _UNKNOWN:
        raise OSError(int(said), os.strerror(int(said)))
    reason, _, own_hint = said.partition(_SEPARATOR)
    return Feature(
        available=False,
        reason=reason.decode(errors="replace") or processes.describe_status(status),
        hint=own_hint.decode(errors="replace") or hint,
    )


def _try(action: Callable[[], object], answer: int) -> None:
    """The child's side; never returns."""
    status = 1
    try:
        action()
        status = 0
    except Exception as error:
        status = _explain(error, answer)
    finally:
        os._exit(status)


def _explain(error: Exception, answer: int) -> int:
    """Tell the parent why; the exit status of the child."""
    if isinstance(error, Unsupported):  # knows better than we why, and what helps; ENOSPC is a limit of namespaces too
        os.write(answer, f"{error.message}: {error.context}".encode() + _SEPARATOR + error.hint.encode())
        return 1
    cause = error if isinstance(error, OSError) else error.__cause__
    if isinstance(cause, OSError) and cause.errno in _PASSING:
        os.write(answer, b"%d" % cause.errno)
        return _UNKNOWN
    if isinstance(error, (Error, OSError)):
        os.write(answer, _shown(error).encode())
    return 1


def _shown(error: BaseException) -> str:
    cause = error if isinstance(error, OSError) else error.__cause__
    if not isinstance(cause, OSError):
        return str(error)
    symbol = errno.errorcode.get(cause.errno or 0, "?")
    return "; ".join([f"tried: {cause.strerror} ({symbol})", *getattr(cause, "__notes__", ())])


def _subordinate_ids(path: str) -> Feature:
    try:
        _, reason = userns.available_mapping(path=path)
    except Error as error:
        return Feature(available=False, reason=f"{error.message}: {error.context}", hint=error.hint)
    if reason:
        return Feature(available=False, reason=reason, hint="without it, all files of a container belong to one user")
    return _tried(lambda: userns.enter_user_namespace(path=path), "usermod --add-subuids 100000-165535 USER")


def _folders(scratch: str, name: str, *inner: str) -> list[str]:
    made = [os.path.join(scratch, name, folder) for folder in inner]
    for folder in made:
        os.makedirs(folder, exist_ok=True)
    return made


def _try_overlay(scratch: str, name: str, userxattr: bool) -> None:
    lower, other, target = _folders(scratch, name, "lower", "other", "target")
    mounts.Overlay(lowers=(lower, other), target=target, userxattr=userxattr).execute()


def _try_writable_layer(scratch: str, userxattr: bool) -> None:
    """Mount, change a lower file, delete another: copy-up and whiteouts must work on this file system."""
    lower, upper, work, target = _folders(scratch, "w", "lower", "upper", "work", "target")
    for file in ("changed", "deleted"):
        with open(os.path.join(lower, file), "w") as stream:
            stream.write("below")
    # volatile: an unmount would otherwise wait until all that is dirty on this file system has been written.
    mounts.Overlay(
        lowers=(lower,), upper=upper, work=work, target=target, userxattr=userxattr, options=("volatile",)
    ).execute()
    with open(os.path.join(target, "changed"), "a") as stream:
        stream.write(" and above")
    os.unlink(os.path.join(target, "deleted"))
    if sorted(os.listdir(upper)) != ["changed", "deleted"]:
        raise OSError(errno.EIO, "overlay lost a change")


def _try_layerwise(scratch: str) -> None:
    lower, other, target = _folders(scratch, "c", "lower", "other", "target")
    settings = (("lowerdir+", lower), ("lowerdir+", other))
    mounts.attach("overlay", "overlay", settings, target)


def _try_erofs(scratch: str) -> None:
    (target,) = _folders(scratch, "d", "target")
    index, device = os.path.join(scratch, "d", "index"), os.path.join(scratch, "d", "device")
    with open(index, "wb") as stream:
        stream.write(_empty_erofs())
    with open(device, "wb") as stream:
        stream.write(bytes(512))
    mounts.Erofs(index=index, devices=(device,), target=target).execute()
    os.listdir(target)


def _empty_erofs() -> bytes:
    """The smallest image that needs a device: an empty root folder, blocks of 512 bytes, one slot.

    Source: the kernel's fs/erofs/erofs_fs.h; offsets as in its structures.
    """
    block = 9  # log2 of the block size
    root = 1280  # of the root's inode: after superblock (1024) and one device slot (1152), a multiple of 32
    image = bytearray(2048)
    struct.pack_into("<IIIBBH", image, 1024, 0xE0F5E1E2, 0, 0, block, 0, root // 32)
    struct.pack_into("<QQII", image, 1040, 1, 0, 0, len(image) >> block)
    struct.pack_into("<IHHH", image, 1024 + 0x50, 8, 0, 1, 9)  # incompat DEVICE_TABLE; slots from 9 * 128 on
    struct.pack_into("<64sII", image, 1152, b"", 1, 0)
    names = b".."
    dirents = struct.pack("<QHBB", root // 32, 24, 2, 0) + struct.pack("<QHBB", root // 32, 25, 2, 0)
    tail = dirents + b"." + names
    # Extended inode, data inline behind it; it must not cross a block: 1280 + 64 + 27 < 1536.
    layout = 1 | 2 << 1
    struct.pack_into("<HHHHQIIIIQII16x", image, root, layout, 0, 0o040755, 0, len(tail), 0, 1, 0, 0, 0, 0, 2)
    image[root + 64 : root + 64 + len(tail)] = tail
    return bytes(image)


def _try_idmapped(scratch: str) -> None:
    """A clone of the folder's mount with another user namespace's ids."""
    mounts.private_namespace()
    (source,) = _folders(scratch, "e", "source")
    shifted = (userns.IdMap(inside=0, outside=100000, count=65536),)
    userns_fd = userns.open_namespace(userns.UserMapping(uids=shifted, gids=shifted))
    tree_fd = syscalls.open_tree(syscalls.AT_FDCWD, source, syscalls.OPEN_TREE_CLONE)
    syscalls.mount_setattr(tree_fd, "", syscalls.AT_EMPTY_PATH, set=syscalls.MOUNT_ATTR_IDMAP, userns_fd=userns_fd)


def _try_openat2() -> None:
    os.close(syscalls.openat2(syscalls.AT_FDCWD, "/", os.O_PATH, resolve=syscalls.RESOLVE_IN_ROOT))
