"""One blob's upload: begun, sent, continued where the registry stands, finished.

A small blob goes in one PUT. A larger one goes as docker and podman send it, in one PATCH
without Content-Range and an empty PUT, which every registry takes. When that breaks, the
registry is asked how far it has come, and a PATCH with Content-Range carries the rest.
Source: distribution-spec «Pushing blobs». What registries make of that, and what is done:

- distribution (Docker Hub, Harbor) signs the offset into the address, and knows an upload no more once
  half a request has arrived: it is begun anew
- «Range: 0-0» stands for nothing or for one byte: it is begun anew
- a proxy that collects requests keeps nothing of half a one: from then on in pieces
- ghcr.io takes 4 MiB at most by PATCH with Content-Range and says 416, proxies say 413: in smaller pieces
- Artifact Registry takes one PATCH alone, ECR's Range stands still: what they put together wrongly they
  refuse at the end, and it is sent anew, at once
"""

from __future__ import annotations

import re
from functools import partial
from typing import TYPE_CHECKING, Literal
from urllib.parse import urlencode

from ..errors import Corrupt, Error, InvalidInput, Unauthorized, Unavailable
from .messages import HttpRequest, is_downgrade, join_url, split_url
from .session import failed, unknown_answer

if TYPE_CHECKING:
    from .messages import HttpResponse
    from .outgoing import Outgoing
    from .unfinished import Place
    from .upload import Uploader

#: bytes; one request less is 1 ms of a processor and a round trip less, and up to here a break costs no more than that
ONE_PIECE = 2**20
PIECE = 4 * 2**20  # bytes of the smallest piece that we choose ourselves, and the largest that ghcr.io takes
_PIECES = 100  # of a blob, so that a break costs a hundredth of it
_SMALLEST = 64 * 1024  # bytes; a registry that takes no request of this size takes none
_RANGE = re.compile(r"(?:bytes[ =])?0-([0-9]{1,19})")
_OCTETS = {"Content-Type": "application/octet-stream"}
#: {method: what a registry says that takes no blob by it}
_NOT_SO = {
    "PUT": frozenset({404, 405, 411, 413, 415, 416, 501}),
    "PATCH": frozenset({400, 404, 405, 411, 413, 415, 416, 501}),
}
_NOT_THE_UPLOADS_FAULT = frozenset({401, 403, 408, 429})


class _Again(Exception):
    """The upload did not go on as it was meant to; *error* is what to say when it never does."""

    def __init__(self, error: Error, *, at_once: bool = False) -> None:
        super().__init__(error.message)
        self.error = error
        #: the next attempt will be another one: it need not wait, and this one does not count
        self.at_once = at_once


