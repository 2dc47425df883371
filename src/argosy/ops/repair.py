"""check --repair: what is damaged goes, what is missing is fetched from where its image came, layers are made again.

Nothing is believed that does not verify, and names are never resolved anew: a blob is
asked for by its digest alone. A name is given up only where nobody can have what it
lacks: no registry is known for it, or the one that is says that it has it no more.
While a registry cannot be asked, what waits for it stays as it is; so does a damaged
layer that is all that is left of a dropped blob.
"""

from __future__ import annotations

import os
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

from msgspec.structs import replace

from ..errors import Cancelled, Corrupt, Error, Exhausted, InvalidInput, NotFound
from ..linux.lifetimes import boot_id
from ..oci.digest import Digest
from ..oci.image import Layer, read_manifest
from ..oci.manifest import Manifest
from ..store import unsettled
from ..store.unsettled import Mark
from . import rubbish
from .bring import Bringer
from .check import disagreement, finding, missing, missing_blobs
from .parallel import in_parallel, in_processes
from .progress import silent
from .survey import CONTAINER, is_here, name_of
from .unpack import ensure_layer, largest_first
from .verify import suspects, verify

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from ..oci.descriptor import Descriptor
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..store.dropped import Dropped
    from ..store.records import Container
    from ..store.refs import RefRecord
    from .check import Connect, Finding, Report, Store
    from .parallel import Check
    from .progress import Progress
    from .survey import Survey

_CONNECTIONS = 4  # for one large blob


def repair(report: Report, store: Store, *, connect: Connect | None, progress: Progress = silent) -> Report:
    """Mend what *report* found; gives it with what was done and what remains. Without *connect* nothing is fetched."""
    work = _Repair(store, connect, progress)
    work.remove(report.findings)
    work.complete_layers()
    work.fetch()
    work.make_layers(report.findings)
    work.correct_tags()
    work.give_up()
    work.done += rubbish.remove(store.blobs, store.containers)
    return replace(report, repaired=tuple(work.done), remaining=tuple(work.remaining(report.findings)))


