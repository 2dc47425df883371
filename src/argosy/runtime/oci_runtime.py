"""The OCI runtime: find crun or runc, start a bundle, ask and end containers.

The runtime is chosen once by what is installed; its quirks live here. Debian's
crun 1.8 refuses a hybrid cgroup host («cgroups in hybrid mode not supported»),
but only because it sees the unified mount: in the private mount namespace in
which every verb of ours starts it, that mount is covered first.
"""

from __future__ import annotations

import _thread
import os
from typing import TYPE_CHECKING, Any

import msgspec

from ..errors import NotFound, RuntimeFailed
from ..linux import mounts, processes, syscalls

if TYPE_CHECKING:
    from collections.abc import Mapping

NAMES = ("crun", "runc")  # the faster first: 8 ms against 21 ms a start on 2 cores of Zen 4, 2026-11
#: crun reads the base64 of a BPF program from here, instead of compiling linux.seccomp.
BPF_ANNOTATION = "run.oci.seccomp_bpf_data"
_CGROUPS = "/sys/fs/cgroup"
_UNIFIED = "/sys/fs/cgroup/unified"


class RuntimeState(msgspec.Struct, frozen=True, kw_only=True):
    """What the runtime says of a container: creating, created, running, stopped; *pid* of its init, 0 when ended."""

    id: str
    status: str
    pid: int = 0


class OciRuntime(msgspec.Struct, frozen=True, kw_only=True):
    """One runtime program. *root* is its state folder; *cgroup_manager* cgroupfs or disabled."""

    path: str
    root: str
    cgroup_manager: str = "cgroupfs"

    @property
    def name(self) -> str:
        return "runc" if "runc" in os.path.basename(self.path) else "crun"

    def run_command(
        self, container_id: str, bundle: str, *, log: str, pid_file: str, console_socket: str | None = None
    ) -> tuple[str, ...]:
        """The command that runs a bundle in the foreground and exits with its program's status."""
        console = ("--console-socket", console_socket) if console_socket else ()
        words = ("run", "--bundle", bundle, "--pid-file", pid_file, *console, container_id)
        return (*self._base(log), *words)

    @property
    def sends_console(self) -> bool:
        """Whether its foreground command gives us the container's terminal (else it relays it to its own)."""
        return self.name == "crun"

    def state(self, container_id: str) -> RuntimeState | None:
        """None when the runtime does not know the container."""
        done = self._call("state", container_id)
        if done.status != 0:
            return None
        document: dict[str, Any] = msgspec.json.decode(done.stdout)
        return RuntimeState(id=container_id, status=document["status"], pid=document.get("pid", 0))

    def kill(self, container_id: str, signal: str = "KILL") -> None:
        """Raises RuntimeFailed when there is nothing to signal."""
        self._call("kill", container_id, signal).check(f"{self.name} kill {container_id}")

    def delete(self, container_id: str) -> None:
        """Kill and forget the container; one that is not there is fine."""
        done = self._call("delete", "--force", container_id)
        if done.status != 0 and self.state(container_id) is not None:
            done.check(f"{self.name} delete {container_id}")

    def hasten(self) -> None:
        """Called some milliseconds before run_command is started; see hasten_cgroups."""
        if self.cgroup_manager != "disabled":
            hasten_cgroups()

    def delete_if_left(self, container_id: str) -> None:
        """After a foreground run, which cleans up by itself unless it was killed; cheap when it did."""
        if os.path.lexists(os.path.join(self.root, container_id)):
            self.delete(container_id)

    def version(self) -> str:
        """«crun 1.8.1», for people."""
        done = processes.run_program((self.path, "--version"), env={})
        words = done.stdout.decode("utf-8", "replace").split("\n", 1)[0].split()
        return f"{words[0]} {words[-1]}" if words else self.name

    def annotations(self, seccomp_bpf: str | None, *, keep_groups: bool = False) -> Mapping[str, str] | None:
        """What the spec may carry for this runtime: the filter, compiled, saves crun 15 ms a start.

        *keep_groups*: the process has the supplementary groups of the caller instead of the spec's.
        """
        if self.name != "crun":
            return None
        chosen = {} if seccomp_bpf is None else {BPF_ANNOTATION: seccomp_bpf}
        if keep_groups:
            chosen["run.oci.keep_original_groups"] = "1"
        return chosen or None

    def _base(self, log: str | None = None) -> tuple[str, ...]:
        if self.name == "crun":
            # To crun what stands before a colon is the kind of log; without one, no path could hold a colon.
            logging = ("--log", f"file:{log}", "--log-format", "json") if log else ()
            return (self.path, "--root", self.root, f"--cgroup-manager={self.cgroup_manager}", *logging)
        logging = ("--log", log, "--log-format", "json") if log else ()
        rootless = ("--rootless", "true") if self.cgroup_manager == "disabled" else ()
        return (self.path, "--root", self.root, *rootless, *logging)

    def _call(self, *words: str) -> processes.Completed:
        return processes.run_program((*self._base(), *words), env=_ENVIRONMENT)


