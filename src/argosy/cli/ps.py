"""argosy ps: the containers, as docker ps lists them."""

from __future__ import annotations

import time

from ..ops.supervisors import is_abandoned, is_elsewhere
from ..store.roster import read_roster
from ..store.version import check_version
from . import filters, output

TYPE_CHECKING = False  # not typing's: its import takes 3 ms of every verb
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable, Mapping, Sequence

    from ..store.records import Container
    from ..store.roster import Entry
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
    check_version(host.root)  # not through host.containers: this verb starts without msgspec, see store/roster.py
    entries = read_roster(host.root)
    if any(map(is_abandoned, entries)):
        host.reaped()
        entries = read_roster(host.root)
    chosen = select(entries, args, wanted)
    sizes = _sizes(chosen, host) if args.size or (args.format and ".Size" in args.format) else {}
    columns = (*_COLUMNS, "Size") if args.size else _COLUMNS
    fields = columns if args.format in (None, "table") else tuple(FIELDS)
    output.show(
        [row(entry, fields, no_trunc=args.no_trunc, size=sizes.get(entry.id, "")) for entry in chosen],
        columns=columns,
        headers=HEADERS,
        template=args.format,
        quiet="ID" if args.quiet else None,
    )
    return 0


def select(records: Sequence[Entry], args: Namespace, wanted: Mapping[str, Sequence[str]]) -> list[Entry]:
    """What ps shows of *records* (newest first): the running ones, unless asked for more."""
    last = 1 if args.latest else args.last
    everything = args.all or last >= 0 or "status" in wanted or "exited" in wanted
    chosen = [record for record in records if (everything or record.status == "running") and _matches(record, wanted)]
    return chosen[:last] if last >= 0 else chosen


def _matches(record: Entry, wanted: Mapping[str, Sequence[str]]) -> bool:
    """Several values of one key: any of them will do; of `label`: all of them."""
    if not wanted:
        return True
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


def _descends(record: Entry, ancestor: str) -> bool:
    """Whether it was made from this image, by name or by the start of its id."""
    start = ancestor.removeprefix("sha256:")
    if start and record.image_id.partition(":")[2].startswith(start):
        return True
    return filters.same_image(record.image, ancestor)


def row(entry: Entry, fields: Sequence[str], *, no_trunc: bool, size: str = "") -> dict[str, output.Field]:
    """The *fields* of one container, and what templates may call."""
    texts: dict[str, output.Field] = {name: FIELDS[name](entry, no_trunc) for name in fields}
    if "Size" in texts:
        texts["Size"] = size
    texts["Label"] = lambda name: entry.labels.get(name, "")
    return texts


def _command(entry: Entry, no_trunc: bool) -> str:
    command = command_text(entry.command)
    return quoted(command if no_trunc else output.ellipsis(command, _COMMAND_WIDTH))


def _mounts(entry: Entry, no_trunc: bool) -> str:
    return ",".join(entry.mounts if no_trunc else [output.ellipsis(mount, 15) for mount in entry.mounts])


#: {field: its text}, in the order in which Docker's JSON has them
FIELDS: Mapping[str, Callable[[Entry, bool], str]] = {
    "Command": _command,
    "CreatedAt": lambda entry, _: output.local_time(entry.created),
    "ID": lambda entry, no_trunc: entry.id if no_trunc else entry.id[:12],
    "Image": lambda entry, _: entry.image or entry.image_id,
    "Labels": lambda entry, _: ",".join(f"{key}={value}" for key, value in entry.labels.items()),
    "LocalVolumes": lambda entry, _: "0",
    "Mounts": _mounts,
    "Names": lambda entry, _: entry.name,
    "Networks": lambda entry, _: entry.network,
    "Ports": lambda entry, _: "",
    "RunningFor": lambda entry, _: output.age(entry.created),
    "Size": lambda entry, _: "",
    "State": lambda entry, _: entry.status,
    "Status": lambda entry, _: status_text(entry),
}


def status_text(record: Container | Entry, *, now: float | None = None) -> str:
    """«Up 2 hours», «Exited (0) 3 minutes ago», «Created»; of another machine that shares the store, with its name."""
    if record.status == "running":
        started = output.timestamp(record.started)
        moment = time.time() if now is None else now
        text = f"Up {output.human_duration(moment - started)}" if started is not None else "Up"
        return f"{text} on {record.host}" if is_elsewhere(record) else text
    if record.status == "exited":
        return f"Exited ({record.exit_code}) {output.age(record.finished, now=now)}"
    return "Created"


def command_text(words: Sequence[str]) -> str:
    """The command in one line, arguments with blanks in quotes, as Docker joins them."""
    return " ".join(f"'{word}'" if place and " " in word else word for place, word in enumerate(words))


def quoted(text: str) -> str:
    """As Go's strconv.Quote does."""
    if text.isprintable() and '"' not in text and "\\" not in text:
        return f'"{text}"'
    escaped = (
        text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\t", "\\t").replace("\r", "\\r")
    )
    return '"' + "".join(c if c.isprintable() else f"\\x{ord(c):02x}" for c in escaped) + '"'


def _sizes(entries: Sequence[Entry], host: Host) -> dict[str, str]:
    """{container id: its writable layer, and the image beneath it}; without those that went meanwhile."""
    from ..errors import NotFound
    from ..ops.containers import writable_size

    host.enter_namespace()  # without root, files of other users inside can only be seen from there
    found = {}
    for entry in entries:
        try:
            record = host.containers.get(entry.id)
        except NotFound:
            continue
        own = writable_size(host.containers, record)
        image = sum(host.layer_size(diff_id) or 0 for diff_id in record.diff_ids)
        found[record.id] = f"{output.human_size(own)} (virtual {output.human_size(own + image)})"
    return found
