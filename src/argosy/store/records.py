"""Container records: one folder a container, its state in one small JSON file.

`containers/<id>/record.json` is replaced by rename under the record's own lock;
`names/<name>` holds the id of the container that has the name. Lists read the
records and nothing else. A record that cannot be read is rubbish for `check`, not
the end of `ps`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from ..errors import Conflict, Corrupt, InvalidInput, NotFound, Unavailable, Unsupported
from ..oci.descriptor import Descriptor
from ..oci.digest import Digest
from ..oci.wire import decode, encode
from .names import is_name, random_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from _typeshed import StrPath

RECORD = "record.json"
LOCK = "lock"
_STORE_ID = ".id"
_ASIDE = ".damaged"
Status = Literal["created", "running", "exited"]


class Container(msgspec.Struct, frozen=True, kw_only=True):
    """A container: what it was made from, and how far it has come."""

    #: 64 lower-case hex digits
    id: str
    name: str
    #: as the user typed it
    image: str
    manifest: Descriptor
    image_id: Digest
    #: RFC 3339, UTC
    created: str
    command: tuple[str, ...]
    status: Status = "created"
    #: of the argosy process that watches over it; with its start time a reused pid is told apart
    pid: int | None = None
    start_time: int | None = None
    #: id of the machine's start that *start_time* counts from; after the next one nothing of the container runs
    boot: str = ""
    #: number of the pid namespace that *pid* is of; 0 in records of old
    space: int = 0
    #: name of the machine that it runs on: several may share a store
    host: str = ""
    started: str = ""
    finished: str = ""
    exit_code: int | None = None
    auto_remove: bool = False
    #: layers, lowest first
    diff_ids: tuple[Digest, ...] = ()
    #: kind of snapshot beneath
    snapshotter: str = ""
    #: folder on *host* that has upper/ and work/, where those do not lie in the store
    local: str = ""
    labels: Mapping[str, str] = {}
    #: what `run` was asked for; its own words
    options: Mapping[str, Any] = {}  # Any: JSON values


class ContainerStore:
    """The containers of this host. Any number of threads and processes may share the root."""

    def __init__(self, root: StrPath) -> None:
        self.root = root
        self._folder = os.path.join(root, "containers")
        self._names = os.path.join(root, "names")

    def folder(self, container_id: str) -> str:
        """Where the container's files are: record.json, bundle/, upper/, work/, …"""
        return self._path(container_id)

    def writable(self, record: Container) -> str:
        """Where upper/ and work/ of a container are.

        Raises Unavailable (container-elsewhere) where that is another machine's own disk, NotFound
        (container-files-gone) where a container has run and somebody has emptied the folder since.
        """
        if record.local and record.host != os.uname().nodename:
            raise Unavailable(
                f"the files of container {record.name or record.id[:12]} are on {record.host}",
                code="container-elsewhere",
                context=f"its writable layer is {record.local} there; this is {os.uname().nodename}",
                hint=f"do it on {record.host}",
            )
        if self.has_lost_files(record):
            raise NotFound(
                f"the files of container {record.name or record.id[:12]} are gone",
                code="container-files-gone",
                context=f"they were in {record.local}; systemd empties /var/tmp after 30 days",
                hint=f"argosy rm {record.name or record.id[:12]}; ARGOSY_LOCAL names a folder that lasts",
            )
        return record.local or self.folder(record.id)

    def has_lost_files(self, record: Container) -> bool:
        """Whether the writable layer of a container that has run here is gone, though the store is whole."""
        is_here = bool(record.local) and record.host == os.uname().nodename
        return is_here and record.status == "exited" and not os.path.isdir(f"{record.local}/upper")

    def identity(self) -> str:
        """A random word that this store alone has, wherever it is mounted."""
        from ..linux.files import reporting, write_atomic
        from ..linux.locks import locked

        path = os.path.join(self._folder, _STORE_ID)
        if not os.path.exists(path):
            self._make_folders()
            with locked(os.path.join(self._names, ".lock")):
                if not os.path.exists(path):
                    write_atomic(path, os.urandom(8).hex().encode(), mode=0o600)
        with reporting("read", path), open(path, "rb", buffering=0) as file:
            return file.read(64).decode()

    def create(self, record: Container) -> str:
        """Make the container's folder and record, and reserve its name; gives the folder.

        An empty name becomes a random one, which `get` tells.
        Raises Conflict (name-in-use) with the holder's id, InvalidInput (name-invalid).
        """
        from ..linux.locks import locked

        if record.name and not is_name(record.name):
            raise InvalidInput(
                f"not a container name: {record.name!r}",
                code="name-invalid",
                hint="names take letters, digits, «_», «.», «-», begin with a letter or digit and have at least two",
            )
        self._make_folders()
        # The lock makes «a name whose container has no record» mean that its creator died.
        with locked(os.path.join(self._names, ".lock")):
            if not record.name:
                record = msgspec.structs.replace(record, name=self._free_name())
            self._reserve(record)
            try:
                self._write_new(record)
            except BaseException:
                self._release(record)
                raise
        return self.folder(record.id)

    def get(self, key: str) -> Container:
        """The container with this id, name or unique start of an id, in this order, as Docker has it.

        Raises NotFound (container-unknown), InvalidInput (id-ambiguous), Corrupt (record-damaged).
        """
        record = self._find(key)
        if record is None:
            raise NotFound(f"no such container: {key}", code="container-unknown", hint="argosy ps -a lists them")
        return record

    def list(self, *, strict: bool = False) -> tuple[Container, ...]:
        """Every readable record, newest first. What cannot be read is `damaged()`'s.

        With *strict* it raises Corrupt instead: for whoever removes what no record needs.
        """
        records = []
        for container_id in self._ids():
            try:
                record = self._read(container_id)
            except Corrupt:
                if strict:
                    raise
                continue
            if record is not None:
                records.append(record)
        return tuple(sorted(records, key=lambda record: (record.created, record.id), reverse=True))

    def update(self, container_id: str, *, sync: bool = True, **changes: Any) -> Container:  # Any: Container's fields
        """Change fields of a record, one writer at a time; gives the new record.

        With *sync* false a power cut may undo it. Raises NotFound when the container
        has been removed meanwhile.
        """
        return self.change(container_id, lambda record: msgspec.structs.replace(record, **changes), sync=sync)

    def change(self, container_id: str, edit: Callable[[Container], Container], *, sync: bool = True) -> Container:
        """As update, where the new record depends on the old: *edit* runs under the record's lock."""
        from ..linux.locks import locked

        folder = self._path(container_id)
        try:
            with locked(os.path.join(folder, LOCK)):
                old = self._read(container_id)
                if old is None:
                    raise _removed(container_id)
                new = edit(old)
                self._write(new, sync=sync)
        except NotFound as error:
            raise _removed(container_id) from error
        return new

    def rename(self, container_id: str, name: str) -> Container:
        """Give a container another name. Raises Conflict (name-in-use), InvalidInput (name-invalid), NotFound."""
        from ..linux.locks import locked

        if not is_name(name):
            raise InvalidInput(f"not a container name: {name!r}", code="name-invalid")
        with locked(os.path.join(self._names, ".lock")):
            old = self.get(container_id)
            new = msgspec.structs.replace(old, name=name)
            self._reserve(new)
            try:
                new = self.update(old.id, name=name)
            except BaseException:
                self._release(new)
                raise
            self._release(old)
        return new

    def delete(self, container_id: str) -> None:
        """Remove a container with its folder; nothing to do when it is gone.

        The record goes last, so that what cannot be removed (something is mounted)
        still has a name to be removed by.
        """
        from ..linux.files import remove_tree, reporting

        try:
            record = self._read(container_id)
        except Corrupt:
            record = None
        folder = self._path(container_id)
        with reporting("remove", folder):
            try:
                names = os.listdir(folder)
            except FileNotFoundError:
                return
        if record is not None and record.local and record.host == os.uname().nodename:
            remove_tree(record.local)
        for name in sorted(names, key=lambda name: name == RECORD):
            remove_tree(os.path.join(folder, name))
        remove_tree(folder)
        if record is not None:
            self._release(record)

    def left_behind(self, local: str) -> tuple[str, ...]:
        """Paths in *local*, a folder for this store's writable layers, whose container is no more; sorted.

        One that was set aside is still somebody's.
        """
        try:
            names = sorted(name for name in os.listdir(local) if _is_id(name))
            known = {name.partition(".")[0] for name in os.listdir(self._folder)}
        except FileNotFoundError:
            return ()
        return tuple(os.path.join(local, name) for name in names if name not in known)

    def set_aside(self, container_id: str) -> str:
        """Take a damaged container out of all lists without removing what its user wrote; gives the new place."""
        from ..linux.files import reporting

        folder = self._path(container_id)
        target, number = f"{folder}{_ASIDE}", 1
        while os.path.lexists(target):
            number += 1
            target = f"{folder}{_ASIDE}-{number}"
        with reporting("set aside", folder):
            os.rename(folder, target)
            for name in os.listdir(self._names):
                if self._holder(name) == container_id:
                    os.unlink(os.path.join(self._names, name))
        return target

    def aside(self) -> tuple[str, ...]:
        """Folders of what was set aside, sorted."""
        try:
            names = os.listdir(self._folder)
        except FileNotFoundError:
            return ()
        return tuple(os.path.join(self._folder, name) for name in sorted(names) if _ASIDE in name)

    def damaged(self) -> tuple[tuple[str, str], ...]:
        """(id, what is wrong) of the folders without a readable record, sorted; not those being made, nor husks."""
        from ..linux.locks import locked

        if not os.path.isdir(self._names):
            return ()
        try:
            with locked(os.path.join(self._names, ".lock")):
                return tuple(self._damaged())
        except Unsupported as error:
            if error.code != "read-only-file-system":
                raise
            return tuple(self._damaged())  # nobody can be making one

    def remove_husks(self) -> tuple[str, ...]:
        """Remove the folders of containers that were never made or are half removed; gives their ids."""
        from ..linux.files import remove_tree
        from ..linux.locks import locked

        if not os.path.isdir(self._names):
            return ()
        with locked(os.path.join(self._names, ".lock")):
            found = tuple(self.husks())
            for container_id in found:
                remove_tree(self._path(container_id))
        return found

    def husks(self) -> Iterator[str]:
        """Ids of folders with neither a record nor anything of a user's: kill -9 leaves them, or a maker is at it."""
        for container_id in sorted(self._ids()):
            if self._is_husk(container_id):
                yield container_id

    def _is_husk(self, container_id: str) -> bool:
        try:
            names = os.listdir(self._path(container_id))
        except OSError:
            return False
        return all(name == LOCK or name.startswith(f".{RECORD}.") for name in names)

    def _damaged(self) -> Iterator[tuple[str, str]]:
        for container_id in sorted(self._ids()):
            try:
                if self._read(container_id) is None and not self._is_husk(container_id):
                    yield container_id, "it has no record.json"
            except Corrupt as error:
                yield container_id, error.context

    def _make_folders(self) -> None:
        from ..linux.files import reporting

        with reporting("make", self._names):
            os.makedirs(self._names, exist_ok=True)
            os.makedirs(self._folder, mode=0o700, exist_ok=True)

    def _find(self, key: str) -> Container | None:
        if not key or "/" in key or key.startswith("."):
            return None
        if _is_id(key) and (record := self._read(key)) is not None:
            return record
        holder = self._holder(key)
        if holder and (record := self._read(holder)) is not None:
            return record
        if key.strip("0123456789abcdef"):
            # The name's file may be lost; the records know their names too.
            return next((record for record in self.list() if record.name == key), None)
        found = [container_id for container_id in self._ids() if container_id.startswith(key)]
        if len(found) > 1:
            raise InvalidInput(
                f"container id {key!r} is ambiguous",
                code="id-ambiguous",
                context="it may be " + ", ".join(sorted(container_id[:12] for container_id in found)[:8]),
                hint="type more digits",
            )
        return self._read(found[0]) if found else None

    def _reserve(self, record: Container) -> None:
        """Raises Conflict (name-in-use). The caller holds the names' lock."""
        from ..linux.files import create_exclusive

        path = os.path.join(self._names, record.name)
        for _ in range(2):
            if create_exclusive(path, record.id.encode(), sync=not record.auto_remove):
                return
            holder = self._holder(record.name)
            if holder and os.path.exists(os.path.join(self._path(holder), RECORD)):
                break
            os.unlink(path)  # its creator died between name and record, or its remover between record and name
        raise Conflict(
            f'the container name "/{record.name}" is already in use by container "{holder}"',
            code="name-in-use",
            context="you have to remove (or rename) that container to be able to reuse that name",
            hint=f"argosy rm {record.name}, or choose another --name",
        )

    def _release(self, record: Container) -> None:
        if self._holder(record.name) == record.id:
            os.unlink(os.path.join(self._names, record.name))

    def _holder(self, name: str) -> str:
        """Id of the container that has the name, else empty."""
        if not is_name(name):
            return ""
        try:
            with open(os.path.join(self._names, name), "rb", buffering=0) as file:
                text = file.read(65).decode(errors="replace")
        except OSError:
            return ""
        return text if _is_id(text) else ""

    def _free_name(self) -> str:
        for attempt in range(64):
            name = random_name(attempt)
            if not self._holder(name):
                return name
        raise Conflict("no free random name", code="names-exhausted", hint="give the container a --name")

    def _write_new(self, record: Container) -> None:
        from ..linux.files import remove_tree, reporting

        # Closed to others: a container's own files hold what its image does, set-uid programs with known holes too.
        with reporting("make", self._path(record.id)):
            os.mkdir(self._path(record.id), 0o700)
        try:
            self._write(record)
        except BaseException:  # a full disk
            remove_tree(self._path(record.id))
            raise

    def _write(self, record: Container, *, sync: bool = True) -> None:
        """A container that nobody wants to keep is not worth a disk's flush."""
        from ..linux.files import write_atomic

        path = os.path.join(self._path(record.id), RECORD)
        write_atomic(path, encode(record) + b"\n", mode=0o600, sync=sync and not record.auto_remove)

    def _read(self, container_id: str) -> Container | None:
        path = os.path.join(self._path(container_id), RECORD)
        try:
            with open(path, "rb", buffering=0) as file:
                record = decode(file.read(), Container)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except OSError as error:
            from ..linux.files import NO_FILE, translate

            if error.errno in NO_FILE:
                raise _damaged_record(container_id, os.strerror(error.errno)) from error
            raise translate(error, "read", path) from error
        except (msgspec.MsgspecError, InvalidInput, RecursionError, UnicodeDecodeError) as error:
            raise _damaged_record(container_id, str(error)) from error
        if record.id != container_id:
            raise _damaged_record(container_id, f"it holds the record of {record.id}")
        return record

    def _ids(self) -> Sequence[str]:
        try:
            return [name for name in os.listdir(self._folder) if _is_id(name)]
        except FileNotFoundError:
            return []
        except OSError as error:
            from ..linux.files import translate

            raise translate(error, "list", self._folder) from error

    def _path(self, container_id: str) -> str:
        if not _is_id(container_id):
            raise InvalidInput(f"not a container id: {container_id!r}", code="id-invalid")
        return os.path.join(self._folder, container_id)


def new_id() -> str:
    """A random container id."""
    return os.urandom(32).hex()


def _is_id(text: str) -> bool:
    return len(text) == 64 and not text.strip("0123456789abcdef")


def _removed(container_id: str) -> NotFound:
    return NotFound(f"no such container: {container_id}", code="container-unknown")


def _damaged_record(container_id: str, why: str) -> Corrupt:
    return Corrupt(
        f"the record of container {container_id[:12]} is damaged",
        code="record-damaged",
        context=why,
        hint="argosy check --repair removes it",
    )
