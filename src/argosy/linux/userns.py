"""User namespaces: become root of one without being root, with as many ids as this user was given.

The mapping comes from /etc/subuid and /etc/subgid through newuidmap and newgidmap
(set-uid helpers of the system); without them only one id can be mapped, and files
of an image then all belong to it. See user_namespaces(7), subuid(5).
"""

from __future__ import annotations

import errno
import os
import signal
from typing import TYPE_CHECKING

from msgspec import Struct

from ..errors import Error, InvalidInput, RuntimeFailed, Unsupported
from . import processes, syscalls

if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import NoReturn


class IdMap(Struct, frozen=True, kw_only=True):
    """*count* ids from *inside* on are the host's ids from *outside* on. A line of /proc/PID/uid_map."""

    inside: int
    outside: int
    count: int = 1


class IdRange(Struct, frozen=True, kw_only=True):
    """Ids that /etc/subuid or /etc/subgid grants to a user."""

    start: int
    count: int


class UserMapping(Struct, frozen=True, kw_only=True):
    """The ids of a user namespace, as seen from the namespace that made it."""

    uids: tuple[IdMap, ...]
    gids: tuple[IdMap, ...]

    @property
    def is_single(self) -> bool:
        """Whether only one user is mapped: chown to any other fails with EINVAL."""
        return sum(entry.count for entry in self.uids) == 1

    def describe(self) -> str:
        """«only user 0 and group 0», «users 0 to 65536, groups 0 to 65536»."""
        if self.is_single:
            return f"only user {self.uids[0].inside} and group {self.gids[0].inside}"
        return f"users {_spans(self.uids)}, groups {_spans(self.gids)}"

    def host_uid(self, uid: int) -> int | None:
        """The host's number for *uid* inside; None when it is not mapped."""
        return _translated(self.uids, uid)

    def host_gid(self, gid: int) -> int | None:
        return _translated(self.gids, gid)


def is_inside() -> bool:
    """Whether this process is in somebody's user namespace (or in a container that has one), be it as root of it.

    Marks of overlayfs, devices and cgroups are out of reach there whatever its capabilities.
    """
    with open("/proc/self/uid_map") as table:
        return table.read().split() != ["0", "0", "4294967295"]  # what the first namespace has


def is_needed() -> bool:
    """Whether this process must enter a user namespace before it can mount: it lacks CAP_SYS_ADMIN."""
    return "CAP_SYS_ADMIN" not in syscalls.capget()


def subordinate_ranges(path: str, uid: int, name: str | None) -> tuple[IdRange, ...]:
    """Ranges that *path* (/etc/subuid, /etc/subgid) grants to a user, by name or by number, in file order.

    Both files name the user, also for groups. An absent file grants nothing.
    Raises InvalidInput (code "bad-subid-line") with the line's number.
    """
    try:
        with open(path, encoding="utf-8", errors="surrogateescape") as file:
            lines = file.read().splitlines()
    except FileNotFoundError:
        return ()
    owners = {str(uid), name}
    ranges = []
    for number, line in enumerate(lines, 1):
        fields = line.split(":")
        if fields[0] in owners:
            ranges.append(_range(path, number, line, fields))
    return tuple(entry for entry in ranges if entry.count)


def user_name(uid: int) -> str | None:
    """The name of *uid* in the user database; None for the nameless (usual in containers)."""
    import pwd

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return None


def mapping_for(uid: int, gid: int, uids: Iterable[IdRange], gids: Iterable[IdRange]) -> UserMapping:
    """Root inside is the user; ids from 1 on are the subordinate ranges, one after the other."""
    return UserMapping(uids=_stacked(uid, uids), gids=_stacked(gid, gids))


def single_mapping() -> UserMapping:
    """The mapping that everybody can have: root inside is this user, and nobody else is there."""
    return mapping_for(os.geteuid(), os.getegid(), (), ())


