"""run: an image and options → a container in the foreground, and its exit status.

Every step registers its undo before the next begins. After a kill -9 there is
nothing to undo but files and a container without a supervisor, which the next
verb finds by its record (`ops/containers.reap`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack
from typing import TYPE_CHECKING

import msgspec

from ..bundle import defaults, spec, users
from ..errors import NotFound, Unsupported
from ..linux import files, paths, processes
from ..oci import wire
from ..oci.edits import BindMount, ContainerEdits
from ..runtime import foreground, oci_runtime
from ..store.records import Container, new_id
from . import program, rootfs

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from ..bundle.options import RunOptions
    from ..bundle.users import Identity
    from ..oci.config import ImageConfig
    from ..linux.seccomp_cache import Filter
    from ..oci.image import Image
    from ..runtime.oci_runtime import OciRuntime
    from ..snapshots import Snapshotter
    from ..store.records import ContainerStore

_ACCOUNT_LIMIT = 4 * 2**20  # bytes of /etc/passwd or /etc/group that we read


def run(
    image: Image,
    options: RunOptions,
    *,
    image_name: str,
    edits_for: Callable[[int], ContainerEdits],
    containers: ContainerStore,
    snapshotter: Snapshotter,
    runtime: OciRuntime,
    seccomp: Callable[[tuple[str, ...]], Filter],
    now: Callable[[], str],
    stdin_fd: int,
    rootless: bool = False,
) -> int:
    """Run *image* in the foreground; the exit status of its program, or 128 + n when signal n ended it.

    The image's layers are in the snapshotter already, and the process is in a private
    mount namespace. *edits_for* gives what GPUs and other devices add, for a descriptor
    of the image's root (its loader decides where driver libraries go); *seccomp* gives
    the profile for a set of capabilities and its compiled form; *now* an RFC 3339 time.

    Raises Conflict (name-in-use), NotFound and RuntimeFailed (exit status 127, 126 or
    125 as Docker's) before the program starts; nothing of the container is left then.
    """
    config = image.config
    with ExitStack() as stack:
        container = _new_record(image, options, image_name=image_name, snapshotter=snapshotter, created=now())
        folder = containers.create(container)
        discard = stack.enter_context(_Undo(lambda: containers.delete(container.id)))
        signals_fd = stack.enter_context(foreground.caught_signals())
        binds = (*_engine_files(folder, options, container), *_volumes(options))
        own = ContainerEdits(mounts=binds, folders=_mount_folders(options))
        root = stack.enter_context(
            rootfs.mounted(
                snapshotter,
                config.diff_ids,
                folder,
                lambda image_fd: own.merge(edits_for(image_fd)),
                userxattr=rootless,
                volatile=options.auto_remove,
            )
        )
        identity = _identity(root.fd, options, config)
        if rootless:
            identity = _mapped(identity)
        working_dir = options.working_dir or config.working_dir or "/"
        os.close(paths.make_folders(root.fd, working_dir, 0o755, identity.uid, identity.gid))
        place = spec.Place(
            container_id=container.id,
            rootfs=root.path,
            hostname=options.hostname or _default_hostname(options, container),
            cgroups_path=f"/argosy-{container.id}" if runtime.cgroup_manager != "disabled" else "",
            rootless=rootless,
            device_cgroup=runtime.cgroup_manager != "disabled",
        )
        environment = spec.environment(config, options, root.edits, hostname=place.hostname, home=identity.home)
        program.check(root.fd, spec.command_line(config, options)[0], working_dir=working_dir, environment=environment)
        chosen = seccomp(defaults.capabilities(options.cap_add, options.cap_drop))
        document = spec.spec_for(
            config,
            options,
            root.edits,
            identity,
            place,
            seccomp=chosen.profile,
            # Root inside is the user, who reaches folders and devices of the user's groups there too.
            annotations=runtime.annotations(
                chosen.program, keep_groups=rootless and not identity.uid and bool(os.getgroups())
            ),
        )
        (folder / "bundle").mkdir(exist_ok=True)
        files.write_atomic(folder / "bundle/config.json", wire.encode(document), sync=False)
        containers.update(container.id, status="running", started=now())
        stack.callback(runtime.delete_if_left, container.id)
        status = _attend(runtime, container.id, folder, options, signals_fd, stdin_fd, stack)
        failure = oci_runtime.explain_failure(_read(folder / "runtime.log"), runtime.name) if status else None
        if failure is not None:
            raise failure
        if not options.auto_remove:
            containers.update(container.id, status="exited", finished=now(), exit_code=status)
            discard.disarm()
    return status


class _Undo:
    """An undo for the stack that can be called off once the work has come to a good end."""

    def __init__(self, undo: Callable[[], None]) -> None:
        self._undo: Callable[[], None] | None = undo

    def disarm(self) -> None:
        self._undo = None

    def __enter__(self) -> _Undo:
        return self

    def __exit__(self, *exc: object) -> None:
        if self._undo is not None:
            self._undo()


def _new_record(
    image: Image, options: RunOptions, *, image_name: str, snapshotter: Snapshotter, created: str
) -> Container:
    own_pid = os.getpid()
    config = image.config
    return Container(
        id=new_id(),
        name=options.name or "",
        image=image_name,
        manifest=image.descriptor,
        image_id=image.id,
        created=created,
        command=spec.command_line(config, options),
        status="created",
        pid=own_pid,
        start_time=processes.start_time(own_pid),
        auto_remove=options.auto_remove,
        diff_ids=config.diff_ids,
        snapshotter=snapshotter.kind,
        labels={**config.labels, **options.labels},
        options=msgspec.to_builtins(options),
    )


def _attend(
    runtime: OciRuntime,
    container_id: str,
    folder: Path,
    options: RunOptions,
    signals_fd: int,
    stdin_fd: int,
    stack: ExitStack,
) -> int:
    console = _console(runtime, folder) if options.terminal else None
    if console is not None:
        stack.callback(console.close)
    os.makedirs(runtime.root, mode=0o700, exist_ok=True)
    command = runtime.run_command(
        container_id,
        str(folder / "bundle"),
        log=str(folder / "runtime.log"),
        pid_file=str(folder / "pid"),
        console_socket=console.path if console else None,
    )
    return foreground.run(
        command,
        env=oci_runtime.environment(),
        signals_fd=signals_fd,
        stdin_fd=stdin_fd if options.interactive else None,
        console=console,
    )


def _console(runtime: OciRuntime, folder: Path) -> foreground.Console | foreground.RelayedConsole:
    return foreground.Console(str(folder)) if runtime.sends_console else foreground.RelayedConsole()


def _default_hostname(options: RunOptions, container: Container) -> str:
    """With the host's network Docker keeps the host's name."""
    return os.uname().nodename if options.network == "host" else container.id[:12]


def _engine_files(folder: Path, options: RunOptions, container: Container) -> tuple[BindMount, ...]:
    """hosts, hostname and resolv.conf, made for this container and mounted over the image's."""
    hostname = options.hostname or _default_hostname(options, container)
    if options.network == "host":
        hosts = _read_host_file("/etc/hosts")
        resolv = _read_host_file("/etc/resolv.conf")
    else:
        hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
        resolv = ""
    for entry in options.extra_hosts:
        name, _, address = entry.partition(":")
        hosts += f"{address}\t{name}\n"
    binds = []
    for name, text in (("hosts", hosts), ("hostname", hostname + "\n"), ("resolv.conf", resolv)):
        path = folder / name
        path.write_text(text)
        path.chmod(0o644)
        binds.append(BindMount(host_path=str(path), container_path=f"/etc/{name}", options=("rbind", "rprivate")))
    return tuple(binds)


def _read_host_file(path: str) -> str:
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def _volumes(options: RunOptions) -> tuple[BindMount, ...]:
    """-v as bind mounts; a source that does not exist becomes a folder, as with Docker's short form."""
    binds = []
    for volume in options.volumes:
        source = os.path.abspath(os.path.expanduser(volume.source))
        if not os.path.lexists(source):
            with files.reporting("make the volume's folder", source):
                os.makedirs(source)
        words = ("rbind", volume.propagation, *(("ro",) if volume.read_only else ()))
        binds.append(BindMount(host_path=source, container_path=volume.target, options=words))
    return tuple(binds)


def _mount_folders(options: RunOptions) -> tuple[str, ...]:
    """Mount points that an image may lack (scratch images have none)."""
    return ("/dev", "/proc", "/sys", *options.tmpfs)


def _identity(root_fd: int, options: RunOptions, config: ImageConfig) -> Identity:
    passwd, group = (_read_in_image(root_fd, path) for path in ("/etc/passwd", "/etc/group"))
    return users.resolve(options.user if options.user is not None else config.user, passwd=passwd, group=group)


def _mapped(identity: Identity) -> Identity:
    """*identity* without the groups that this user namespace lacks. Raises Unsupported (id-not-mapped)."""
    from ..linux import userns

    ids = userns.mapping_of(os.getpid())
    if ids.host_uid(identity.uid) is None or ids.host_gid(identity.gid) is None:
        raise Unsupported(
            f"there is no user {identity.uid}:{identity.gid} for a container of this user",
            code="id-not-mapped",
            context=f"this user namespace has {ids.describe()}",
            hint="-u 0:0; or as administrator: apt install uidmap, "
            "usermod --add-subuids 100000-165535 --add-subgids 100000-165535 USER",
        )
    groups = tuple(gid for gid in identity.additional_gids if ids.host_gid(gid) is not None)
    return msgspec.structs.replace(identity, additional_gids=groups)


def _read_in_image(root_fd: int, path: str) -> bytes:
    try:
        return paths.read_file_in_root(root_fd, path, _ACCOUNT_LIMIT)
    except (NotFound, FileNotFoundError, NotADirectoryError):
        return b""


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return b""
