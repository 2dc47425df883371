"""All references at once, from one derived file: what `argosy images` reads.

The file is `cache/refs.tsv`, deletable at any time. It is text and Row is a plain
class because this is the start-up path of `argosy images`: importing msgspec costs
26 ms of processor time and json 6, where the interpreter itself takes 9
(Python 3.11, two-core machine, 2026-11); splitting 1,000 lines takes half a millisecond. So nothing here may
import either at the top.
"""

from __future__ import annotations

import os

from ..errors import InvalidInput
from .derived import COARSEST_NS, Aside, read_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import StrPath

    from .refs import RefRecord

UNTAGGED = "<none>"
FORMAT = "argosy refs 1"


class Row:
    """What a listing knows of one name; every field is text except `size` (bytes)."""

    __slots__ = ("created", "digest", "file", "image_id", "manifest", "name", "size", "tag", "target")

    def __init__(
        self,
        file: str,
        name: str,
        tag: str,
        digest: str,
        target: str,
        manifest: str,
        image_id: str,
        created: str,
        size: str,
    ) -> None:
        #: of the record, in refs/
        self.file = file
        #: registry/repository; «/<none>» when untagged
        self.name = name
        #: empty when the reference has none
        self.tag = tag
        #: of the reference, empty when it has none
        self.digest = digest
        #: digest of the index or manifest as it was pulled
        self.target = target
        #: digest of the platform's manifest
        self.manifest = manifest
        self.image_id = image_id
        self.created = created
        self.size = int(size)

    @classmethod
    def of(cls, file: str, record: RefRecord) -> Row:
        reference = record.reference
        return cls(
            file,
            reference.name,
            reference.tag or "",
            reference.digest or "",
            record.descriptor.digest,
            record.manifest.digest,
            record.image_id,
            record.created,
            str(record.size),
        )

    def line(self) -> str:
        fields = (self.name, self.tag, self.digest, self.target, self.manifest, self.image_id, self.created, self.size)
        return "\t".join((self.file, *map(_cell, fields)))

    @property
    def is_untagged(self) -> bool:
        return self.name.endswith(UNTAGGED)

    @property
    def repository(self) -> str:
        """The name as Docker prints it; see Reference.familiar_name."""
        registry, _, repository = self.name.partition("/")
        if not registry:
            return UNTAGGED
        if registry != "docker.io":
            return self.name
        return repository.removeprefix("library/") if repository.count("/") == 1 else repository

    @property
    def reference(self) -> str:
        """The reference in full."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """What a user would type."""
        return self.repository + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")


def read_listing(root: StrPath) -> list[Row]:
    """A row for every reference, sorted by full name.

    The cache is believed when the refs folder has the very inode and times that it had
    when the cache was made; see derived.py. Within two seconds after a change each listing
    reads all records instead.
    """
    folder, path = os.path.join(root, "refs"), os.path.join(root, "cache", "refs.tsv")
    try:
        stamp = _stamp(folder)
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _translate(error, folder) from error
    rows = _cached(path, stamp)
    return rows if rows is not None else _rebuild(root, folder, path)


def find_rows(rows: Sequence[Row], text: str) -> list[Row]:
    """The rows that *text* means: a name in full or familiar form, else an image id or the unique start of one.

    Raises InvalidInput (id-ambiguous) that lists the candidates.
    """
    start = text.removeprefix("sha256:")
    if len(start) < 64:
        for wanted in (text, f"{text}:latest"):
            named = [row for row in rows if wanted in (row.familiar, row.reference) and not row.is_untagged]
            if named:
                return named
    if not start or start.strip("0123456789abcdef"):
        return []
    found = [row for row in rows if row.image_id[7:].startswith(start)]
    ids = sorted({row.image_id for row in found})
    if len(ids) > 1:
        raise InvalidInput(
            f"image id {text!r} is ambiguous",
            code="id-ambiguous",
            context="it may be " + ", ".join(image_id[7:19] for image_id in ids[:8]),
            hint="type more digits",
        )
    return found


def _stamp(folder: str) -> str:
    """Changes with every change of the folder; ctime also where somebody sets the mtime back."""
    status = os.stat(folder)
    return f"{FORMAT} {status.st_ino} {status.st_mtime_ns} {status.st_ctime_ns}"


def _cached(path: str, stamp: str) -> list[Row] | None:
    try:
        lines = read_lines(path, stamp)
        return None if lines is None else [Row(*line.split("\t")) for line in lines]
    except (ValueError, TypeError):  # of another version: make it again
        return None


def _rebuild(root: StrPath, folder: str, path: str) -> list[Row]:
    try:
        with Aside(path) as aside:
            before = _stamp(folder)
            rows = _read_all(root)
            status = os.stat(folder)
            changed_ns = max(status.st_mtime_ns, status.st_ctime_ns)
            if aside.now_ns is not None and aside.now_ns - changed_ns > COARSEST_NS and _stamp(folder) == before:
                aside.keep(before, (row.line() for row in rows))
            return rows
    except FileNotFoundError:
        return []
    except OSError as error:
        raise _translate(error, folder) from error


def _read_all(root: StrPath) -> list[Row]:
    from .refs import RefStore, file_name

    return [Row.of(file_name(record.reference), record) for record in RefStore(root).list()]


def _cell(value: object) -> str:
    return str(value).replace("\t", " ").replace("\n", " ")


def _translate(error: OSError, path: str) -> Exception:
    from ..linux.files import translate  # reaches ctypes

    return translate(error, "read", path)
