"""Tables, sizes, ages and errors in Docker's form."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from argosy.cli import output
from argosy.cli.rows import LazyRow
from argosy.errors import Corrupt, Error, NotFound, Unauthorized

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.mark.parametrize(
    ("size", "text"),
    [
        (0, "0B"),
        (1, "1B"),
        (999, "999B"),
        (1000, "1kB"),
        (1024, "1.02kB"),
        (1234, "1.23kB"),
        (12_345, "12.3kB"),
        (999_400, "999kB"),
        (999_600, "1MB"),
        (1_000_000, "1MB"),
        (77_800_000, "77.8MB"),
        (133_000_000, "133MB"),
        (1_234_567_890, "1.23GB"),
        (10**12, "1TB"),
        (10**24, "1YB"),
        (10**27, "1e+03YB"),
    ],
)
def test_sizes_are_written_as_docker_writes_them(size: int, text: str) -> None:
    assert output.human_size(size) == text


def test_four_digits_are_go_units_own_choice() -> None:
    assert output.human_size(1_234_567, 4) == "1.235MB"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-5, "Less than a second"),
        (0, "Less than a second"),
        (0.99, "Less than a second"),
        (1, "1 second"),
        (45, "45 seconds"),
        (60, "About a minute"),
        (119, "About a minute"),
        (120, "2 minutes"),
        (3599, "59 minutes"),
        (3600, "About an hour"),
        (5399, "About an hour"),
        (5400, "2 hours"),
        (47 * 3600, "47 hours"),
        (48 * 3600, "2 days"),
        (13 * 86400, "13 days"),
        (14 * 86400, "2 weeks"),
        (59 * 86400, "8 weeks"),
        (60 * 86400, "2 months"),
        (729 * 86400, "24 months"),
        (730 * 86400, "2 years"),
    ],
)
def test_ages_are_in_dockers_words(seconds: float, text: str) -> None:
    """The table of docker/go-units."""
    assert output.human_duration(seconds) == text


@pytest.mark.parametrize(
    ("stamp", "seconds"),
    [
        ("1970-01-01T00:00:00Z", 0.0),
        ("2026-11-23T16:23:00.123456789Z", 1795450980.0),
        ("2024-02-29T12:00:00+02:00", 1709200800.0),
        ("2024-02-29T12:00:00.5-0230".replace("0230", "02:30"), 1709217000.0),
        ("1969-12-31T23:59:59Z", -1.0),
        ("2100-03-01T00:00:00z", 4107542400.0),
        ("0001-01-01T00:00:00Z", None),
        ("", None),
        ("yesterday", None),
        ("2026-11-23", None),
        ("2026-11-23T16:23:00", None),
        ("2026-11-23T16:23:00+x", None),
    ],
)
def test_times_are_read_without_the_datetime_module(stamp: str, seconds: float | None) -> None:
    assert output.timestamp(stamp) == seconds


def test_an_unknown_time_has_no_age() -> None:
    assert (output.age(""), output.local_time("")) == ("N/A", "N/A")
    assert output.age("2026-11-23T16:23:00Z", now=1795450980 + 7200) == "2 hours ago"


def test_a_table_is_aligned_as_docker_aligns_it() -> None:
    assert output.table(("CONTAINER ID", "IMAGE", "NAMES"), [("abc", "nvidia/cuda:13-devel", "x")]) == (
        "CONTAINER ID   IMAGE                  NAMES\nabc            nvidia/cuda:13-devel   x\n"
    )


def test_a_column_is_ten_characters_wide_at_least() -> None:
    assert output.table(("ID", "TAG"), []) == "ID        TAG\n"


@pytest.mark.parametrize(
    ("text", "width", "shown"), [("abc", 3, "abc"), ("abcd", 3, "ab…"), ("abcd", 1, "…"), ("abcd", 0, "…"), ("", 0, "")]
)
def test_long_text_ends_with_an_ellipsis(text: str, width: int, shown: str) -> None:
    assert output.ellipsis(text, width) == shown


def test_short_ids_of_digests_and_plain_ids() -> None:
    assert output.short_id("sha256:0123456789abcdef") == output.short_id("0123456789abcdef") == "0123456789ab"


def test_json_lines_are_sorted_and_compact() -> None:
    assert output.json_line({"b": 1, "a": "é"}) == '{"a":"é","b":1}\n'


def test_an_error_is_drawn_with_its_facts_and_its_hint() -> None:
    error = NotFound(
        "no image for this machine",
        code="platform-not-in-index",
        context="docker.io/library/foo:1 offers linux/amd64\nthis machine is linux/riscv64",
        hint="pull another with --platform linux/amd64,\nor build it here",
    )
    assert output.draw(error) == (
        "error: no image for this machine [platform-not-in-index]\n"
        "  docker.io/library/foo:1 offers linux/amd64\n"
        "  this machine is linux/riscv64\n"
        "  hint: pull another with --platform linux/amd64,\n"
        "        or build it here\n"
    )


def test_an_error_without_facts_is_one_line() -> None:
    assert output.draw(Error("no", code="x")) == "error: no [x]\n"


def test_colours_are_around_the_words_only() -> None:
    drawn = output.draw(Error("no", code="x", hint="y"), colour=True)
    assert drawn == "\x1b[1;31merror:\x1b[0m no \x1b[2m[x]\x1b[0m\n  \x1b[2mhint:\x1b[0m y\n"


def test_text_from_outside_cannot_drive_the_terminal() -> None:
    error = Corrupt("bad name \x1b[2J\x07", code="x", context="line\rover\nnext\x9b")
    assert output.draw(error) == "error: bad name \\x1b[2J\\x07 [x]\n  line\n  over\n  next\\x9b\n"


def test_a_warning_is_given_once(capsys: pytest.CaptureFixture[str]) -> None:
    output.warning("only in this test")
    output.warning("only in this test")
    assert capsys.readouterr().err == "warning: only in this test\n"


@pytest.mark.parametrize(
    ("error", "kind", "code"),
    [
        (PermissionError(13, "Permission denied", "/x"), Unauthorized, "permission-denied"),
        (MemoryError(), Error, "out-of-memory"),
        (ZeroDivisionError("division by zero"), Error, "internal"),
    ],
)
def test_any_exception_becomes_an_error(error: BaseException, kind: type[Error], code: str) -> None:
    shown = output.as_error(error)
    assert (type(shown), shown.code) == (kind, code)


def test_a_fault_of_ours_is_called_one() -> None:
    assert output.as_error(KeyError("x")).message == "this is a fault in argosy: KeyError: 'x'"


HEADERS = {"Name": "NAME", "Tag": "TAG", "Digest": "DIGEST"}


@pytest.mark.parametrize(
    ("template", "quiet", "printed"),
    [
        (None, None, ["NAME          TAG\nlonger/name   1\n", "longer/name   22\n"]),
        ("table", "Tag", ["NAME          TAG\nlonger/name   1\n", "longer/name   22\n"]),
        (None, "Tag", ["1\n", "22\n"]),
        ("json", None, ['{"Name":"longer/name","Tag":"1"}\n', '{"Name":"longer/name","Tag":"22"}\n']),
        ("{{.Tag}}!", "Tag", ["1!\n", "22!\n"]),
    ],
)
def test_a_row_of_a_stream_is_printed_before_the_next_is_made(
    template: str | None, quiet: str | None, printed: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    seen = []

    def rows() -> Iterator[dict[str, str]]:
        for tag in ("1", "22"):
            yield {"Name": "longer/name", "Tag": tag}
            seen.append(capsys.readouterr().out)

    output.stream(rows(), columns=("Name", "Tag"), headers=HEADERS, template=template, quiet=quiet)
    assert seen == printed


def test_an_empty_stream_is_a_heading(capsys: pytest.CaptureFixture[str]) -> None:
    output.stream([], columns=("Name", "Tag"), headers=HEADERS)
    assert capsys.readouterr().out == "NAME      TAG\n"
    output.stream([], columns=("Name", "Tag"), headers=HEADERS, template="json")
    assert capsys.readouterr().out == ""


def test_a_table_template_of_a_stream_is_aligned_to_all_rows(capsys: pytest.CaptureFixture[str]) -> None:
    rows = ({"Name": name, "Tag": "x"} for name in ("a", "a-long-one"))
    output.stream(rows, columns=("Name", "Tag"), headers=HEADERS, template="table {{.Name}}\t{{.Tag}}")
    assert capsys.readouterr().out == "NAME         TAG\na            x\na-long-one   x\n"


def test_a_field_that_costs_is_made_once_and_only_when_it_is_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    made: list[str] = []

    def digest() -> str:
        made.append("digest")
        return "sha256:1"

    for template, times in (("{{.Tag}}", 0), ("json", 0), ("{{.Digest}} {{.Digest}}", 1)):
        output.stream(
            [LazyRow(Name="a", Tag="1", Digest=digest)], columns=("Name", "Tag"), headers=HEADERS, template=template
        )
        assert len(made) == times
    assert capsys.readouterr().out == '1\n{"Name":"a","Tag":"1"}\nsha256:1 sha256:1\n'


def test_a_field_that_does_not_exist_is_a_mistake_in_a_stream_too() -> None:
    with pytest.raises(Error) as caught:
        output.stream([LazyRow(Digest="x")], columns=("Digest",), headers=HEADERS, template="{{.Digset}}")
    assert "there is no field .Digset (did you mean Digest?)" in caught.value.message
