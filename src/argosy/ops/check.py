"""check: everything in the store is read and compared with what it should be; repair.py mends it.

Blobs are the truth, snapshots are made again from them. What a user wrote (a
container's upper folder) is never removed, only set aside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Error
from ..oci.image import read_manifest
from ..oci.manifest import Manifest
from . import rubbish
from .progress import silent
from .survey import CONTAINER, UNTAGGED, Survey, is_here, name_of
from .verify import suspects, verify

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.dropped import Dropped
    from ..store.lists import ListStore
    from ..store.records import Container, ContainerStore
    from ..store.refs import RefRecord, RefStore
    from .progress import Progress
    from .verify import Suspect, Verdict

    #: opens the repository that an image's name lies in
    Connect = Callable[[Reference], Repository]

Kind = Literal["blob", "layer", "tag", "list", "container"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is damaged or missing."""

    kind: Kind
    #: digest, file name, reference or container id
    name: str
    problem: str
    #: images and containers that need it, in familiar form
    affects: tuple[str, ...]
    #: what to type
    remedy: str


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at and what was found."""

    blobs: int
    layers: int
    tags: int
    containers: int
    #: blobs that images need and that were dropped, whose layers stand for them; not among *blobs*
    dropped: int
    #: bytes read
    size: int
    findings: tuple[Finding, ...]
    #: parts of interrupted transfers and other leftovers; harmless
    rubbish: tuple[str, ...]
    #: what repair did, a line each
    repaired: tuple[str, ...] = ()
    #: what is still damaged or missing after a repair
    remaining: tuple[Finding, ...] = ()

    @property
    def is_sound(self) -> bool:
        return not self.findings


class Store:
    """All that a check looks at."""

    def __init__(
        self,
        *,
        refs: RefStore,
        lists: ListStore,
        containers: ContainerStore,
        blobs: BlobStore,
        snapshotter: Snapshotter,
    ) -> None:
        self.refs = refs
        self.lists = lists
        self.containers = containers
        self.blobs = blobs
        self.snapshotter = snapshotter

    def survey(self) -> Survey:
        return Survey(self.refs.list(), self.containers.list(), self.blobs)

    def is_dropped(self, digest: Digest) -> bool:
        """Whether a blob was given up and its layer, which is here, stands for it."""
        record = self.blobs.dropped.find(digest)
        return record is not None and self.snapshotter.has(record.diff_id)

    def stand_ins(self) -> dict[Digest, Dropped]:
        """{layer: the blob that it stands for}, of those that are here: nothing else is left of the two."""
        gone = (digest for digest in self.blobs.dropped.walk() if not is_here(digest, self.blobs))
        records = [record for digest in gone if (record := self.blobs.dropped.find(digest)) is not None]
        records.sort(key=lambda record: len(record.origins))  # of several blobs the one that somebody has
        return {record.diff_id: record for record in records if self.snapshotter.has(record.diff_id)}


def check(store: Store, *, progress: Progress = silent) -> Report:
    """Verify every blob, reference, list, layer and record. Safe beside running verbs."""
    records, containers = store.refs.list(), store.containers.list()
    survey = Survey(records, containers, store.blobs)
    verdicts = verify(
        suspects(store.blobs, store.snapshotter),
        blobs=store.blobs,
        snapshotter=store.snapshotter,
        survey=survey,
        progress=progress,
    )
    findings = [finding(store, survey, "blob", each, why) for each, why in _damaged(verdicts, "blob")]
    findings += missing(store, survey)
    findings += [*_check_tags(store, records), *_check_lists(store.lists)]
    findings += [finding(store, survey, "layer", each, why) for each, why in _damaged(verdicts, "layer")]
    findings += _check_containers(store.containers, containers)
    return Report(
        blobs=sum(suspect.kind == "blob" for suspect in verdicts),
        layers=sum(suspect.kind == "layer" for suspect in verdicts),
        tags=len(records),
        containers=len(containers),
        dropped=sum(store.is_dropped(each.digest) for each in survey.absent()),
        size=sum(verdict.size for verdict in verdicts.values()),
        findings=tuple(findings),
        rubbish=rubbish.find(store.blobs, store.containers),
    )


def missing(store: Store, survey: Survey) -> list[Finding]:
    """What is needed and not here.

    Looked for once more while nothing can be deleted: a name may have gone, with its blobs, since *survey* read it.
    """
    absent = missing_blobs(store, survey)
    if not absent:
        return []
    with store.blobs.publishing():
        needed = store.survey().needed
        listed = store.blobs.walk()  # a folder's list is true where NFS remembers that a file was absent
        here = frozenset(digest for digest in listed if not os.path.islink(store.blobs.path(digest)))
    lost = [each.digest for each in absent if each.digest in needed and each.digest not in here]
    return [finding(store, survey, "blob", digest, _why_missing(store, digest)) for digest in lost]


def missing_blobs(store: Store, survey: Survey) -> list[Descriptor]:
    """Needed blobs that are not here and for which no layer stands, sorted by digest."""
    return [each for each in survey.absent() if not store.is_dropped(each.digest)]


def _why_missing(store: Store, digest: Digest) -> str:
    return "it is missing" if store.blobs.dropped.find(digest) is None else "it was dropped, and its layer is gone"


def finding(store: Store, survey: Survey, kind: Kind, digest: Digest, problem: str) -> Finding:
    """Of a blob or layer: whom it concerns, and what helps."""
    users = tuple(sorted(survey.users.get(digest, ())))
    images = [name for name in users if not name.startswith((CONTAINER, UNTAGGED))]
    if not users:
        remedy = "argosy check --repair (nothing needs it)"
    elif kind == "layer" and images and _is_last_copy(store, digest):
        remedy = f"argosy rmi -f {images[0]} (its compressed form was dropped; nothing brings the layer back)"
    elif kind == "layer":
        remedy = "argosy check --repair (it is made again)"
    elif images:
        remedy = f"argosy check --repair; argosy pull {images[0]}"
    elif users[0].startswith(UNTAGGED):
        remedy = f"argosy rmi -f {users[0].removeprefix(UNTAGGED)}"
    else:
        remedy = "pull the container's image again"
    return Finding(kind=kind, name=str(digest), problem=problem, affects=users, remedy=remedy)


def _is_last_copy(store: Store, diff_id: Digest) -> bool:
    """Whether a layer stands for a blob that no registry is known to have."""
    record = store.stand_ins().get(diff_id)
    return record is not None and not record.origins


def _damaged(verdicts: dict[Suspect, Verdict], kind: Kind) -> list[tuple[Digest, str]]:
    """(digest, what is wrong), sorted."""
    found = [verdict for verdict in verdicts.values() if verdict.problem and verdict.suspect.kind == kind]
    return sorted((verdict.suspect.digest, verdict.problem) for verdict in found)


def _check_tags(store: Store, records: tuple[RefRecord, ...]) -> Iterator[Finding]:
    for name, why in store.refs.damaged():
        yield Finding(
            kind="tag",
            name=name,
            problem=why,
            affects=(_guess(name),),
            remedy=f"argosy check --repair; argosy pull {_guess(name)}",
        )
    for record in records:
        if wrong := disagreement(record, store.blobs):
            name = name_of(record)
            yield Finding(
                kind="tag",
                name=name,
                problem=wrong,
                affects=(name,),
                remedy=f"argosy check --repair; argosy pull {name}",
            )


def disagreement(record: RefRecord, blobs: BlobStore) -> str:
    """Where the record of a tag says something else than the image; damaged images are reported elsewhere."""
    try:
        document = read_manifest(record.manifest, blobs)
    except Error:
        return ""
    if not isinstance(document, Manifest):
        return "it leads to an index where the image should be"
    if document.config.digest != record.image_id:
        return f"it says image {record.image_id.short}, its manifest {document.config.digest.short}"
    return ""


def _check_lists(lists: ListStore) -> Iterator[Finding]:
    for name, why in lists.damaged():
        yield Finding(
            kind="list",
            name=name,
            problem=why,
            affects=(_guess(name),),
            remedy=f"argosy check --repair; argosy manifest create {_guess(name)}",
        )


def _check_containers(containers: ContainerStore, records: tuple[Container, ...]) -> Iterator[Finding]:
    for container_id, why in containers.damaged():
        yield Finding(
            kind="container",
            name=container_id,
            problem=why,
            affects=(f"{CONTAINER}{container_id[:12]}",),
            remedy=f"its files are in {containers.folder(container_id)}/upper; argosy check --repair sets them aside",
        )
    for record in records:
        if containers.has_lost_files(record):
            yield Finding(
                kind="container",
                name=record.id,
                problem=f"its files in {record.local} are gone",
                affects=(f"{CONTAINER}{record.name}",),
                remedy=f"argosy rm {record.name}",
            )


def _guess(file_name: str) -> str:
    """The reference that a record's file is named for."""
    text = file_name.removesuffix(".json")
    for char in "/:@[]<>%":
        text = text.replace(f"%{ord(char):02X}", char)
    return text
