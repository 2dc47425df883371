"""import: the archive of a file system becomes an image of one layer."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO, cast

from ..archives.outer import begun, compression_of_archive, uncompressed
from ..archives.tar import Tail
from ..errors import Corrupt, InvalidInput
from ..layer.compression import decompressed
from ..layer.sink import LayerSink
from ..oci.config import History, ImageConfig
from ..oci.descriptor import OCI_LAYER_GZIP, OCI_LAYER_ZSTD
from ..oci.digest import CHUNK, Digest, new_hasher
from .compose import compose
from .contents import opened
from .instructions import changed
from .progress import Finished, Observed, Started, silent

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..oci.descriptor import Descriptor
    from ..oci.image import Image
    from ..oci.platform import Platform
    from ..oci.reference import Reference
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore, Ingest
    from ..store.refs import RefStore
    from .progress import Progress


def import_archive(
    stream: BinaryIO,
    reference: Reference | None,
    *,
    source: str,
    blobs: BlobStore,
    refs: RefStore,
    snapshotter: Snapshotter,
    platform: Platform,
    created: str,
    changes: Iterable[str] = (),
    message: str = "",
    size: int | None = None,
    progress: Progress = silent,
) -> Image:
    """Make an image of the tar that *stream* gives, and name it *reference*; gives the image.

    gzip and zstd become the layer as they are; bzip2, xz and a plain tar are compressed
    anew. *source* is where the stream comes from, for people; *size* its bytes where that
    is known. *changes* are instructions of a Dockerfile.

    Raises InvalidInput (archive-empty, change-invalid), Corrupt, Exhausted; nothing is named then.
    """
    config = changed(ImageConfig.scratch(platform), changes)  # before anything is read
    progress(Started("layer", size, "Importing"))
    layer, diff_id = _store_layer(cast("BinaryIO", Observed(stream, "layer", progress, lambda: None)), source, blobs)
    progress(Finished("layer", "Imported"))
    config = config.with_(
        diff_ids=(diff_id,),
        history=(History(created=created, comment=message or f"Imported from {source}"),),
        created=created,
    )
    return compose(config, (layer,), reference, blobs=blobs, refs=refs, snapshotter=snapshotter, progress=progress)


def holds_images(image: Image, *, snapshotter: Snapshotter, blobs: BlobStore) -> bool:
    """Whether the files of *image* are an OCI layout or what `docker save` writes, not a file system."""
    with opened(image, snapshotter=snapshotter, blobs=blobs) as (view,):
        top = view.folder(b"") or {}
        return b"oci-layout" in top or {b"manifest.json", b"repositories"} <= top.keys()


def _store_layer(stream: BinaryIO, source: str, blobs: BlobStore) -> tuple[Descriptor, Digest]:
    """The blob, and the digest of its tar. Whether it is one is seen when it is unpacked."""
    start, whole = begun(stream)
    if not start:
        raise InvalidInput(
            f"nothing to import: {source} is empty",
            code="archive-empty",
            hint="did the program that should have written it fail?",
        )
    kind = compression_of_archive(start)
    with blobs.ingest() as part:
        if kind in ("gzip", "zstd"):
            tar = Tail(decompressed(cast("BinaryIO", _Tee(whole, part))))
            diff_id = _diff_id(tar)
            _require_end(tar, source)
            return part.commit(media_type=OCI_LAYER_GZIP if kind == "gzip" else OCI_LAYER_ZSTD), diff_id
        sink, tar = LayerSink(part), Tail(uncompressed(whole))
        while data := tar.read(CHUNK):
            sink.write(data)
        digests = sink.close()
        _require_end(tar, source)
        return part.commit(media_type=OCI_LAYER_GZIP), digests.diff_id


def _require_end(tar: Tail, source: str) -> None:
    """Raises Corrupt (archive-truncated): half a file system must not pass for a whole one."""
    if not tar.has_end_mark:
        raise Corrupt(
            f"{source} ends too early",
            code="archive-truncated",
            context="it has no end mark, which is two blocks of zeros; is it a tar?",
            hint="if it is a whole tar nevertheless: (cat FILE; head -c 1024 /dev/zero) | argosy import -",
        )


def _diff_id(tar: Tail) -> Digest:
    hasher = new_hasher("sha256")
    while data := tar.read(CHUNK):
        hasher.update(data)
    return Digest.from_hasher(hasher)


class _Tee:
    """A stream whose bytes also go into the store."""

    def __init__(self, stream: BinaryIO, part: Ingest) -> None:
        self._stream = stream
        self._part = part

    def read(self, count: int = -1) -> bytes:
        data = self._stream.read(count)
        self._part.write(data)
        return data
