"""References: which image a name means on this host. One small JSON file a name.

A file is replaced by rename, so readers take no lock and see the old image or the
new one. Reading every file is listing.py's last resort, not the usual way.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Annotated

import msgspec

from ..errors import Corrupt, InvalidInput, NotFound
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.reference import Reference
from ..oci.wire import decode, encode
from .listing import UNTAGGED, find_rows, read_listing

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from _typeshed import StrPath

NAME_LIMIT = 180  # bytes of a file's name; write_atomic adds a suffix, the file system's limit is 255
SUFFIX = ".json"
_PATIENCE = 100  # looks, ten a second, at a file that is listed and cannot be opened


class Summary(msgspec.Struct, frozen=True, kw_only=True):
    """What a listing shows of an image, so that it need not open the image."""

    #: the manifest of the platform that was chosen
    manifest: Descriptor
    #: digest of its config: the image id that people see
    image_id: Digest
    #: RFC 3339, from the config; may be empty
    created: str
    #: bytes of the uncompressed layers where known, else of the compressed ones
    size: Annotated[int, msgspec.Meta(ge=0)]


class RefRecord(msgspec.Struct, frozen=True, kw_only=True):
    """One name and the image that it means."""

    reference: Reference
    #: index or manifest, as it was pulled
    descriptor: Descriptor
    manifest: Descriptor
    image_id: Digest
    created: str
    size: Annotated[int, msgspec.Meta(ge=0)]
    #: when the name was set, RFC 3339 UTC
    updated: str

    @property
    def summary(self) -> Summary:
        return Summary(manifest=self.manifest, image_id=self.image_id, created=self.created, size=self.size)

    @property
    def is_untagged(self) -> bool:
        """Whether the image lost its last name (Docker's «dangling»)."""
        return self.reference.repository == UNTAGGED


def untagged(manifest: Digest) -> Reference:
    """The stand-in name of an image without one; no user can type it."""
    return Reference(registry="", repository=UNTAGGED, digest=manifest)


class RefStore:
    """The names of this host's images. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self.root = root
        self._folder = os.path.join(root, "refs")

    def find(self, reference: Reference) -> RefRecord | None:
        """What *reference* means here, None when unknown. Raises Corrupt (ref-damaged).

        A name with a digest also finds the tag of that repository which has this digest.
        """
        record = self._read(file_name(reference))
        if record is not None or reference.digest is None:
            return record
        for row in read_listing(self.root):
            if row.name == reference.name and reference.digest in (row.target, row.manifest):
                return self._read(row.file)
        return None

    def get(self, reference: Reference) -> RefRecord:
        """As find. Raises NotFound (tag-unknown), which suggests near names."""
        record = self.find(reference)
        if record is None:
            raise self._unknown(reference.familiar())
        return record

    def resolve(self, text: str) -> tuple[RefRecord, ...]:
        """Every name of the image that *text* means: a name (then only that), an image id or a unique start of one.

        Raises NotFound (tag-unknown), InvalidInput (id-ambiguous; reference-invalid).
        """
        rows = find_rows(read_listing(self.root), text)
        if not rows:
            try:
                return (self.get(Reference.parse(text)),)
            except InvalidInput as error:
                if _is_hex(text.removeprefix("sha256:")):
                    raise self._unknown(text) from error
                raise
        return tuple(record for row in rows if (record := self._read(row.file)) is not None)

    def lookup(self, text: str) -> RefRecord:
        """The image that *text* means, under its first name. Raises as resolve."""
        records = self.resolve(text)
        if not records:
            raise self._unknown(text)
        return records[0]

    def set(self, reference: Reference, descriptor: Descriptor, *, summary: Summary, sync: bool = True) -> RefRecord:
        """Make *reference* mean this image; the last step after all its content is in the store.

        An image that loses its last name by this stays, untagged, until it is pruned.
        Without *sync* a power cut may undo it.
        """
        before = self.find_exact(reference)
        record = _record(reference, descriptor, summary)
        if before is not None and before.image_id != summary.image_id and self._is_last_name(before):
            self._write(_record(untagged(before.manifest.digest), before.manifest, before.summary), sync=sync)
        self._write(record, sync=sync)
        if not record.is_untagged:
            self.delete(untagged(summary.manifest.digest))
        return record

    def find_exact(self, reference: Reference) -> RefRecord | None:
        """The record of exactly this name; None also when its file is damaged (it will be overwritten)."""
        try:
            return self._read(file_name(reference))
        except Corrupt:
            return None

    def delete(self, reference: Reference) -> bool:
        """Forget a name; False when it was unknown. The image's content stays."""
        from ..linux.files import reporting, sync_folder

        path = os.path.join(self._folder, file_name(reference))
        with reporting("remove", path):
            try:
                os.unlink(path)
            except FileNotFoundError:
                return False
            sync_folder(self._folder)
        return True

    def list(self, *, strict: bool = False) -> tuple[RefRecord, ...]:
        """Every readable record, sorted by name; reads every file. Damaged ones are `damaged()`'s.

        With *strict* one that cannot be read raises Corrupt: for whoever removes what no name needs.
        """
        return tuple(sorted(self._readable(strict=strict), key=lambda record: str(record.reference)))

    def damaged(self) -> tuple[tuple[str, str], ...]:
        """(file name, what is wrong with it) of the records that cannot be read, sorted."""
        found = []
        for name in self._names():
            try:
                record = self._read(name)
            except Corrupt as error:
                found.append((name, error.context))
                continue
            if record is not None and file_name(record.reference) != name:
                found.append((name, f"it holds the record of {record.reference}"))
        return tuple(sorted(found))

    def discard(self, name: str) -> None:
        """Remove a damaged record. Raises InvalidInput for what is no file name."""
        if "/" in name or not name.endswith(SUFFIX):
            raise InvalidInput(f"not a reference's file: {name!r}", code="name-invalid")
        from ..linux.files import remove_tree

        remove_tree(os.path.join(self._folder, name))

    def _readable(self, *, strict: bool = False) -> Iterator[RefRecord]:
        for name in self._names():
            try:
                record = self._read(name) or self._read_late(name)
            except Corrupt:
                if strict:
                    raise
                continue
            if record is not None and file_name(record.reference) == name:
                yield record

    def _read_late(self, name: str) -> RefRecord | None:
        """The record of a name that was listed and then not found: it has been removed since.

        Or another machine has made it, and a network file system goes on saying for a while that there
        is none. A sweep that believed this would take the image.
        """
        import time

        for _ in range(_PATIENCE):
            if name not in self._names() or os.path.islink(os.path.join(self._folder, name)):
                return None
            if (record := self._read(name)) is not None:
                return record
            time.sleep(0.1)
        return None

    def _names(self) -> Sequence[str]:
        try:
            return [name for name in os.listdir(self._folder) if name.endswith(SUFFIX) and not name.startswith(".")]
        except FileNotFoundError:
            return []
        except OSError as error:
            from ..linux.files import translate

            raise translate(error, "list", self._folder) from error

    def _read(self, name: str) -> RefRecord | None:
        path = os.path.join(self._folder, name)
        try:
            with open(path, "rb", buffering=0) as file:
                return decode(file.read(), RefRecord)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            from ..linux.files import NO_FILE, translate

            if error.errno in NO_FILE:
                raise _damaged(name, os.strerror(error.errno)) from error
            raise translate(error, "read", path) from error
        except (msgspec.MsgspecError, InvalidInput, RecursionError, UnicodeDecodeError) as error:
            raise _damaged(name, str(error)) from error

    def restore(self, record: RefRecord) -> None:
        """Make a name mean again what it meant."""
        self._write(record)

    def _write(self, record: RefRecord, *, sync: bool = True) -> None:
        from ..linux.files import reporting, write_atomic

        with reporting("make", self._folder):
            os.makedirs(self._folder, exist_ok=True)
        write_atomic(os.path.join(self._folder, file_name(record.reference)), encode(record) + b"\n", sync=sync)

    def _is_last_name(self, record: RefRecord) -> bool:
        names = [row for row in read_listing(self.root) if row.image_id == record.image_id]
        return not any(row.reference != str(record.reference) for row in names)

    def _unknown(self, text: str) -> NotFound:
        import difflib  # costs 5 ms; only on this failure

        named: dict[str, list[str]] = {}  # by repository: that both are called «latest» makes no two names alike
        for name in sorted({row.familiar for row in read_listing(self.root) if not row.is_untagged}):
            named.setdefault(name.rpartition(":")[0], []).append(name)
        repository = text.rpartition(":")[0] or text
        alike = [repository] if repository in named else difflib.get_close_matches(repository, named, 3, 0.6)
        near = difflib.get_close_matches(text, [name for each in alike for name in named[each]], 3, 0.0)
        return NotFound(
            f"no such image: {text}",
            code="tag-unknown",
            context=f"{sum(map(len, named.values()))} named images are in {self.root}",
            hint=f"did you mean {' or '.join(near)}?" if near else f"argosy pull {text}",
        )


def _record(reference: Reference, descriptor: Descriptor, summary: Summary) -> RefRecord:
    return RefRecord(
        reference=reference,
        descriptor=descriptor,
        manifest=summary.manifest,
        image_id=summary.image_id,
        created=summary.created,
        size=summary.size,
        updated=_now(),
    )


def _damaged(name: str, why: str) -> Corrupt:
    return Corrupt(
        f"the record of a tag is damaged: {name}",
        code="ref-damaged",
        context=why,
        hint="argosy check --repair removes it; pull the image again",
    )


def _now() -> str:
    import time

    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def file_name(reference: Reference) -> str:
    """The reference percent-quoted; a long one is cut and made unique again by its digest («~» is in no reference)."""
    quoted = str(reference)
    for char in "%/:@[]<>":
        quoted = quoted.replace(char, f"%{ord(char):02X}")
    if len(quoted) > NAME_LIMIT:
        quoted = f"{quoted[: NAME_LIMIT - 65]}~{Digest.of(str(reference).encode()).hex}"
    return quoted + SUFFIX


def _is_hex(text: str) -> bool:
    return bool(text) and not text.strip("0123456789abcdef")
