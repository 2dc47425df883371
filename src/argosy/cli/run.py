"""argosy run: from flags to RunOptions, the image to hand, GPUs to edits, then ops/run."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from ..bundle.options import RunOptions, Volume, parse_name, parse_size
from ..errors import InvalidInput, NotFound
from ..oci import wire
from ..oci.edits import ContainerEdits
from ..oci.image import Image
from ..oci.platform import Platform
from ..oci.reference import Reference
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from ..gpu.select import GpuRequest
    from ..ops.gpu_edits import Injection
    from ..store.refs import RefRecord
    from .host import Host
    from .parser import Parser

_NETWORKS = ("host", "none")
_ABOUT = """\
The container's program has this terminal, its input with -i, and the signals
that reach this process; when it ends, so does argosy. The first word that is
no option is the image; everything behind it belongs to the program.
"""
_EXAMPLES = """\
examples:
  argosy run --rm -it debian:12 bash
  argosy run --rm --gpus all nvidia/cuda:13-base nvidia-smi
  argosy run --rm -v "$PWD:/work" -w /work nvidia/cuda:13-devel nvcc -o a a.cu
  argosy run --name work -e NAME=value --network none debian:12 sh -c 'env'

exit status:
  the program's own, 128 + n when signal n ended it; 127 it is not in the
  image; 126 it cannot be executed; 125 anything else failed before its start

environment:
  ARGOSY_DRIVER_ROOT   where --gpus looks for the driver (default: /)
  and for a pull what argosy pull --help lists
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.interspersed = False
    add = parser.add_argument
    add("image", metavar="IMAGE", help="name[:tag][@digest], image id or its start; pulled if not here")
    add("command", metavar="COMMAND", nargs="*", default=[], help="program and arguments (default: the image's)")
    add(
        "--add-host",
        action="append",
        default=[],
        metavar="NAME:ADDRESS",
        help="add a line to /etc/hosts of the container; may be repeated",
    )
    add("--cap-add", action="append", default=[], metavar="CAP", help="add a capability, as in SYS_PTRACE; ALL is all")
    add("--cap-drop", action="append", default=[], metavar="CAP", help="drop a capability, as in NET_RAW; ALL is all")
    add("--entrypoint", metavar="PROGRAM", help="run this instead of the image's entry point; '' for none")
    add(
        "-e",
        "--env",
        action="append",
        default=[],
        metavar="NAME[=VALUE]",
        help="set a variable; NAME alone takes this shell's value",
    )
    add(
        "--env-file",
        action="append",
        default=[],
        metavar="FILE",
        help="read lines NAME[=VALUE] from FILE; # begins a comment line",
    )
    add(
        "--gpus",
        action="append",
        default=[],
        metavar="GPUS",
        help="all, a number, or device=INDEX|UUID; brings the driver along",
    )
    add("-h", "--hostname", metavar="NAME", help="host name inside (default: this machine's; the id without network)")
    add("-i", "--interactive", action="store_true", help="give the program this standard input (default: none)")
    add("-l", "--label", action="append", default=[], metavar="NAME=VALUE", help="label the container; may be repeated")
    add("--name", metavar="NAME", help="name the container (default: a random name)")
    add("--network", "--net", metavar="host|none", default="host", help="the host's network, or none (default: host)")
    add("--platform", metavar="OS/ARCH", help="take the image for this platform (default: this machine's)")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add(
        "--pull",
        metavar="WHEN",
        default="missing",
        help="pull the image always, if missing, or never (default: missing)",
    )
    add("-q", "--quiet", action="store_true", help="show no progress of a pull")
    add("--read-only", action="store_true", help="make the root file system read-only; volumes stay writable")
    add("--rm", action="store_true", help="remove the container when it ends (default: keep it)")
    add(
        "--shm-size",
        metavar="BYTES",
        default="64m",
        help="size of /dev/shm; k, m and g are powers of 1024 (default: 64m)",
    )
    add(
        "--tmpfs",
        action="append",
        default=[],
        metavar="PATH[:OPTIONS]",
        help="mount an empty file system in memory, as in /run:size=64m",
    )
    add("-t", "--tty", action="store_true", help="give the program a terminal")
    add("-u", "--user", metavar="USER[:GROUP]", help="user by name or number, of the image (default: as it says)")
    add(
        "-v",
        "--volume",
        action="append",
        default=[],
        metavar="HOST:PATH[:ro]",
        help="mount a folder or file of this machine; made if it is not there",
    )
    add("-w", "--workdir", metavar="PATH", help="absolute working directory inside (default: as the image says)")


