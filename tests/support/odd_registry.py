"""A registry in memory that takes uploads in the odd ways that registries have, and breaks them off as told.

    with odd_registry() as odd:
        odd.breaks = [1000]             # of the next request with bytes 1000 are kept, and the answer is 502
        odd.signs_offset = True         # as distribution does
        ...
        odd.blobs[digest], odd.received # bytes of all requests together

Nothing is as in the specification but what the switches leave alone.
"""

from __future__ import annotations

import re
from contextlib import contextmanager
from typing import TYPE_CHECKING
from urllib.parse import parse_qs, urlsplit

from argosy.oci.digest import Digest

from .web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .web import Site

_RANGE = re.compile(r"(\d+)-(\d+)")


class OddRegistry:
    """Switches before, what arrived after."""

    def __init__(self) -> None:
        #: for each request with bytes: how many of them are kept before it fails; those past the list do not fail
        self.breaks: list[int] = []
        #: that many requests with bytes are taken whole, and fail all the same
        self.lost_answers = 0
        #: the status of such a failure
        self.failure = 502
        #: the offset stands in the address, and an address with another one is unknown
        self.signs_offset = False
        #: what PATCH with Content-Range does: "check", "append" without looking, "replace" all that was there
        self.ranges = "check"
        #: what Range says: "honest", "stuck" at the first request's end, "none"
        self.tells = "honest"
        #: most bytes of a request (413), and of one with Content-Range (416)
        self.limit = self.range_limit = 10**12
        #: OCI-Chunk-Min-Length, demanded of all pieces but the last
        self.least = 0
        self.methods = {"GET", "PUT", "PATCH"}
        #: what stands before the path in Location
        self.origin = ""
        self.stores_another = False

        self.sessions: dict[str, bytearray] = {}
        self.first: dict[str, int] = {}
        self.blobs: dict[str, bytes] = {}
        self.begun = self.received = 0
        self.site: Site

    @property
    def lines(self) -> list[str]:
        """What was asked, without names of sessions and digests, «PATCH 0-9» with its range."""
        return [_short(seen) for seen in self.site.seen]

    def answer(self, seen: Seen) -> Reply:
        query = parse_qs(urlsplit(seen.target).query)
        if "/blobs/sha256:" in seen.path:
            return Reply(status=200 if seen.path.rpartition("/")[2] in self.blobs else 404)
        if seen.method == "POST":
            self.begun += 1
            name = str(self.begun)
            self.sessions[name] = bytearray()
            return self._progress(name, 202, **({"OCI-Chunk-Min-Length": str(self.least)} if self.least else {}))
        name = seen.path.rpartition("/")[2]
        if name not in self.sessions or seen.method not in self.methods:
            return Reply(status=405 if name in self.sessions else 404)
        if self.signs_offset and query.get("_state") != [str(len(self.sessions[name]))]:
            return Reply(status=404, body=b'{"errors":[{"code":"BLOB_UPLOAD_INVALID"}]}')
        return self._progress(name, 204) if seen.method == "GET" else self._take(seen, name, query)

    def _take(self, seen: Seen, name: str, query: dict[str, list[str]]) -> Reply:
        kept = self.sessions[name]
        ranged = _RANGE.fullmatch(seen.headers.get("content-range", ""))
        if len(seen.body) > self.limit:
            return Reply(status=413)
        if ranged and len(seen.body) > self.range_limit:
            return Reply(status=416, body=b'{"errors":[{"code":"REQUESTED_RANGE_NOT_SATISFIABLE"}]}')
        if ranged and self.ranges == "check" and int(ranged[1]) != len(kept):
            return self._progress(name, 416)
        if ranged and self.ranges == "replace":
            kept.clear()
        body = seen.body[: self.breaks.pop(0)] if seen.body and self.breaks else seen.body
        kept += body
        self.received += len(body)
        if len(body) < len(seen.body) or (seen.body and self.lost_answers > 0):
            self.lost_answers -= 1
            return Reply(status=self.failure)
        self.first.setdefault(name, len(kept))
        if seen.method == "PATCH":
            return self._progress(name, 202)
        return self._store(name, query["digest"][0])

    def _store(self, name: str, digest: str) -> Reply:
        data = bytes(self.sessions.pop(name))
        if Digest.of(data) != digest:
            return Reply(status=400, body=b'{"errors":[{"code":"DIGEST_INVALID"}]}')
        self.blobs[digest] = data
        stored = Digest.of(b"another") if self.stores_another else digest
        return Reply(status=201, headers={"Docker-Content-Digest": stored})

    def _progress(self, name: str, status: int, **headers: str) -> Reply:
        stands = len(self.sessions[name])
        told = self.first.get(name, stands) if self.tells == "stuck" else stands
        if self.tells != "none":
            headers["Range"] = f"0-{max(0, told - 1)}"
        state = f"?_state={stands}" if self.signs_offset else ""
        headers["Location"] = f"{self.origin}/v2/team/app/blobs/uploads/{name}{state}"
        return Reply(status=status, headers=headers)


def _short(seen: Seen) -> str:
    return f"{seen.method} {seen.headers.get('content-range', '')}".strip()


@contextmanager
def odd_registry() -> Iterator[OddRegistry]:
    """A registry with the repository team/app, honest until a switch is turned."""
    odd = OddRegistry()
    with serving(odd.answer) as odd.site:
        yield odd