class Delivery:
    """Brings one blob to a registry that lacks it. *place* is where the upload's address is kept."""

    def __init__(self, uploader: Uploader, blob: Outgoing, place: Place) -> None:
        self._uploader = uploader
        self._blob = blob
        self._place = place
        self._digest, self._size = blob.descriptor.digest, blob.descriptor.size
        self._location = place.location
        #: the address is an earlier process's, and has not answered us yet
        self._is_inherited = place.location is not None
        #: the registry must be asked where the upload stands, because a request broke
        self._is_doubtful = self._is_inherited
        self._was_begun = self._is_inherited or place.waited
        #: bytes that the registry has confirmed; and the most that it ever did
        self._offset = self._best = 0
        #: bytes of the last request
        self._carried = self._size if self._is_inherited else 0
        #: the upload consists of several requests, so that the registry may have put it together wrongly
        self._is_patched = False
        #: it did: everything at once from now on, and anew after each break
        self._mistrusts = False
        #: bytes of a request at most, and at least
        self._piece, self._least = self._size, 1
        in_one = self._size <= min(ONE_PIECE, uploader.limit or ONE_PIECE) or not uploader.patches
        self._ways = ["PUT", "PATCH"] if in_one else ["PATCH", "PUT"]

    def run(self, begun: HttpResponse | None = None) -> Literal["present", "sent"]:
        """Send the blob; "present" when it turned out to be there. *begun* is an answer that began an upload.

        Raises Unauthorized, Unavailable, Corrupt, Exhausted, NotFound (blob-unknown: gone here).
        """
        if begun is not None:
            self._accept(begun)
        failures = 0
        while True:
            reached = self._best
            try:
                return self._attempt()
            except Corrupt:
                self._place.forget()  # what was sent of a damaged blob is of no use to a whole one
                raise
            except (Unavailable, _Again) as problem:
                self._is_doubtful = self._location is not None
                if isinstance(problem, _Again) and problem.at_once:
                    continue
                failures = 1 if self._best > reached else failures + 1
                error = problem.error if isinstance(problem, _Again) else problem
                if not self._waited(failures, error):
                    raise error from None

    def _waited(self, failures: int, error: Error) -> bool:
        wait_s = error.retry_after if isinstance(error, Unavailable) else None
        if self._uploader.session.transport.waited(failures, wait_s):
            return True
        if not self._is_inherited:
            return False
        self._drop()  # perhaps it led to a host that is no longer there
        return True

    def _attempt(self) -> Literal["present", "sent"]:
        if self._location is not None and self._is_doubtful:
            self._ask(self._location)
        if self._location is None:
            if self._was_begun and self._uploader.has(self._digest):  # only the answer was lost, or another was faster
                self._place.forget()
                return "present" if self._place.waited else "sent"
            self._accept(self._uploader.begin())
        if self._ways[0] == "PUT":
            self._finish(0)
        else:
            while self._offset < self._size:
                self._send_more()
            self._finish(self._size)
        self._place.forget()
        return "sent"

    def _accept(self, response: HttpResponse) -> None:
        """A new upload, by its 202."""
        if response.status != 202:
            raise unknown_answer(response, self._cannot())
        least = response.headers.get("oci-chunk-min-length", "")
        self._least = max(1, int(least[:18])) if least.isdecimal() else 1
        if self._is_inherited:  # what an earlier process began is worth more
            response.drain()
            return
        self._offset, self._is_patched, self._was_begun = 0, False, True
        self._move(response)
        if self._location is None:
            raise Corrupt(self._cannot(), code="protocol-error", context="the registry named no upload address")

    def _ask(self, location: str) -> None:
        """Find out where the upload stands; afterwards there is none when it cannot be continued."""
        if self._mistrusts or self._ways[0] == "PUT":
            return self._drop()
        try:
            response = self._send(HttpRequest(method="GET", url=location))
        except (InvalidInput, Unauthorized):  # without --plain-http this time; permission of another host that ended
            return self._drop()
        if response.status in (408, 429) or response.status >= 500:
            raise failed(response, self._cannot())
        self._is_doubtful = self._is_inherited = False
        stands = _stands_at(response) if response.is_success else None
        if stands == 0 and self._carried > PIECE:
            self._piece = max(PIECE, self._size // _PIECES)
        if not stands or stands > self._size:
            response.drain()
            return self._drop()
        self._is_patched = True
        self._move(response)
        return self._confirm(stands)

    def _send_more(self) -> None:
        start, end = self._offset, self._end_of_piece()
        headers = dict(_OCTETS)
        if start or end < self._size:
            headers["Content-Range"] = f"{start}-{end - 1}"
        response = self._carry("PATCH", self._address(), start, end, headers)
        if not response.is_success:
            raise self._refused(response, start, end)
        self._is_patched = self._is_patched or start > 0
        stands = _stands_at(response)
        self._move(response)
        # ECR's stands still although everything has come; the digest has the last word.
        self._confirm(stands if stands and start < stands < end and not self._mistrusts else end)

    def _finish(self, start: int) -> None:
        """PUT with the digest, and with the bytes from *start* on."""
        url = self._address()
        url += ("&" if "?" in url else "?") + urlencode({"digest": self._digest}, safe=":")
        response = self._carry("PUT", url, start, self._size, _OCTETS)
        if response.status not in (200, 201, 204):
            raise self._refused(response, start, self._size)
        stored = response.headers.get("docker-content-digest", "")
        response.drain()
        if stored.partition(":")[0] == self._digest.algorithm and stored != self._digest:
            raise Corrupt(self._cannot(), code="digest-mismatch", context=f"the registry stored {stored}")

    def _refused(self, response: HttpResponse, start: int, end: int) -> Exception:
        """What to raise when the registry did not take a request: an _Again where something is left to try."""
        status, stands, way = response.status, _stands_at(response), self._ways[0]
        error = unknown_answer(response, self._cannot())
        is_lost = status == 404 and (start > 0 or "BLOB_UPLOAD" in error.context)
        if is_lost:
            self._drop()
        if is_lost or status == 409 or (status == 416 and stands and stands != start):
            return _Again(error)  # and the registry will be asked where it stands
        if status in (413, 416) and self._shrink(end - start, for_all=status == 413) and way == "PATCH":
            return _Again(error, at_once=True)
        if status in _NOT_SO[way] and not start and len(self._ways) > 1:
            self._uploader.patches = way != "PATCH" and self._uploader.patches
            self._ways.pop(0)
            self._drop()
            return _Again(error, at_once=True)
        if self._is_patched and 400 <= status < 500 and status not in _NOT_THE_UPLOADS_FAULT:
            self._mistrusts = True
            self._drop()
            return _Again(error)
        return error

    def _shrink(self, size: int, *, for_all: bool) -> bool:
        """Carry less by each request than the *size* that was too much: of this blob, or of all that follow."""
        smaller = PIECE if size > PIECE else max(_SMALLEST, size // 4)
        if smaller >= size or smaller < self._least:
            return False
        if for_all:
            self._uploader.limit = min(smaller, self._uploader.limit or smaller)  # other threads try too
        else:
            self._piece = smaller
        return True

    def _end_of_piece(self) -> int:
        piece = self._size if self._mistrusts else self._piece
        piece = min(piece, self._uploader.limit or piece)
        return min(self._size, self._offset + max(piece, self._least))

    def _carry(self, method: str, url: str, start: int, end: int, headers: dict[str, str]) -> HttpResponse:
        self._carried = count = end - start
        body = partial(self._blob.stretch, start, end) if count else None
        request = HttpRequest(method=method, url=url, headers=headers, open_body=body, body_size=count, once=True)
        return self._send(request)

    def _send(self, request: HttpRequest) -> HttpResponse:
        return self._uploader.session.send(request, self._uploader.scope)

    def _confirm(self, offset: int) -> None:
        self._offset = offset
        self._best = max(self._best, offset)

    def _drop(self) -> None:
        self._location, self._offset, self._is_inherited = None, 0, False
        self._place.forget()

    def _address(self) -> str:
        assert self._location is not None  # _attempt began an upload
        return self._location

    def _move(self, response: HttpResponse) -> None:
        """The upload's address may change with each answer; one without leaves it as it was. Drains the answer."""
        location = response.headers.get("location")
        response.drain()
        if not location:
            return
        target, base = split_url(join_url(response.url, location)), split_url(self._uploader.session.base)
        if target.netloc == base.netloc:  # registries behind a proxy that ends TLS often say http
            target = target._replace(scheme=base.scheme)
        if is_downgrade(base.geturl(), target.geturl()):
            raise Corrupt(self._cannot(), code="protocol-error", context="it sends the upload on without TLS")
        self._location = target.geturl()
        if self._size > ONE_PIECE:
            self._place.keep(self._location)

    def _cannot(self) -> str:
        return f"cannot push blob {self._digest} to {self._uploader.name}"


def _stands_at(response: HttpResponse) -> int | None:
    """How many bytes an upload has, by Range; «0-0» is 0, although it may be 1. None when it is not said."""
    match = _RANGE.match(response.headers.get("range", "").strip())
    if match is None:
        return None
    last = int(match[1])
    return last + 1 if last else 0
