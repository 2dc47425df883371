"""JSON in and out for the values of this package: the one place that knows how a Digest travels."""

from __future__ import annotations

from typing import Literal, TypeVar

import msgspec

from .digest import Digest

_T = TypeVar("_T")


def encode(value: object, *, order: Literal["deterministic", "sorted"] | None = None) -> bytes:
    """Compact JSON of a document; equal inputs give equal bytes."""
    return msgspec.json.encode(value, enc_hook=_encode, order=order)


def decode(raw: bytes | str, kind: type[_T]) -> _T:
    """*raw* as a *kind*; a member that is null counts as absent, as for the programs in Go that write most documents.

    Raises msgspec.ValidationError or msgspec.DecodeError with the JSON path of the
    fault, InvalidInput for a digest that is none, RecursionError for a bomb; callers
    know what the document is and turn these into Corrupt.
    """
    try:
        return msgspec.json.decode(raw, type=kind, dec_hook=_decode)
    except msgspec.ValidationError as error:
        if "got `null`" not in str(error):
            raise
    return msgspec.convert(_without_nulls(msgspec.json.decode(raw)), type=kind, dec_hook=_decode)


def _without_nulls(value: object) -> object:
    if isinstance(value, dict):
        return {name: _without_nulls(member) for name, member in value.items() if member is not None}
    return [_without_nulls(element) for element in value] if isinstance(value, list) else value


def _encode(value: object) -> object:
    if isinstance(value, Digest):
        return str(value)  # msgspec takes exact str only
    raise NotImplementedError(f"no rule to encode {type(value)}")


def _decode(kind: type, value: object) -> object:
    if kind is Digest:
        if isinstance(value, str):
            return Digest.parse(value)
        raise TypeError(f"Expected `str`, got `{'null' if value is None else type(value).__name__}`")
    raise NotImplementedError(f"no rule to decode {kind}")
