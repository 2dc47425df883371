"""The stack as text: boxes of one width, the lowest at the bottom. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .bars import bar
from .output import ellipsis, human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..ops.stack import Part, Slab, Stack

NARROWEST, WIDEST = 56, 100  # columns
_SIZE = 9  # columns of «12.3MB» and a blank before it
_BAR = 12  # columns of the bar that compares sizes
_HOST = ("gpus", "driver")

_UNICODE = {
    "image": "╭─╮│├┤╰╯",
    "host": "╔═╗║╟╢╚╝",
    "inner": "─",
    "up": "▲",
    "dot": "·",
    "writable": "╌",
}
_ASCII = {
    "image": "+-+|++++",
    "host": "+=+|++++",
    "inner": "-",
    "up": "^",
    "dot": "-",
    "writable": "-",
}

#: {kind: SGR code}; the terminal's own palette
_COLOURS = {
    "gpus": "1;32",
    "driver": "1;32",
    "injected": "32",
    "os": "1;34",
    "cuda-runtime": "1;36",
    "cuda-libraries": "1;36",
    "cuda-toolkit": "1;36",
    "layers": "1;35",
    "writable": "1;33",
}


def draw(stack: Stack, *, width: int = 80, colour: bool = False, ascii_only: bool = False) -> str:
    """The drawing, at most *width* columns wide."""
    text = "\n".join(_Drawing(stack, max(NARROWEST, min(width, WIDEST)), colour, ascii_only).lines()) + "\n"
    return text.replace("…", "~") if ascii_only else text


class _Drawing:
    def __init__(self, stack: Stack, width: int, colour: bool, ascii_only: bool) -> None:
        self._stack = stack
        self._width = width
        self._colour = colour
        self._ascii_only = ascii_only
        self._glyphs = _ASCII if ascii_only else _UNICODE
        #: the largest layer of the image, to which the bars compare; bytes
        self._largest = max((slab.size or 0 for slab in stack.slabs), default=0)

    def lines(self) -> Iterator[str]:
        slabs = list(reversed(self._stack.slabs))
        image = [slab for slab in slabs if slab.kind not in (*_HOST, "injected")]
        injected = [slab for slab in slabs if slab.kind == "injected"]
        host = [slab for slab in slabs if slab.kind in _HOST]
        yield from self._heading(image)
        yield from self._box(image, self._glyphs["image"])
        for slab in injected:
            yield from self._injected(slab)
        if not injected:
            yield ""
        yield from self._box(host, self._glyphs["host"])

    def _heading(self, image: Sequence[Slab]) -> Iterator[str]:
        layers = sum(max(len(slab.parts), 1) for slab in image if slab.kind != "writable")
        facts = (
            f"{printable(self._stack.platform)}   {layers} layer{'s' * (layers != 1)}, {human_size(self._stack.size)}"
        )
        name = self._stack.name
        if self._stack.container:
            name = f"container {self._stack.container} of {name}"
        room = self._width - len(facts) - 5
        yield f" {self._painted(_cut(name, room).ljust(room), '1')}   {facts}"

    def _box(self, slabs: Sequence[Slab], frame: str) -> Iterator[str]:
        left, line, right, side, tee_left, tee_right, bottom_left, bottom_right = tuple(frame)
        inside = self._width - 2
        yield left + line * inside + right
        for place, slab in enumerate(slabs):
            if place:
                under_writable = slabs[place - 1].kind == "writable"
                yield tee_left + self._glyphs["writable" if under_writable else "inner"] * inside + tee_right
            for text in self._slab(slab, inside - 2):
                yield f"{side} {text} {side}"
        yield bottom_left + line * inside + bottom_right

    def _slab(self, slab: Slab, room: int) -> Iterator[str]:
        """Lines of exactly *room* columns."""
        size = "" if slab.size is None else human_size(slab.size)
        length = bar(slab.size or 0, self._largest, _BAR, ascii_only=self._ascii_only)
        text_room = room - _SIZE - (_BAR + 1)
        if slab.size is None:
            text_room = room
        title = _cut(slab.title, text_room)
        note = _cut(slab.note, max(text_room - len(title) - 2, 0)) if slab.note else ""
        plain = f"{title}  {note}" if note else title
        painted = self._painted(title, _COLOURS[slab.kind]) + (f"  {self._painted(note, '2')}" if note else "")
        line = painted + " " * (text_room - len(plain))
        if slab.size is not None:
            line += f" {self._painted(length.ljust(_BAR), _COLOURS[slab.kind])}{size.rjust(_SIZE)}"
        yield line
        yield from (self._part(part, room) for part in slab.shown_parts)

    def _part(self, part: Part, room: int) -> str:
        size = "" if part.size is None else human_size(part.size)
        text_room = room - (_SIZE if size else 0)
        text = _cut(f"  {self._glyphs['dot']} {part.name}", text_room).ljust(text_room)
        return self._painted(text + size.rjust(_SIZE if size else 0), "2")

    def _injected(self, slab: Slab) -> Iterator[str]:
        """Between host and image, open at both sides: it is neither's."""
        arrow = self._painted(self._glyphs["up"], _COLOURS["injected"])
        room = self._width - 8
        yield f"   {arrow}  {self._painted(_cut(f'{slab.title}; {slab.note}', room), _COLOURS['injected'])}"
        bar = self._painted(self._glyphs["image"][3], _COLOURS["injected"])
        for part in slab.parts:
            size = f" ({human_size(part.size)})" if part.size else ""
            yield f"   {bar}  {_cut(part.name + size, room)}"

    def _painted(self, text: str, code: str) -> str:
        return f"\x1b[{code}m{text}\x1b[0m" if self._colour and text else text


def _cut(text: str, width: int) -> str:
    """*text* in at most *width* columns; an image's history may hold anything."""
    return ellipsis(printable(text), width)
