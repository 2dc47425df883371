"""A ContentSource over the members of an archive: which member holds which blob is all that differs."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, cast

from ..oci.digest import CHUNK, VerifyingReader

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import BinaryIO

    from ..oci.descriptor import Descriptor
    from ..oci.digest import Digest
    from .files import Files


class MemberSource:
    """Blobs by their digest, as *member_of* names them, and *documents* that are in no member: we have made them."""

    def __init__(
        self, files: Files, member_of: Callable[[Descriptor], str], documents: Mapping[Digest, bytes] | None = None
    ) -> None:
        self._files = files
        self._member_of = member_of
        self._documents = documents or {}

    def has(self, descriptor: Descriptor) -> bool:
        """Whether something stands there; what is wrong with it is found when it is read."""
        return descriptor.digest in self._documents or self._files.size(self._member_of(descriptor)) is not None

    def open(self, descriptor: Descriptor, *, offset: int = 0) -> BinaryIO:
        raw = self._documents.get(descriptor.digest)
        stream = self._files.open(self._member_of(descriptor)) if raw is None else cast("BinaryIO", io.BytesIO(raw))
        if not offset:
            return cast("BinaryIO", VerifyingReader(stream, descriptor.digest, size=descriptor.size))
        while offset and (data := stream.read(min(offset, CHUNK))):
            offset -= len(data)
        return stream
