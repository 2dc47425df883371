"""Range: which bytes of a blob a request asks for, and how several stretches travel in one answer.

podman and others fetch only those chunks of a zstd:chunked layer that they lack; they
ask for up to a thousand at once. Source: RFC 9110 «14. Range Requests».
"""

from __future__ import annotations

import os
import re

from .messages import FileBody

_RANGE = re.compile(r"[ \t]*(?:(\d{1,19})-(\d{1,19})?|-(\d{1,19}))[ \t]*")
MOST_RANGES = 4096  # more than fit into the 64 KiB that a server takes as a head; containers/storage asks for 1024

#: offset and count of bytes
Span = tuple[int, int]


def parse(text: str, size: int) -> tuple[Span, ...] | None:
    """What *text*, the value of Range, asks for of *size* bytes, in its order; none when all of it lies outside.

    None stands for the whole: no range, another unit, nonsense, or so many and such long ranges
    that the whole is shorter. The RFC lets a server pass over any Range.
    """
    unit, _, listed = text.partition("=")
    if unit.strip().lower() != "bytes":
        return None
    spans = []
    for part in listed.split(",", MOST_RANGES):
        match = _RANGE.fullmatch(part)
        if match is None:
            return None
        first, last, suffix = match.groups()
        if suffix is not None:
            start, end = size - min(int(suffix), size), size
        else:
            start, end = int(first), min(int(last) + 1, size) if last is not None else size
            if last is not None and int(last) < start:
                return None
        if start < end:
            spans.append((start, end - start))
    return tuple(spans) if sum(count for _, count in spans) <= size else None


def content_range(span: Span, size: int) -> str:
    return f"bytes {span[0]}-{span[0] + span[1] - 1}/{size}"


def multipart(fd: int, spans: tuple[Span, ...], size: int) -> tuple[str, FileBody]:
    """(Content-Type, body) of an answer with several *spans* of a file: one part each, in order.

    The boundary is random, so that no blob can hold it.
    """
    boundary = os.urandom(16).hex()
    pieces: list[bytes | Span] = []
    for span in spans:
        head = f"--{boundary}\r\ncontent-type: application/octet-stream\r\ncontent-range: {content_range(span, size)}"
        pieces += [f"{head}\r\n\r\n".encode(), span, b"\r\n"]
    pieces.append(f"--{boundary}--\r\n".encode())
    return f"multipart/byteranges; boundary={boundary}", FileBody(fd=fd, pieces=tuple(pieces))
