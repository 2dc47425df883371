"""The difference of two images as text: packages, folders or paths, layers, totals. Pure."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from ..ops.stack import layer_name
from .output import ellipsis, growth, human_size, table

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from ..ops.diff import Difference, ImageFacts, LayerChange, PackageChange, PathChange

DEPTH = 3  # parts of a path that folders are grouped by
MOST = 20  # rows of a table, unless all are asked for
_COMMAND_WIDTH = 45  # characters, as `history` has it
_MARKS = {"before": "-", "after": "+", "both": "="}


def draw(found: Difference, *, depth: int | None = None, paths: bool = False, only_packages: bool = False) -> str:
    """*depth* groups folders by so many parts and shows all groups; *paths* lists every path instead."""
    if only_packages:
        return _packages(found.packages, None) or "no difference in packages\n" + _unread(found)
    if not found.paths and not found.packages:
        return _equal(found)
    parts = [
        _heading(found),
        _packages(found.packages, MOST),
        _paths(found.paths) if paths else _folders(found.paths, depth),
        _layers(found.layers),
        _totals(found) + _notes(found),
    ]
    return "\n".join(filter(None, parts))


def _equal(found: Difference) -> str:
    """No path differs; what else may."""
    if found.before.id == found.after.id:
        return f"no difference: both are {found.after.id}\n"
    settings = f"argosy inspect {found.before.name} {found.after.name}"
    return f"no difference in files; what else the images say: {settings}\n" + _notes(found)


def _heading(found: Difference) -> str:
    same = sum(layer.side == "both" for layer in found.layers)
    before, after = _described(found.before), _described(found.after)
    return f"- {before}\n+ {after}, {same} of them in both\n"


def _described(image: ImageFacts) -> str:
    return f"{image.name}: {human_size(image.size)} in {image.layers} layer{'s' * (image.layers != 1)}"


def _packages(changes: Sequence[PackageChange], most: int | None) -> str:
    if not changes:
        return ""
    rows = [
        (change.name, change.kind, change.before or "-", change.after or "-", growth(change.growth))
        for change in changes[:most]
    ]
    text = table(("PACKAGE", "KIND", "BEFORE", "AFTER", "SIZE"), rows)
    rest = len(changes) - len(rows)
    return text + (f"and {rest} more: --packages lists all\n" if rest else "")


def _folders(changes: Sequence[PathChange], depth: int | None) -> str:
    groups: dict[tuple[str, ...], list[PathChange]] = defaultdict(list)
    for change in changes:
        groups[tuple(_folder_of(change)[: depth or DEPTH])].append(change)
    rows = sorted((_folder_row(group) for group in groups.values()), key=lambda row: (-abs(row[-1]), row[0]))
    shown = rows if depth is not None else rows[:MOST]
    text = table(
        ("FOLDER", "CAME", "GONE", "CHANGED", "SIZE"), ([*map(str, row[:-1]), growth(row[-1])] for row in shown)
    )
    rest = len(rows) - len(shown)
    return text + (f"and {rest} more folders: --depth {DEPTH} lists all, --paths every path\n" if rest else "")


def _folder_of(change: PathChange) -> list[str]:
    """Parts of the folder that a path is counted for: the one it lies in, a folder for itself."""
    parts = change.path[1:].split("/")
    return parts if change.type == "folder" else parts[:-1]


def _folder_row(group: Sequence[PathChange]) -> tuple[str, int, int, int, int]:
    """(the longest path that all have in common, came, gone, changed, growth)."""
    folders = [_folder_of(change) for change in group]
    common = []
    for parts in zip(*folders, strict=False):
        if len(set(parts)) > 1:
            break
        common.append(parts[0])
    kinds = [change.kind for change in group]
    counts = (kinds.count("A"), kinds.count("D"), kinds.count("C"))
    return ("/" + "/".join(common), *counts, sum(change.growth for change in group))


def _paths(changes: Sequence[PathChange]) -> str:
    return table(
        ("CHANGE", "SIZE", "LAYER", "PATH"),
        (
            (change.kind, growth(change.growth), str(change.layer_after or f"-{change.layer_before}"), change.path)
            for change in changes
        ),
    )


def _layers(layers: Sequence[LayerChange]) -> str:
    rows = [
        (
            f"{_MARKS[layer.side]} {layer.number}",
            ellipsis(layer_name(layer.created_by), _COMMAND_WIDTH),
            human_size(layer.size),
            str(layer.came),
            str(layer.gone),
            str(layer.changed),
            growth(layer.growth),
        )
        for layer in layers
        if layer.side != "both" or layer.came or layer.gone or layer.changed
    ]
    return table(("LAYER", "CREATED BY", "LAYER SIZE", "CAME", "GONE", "CHANGED", "SIZE"), rows) if rows else ""


def _totals(found: Difference) -> str:
    kinds = [change.kind for change in found.paths]
    return (
        f"{kinds.count('A')} paths came, {kinds.count('D')} went, {kinds.count('C')} changed: {growth(found.growth)}\n"
    )


def _notes(found: Difference) -> str:
    return "".join(_times(found)) + _unread(found)


def _times(found: Difference) -> Iterator[str]:
    """What was not read, and how to have it read."""
    touched = sum(change.aspects == ("time",) for change in found.paths)
    if touched:
        yield f"{touched} of the changed have another time alone: --contents compares their bytes\n"
    if found.assumed:
        yield f"{found.assumed} files of equal size and time were taken as equal: --contents compares their bytes\n"


def _unread(found: Difference) -> str:
    return "".join(f"the packages of {manager} changed, whose database is not read\n" for manager in found.unread)
