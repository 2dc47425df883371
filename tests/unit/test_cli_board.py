"""How progress looks: columns, lines, speeds. Time is handed in, so nothing here waits."""

from __future__ import annotations

import pytest

from argosy.cli.board import Board, Rate, final, frame, short_time
from argosy.ops.progress import Advanced, Event, Finished, Started, Waiting

MB = 1_000_000


def board(*events: Event, now: float = 0.0) -> Board:
    made = Board()
    for event in events:
        made.tell(event, now)
    return made


def moving(count: int, waiting: int = 0, done: int = 0) -> Board:
    """Done layers, then moving ones of 100 MB at 10 MB/s, 40 MB far, then waiting ones."""
    made = board(*(Waiting(f"{number:012x}", 100 * MB) for number in range(done + count + waiting)))
    for number in range(done):
        made.tell(Started(f"{number:012x}", 100 * MB, "Downloading"), 0)
        made.tell(Finished(f"{number:012x}", "Pull complete"), 0)
    for number in range(done, done + count):
        made.tell(Started(f"{number:012x}", 100 * MB, "Downloading"), 0)
    for second in range(4):
        for number in range(done, done + count):
            made.tell(Advanced(f"{number:012x}", 10 * MB), second + 1)
        made.sample(second + 1)
    return made


def test_at_eighty_columns_a_line_has_bar_amounts_speed_and_time_left() -> None:
    assert frame(moving(2, waiting=1), 80, 24, 4) == [
        "000000000000: Downloading [======>        ]    40MB/100MB    10MB/s      6s left",
        "000000000001: Downloading [======>        ]    40MB/100MB    10MB/s      6s left",
        "000000000002: Waiting",
        "Total:        Downloading [====>          ]    80MB/300MB    20MB/s     11s left",
    ]


def test_at_two_hundred_columns_the_bar_is_longer() -> None:
    (line,) = frame(moving(1), 200, 24, 4)
    bar = "[" + ("=" * 19 + ">").ljust(48) + "]"
    assert line == f"000000000000: Downloading {bar}    40MB/100MB    10MB/s      6s left"


def test_at_forty_columns_share_speed_and_time_left_remain() -> None:
    assert frame(moving(1, waiting=1, done=1), 40, 24, 4) == [
        "000000000000: Pull complete",
        "000000000001:  40%   10MB/s     6s",
        "000000000002: Waiting",
        "Total:         46%   10MB/s    16s",
    ]


@pytest.mark.parametrize("width", [1, 5, 12, 20, 33, 34, 40, 63, 64, 73, 74, 80, 120, 200, 1000])
@pytest.mark.parametrize("height", [1, 2, 5, 23])
def test_no_width_and_height_is_exceeded(width: int, height: int) -> None:
    lines = frame(moving(4, waiting=30, done=26), width, height, 4)
    assert len(lines) == height
    assert max(map(len, lines)) <= width


def test_what_moves_is_shown_when_there_are_more_layers_than_lines() -> None:
    assert frame(moving(4, waiting=36, done=20), 40, 8, 4) == [
        "000000000014:  40%   10MB/s     6s",
        "000000000015:  40%   10MB/s     6s",
        "000000000016:  40%   10MB/s     6s",
        "000000000017:  40%   10MB/s     6s",
        "000000000018: Waiting",
        "000000000019: Waiting",
        "... 54 more: 34 waiting, 20 done",
        "Total:         36%   40MB/s  1m36s",
    ]


def test_the_last_ones_that_are_done_fill_what_is_left() -> None:
    lines = frame(moving(1, done=10), 80, 6, 4)
    assert [line.partition(":")[0] for line in lines[:3]] == ["000000000007", "000000000008", "000000000009"]
    assert lines[4] == "... 7 more: 7 done"


def test_everything_is_listed_at_the_end() -> None:
    made = board(
        Waiting("a"), Started("b", 1, "Downloading"), Finished("b", "Pull complete"), Finished("a", "Already exists")
    )
    assert final(made) == ["a: Already exists", "b: Pull complete"]


def test_a_burst_does_not_make_the_speed_jump() -> None:
    """One megabyte a tenth of a second, but the pipe delivers once a second."""
    made, seen = board(Started("a", None, "Downloading")), []
    for tick in range(1, 201):
        now = tick / 10
        if tick % 10 == 0:
            made.tell(Advanced("a", 10 * MB), now)
        made.sample(now)
        amount = made.lines["a"].amount
        assert amount is not None
        if tick > 60:
            seen.append(amount.speed(now) or 0)
    assert min(seen) >= 8 * MB
    assert max(seen) <= 12 * MB


