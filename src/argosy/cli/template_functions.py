"""Values and functions of templates: how Go prints them, compares them, and what Docker adds.

Used by template.py alone. BadValue is turned there into an InvalidInput that
points at the place in the template.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import msgspec

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_WIDEST = 10_000  # characters that pad and printf may fill in; nobody means more
_ESCAPES = {"n": "\n", "t": "\t", "r": "\r", "a": "\a", "b": "\b", "f": "\f", "v": "\v", "\\": "\\", '"': '"', "'": "'"}
_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_VERB = re.compile(r"%([-+# 0]*)(\d*)(?:\.(\d*))?(.|$)", re.DOTALL)


class BadValue(ValueError):
    """A value that the function or the syntax does not allow; the message says why."""


def literal(text: str) -> str | int | float:
    """A string, raw string, character or number as Go writes them."""
    if text[0] == "`":
        return text[1:-1]
    if text[0] == '"':
        return _ESCAPE.sub(_unescape, text[1:-1])
    if text[0] == "'":
        character = _ESCAPE.sub(_unescape, text[1:-1])
        if len(character) != 1:
            raise BadValue(f"{text} is not one character")
        return ord(character)
    try:
        return int(text, 0 if text.strip("+-")[:1] == "0" and len(text.strip("+-")) > 1 else 10)
    except ValueError:
        pass
    try:
        return float(text)
    except ValueError:
        raise BadValue(f"{text} is not a number") from None


def _unescape(match: re.Match[str]) -> str:
    code = match[1] or match[2] or match[3]
    if code:
        return _character(int(code, 16))
    if match[4]:
        return _character(int(match[4], 8))
    if match[5] not in _ESCAPES:
        raise BadValue(f"unknown escape {match[0]}")
    return _ESCAPES[match[5]]


def _character(number: int) -> str:
    if number > 0x10FFFF or 0xD800 <= number < 0xE000:
        raise BadValue(f"there is no character {number:#x}")
    return chr(number)


def field(value: Any, name: str) -> Any:
    """`.name` of *value*.

    A map whose keys all begin with a capital stands for one of Docker's structs:
    an unknown field of it is a mistake. In other maps (labels) it is «no value».
    """
    if isinstance(value, Mapping):
        if name in value:
            return value[name]
        if value and all(isinstance(key, str) and key[:1].isupper() for key in value):
            raise BadValue(f"there is no field .{name}{near(name, value)}")
        return None
    if value is None:
        return None
    raise BadValue(f"{_kind(value)} has no field .{name}")


def near(name: str, known: Iterable[str]) -> str:
    """« (did you mean X?)» or nothing."""
    import difflib  # only on this failure

    found = difflib.get_close_matches(name, list(known), 1, 0.6)
    return f" (did you mean {found[0]}?)" if found else ""


def pairs(value: Any) -> Sequence[tuple[Any, Any]] | None:
    """(key, element) of what `range` walks; None when it cannot be walked."""
    if isinstance(value, Mapping):
        return [(key, value[key]) for key in sorted(value)]
    if isinstance(value, list | tuple):
        return list(enumerate(value))
    if isinstance(value, int) and not isinstance(value, bool):
        return [(number, number) for number in range(value)]
    return [] if value is None else None


def shown(value: Any) -> str:
    """A value as an action prints it (Go's %v)."""
    return "<no value>" if value is None else _go(value)


def _go(value: Any) -> str:
    if isinstance(value, str):
        return value
    if value is None:
        return "<nil>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, float):
        return _go_float(value)
    if isinstance(value, Mapping):
        return f"map[{' '.join(f'{_go(k)}:{_go(value[k])}' for k in sorted(value) if not callable(value[k]))}]"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(_go, value))}]"
    return str(value)


def _go_float(value: float) -> str:
    """%v of a float64: the shortest form, exponents from 1e21 on."""
    if value == int(value) and abs(value) < 1e21:
        return str(int(value))
    return repr(value).replace("inf", "+Inf") if value == value else "NaN"