def available_mapping(*, path: str) -> tuple[UserMapping, str]:
    """(the best mapping that this user can have, why it is only a single id, or "").

    *path* is $PATH, where newuidmap and newgidmap are looked for.
    """
    if _may_map_all():
        return _same_ids(), ""
    uid, single = os.geteuid(), single_mapping()
    missing = [name for name in ("newuidmap", "newgidmap") if processes.find_program(name, path=path) is None]
    if missing:
        return single, f"{' and '.join(missing)} not found (Debian, Ubuntu: apt install uidmap)"
    name = user_name(uid)
    if name is not None and _has_directory_of_ids():
        ranges = [_ranges_from_directory(name, kind, path) for kind in ((), ("-g",))]
        sources = ("the id directory of nsswitch.conf",) * 2
    else:
        sources = ("/etc/subuid", "/etc/subgid")
        ranges = [subordinate_ranges(file, uid, name) for file in sources]
    for source, granted in zip(sources, ranges, strict=True):
        if not granted:
            return single, f"{source} grants no ids to {name or uid} (usermod --add-subuids 100000-165535 …)"
    return mapping_for(uid, os.getegid(), *ranges), ""


def enter_user_namespace(*, path: str, mapping: UserMapping | None = None, further: int = 0) -> UserMapping:
    """Become root of a new user and mount namespace; returns the mapping in force, the best available by default.

    The process must have one thread (no pool, no Go library loaded). *further* are
    CLONE_NEW* flags beside user and mount. Supplementary groups are kept, so that
    device nodes and folders of one's groups stay reachable. After an error the
    process may be left without identity: report and end.

    Why this is safe: all that runs with more rights are newuidmap and newgidmap,
    which the system provides and which check the ranges themselves; they are given
    our own pid and nothing of the user's input.

    Raises Unsupported (code "no-user-namespace", with the setting that forbids it)
    or RuntimeFailed.
    """
    _require_one_thread()
    if mapping is None:
        mapping, _ = available_mapping(path=path)
    flags = syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | further
    try:
        if mapping.is_single:
            syscalls.unshare(flags)
            _map_single(mapping)
        else:
            _unshare_mapped(flags, mapping, path)
        os.setresgid(0, 0, 0)
        os.setresuid(0, 0, 0)
        # The kernel made every mount a slave already (CL_SHARED_TO_SLAVE); this is the first step that needs
        # a capability, so it is where AppArmor's restriction shows itself.
        syscalls.mount(None, "/", None, syscalls.MS_REC | syscalls.MS_SLAVE)
    except OSError as error:
        _refused(error)
    return mapping


def join(pid: int, further: int = 0) -> UserMapping:
    """Enter the user and mount namespaces of a process of ours and become their root.

    How a second verb reaches a running rootless container: a new namespace with
    equal ids would be a stranger to it. Same conditions as enter_user_namespace.
    """
    _require_one_thread()
    mapping = mapping_of(pid)
    pidfd = os.pidfd_open(pid)
    try:
        syscalls.setns(pidfd, syscalls.CLONE_NEWUSER | syscalls.CLONE_NEWNS | further)
    finally:
        os.close(pidfd)
    os.setresgid(0, 0, 0)
    os.setresuid(0, 0, 0)
    return mapping


def mapping_of(pid: int) -> UserMapping:
    """The ids that exist for a process; as this process's namespace numbers them, for ours those outside of it."""
    return UserMapping(uids=_read_map(pid, "uid_map"), gids=_read_map(pid, "gid_map"))


def open_namespace(mapping: UserMapping) -> int:
    """The descriptor of a new user namespace with *mapping*, for idmapped mounts; nobody is in it.

    Needs CAP_SETUID and CAP_SETGID over the ids. The caller closes it.
    """
    ready_r, ready_w = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        _wait_inside(ready_w)
    os.close(ready_w)
    try:
        os.read(ready_r, 1)  # one byte, or the end when unshare failed: then the maps cannot be written
        _write_maps(pid, mapping)
        return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
    finally:
        os.close(ready_r)
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def explain_refusal(settings: str = "/proc/sys") -> tuple[str, str]:
    """(reason, hint) for a user namespace that could not be made, from the settings known to forbid it.

    *settings* is where sysctl files lie. Both are empty when none of them explains it.
    """
    for name, forbidding, reason, hint in _SETTINGS:
        try:
            with open(os.path.join(settings, *name.split(".")[:1], name.split(".", 1)[1])) as file:
                value = file.read().strip()
        except OSError:
            continue
        if value == forbidding:
            return f"{reason} ({name} = {value})", hint
    return "", ""


