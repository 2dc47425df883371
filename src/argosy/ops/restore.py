"""Blobs that were dropped come back when somebody needs their bytes: made of the layer's tar, or fetched again."""

from __future__ import annotations

import os
import time
from functools import partial
from typing import TYPE_CHECKING

from ..errors import Cancelled, Error, Exhausted, NotFound
from ..layer import recipes
from ..layer.recipes import Recipe
from ..linux.lifetimes import boot_id
from ..store import unsettled
from ..store.unsettled import Mark
from .progress import Advanced, Finished, Started, silent

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.image import Layer
    from ..oci.reference import Reference
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.dropped import Dropped
    from .compressed import Connect
    from .parallel import Check
    from .progress import Progress


def is_held(layer: Layer, *, blobs: BlobStore, snapshotter: Snapshotter) -> bool:
    """Whether nothing of a layer must be fetched: its blob is here, or was dropped and the layer stands for it.

    Either is claimed, so that no sweep takes it from whoever is making an image of it.
    """
    if blobs.claim(layer.descriptor):
        return True
    with blobs.publishing():
        dropped = blobs.dropped.claim(layer.descriptor)
    return dropped and snapshotter.has(layer.diff_id)


_CONNECTIONS = 4  # at most, for one large blob


class Whole:
    """A ContentSource: the store as if nothing had been dropped. What is wanted comes back into it, and stays.

    *wanted_for* names the image, for people.
    """

    def __init__(
        self,
        wanted_for: str,
        *,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        connect: Connect,
        progress: Progress = silent,
    ) -> None:
        self._wanted_for = wanted_for
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._connect = connect
        self._progress = progress

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """As BlobStore.open. Raises NotFound (blob-not-restorable) too, which says why and what helps."""
        self.restore(descriptor)
        return self._blobs.open(descriptor, offset=offset)

    def restore(self, descriptor: Descriptor, check: Check = lambda: None) -> None:
        """Make sure that a dropped blob is here again; nothing to do for others. Raises as open."""
        if self._blobs.stat(descriptor.digest) is not None:
            return
        record = self._blobs.dropped.find(descriptor.digest)
        if record is not None:
            self._restore(record, check)

    def _restore(self, record: Dropped, check: Check) -> None:
        descriptor, problems = record.descriptor, []
        for way in self._ways(record):
            try:
                self._progress(Started(descriptor.digest.short, descriptor.size, "Restoring"))
                way(check)
                self._progress(Finished(descriptor.digest.short, "Restored"))
                return
            except (Cancelled, Exhausted):
                raise
            except Error as error:
                problems.append(": ".join(filter(None, (error.message, error.context))))
        raise _lost(record, self._wanted_for, problems)

    def _ways(self, record: Dropped) -> Iterator[partial[None]]:
        """The cheapest first."""
        if record.recipe:
            yield partial(self._make, record)
        for origin in record.origins:
            yield partial(self._fetch, record.descriptor, origin)

    def _make(self, record: Dropped, check: Check) -> None:
        tar = self._snapshotter.open_tar(record.diff_id)
        if tar is None:
            raise NotFound(f"layer {record.diff_id} has no tar", code="layer-without-tar")
        with tar, self._blobs.ingest(record.descriptor) as part:
            for data in recipes.make(Recipe.parse(record.recipe), tar, size=os.fstat(tar.fileno()).st_size):
                check()
                part.write(data)
                self._progress(Advanced(record.descriptor.digest.short, len(data)))
            part.commit()

    def _fetch(self, descriptor: Descriptor, origin: Reference, check: Check) -> None:
        from .bring import Bringer

        unsettled.begin(self._blobs.root, Mark(boot=boot_id(), blobs=(descriptor.digest,)))
        source = self._connect(origin)
        Bringer(repository=source, blobs=self._blobs, snapshotter=self._snapshotter, connections=_CONNECTIONS).blob(
            descriptor, check, self._progress
        )


def _lost(record: Dropped, wanted_for: str, problems: list[str]) -> NotFound:
    """What was tried in vain, and what would help."""
    recipe = Recipe.parse(record.recipe) if record.recipe else None
    if recipe is not None and not recipe.is_current:
        hint = f"install {recipe.title.partition(',')[0]}, which made it, and try again"
    elif record.origins:
        hint = f"try again when {record.origins[0].registry} answers, or argosy login {record.origins[0].registry}"
    else:
        hint = "argosy check tells whether the layer is damaged"
    day = time.strftime("%Y-%m-%d", time.gmtime(record.dropped_ns / 1e9))
    return NotFound(
        f"the compressed form of a layer of {wanted_for} cannot be had again: {record.descriptor.digest}",
        code="blob-not-restorable",
        context="\n".join((f"it was dropped to save space on {day}; the image itself runs", *problems)),
        hint=hint,
    )
