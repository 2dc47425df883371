"""spec_for: an image's config, a user's options and edits → the runtime spec (config.json)."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from ..oci.runtime_spec import (
    OCI_VERSION,
    Capabilities,
    Device,
    DeviceRule,
    Hook,
    Linux,
    Mount,
    Namespace,
    Process,
    Resources,
    RootFs,
    Spec,
    User,
)
from . import defaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from ..oci.config import ImageConfig
    from ..oci.edits import ContainerEdits, DeviceNode
    from .options import RunOptions
    from .users import Identity

DEVICE_MODE = 0o666  # of a device node that does not say


class Place(msgspec.Struct, frozen=True, kw_only=True):
    """Where this container lives on the host, and what the host can do."""

    container_id: str
    rootfs: str
    hostname: str
    cgroups_path: str
    rootless: bool = False
    #: whether a cgroup device controller enforces rules for us
    device_cgroup: bool = True
    cgroup_namespace: bool = False


def command_line(config: ImageConfig, options: RunOptions) -> tuple[str, ...]:
    """Entry point and arguments by Docker's rule: --entrypoint drops the image's CMD.

    Raises InvalidInput (no-command).
    """
    if options.entrypoint is not None:
        words = options.entrypoint + options.command
    else:
        words = config.entrypoint + (options.command or config.cmd)
    if not words:
        raise InvalidInput(
            "no command to run",
            code="no-command",
            context="the image has neither an entry point nor a command",
            hint="name one after the image: argosy run IMAGE COMMAND",
        )
    return words


def environment(
    config: ImageConfig, options: RunOptions, edits: ContainerEdits, *, hostname: str, home: str
) -> tuple[str, ...]:
    """PATH, HOSTNAME, TERM and HOME as Docker sets them, then the image's, the edits', the user's; later wins."""
    variables = {"PATH": defaults.PATH, "HOSTNAME": hostname}
    if options.terminal:
        variables["TERM"] = "xterm"
    for entry in (*config.env, *edits.env, *options.env):
        name, _, value = entry.partition("=")
        if name:  # runc refuses a container with a nameless variable, and nobody could read it
            variables[name] = value
    if not variables.get("HOME"):
        variables["HOME"] = home
    return tuple(f"{name}={value}" for name, value in variables.items())


def working_dir(config: ImageConfig, options: RunOptions) -> str:
    """Where the process starts, absolute and without «..», as Docker reads a relative WORKDIR."""
    return os.path.normpath("/" + (options.working_dir or config.working_dir).lstrip("/"))


def spec_for(
    config: ImageConfig,
    options: RunOptions,
    edits: ContainerEdits,
    identity: Identity,
    place: Place,
    *,
    seccomp: msgspec.Raw | None = None,
    annotations: Mapping[str, str] | None = None,
) -> Spec:
    """The spec of one container. *edits* hold the engine's own mounts (hosts, resolv.conf) and the user's volumes too.

    Equal arguments give an equal spec. Raises InvalidInput.
    """
    host_network = options.network == "host"
    return Spec(
        oci_version=OCI_VERSION,
        process=Process(
            terminal=options.terminal,
            user=User(
                uid=identity.uid,
                gid=identity.gid,
                additional_gids=tuple(dict.fromkeys((*identity.additional_gids, *edits.additional_gids))),
            ),
            args=command_line(config, options),
            cwd=working_dir(config, options),
            env=environment(config, options, edits, hostname=place.hostname, home=identity.home),
            capabilities=_capability_sets(capabilities(options, place), identity),
        ),
        root=RootFs(path=place.rootfs, readonly=options.read_only),
        hostname=None if host_network and options.hostname is None and place.rootless else place.hostname,
        mounts=_mounts(options, edits, rootless=place.rootless, host_network=host_network),
        hooks=_hooks(edits),
        annotations=annotations,
        linux=Linux(
            namespaces=_namespaces(place, host_network=host_network),
            devices=() if place.rootless else tuple(_device(node) for node in edits.device_nodes),
            cgroups_path=place.cgroups_path or None,
            resources=_device_rules(edits) if place.device_cgroup else None,
            seccomp=seccomp,
            masked_paths=defaults.MASKED_PATHS,
            readonly_paths=defaults.READ_ONLY_PATHS,
        ),
    )


def capabilities(options: RunOptions, place: Place) -> tuple[str, ...]:
    """The capabilities that the container is bounded by. Raises InvalidInput (capability-unknown).

    In a user namespace no rules are needed: the kernel makes and opens no devices there.
    """
    return defaults.capabilities(options.cap_add, options.cap_drop, device_rules=place.device_cgroup or place.rootless)


def _capability_sets(names: tuple[str, ...], identity: Identity) -> Capabilities:
    """Only root starts with capabilities in force, as after execve; others keep them as an upper bound."""
    if identity.uid == 0:
        return Capabilities(bounding=names, effective=names, permitted=names)
    return Capabilities(bounding=names)


def _namespaces(place: Place, *, host_network: bool) -> tuple[Namespace, ...]:
    kinds = ["pid", "ipc", "uts", "mount"]
    if not host_network:
        kinds.append("network")
    if place.cgroup_namespace:
        kinds.append("cgroup")
    return tuple(Namespace(type=kind) for kind in kinds)


def _mounts(
    options: RunOptions,
    edits: ContainerEdits,
    *,
    rootless: bool,
    host_network: bool,
) -> tuple[Mount, ...]:
    """Kernel file systems, then everything else parents first; a later mount on the same place replaces the earlier."""
    base = defaults.base_mounts(shm_size=options.shm_size, rootless=rootless, host_network=host_network)
    chosen = {mount.destination: mount for mount in base}
    extra = [
        Mount(destination=m.container_path, type="bind", source=m.host_path, options=m.options) for m in edits.mounts
    ]
    if rootless:  # mknod is not ours in a user namespace: the host's nodes are bound, by their own place on the host
        extra += [
            Mount(
                destination=n.path, type="bind", source=n.host_path, options=("rbind", "nosuid", "noexec", "rprivate")
            )
            for n in edits.device_nodes
        ]
    extra += [
        Mount(
            destination=path,
            type="tmpfs",
            source="tmpfs",
            options=("nosuid", "nodev", "noexec", *(word for word in words.split(",") if word)),
        )
        for path, words in options.tmpfs.items()
    ]
    for mount in sorted(extra, key=lambda mount: mount.destination.rstrip("/").count("/")):
        chosen.pop(mount.destination, None)
        chosen[mount.destination] = mount
    return tuple(chosen.values())


def _device(node: DeviceNode) -> Device:
    return Device(
        path=node.path,
        type=node.kind,
        major=node.major,
        minor=node.minor,
        file_mode=DEVICE_MODE if node.file_mode is None else node.file_mode,
        uid=node.uid or 0,
        gid=node.gid or 0,
    )


def _device_rules(edits: ContainerEdits) -> Resources:
    rules = tuple(
        DeviceRule(allow=True, type=node.kind, major=node.major, minor=node.minor, access=node.permissions)
        for node in edits.device_nodes
        if node.permissions
    )
    return Resources(devices=defaults.DEVICE_RULES + rules)


def _hooks(edits: ContainerEdits) -> Mapping[str, tuple[Hook, ...]] | None:
    """Hooks by stage; a hook without env gets an empty one, never ours or the container's (CVE-2025-23266)."""
    stages: dict[str, tuple[Hook, ...]] = {}
    for hook in edits.hooks:
        stages[hook.stage] = (*stages.get(hook.stage, ()), Hook(path=hook.path, args=hook.args, env=hook.env))
    return stages or None