class _Repair:
    def __init__(self, store: Store, connect: Connect | None, progress: Progress) -> None:
        self._store = store
        self._connect = connect
        self._progress = progress
        #: what was done, a line each
        self.done: list[str] = []
        #: {blob that nobody has any more: who said so}
        self._lost: dict[Digest, str] = {}
        #: {damaged layer: the dropped blob for which it stands}. Better than nothing, so it stays until that is here
        self._stand_ins: dict[Digest, Dropped] = {}
        #: {registry/repository: what answers for it}
        self._repositories: dict[str, Repository] = {}

    def remove(self, findings: Iterable[Finding]) -> None:
        """What is looked at once more and still found damaged: a disk may fail once, others may have mended it."""
        for found in self._confirmed(findings):
            try:
                if line := self._removed(found):
                    self.done.append(line)
            except Error as error:
                self.done.append(f"could not mend {found.kind} {found.name}: {error.message}")

    def _confirmed(self, findings: Iterable[Finding]) -> list[Finding]:
        store, survey = self._store, self._store.survey()
        doubtful = {(found.kind, found.name): found for found in findings}
        again = [
            suspect
            for suspect in suspects(store.blobs, store.snapshotter)
            if (suspect.kind, suspect.digest) in doubtful
        ]
        verdicts = verify(
            again, blobs=store.blobs, snapshotter=store.snapshotter, survey=survey, progress=self._progress
        )
        damaged: set[tuple[str, str]] = {
            (each.kind, str(each.digest)) for each, verdict in verdicts.items() if verdict.problem
        }
        damaged |= {("tag", name) for name, _ in store.refs.damaged()}
        damaged |= {("list", name) for name, _ in store.lists.damaged()}
        damaged |= {("container", container_id) for container_id, _ in store.containers.damaged()}
        return [found for key, found in doubtful.items() if key in damaged]

    def _removed(self, found: Finding) -> str:
        store = self._store
        if found.kind == "blob" and is_here(digest := Digest(found.name), store.blobs):
            store.blobs.delete(digest)
            return f"removed blob {digest}"
        if found.kind == "layer":
            return self._removed_layer(Digest(found.name))
        if found.kind == "tag" and found.name.endswith(".json"):
            store.refs.discard(found.name)
            return f"removed tag record {found.name}"
        if found.kind == "list":
            store.lists.discard(found.name)
            return f"removed manifest list {found.name}"
        if found.kind == "container":
            return f"set aside container {found.name[:12]} as {store.containers.set_aside(found.name)}"
        return ""

    def _removed_layer(self, diff_id: Digest) -> str:
        store, stand_in = self._store, self._store.stand_ins().get(diff_id)
        if stand_in is None or self._source(diff_id, store.survey()) is not None:
            store.snapshotter.remove(diff_id)
            return f"removed layer {diff_id}"
        self._stand_ins[diff_id] = stand_in
        if not self._is_mended(diff_id):
            return ""
        del self._stand_ins[diff_id]
        return f"made layer {diff_id} again of its tar"

    def complete_layers(self) -> None:
        """What is left of layers that stood for dropped blobs; the rest of them is in their tars."""
        store = self._store
        for digest in store.blobs.dropped.walk():
            record = store.blobs.dropped.find(digest)
            if record is None or is_here(digest, store.blobs) or store.snapshotter.has(record.diff_id):
                continue
            try:
                if self._is_mended(record.diff_id):
                    self.done.append(f"made layer {record.diff_id} again of its tar")
            except Error as error:
                self.done.append(f"could not mend layer {record.diff_id}: {error.message}")

    def _is_mended(self, diff_id: Digest) -> bool:
        """Whether a layer is whole again of what is left of it."""
        try:
            self._store.snapshotter.mend(diff_id)
        except (NotFound, Corrupt, InvalidInput):  # the latter: something else where its tar should be
            return False
        return True

    def fetch(self) -> None:
        """What is missing; documents lead to more that may be missing, so until nothing comes any more."""
        asked: set[Digest] = set()
        while absent := [each for each in self._wanted() if each.digest not in asked]:
            asked |= {each.digest for each in absent}
            unsettled.begin(self._store.blobs.root, Mark(boot=boot_id(), blobs=tuple(each.digest for each in absent)))
            origins = self._store.survey().origins
            in_parallel(partial(self._fetch, origins), largest(absent))

    def _wanted(self) -> list[Descriptor]:
        """What is missing, and the blobs for which damaged layers stand."""
        stood_for = [stand_in.descriptor for stand_in in self._stand_ins.values()]
        missed = missing_blobs(self._store, self._store.survey())
        return missed + [each for each in stood_for if not is_here(each.digest, self._store.blobs)]

    def _fetch(self, known: Mapping[Digest, list[Reference]], descriptor: Descriptor, check: Check) -> None:
        """From the first of its origins that gives it."""
        digest, said = descriptor.digest, []
        origins = known.get(digest, [])
        if (dropped := self._store.blobs.dropped.find(digest)) is not None:
            origins = [*dropped.origins, *(origin for origin in origins if origin not in dropped.origins)]
        for origin in origins if self._connect is not None else ():
            try:
                self._fetch_from(origin, descriptor, check)
            except (Cancelled, Exhausted):
                raise
            except Error as error:
                said.append(error)
                continue
            self.done.append(f"fetched blob {digest} from {origin.name}")
            return
        self.done += [f"could not fetch blob {digest}: {failure.message}" for failure in said]
        if not origins:
            self._lost[digest] = "no registry is known for it"
        elif said and all(isinstance(failure, NotFound) for failure in said):
            self._lost[digest] = said[-1].message

    def _fetch_from(self, origin: Reference, descriptor: Descriptor, check: Check) -> None:
        assert self._connect is not None
        if origin.name not in self._repositories:
            self._repositories[origin.name] = self._connect(origin)
        bringer = Bringer(
            repository=self._repositories[origin.name],
            blobs=self._store.blobs,
            snapshotter=self._store.snapshotter,
            connections=_CONNECTIONS,
        )
        bringer.blob(descriptor, check, self._progress)

    def make_layers(self, findings: Iterable[Finding]) -> None:
        """Those that were damaged, of their blobs."""
        store, survey = self._store, self._store.survey()
        for diff_id, stand_in in self._stand_ins.items():
            if store.blobs.stat(stand_in.descriptor.digest) == stand_in.descriptor.size:
                store.snapshotter.remove(diff_id)
        wanted = [Digest(found.name) for found in findings if found.kind == "layer"]
        layers = [
            Layer(descriptor, diff_id, store.blobs)
            for diff_id in wanted
            if not store.snapshotter.has(diff_id) and (descriptor := self._source(diff_id, survey)) is not None
        ]
        if layers:
            unsettled.begin(store.blobs.root, Mark(boot=boot_id(), layers=tuple(layer.diff_id for layer in layers)))

        def work(layer: Layer, check: Check, progress: Progress) -> None:
            with suppress(Corrupt):  # the layer is the blob's, and the blob verifies: its image never worked
                ensure_layer(layer, snapshotter=store.snapshotter, blobs=store.blobs, progress=progress, check=check)

        in_processes(work, largest_first(layers), progress=self._progress)
        made = [layer.diff_id for layer in layers if store.snapshotter.has(layer.diff_id)]
        self.done += [f"made layer {diff_id} again" for diff_id in made]

    def _source(self, diff_id: Digest, survey: Survey) -> Descriptor | None:
        """A blob that is here and of which a layer can be made."""
        blobs = self._store.blobs
        found = (each for each in survey.blobs_of.get(diff_id, ()) if blobs.stat(each.digest) == each.size)
        return next(found, None)

    def correct_tags(self) -> None:
        """Records that say something else than the image that they lead to."""
        for record in self._store.refs.list():
            if disagreement(record, self._store.blobs) and (right := self._corrected(record)) is not None:
                self._store.refs.restore(right)
                self.done.append(f"corrected the record of {name_of(record)}")

    def _corrected(self, record: RefRecord) -> RefRecord | None:
        document = read_manifest(record.manifest, self._store.blobs)
        return replace(record, image_id=document.config.digest) if isinstance(document, Manifest) else None

    def give_up(self) -> None:
        """Names and containers whose image nobody can complete any more."""
        survey = self._store.survey()
        lost = {each.digest for each in survey.absent() if self._is_lost(each.digest, survey)}
        users = {user: digest for digest in sorted(lost) for user in survey.users[digest]}
        for record in self._store.refs.list():
            if (name := name_of(record)) in users:
                self._store.refs.delete(record.reference)
                self.done.append(f"removed tag {name}: blob {users[name]} is lost, {self._lost[users[name]]}")
        for container in self._store.containers.list():
            if (digest := users.get(f"{CONTAINER}{container.name}")) is not None:
                self._give_up_container(container, digest)

    def _is_lost(self, digest: Digest, survey: Survey) -> bool:
        """A layer's blob is not, as long as the layer stands: the image runs."""
        diff_id = survey.layers.get(digest)
        return digest in self._lost and (diff_id is None or not self._store.snapshotter.has(diff_id))

    def _give_up_container(self, container: Container, digest: Digest) -> None:
        if container.status == "running":
            self.done.append(f"left container {container.name} as it runs: blob {digest} of its image is lost")
            return
        place = self._store.containers.set_aside(container.id)
        self.done.append(f"set aside container {container.name} as {place}: blob {digest} of its image is lost")

    def remaining(self, findings: Iterable[Finding]) -> Iterator[Finding]:
        """What a user has to do something about."""
        store, survey = self._store, self._store.survey()
        yield from missing(store, survey)
        for found in findings:
            if found.kind == "tag" and found.name.endswith(".json"):
                if not os.path.lexists(os.path.join(store.refs.root, "refs", found.name)):
                    yield found
            elif found.kind == "layer" and found.affects and not store.snapshotter.has(Digest(found.name)):
                yield finding(store, survey, "layer", Digest(found.name), "it is to be made again")
            elif (
                found.kind == "layer"
                and Digest(found.name) in self._stand_ins
                and Digest(found.name) in store.stand_ins()
            ):
                yield found


def largest(descriptors: Iterable[Descriptor]) -> list[Descriptor]:
    """The order in which several at once take the least time."""
    return sorted(descriptors, key=lambda each: -each.size)