#: (sysctl, the value that forbids, what it means, what to ask for)
_SETTINGS = (
    (
        "kernel.apparmor_restrict_unprivileged_userns",
        "1",
        "AppArmor allows user namespaces to profiled programs only, as Ubuntu sets it since 23.10",
        "as administrator: sysctl -w kernel.apparmor_restrict_unprivileged_userns=0, or an AppArmor profile with "
        "«userns,» for this Python",
    ),
    (
        "kernel.unprivileged_userns_clone",
        "0",
        "user namespaces are reserved for root, a setting of Debian's and Arch's kernels",
        "as administrator: sysctl -w kernel.unprivileged_userns_clone=1",
    ),
    (
        "user.max_user_namespaces",
        "0",
        "the number of user namespaces is limited to none, as hardened RHEL systems set it",
        "as administrator: sysctl -w user.max_user_namespaces=28633",
    ),
)


def _translated(entries: tuple[IdMap, ...], number: int) -> int | None:
    for entry in entries:
        if entry.inside <= number < entry.inside + entry.count:
            return entry.outside + number - entry.inside
    return None


def _may_map_all() -> bool:
    """Root of a user namespace may hand all of its ids on, and newuidmap is not asked."""
    return {"CAP_SETUID", "CAP_SETGID"} <= syscalls.capget()


def _same_ids() -> UserMapping:
    mapping = mapping_of(os.getpid())

    def same(entries: tuple[IdMap, ...]) -> tuple[IdMap, ...]:
        return tuple(IdMap(inside=entry.inside, outside=entry.inside, count=entry.count) for entry in entries)

    return UserMapping(uids=same(mapping.uids), gids=same(mapping.gids))


def _spans(entries: tuple[IdMap, ...]) -> str:
    """Ids inside, neighbouring ranges as one: «0 to 65536»."""
    spans: list[tuple[int, int]] = []
    for entry in sorted(entries, key=lambda entry: entry.inside):
        last = entry.inside + entry.count - 1
        if spans and spans[-1][1] + 1 == entry.inside:
            spans[-1] = (spans[-1][0], last)
        else:
            spans.append((entry.inside, last))
    return ", ".join(f"{first} to {last}" for first, last in spans)


def _stacked(own: int, ranges: Iterable[IdRange]) -> tuple[IdMap, ...]:
    entries = [IdMap(inside=0, outside=own)]
    for granted in ranges:
        last = entries[-1]
        entries.append(IdMap(inside=last.inside + last.count, outside=granted.start, count=granted.count))
    return tuple(entries)


def _range(path: str, number: int, line: str, fields: list[str]) -> IdRange:
    try:
        _, start, count = fields
        return IdRange(start=int(start), count=int(count))
    except ValueError as error:
        raise InvalidInput(
            f"{path} has a bad line {number}",
            code="bad-subid-line",
            context=f"{line!r} is not USER:FIRST:COUNT",
            hint="ask an administrator to correct it (man 5 subuid)",
        ) from error


def _has_directory_of_ids(settings: str = "/etc/nsswitch.conf") -> bool:
    """Whether ids come from elsewhere (FreeIPA through sssd); the files are then not read, see subuid(5)."""
    try:
        with open(settings) as file:
            sources = [line.split()[1:] for line in file if line.startswith("subid:")]
    except OSError:
        return False
    return any(words and words != ["files"] for words in sources)


def _ranges_from_directory(name: str, kind: tuple[str, ...], path: str) -> tuple[IdRange, ...]:
    """What `getsubids` prints: «0: ann 100000 65536»; nothing granted is an error to it."""
    program = processes.find_program("getsubids", path=path)
    if program is None:
        return ()
    argv = [program, *kind, name]
    rows = [line.split() for line in processes.run_program(argv, env={}, timeout_s=30).stdout.decode().splitlines()]
    return tuple(IdRange(start=int(row[-2]), count=int(row[-1])) for row in rows if len(row) == 4)


