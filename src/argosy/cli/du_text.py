"""Where the bytes of an image are, drawn: a bar, a size and a share for each line. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.stack import layer_name
from .bars import bar
from .output import ellipsis, human_size, printable

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..ops.du import ImageUse, PathUse

NARROWEST, WIDEST = 56, 120  # columns
_BAR = 12  # columns of the bar that compares sizes
_SIZE = 8  # columns of «12.3MB» and a blank before it

#: (bytes, text that may be cut, text that may not)
Line = tuple[int, str, str]


def draw(use: ImageUse, *, top: int, width: int = 80, ascii_only: bool = False) -> str:
    """The drawing, at most *width* columns wide, the *top* largest of each kind; 0 is all."""
    drawing = _Drawing(use, top or None, max(NARROWEST, min(width, WIDEST)), ascii_only)
    text = "\n\n".join("\n".join(part) for part in drawing.parts() if part) + "\n"
    return text.replace("…", "~") if ascii_only else text


class _Drawing:
    def __init__(self, use: ImageUse, top: int | None, width: int, ascii_only: bool) -> None:
        self._use = use
        self._top = top
        self._width = width
        self._ascii_only = ascii_only

    def parts(self) -> Iterator[list[str]]:
        use = self._use
        layers, files = len(use.layers), use.root.files
        yield [
            f"{printable(use.name)}   {printable(use.platform)}   {layers} layer{'s' * (layers != 1)}, "
            f"{files} file{'s' * (files != 1)}, {human_size(use.size)}"
        ]
        yield list(self._folders())
        yield list(self._section("LAYERS", self._layers()))
        yield list(self._section("PACKAGES", self._packages()))
        hidden = f"HIDDEN  {human_size(use.hidden_size)} that higher layers replace or remove"
        yield list(self._section(hidden, self._hidden()))
        yield [f"the packages of {manager} are not read" for manager in use.unread]

    def _section(self, title: str, lines: Sequence[Line]) -> Iterator[str]:
        if lines:
            yield title
            yield from (self._line(*line) for line in lines[: self._top])
            if rest := len(lines[self._top :]) if self._top else 0:
                yield self._rest(rest)

    def _folders(self) -> Iterator[str]:
        """The largest of the tree, as a tree: what is above something large is larger still."""
        found = list(_flat(self._use.root))
        largest = sorted(found, key=lambda pair: (-pair[1].size, pair[0]))[: self._top]
        chosen = {path.path for _, path in largest if path.size}
        if not chosen:
            return
        yield "FOLDERS"
        for depth, path in found:
            if path.path in chosen:
                name = path.path if depth == 0 else path.path.rpartition("/")[2]
                yield self._line(path.size, "  " * depth + name + "/" * (path.type == "folder"))
        if rest := len(found) - len(chosen):
            yield self._rest(rest)

    def _layers(self) -> list[Line]:
        lines = []
        for layer in sorted(self._use.layers, key=lambda layer: -layer.size):
            hidden = f", {human_size(layer.hidden)} of it hidden" if layer.hidden else ""
            lines.append((layer.size, f"{layer.number:>3}  {layer_name(layer.created_by)}", hidden))
        return lines

    def _packages(self) -> list[Line]:
        return [(each.size, f"{each.name} {each.version}", f"  {each.kind}") for each in self._use.packages]

    def _hidden(self) -> list[Line]:
        used = (each for each in self._use.hidden if each.size)
        return [(each.size, each.path, f"  of layer {each.layer}, by layer {each.by}") for each in used]

    def _line(self, size: int, text: str, end: str = "") -> str:
        whole = self._use.size
        length = bar(size, whole, _BAR, ascii_only=self._ascii_only).ljust(_BAR)
        share = "" if not whole else "<1%" if 0 < size < whole / 200 else f"{size / whole:.0%}"
        start = f"{length}{human_size(size):>{_SIZE}}{share:>6}  "
        return start + ellipsis(printable(text), self._width - len(start) - len(end)) + end

    def _rest(self, count: int) -> str:
        return f"{'':{_BAR + _SIZE + 6}}  and {count} more"


def _flat(root: PathUse) -> Iterator[tuple[int, PathUse]]:
    """(depth, path) of all that is in the tree, a folder before what lies in it."""
    stack = [(0, entry) for entry in reversed(root.entries)]
    while stack:
        depth, path = stack.pop()
        yield depth, path
        stack += [(depth + 1, entry) for entry in reversed(path.entries)]
