"""The bundle of one container: its root mounted, its own /etc files, its user, its config.json.

What the image says is read through a descriptor of the mounted root; nothing of the
image is run. Called by `run`, in the verb's private mount namespace.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..bundle import spec, users
from ..errors import InvalidInput, NotFound, Unsupported
from ..linux import files, paths
from ..oci import wire
from ..oci.edits import BindMount, ContainerEdits
from . import program, rootfs

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..bundle.options import RunOptions
    from ..bundle.users import Identity
    from ..errors import Error
    from ..linux.seccomp_cache import Filter
    from ..oci.config import ImageConfig
    from ..oci.runtime_spec import Spec
    from ..runtime.oci_runtime import OciRuntime
    from ..snapshots import Snapshotter
    from ..store.records import Container

_KERNEL_FOLDERS = ("/dev/", "/proc/", "/sys/")
_ACCOUNT_LIMIT = 4 * 2**20  # bytes of /etc/passwd or /etc/group that we read


@contextmanager
def bundle(
    container: Container,
    config: ImageConfig,
    options: RunOptions,
    *,
    folder: str,
    workspace: str,
    edits_for: Callable[[int], ContainerEdits],
    snapshotter: Snapshotter,
    runtime: OciRuntime,
    seccomp: Callable[[tuple[str, ...]], Filter],
    rootless: bool,
) -> Iterator[str]:
    """A bundle ready for *runtime*, as a folder in *workspace*; its root is unmounted at the end.

    *folder* is the container's own, where its changes are kept. Raises what `run` raises
    before the start.
    """
    place = _place(container, options, workspace, runtime, rootless=rootless)
    own = ContainerEdits(
        mounts=(*_engine_files(workspace, options, place.hostname), *_volumes(options)), folders=_mount_folders(options)
    )
    with rootfs.mounted(
        snapshotter,
        config.diff_ids,
        folder,
        workspace,
        lambda image_fd: own.merge(edits_for(image_fd)),
        userxattr=rootless,
        volatile=options.auto_remove,
    ) as root:
        identity = _identity(root.fd, config, options, rootless=rootless)
        _prepare_working_dir(root.fd, config, options, identity)
        chosen = seccomp(spec.capabilities(options, place))
        # Root inside is the user, who reaches folders and devices of the user's groups there too.
        keep_groups = rootless and not identity.uid and bool(os.getgroups())
        document = spec.spec_for(
            config,
            options,
            root.edits,
            identity,
            place,
            seccomp=chosen.profile,
            annotations=runtime.annotations(chosen.program, keep_groups=keep_groups),
        )
        _check_program(root.fd, document, options)
        made = f"{workspace}/bundle"
        os.mkdir(made)
        files.write_atomic(f"{made}/config.json", _encoded(document), sync=False)
        yield made


def _place(
    container: Container, options: RunOptions, workspace: str, runtime: OciRuntime, *, rootless: bool
) -> spec.Place:
    """With the host's network Docker keeps the host's name."""
    default_hostname = os.uname().nodename if options.network == "host" else container.id[:12]
    has_cgroup = runtime.cgroup_manager != "disabled"
    return spec.Place(
        container_id=container.id,
        rootfs=rootfs.place_in(workspace),
        hostname=options.hostname or default_hostname,
        cgroups_path=f"/argosy-{container.id}" if has_cgroup else "",
        rootless=rootless,
        device_cgroup=has_cgroup,
    )


def _check_program(root_fd: int, document: Spec, options: RunOptions) -> None:
    """Raises what `run` raises for a program that cannot be started."""
    process = document.process
    program.check_size(process.args, process.env)
    targets = [mount.destination for mount in document.mounts if mount.type == "bind"]
    targets += _mount_folders(options)
    program.check(root_fd, process.args[0], working_dir=process.cwd, environment=process.env, mounted=targets)


def _encoded(document: Spec) -> bytes:
    """config.json. Raises InvalidInput (not-utf8) for a path of this host that JSON cannot hold."""
    try:
        return wire.encode(document)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "no container can use a path that is not UTF-8",
            code="not-utf8",
            context=repr(error.object[:200]),
            hint="place the store elsewhere with --root",
        ) from error


def _engine_files(workspace: str, options: RunOptions, hostname: str) -> tuple[BindMount, ...]:
    """hosts, hostname and resolv.conf, made for this container and mounted over the image's."""
    if options.network == "host":
        hosts, resolv = _read_host_file("/etc/hosts"), _read_host_file("/etc/resolv.conf")
    else:
        hosts = f"127.0.0.1\tlocalhost\n::1\tlocalhost ip6-localhost ip6-loopback\n127.0.1.1\t{hostname}\n"
        resolv = ""
    for entry in options.extra_hosts:
        name, _, address = entry.partition(":")
        hosts += f"{address}\t{name}\n"
    binds = []
    for name, text in (("hosts", hosts), ("hostname", hostname + "\n"), ("resolv.conf", resolv)):
        path = f"{workspace}/{name}"
        files.write_atomic(path, text.encode(), sync=False)
        binds.append(BindMount(host_path=path, container_path=f"/etc/{name}", options=("rbind", "rprivate")))
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


def _prepare_working_dir(root_fd: int, config: ImageConfig, options: RunOptions, identity: Identity) -> None:
    """WORKDIR is made where it is missing, and belongs to whoever runs in it."""
    path = spec.working_dir(config, options)
    if f"{path}/".startswith(_KERNEL_FOLDERS):  # the kernel's own will be there
        return
    try:
        os.close(paths.make_folders(root_fd, path, 0o755, identity.uid, identity.gid))
    except OSError as error:
        raise _not_in_image(error, f"cannot use the working directory {path!r} in this image") from error


def _identity(root_fd: int, config: ImageConfig, options: RunOptions, *, rootless: bool) -> Identity:
    passwd, group = (_read_in_image(root_fd, path) for path in ("/etc/passwd", "/etc/group"))
    found = users.resolve(options.user if options.user is not None else config.user, passwd=passwd, group=group)
    return _mapped(found) if rootless else found


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
    except (OSError, InvalidInput) as error:
        raise _not_in_image(error, f"cannot read {path} of this image") from error


def _not_in_image(error: OSError | InvalidInput, what: str) -> Error:
    """A fault of the image, said so that nobody looks for it on the host."""
    known = error if isinstance(error, InvalidInput) else files.translate(error)
    context = known.message if isinstance(error, InvalidInput) else known.context
    return type(known)(what, code=known.code, context=context)
