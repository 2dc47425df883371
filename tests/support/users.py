"""An ordinary user of this machine, made for a test: no rights, a home, and subordinate ids or none.

    user = User.make(tmp_path, ranges=True)
    user.argosy("run", "--rm", "box:1", "true").returncode

Whatever the user runs gets a mount namespace in which /etc/passwd, /etc/subuid and
/etc/subgid name the user, and in which the interpreter and the tests can be reached
even where they lie below a closed folder (/root). The host sees none of that.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.linux import mounts, processes, syscalls

from .stores import SOURCE, command

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

UID = 47110  # of nobody on this machine, and not of the overflow user, as whom unmapped owners are shown
NAME = "argosy-tester"
FIRST_ID, ID_COUNT = 700_000_000, 65536  # the subordinate ids, of users and of groups
_REPOSITORY = SOURCE.parent


class User(msgspec.Struct, frozen=True, kw_only=True):
    """A user with a home; *etc* holds the files that name the user."""

    home: Path
    etc: Path
    #: supplementary groups, by number
    groups: tuple[int, ...] = ()

    @classmethod
    def make(cls, folder: Path, *, ranges: bool) -> User:
        """A user who lives below *folder*; with *ranges* with 65,536 subordinate ids, else with the own one only."""
        user = cls(home=folder / "home", etc=folder / "etc")
        user.etc.mkdir(parents=True)
        for name, line in (("passwd", f"{NAME}:x:{UID}:{UID}::{user.home}:/bin/sh"), ("group", f"{NAME}:x:{UID}:")):
            (user.etc / name).write_text(Path("/etc", name).read_text() + line + "\n")
        for name in ("subuid", "subgid"):
            (user.etc / name).write_text(f"{NAME}:{FIRST_ID}:{ID_COUNT}\n" if ranges else "")
        for path in (user.home, user.home / "run"):
            path.mkdir()
            path.chmod(0o700)
            os.chown(path, UID, UID)
        return user

    @property
    def root(self) -> Path:
        """The store."""
        return self.home / ".local/share/argosy"

    @property
    def environment(self) -> dict[str, str]:
        """What a login sets, and where the program is."""
        return {
            "HOME": str(self.home),
            "USER": NAME,
            "XDG_RUNTIME_DIR": str(self.home / "run"),
            "PATH": "/usr/local/bin:/usr/bin:/bin:/usr/sbin:/sbin",
            "LANG": "C.UTF-8",
            "PYTHONPATH": str(SOURCE),
        }

    def argosy(
        self,
        *words: str,
        stdin: bytes = b"",
        environ: Mapping[str, str] | None = None,
        hidden: tuple[str, ...] = (),
        prepare: Callable[[], None] = lambda: None,
        timeout_s: float = 120,
    ) -> subprocess.CompletedProcess[bytes]:
        """Run the program as this user; nothing is judged.

        *hidden* are files of the host that this user does not find; *prepare* is called
        in the child, as the user.
        """

        def become() -> None:
            self.become(hidden)
            prepare()

        return subprocess.run(
            command(*words),
            env={**self.environment, **(environ or {})},
            input=stdin,
            capture_output=True,
            timeout=timeout_s,
            check=False,
            preexec_fn=become,
        )

    def start(self, *words: str, environ: Mapping[str, str] | None = None) -> subprocess.Popen[bytes]:
        """As argosy, without waiting."""
        return subprocess.Popen(
            command(*words),
            env={**self.environment, **(environ or {})},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            preexec_fn=self.become,
        )

    def become(self, hidden: tuple[str, ...] = ()) -> None:
        """Make the calling process (a forked child) this user, for good."""
        mounts.private_namespace()
        for path in hidden:
            mounts.Bind(source="/dev/null", target=path).execute()
        for name in ("passwd", "group", "subuid", "subgid"):
            if os.path.exists(f"/etc/{name}"):
                mounts.Bind(source=str(self.etc / name), target=f"/etc/{name}").execute()
        _open_ways((Path(sys.base_prefix), Path(sys.prefix), _REPOSITORY, self.home))
        os.chdir(self.home)
        os.setgroups(self.groups)
        os.setresgid(UID, UID, UID)
        os.setresuid(UID, UID, UID)
        syscalls.prctl(syscalls.PR_SET_DUMPABLE, 1)  # /proc/self belongs to the user again, as after a login

    def processes(self) -> tuple[str, ...]:
        """The command lines of all processes that run with an id of this user, own or subordinate."""
        return tuple(line for owner, line in _processes() if owner == UID or 0 <= owner - FIRST_ID < ID_COUNT)


def forbid_user_namespaces() -> None:
    """The limit of a hardened RHEL, for the calling process (a user's, before exec) and all below it."""
    syscalls.unshare(syscalls.CLONE_NEWUSER)
    for name, text in (("setgroups", "deny"), ("uid_map", f"{UID} {UID} 1"), ("gid_map", f"{UID} {UID} 1")):
        Path("/proc/self", name).write_text(text)
    Path("/proc/sys/user/max_user_namespaces").write_text("0")


def can_have_ranges() -> bool:
    """Whether subordinate ids can be tried here: the programs are there, and files to mount ours over."""
    programs = all(processes.find_program(name, path="/usr/bin:/bin") for name in ("newuidmap", "newgidmap"))
    return programs and all(os.path.exists(f"/etc/{name}") for name in ("subuid", "subgid"))


def _open_ways(places: tuple[Path, ...]) -> None:
    """Make *places* reachable: a closed folder above one is covered by an open one that holds only the way to them.

    Everything is picked up before anything is covered.
    """
    closed = dict.fromkeys(folder for place in places if (folder := _first_closed(place)) is not None)
    hidden = [place for place in places if _first_closed(place) is not None]
    held = [(place, os.open(place, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)) for place in hidden]
    for folder in closed:
        mounts.Tmpfs(target=str(folder)).execute()
    for place, fd in held:
        place.mkdir(parents=True, exist_ok=True)
        mounts.Bind(source=f"/proc/self/fd/{fd}", target=str(place)).execute()
        os.close(fd)


def _first_closed(place: Path) -> Path | None:
    """The uppermost folder above *place* that others may not pass through."""
    above = reversed(place.parents)
    return next((folder for folder in above if not folder.stat().st_mode & 0o001), None)


def _processes() -> Iterator[tuple[int, str]]:
    """(user, command line) of all processes; what has ended and waits for its parent has no command line any more."""
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            line = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            if line:
                yield (folder / "task" / folder.name).stat().st_uid, line
        except (FileNotFoundError, ProcessLookupError):  # it has ended
            continue
