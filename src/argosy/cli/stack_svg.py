"""The stack as an SVG drawing that stands alone: no fonts, scripts or files from elsewhere. Pure."""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING, NamedTuple

from .output import ellipsis, human_size, printable

if TYPE_CHECKING:
    from ..ops.stack import Slab, Stack

WIDTH = 820  # pixels; so are all lengths below
_MARGIN = 28
_INDENT = 18  # text inside a slab
_HEAD = 40  # height of a slab without parts
_LINE = 20  # height of a part
_GAP = 5  # between slabs
_BAR_LEFT = 520
_BAR_WIDTH = 170
_FONT = "'Inter','Helvetica Neue','DejaVu Sans',Arial,sans-serif"
_TEXT_LIMIT = 92  # characters of a part's name at 12.5 pixels


class _Look(NamedTuple):
    fill: str
    ink: str
    faint: str


_LOOKS = {
    "gpus": _Look("#1d2733", "#ffffff", "#9fb2c4"),
    "driver": _Look("#2b3a49", "#ffffff", "#b4c4d3"),
    "injected": _Look("#f4f9e9", "#3f6212", "#5b7a2e"),
    "os": _Look("#dbe6f1", "#17324d", "#4d6a86"),
    "cuda-runtime": _Look("#c9e59a", "#23400a", "#4c6b2b"),
    "cuda-libraries": _Look("#a7d45c", "#1f3a08", "#3f6019"),
    "cuda-toolkit": _Look("#76b900", "#12260a", "#274a05"),
    "layers": _Look("#cdb9f2", "#2d1a57", "#5b4590"),
    "writable": _Look("#fff8e1", "#6b4e00", "#8f7426"),
}
_BORDERS = {"injected": "#76b900", "writable": "#d9a400"}


def draw(stack: Stack) -> str:
    """One SVG document, the host at the bottom."""
    largest = max((slab.size or 0 for slab in stack.slabs), default=0)
    parts, top = [_heading(stack)], 84
    for slab in reversed(stack.slabs):
        height = _height(slab)
        parts.append(_slab(slab, top, height, largest))
        top += height + _GAP
    height = top - _GAP + _MARGIN
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{WIDTH}" height="{height}" viewBox="0 0 {WIDTH} {height}" '
        f'font-family="{_FONT}" role="img" aria-label="{_escaped(f"The stack of {stack.name}")}">\n'
        f'<rect width="{WIDTH}" height="{height}" rx="14" fill="#ffffff"/>\n' + "".join(parts) + "</svg>\n"
    )


def _heading(stack: Stack) -> str:
    name = f"container {stack.container}" if stack.container else stack.name
    facts = f"{stack.platform} · {human_size(stack.size)}"
    if stack.container:
        facts = f"{ellipsis(stack.name, 50)} · {facts}"
    return _text(ellipsis(name, 60), _MARGIN, 44, size=22, fill="#111820", weight=700) + _text(
        facts, _MARGIN, 66, size=13, fill="#5c6b7a"
    )


def _height(slab: Slab) -> int:
    return _HEAD + (_LINE * len(slab.shown_parts) + 8 if slab.shown_parts else 0)


def _slab(slab: Slab, top: int, height: int, largest: int) -> str:
    look = _LOOKS[slab.kind]
    border = _BORDERS.get(slab.kind)
    edge = f' stroke="{border}" stroke-width="1.5" stroke-dasharray="6 4"' if border else ""
    right = WIDTH - _MARGIN - _INDENT
    place = f'x="{_MARGIN}" y="{top}" width="{WIDTH - 2 * _MARGIN}" height="{height}"'
    lines = [
        f'<rect {place} rx="8" fill="{look.fill}"{edge}/>\n',
        _title(slab, look, top + 25),
    ]
    if slab.size is not None:
        lines.append(_bar(slab.size, largest, look, top + 16))
        lines.append(_text(human_size(slab.size), right, top + 25, size=14, fill=look.ink, weight=600, anchor="end"))
    for number, part in enumerate(slab.shown_parts):
        baseline = top + _HEAD + 10 + number * _LINE
        lines.append(
            _text(ellipsis(part.name, _TEXT_LIMIT), _MARGIN + _INDENT + 12, baseline, size=12.5, fill=look.faint)
        )
        if part.size is not None:
            lines.append(_text(human_size(part.size), right, baseline, size=12.5, fill=look.faint, anchor="end"))
    return "".join(lines)


def _title(slab: Slab, look: _Look, baseline: int) -> str:
    """Title and note in one text, so that the note follows whatever the title's width is."""
    room = 52 if slab.size is not None else 84  # characters until the bar, or the right edge
    note = ellipsis(slab.note, max(room - len(slab.title) - 2, 0))
    rest = (
        f'<tspan dx="10" font-size="13" font-weight="400" fill="{look.faint}">{_escaped(note)}</tspan>' if note else ""
    )
    return (
        f'<text x="{_MARGIN + _INDENT}" y="{baseline}" font-size="15.5" font-weight="600" fill="{look.ink}">'
        f"{_escaped(slab.title)}{rest}</text>\n"
    )


def _bar(size: int, largest: int, look: _Look, top: int) -> str:
    width = max(2.0, _BAR_WIDTH * size / largest) if largest and size else 0
    return (
        f'<rect x="{_BAR_LEFT}" y="{top}" width="{_BAR_WIDTH}" height="9" rx="4.5" fill="{look.ink}" opacity="0.1"/>\n'
        f'<rect x="{_BAR_LEFT}" y="{top}" width="{width:.1f}" height="9" rx="4.5" fill="{look.ink}" opacity="0.65"/>\n'
    )


def _text(text: str, x: int, y: int, *, size: float, fill: str, weight: int = 400, anchor: str = "start") -> str:
    return (
        f'<text x="{x}" y="{y}" font-size="{size}" font-weight="{weight}" fill="{fill}" text-anchor="{anchor}">'
        f"{_escaped(text)}</text>\n"
    )


def _escaped(text: str) -> str:
    """An image's history may hold anything; XML allows no control characters, not even as entities."""
    return escape(printable(text))
