"""Where snapshots lie: layers/<algorithm>/<hex>/, made aside and renamed into place.

Beside the kind's own files each has `layer.json`. What is not under its final name
does not exist. The folder aside has one name a layer and a lock: who comes second
waits, and what a killed process left there is removed by the next that needs the layer.
"""

from __future__ import annotations

import os
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import msgspec

from ..errors import Conflict, Corrupt, InvalidInput, NotFound
from ..linux import syscalls
from ..linux.files import NO_FILE, remove_tree, reporting, translate
from ..linux.locks import Held, hold, own_name
from ..oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from contextlib import AbstractContextManager
    from typing import BinaryIO

    from _typeshed import StrPath

    from .parents import View

FACTS = "layer.json"
#: beginnings of the names in tmp/ of layers that are being made (locked meanwhile), or removed
MADE, REMOVED = "layer-", "removed-"
REMEDY = "argosy check --repair removes the layer; it is made again when it is needed"


class LayerFacts(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What was learned while a layer was applied."""

    #: bytes of the uncompressed tar
    size: int
    #: folders that the layer uses but does not describe (base64 in JSON: names need not be UTF-8)
    implied: tuple[bytes, ...] = ()
    #: paths of lower layers' content that the layer hides, where its file system kept no marks; see snapshots/hiding.py
    hidden: tuple[bytes, ...] = ()
    #: what could not be kept, for people
    warnings: tuple[str, ...] = ()


class LayerFolders:
    """The snapshots of a store, whatever their kind: what all Snapshotters do in the same way."""

    def __init__(self, root: StrPath) -> None:
        self._layers = os.path.join(root, "layers")
        self._tmp = os.path.join(root, "tmp")

    def path(self, diff_id: Digest) -> str:
        return os.path.join(self._layers, diff_id.algorithm, diff_id.hex)

    def has(self, diff_id: Digest) -> bool:
        return os.path.exists(os.path.join(self.path(diff_id), FACTS))

    def facts(self, diff_id: Digest) -> LayerFacts:
        """Raises NotFound (layer-not-unpacked), Corrupt (layer-facts-damaged)."""
        path = os.path.join(self.path(diff_id), FACTS)
        try:
            with open(path, "rb", buffering=0) as file:
                return msgspec.json.decode(file.read(), type=LayerFacts)
        except FileNotFoundError:
            raise NotFound(
                f"layer {diff_id} is not unpacked",
                code="layer-not-unpacked",
                context=f"{self.path(diff_id)} is missing",
                hint="argosy pull its image again",
            ) from None
        except (msgspec.MsgspecError, UnicodeDecodeError) as error:
            raise Corrupt(f"{path} is damaged", code="layer-facts-damaged", context=str(error), hint=REMEDY) from error
        except OSError as error:
            if error.errno in NO_FILE:
                raise Corrupt(
                    f"{path} is damaged", code="layer-facts-damaged", context=os.strerror(error.errno), hint=REMEDY
                ) from error
            raise translate(error, "read", path) from error

    def require_facts(self, diff_id: Digest, facts: LayerFacts) -> None:
        """Raises Corrupt (layer-facts-damaged) unless what was written down is what follows from the layer."""
        found = self.facts(diff_id)
        if msgspec.structs.replace(found, warnings=facts.warnings) != facts:  # words may change with our version
            raise Corrupt(
                f"{self.path(diff_id)}/{FACTS} is damaged",
                code="layer-facts-damaged",
                context="it says something else than the layer",
                hint=REMEDY,
            )

    def usage(self, diff_id: Digest) -> int:
        """Bytes of the layer, uncompressed. Raises as facts."""
        return self.facts(diff_id).size

    def room(self, diff_id: Digest) -> int:
        """Bytes on the disk; a few files here, unpacked kinds know better. 0 when absent."""
        from ..linux import room

        return room.of_tree(self.path(diff_id))

    def touched_ns(self, diff_id: Digest) -> int:
        """When the snapshot was made, by the file system's clock; 0 when absent."""
        try:
            return os.stat(os.path.join(self.path(diff_id), FACTS)).st_mtime_ns
        except FileNotFoundError:
            return 0

    def open_tar(self, diff_id: Digest) -> BinaryIO | None:
        """Kinds that unpack keep no tar."""
        return None

    def mend(self, diff_id: Digest) -> None:
        raise NotFound(f"layer {diff_id} has no tar", code="layer-without-tar")

    def warnings(self, diff_id: Digest) -> tuple[str, ...]:
        """Without their counts, so that equal ones of an image's layers can be said once. Raises as facts."""
        return tuple(text.rpartition(" × ")[2] for text in self.facts(diff_id).warnings)

    def companions(
        self, stack: tuple[Digest, ...], view: Callable[[Digest], AbstractContextManager[View]], root: str
    ) -> dict[Digest, str]:
        """What parents.companions gives for *stack*; without its import where every layer describes its folders."""
        implied = {diff_id: frozenset(self.facts(diff_id).implied) for diff_id in stack}
        if not any(implied.values()):
            return {}
        from .parents import companions

        return companions(stack, implied, view, root)

    def walk(self) -> Iterator[Digest]:
        for algorithm in _names(self._layers):
            for name in _names(os.path.join(self._layers, algorithm)):
                with suppress(InvalidInput):
                    diff_id = Digest.parse(f"{algorithm}:{name}")
                    if self.has(diff_id):
                        yield diff_id

    def sync(self, diff_id: Digest) -> None:
        with suppress(NotFound), reporting("sync", self.path(diff_id)):
            fd = os.open(self.path(diff_id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                syscalls.syncfs(fd)  # one call, whatever a layer consists of
            finally:
                os.close(fd)

    def remove(self, diff_id: Digest) -> None:
        aside = os.path.join(self._tmp, f"{REMOVED}{diff_id.short}-{os.getpid()}-{os.urandom(4).hex()}")
        with reporting("remove", self.path(diff_id)):
            os.makedirs(self._tmp, exist_ok=True)
            try:
                os.rename(self.path(diff_id), aside)
            except FileNotFoundError:
                return
        from ..linux.removal import remove_large_tree

        try:
            remove_large_tree(aside)
        except Conflict as error:
            if error.code != "folder-not-empty":  # NFS keeps the files that somebody has open; prune takes them later
                raise

    @contextmanager
    def new(self, diff_id: Digest) -> Iterator[str | None]:
        """An empty folder aside to build the snapshot in; `commit` it inside the block, or it goes.

        None when another process, for which this one waited, has made the snapshot.
        """
        held = self._hold_aside(diff_id)
        if held is None:
            yield None
            return
        try:
            for name in os.listdir(held.fd):  # whoever made these is dead, or the lock would not be ours
                remove_tree(os.path.join(held.path, name))
            yield held.path
            if held.is_named:
                remove_tree(held.path)
        except BaseException:
            remove_tree(held.path)
            raise
        finally:
            held.release()

    def _hold_aside(self, diff_id: Digest) -> Held | None:
        """The folder aside, made and locked; None when the snapshot is there by then."""
        name = os.path.join(self._tmp, f"{MADE}{diff_id.algorithm}-{diff_id.hex}")
        while not self.has(diff_id):
            with reporting("write", name):
                os.makedirs(self._tmp, exist_ok=True)
                aside = own_name(name, self._tmp)
                os.makedirs(aside, mode=0o700, exist_ok=True)
                try:
                    return hold(aside, os.O_RDONLY | os.O_DIRECTORY, lock=name)
                except FileNotFoundError:  # its maker has finished, or given up
                    continue
        return None

    def commit(self, diff_id: Digest, aside: str, facts: LayerFacts) -> None:
        """Publish *aside*. Not synced: see the contract."""
        path = self.path(diff_id)
        with reporting("write", path):
            _write(os.path.join(aside, FACTS), msgspec.json.encode(facts))
            os.makedirs(os.path.dirname(path), mode=0o700, exist_ok=True)
            try:
                os.rename(aside, path)
            except OSError:  # ENOTEMPTY or EEXIST: what is left of a damaged one
                if not self.has(diff_id):
                    self.remove(diff_id)
                    os.rename(aside, path)


def topmost_once(diff_ids: tuple[Digest, ...]) -> tuple[Digest, ...]:
    """Topmost first; overlayfs refuses a folder twice, and below its upper place a layer adds nothing."""
    return tuple(dict.fromkeys(reversed(diff_ids)))


def _names(folder: str) -> tuple[str, ...]:
    try:
        with os.scandir(folder) as entries:
            return tuple(entry.name for entry in entries if entry.is_dir(follow_symlinks=False))
    except FileNotFoundError:
        return ()


def _write(path: str, data: bytes) -> None:
    with open(path, "wb", buffering=0) as file:
        file.write(data)