def main(args: Namespace, host: Host) -> int:
    from ..ops import containers as containers_ops

    options = options_from(args, host)
    _require_utf8(options)
    if options.terminal and options.interactive and not host.stdin_is_terminal:
        raise InvalidInput("the input is not a terminal", code="not-a-terminal", hint="leave out -t, or type it at one")
    gpus = _gpu_requests(args)
    containers_ops.reap(host.containers, host.ready_runtime, kill=host.kill)
    image, name = find_image(args, host)
    injection = _injection(gpus, options, image, host)
    host.enter_namespace()
    host.runtime.hasten()
    ensure_unpacked(image, name, host, quiet=args.quiet)
    host.blobs.rest()  # a pull may have made us a maker; this process lives as long as the container
    from ..ops.run import run

    return run(
        image,
        options,
        image_name=name,
        edits_for=injection.edits_in if injection else lambda _: ContainerEdits(),
        containers=host.containers,
        snapshotter=host.snapshotter,
        runtime=host.runtime,
        seccomp=host.seccomp,
        now=host.now,
        stdin_fd=0,
        local=host.local_layers,
        rootless=host.rootless,
        warn=output.warning,
    )


def options_from(args: Namespace, host: Host) -> RunOptions:
    """Every flag parsed, before anything is touched. Raises InvalidInput."""
    if args.network not in _NETWORKS:
        raise InvalidInput(
            f"no network {args.network!r}",
            code="network-unknown",
            context="this release has host and none; bridges come with a later one",
            hint="--network host",
        )
    if args.pull not in ("always", "missing", "never"):
        raise InvalidInput(f"--pull takes always, missing or never, not {args.pull!r}", code="pull-policy-invalid")
    return RunOptions(
        command=tuple(args.command),
        name=parse_name(args.name) if args.name else None,
        entrypoint=None if args.entrypoint is None else (args.entrypoint,) if args.entrypoint else (),
        env=(*_env_files(args.env_file, host), *_env(args.env, host)),
        volumes=tuple(Volume.parse(text) for text in args.volume),
        tmpfs=dict(_tmpfs(text) for text in args.tmpfs),
        working_dir=_working_dir(args.workdir),
        user=args.user,
        hostname=args.hostname,
        extra_hosts=tuple(_extra_host(text) for text in args.add_host),
        labels={name: value for name, _, value in (text.partition("=") for text in args.label)},
        network=args.network,
        auto_remove=args.rm,
        interactive=args.interactive,
        terminal=args.tty,
        read_only=args.read_only,
        cap_add=tuple(args.cap_add),
        cap_drop=tuple(args.cap_drop),
        shm_size=parse_size(args.shm_size),
    )


def _require_utf8(options: RunOptions) -> None:
    """What a container is told travels as JSON. Raises InvalidInput (not-utf8)."""
    try:
        wire.encode(options)
    except UnicodeEncodeError as error:
        raise InvalidInput(
            "options and arguments of a container must be UTF-8", code="not-utf8", context=repr(error.object[:80])
        ) from error


def find_image(args: Namespace, host: Host) -> tuple[Image, str]:
    """The image by name or id, pulled by policy, for the platform asked for; and its name for people."""
    record = None if args.pull == "always" else _local(args.image, host)
    if record is None:
        record = _pull(args, host)
    name = args.image
    if args.platform:
        platform = Platform.parse(args.platform)
        image = Image.select(record.descriptor, host.blobs, platform, name=name)
        if not platform.matches(image.config.platform):
            raise NotFound(
                f"{name} is here for {image.config.platform} only",
                code="platform-not-here",
                hint=f"argosy pull --platform {platform} {name}",
            )
        return image, name
    return Image(record.manifest, host.blobs), name


