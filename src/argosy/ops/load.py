"""load: the images of an archive come into the store, with the bytes and the digests that they have there.

All content first, every digest checked; then the layers are made ready to run, which
checks their diff-ids; all names last. Of an archive that is broken anywhere nothing
gets a name.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ..archives.contents import Listed, read_contents
from ..archives.docker import read_config, with_manifest
from ..archives.family import choose, family_of
from ..errors import Corrupt, InvalidInput, NotFound
from ..layer.compression import decompressed
from ..linux.lifetimes import boot_id
from ..oci.descriptor import Descriptor
from ..oci.digest import CHUNK, Digest
from ..oci.image import Image, Layer
from ..oci.manifest import Manifest
from ..oci.platform import Platform
from ..oci.reference import Reference
from ..store import gc, unsettled
from ..store.refs import Summary, untagged
from ..store.unsettled import Mark
from .parallel import in_parallel, in_processes
from .progress import Advanced, Finished, Started, Warned, silent
from .settle import settle
from .unpack import ensure_layer, largest_first

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..archives.family import Holding
    from ..archives.files import Files
    from ..oci.manifest import Index
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore, Ingest
    from ..store.refs import RefStore
    from .parallel import Check
    from .progress import Progress

_HEX = re.compile(r"[0-9a-f]{64}")


class Loaded(msgspec.Struct, frozen=True, kw_only=True):
    """One image, and one name that it has now; None for an image that the archive does not name."""

    reference: Reference | None
    image_id: Digest


class _Ready(msgspec.Struct, frozen=True, kw_only=True):
    """An image whose content is in the store; only the names are missing."""

    names: tuple[Reference, ...]
    #: index or manifest: what the names will mean
    top: Descriptor
    summary: Summary
    needs: tuple[Descriptor, ...]


def load(
    files: Files,
    *,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    platform: Platform | None = None,
    progress: Progress = silent,
) -> tuple[Loaded, ...]:
    """Bring every image of the archive *files* here, in its order; one value a name.

    Of an index all that the archive holds comes along, and the image for this machine
    is unpacked; with *platform* that one alone.

    Raises InvalidInput (not-an-image-archive), NotFound (platform-not-in-index; what is missing),
    Unsupported, Corrupt, Exhausted. No name changes then.
    """
    settle(blobs=blobs, refs=refs, snapshotter=snapshotter)
    blobs.begin()
    work = _Load(files, blobs, snapshotter, platform, progress)
    return tuple(loaded for each in work.all() for loaded in _publish(each, blobs, refs))


class Watch:
    """Tells *progress* of the files of a stream as they pass; see archives.received."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def begun(self, name: str, size: int) -> None:
        self._progress(Started(_label(name), size, "Loading layer"))

    def advanced(self, name: str, count: int) -> None:
        self._progress(Advanced(_label(name), count))

    def ended(self, name: str, *, was_here: bool) -> None:
        self._progress(Finished(_label(name), "Already exists" if was_here else "Loaded"))