#: All that a runtime gets to see of an environment; crun asks for a runtime folder when not root.
_ENVIRONMENT = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "XDG_RUNTIME_DIR": "/run"}


def environment() -> Mapping[str, str]:
    """The environment for a runtime started by a verb itself (see run_command)."""
    return dict(_ENVIRONMENT)


def find(*, search_path: str, extra_folders: tuple[str, ...], root: str, cgroup_manager: str) -> OciRuntime:
    """crun or runc, whichever lies in *extra_folders*, else crun before runc in *search_path* and the system's folders.

    Raises NotFound (no-runtime) that says which package brings one.
    """
    own = (os.path.join(folder, name) for folder in extra_folders for name in NAMES)
    for name in (*own, *NAMES):
        path = processes.find_program(name, path=search_path)
        if path is not None:
            return OciRuntime(path=path, root=root, cgroup_manager=cgroup_manager)
    raise NotFound(
        "no container runtime found",
        code="no-runtime",
        context=f"looked for {' and '.join(NAMES)} in {', '.join((*extra_folders, *search_path.split(':')))}",
        hint=f"apt install crun, dnf install crun; or copy a static one to {(*extra_folders, 'a folder of PATH')[0]}",
    )


def enter_namespace(*, rootless: bool) -> None:
    """A private mount namespace for this process, fit for crun on a hybrid cgroup host too.

    Everything that a verb mounts afterwards dies with it and its container, and the
    host keeps its own unified mount: nothing propagates upwards from here. Inside a
    user namespace all cgroup mounts are locked, so another hierarchy is laid over them.
    """
    if not rootless:  # entering a user namespace brought one along
        mounts.private_namespace()
    try:
        hybrid = syscalls.statfs_type(_UNIFIED) == syscalls.CGROUP2_SUPER_MAGIC
    except FileNotFoundError:
        return
    if hybrid and rootless:
        mounts.Kernel(kind="cgroup2", target=_CGROUPS).execute()
    elif hybrid:  # covered, not unmounted: that would wait 2 ms for the kernel's readers
        mounts.Tmpfs(target=_UNIFIED, mode=0o555, size=4096).execute()


def hasten_cgroups() -> None:
    """Let the kernel's wait for the first cgroup move begin now, beside our own work.

    Every move of a process between cgroups takes one lock for writing; the first in a
    while waits for all processors to pass a quiet point (10 to 20 ms of idle time,
    Linux 6.18, 2 cores), those that follow do not. The runtime is about to make such a
    move. Moving ourselves to the cgroup that we are in changes nothing else.
    """

    def wait() -> None:
        try:
            fd = os.open(_own_cgroup() + "/cgroup.procs", os.O_WRONLY | os.O_CLOEXEC)
        except OSError:  # not ours to write, or not mounted where it says: no haste then
            return
        try:
            os.write(fd, b"0")
        except OSError:
            pass
        finally:
            os.close(fd)

    _thread.start_new_thread(wait, ())


def _own_cgroup() -> str:
    """Folder of our cgroup in one hierarchy: the devices controller's on v1, the only one on v2."""
    unified = ""
    with open("/proc/self/cgroup") as file:
        for line in file:
            _, controllers, path = line.rstrip("\n").split(":", 2)
            if controllers == "devices":
                return f"{_CGROUPS}/devices{path}"
            unified = path
    return f"{_CGROUPS}{unified}"


def cgroups_work() -> bool:
    """Whether we may make cgroups here (root, and not inside somebody's read-only container)."""
    try:
        is_unified = syscalls.statfs_type(_CGROUPS) == syscalls.CGROUP2_SUPER_MAGIC
    except FileNotFoundError:  # no /sys
        return False
    return os.access(_CGROUPS if is_unified else f"{_CGROUPS}/devices", os.W_OK)


def explain_failure(log: bytes, name: str) -> RuntimeFailed | None:
    """The runtime's own errors from its JSON log as one error; None when the program ended by itself."""
    said = []
    for line in log.splitlines():
        try:
            entry = msgspec.json.decode(line)
        except msgspec.DecodeError:
            continue  # a line cut off by a kill
        if isinstance(entry, dict) and entry.get("level") in ("error", "fatal"):
            said.append(str(entry.get("msg")))
    if not said:
        return None
    text = "\n".join(said[-10:])
    missing = any(words in text for words in ("not found", "No such file or directory", "no such file or directory"))
    denied = any(
        words in text for words in ("ermission denied", "not executable", "exec format error", "is a directory")
    )
    exec_failed = any(words in text for words in ("exec container process", "executable", "exec:", "exec /"))
    status = 125 if not exec_failed else 126 if denied else 127 if missing else 126
    hint = "the program or its interpreter is missing in the image" if status == 127 else ""
    return RuntimeFailed(
        f"{name} could not start the container", code="start-failed", context=text, hint=hint, exit_status=status
    )
