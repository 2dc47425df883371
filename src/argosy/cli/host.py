"""Host: what a verb may touch, each part built on first use, from flags and the environment.

The only reader of os.environ. A verb takes from here what its `ops` function
asks for and passes it on; nothing below the command line ever sees a Host. Paths are
text on this way, because importing pathlib takes 4 ms of a start.
"""

from __future__ import annotations

import errno
import os
import sys
import time
from functools import cached_property

from ..errors import Corrupt, Error, InvalidInput
from . import output

TYPE_CHECKING = False  # not typing's: its import takes 3 ms of every verb
if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..gpu.driver import DriverRoots
    from ..linux.features import HostFeatures
    from ..linux.seccomp_cache import Filter
    from ..oci.digest import Digest
    from ..oci.reference import Reference
    from ..ops.progress import Progress
    from ..ops.restore import Whole
    from ..remote.catalogue import Catalogue
    from ..remote.credentials import Credentials
    from ..remote.registries import Registries
    from ..remote.repository import Repository
    from ..remote.transport import Transport
    from ..remote.unfinished import Unfinished
    from ..runtime.oci_runtime import OciRuntime
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.lists import ListStore
    from ..store.records import Container, ContainerStore
    from ..store.refs import RefStore

_SEARCH_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


class Host:
    """This machine and this user as one run of `argosy` sees them."""

    def __init__(self, settings: Mapping[str, str], environ: Mapping[str, str] | None = None) -> None:
        self._settings = settings
        self._uid = os.geteuid()  # before a user namespace makes us root
        self._in_namespace = False
        self._probing = 0  # the child that finds out features
        self.environ: Mapping[str, str] = os.environ if environ is None else environ
        #: what was settled before entering a user namespace; empty until then
        self._entered: tuple[object, ...] = ()
        if self._is_plain:
            output.forbid_colour()

    @property
    def debug(self) -> bool:
        return "debug" in self._settings

    @cached_property
    def root(self) -> str:
        """The store: --root, else ARGOSY_ROOT, else by user. Nothing is made here."""
        named = self._settings.get("root") or self.environ.get("ARGOSY_ROOT")
        if named:
            return os.path.abspath(named)
        if self._is_system:
            return "/var/lib/argosy"
        return os.path.join(self._data_home, "argosy")

    @cached_property
    def _is_system(self) -> bool:
        """Whether we are the machine's root; root of a user namespace is a user, with a user's places."""
        if self._uid != 0:
            return False
        with open("/proc/self/uid_map") as table:  # as linux.userns.is_inside, without its imports
            return table.read().split() == ["0", "0", "4294967295"]

    @property
    def _data_home(self) -> str:
        named = self.environ.get("XDG_DATA_HOME", "")
        if named.startswith("/"):  # relative ones are to be ignored: XDG base directory specification
            return named
        return os.path.join(self.home, ".local/share")

    @property
    def home(self) -> str:
        named = self.environ.get("HOME", "")
        if not named.startswith("/"):
            raise InvalidInput(
                "no home folder is known", code="home-unknown", hint="set HOME, or name a store with --root"
            )
        return named

    @cached_property
    def _checked_root(self) -> str:
        """The store after its version was found to be one that this program understands, and a crash was dealt with."""
        from ..store.version import check_version

        check_version(self.root)
        if os.path.isdir(os.path.join(self.root, "unsettled")):
            self._recover()
        return self.root

    def _recover(self) -> None:
        """See ops/settle.py; nothing to do but after a power cut."""
        from ..ops import settle

        if settle.has_crashed(self.root):
            from ..snapshots.folders import LayerFolders
            from ..store.blobs import BlobStore
            from ..store.refs import RefStore

            output.warning("this machine went down soon after images had come; they are being verified")
            settle.settle(
                blobs=BlobStore(self.root),
                refs=RefStore(self.root),
                snapshotter=LayerFolders(self.root),
                warn=output.warning,
            )

    @cached_property
    def blobs(self) -> BlobStore:
        from ..store.blobs import BlobStore

        return BlobStore(self._checked_root)

    @cached_property
    def refs(self) -> RefStore:
        from ..store.refs import RefStore

        return RefStore(self._checked_root)

    @cached_property
    def lists(self) -> ListStore:
        """Manifest lists that are being composed."""
        from ..store.lists import ListStore

        return ListStore(self._checked_root)

    @cached_property
    def containers(self) -> ContainerStore:
        from ..store.records import ContainerStore

        return ContainerStore(self._checked_root)

    @cached_property
    def local_layers(self) -> str:
        """The folder for this store's writable layers, made; empty where they lie in the store itself."""
        from ..linux import files

        folder = self.local
        if not folder:
            return ""
        with files.reporting("make", folder):
            os.makedirs(os.path.dirname(folder), exist_ok=True)
        files.ensure_own_folder(folder, hint="remove it, or name another with ARGOSY_LOCAL")
        return os.path.join(folder, self.containers.identity())

    @property
    def left_behind(self) -> str:
        """The folder in which removed containers may have left writable layers; empty when there is none."""
        folder = self.local
        return os.path.join(folder, self.containers.identity()) if folder and os.path.isdir(folder) else ""

    @property
    def local(self) -> str:
        """Where writable layers are that do not lie in their store: ARGOSY_LOCAL; empty where they do.

        Without that variable a store that cannot have them (no overlay writes to NFS) has
        them in /var/tmp, which is a disk of this machine and outlives a boot.
        """
        if named := self.environ.get("ARGOSY_LOCAL"):
            return os.path.abspath(named)
        found = self.features
        can_have_them = found.writable_layers.available or not found.overlay.available  # which nothing helps
        return "" if can_have_them else f"/var/tmp/argosy-{self._uid}"

    @cached_property
    def snapshotter(self) -> Snapshotter:
        from ..snapshots import choose

        return choose(self._checked_root, self.features, self.environ.get("ARGOSY_SNAPSHOTTER") or None)

    def layer_size(self, diff_id: Digest) -> int | None:
        """Bytes of an unpacked layer; None when it is not unpacked, for layers are a cache that may be deleted."""
        return self.snapshotter.usage(diff_id) if self.snapshotter.has(diff_id) else None

    @cached_property
    def features(self) -> HostFeatures:
        """What this kernel lets this user do; probed once a boot, then read from the cache."""
        self._await_probe()
        if (known := self._known_features()) is not None:
            return known
        try:
            return self._probe_store()
        except OSError as error:
            if error.errno == errno.EROFS:  # whoever only reads needs no more than a guess
                return self.probe()
            from ..linux import files

            raise files.translate(error, "try what this kernel can do in", self.root) from error

    def probe_ahead(self) -> None:
        """Begin to find out `features`, if this is the first time, beside what comes before they are wanted.

        In a process of its own, so not where there are threads.
        """
        from ..ops.parallel import has_threads

        self._checked_root  # noqa: B018 (makes the store)
        if not has_threads() and self._known_features() is None:
            self._probing = os.fork()
            if not self._probing:
                try:
                    self._probe_store()
                finally:  # whatever went wrong will go wrong here too, where it can be told
                    os._exit(0)

    def _await_probe(self) -> None:
        if self._probing:
            os.waitpid(self._probing, 0)
            self._probing = 0

    def _known_features(self) -> HostFeatures | None:
        from ..linux import features

        try:
            with open(self._features_file, "rb", buffering=0) as file:
                known = features.HostFeatures.from_json(file.read())
        except (OSError, Corrupt):  # the first time, or after an update
            return None
        return known if known.key == features.key() else None

    def probe(self) -> HostFeatures:
        """As features, tried anew: an administrator may have changed a setting since.

        Where nothing can be tried in the store (full, read-only), in /tmp: `info` and `doctor` answer always.
        """
        from ..linux import features

        try:
            return self._probe_store()
        except OSError:
            return features.probe(folder="/tmp", path=self.search_path)

    def _probe_store(self) -> HostFeatures:
        from ..linux import features, files

        folder = os.path.join(self._checked_root, "tmp")
        os.makedirs(folder, exist_ok=True)
        found = features.probe(folder=folder, path=self.search_path)
        try:
            os.makedirs(self.cache, exist_ok=True)
            files.write_atomic(self._features_file, found.to_json(), sync=False)
        except (OSError, Error):
            pass  # it will be probed again; whatever needs the disk will say what is wrong with it
        return found

    @property
    def _features_file(self) -> str:
        """One for each of the machines that share the store."""
        return os.path.join(self.cache, f"features-{os.uname().nodename.replace('/', '_')}.json")

    @property
    def cache(self) -> str:
        """Derived files, deletable at any time."""
        return os.path.join(self.root, "cache")

    def ready_runtime(self) -> OciRuntime:
        """The runtime, with this process in a namespace in which it works."""
        self.enter_namespace()
        return self.runtime

    def reaped(self) -> tuple[Container, ...]:
        """The containers, newest first, after cleaning up behind supervisors that died."""
        from ..ops.containers import reap

        done = reap(self.containers, self.ready_runtime, kill=self.kill)
        for container in done.cleaned:
            output.warning(f"the argosy process of container {container.name} had died; the container was cleaned up")
        for container, error in done.problems:
            output.warning(f"container {container.name} was left behind and cannot be cleaned up: {error.message}")
        return done.containers

    def kill(self, container_id: str) -> None:
        """End a container's processes where only its owner from outside can: before this process enters a namespace.

        The kernel lets whoever made a user namespace signal everybody in it, but one
        user namespace has no rights in another: there, processes with subordinate ids
        would survive us. For root `delete` is enough, and this does nothing.
        """
        if not self.rootless or self._entered:
            return
        from contextlib import suppress

        from ..errors import RuntimeFailed

        with suppress(RuntimeFailed):  # it has ended
            self.runtime.kill(container_id)

    @cached_property
    def driver_roots(self) -> DriverRoots:
        """Where to look for the NVIDIA driver: --driver-root, else ARGOSY_DRIVER_ROOT, else this machine."""
        from pathlib import Path

        from ..gpu.driver import DriverRoots

        named = self._settings.get("driver_root") or self.environ.get("ARGOSY_DRIVER_ROOT") or "/"
        return DriverRoots.under(Path(named).absolute())

    @cached_property
    def rootless(self) -> bool:
        """Whether this user must become root of a user namespace to own a container's files and to mount."""
        from ..linux import userns

        return userns.is_inside() or userns.is_needed()

    def enter(self) -> None:
        """Get the rights over layers and writable layers that this user can have; once, before any thread starts.

        Root has them. Others become root of a user namespace of their own; what
        depends on the user they were is settled before.
        """
        if not self.rootless or self._entered:
            return
        from ..linux import syscalls, userns

        self._entered = (self.root, self.features, self.local)
        userns.enter_user_namespace(path=self.search_path, further=syscalls.CLONE_NEWCGROUP)

    def enter_namespace(self) -> None:
        """As enter, and a mount namespace of this process's own, so that nothing it mounts outlives its container."""
        if self._in_namespace:
            return
        from ..runtime import oci_runtime

        self.enter()
        oci_runtime.enter_namespace(rootless=self.rootless)
        self._in_namespace = True

    def seccomp(self, capabilities: tuple[str, ...]) -> Filter:
        """The default filter for a process with *capabilities*."""
        from ..linux.seccomp_cache import filter_for
        from ..oci.platform import Platform

        return filter_for(capabilities, Platform.host().architecture, self.cache)

    def now(self) -> str:
        """This moment, RFC 3339 in UTC with nanoseconds, as Docker writes times."""
        seconds, nanoseconds = divmod(time.time_ns(), 10**9)
        return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds)) + f".{nanoseconds:09d}Z"

    @property
    def search_path(self) -> str:
        """Where programs are looked for."""
        return self.environ.get("PATH") or _SEARCH_PATH

    @cached_property
    def runtime(self) -> OciRuntime:
        """crun or runc; one that was copied to the store's bin/ comes first.

        Root runs nothing out of a store (--root) that another user could have put there.
        Raises NotFound (no-runtime), Conflict (not-ours).
        """
        from ..linux import files
        from ..runtime import oci_runtime

        own = os.path.join(self.root, "bin")
        for path in (own, *(f"{own}/{name}" for name in oci_runtime.NAMES)) if self._is_system else ():
            files.require_own(path)
        return oci_runtime.find(
            search_path=self.search_path,
            extra_folders=(own,),
            root=self.runtime_state,
            cgroup_manager="disabled" if self.rootless or not oci_runtime.cgroups_work() else "cgroupfs",
        )

    @property
    def runtime_state(self) -> str:
        """Where the runtime keeps what must not outlive a boot. Raises Conflict (folder-not-ours)."""
        if self._is_system:
            return "/run/argosy"
        named = self.environ.get("XDG_RUNTIME_DIR", "")
        if named.startswith("/"):
            return os.path.join(named, "argosy")
        session = f"/run/user/{self._uid}"  # there while one is logged in; cron, su and ssh -t lose the variable
        if os.access(session, os.W_OK):
            return f"{session}/argosy"
        from ..linux import files

        own = f"/tmp/argosy-{self._uid}"
        files.ensure_own_folder(own, hint="remove it, or set XDG_RUNTIME_DIR to a folder of your own")
        return own

    @cached_property
    def credentials(self) -> Credentials:
        """Where `login` keeps names and passwords."""
        from ..remote.credentials import Credentials

        return Credentials(self.environ, uid=self._uid, helpers=self.registries.credential_helpers)

    @cached_property
    def registries(self) -> Registries:
        """What this user's and this machine's files say about registries; read when it is asked."""
        from ..remote.registries import Folders, Registries

        return Registries(Folders.of(self.environ))

    def repository(self, reference: Reference, *, plain_http: bool = False, for_writing: bool = False) -> Repository:
        """The repository of *reference*, read from mirrors unless it is to be written; nothing is sent yet."""
        from ..remote.mirrors import connect

        return connect(
            reference,
            transport=self.transport(plain_http=plain_http),
            credentials=self.credentials,
            registries=self.registries,
            for_writing=for_writing,
        )

    def catalogue(self, registry: str, *, plain_http: bool = False) -> Catalogue:
        """The repositories of *registry*; nothing is sent yet."""
        from ..remote.catalogue import connect

        return connect(registry, transport=self.transport(plain_http=plain_http), credentials=self.credentials)

    def whole(self, wanted_for: str, progress: Progress) -> Whole:
        """The store's content for the image that *wanted_for* names, with what was dropped of it."""
        from ..ops.restore import Whole

        return Whole(
            wanted_for, blobs=self.blobs, snapshotter=self.snapshotter, connect=self.repository, progress=progress
        )

    def transport(self, *, plain_http: bool = False) -> Transport:
        """HTTP with this user's proxies and certificates; --debug shows its requests."""
        from .lean import import_urllib3

        import_urllib3()
        from ..remote.transport import Transport

        return Transport(
            self.environ,
            plain_http=plain_http,
            debug=output.note if self.debug else None,
            hosts=self.registries.settings,
        )

    @property
    def unfinished_uploads(self) -> Unfinished:
        """Where pushes that were cut short left off."""
        from ..remote.unfinished import Unfinished

        return Unfinished(os.path.join(self.cache, "uploads"))

    @property
    def stdin_is_terminal(self) -> bool:
        return sys.stdin is not None and sys.stdin.isatty()

    @property
    def stdout_is_terminal(self) -> bool:
        return sys.stdout is not None and sys.stdout.isatty()

    @property
    def stderr_is_terminal(self) -> bool:
        return sys.stderr is not None and sys.stderr.isatty()

    @property
    def colour(self) -> bool:
        """Whether stdout takes colours."""
        return self.stdout_is_terminal and not self._is_plain

    @property
    def _is_plain(self) -> bool:
        return bool(self.environ.get("NO_COLOR")) or self.environ.get("TERM") == "dumb"

    @property
    def can_draw(self) -> bool:
        """Whether a terminal, if there is one, can move its cursor."""
        return self.environ.get("TERM") not in (None, "", "dumb")

    @property
    def width(self) -> int:
        """Columns to write for: COLUMNS, else the terminal's, else 80."""
        named = self.environ.get("COLUMNS", "")
        return int(named) if named.isdecimal() and int(named) > 0 else output.terminal_width()