def test_a_stall_shows_within_the_window() -> None:
    made = moving(1)
    speeds = []
    for second in range(5, 12):
        made.sample(second)
        amount = made.lines["000000000000"].amount
        assert amount is not None
        speeds.append(amount.speed(second) or 0)
    assert speeds == sorted(speeds, reverse=True)
    assert speeds[-1] == 0
    assert frame(made, 80, 24, 11) == ["000000000000: Downloading [======>        ]    40MB/100MB      0B/s"]


def test_what_an_earlier_attempt_has_brought_is_progress_but_not_speed() -> None:
    made = board(Started("a", 100 * MB, "Downloading", 50 * MB), Started("b", 100 * MB, "Downloading"))
    for second in range(1, 4):
        made.tell(Advanced("a", MB), second)
        made.sample(second)
    made.tell(Started("b", 100 * MB, "Downloading", 90 * MB), 3)
    made.sample(3)
    total = made.total(3)
    assert total is not None
    assert (total[1].done, total[1].speed(3)) == (143 * MB, MB)
    assert made.lines["a"].amount is not None
    assert made.lines["a"].amount.speed(3) == MB


def test_a_layer_that_another_process_brought_is_no_speed_either() -> None:
    made = board(Started("a", 100 * MB, "Downloading"), Started("b", 100 * MB, "Downloading"))
    for second in range(1, 4):
        made.tell(Advanced("a", MB), second)
        made.sample(second)
    made.tell(Waiting("b", 100 * MB, "Waiting for another argosy"), 3)
    assert frame(made, 80, 24, 3)[1] == "b:     Waiting for another argosy"
    made.tell(Finished("b", "Already exists"), 3)
    total = made.total(3)
    assert total is not None
    assert (total[1].done, total[1].total, total[1].speed(3)) == (103 * MB, 200 * MB, MB)


def test_the_total_is_of_the_first_kind_of_work_that_is_not_done() -> None:
    made = board(
        Waiting("c", 10),
        Started("a", 10, "Downloading"),
        Advanced("a", 10),
        Started("a", 10, "Extracting"),
        Advanced("a", 4),
        Started("b", 10, "Downloading"),
        Advanced("b", 3),
    )
    assert [(what, amount.done, amount.total) for what, amount in [made.total(0) or ("", None)] if amount] == [
        ("Downloading", 13, 30)
    ]
    for name in "bc":
        made.tell(Finished(name, "Pull complete"), 0)
    assert [(what, amount.done, amount.total) for what, amount in [made.total(0) or ("", None)] if amount] == [
        ("Extracting", 4, 10)
    ]
    made.tell(Finished("a", "Pull complete"), 0)
    assert made.total(0) is None


def test_sizes_that_nobody_knows_are_left_out() -> None:
    made = board(Started("a", None, "Packing"))
    for second in range(1, 3):
        made.tell(Advanced("a", MB), second)
        made.sample(second)
    assert frame(made, 80, 24, 2) == ["a:     Packing     [                      ]           2MB     1MB/s"]


def test_names_from_outside_cannot_drive_the_terminal() -> None:
    assert final(board(Finished("\x1b[2J", "done"))) == ["\\x1b[2J: done"]


def test_a_long_name_leaves_room_for_the_figures() -> None:
    lines = frame(board(Started("x" * 100, 10, "Packing"), Started("y", 10, "Packing")), 80, 24, 0)
    assert lines[0].startswith("x" * 24 + "..: Packing")
    assert max(map(len, lines)) <= 80


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "0s"), (59.4, "59s"), (59.6, "1m00s"), (200, "3m20s"), (3600, "1h00m"), (7500, "2h05m"), (1e9, "99h+")],
)
def test_time_left_is_short(seconds: float, text: str) -> None:
    assert short_time(seconds) == text


def test_a_speed_is_not_told_too_early() -> None:
    rate = Rate(0, 0.0)
    rate.note(5 * MB, 0.5)
    assert rate.at(5 * MB, 0.5) is None
    assert rate.at(10 * MB, 1.0) == 10 * MB