class _Load:
    """The steps for one archive; each may be repeated without harm."""

    def __init__(
        self,
        files: Files,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        platform: Platform | None,
        progress: Progress,
    ) -> None:
        self._files = files
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._platform = platform
        self._progress = progress

    def all(self) -> tuple[_Ready, ...]:
        """Every image: those of a layout, then those that only Docker's document knows."""
        contents = read_contents(self._files)
        found = {listed.descriptor.digest: self._bring(listed, contents.source) for listed in contents.listed}
        for image in contents.docker:
            config = read_config(image, self._files)
            known = next((each for each in found.values() if each.summary.image_id == config.descriptor.digest), None)
            if known is None:
                manifest, source = with_manifest(image, config, self._files)
                each = self._bring(Listed(descriptor=manifest.descriptor, names=image.names), source)
            else:
                each = _also_named(known, self._references(image.names, known.top.digest))
            found[each.top.digest] = each
        if not found:
            raise InvalidInput("the archive holds no image", code="not-an-image-archive")
        return tuple(found.values())

    def _bring(self, listed: Listed, source: Holding) -> _Ready:
        """One image, or index of images, into the store; its documents keep their bytes."""
        name = _shown(listed)
        family = family_of(listed.descriptor, source, name)
        if family.absent and not self._files.is_whole():
            raise _cut_short(family.absent[0])
        chosen = choose(family, self._platform, name)
        path: tuple[Manifest | Index, ...] = (*chosen.path, chosen.manifest)
        documents = family.documents if self._platform is None else path
        image = Image(chosen.manifest.descriptor, source)
        self._tell_of_platform(image.config.platform, name)
        self._begin(documents, image.layers)
        self._bring_layers(image.layers, source)
        needs = {child.digest: child for child in _blobs_of(documents) if not child.urls or source.has(child)}
        self._bring_others(needs.values(), source)
        for document in reversed(documents):
            self._blobs.keep(document.descriptor, document.raw, sync=False)
        return _Ready(
            names=self._references(listed.names, documents[0].descriptor.digest),
            top=documents[0].descriptor,
            summary=self._summary(Image(image.descriptor, self._blobs)),
            needs=(*needs.values(), *(document.descriptor for document in documents)),
        )

    def _begin(self, documents: tuple[Manifest | Index, ...], layers: Iterable[Layer]) -> None:
        """Say what is going to be here without having been synced."""
        expected = (*_blobs_of(documents), *(document.descriptor for document in documents))
        blobs = tuple(dict.fromkeys(each.digest for each in expected if self._blobs.stat(each.digest) != each.size))
        missing = dict.fromkeys(layer.diff_id for layer in layers if not self._snapshotter.has(layer.diff_id))
        if blobs or missing:
            unsettled.begin(self._blobs.root, Mark(boot=boot_id(), blobs=blobs, layers=tuple(missing)))

    def _bring_layers(self, layers: Iterable[Layer], source: Holding) -> None:
        """Each from the archive to its snapshot, several at once. A hostile config may promise several for one blob."""

        def work(layer: Layer, check: Check, progress: Progress) -> None:
            was_here = self._bring_blob(layer.descriptor, source, check, progress)
            self._unpack(layer, check, progress, was_here=was_here)

        distinct = {(layer.descriptor.digest, layer.diff_id): layer for layer in layers}
        absent = [layer for layer in largest_first(distinct.values()) if not self._is_here(layer)]
        in_processes(work, absent, progress=self._progress)

    def _is_here(self, layer: Layer) -> bool:
        if not (self._snapshotter.has(layer.diff_id) and self._blobs.claim(layer.descriptor)):
            return False
        self._progress(Finished(layer.descriptor.digest.short, "Already exists"))
        return True

    def _bring_others(self, needs: Iterable[Descriptor], source: Holding) -> None:
        """Configs, and the layers of other platforms."""

        def work(descriptor: Descriptor, check: Check) -> None:
            self._bring_blob(descriptor, source, check, self._progress if descriptor.is_layer else silent)

        absent = [each for each in needs if not self._blobs.claim(each)]
        in_parallel(work, sorted(absent, key=lambda descriptor: -descriptor.size))

    def _bring_blob(self, descriptor: Descriptor, source: Holding, check: Check, progress: Progress) -> bool:
        """Whether the blob was here already; if not, it is copied from the archive, and checked on the way."""
        with self._blobs.ingest(descriptor) as part:
            was_here = part.complete and descriptor.size > 0
            if not was_here:
                _copy(descriptor, source, part, check, progress)
            part.commit(sync=False)
        return was_here

    def _unpack(self, layer: Layer, check: Check, progress: Progress, *, was_here: bool) -> None:
        """Make the layer's snapshot, which checks its diff-id; where there is one already, check that alone."""
        here = Layer(layer.descriptor, layer.diff_id, self._blobs)
        if self._snapshotter.has(layer.diff_id) and not was_here:
            _verify(here, check)
        ensure_layer(here, snapshotter=self._snapshotter, blobs=self._blobs, progress=progress, check=check)
        progress(Finished(layer.descriptor.digest.short, "Extracted"))

    def _summary(self, image: Image) -> Summary:
        """What a listing shows. A layer that a prune took is made again: no name tells yet that it is wanted."""
        for layer in image.layers:
            ensure_layer(layer, snapshotter=self._snapshotter, blobs=self._blobs, progress=self._progress)
        return Summary(
            manifest=image.descriptor,
            image_id=image.id,
            created=image.config.created,
            size=sum(self._snapshotter.usage(layer.diff_id) for layer in image.layers),
        )

    def _tell_of_platform(self, found: Platform, name: str) -> None:
        host = Platform.host()
        if self._platform is not None and not self._platform.matches(found):
            raise NotFound(
                f"{name} is not here for {self._platform}",
                code="platform-not-in-index",
                context=f"here is {found}",
                hint=f"--platform {found}, or none",
            )
        if self._platform is None and not host.matches(found):
            self._progress(Warned(f"{name} is for {found}; this machine is {host}"))

    def _references(self, names: Iterable[str], digest: Digest) -> tuple[Reference, ...]:
        """The names that can be names here; an image that has none but others is kept without."""
        found: dict[Reference, None] = {}
        for text in names:
            try:
                reference = Reference.parse(text)
            except InvalidInput as error:
                self._progress(Warned(f"the archive calls an image {text!r}, which is no name: {error.context}"))
                continue
            if reference.digest not in (None, digest):
                self._progress(Warned(f"the archive calls an image {text!r}, but its digest is {digest}"))
                continue
            if reference.digest is not None:  # the tag beside a digest is for people
                reference = reference.with_digest(reference.digest)
            found[reference] = None
        return tuple(found)