def _kind(value: Any) -> str:
    if isinstance(value, bool):
        return "a truth value"
    if isinstance(value, int | float):
        return "a number"
    if isinstance(value, str):
        return "a text"
    return "a list" if isinstance(value, list | tuple) else "this value"


# --- functions of Go ----------------------------------------------------------------


def _equal(first: Any, *others: Any) -> bool:
    if not others:
        raise BadValue("two values are needed")
    for other in others:
        _check_comparable(first, other)
    return any(first == other for other in others)


def _ordered(compare: Callable[[Any, Any], bool]) -> Callable[[Any, Any], bool]:
    def function(first: Any, second: Any) -> bool:
        _check_comparable(first, second)
        if not isinstance(first, str | int | float) or isinstance(first, bool):
            raise BadValue(f"{_kind(first)} has no order")
        return compare(first, second)

    return function


def _check_comparable(first: Any, second: Any) -> None:
    if first is None or second is None:
        return
    if _kind(first) != _kind(second):
        raise BadValue(f"{_kind(first)} and {_kind(second)} cannot be compared")
    if not isinstance(first, str | int | float):
        raise BadValue(f"{_kind(first)} cannot be compared")


def _length(value: Any) -> int:
    if isinstance(value, str):
        return len(value.encode())
    if isinstance(value, Mapping | list | tuple):
        return len(value)
    raise BadValue(f"{_kind(value)} has no length")


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, Mapping):
            value = value.get(key, "" if all(isinstance(v, str) for v in value.values()) else None)
        elif isinstance(value, list | tuple | str) and isinstance(key, int) and not isinstance(key, bool):
            if not 0 <= key < len(value):
                raise BadValue(f"index {key} is out of range, there are {len(value)}")
            value = value[key]
        elif value is None:
            raise BadValue("there is nothing to look into")
        else:
            raise BadValue(f"{_kind(value)} has no index {key!r}")
    return value


def _slice(value: Any, *bounds: Any) -> Any:
    if not isinstance(value, str | list | tuple) or len(bounds) > 2:
        raise BadValue(f"{_kind(value)} cannot be sliced")
    whole = len(value)
    numbers = [*bounds, *(0, whole)[len(bounds) :]]
    if not all(isinstance(n, int) for n in numbers) or not 0 <= numbers[0] <= numbers[1] <= whole:
        raise BadValue(f"{':'.join(map(str, bounds))} is out of range, there are {whole}")
    return value[numbers[0] : numbers[1]]


def _print(*values: Any) -> str:
    """Go's Sprint: a space between two values when neither is a text."""
    parts: list[str] = []
    for place, value in enumerate(values):
        if place and not isinstance(value, str) and not isinstance(values[place - 1], str):
            parts.append(" ")
        parts.append(_go(value))
    return "".join(parts)


def _println(*values: Any) -> str:
    return " ".join(map(_go, values)) + "\n"


def printf(template: Any, *values: Any) -> str:
    """Go's Sprintf for the verbs that make sense in a line of output."""
    if not isinstance(template, str):
        raise BadValue("the first value must be a text")
    left = list(values)

    def one(match: re.Match[str]) -> str:
        flags, width, precision, verb = match[1], match[2], match[3], match[4]
        if verb == "%":
            return "%"
        if not left:
            raise BadValue(f"no value is left for {match[0]}")
        if int(width or 0) > _WIDEST or int(precision or 0) > _WIDEST:
            raise BadValue(f"{match[0]} is too wide")
        text = _verb(verb, left.pop(0), flags, None if precision is None else int(precision or 0))
        return _padded(text, int(width or 0), flags, numeric=verb in "dxXobfeg")

    text = _VERB.sub(one, template)
    if left:
        raise BadValue(f"{len(left)} values too many")
    return text


