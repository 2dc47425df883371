"""argosy ps: the containers, as docker ps lists them."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..ops import containers as ops
from . import filters, output

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from ..store.records import Container
    from .host import Host
    from .parser import Parser

#: {field of --format: heading}
HEADERS = {
    "ID": "CONTAINER ID",
    "Image": "IMAGE",
    "Command": "COMMAND",
    "RunningFor": "CREATED",
    "CreatedAt": "CREATED AT",
    "Status": "STATUS",
    "State": "STATE",
    "Ports": "PORTS",
    "Names": "NAMES",
    "Size": "SIZE",
    "Labels": "LABELS",
    "Mounts": "MOUNTS",
    "LocalVolumes": "LOCAL VOLUMES",
    "Networks": "NETWORKS",
}
_COLUMNS = ("ID", "Image", "Command", "RunningFor", "Status", "Ports", "Names")
_COMMAND_WIDTH = 20  # characters; docker CLI, formatter/container.go
_FILTERS = frozenset({"id", "name", "status", "ancestor", "label", "exited"})
_EXAMPLES = """\
filters:
  id=ID, name=PATTERN, status=created|running|exited, exited=STATUS,
  ancestor=IMAGE       of this image, by name or id
  label=KEY[=VALUE]    label of the container; of several all must hold

fields of --format:
  .ID .Image .Command .CreatedAt .RunningFor .Status .State .Ports .Names
  .Size .Labels .Label "KEY" .Mounts .LocalVolumes .Networks

examples:
  argosy ps
  argosy ps -a --filter exited=137
  argosy ps -aq
  argosy ps -a --format '{{.Names}}: {{.Status}}'
"""


def add_arguments(parser: Parser) -> None:
    parser.explain("", _EXAMPLES)
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="list those that have ended as well (default: running ones)")
    add(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only what this holds of, see below; may be repeated",
    )
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add("-n", "--last", type=int, default=-1, metavar="NUMBER", help="list the NUMBER newest, running or not")
    add("-l", "--latest", action="store_true", help="list the newest one, running or not")
    add("--no-trunc", action="store_true", help="do not shorten ids and commands")
    add("-q", "--quiet", action="store_true", help="print ids only")
    add("-s", "--size", action="store_true", help="add a column with the size of the writable layer (and of it all)")


def main(args: Namespace, host: Host) -> int:
    wanted = filters.parse(args.filter, known=_FILTERS)
    chosen = select(host.reaped(), args, wanted)
    sizes = _sizes(chosen, host) if args.size or (args.format and ".Size" in args.format) else {}
    rows = [row(record, no_trunc=args.no_trunc, size=sizes.get(record.id, "")) for record in chosen]
    output.show(
        rows,
        columns=(*_COLUMNS, "Size") if args.size else _COLUMNS,
        headers=HEADERS,
        template=args.format,
        quiet="ID" if args.quiet else None,
    )
    return 0


def select(records: Sequence[Container], args: Namespace, wanted: Mapping[str, Sequence[str]]) -> list[Container]:
    """What ps shows of *records* (newest first): the running ones, unless asked for more."""
    last = 1 if args.latest else args.last
    everything = args.all or last >= 0 or "status" in wanted or "exited" in wanted
    chosen = [record for record in records if (everything or record.status == "running") and _matches(record, wanted)]
    return chosen[:last] if last >= 0 else chosen


def _matches(record: Container, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Several values of one key: any of them will do; of `label`: all of them."""
    checks = {
        "id": lambda value: record.id.startswith(value),
        "name": lambda value: filters.matches_name(record.name, value),
        "status": lambda value: record.status == value,
        "exited": lambda value: record.status == "exited" and str(record.exit_code) == value,
        "ancestor": lambda value: _descends(record, value),
    }
    return all(
        filters.matches_labels(record.labels, values) if key == "label" else any(map(checks[key], values))
        for key, values in wanted.items()
    )


def _descends(record: Container, ancestor: str) -> bool:
    """Whether it was made from this image, by name or by the start of its id."""
    start = ancestor.removeprefix("sha256:")
    if start and record.image_id.partition(":")[2].startswith(start):
        return True
    return filters.same_image(record.image, ancestor)


def row(record: Container, *, no_trunc: bool, size: str = "") -> dict[str, output.Field]:
    """The fields of one container, in the order in which Docker's JSON has them."""
    command = command_text(record.command)
    mounts = [mount["source"] for mount in record.options.get("volumes", ())]
    return {
        "Command": quoted(command if no_trunc else output.ellipsis(command, _COMMAND_WIDTH)),
        "CreatedAt": output.local_time(record.created),
        "ID": record.id if no_trunc else record.id[:12],
        "Image": record.image or record.image_id,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(record.labels.items())),
        "LocalVolumes": "0",
        "Mounts": ",".join(mounts if no_trunc else [output.ellipsis(mount, 15) for mount in mounts]),
        "Names": record.name,
        "Networks": str(record.options.get("network", "")),
        "Ports": "",
        "RunningFor": output.age(record.created),
        "Size": size,
        "State": record.status,
        "Status": status_text(record),
        "Label": lambda name: record.labels.get(name, ""),
    }


def status_text(record: Container, *, now: float | None = None) -> str:
    """«Up 2 hours», «Exited (0) 3 minutes ago», «Created»; of another machine that shares the store, with its name."""
    if record.status == "running":
        started = output.timestamp(record.started)
        moment = time.time() if now is None else now
        text = f"Up {output.human_duration(moment - started)}" if started is not None else "Up"
        return f"{text} on {record.host}" if ops.is_elsewhere(record) else text
    if record.status == "exited":
        return f"Exited ({record.exit_code}) {output.age(record.finished, now=now)}"
    return "Created"


def command_text(words: Sequence[str]) -> str:
    """The command in one line, arguments with blanks in quotes, as Docker joins them."""
    return " ".join(f"'{word}'" if place and " " in word else word for place, word in enumerate(words))


def quoted(text: str) -> str:
    """As Go's strconv.Quote does."""
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'


def _sizes(records: Sequence[Container], host: Host) -> dict[str, str]:
    """{container id: its writable layer, and the image beneath it}."""
    host.enter_namespace()  # without root, files of other users inside can only be seen from there
    found = {}
    for record in records:
        own = ops.writable_size(host.containers, record)
        image = sum(host.layer_size(diff_id) or 0 for diff_id in record.diff_ids)
        found[record.id] = f"{output.human_size(own)} (virtual {output.human_size(own + image)})"
    return found
