"""run: an image and options → a container in the foreground, and its exit status.

Every step registers its undo before the next begins. After a kill -9 there is
nothing to undo but files and a container without a supervisor, which the next
verb finds by its record (`ops/containers.reap`).
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress
from typing import TYPE_CHECKING, Any

import msgspec

from ..bundle import spec
from ..errors import Error, Exhausted, RuntimeFailed
from ..linux import processes
from ..linux.files import reporting
from ..linux.locks import hold
from ..runtime import foreground, oci_runtime
from ..store import uses
from ..store.records import Container, new_id
from . import launch, rootfs

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..bundle.options import RunOptions
    from ..linux.seccomp_cache import Filter
    from ..oci.edits import ContainerEdits
    from ..oci.image import Image
    from ..runtime.oci_runtime import OciRuntime
    from ..snapshots import Snapshotter
    from ..store.records import ContainerStore


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
    local: str = "",
    rootless: bool = False,
    warn: Callable[[str], None] = lambda text: None,
) -> int:
    """Run *image* in the foreground; the exit status of its program, or 128 + n when signal n ended it.

    The image's layers are in the snapshotter already, and the process is in a private
    mount namespace. *edits_for* gives what GPUs and other devices add, for a descriptor
    of the image's root (its loader decides where driver libraries go); *seccomp* gives
    the profile for a set of capabilities and its compiled form; *now* an RFC 3339 time;
    *local* the folder for writable layers where they do not lie in the store.

    Raises Conflict (name-in-use), NotFound and RuntimeFailed (exit status 127, 126 or
    125 as Docker's) before the program starts; nothing of the container is left then.
    Once it has started, what it wrote stays whatever happens, unless the options say
    that it shall go; *warn* is told when its end could not be recorded.
    """
    with ExitStack() as stack:
        container = _new_record(
            image, options, image_name=image_name, snapshotter=snapshotter, local=local, created=now()
        )
        folder = containers.create(container)
        uses.note(containers.root, image.id)
        discard = stack.enter_context(_Undo(lambda: containers.delete(container.id)))
        if container.local:
            _hold_local(container.local, stack)
        signals_fd = stack.enter_context(foreground.caught_signals())
        workspace = stack.enter_context(rootfs.workspace(folder))
        bundle = stack.enter_context(
            launch.bundle(
                container,
                image.config,
                options,
                folder=containers.writable(container),
                workspace=workspace,
                edits_for=edits_for,
                snapshotter=snapshotter,
                runtime=runtime,
                seccomp=seccomp,
                rootless=rootless,
            )
        )
        containers.update(container.id, status="running", started=now())
        stack.callback(runtime.delete_if_left, container.id)
        try:
            status = _attend(runtime, container.id, bundle, options, folder, signals_fd, stdin_fd)
        except RuntimeFailed:
            raise
        except BaseException:
            if not options.auto_remove and os.path.exists(f"{folder}/pid"):
                discard.disarm()
            raise
        if not options.auto_remove:
            discard.disarm()
            _record_end(containers, container, folder, {"finished": now(), "exit_code": status}, warn)
    return status


def _hold_local(folder: str, stack: ExitStack) -> None:
    """Make the folder of a writable layer, and keep prune away from it: another machine may remove the record."""
    with reporting("make", folder):
        os.makedirs(folder, mode=0o700, exist_ok=True)
        stack.callback(hold(folder, os.O_RDONLY | os.O_DIRECTORY).release)


def _record_end(
    containers: ContainerStore, container: Container, folder: str, facts: dict[str, Any], warn: Callable[[str], None]
) -> None:
    """On a disk that the container has filled, in the place of a file that has had its day. Any: as update takes."""
    try:
        try:
            containers.update(container.id, status="exited", **facts)
        except Exhausted:
            with suppress(FileNotFoundError):
                os.unlink(f"{folder}/pid")
            containers.update(container.id, status="exited", **facts)
    except Error as error:
        warn(f"the end of container {container.name or container.id[:12]} could not be recorded: {error.message}")


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
    image: Image, options: RunOptions, *, image_name: str, snapshotter: Snapshotter, local: str, created: str
) -> Container:
    own = processes.Process.own()
    config, container_id = image.config, new_id()
    return Container(
        id=container_id,
        name=options.name or "",
        image=image_name,
        manifest=image.descriptor,
        image_id=image.id,
        created=created,
        command=spec.command_line(config, options),
        status="created",
        pid=own.pid,
        start_time=own.start,
        boot=own.boot,
        space=own.space,
        host=own.host,
        auto_remove=options.auto_remove,
        diff_ids=config.diff_ids,
        snapshotter=snapshotter.kind,
        local=f"{local}/{container_id}" if local else "",
        labels={**config.labels, **options.labels},
        options=msgspec.to_builtins(options),
    )


def _attend(
    runtime: OciRuntime,
    container_id: str,
    bundle: str,
    options: RunOptions,
    folder: str,
    signals_fd: int,
    stdin_fd: int,
) -> int:
    """Run the bundle to its end. Raises RuntimeFailed when the runtime, not the program, ended in failure."""
    os.makedirs(runtime.root, mode=0o700, exist_ok=True)
    log = f"{bundle}/runtime.log"
    with ExitStack() as stack:
        console = _console(runtime, bundle) if options.terminal else None
        if console is not None:
            stack.callback(console.close)
        command = runtime.run_command(
            container_id,
            bundle,
            log=log,
            pid_file=f"{folder}/pid",
            console_socket=console.path if console else None,
        )
        try:
            status = foreground.run(
                command,
                env=oci_runtime.environment(),
                signals_fd=signals_fd,
                stdin_fd=stdin_fd if options.interactive else None,
                console=console,
            )
        except RuntimeFailed as error:
            error.exit_status = RuntimeFailed.exit_status  # 126 is for the container's program, not for the runtime
            raise
    failure = oci_runtime.explain_failure(_read(log), runtime.name) if status else None
    if failure is not None:
        raise failure
    return status


def _console(runtime: OciRuntime, folder: str) -> foreground.Console | foreground.RelayedConsole:
    return foreground.Console(folder) if runtime.sends_console else foreground.RelayedConsole()


def _read(path: str) -> bytes:
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""
