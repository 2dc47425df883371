"""argosy info: the store, the runtime, the kernel features in use, the driver."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import Error
from ..ops import info as ops
from . import output

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from ..linux.features import HostFeatures
    from .host import Host
    from .parser import Parser

_ABOUT = """\
Says of each kernel feature whether this user has it, and if not, how that was
found out and what helps. Probes anew each time, so it shows what an
administrator has just changed.
"""
_EXAMPLES = """\
examples:
  argosy info
  argosy info --format '{{.Snapshots}} {{.Runtime.Version}}'

environment:
  ARGOSY_ROOT          the store (default: /var/lib/argosy for root, else
                       $XDG_DATA_HOME/argosy or ~/.local/share/argosy)
  ARGOSY_LOCAL         folder for the writable layers of containers (default:
                       in the store, or where no overlay can write to that, as
                       on NFS, /var/tmp/argosy-UID)
  ARGOSY_SNAPSHOTTER   kind of the layers of a new store: erofs, unpacked or
                       unpacked-user (default: the best that works here)
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="json, or a Go template (default: text)")


def main(args: Namespace, host: Host) -> int:
    facts = gather(host)
    output.document(facts, args.format, "".join(f"{line}\n" for line in _lines(facts)))
    return 0


def gather(host: Host) -> ops.Facts:
    """Everything, under the names that Docker has where Docker has it."""
    from .. import __version__
    from ..store.listing import read_listing

    host.containers  # noqa: B018 (checks the store's version before anything is said about it)
    features = host.probe()
    store = ops.describe_store(
        Path(host.root),
        read_listing(host.root),
        host.containers.list(),
        snapshots=_snapshots(host),
        local=host.local,
    )
    machine = ops.describe_machine()
    return {
        "ServerVersion": __version__,
        **store,
        "Driver": store["Snapshots"],
        "DockerRootDir": store["Root"],
        "Rootless": host.rootless,
        "Ids": _ids(host, features),
        "Runtime": ops.describe_runtime(lambda: host.runtime),
        "CgroupVersion": features.cgroup,
        "RegistryConfig": ops.describe_registries(host.registries),
        "Features": ops.describe_features(features),
        "GPU": ops.describe_driver(lambda: host.driver_roots),
        **machine,
    }


def _ids(host: Host, features: HostFeatures) -> ops.Facts | None:
    """None for root, who has them all."""
    if not host.rootless:
        return None
    from ..linux import userns

    try:
        return ops.describe_ids(*userns.available_mapping(path=host.search_path), features)
    except Error as error:  # a bad line in /etc/subuid
        return {"Inside": f"unknown: {error.message}", "Reason": error.context, "Fallbacks": []}


def _snapshots(host: Host) -> str:
    try:
        return host.snapshotter.kind
    except Error as error:
        return f"none: {error.message}"


def _lines(facts: ops.Facts) -> Iterator[str]:
    runtime, gpu = facts["Runtime"], facts["GPU"]
    yield f"argosy {facts['ServerVersion']}"
    yield f" Store: {facts['Root']}"
    yield f"  Images: {facts['Images']} under {facts['Names']} names"
    running = facts["ContainersRunning"]
    yield f"  Containers: {facts['Containers']} ({running} running, {facts['ContainersStopped']} not)"
    yield f"  Snapshots: {facts['Snapshots']}"
    yield f"  Writable layers: {facts['WritableLayers']}"
    yield (
        f" Runtime: {runtime['Version']} ({runtime['Path']})" if runtime["Path"] else f" Runtime: {runtime['Problem']}"
    )
    if runtime["Path"]:
        yield f"  Cgroups: {facts['CgroupVersion']}, {runtime['CgroupManager']}"
    yield f" Root: {'not needed, this user works in a user namespace' if facts['Rootless'] else 'yes'}"
    if facts["Ids"]:
        yield f"  Ids inside: {facts['Ids']['Inside']}"
        yield from (f"  {line}" for line in (facts["Ids"]["Reason"], *facts["Ids"]["Fallbacks"]) if line)
    yield from _registry_lines(facts["RegistryConfig"])
    yield " Kernel features:"
    for name, feature in facts["Features"].items():
        yield f"  {name.replace('_', ' ') + ':':<20}{_yes_or_why(feature)}"
    yield f" NVIDIA driver: {gpu['Driver'] or gpu['Problem']}" + (
        f" (looked under {gpu['Root']})" if gpu["Root"] else ""
    )
    for device in gpu["GPUs"]:
        yield f"  GPU {device['Index']}: {device['Name'] or 'NVIDIA GPU'} {device['UUID']}".rstrip()
    yield f" Kernel: {facts['KernelVersion']}"
    yield f" System: {facts['OperatingSystem']} ({facts['Architecture']}), host {facts['Name']}"
    yield f" CPUs: {facts['NCPU']}, memory: {facts['MemTotal'] / 2**30:.4g}GiB"


def _registry_lines(said: ops.Facts) -> Iterator[str]:
    """The files that were read, and a line for each rule in them."""
    if said["Files"] or said["Problem"]:
        yield " Registries, as these files say:"
    yield from (f"  {path}" for path in said["Files"])
    for rule in said["Rules"]:
        where = "blocked" if rule["Blocked"] else f"from {', then '.join((*rule['Mirrors'], rule['Location']))}"
        yield f"  {rule['Prefix']}: {where}{', insecure' if rule['Insecure'] else ''} ({rule['File']})"
    if said["Problem"]:
        yield f"  problem: {said['Problem']}"


def _yes_or_why(feature: ops.Facts) -> str:
    if feature["Available"]:
        return f"yes ({feature['Reason']})" if feature["Reason"] else "yes"
    return "no" + (f": {feature['Reason']}" if feature["Reason"] else "")
