"""An image comes from a registry: resolve, select, fetch what is missing, unpack, and last of all name it.

Until the last step the old image stands under the name, whatever fails; what has
arrived stays and is not transferred again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, NotFound, Unsupported
from ..oci import manifest as manifests
from ..oci.config import ImageConfig
from ..oci.descriptor import CONFIG_TYPES, Descriptor
from ..oci.image import CONFIG_LIMIT, Layer, read_blob
from ..oci.manifest import MANIFEST_LIMIT, Index, Manifest
from ..oci.platform import Platform
from ..remote.messages import CHUNK
from ..store import gc
from ..store.refs import RefRecord, Summary
from .parallel import in_parallel
from .progress import Advanced, Finished, Started, Warned, silent
from .unpack import ensure_layer

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import BinaryIO

    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore, Ingest
    from ..store.refs import RefStore
    from .parallel import Check
    from .progress import Progress

_DEEPEST = 4  # indexes within indexes; real ones have one


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull ended with."""

    record: RefRecord
    #: false when the name meant this very image before
    is_new: bool


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or index, with the descriptor under which it was verified."""

    descriptor: Descriptor
    content: Manifest | Index


def pull(
    reference: Reference,
    *,
    repository: Repository,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    platform: Platform | None = None,
    all_platforms: bool = False,
    progress: Progress = silent,
) -> Pulled:
    """Fetch the image that *reference* names for *platform* (this machine's by default), unpack and name it.

    With *all_platforms* the content of every platform is fetched, so that the index
    can be pushed again; only the chosen one is unpacked. When all is here already,
    one manifest is transferred.

    Raises NotFound (tag-unknown, platform-not-in-index …), Corrupt, Unauthorized,
    Unavailable, Unsupported (not-an-image), Exhausted. No name changes then.
    """
    work = _Pull(reference, repository, blobs, snapshotter, progress)
    resolved = repository.resolve(reference)
    top = _Document(descriptor=resolved.descriptor, content=resolved.document)
    path = work.select(top, platform or Platform.host())
    manifest = work.image_manifest(path[-1])
    config = work.config(manifest, platform)
    layers = work.layers(manifest, config)
    work.fetch_and_unpack(layers)
    documents = tuple(work.descendants(top)) if all_platforms else path
    if all_platforms:
        work.fetch_rest(documents)
    summary = Summary(
        manifest=path[-1].descriptor,
        image_id=manifest.config.digest,
        created=config.created,
        size=sum(work.usage(layer) for layer in layers),
    )
    return work.publish(documents, summary, refs)


class _Pull:
    """The steps of one pull, in order; each may be repeated without harm."""

    def __init__(
        self,
        reference: Reference,
        repository: Repository,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        progress: Progress,
    ) -> None:
        self._reference = reference
        self._name = reference.familiar()
        self._repository = repository
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._progress = progress

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """A ContentSource: what is here is not fetched again."""
        nearest = self._blobs if self._blobs.stat(descriptor.digest) == descriptor.size else self._repository
        return nearest.open(descriptor, offset=offset)

    def select(self, top: _Document, platform: Platform) -> tuple[_Document, ...]:
        """From the document that the name means down to the manifest for *platform*."""
        path = [top]
        while isinstance(index := path[-1].content, Index):
            if len(path) > _DEEPEST:
                raise Corrupt(f"{self._name} nests indexes too deeply", code="index-too-deep")
            path.append(self._document(index.select(platform, name=self._name)))
        return tuple(path)

    def image_manifest(self, document: _Document) -> Manifest:
        """The manifest of an image, not of one of the other things that registries hold."""
        manifest = document.content
        assert isinstance(manifest, Manifest)
        kind = manifest.artifact_type or manifest.config.media_type
        strange = [layer.media_type for layer in manifest.layers if not layer.is_layer]
        if manifest.config.media_type not in CONFIG_TYPES or strange:
            raise Unsupported(
                f"{self._name} is not a container image",
                code="not-an-image",
                context=f"it is an artifact of type {kind}" + (f" with layers of type {strange[0]}" if strange else ""),
            )
        return manifest

    def config(self, manifest: Manifest, platform: Platform | None) -> ImageConfig:
        """The config, now in the store. Raises NotFound when *platform* was asked for and this is another."""
        if manifest.config.size > CONFIG_LIMIT:
            raise Corrupt(
                f"the config of {self._name} is too large",
                code="config-too-large",
                context=f"{manifest.config.size} bytes; the limit is {CONFIG_LIMIT}",
            )
        self._fetch(manifest.config, lambda: None, silent)
        with self._blaming(f"its config {manifest.config.digest}"):
            config = ImageConfig.parse(read_blob(manifest.config, self._blobs, limit=CONFIG_LIMIT))
        wanted = platform or Platform.host()
        if not wanted.matches(config.platform):
            self._tell_of_other_platform(config.platform, wanted, asked=platform is not None)
        return config

    def layers(self, manifest: Manifest, config: ImageConfig) -> tuple[Layer, ...]:
        """Lowest first. Raises Corrupt when manifest and config count them differently."""
        if len(manifest.layers) != len(config.diff_ids):
            raise Corrupt(
                f"{self._name} is damaged",
                code="layers-mismatch",
                context=f"its manifest has {len(manifest.layers)} layers, its config {len(config.diff_ids)}",
            )
        pairs = zip(manifest.layers, config.diff_ids, strict=True)
        return tuple(Layer(descriptor, diff_id, self._blobs) for descriptor, diff_id in pairs)

    def fetch_and_unpack(self, layers: tuple[Layer, ...]) -> None:
        """Each layer is applied as soon as it is here, while others still arrive; the largest come first."""
        distinct = {(layer.descriptor.digest, layer.diff_id): layer for layer in layers}
        in_parallel(self._fetch_and_unpack, sorted(distinct.values(), key=lambda layer: -layer.descriptor.size))

    def usage(self, layer: Layer) -> int:
        """Bytes of a layer that is unpacked; once more if it was removed while others of its image were on their way.

        Until the name is set nothing tells a prune or rmi that this layer is wanted.
        """
        ensure_layer(layer, snapshotter=self._snapshotter, blobs=self._blobs, progress=self._progress)
        return self._snapshotter.usage(layer.diff_id)

    def descendants(self, top: _Document, depth: int = 0) -> Iterator[_Document]:
        """*top* and every document below it, parents first."""
        yield top
        if depth > _DEEPEST:
            raise Corrupt(f"{self._name} nests indexes too deeply", code="index-too-deep")
        if isinstance(top.content, Index):
            for child in top.content.manifests:
                if child.is_manifest or child.is_index:
                    yield from self.descendants(self._document(child), depth + 1)

    def fetch_rest(self, documents: Iterable[_Document]) -> None:
        """The content of the other platforms."""
        wanted = {child.digest: child for document in documents for child in _blobs_of(document)}

        def work(descriptor: Descriptor, check: Check) -> None:
            if self._fetch(descriptor, check, self._progress):
                self._progress(Finished(descriptor.digest.short, "Download complete"))

        in_parallel(work, sorted(wanted.values(), key=lambda descriptor: -descriptor.size))

    def publish(self, documents: tuple[_Document, ...], summary: Summary, refs: RefStore) -> Pulled:
        """Children before parents, the name last; nothing is written when the name means this already."""
        for document in reversed(documents):
            self._blobs.put(document.content.raw, document.descriptor.media_type)
        name = self._reference
        if name.digest is not None:  # the tag beside a digest is for people
            name = name.with_digest(name.digest)
        before, descriptor = refs.find_exact(name), documents[0].descriptor
        is_new = before is None or before.descriptor != descriptor or before.summary != summary
        needs = [document.descriptor for document in documents]
        needs += [child for document in documents for child in _blobs_of(document)]
        if before is not None and not is_new:
            gc.settle(needs, blobs=self._blobs)
            return Pulled(record=before, is_new=False)
        record = gc.publish(name, descriptor, summary=summary, needs=needs, blobs=self._blobs, refs=refs)
        return Pulled(record=record, is_new=is_new)

    def _document(self, descriptor: Descriptor) -> _Document:
        raw = read_blob(descriptor, self, limit=MANIFEST_LIMIT)
        with self._blaming(f"its manifest {descriptor.digest}"):
            return _Document(descriptor=descriptor, content=manifests.parse(raw, descriptor.media_type))

    @contextmanager
    def _blaming(self, part: str) -> Iterator[None]:
        """Whoever parses a document does not know whose it is."""
        try:
            yield
        except Corrupt as error:
            facts = f"{part}: {error.message}" + (f": {error.context}" if error.context else "")
            raise Corrupt(f"{self._name} is not an image", code=error.code, context=facts, hint=error.hint) from error

    def _tell_of_other_platform(self, found: Platform, wanted: Platform, *, asked: bool) -> None:
        if asked:
            raise NotFound(
                f"{self._name} is not for {wanted}",
                code="platform-not-in-index",
                context=f"it has one platform, {found}",
                hint=f"argosy pull --platform {found} {self._name}",
            )
        self._progress(Warned(f"{self._name} is for {found}; this machine is {wanted}"))

    def _fetch_and_unpack(self, layer: Layer, check: Check) -> None:
        name = layer.descriptor.digest.short
        fetched = self._fetch(layer.descriptor, check, self._progress)
        if not fetched and self._snapshotter.has(layer.diff_id):
            self._progress(Finished(name, "Already exists"))
            return
        if fetched:
            self._progress(Finished(name, "Download complete"))
        ensure_layer(layer, snapshotter=self._snapshotter, blobs=self._blobs, progress=self._progress, check=check)
        self._progress(Finished(name, "Pull complete"))

    def _fetch(self, descriptor: Descriptor, check: Check, progress: Progress) -> bool:
        """Bring a blob into the store; False when it was there.

        A part that an earlier attempt left may be damaged (a power cut); then all of it is fetched once more.
        """
        if self._blobs.claim(descriptor):
            return False
        with self._blobs.ingest(descriptor) as part:
            resumed = part.offset > 0
            try:
                self._receive(descriptor, part, check, progress)
                return True
            except Corrupt:
                if not resumed:
                    raise
        with self._blobs.ingest(descriptor) as part:
            self._receive(descriptor, part, check, progress)
        return True

    def _receive(self, descriptor: Descriptor, part: Ingest, check: Check, progress: Progress) -> None:
        name = descriptor.digest.short
        progress(Started(name, descriptor.size, "Downloading"))
        progress(Advanced(name, part.offset))
        if not part.complete:
            with self._repository.stream(descriptor, offset=part.offset) as stream:
                while data := stream.read(CHUNK):
                    check()
                    part.write(data)
                    progress(Advanced(name, len(data)))
        part.commit()


def _blobs_of(document: _Document) -> tuple[Descriptor, ...]:
    return document.content.children() if isinstance(document.content, Manifest) else ()
