"""Our errors as the registry tells them: {"errors": [{code, message, detail}]} and a status.

One table, by stable code first and by kind otherwise; a test proves that every
kind and every code raised in this package is in it. Source: distribution-spec
1.1 «Error Codes»; 5xx answers carry distribution's UNKNOWN, which that table lacks.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import TYPE_CHECKING

from .. import errors
from ..oci.wire import encode
from .messages import Response

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..oci.digest import Digest

#: {kind: (OCI code, status)}; a kind that is not listed answers as its base does.
KINDS: dict[type[errors.Error], tuple[str, int]] = {
    errors.Error: ("UNKNOWN", 500),
    errors.InvalidInput: ("UNSUPPORTED", 400),
    errors.NotFound: ("NAME_UNKNOWN", 404),
    errors.Conflict: ("UNSUPPORTED", 409),
    errors.Unauthorized: ("UNKNOWN", 500),  # the file system refused us, not we the client
    errors.Unsupported: ("UNSUPPORTED", 501),
    errors.Unavailable: ("UNKNOWN", 503),
    errors.Corrupt: ("UNKNOWN", 500),
    errors.Exhausted: ("UNKNOWN", 507),
    errors.RuntimeFailed: ("UNKNOWN", 500),
    errors.Cancelled: ("UNKNOWN", 503),
}

#: {code of an Error other than Corrupt: (OCI code, status)}
CODES: dict[str, tuple[str, int]] = {
    "blob-unknown": ("BLOB_UNKNOWN", 404),
    "content-unknown": ("MANIFEST_BLOB_UNKNOWN", 404),  # status: «Endpoints», end-7; the CNCF registry says 400
    "digest-invalid": ("DIGEST_INVALID", 400),
    "digest-mismatch": ("DIGEST_INVALID", 400),
    "digest-unsupported": ("DIGEST_INVALID", 400),
    "endpoint-unknown": ("UNSUPPORTED", 404),
    "internal": ("UNKNOWN", 500),
    "manifest-rejected": ("MANIFEST_INVALID", 400),
    "manifest-too-large": ("SIZE_INVALID", 413),
    "manifest-unknown": ("MANIFEST_UNKNOWN", 404),
    "method-not-allowed": ("UNSUPPORTED", 405),
    "name-invalid": ("NAME_INVALID", 400),
    "page-invalid": ("UNSUPPORTED", 400),
    "reference-invalid": ("MANIFEST_INVALID", 400),
    "repository-unknown": ("NAME_UNKNOWN", 404),
    "request-stalled": ("BLOB_UPLOAD_INVALID", 408),
    "request-superseded": ("BLOB_UPLOAD_INVALID", 408),
    "size-lie": ("SIZE_INVALID", 400),
    "upload-busy": ("BLOB_UPLOAD_INVALID", 409),
    "upload-range": ("BLOB_UPLOAD_INVALID", 416),
    "upload-unknown": ("BLOB_UPLOAD_UNKNOWN", 404),
    "web-page-write": ("DENIED", 403),
}


class ContentUnknown(errors.NotFound):
    """A manifest names blobs or manifests that its repository lacks."""

    def __init__(self, name: str, digests: tuple[Digest, ...]) -> None:
        super().__init__(
            f"repository {name!r} lacks content that the manifest names",
            code="content-unknown",
            context=", ".join(digests),
            hint="push the layers, the config or the platforms' manifests first",
        )
        self.digests = digests


class MethodNotAllowed(errors.InvalidInput):
    """The path exists, but not for this method."""

    def __init__(self, method: str, path: str, allowed: tuple[str, ...]) -> None:
        super().__init__(
            f"{method} is not for {path!r}", code="method-not-allowed", context=f"allowed: {', '.join(allowed)}"
        )
        self.allowed = allowed


def answer(error: errors.Error) -> tuple[str, int]:
    """(OCI code, status) of any Error.

    Corrupt is about what we hold (damage that a client sent is InvalidInput), so its codes,
    some of which read the same, are not looked up.
    """
    if error.code in CODES and not isinstance(error, errors.Corrupt):
        return CODES[error.code]
    return next(KINDS[kind] for kind in type(error).__mro__ if kind in KINDS)


def response(error: errors.Error) -> Response:
    """What the client reads. Faults of ours are named, but their paths and texts stay in our log."""
    code, status = answer(error)
    headers = {"content-type": "application/json"}
    if isinstance(error, errors.Unavailable) and error.retry_after is not None:
        headers["retry-after"] = str(max(1, round(error.retry_after)))
    if isinstance(error, MethodNotAllowed):
        headers["allow"] = ", ".join(error.allowed)
    if status == HTTPStatus.REQUEST_TIMEOUT:
        headers["connection"] = "close"  # the rest of the body may still come, or never
    return Response(status, headers, encode({"errors": list(_entries(error, code, status))}))


def _entries(error: errors.Error, code: str, status: int) -> Iterator[dict[str, object]]:
    if isinstance(error, ContentUnknown):  # one entry an absent digest, as the specification asks
        for digest in error.digests:
            yield {"code": code, "message": error.message, "detail": {"digest": digest}}
    elif status >= 500:
        yield {"code": code, "message": HTTPStatus(status).phrase.lower(), "detail": error.code}
    else:
        message = f"{error.message}: {error.context}" if error.context else error.message
        yield {"code": code, "message": message, "detail": error.hint or error.code}