def _verb(verb: str, value: Any, flags: str, precision: int | None) -> str:
    if verb in "vs":
        return _go(value) if precision is None else _go(value)[:precision]
    if verb == "q":
        return msgspec.json.encode(_go(value)).decode()
    if verb == "t" and isinstance(value, bool):
        return _go(value)
    sign = "+" if "+" in flags else " " if " " in flags else ""
    if isinstance(value, int) and not isinstance(value, bool):
        if verb in "dxXob":
            return format(value, f"{sign}{'#' if '#' in flags else ''}{verb}")
        if verb == "c":
            return _character(value)
    if verb in "xX" and isinstance(value, str):
        return value.encode().hex() if verb == "x" else value.encode().hex().upper()
    if verb in "feg" and isinstance(value, float):
        return format(value, f"{sign}.{6 if precision is None else precision}{verb}")
    raise BadValue(f"%{verb} does not fit {_kind(value)}")


def _padded(text: str, width: int, flags: str, *, numeric: bool) -> str:
    if "-" in flags:
        return text.ljust(width)
    return text.zfill(width) if "0" in flags and numeric else text.rjust(width)


# --- functions of the docker CLI ----------------------------------------------------


def json(value: Any) -> str:
    """Compact JSON; methods of the data are left out."""
    if isinstance(value, Mapping):
        value = {key: item for key, item in value.items() if not callable(item)}
    return msgspec.json.encode(value, enc_hook=str).decode()


def _split(text: Any, separator: Any) -> list[str]:
    if separator == "":
        return list(_text(text))
    return _text(text).split(_text(separator))


def _join(parts: Any, separator: Any) -> str:
    if not isinstance(parts, list | tuple):
        raise BadValue(f"{_kind(parts)} is no list")
    return _text(separator).join(map(_text, parts))


def _title(text: Any) -> str:
    """The first letter of each word large, the rest as it was (Go's strings.Title)."""
    return re.sub(r"(?<![\w'])[^\W\d_]", lambda match: match[0].upper(), _text(text))


def _pad(text: Any, before: Any, after: Any) -> str:
    if not isinstance(before, int) or not isinstance(after, int) or not 0 <= before + after <= _WIDEST:
        raise BadValue("two small numbers are needed after the text")
    return f"{' ' * before}{text}{' ' * after}" if _text(text) else ""


def _truncate(text: Any, length: Any) -> str:
    if not isinstance(length, int) or length < 0:
        raise BadValue("the length must be a number from 0 on")
    return _text(text)[:length]


def _text(value: Any) -> str:
    if isinstance(value, str):
        return value
    raise BadValue(f"{_kind(value)} is no text")


def label_header(name: str) -> str:
    """The heading of `.Label "com.example.build-date"`: build date."""
    return name.rpartition(".")[2].replace("-", " ").replace("_", " ")


def _as_is(text: Any, *_: Any) -> Any:
    return text


TABLE: Mapping[str, Callable[..., Any]] = {
    "eq": _equal,
    "ne": lambda first, second: not _equal(first, second),
    "lt": _ordered(lambda a, b: a < b),
    "le": _ordered(lambda a, b: a <= b),
    "gt": _ordered(lambda a, b: a > b),
    "ge": _ordered(lambda a, b: a >= b),
    "not": lambda value: not value,
    "len": _length,
    "index": _index,
    "slice": _slice,
    "print": _print,
    "println": _println,
    "printf": printf,
    "json": json,
    "split": _split,
    "join": _join,
    "title": _title,
    "lower": lambda text: _text(text).lower(),
    "upper": lambda text: _text(text).upper(),
    "pad": _pad,
    "truncate": _truncate,
}
#: For the heading of a table: what would change a value leaves its header alone.
HEADER_TABLE: Mapping[str, Callable[..., Any]] = {
    **TABLE,
    **dict.fromkeys(("json", "split", "join", "title", "lower", "upper", "truncate", "slice", "index"), _as_is),
}
