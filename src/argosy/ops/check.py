"""check: everything in the store is read and compared with what it should be; repair removes what lies.

Blobs are the truth: a damaged one is removed and comes back with a pull. Snapshots are made
again from blobs. What a user wrote (a container's upper folder) is never removed, only set aside.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Corrupt, Error, NotFound
from ..oci.config import ImageConfig
from ..oci.descriptor import CONFIG_TYPES, Descriptor
from ..oci.digest import CHUNK, Digest
from ..oci.image import CONFIG_LIMIT, read_blob, read_manifest
from ..oci.manifest import Manifest
from ..store import gc
from . import leftovers
from .containers import is_elsewhere
from .progress import Advanced, Finished, Started, silent

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.records import Container, ContainerStore
    from ..store.refs import RefRecord, RefStore
    from .progress import Progress

_CONTAINER = "container "
_UNTAGGED = "untagged image "
Kind = Literal["blob", "layer", "tag", "container"]


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is damaged or missing."""

    kind: Kind
    #: digest, file name or container id
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

    @property
    def is_sound(self) -> bool:
        return not self.findings


def check(
    *,
    refs: RefStore,
    containers: ContainerStore,
    blobs: BlobStore,
    snapshotter: Snapshotter,
    repair: bool = False,
    progress: Progress = silent,
) -> Report:
    """Verify every blob, reference, layer and record. Safe beside running verbs.

    With *repair* damaged blobs, layers and references are removed, records that
    cannot be read are set aside with their container's files, and rubbish goes.
    """
    work = _Check(refs, containers, blobs, snapshotter, progress)
    report = work.report()
    return work.repair(report) if repair else report