def _copy(descriptor: Descriptor, source: Holding, part: Ingest, check: Check, progress: Progress) -> None:
    name = descriptor.digest.short
    progress(Started(name, descriptor.size, "Loading layer"))
    with source.open(descriptor) as stream:
        while data := stream.read(CHUNK):
            check()
            part.write(data)
            progress(Advanced(name, len(data)))
    progress(Finished(name, "Loaded"))


def _publish(ready: _Ready, blobs: BlobStore, refs: RefStore) -> tuple[Loaded, ...]:
    """Set the names, the last step; without any the image is listed as <none>, unless it has a name here already."""
    image_id = ready.summary.image_id
    if not ready.names and any(record.manifest == ready.summary.manifest for record in refs.list()):
        gc.settle(ready.needs, blobs=blobs)
        return (Loaded(reference=None, image_id=image_id),)
    for name in ready.names or (untagged(ready.summary.manifest.digest),):
        mark = Mark(
            boot=boot_id(),
            blobs=tuple(needed.digest for needed in ready.needs),
            name=str(name),
            target=ready.top.digest,
            before=refs.find_exact(name),
        )
        unsettled.begin(blobs.root, mark)  # a name of content that a power cut may yet spoil
        gc.publish(name, ready.top, summary=ready.summary, needs=ready.needs, blobs=blobs, refs=refs, sync=False)
    return tuple(Loaded(reference=name, image_id=image_id) for name in ready.names or (None,))


def _also_named(ready: _Ready, names: tuple[Reference, ...]) -> _Ready:
    return msgspec.structs.replace(ready, names=tuple(dict.fromkeys((*ready.names, *names))))


def _blobs_of(documents: tuple[Manifest | Index, ...]) -> tuple[Descriptor, ...]:
    return tuple(child for document in documents if isinstance(document, Manifest) for child in document.children())


def _verify(layer: Layer, check: Check) -> None:
    """Raises Corrupt (digest-mismatch) unless the layer decompresses to what its diff-id names."""
    hasher = layer.diff_id.hasher()
    with decompressed(layer.open()) as tar:
        while data := tar.read(CHUNK):
            check()
            hasher.update(data)
    found = Digest.from_hasher(hasher, layer.diff_id.algorithm)
    if found != layer.diff_id:
        raise Corrupt(
            f"layer {layer.descriptor.digest} is not the one that its image promises",
            code="digest-mismatch",
            context=f"uncompressed it has digest {found}, not {layer.diff_id}",
        )


def _shown(listed: Listed) -> str:
    """What to call an image in a message: its first name that is one, else its digest."""
    for text in listed.names:
        try:
            return Reference.parse(text).familiar()
        except InvalidInput:
            continue
    return str(listed.descriptor.digest)


def _label(name: str) -> str:
    """What a member of an archive is called in a line of progress: twelve digits where its name has a digest."""
    match = _HEX.search(name)
    return match[0][:12] if match else name[-40:]


def _cut_short(absent: Descriptor) -> Corrupt:
    return Corrupt(
        "the archive ends too early",
        code="archive-truncated",
        context=f"it has no end mark, and {absent.digest} is not in it",
        hint="save or copy it again",
    )
