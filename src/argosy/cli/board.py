"""The state of everything that a verb works on, and how it looks in so many columns and lines. Pure: time is handed in.

`cli/progress.py` feeds it events and puts its lines on the terminal.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING

from ..ops.progress import Advanced, Finished, Started, Waiting
from ..sizes import human_size
from .output import printable

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..ops.progress import Event

_WINDOW_S = 5.0  # a speed is that of the last seconds: shorter ones jump with every burst
_STEP_S = 0.1  # between two samples
_SOONEST_S = 1.0  # before that a speed is chance
_WHAT, _LONGEST_WHAT = len("Downloading"), 24
_AMOUNTS = len("99.9MB/99.9MB")
_SPEED = len("99.9MB/s")
_LEFT = len("59m59s left")
_FIGURES = _AMOUNTS + _SPEED + _LEFT + 4
_SHORTEST_BAR, _LONGEST_BAR = 10, 50
_TOTAL = "Total"


class Rate:
    """Bytes a second over the last seconds, of an amount that is told now and then."""

    def __init__(self, done: int, now: float) -> None:
        self._samples = deque([(now, done)])

    def note(self, done: int, now: float) -> None:
        if now - self._samples[-1][0] >= _STEP_S:
            self._samples.append((now, done))
        while len(self._samples) > 2 and now - self._samples[1][0] >= _WINDOW_S:
            self._samples.popleft()

    def shift(self, count: int) -> None:
        """*count* more are done, or fewer, without having been moved now."""
        self._samples = deque((then, done + count) for then, done in self._samples)

    def at(self, done: int, now: float) -> float | None:
        """None when that is too early to say."""
        then, before = self._samples[0]
        return (done - before) / (now - then) if now - then >= _SOONEST_S else None


class Amount:
    """How far one piece of work, or several together, have come. *total* is None when it is unknown."""

    def __init__(self, done: int, total: int | None, now: float) -> None:
        self.done = done
        self.total = total
        self.rate = Rate(done, now)
        self.is_over = False

    @property
    def is_complete(self) -> bool:
        return self.is_over or (self.total is not None and self.done >= self.total)

    def speed(self, now: float) -> float | None:
        return self.rate.at(self.done, now)

    def left_s(self, now: float) -> float | None:
        """Seconds to go at the present speed."""
        speed = self.speed(now)
        return (self.total - self.done) / speed if self.total is not None and speed else None


class Line:
    """One thing that is worked on. *amount* is None while nothing moves: it waits, or is done."""

    def __init__(self, name: str, what: str, total: int | None) -> None:
        self.name = name
        self.what = what
        #: as announced, for those that wait
        self.total = total
        self.amount: Amount | None = None
        self.is_done = False

    @property
    def is_waiting(self) -> bool:
        return self.amount is None and not self.is_done


class Board:
    """Lines in the order in which they were first heard of, and a sum for each kind of work. Callers take turns."""

    def __init__(self) -> None:
        self.lines: dict[str, Line] = {}
        #: {what: {name: amount}}, in the order in which the first of each kind began
        self._work: dict[str, dict[str, Amount]] = {}
        self._sums: dict[str, Rate] = {}

    def tell(self, event: Event, now: float) -> None:
        if isinstance(event, Waiting):
            self._wait(event)
        elif isinstance(event, Started):
            self._start(event, now)
        elif isinstance(event, Advanced):
            self._advance(event, now)
        elif isinstance(event, Finished):
            self._finish(event)

    def sample(self, now: float) -> None:
        """Note what is done by now; speeds come from that, so it is to be called a few times a second."""
        for line in self.lines.values():
            if line.amount is not None:
                line.amount.rate.note(line.amount.done, now)
        for what, amounts in self._work.items():
            self._sums[what].note(sum(amount.done for amount in amounts.values()), now)

    def total(self, now: float) -> tuple[str, Amount] | None:
        """(kind of work, its sum) of the first kind that is not done; those that wait count to the first of all."""
        for place, (what, amounts) in enumerate(self._work.items()):
            waiting = [line.total for line in self.lines.values() if line.is_waiting and not self._has_begun(line.name)]
            waiting = waiting if place == 0 else []
            if waiting or not all(amount.is_complete for amount in amounts.values()):
                return what, self._sum(what, [amount.total for amount in amounts.values()] + waiting, now)
        return None

    def _has_begun(self, name: str) -> bool:
        return any(name in amounts for amounts in self._work.values())

    def _sum(self, what: str, totals: Iterable[int | None], now: float) -> Amount:
        known = [total for total in totals if total is not None]
        amount = Amount(sum(each.done for each in self._work[what].values()), sum(known) if known else None, now)
        amount.rate = self._sums[what]
        return amount

    def _wait(self, event: Waiting) -> None:
        line = self._line(event.id)
        line.what, line.total, line.amount, line.is_done = event.why, event.total, None, False

    def _start(self, event: Started, now: float) -> None:
        line, amounts = self._line(event.id), self._work.setdefault(event.what, {})
        self._end_work(event.id)
        before = amounts[event.id].done if event.id in amounts else 0
        line.amount = amounts[event.id] = Amount(event.done, event.total, now)
        line.what, line.total, line.is_done = event.what, event.total, False
        self._sums.setdefault(event.what, Rate(0, now)).shift(event.done - before)

    def _advance(self, event: Advanced, now: float) -> None:
        line = self._line(event.id)
        if line.amount is None:
            self._start(Started(event.id, line.total, line.what), now)
        assert line.amount is not None
        line.amount.done += event.count

    def _finish(self, event: Finished) -> None:
        line = self._line(event.id)
        self._end_work(event.id)
        line.what, line.amount, line.is_done = event.status, None, True

    def _end_work(self, name: str) -> None:
        """What *name* was at is over; what is missing of it came without moving (from another process, say)."""
        for what, amounts in self._work.items():
            amount = amounts.get(name)
            if amount is not None and not amount.is_over:
                missing = 0 if amount.total is None else amount.total - amount.done
                amount.done, amount.is_over = amount.done + missing, True
                self._sums[what].shift(missing)

    def _line(self, name: str) -> Line:
        if name not in self.lines:
            self.lines[name] = Line(printable(name), "Waiting", None)
        return self.lines[name]


def frame(board: Board, width: int, height: int, now: float) -> list[str]:
    """The board as it is, in at most *height* lines of at most *width* characters; what moves is shown first."""
    total = board.total(now) if len(board.lines) > 1 else None
    room = max(height - (total is not None), 1)
    shown, rest = _chosen(list(board.lines.values()), room)
    names = max([len(line.name) for line in shown] + [len(_TOTAL)])
    whats = max([len(line.what) for line in shown if line.amount is not None] + [_WHAT])
    columns = _Columns(width, min(names, max(width // 3, 12)), min(whats, _LONGEST_WHAT))
    text = [columns.line(line.name, line.what, line.amount, now) for line in shown]
    if rest:
        text.append(_cut(_counted(rest), width))
    if total is not None:
        text.append(columns.line(_TOTAL, total[0], total[1], now))
    return text[:height]


def final(board: Board) -> list[str]:
    """Every line as it stands at the end."""
    return [f"{line.name}: {line.what}" for line in board.lines.values()]


def _chosen(lines: list[Line], room: int) -> tuple[list[Line], list[Line]]:
    """(lines to show, those for which there is no room); one more line is kept for the latter."""
    if len(lines) <= room:
        return lines, []
    moving = [line for line in lines if line.amount is not None]
    waiting = [line for line in lines if line.is_waiting]
    done = [line for line in lines if line.is_done]
    best = {id(line) for line in [*moving, *waiting, *reversed(done)][: max(room - 1, 1)]}
    return [line for line in lines if id(line) in best], [line for line in lines if id(line) not in best]


def _counted(lines: list[Line]) -> str:
    done, waiting = sum(line.is_done for line in lines), sum(line.is_waiting for line in lines)
    counts = ((len(lines) - done - waiting, "moving"), (waiting, "waiting"), (done, "done"))
    return f"... {len(lines)} more: {', '.join(f'{count} {word}' for count, word in counts if count)}"


class _Columns:
    """Where things stand in a line of so many characters: as many of them as there is room for."""

    def __init__(self, width: int, names: int, whats: int) -> None:
        self._width = width
        self._names = names
        self._whats = whats
        self._bar = width - (names + 2 + whats + 1) - _FIGURES - 1

    def line(self, name: str, what: str, amount: Amount | None, now: float) -> str:
        head = f"{_cut(name, self._names)}:".ljust(self._names + 1)
        if amount is None:
            return _cut(f"{head} {what}", self._width)
        what = _cut(what, self._whats).ljust(self._whats)
        if self._bar >= _SHORTEST_BAR:
            bar = _bar(amount, min(self._bar, _LONGEST_BAR))
            return f"{head} {what} {bar} {_figures(amount, now)}".rstrip()
        if self._bar >= -1:
            return f"{head} {what} {_figures(amount, now)}".rstrip()
        return _cut(f"{head} {_short_figures(amount, now)}".rstrip(), self._width)


def _figures(amount: Amount, now: float) -> str:
    amounts, speed, left = in_words(amount, now)
    return f"{amounts:>{_AMOUNTS}}  {speed:>{_SPEED}}  {left:>{_LEFT}}"


def _short_figures(amount: Amount, now: float) -> str:
    done = f"{100 * amount.done // amount.total}%" if amount.total else human_size(amount.done)
    _, speed, left = in_words(amount, now)
    return f"{done:>4} {speed:>{_SPEED}} {left.removesuffix(' left'):>6}"


def in_words(amount: Amount, now: float) -> tuple[str, str, str]:
    """(amounts, speed, time left); empty where there is nothing to say."""
    speed, left = amount.speed(now), amount.left_s(now)
    done = human_size(amount.done)
    return (
        done if amount.total is None else f"{done}/{human_size(amount.total)}",
        "" if speed is None else f"{human_size(int(speed))}/s",
        "" if left is None else f"{short_time(left)} left",
    )


def short_time(seconds: float) -> str:
    """«59s», «3m20s», «2h05m»."""
    whole = int(seconds + 0.5)
    if whole < 60:
        return f"{whole}s"
    if whole < 3600:
        return f"{whole // 60}m{whole % 60:02}s"
    return f"{whole // 3600}h{whole // 60 % 60:02}m" if whole < 360_000 else "99h+"


def _bar(amount: Amount, width: int) -> str:
    inside = width - 2
    if not amount.total:
        return f"[{' ' * inside}]"
    full = min(amount.done * inside // amount.total, inside)
    return f"[{('=' * full + '>')[:inside]:<{inside}}]"


def _cut(text: str, width: int) -> str:
    """As ellipsis, for terminals of any encoding."""
    return text if len(text) <= width else f"{text[: max(width - 2, 0)]}.."[:width]
