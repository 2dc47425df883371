"""images: which rows of the listing to show, in which order. Pure.

On the start-up path of `argosy images`: imports neither msgspec nor json, see store/listing.py.
"""

from __future__ import annotations

from ..errors import InvalidInput

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from ..store.listing import Row

    Test = Callable[[Row], bool]

FILTERS = ("before", "dangling", "label", "reference", "since", "until")
_TRUE = frozenset({"1", "t", "true"})
_FALSE = frozenset({"0", "f", "false"})


def select(
    rows: Iterable[Row],
    *,
    pattern: str = "",
    filters: Sequence[str] = (),
    find: Callable[[str], Row],
    labels: Callable[[Row], Mapping[str, str]],
) -> list[Row]:
    """The rows to show, newest image first, then by name.

    *pattern* is REPOSITORY[:TAG]; *filters* are KEY=VALUE as `docker images` takes
    them: values of one key widen, keys narrow (labels narrow too). *find* gives the row of
    a named image for before and since, *labels* those of an image.

    Raises InvalidInput (filter-invalid), and what *find* raises.
    """
    tests = _tests(filters, find, labels)
    if pattern:
        tests.append(_reference_test([pattern]))
    shown = [row for row in rows if all(test(row) for test in tests)]
    shown.sort(key=lambda row: (row.repository, row.tag))
    shown.sort(key=lambda row: moment(row.created), reverse=True)
    return shown


def moment(created: str) -> str:
    """An RFC 3339 time as text that sorts by time; empty for what is none."""
    if created.endswith("Z"):
        return created[:-1]
    if not created:
        return ""
    from datetime import UTC, datetime  # 2 ms; few images have another zone than Z

    try:
        return datetime.fromisoformat(created).astimezone(UTC).isoformat()[:-6]
    except ValueError:
        return ""


def _tests(
    filters: Sequence[str], find: Callable[[str], Row], labels: Callable[[Row], Mapping[str, str]]
) -> list[Test]:
    values: dict[str, list[str]] = {}
    for text in filters:
        key, equals, value = text.partition("=")
        if not equals or key.strip().lower() not in FILTERS:
            raise _invalid(text, f"known: {', '.join(FILTERS)}")
        values.setdefault(key.strip().lower(), []).append(value.strip())
    return [_test(key, words, find, labels) for key, words in values.items()]


def _test(
    key: str, values: Sequence[str], find: Callable[[str], Row], labels: Callable[[Row], Mapping[str, str]]
) -> Test:
    if key == "reference":
        return _reference_test(values)
    if key == "label":
        return lambda row: all(has_label(labels(row), value) for value in values)
    if key == "dangling":
        wanted = _truth(values[-1])
        return lambda row: row.is_untagged == wanted
    if key == "until":
        limit = moment(values[-1])
        if not limit:
            raise _invalid(f"until={values[-1]}", "until takes a time like 2026-11-23T16:00:00Z")
        return lambda row: moment(row.created) < limit
    border = moment(find(values[-1]).created)
    if key == "before":
        return lambda row: moment(row.created) < border
    return lambda row: moment(row.created) > border


def _reference_test(patterns: Sequence[str]) -> Test:
    """Docker's rule: the pattern meets the familiar name with its tag, or without. Full names are taken too."""
    import re

    compiled = [re.compile(translated(pattern)) for pattern in patterns]

    def test(row: Row) -> bool:
        if row.is_untagged:
            return False
        forms = (row.familiar, row.repository, row.reference, row.name)
        return any(pattern.fullmatch(form) for pattern in compiled for form in forms)

    return test


def translated(pattern: str) -> str:
    """A shell pattern as Go's path.Match reads it («*» and «?» stop at «/»), as a regular expression.

    Raises InvalidInput (filter-invalid) for an open bracket or a last backslash.
    """
    import re

    out, left = [], list(reversed(pattern))
    while left:
        char = left.pop()
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            out.append(_character_class(pattern, left))
        elif char == "\\" and not left:
            raise _invalid(pattern, "the pattern ends with a backslash")
        else:
            out.append(re.escape(left.pop() if char == "\\" else char))
    return "".join(out)


def _character_class(pattern: str, left: list[str]) -> str:
    import re

    negated = bool(left) and left[-1] == "^"
    if negated:
        left.pop()
    inside: list[str] = []
    while left and (left[-1] != "]" or not inside):
        char = left.pop()
        if char == "\\" and left:
            char = left.pop()
            inside.append(re.escape(char))
        else:
            inside.append("-" if char == "-" else re.escape(char))
    if not left:
        raise _invalid(pattern, "a bracket is not closed")
    left.pop()
    text = f"[{'^' if negated else ''}{''.join(inside)}]"
    try:
        re.compile(text)
    except re.error as error:
        raise _invalid(pattern, f"bad character class {text}") from error
    return text


def has_label(labels: Mapping[str, str], wanted: str) -> bool:
    """Whether KEY or KEY=VALUE holds."""
    key, equals, value = wanted.partition("=")
    return key in labels and (not equals or labels[key] == value)


def _truth(text: str) -> bool:
    if text.lower() in _TRUE | _FALSE:
        return text.lower() in _TRUE
    raise _invalid(f"dangling={text}", "dangling takes true or false")


def _invalid(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"not a filter of images: {text!r}",
        code="filter-invalid",
        context=why,
        hint="filters look like reference=nvidia/*:*, dangling=true, label=KEY=VALUE, before=IMAGE",
    )