class _Check:
    def __init__(
        self,
        refs: RefStore,
        containers: ContainerStore,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        progress: Progress,
    ) -> None:
        self._refs = refs
        self._containers = containers
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._progress = progress
        self._size = 0
        #: {digest of a blob or a layer: the names that need it}
        self._users: dict[Digest, list[str]] = {}
        #: {needed blob: its descriptor}
        self._needed: dict[Digest, Descriptor] = {}
        #: {damaged document: what is wrong}; found while walking the images
        self._unreadable: dict[Digest, str] = {}

    def report(self) -> Report:
        records, containers = self._refs.list(), self._containers.list()
        self.walk_images(records, containers)
        found = sorted(self._blobs.walk())
        layers = sorted(self._snapshotter.walk())
        findings = [*self._check_blobs(found), *self._missing(), *self._check_tags(records)]
        findings += [*self._check_layers(layers), *self._check_containers(containers)]
        return Report(
            blobs=len(found),
            layers=len(layers),
            tags=len(records),
            containers=len(containers),
            dropped=sum(self._is_dropped(digest) for digest in self._needed),
            size=self._size,
            findings=tuple(findings),
            rubbish=self._rubbish(),
        )

    def walk_images(self, records: tuple[RefRecord, ...], containers: tuple[Container, ...]) -> None:
        """Note what names and containers need."""
        for record in records:
            self._walk_image(record.descriptor, _name(record), whole=False)
            self._walk_image(record.manifest, _name(record), whole=True)
        for container in containers:
            self._walk_image(container.manifest, f"{_CONTAINER}{container.name}", whole=True)

    def repair(self, report: Report) -> Report:
        done = []
        for finding in report.findings:
            try:
                if line := self._mend(finding):
                    done.append(line)
            except Error as error:
                done.append(f"could not mend {finding.kind} {finding.name}: {error.message}")
        idle_before_ns = gc.idle_before_ns(self._blobs)
        idle = (part for part in gc.parts_of(self._blobs) if part.touched_ns < idle_before_ns)
        swept = gc.remove_parts(idle)
        if swept.parts:
            done.append(f"removed {swept.parts} parts of interrupted transfers ({swept.size} bytes)")
        root = self._blobs.root
        done += [f"removed tmp/{each.name}" for each in leftovers.remove(root, leftovers.find(root))]
        return msgspec.structs.replace(report, repaired=tuple(done))

    def _mend(self, finding: Finding) -> str:
        if finding.kind == "blob" and self._blobs.stat(digest := Digest(finding.name)) is not None:
            self._blobs.delete(digest)
            return f"removed blob {digest}"
        if finding.kind == "layer" and not self._is_last_copy(Digest(finding.name)):
            self._snapshotter.remove(Digest(finding.name))
            return f"removed layer {finding.name}"
        if finding.kind == "tag" and finding.name.endswith(".json"):
            self._refs.discard(finding.name)
            return f"removed tag record {finding.name}"
        if finding.kind == "container" and finding.name in dict(self._containers.damaged()):
            return f"set aside container {finding.name[:12]} as {self._containers.set_aside(finding.name)}"
        return ""

    def _walk_image(self, descriptor: Descriptor, name: str, *, whole: bool) -> None:
        """Note who needs which blob and layer. An index needs itself; its platforms only where one is *whole*."""
        self._need(descriptor, name)
        if not (descriptor.is_index or descriptor.is_manifest) or self._blobs.stat(descriptor.digest) is None:
            return
        try:
            document = read_manifest(descriptor, self._blobs)
        except Error as error:
            self._unreadable[descriptor.digest] = _reason(error)
            return
        if not isinstance(document, Manifest):
            return
        for child in document.children() if whole else ():
            self._need(child, name)
        if whole and document.config.media_type in CONFIG_TYPES:
            self._walk_config(document.config, name)

    def _walk_config(self, descriptor: Descriptor, name: str) -> None:
        try:
            config = ImageConfig.parse(read_blob(descriptor, self._blobs, limit=CONFIG_LIMIT))
        except NotFound:
            return
        except Error as error:
            self._unreadable[descriptor.digest] = _reason(error)
            return
        for diff_id in config.diff_ids:
            self._used(diff_id, name)

    def _need(self, descriptor: Descriptor, name: str) -> None:
        self._needed[descriptor.digest] = descriptor
        self._used(descriptor.digest, name)

    def _used(self, digest: Digest, name: str) -> None:
        users = self._users.setdefault(digest, [])
        if name not in users:
            users.append(name)

    def _check_blobs(self, found: list[Digest]) -> Iterator[Finding]:
        for digest in found:
            problem = self._read_blob(digest) or self._unreadable.get(digest, "")
            if problem:
                yield self._finding("blob", digest, problem)

    def _read_blob(self, digest: Digest) -> str:
        """What is wrong with a blob; empty when nothing is, also when somebody removed it meanwhile."""
        size = self._blobs.stat(digest)
        if size is None:
            return ""
        expected = self._needed.get(digest)
        if expected is not None and expected.size != size:
            return f"it has {size} of {expected.size} bytes"
        descriptor = expected or Descriptor(media_type="", digest=digest, size=size)
        self._progress(Started(digest.short, size, "Checking"))
        try:
            with self._blobs.open(descriptor) as stream:
                while chunk := stream.read(CHUNK):
                    self._size += len(chunk)
                    self._progress(Advanced(digest.short, len(chunk)))
        except NotFound:
            return ""
        except Error as error:
            return _reason(error)
        self._progress(Finished(digest.short, "Checked"))
        return ""

    def _missing(self) -> Iterator[Finding]:
        missing = [digest for digest in sorted(self._needed) if self._is_missing(digest)]
        if missing:
            yield from self._missed_now(missing)

    def _missed_now(self, missing: list[Digest]) -> Iterator[Finding]:
        """Looks once more while nothing can be deleted: a name may have gone, with its blobs, since it was read."""
        with self._blobs.publishing():
            now = _Check(self._refs, self._containers, self._blobs, self._snapshotter, silent)
            now.walk_images(self._refs.list(), self._containers.list())
            here = frozenset(self._blobs.walk())  # a folder's list is true where NFS remembers that a file was absent
            for digest in missing:
                if digest in now._needed and digest not in here and not self._is_dropped(digest):
                    dropped = self._blobs.dropped.find(digest) is not None
                    problem = "it was dropped, and its layer is gone" if dropped else "it is missing"
                    yield self._finding("blob", digest, problem)

    def _is_missing(self, digest: Digest) -> bool:
        return self._blobs.stat(digest) is None and not self._is_dropped(digest)

    def _is_dropped(self, digest: Digest) -> bool:
        """Whether a blob is absent and its layer stands for it."""
        if self._blobs.stat(digest) is not None:
            return False
        record = self._blobs.dropped.find(digest)
        return record is not None and self._snapshotter.has(record.diff_id)

    def _is_last_copy(self, diff_id: Digest) -> bool:
        """Whether a layer stands for a blob that no registry has: damaged as it is, nothing replaces it."""
        gone = (digest for digest in self._blobs.dropped.walk() if self._blobs.stat(digest) is None)
        found = map(self._blobs.dropped.find, gone)
        return any(record is not None and record.diff_id == diff_id and not record.origins for record in found)

    def _check_tags(self, records: tuple[RefRecord, ...]) -> Iterator[Finding]:
        for name, why in self._refs.damaged():
            yield Finding(
                kind="tag",
                name=name,
                problem=why,
                affects=(_guess(name),),
                remedy=f"argosy check --repair; argosy pull {_guess(name)}",
            )
        for record in records:
            if wrong := self._disagreement(record):
                name = _name(record)
                yield Finding(kind="tag", name=name, problem=wrong, affects=(name,), remedy=f"argosy pull {name}")

    def _disagreement(self, record: RefRecord) -> str:
        """Where the record of a tag says something else than the image; damaged images are reported elsewhere."""
        try:
            document = read_manifest(record.manifest, self._blobs)
        except Error:
            return ""
        if not isinstance(document, Manifest):
            return "it leads to an index where the image should be"
        if document.config.digest != record.image_id:
            return f"it says image {record.image_id.short}, its manifest {document.config.digest.short}"
        return ""

    def _check_layers(self, layers: list[Digest]) -> Iterator[Finding]:
        for diff_id in layers:
            self._progress(Started(diff_id.short, None, "Checking layer"))
            try:
                self._snapshotter.verify(diff_id)
            except NotFound:  # removed meanwhile
                continue
            except Error as error:
                yield self._finding("layer", diff_id, _reason(error))
            self._progress(Finished(diff_id.short, "Checked"))

    def _check_containers(self, containers: tuple[Container, ...]) -> Iterator[Finding]:
        for container_id, why in self._containers.damaged():
            folder = self._containers.folder(container_id)
            yield Finding(
                kind="container",
                name=container_id,
                problem=why,
                affects=(f"{_CONTAINER}{container_id[:12]}",),
                remedy=f"its files are in {folder}/upper; argosy check --repair sets them aside",
            )
        for record in containers:
            if record.local and not is_elsewhere(record) and _lost_files(record):
                yield Finding(
                    kind="container",
                    name=record.id,
                    problem=f"its files in {record.local} are gone",
                    affects=(f"{_CONTAINER}{record.name}",),
                    remedy=f"argosy rm {record.name}",
                )

    def _finding(self, kind: Kind, digest: Digest, problem: str) -> Finding:
        users = tuple(sorted(self._users.get(digest, ())))
        images = [name for name in users if not name.startswith((_CONTAINER, _UNTAGGED))]
        if not users:
            remedy = "argosy check --repair (nothing needs it)"
        elif kind == "layer" and images and self._is_last_copy(digest):
            remedy = f"argosy rmi -f {images[0]} (its compressed form was dropped; nothing brings the layer back)"
        elif kind == "layer":
            remedy = "argosy check --repair (it is made again when needed)"
        elif images:
            remedy = f"argosy check --repair; argosy pull {images[0]}"
        elif users[0].startswith(_UNTAGGED):
            remedy = f"argosy rmi -f {users[0].removeprefix(_UNTAGGED)}"
        else:
            remedy = "pull the container's image again"
        return Finding(kind=kind, name=str(digest), problem=problem, affects=users, remedy=remedy)

    def _rubbish(self) -> tuple[str, ...]:
        root = self._blobs.root
        parts = [os.path.relpath(path, root) for path in gc.unfinished(self._blobs)]
        return (*parts, *(f"tmp/{name}" for name in leftovers.names(root)))


def _lost_files(record: Container) -> bool:
    """Whether the writable layer of a container that has run is gone, as systemd empties /var/tmp after a month."""
    return record.status == "exited" and not os.path.isdir(f"{record.local}/upper")


def _name(record: RefRecord) -> str:
    return f"{_UNTAGGED}{record.image_id.short}" if record.is_untagged else record.reference.familiar()


def _reason(error: Error) -> str:
    return error.context if isinstance(error, Corrupt) and error.context else error.message


def _guess(file_name: str) -> str:
    """The reference that a record's file is named for."""
    text = file_name.removesuffix(".json")
    for char in "/:@[]<>%":
        text = text.replace(f"%{ord(char):02X}", char)
    return text
