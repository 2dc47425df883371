"""Docker's filters of prune: until, label and label!."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput
from argosy.ops.selection import Selection, parse_moment, seconds

if TYPE_CHECKING:
    from collections.abc import Iterator

NOW = 1_795_449_600.0  # 2026-11-23T16:00:00Z


@pytest.fixture(autouse=True)
def local_time_is_utc() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("24h", NOW - 86400),
        ("1h30m", NOW - 5400),
        ("1.5h", NOW - 5400),
        ("10m5s", NOW - 605),
        ("500ms", NOW - 0.5),
        ("0s", NOW),
        ("2026-11-23T16:00:00Z", NOW),
        ("2026-11-23T18:00:00+02:00", NOW),
        ("2026-11-23T16:00:00.5", NOW + 0.5),
        ("2026-11-23T16:00", NOW),
        ("2026-11-23", NOW - 16 * 3600),
        ("1795449600", NOW),
        ("24", 24.0),
        ("1795449600.25", NOW + 0.25),
    ],
)
def test_until_takes_lengths_dates_and_unix_seconds(text: str, expected: float) -> None:
    assert parse_moment(text, now=NOW) == pytest.approx(expected, abs=1e-3)


@pytest.mark.parametrize("text", ["", "yesterday", "5d", "h", "1h 30m", "-5h", "2026-13-01", "99999999999999999999h x"])
def test_other_times_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_moment(text, now=NOW)
    assert (caught.value.code, caught.value.message) == ("filter-invalid", f"not a time: {text!r}")


def takes(filters: dict[str, list[str]], labels: dict[str, str], made: float | None = NOW - 3600) -> bool:
    return Selection.parse(filters, now=NOW).takes(made, lambda: labels)


@pytest.mark.parametrize(
    ("filters", "labels", "expected"),
    [
        ({}, {}, True),
        ({"label": ["a"]}, {"a": "1"}, True),
        ({"label": ["a"]}, {}, False),
        ({"label": ["a=1"]}, {"a": "1"}, True),
        ({"label": ["a=1"]}, {"a": "2"}, False),
        ({"label": ["a", "b"]}, {"a": "1"}, False),
        ({"label": ["a", "b"]}, {"a": "1", "b": ""}, True),
        ({"label!": ["a"]}, {"a": "1"}, False),
        ({"label!": ["a"]}, {}, True),
        ({"label!": ["a=1"]}, {"a": "2"}, True),
        ({"label!": ["a", "b"]}, {"a": "1"}, True),
        ({"label!": ["a", "b"]}, {"a": "1", "b": "2"}, False),
        ({"label": ["a"], "label!": ["b"]}, {"a": "1", "b": "2"}, False),
    ],
)
def test_labels_choose_as_dockers_do(filters: dict[str, list[str]], labels: dict[str, str], expected: bool) -> None:
    assert takes(filters, labels) is expected


def test_until_takes_what_was_made_before() -> None:
    assert takes({"until": ["30m"]}, {})
    assert not takes({"until": ["2h"]}, {})
    assert takes({"until": ["2h"]}, {}, made=None)  # nobody knows when; Docker takes Go's zero time for old too


def test_labels_are_not_read_for_a_time_that_decides() -> None:
    assert not Selection.parse({"until": ["2h"], "label": ["a"]}, now=NOW).takes(NOW, lambda: {}["never"])


def test_two_untils_are_refused() -> None:
    with pytest.raises(InvalidInput, match="more than one until filter specified"):
        Selection.parse({"until": ["1h", "2h"]}, now=NOW)


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [("2026-11-23T16:00:00Z", NOW), ("0001-01-01T00:00:00Z", None), ("", None), ("nonsense", None)],
)
def test_seconds_of_a_stamp(stamp: str, expected: float | None) -> None:
    assert seconds(stamp) == expected
