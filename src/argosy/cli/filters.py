"""--filter KEY=VALUE: one grammar for every list. Imported by verbs that list."""

from __future__ import annotations

from ..errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence


def parse(texts: Iterable[str], *, known: frozenset[str]) -> dict[str, list[str]]:
    """{key: values} of what --filter was given. Raises InvalidInput (filter-invalid)."""
    found: dict[str, list[str]] = {}
    for text in texts:
        key, equals, value = text.partition("=")
        key = key.strip().lower()
        if not equals:
            raise InvalidInput(
                f"not a filter: {text!r}", code="filter-invalid", context="filters are KEY=VALUE", hint=_known(known)
            )
        if key not in known:
            raise InvalidInput(f"invalid filter {key!r}", code="filter-invalid", hint=_known(known))
        found.setdefault(key, []).append(value.strip())
    return found


def _known(known: frozenset[str]) -> str:
    return f"keys: {', '.join(sorted(known))}"


def matches_labels(labels: Mapping[str, str], wanted: Sequence[str]) -> bool:
    """Whether all of KEY or KEY=VALUE hold."""
    for text in wanted:
        key, equals, value = text.partition("=")
        if key not in labels or (equals and labels[key] != value):
            return False
    return True


def matches_name(name: str, pattern: str) -> bool:
    """A part of the name, or a regular expression. Raises InvalidInput (filter-invalid)."""
    if pattern in name:
        return True
    import re  # a plain part of the name needs none

    try:
        return re.search(pattern.removeprefix("^/").removeprefix("/"), name) is not None
    except re.error as error:
        raise InvalidInput(
            f"not a regular expression: {pattern!r}", code="filter-invalid", context=str(error)
        ) from error


def same_image(name: str, other: str) -> bool:
    """Whether two names mean the same tag of the same repository."""
    from ..oci.reference import Reference

    try:
        first, second = Reference.parse(name), Reference.parse(other)
    except InvalidInput:
        return name == other
    return (first.name, first.tag, first.digest) == (second.name, second.tag, second.digest)