def _require_one_thread() -> None:
    threads = len(os.listdir("/proc/self/task"))
    if threads > 1:
        raise RuntimeFailed(
            "cannot enter a user namespace from several threads",
            code="user-namespace-threads",
            context=f"this process has {threads} threads; Linux asks for exactly one",
        )


def _map_single(mapping: UserMapping) -> None:
    """Map only ourselves, which needs no helper; setgroups must be given up first (user_namespaces(7))."""
    _write("/proc/self/setgroups", "deny")
    _write("/proc/self/uid_map", f"0 {mapping.uids[0].outside} 1")
    _write("/proc/self/gid_map", f"0 {mapping.gids[0].outside} 1")


def _write(path: str, text: str) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def _write_maps(pid: int, mapping: UserMapping) -> None:
    for name, entries in (("uid_map", mapping.uids), ("gid_map", mapping.gids)):
        _write(f"/proc/{pid}/{name}", "".join(f"{e.inside} {e.outside} {e.count}\n" for e in entries))


def _unshare_mapped(flags: int, mapping: UserMapping, path: str) -> None:
    """A forked helper stays outside and runs newuidmap and newgidmap on us once we are in."""
    inside_r, inside_w = os.pipe2(os.O_CLOEXEC)
    answer_r, answer_w = os.pipe2(os.O_CLOEXEC)
    pid = os.getpid()
    helper = os.fork()
    if helper == 0:
        os.close(inside_w)
        _help(pid, mapping, path, inside_r, answer_w)
    try:
        os.close(inside_r)
        os.close(answer_w)
        syscalls.unshare(flags)
        os.write(inside_w, b"!")
        with open(answer_r, "rb", closefd=False) as answer:
            failure = answer.read()
    finally:
        os.close(inside_w)
        os.close(answer_r)
        os.waitpid(helper, 0)
    if failure:
        raise RuntimeFailed(
            "cannot map the subordinate ids", code="id-mapping-failed", context=failure.decode(errors="replace")
        )


def _help(pid: int, mapping: UserMapping, path: str, inside_r: int, answer_w: int) -> NoReturn:
    try:
        if os.read(inside_r, 1):  # nothing: unshare failed, and the other side reports it
            if _may_map_all():
                _write_maps(pid, mapping)
            else:
                for name, entries in (("newuidmap", mapping.uids), ("newgidmap", mapping.gids)):
                    _run_mapper(name, pid, entries, path)
    except Error as error:
        os.write(answer_w, f"{error.message}\n{error.context}".encode()[:4000])
    except BaseException as error:  # in a forked child there is nobody above us to tell
        os.write(answer_w, repr(error).encode()[:4000])
    finally:
        os._exit(0)


def _run_mapper(name: str, pid: int, entries: tuple[IdMap, ...], path: str) -> None:
    numbers = [str(number) for entry in entries for number in (entry.inside, entry.outside, entry.count)]
    program = processes.find_program(name, path=path) or name
    processes.run_program([program, str(pid), *numbers], env={}, timeout_s=30).check(name)


def _wait_inside(ready_w: int) -> NoReturn:
    try:
        syscalls.unshare(syscalls.CLONE_NEWUSER)
        os.write(ready_w, b"!")
        while True:
            signal.pause()
    finally:
        os._exit(1)


def _read_map(pid: int, name: str) -> tuple[IdMap, ...]:
    with open(f"/proc/{pid}/{name}") as file:
        rows = [tuple(int(word) for word in line.split()) for line in file]
    return tuple(IdMap(inside=inside, outside=outside, count=count) for inside, outside, count in rows)


def _refused(error: OSError) -> NoReturn:
    reason, hint = explain_refusal()
    if not reason and error.errno == errno.ENOSPC:
        reason, hint = "the limit of user namespaces is reached", "as administrator: raise user.max_user_namespaces"
    if not reason and error.errno in (errno.EPERM, errno.ENOSYS):
        reason, hint = "a seccomp filter or a container forbids them", "run as root, or outside of that container"
    raise Unsupported(
        "cannot make a user namespace",
        code="no-user-namespace",
        context=f"{error.strerror} ({errno.errorcode.get(error.errno or 0, '?')})" + (f"; {reason}" if reason else ""),
        hint=hint,
    ) from error
