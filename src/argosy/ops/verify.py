"""Blobs and layers read whole and compared with their names, on all cores: hashing is what takes the time."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Literal, cast

import msgspec

from ..errors import Corrupt, Error, Exhausted, InvalidInput, NotFound, Unauthorized, Unsupported
from ..layer.compression import decompressed
from ..linux.files import reporting
from ..oci.descriptor import Descriptor
from ..oci.digest import CHUNK, Digest
from .parallel import in_processes
from .progress import Advanced, Finished, Started, Warned
from .survey import reason

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import BinaryIO

    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .parallel import Check
    from .progress import Event, Progress
    from .survey import Survey


class Suspect(msgspec.Struct, frozen=True, kw_only=True):
    """A blob or a layer that is to be read."""

    kind: Literal["blob", "layer"]
    digest: Digest
    #: bytes, about
    size: int


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What reading it has shown. *problem* is empty when it is sound, or was removed meanwhile."""

    suspect: Suspect
    problem: str = ""
    #: bytes read
    size: int = 0


def suspects(blobs: BlobStore, snapshotter: Snapshotter) -> list[Suspect]:
    """All blobs and layers of a store, the largest first."""
    found = [Suspect(kind="blob", digest=digest, size=_blob_size(digest, blobs)) for digest in blobs.walk()]
    found += [Suspect(kind="layer", digest=each, size=_layer_size(each, snapshotter)) for each in snapshotter.walk()]
    return sorted(found, key=lambda suspect: (-suspect.size, suspect.kind, suspect.digest))


def verify(
    found: Iterable[Suspect], *, blobs: BlobStore, snapshotter: Snapshotter, survey: Survey, progress: Progress
) -> dict[Suspect, Verdict]:
    """Read all of *found*, several at once. A blob is judged by its digest alone, whatever sizes images say."""
    verdicts: dict[Suspect, Verdict] = {}

    def work(suspect: Suspect, check: Check, progress: Progress) -> None:
        judge = _judge_blob if suspect.kind == "blob" else _judge_layer
        verdict = judge(suspect, blobs, snapshotter, survey, check, progress)
        cast("Callable[[Verdict], None]", progress)(verdict)  # what is no Advanced passes as it is

    def hear(event: Event | Verdict) -> None:
        if isinstance(event, Verdict):
            verdicts[event.suspect] = event
        else:
            progress(event)

    in_processes(work, found, progress=hear)
    return verdicts


def _judge_blob(
    suspect: Suspect, blobs: BlobStore, snapshotter: Snapshotter, survey: Survey, check: Check, progress: Progress
) -> Verdict:
    digest, read = suspect.digest, 0
    progress(Started(digest.short, suspect.size, "Checking"))
    try:
        with reporting("read", blobs.path(digest)):
            descriptor = Descriptor(media_type="", digest=digest, size=blobs.stat(digest) or 0)
            with blobs.open(descriptor) as stream:
                while chunk := stream.read(CHUNK):
                    check()
                    read += len(chunk)
                    progress(Advanced(digest.short, len(chunk)))
    except NotFound:
        return Verdict(suspect=suspect)
    except Error as error:
        return Verdict(suspect=suspect, problem=_size_problem(digest, blobs, survey) or reason(error), size=read)
    progress(Finished(digest.short, "Checked"))
    return Verdict(suspect=suspect, problem=survey.unreadable.get(digest, ""), size=read)


def _size_problem(digest: Digest, blobs: BlobStore, survey: Survey) -> str:
    """Of a damaged blob: how much of it is missing, which says more than a digest."""
    expected, path = survey.needed.get(digest), blobs.path(digest)
    if expected is None or not os.path.isfile(path) or os.path.getsize(path) == expected.size:
        return ""
    return f"it has {os.path.getsize(path)} of {expected.size} bytes"


def _judge_layer(
    suspect: Suspect, blobs: BlobStore, snapshotter: Snapshotter, survey: Survey, check: Check, progress: Progress
) -> Verdict:
    digest = suspect.digest
    progress(Started(digest.short, None, "Checking layer"))

    def open_tar() -> BinaryIO:
        for descriptor in survey.blobs_of.get(digest, ()):
            if blobs.stat(descriptor.digest) == descriptor.size:
                return decompressed(blobs.open(descriptor))
        raise NotFound(f"no blob of layer {digest} is here", code="blob-unknown")

    try:
        with reporting("read", f"layer {digest}"):
            snapshotter.verify(digest, open_tar)
    except NotFound:  # removed meanwhile
        return Verdict(suspect=suspect)
    except (Corrupt, InvalidInput) as error:  # the latter: something else where a file should be
        return Verdict(suspect=suspect, problem=reason(error))
    except (Exhausted, Unsupported, Unauthorized) as error:
        progress(Warned(f"layer {digest.short} could not be compared with its blob: {error.message}: {error.context}"))
    progress(Finished(digest.short, "Checked"))
    return Verdict(suspect=suspect, size=suspect.size)


def _blob_size(digest: Digest, blobs: BlobStore) -> int:
    try:
        return blobs.stat(digest) or 0
    except Error:
        return 0


def _layer_size(diff_id: Digest, snapshotter: Snapshotter) -> int:
    try:
        return snapshotter.usage(diff_id)
    except (NotFound, Corrupt):
        return 0
