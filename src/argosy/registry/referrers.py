"""Referrers: the manifests whose subject is a given one. Source: distribution-spec 1.1 «Listing Referrers»."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import urlencode

from ..oci.descriptor import OCI_INDEX, Descriptor
from ..oci.digest import Digest
from ..oci.manifest import MANIFEST_LIMIT
from ..oci.wire import encode
from .messages import Response, in_thread

if TYPE_CHECKING:
    from .app import Site
    from .messages import Request
    from .storage import Repository


async def list_referrers(site: Site, request: Request, name: str, digest: str) -> Response:
    """GET …/referrers/<digest>?artifactType=: an index, empty when there are none, never 404."""
    repository = site.storage.repository(name)
    subject, kind = Digest.parse(digest), request.query("artifactType")
    found, last = await in_thread(_page, repository, subject, kind, request.query("last") or "")
    headers = {"content-type": OCI_INDEX}
    if kind:
        headers["oci-filters-applied"] = "artifactType"
    if last is not None:
        query = urlencode({"last": last} | ({"artifactType": kind} if kind else {}))
        headers["link"] = f'</v2/{name}/referrers/{subject}?{query}>; rel="next"'
    return Response(200, headers, encode({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": found}))


def _page(repository: Repository, subject: Digest, kind: str | None, after: str) -> tuple[list[Descriptor], str | None]:
    """(descriptors, place where the next page begins or None); a page stays within a manifest's limit."""
    found: list[Descriptor] = []
    size, place = 0, after
    for name, descriptor in repository.referrers(subject, after=after):
        if not kind or descriptor.artifact_type == kind:
            size += len(encode(descriptor)) + 1
            if found and size > MANIFEST_LIMIT - 1024:
                return found, place
            found.append(descriptor)
        place = name
    return found, None
