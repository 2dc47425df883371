"""Bars that compare sizes, in eighths of a character where the terminal has them. Pure."""

from __future__ import annotations

_EIGHTHS = " ▏▎▍▌▋▊▉█"
_ASCII = "   ####"


def bar(size: int, largest: int, cells: int, *, ascii_only: bool = False) -> str:
    """A bar as long as *size* is large, *cells* characters for *largest*; the smallest that is not empty shows."""
    if not largest or not size:
        return ""
    steps = _ASCII if ascii_only else _EIGHTHS
    per_cell = len(steps) - 1
    amount = max(1, round(size / largest * cells * per_cell))
    full, rest = divmod(amount, per_cell)
    return (steps[-1] * full + (steps[rest] if rest else "")).rstrip()