def ensure_unpacked(image: Image, name: str, host: Host, *, quiet: bool) -> None:
    """Layers that a pull or load left as blobs become snapshots now; nothing to do in the common case."""
    if all(host.snapshotter.has(diff_id) for diff_id in image.config.diff_ids):
        return
    from ..ops.unpack import ensure_layers
    from .progress import reporter

    with reporter(quiet=quiet, host=host) as progress:
        whole = host.whole(name, progress)
        for layer in image.layers:
            if not host.snapshotter.has(layer.diff_id):
                whole.restore(layer.descriptor)  # in case that it was dropped
        ensure_layers(image, snapshotter=host.snapshotter, blobs=host.blobs, progress=progress)


def _local(text: str, host: Host) -> RefRecord | None:
    try:
        return host.refs.lookup(text)
    except NotFound:
        return None


def _pull(args: Namespace, host: Host) -> RefRecord:
    reference = Reference.parse(args.image)
    if args.pull == "never":
        raise NotFound(
            f"no image {reference.familiar()} here",
            code="image-unknown",
            hint=f"argosy pull {reference.familiar()}, or leave out --pull never",
        )
    from .pull import pull_image

    print(f"Unable to find image '{reference.familiar()}' locally", file=sys.stderr) if args.pull == "missing" else None
    return pull_image(
        reference,
        host,
        platform=args.platform,
        plain_http=args.plain_http,
        quiet=args.quiet,
        gpus=bool(args.gpus),
    )


def _gpu_requests(args: Namespace) -> tuple[GpuRequest, ...]:
    if not args.gpus:
        return ()
    from ..gpu.select import GpuRequest

    return tuple(GpuRequest.parse(text) for text in args.gpus)


def _injection(requests: tuple[GpuRequest, ...], options: RunOptions, image: Image, host: Host) -> Injection | None:
    """The GPUs that were asked for, found before anything is made for the container."""
    if not requests:
        return None
    from ..ops.gpu_edits import choose

    variables = image.config.environment | dict(entry.partition("=")[::2] for entry in options.env)
    return choose(requests, roots=host.driver_roots, environment=variables)


def _env(entries: list[str], host: Host) -> list[str]:
    """NAME alone takes this shell's value, and nothing where it has none."""
    chosen = []
    for entry in entries:
        name, equals, _ = entry.partition("=")
        if not name:
            raise InvalidInput(f"not a variable: {entry!r}", code="env-invalid", hint="-e NAME=VALUE")
        if equals:
            chosen.append(entry)
        elif name in host.environ:
            chosen.append(f"{name}={host.environ[name]}")
    return chosen


def _env_files(names: list[str], host: Host) -> list[str]:
    entries = []
    for name in names:
        try:
            with open(name, encoding="utf-8") as file:
                lines = [line.strip("\n").lstrip() for line in file]
        except (OSError, UnicodeDecodeError) as error:
            raise InvalidInput(f"cannot read the variables of {name}", code="env-file", context=str(error)) from error
        entries += _env([line for line in lines if line and not line.startswith("#")], host)
    return entries


def _tmpfs(text: str) -> tuple[str, str]:
    path, _, words = text.partition(":")
    if not path.startswith("/") or ".." in path.split("/"):
        raise InvalidInput(f"not a place for a tmpfs: {text!r}", code="tmpfs-invalid", hint="--tmpfs /run:size=64m")
    return path, words


def _working_dir(text: str | None) -> str | None:
    if text is not None and not text.startswith("/"):
        raise InvalidInput(
            f"the working directory {text!r} is invalid, it needs to be an absolute path", code="workdir-invalid"
        )
    return os.path.normpath(text) if text else None


def _extra_host(text: str) -> str:
    name, colon, address = text.replace("=", ":", 1).partition(":")
    if not (name and colon and address.strip("[]")):
        raise InvalidInput(f"not a host: {text!r}", code="host-invalid", hint="--add-host name:address")
    return f"{name}:{address.strip('[]')}"
