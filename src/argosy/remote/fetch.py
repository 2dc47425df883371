"""A file from an address that is no registry's: what `import` takes."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Corrupt
from .messages import CHUNK, HttpRequest
from .session import unknown_answer
from .transport import shown

if TYPE_CHECKING:
    from .messages import HttpResponse
    from .transport import Transport


class Fetched:
    """The bytes of an answer, which must be as many as it promises; the caller closes it."""

    def __init__(self, response: HttpResponse) -> None:
        self._response = response
        self._seen = 0
        length = response.headers.get("content-length", "")
        #: bytes to come, None where the server does not say
        self.size = int(length) if length.isdecimal() else None

    def read(self, count: int = -1) -> bytes:
        """Up to *count* bytes, none at the end. Raises Unavailable (connection lost), Corrupt (size-mismatch)."""
        data = self._response.body.read(CHUNK if count < 0 else count)
        self._seen += len(data)
        if self.size is not None and (self._seen > self.size or (not data and self._seen < self.size)):
            raise Corrupt(
                f"{shown(self._response.url)} is not what it promised",
                code="size-mismatch",
                context=f"{self._seen} of {self.size} bytes came",
            )
        return data

    def close(self) -> None:
        self._response.close()

    def __enter__(self) -> Fetched:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()


def fetch(url: str, transport: Transport) -> Fetched:
    """Ask for the file at *url*. Raises as Transport.send, and what an answer other than 200 means."""
    response = transport.send(HttpRequest(method="GET", url=url))
    if response.status != 200:
        raise unknown_answer(response, f"cannot fetch {shown(url)}")
    return Fetched(response)
