"""All containers at once, from one derived file: what `argosy ps` reads.

`cache/containers.tsv` has a line a container with the inode and times of the
record that it was taken from; a record with others is read anew. See derived.py, also for why
nothing here may import msgspec at the top.
"""

from __future__ import annotations

import os

from ..errors import Corrupt, NotFound
from .derived import COARSEST_NS, Aside, read_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from _typeshed import StrPath

    from .records import Container

FORMAT = "argosy containers 1"
_RECORD = "record.json"
_UNIT = "\x1f"  # between the parts of a cell
_ESCAPES = {"\\": "\\\\", "\t": "\\t", "\n": "\\n", _UNIT: "\\u", "\0": "\\0"}
_LETTERS = {escape[1]: char for char, escape in _ESCAPES.items()}


class Entry:
    """What a list says of one container. Texts as in Container; *labels* and *command* come apart when asked for."""

    __slots__ = (
        "_command",
        "_labels",
        "_mounts",
        "boot",
        "created",
        "exit_code",
        "finished",
        "host",
        "id",
        "image",
        "image_id",
        "name",
        "network",
        "pid",
        "space",
        "stamp",
        "start_time",
        "started",
        "status",
    )

    def __init__(
        self,
        id: str,
        stamp: str,
        name: str,
        image: str,
        image_id: str,
        created: str,
        status: str,
        started: str,
        finished: str,
        exit_code: str,
        pid: str,
        start_time: str,
        boot: str,
        space: str,
        host: str,
        network: str,
        command: str,
        labels: str,
        mounts: str,
    ) -> None:
        self.id = id
        #: of its record: changes whenever that is written
        self.stamp = stamp
        self.name = name
        self.image = image
        self.image_id = image_id
        self.created = created
        self.status = status
        self.started = started
        self.finished = finished
        self.exit_code = int(exit_code) if exit_code else None
        self.pid = int(pid) if pid else None
        self.start_time = int(start_time) if start_time else None
        self.boot = boot
        self.space = int(space) if space else 0
        self.host = host
        self.network = network
        self._command = command
        self._labels = labels
        self._mounts = mounts

    @classmethod
    def of(cls, record: Container, stamp: str = "") -> Entry:
        return cls(
            record.id,
            stamp,
            record.name,
            record.image,
            record.image_id,
            record.created,
            record.status,
            record.started,
            record.finished,
            _number(record.exit_code),
            _number(record.pid),
            _number(record.start_time),
            record.boot,
            _number(record.space),
            record.host,
            str(record.options.get("network", "")),
            _cell(record.command),
            _cell(f"{key}={value}" for key, value in sorted(record.labels.items())),
            _cell(str(volume["source"]) for volume in record.options.get("volumes", ())),
        )

    @property
    def command(self) -> tuple[str, ...]:
        return _parts(self._command)

    @property
    def labels(self) -> dict[str, str]:
        return dict(text.partition("=")[::2] for text in _parts(self._labels))

    @property
    def mounts(self) -> tuple[str, ...]:
        """Where its volumes are on this host."""
        return _parts(self._mounts)

    def line(self) -> str:
        texts = (self.name, self.image, self.image_id, self.created, self.status, self.started, self.finished)
        numbers = (self.exit_code, self.pid, self.start_time)
        cells = (self._command, self._labels, self._mounts)
        machine = (_escaped(self.boot), _number(self.space), _escaped(self.host), _escaped(self.network))
        return "\t".join((self.id, self.stamp, *map(_escaped, texts), *map(_number, numbers), *machine, *cells))


def read_roster(root: StrPath) -> list[Entry]:
    """Every container whose record can be read, newest first. Others are `ContainerStore.damaged()`'s."""
    folder, path = os.path.join(root, "containers"), os.path.join(root, "cache", "containers.tsv")
    ids = _ids(folder)
    known = _cached(path)
    entries = [entry for entry in known if entry.id in ids and _stamp(folder, entry.id) == entry.stamp]
    ids.difference_update(entry.id for entry in entries)
    if not ids and len(entries) == len(known):
        return entries
    with Aside(path, mode=0o600) as aside:
        found = list(_read(root, folder, ids, aside.now_ns or 0))
        entries = sorted((*entries, *found), key=lambda entry: (entry.created, entry.id), reverse=True)
        settled = [entry for entry in entries if entry.stamp]
        if aside.now_ns is not None and (len(settled) > len(entries) - len(found) or len(settled) < len(known)):
            aside.keep(FORMAT, (entry.line() for entry in settled))
    return entries


def _ids(folder: str) -> set[str]:
    try:
        return {name for name in os.listdir(folder) if len(name) == 64 and not name.strip("0123456789abcdef")}
    except FileNotFoundError:
        return set()
    except OSError as error:
        from ..linux.files import translate

        raise translate(error, "list", folder) from error


def _cached(path: str) -> list[Entry]:
    try:
        return [_parse(line) for line in read_lines(path, FORMAT) or ()]
    except (ValueError, TypeError, KeyError):  # of another version: make it again
        return []


def _parse(line: str) -> Entry:
    cells = line.split("\t")
    if "\\" in line:
        cells = [*map(_plain, cells[:-3]), *cells[-3:]]
    return Entry(*cells)


def _read(root: StrPath, folder: str, ids: Iterable[str], now_ns: int) -> Iterator[Entry]:
    """From the records; those that may still change within a tick of the clock get no stamp."""
    from .records import ContainerStore

    store = ContainerStore(root)
    for container_id in ids:
        stamp = _stamp(folder, container_id)
        try:
            record = store.get(container_id)
        except (NotFound, Corrupt):
            continue
        is_settled = bool(stamp) and max(map(int, stamp.split()[1:])) + COARSEST_NS < now_ns
        yield Entry.of(record, stamp if is_settled else "")


def _stamp(folder: str, container_id: str) -> str:
    """Changes with every change of the record; empty when there is none."""
    try:
        status = os.stat(f"{folder}/{container_id}/{_RECORD}")
    except OSError:
        return ""
    return f"{status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def _number(value: int | None) -> str:
    return "" if value is None else str(value)


def _cell(parts: Iterable[str]) -> str:
    return "".join(_escaped(part) + _UNIT for part in parts)


def _parts(cell: str) -> tuple[str, ...]:
    parts = cell.split(_UNIT)[:-1]
    return tuple(map(_plain, parts) if "\\" in cell else parts)


def _escaped(text: str) -> str:
    return "".join(_ESCAPES.get(char, char) for char in text) if any(char in text for char in _ESCAPES) else text


def _plain(text: str) -> str:
    chars = iter(text)
    return "".join(_LETTERS.get(next(chars, ""), "") if char == "\\" else char for char in chars)
