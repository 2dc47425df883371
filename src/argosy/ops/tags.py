"""tags: the tags of a remote repository, as the registry gives them or in the order of releases."""

from __future__ import annotations

import re
import sys
from itertools import islice
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.reference import is_tag
from .images import translated

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

    from ..oci.reference import Reference
    from ..remote.repository import Repository

#: A tag that names a version: 12.6.0-base, 24.05-py3, v1.2.
_VERSION = re.compile(r"[vV]?([0-9]+(?:\.[0-9]+)*)(.*)", re.DOTALL)
#: What follows the number of a version that comes before the release of this number.
_EARLY = re.compile(r"[-._]?(?:alpha|beta|rc|pre|preview|dev|ea|a|b)(?![a-z])", re.IGNORECASE)
_RUNS = re.compile(r"[0-9]+|[^0-9]+")


def list_tags(
    reference: Reference,
    *,
    repository: Repository,
    patterns: Sequence[str] = (),
    order: str = "",
    limit: int | None = None,
    skipped: Callable[[int], None] = lambda count: None,
) -> Iterator[str]:
    """Each tag of the repository of *reference* that meets one of *patterns* (all, where there are none).

    Without *order* a tag comes as soon as the registry has told it, and nothing past
    *limit* is asked for; with one («name», «version», or either with «-» before it for
    backwards) all are read first. *skipped* is told how many entries were no tags.

    Raises InvalidInput (filter-invalid, order-invalid, limit-invalid), NotFound
    (repository-unknown), Unauthorized, Unavailable, Corrupt.
    """
    if limit is not None and not 0 <= limit <= sys.maxsize:
        raise InvalidInput(f"not a limit: {limit}", code="limit-invalid", hint="the limit is a number from 0 on")
    matches, sort = matcher(reference, patterns), sorter(order)
    return islice(sort(filter(matches, _only_tags(repository.tags(), skipped))), limit)


def matcher(reference: Reference, patterns: Sequence[str]) -> Callable[[str], bool]:
    """Whether a tag meets one of *patterns*, which are those of `images`: of the tag, or of NAME:TAG. Pure."""
    compiled = [_compiled(pattern) for pattern in patterns]
    names = (reference.familiar_name, reference.name)

    def matches(tag: str) -> bool:
        forms = (tag, *(f"{name}:{tag}" for name in names))
        return not compiled or any(pattern.fullmatch(form) for pattern in compiled for form in forms)

    return matches


def _compiled(pattern: str) -> re.Pattern[str]:
    try:
        return re.compile(translated(pattern))
    except InvalidInput as error:
        raise InvalidInput(
            f"not a pattern of tags: {pattern!r}",
            code="filter-invalid",
            context=error.context,
            hint="patterns look like 13-* or *-ubuntu2?.04",
        ) from error


def sorter(order: str) -> Callable[[Iterable[str]], Iterable[str]]:
    """What puts tags in *order*. Pure."""
    keys: dict[str, Callable[[str], tuple[object, ...]]] = {"name": lambda tag: (tag,), "version": version_key}
    if not order:
        return lambda tags: tags
    name = order.removeprefix("-")
    if name not in keys:
        raise InvalidInput(
            f"not an order of tags: {order!r}", code="order-invalid", hint="name or version; -version is backwards"
        )
    return lambda tags: sorted(tags, key=keys[name], reverse=order.startswith("-"))


def version_key(tag: str) -> tuple[object, ...]:
    """Orders tags as releases: 24.05 before 24.12 before 25.01, 12.9.1 before 12.10.0, 2.0-rc1 before 2.0. Pure.

    Words come before versions, so that the newest version is the last of all. What
    follows a number is compared by its own numbers, so ubuntu20.04 comes before ubuntu22.04.
    """
    match = _VERSION.fullmatch(tag)
    if match is None:
        return (0, (), 0, _runs(tag), tag)
    rest = match[2]
    stage = -1 if _EARLY.match(rest) else bool(rest)
    return (1, tuple(map(int, match[1].split("."))), stage, _runs(rest), tag)


def _runs(text: str) -> tuple[tuple[bool, int, str], ...]:
    """Digits and the rest in turns; digits compare as numbers, and before words."""
    return tuple((False, int(run), "") if run[0].isdecimal() else (True, 0, run) for run in _RUNS.findall(text))


def _only_tags(names: Iterable[str], skipped: Callable[[int], None]) -> Iterator[str]:
    """What is no tag cannot be pulled, and is none of ours to print; told once all are read."""
    strange = 0
    for name in names:
        if is_tag(name):
            yield name
        else:
            strange += 1
    if strange:
        skipped(strange)
