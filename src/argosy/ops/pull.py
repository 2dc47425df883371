"""An image comes from a registry: resolve, select, fetch what is missing, unpack, and last of all name it.

Until the last step the old image stands under the name, whatever fails; what has
arrived stays and is not transferred again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt, Unsupported
from ..linux.lifetimes import boot_id
from ..oci import manifest as manifests
from ..oci.config import ImageConfig
from ..oci.descriptor import CONFIG_TYPES, Descriptor
from ..oci.image import CONFIG_LIMIT, Layer, read_blob
from ..oci.manifest import MANIFEST_LIMIT, Index, Manifest
from ..oci.platform import Platform
from ..store import gc, unsettled
from ..store.refs import RefRecord, Summary
from ..store.unsettled import Mark
from .bring import Bringer
from .parallel import in_parallel, in_processes
from .progress import Finished, Waiting, Warned, silent
from .restore import is_held
from .settle import settle
from .unpack import ensure_layer, largest_first

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator
    from typing import BinaryIO

    from ..oci.digest import Digest
    from ..oci.reference import Reference
    from ..remote.repository import Repository
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from ..store.refs import RefStore
    from .fit import Fit
    from .parallel import Check
    from .progress import Progress

_DEEPEST = 4  # indexes within indexes; real ones have one
CONNECTIONS = 4  # for one large layer; several layers come at once


class Pulled(msgspec.Struct, frozen=True, kw_only=True):
    """What a pull ended with."""

    record: RefRecord
    #: false when the name meant this very image before
    is_new: bool


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    """A manifest or index, with the descriptor under which it was verified."""

    descriptor: Descriptor
    content: Manifest | Index


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """What a reference means in its registry: all that is known before a layer moves."""

    #: index and manifests down to the image's, with those of other platforms if they were asked for; parents first
    documents: tuple[_Document, ...]
    #: under which the image's own manifest was verified
    descriptor: Descriptor
    manifest: Manifest
    config: ImageConfig
    #: lowest first
    layers: tuple[Layer, ...]
    #: blobs of the other platforms
    rest: tuple[Descriptor, ...]


def pull(
    reference: Reference,
    *,
    repository: Repository,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    platform: Platform | None = None,
    all_platforms: bool = False,
    fit: Callable[[], Fit] | None = None,
    force: bool = False,
    progress: Progress = silent,
) -> Pulled:
    """Fetch the image that *reference* names for *platform* (this machine's by default), unpack and name it.

    With *all_platforms* the content of every platform is fetched, so that the index
    can be pushed again; only the chosen one is unpacked. When all is here already,
    one manifest is transferred. Otherwise *fit* is made, and judges the image before
    its layers move. With *force* another platform than the one asked for will do.

    Raises NotFound (tag-unknown, platform-not-in-index …), Corrupt, Unauthorized,
    Unavailable, Unsupported (not-an-image), Exhausted, what *fit* raises. No name changes then.
    """
    settle(blobs=blobs, refs=refs, snapshotter=snapshotter)
    work = _Pull(reference, repository, blobs, refs, snapshotter, progress)
    found = work.find(platform, all_platforms=all_platforms, force=force)
    if fit is not None and work.lacks(found):
        fit().check(reference.familiar(), found, repository.tail, progress)
    work.begin(found.documents, found.layers)
    work.bring(found.layers)
    if all_platforms:
        work.bring_rest(found.documents)
    work.keep(found.documents, found.manifest, found.config)
    summary = Summary(
        manifest=found.descriptor,
        image_id=found.manifest.config.digest,
        created=found.config.created,
        size=sum(work.usage(layer) for layer in found.layers),
    )
    return work.publish(found.documents, summary)


def find(
    reference: Reference,
    *,
    repository: Repository,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    platform: Platform | None = None,
    all_platforms: bool = False,
    force: bool = False,
    progress: Progress = silent,
) -> Found:
    """What a pull would bring; nothing is written. Raises as pull does up to there."""
    work = _Pull(reference, repository, blobs, refs, snapshotter, progress)
    return work.find(platform, all_platforms=all_platforms, force=force)


class _Pull:
    """The steps of one pull, in order; each may be repeated without harm."""

    def __init__(
        self,
        reference: Reference,
        repository: Repository,
        blobs: BlobStore,
        refs: RefStore,
        snapshotter: Snapshotter,
        progress: Progress,
    ) -> None:
        self._reference = reference
        self._name = reference.familiar()
        self._repository = repository
        self._blobs = blobs
        self._refs = refs
        self._snapshotter = snapshotter
        self._progress = progress
        #: blobs that were dropped while their layers stay: not fetched again
        self._dropped: set[Digest] = set()
        self._bringer = Bringer(repository=repository, blobs=blobs, snapshotter=snapshotter, connections=CONNECTIONS)

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        """A ContentSource: what is here is not fetched again."""
        nearest = self._blobs if self._blobs.stat(descriptor.digest) == descriptor.size else self._repository
        return nearest.open(descriptor, offset=offset)

    def find(self, platform: Platform | None, *, all_platforms: bool, force: bool) -> Found:
        """See the function of this name. Another platform than the one asked for is an error, unless by *force*."""
        resolved = self._repository.resolve(self._reference)
        top = _Document(descriptor=resolved.descriptor, content=resolved.document)
        path = self.select(top, platform or Platform.host())
        manifest = self.image_manifest(path[-1])
        config = self.config(manifest, platform, force=force)
        layers = self.layers(manifest, config)
        documents = tuple(self.descendants(top)) if all_platforms else path
        rest = [child for document in documents if document.content != manifest for child in _blobs_of(document)]
        return Found(
            documents=documents,
            descriptor=path[-1].descriptor,
            manifest=manifest,
            config=config,
            layers=layers,
            rest=tuple(rest),
        )

    def lacks(self, found: Found) -> bool:
        """Whether a layer, or a blob of another platform, is still to come."""
        blobs = (*found.rest, *(layer.descriptor for layer in found.layers))
        return any(self._blobs.stat(blob.digest) != blob.size for blob in blobs) or not all(
            self._snapshotter.has(layer.diff_id) for layer in found.layers
        )

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

    def config(self, manifest: Manifest, platform: Platform | None, *, force: bool) -> ImageConfig:
        """The config. Raises NotFound when *platform* was asked for and this is another."""
        if manifest.config.size > CONFIG_LIMIT:
            raise Corrupt(
                f"the config of {self._name} is too large",
                code="config-too-large",
                context=f"{manifest.config.size} bytes; the limit is {CONFIG_LIMIT}",
            )
        raw = read_blob(manifest.config, self, limit=CONFIG_LIMIT)
        with self._blaming(f"its config {manifest.config.digest}"):
            config = ImageConfig.parse(raw)
        wanted = platform or Platform.host()
        if not wanted.matches(config.platform):
            if platform is not None and not force:
                from .fit import other_platform

                raise other_platform(self._name, config.platform, wanted)
            this = f"{wanted} was asked for" if platform is not None else f"this machine is {wanted}"
            self._progress(Warned(f"{self._name} is for {config.platform}; {this}"))
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

    def begin(self, documents: tuple[_Document, ...], layers: tuple[Layer, ...]) -> None:
        """Say what is going to be published without being synced; nothing when all is here and named already."""
        self._blobs.begin()
        self._dropped |= {
            layer.descriptor.digest
            for layer in layers
            if self._blobs.stat(layer.descriptor.digest) is None
            and is_held(layer, blobs=self._blobs, snapshotter=self._snapshotter)
        }
        blobs = {child.digest: child for child in self._needs(documents) if child.digest not in self._dropped}
        absent = [child.digest for child in blobs.values() if self._blobs.stat(child.digest) != child.size]
        missing = [layer.diff_id for layer in layers if not self._snapshotter.has(layer.diff_id)]
        before, target = self._refs.find_exact(self._own_name), documents[0].descriptor.digest
        if absent or missing or before is None or before.descriptor.digest != target:
            mark = Mark(
                boot=boot_id(),
                blobs=tuple(absent),
                layers=tuple(missing),
                name=str(self._own_name),
                target=target,
                before=before,
            )
            unsettled.begin(self._blobs.root, mark)

    def bring(self, layers: tuple[Layer, ...]) -> None:
        """All layers, several at once, each applied while it arrives; the largest begin first."""
        distinct = {(layer.descriptor.digest, layer.diff_id): layer for layer in layers}
        absent = [layer for layer in distinct.values() if not self._is_here(layer)]
        for layer in absent:
            self._progress(Waiting(layer.descriptor.digest.short, layer.descriptor.size))
        in_processes(self._bringer.layer, largest_first(absent), progress=self._progress)

    def _is_here(self, layer: Layer) -> bool:
        held = layer.descriptor.digest in self._dropped or self._blobs.claim(layer.descriptor)
        if not (held and self._snapshotter.has(layer.diff_id)):
            return False
        self._progress(Finished(layer.descriptor.digest.short, "Already exists"))
        return True

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

    def bring_rest(self, documents: Iterable[_Document]) -> None:
        """The content of the other platforms."""
        children = (child for document in documents for child in _blobs_of(document))
        wanted = {child.digest: child for child in children if child.digest not in self._dropped}

        def work(descriptor: Descriptor, check: Check) -> None:
            self._bringer.blob(descriptor, check, self._progress)

        in_parallel(work, sorted(wanted.values(), key=lambda descriptor: -descriptor.size))

    def keep(self, documents: tuple[_Document, ...], manifest: Manifest, config: ImageConfig) -> None:
        """The documents, children before parents."""
        self._blobs.keep(manifest.config, config.raw, sync=False)
        for document in reversed(documents):
            self._blobs.keep(document.descriptor, document.content.raw, sync=False)

    def publish(self, documents: tuple[_Document, ...], summary: Summary) -> Pulled:
        """The name last; nothing is written when it means this already."""
        name = self._own_name
        before, descriptor = self._refs.find_exact(name), documents[0].descriptor
        is_new = before is None or before.descriptor != descriptor or before.summary != summary
        needs = self._needs(documents)
        if before is not None and not is_new:
            gc.settle(needs, blobs=self._blobs)
            return Pulled(record=before, is_new=False)
        record = gc.publish(
            name, descriptor, summary=summary, needs=needs, blobs=self._blobs, refs=self._refs, sync=False
        )
        return Pulled(record=record, is_new=is_new)

    @property
    def _own_name(self) -> Reference:
        """What is set: of a tag and a digest the digest, for the tag beside it is for people."""
        digest = self._reference.digest
        return self._reference if digest is None else self._reference.with_digest(digest)

    def _needs(self, documents: tuple[_Document, ...]) -> list[Descriptor]:
        needs = [document.descriptor for document in documents]
        return needs + [child for document in documents for child in _blobs_of(document)]

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


def _blobs_of(document: _Document) -> tuple[Descriptor, ...]:
    return document.content.children() if isinstance(document.content, Manifest) else ()
