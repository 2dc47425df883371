"""Rows of a list whose fields cost something: each is worked out when it is first asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping


class LazyRow(Mapping[str, str]):
    """{field: text}, for --format; a field is given as its text or as what makes it, which is called once at most."""

    def __init__(self, **fields: str | Callable[[], str]) -> None:
        self._fields = fields

    def __getitem__(self, field: str) -> str:
        value = self._fields[field]
        if callable(value):
            value = self._fields[field] = value()
        return value

    def __contains__(self, field: object) -> bool:
        return field in self._fields

    def __iter__(self) -> Iterator[str]:
        return iter(self._fields)

    def __len__(self) -> int:
        return len(self._fields)
