"""JSON as programs in Go lay it out: what Docker prints, and the bytes of the lists that it pushes.

Apart from wire.py, since only who shows or makes such documents needs it.
"""

from __future__ import annotations

import re

import msgspec

from .wire import encode

_DEEPEST = 32  # levels of a document that is laid out anew; an image's manifest has three
#: A text, which may hold brackets, an opening bracket, or a closing one.
_BRACKET = re.compile(rb'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])')


def reindented(raw: bytes, indent: str) -> bytes:
    """A JSON document with other white space, laid out as Go's json.Indent does; no value changes.

    One that is nested deeper than any that people write stays as it is: its 4 MB could become gigabytes.
    """
    if _is_deep(raw):
        return raw
    lines = msgspec.json.format(raw, indent=1).split(b"\n")  # no string of JSON holds a line's end
    return b"\n".join(indent.encode() * (len(line) - len(line.lstrip(b" "))) + line.lstrip(b" ") for line in lines)


def _is_deep(raw: bytes) -> bool:
    depth = 0
    for match in _BRACKET.finditer(raw):
        if match[1]:
            depth += 1
            if depth > _DEEPEST:
                return True
        elif match[2]:
            depth -= 1
    return False


def encode_as_go(value: object, indent: str) -> bytes:
    """JSON as Go's json.MarshalIndent writes it: what Docker prints, and the bytes of the lists that it pushes."""
    raw = reindented(encode(value), indent)
    for char in "<>&\u2028\u2029":  # Go means JSON to be safe within HTML and JavaScript
        raw = raw.replace(char.encode(), f"\\u{ord(char):04x}".encode())
    return raw
