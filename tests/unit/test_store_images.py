"""Which images `argosy images` shows, and in which order."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidInput
from argosy.ops.images import moment, select, translated
from argosy.store.listing import Row

ID = "sha256:" + "1" * 64


def row(name: str, tag: str, created: str) -> Row:
    return Row("x.json", name, tag, "", ID, ID, ID, created, "5")


ROWS = (
    row("docker.io/library/debian", "12", "2026-03-01T00:00:00Z"),
    row("docker.io/nvidia/cuda", "13-devel", "2026-02-01T00:00:00Z"),
    row("docker.io/nvidia/cuda", "13-base", "2026-02-01T00:00:00Z"),
    row("localhost:5000/nvidia/cuda", "13-base", "2026-01-01T00:00:00.5+01:00"),
    row("/<none>", "", "2025-01-01T00:00:00Z"),
    row("docker.io/library/scratch", "1", ""),
)
NEWEST_FIRST = [
    "debian:12",
    "nvidia/cuda:13-base",
    "nvidia/cuda:13-devel",
    "localhost:5000/nvidia/cuda:13-base",
    "<none>",
    "scratch:1",
]


def shown(pattern: str = "", *filters: str) -> list[str]:
    def find(text: str) -> Row:
        return next(candidate for candidate in ROWS if candidate.familiar == text)

    def labels(candidate: Row) -> dict[str, str]:
        return {"maintainer": candidate.repository, "os": "debian"}

    return [found.familiar for found in select(ROWS, pattern=pattern, filters=filters, find=find, labels=labels)]


def test_images_are_shown_newest_first_then_by_name() -> None:
    assert shown() == NEWEST_FIRST


PATTERNS = {
    "debian": ["debian:12"],
    "debian:12": ["debian:12"],
    "debian:11": [],
    "docker.io/library/debian": ["debian:12"],
    "nvidia/cuda": ["nvidia/cuda:13-base", "nvidia/cuda:13-devel"],
    "nvidia/cuda:*-devel": ["nvidia/cuda:13-devel"],
    "*": ["debian:12", "scratch:1"],
    "*/*": ["nvidia/cuda:13-base", "nvidia/cuda:13-devel"],
    "*/*/cuda:13-bas?": ["localhost:5000/nvidia/cuda:13-base", "nvidia/cuda:13-base"],
    "[a-d]*": ["debian:12"],
    "[^a-d]*": ["scratch:1"],
    "debia\\n": ["debian:12"],
    "ebian": [],
}


@pytest.mark.parametrize("pattern", PATTERNS)
def test_a_pattern_meets_the_name_with_or_without_its_tag(pattern: str) -> None:
    assert sorted(shown(pattern)) == sorted(PATTERNS[pattern])
    assert sorted(shown("", f"reference={pattern}")) == sorted(PATTERNS[pattern])


FILTERS = {
    ("dangling=true",): ["<none>"],
    ("dangling=false",): [name for name in NEWEST_FIRST if name != "<none>"],
    ("before=nvidia/cuda:13-base",): ["localhost:5000/nvidia/cuda:13-base", "<none>", "scratch:1"],
    ("since=nvidia/cuda:13-base",): ["debian:12"],
    ("until=2026-01-01T00:00:00Z",): ["localhost:5000/nvidia/cuda:13-base", "<none>", "scratch:1"],
    ("reference=debian", "reference=scratch"): ["debian:12", "scratch:1"],
    ("label=os",): NEWEST_FIRST,
    ("label=os=debian", "label=maintainer=debian"): ["debian:12"],
    ("label=nothing",): [],
    ("reference=*/cuda", "since=nvidia/cuda:13-base"): [],
}


@pytest.mark.parametrize("filters", FILTERS, ids=" ".join)
def test_filters_are_dockers(filters: tuple[str, ...]) -> None:
    assert shown("", *filters) == FILTERS[filters]


@pytest.mark.parametrize(
    "text", ["dangling", "colour=red", "dangling=perhaps", "reference=[a", "reference=a\\", "until=soon", "=x"]
)
def test_a_bad_filter_is_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        shown("", text)
    assert caught.value.code == "filter-invalid"


def test_times_of_any_zone_sort_by_time() -> None:
    assert moment("2026-01-01T00:00:00+01:00") == "2025-12-31T23:00:00"
    assert (moment("2026-01-01T00:00:00.5Z"), moment(""), moment("yesterday")) == ("2026-01-01T00:00:00.5", "", "")


def test_characters_of_regular_expressions_are_plain_in_patterns() -> None:
    assert translated("a.b+(c)|$") == r"a\.b\+\(c\)\|\$"
