"""What people and scripts read: tables, sizes, ages, JSON lines, errors.

Docker's layout and words throughout (its tabwriter, go-units), since scripts cut
these columns. Plain text only; nothing is imported that `ps` does not need.
"""

from __future__ import annotations

import os
import sys
import time
from functools import cache

from ..errors import Error, InvalidInput, NotFound
from ..sizes import human_size as human_size

TYPE_CHECKING = False  # not typing's: its import takes 3 ms of every verb
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence
    from typing import TypeAlias

    #: text, or a function of the template's arguments (`.Label "x"`)
    Field: TypeAlias = str | Callable[..., str]
    #: {name in a template: field}
    Row: TypeAlias = Mapping[str, Field]

_NARROWEST = 10  # characters of a column with its padding; docker CLI, cli/command/formatter
_PADDING = 3
_warned: set[str] = set()


def table(headers: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Rows under their headers as Docker aligns them: three spaces between columns, ten characters at least."""
    lines = [tuple(headers), *(tuple(map(printable, row)) for row in rows)]
    widths = [max(_NARROWEST, max(map(len, cells)) + _PADDING) for cells in zip(*lines, strict=True)]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(line[:-1], widths, strict=False)) + line[-1] + "\n"
        for line in lines
    )


def show(
    rows: Iterable[Row],
    *,
    columns: Sequence[str],
    headers: Mapping[str, str],
    template: str | None = None,
    quiet: str | None = None,
) -> None:
    """Print *rows* the way --format and -q ask for.

    *columns* are the fields of the plain table, *headers* the heading of every
    field, *template* what --format was given (a Go template, `table …` or `json`),
    *quiet* the one field that -q prints.
    """
    if quiet is not None and template is None:
        text = "".join(f"{row[quiet]}\n" for row in rows)
    elif template is None or template == "table":
        text = table([headers[name] for name in columns], ([str(row[name]) for name in columns] for row in rows))
    elif template == "json":
        text = "".join(json_line({k: v for k, v in row.items() if isinstance(v, str)}) for row in rows)
    else:
        text = _templated(rows, headers, template)
    write(text)


def stream(
    rows: Iterable[Row],
    *,
    columns: Sequence[str],
    headers: Mapping[str, str],
    template: str | None = None,
    quiet: str | None = None,
) -> None:
    """As show, but each row is printed as soon as it comes; json shows *columns*.

    The first row decides how wide the columns of a plain table are. A `table …`
    template is aligned to all rows, so it waits for them.
    """
    if template is not None and template.startswith("table "):
        show(rows, columns=columns, headers=headers, template=template)
    elif template == "table" or (template is None and quiet is None):
        _stream_table(([str(row[name]) for name in columns] for row in rows), [headers[name] for name in columns])
    else:
        line = _line_of(columns, template, quiet)
        for row in rows:
            write(line(row))


def _stream_table(rows: Iterable[Sequence[str]], headings: Sequence[str]) -> None:
    left = iter(rows)
    first = next(left, None)
    write(table(headings, [first] if first is not None else []))
    for cells in left:
        padded = [cells, first or cells]
        write(table(headings, padded).splitlines(keepends=True)[1])


def _line_of(columns: Sequence[str], template: str | None, quiet: str | None) -> Callable[[Row], str]:
    """How one row is printed."""
    if template is None:
        return lambda row: f"{row[quiet or columns[0]]}\n"
    if template == "json":
        return lambda row: json_line({name: row[name] for name in columns})
    from .template import Template, unescaped

    parsed = Template(unescaped(template))
    return lambda row: for_terminal(parsed.render(row)) + "\n"


def document(facts: Mapping[str, object], template: str | None, text: str) -> None:
    """Print one document: *text* for people, without colours, or *facts* the way --format asks for."""
    if template is None:
        write(printable(text, keep="\t\n"))
    elif template == "json":
        write(json_text(facts))
    else:
        from .template import Template, unescaped

        write(for_terminal(Template(unescaped(template)).render(facts)) + "\n")


def _templated(rows: Iterable[Row], headers: Mapping[str, str], text: str) -> str:
    from .template import Template, unescaped

    tabular = text.startswith("table ")
    template = Template(unescaped(text.removeprefix("table ") if tabular else text))
    lines = [for_terminal(template.render(row)) for row in rows]
    if not tabular:
        return "".join(f"{line}\n" for line in lines)
    heading = template.render_header(headers)
    return aligned([heading, *lines])


def aligned(lines: Iterable[str]) -> str:
    """Lines with tabs between their cells, aligned; a short line ends where it ends."""
    cells = [line.split("\t") for line in lines]
    columns = max((len(row) for row in cells), default=0) - 1
    widths = [
        max(_NARROWEST, max(len(row[place]) for row in cells if len(row) > place + 1) + _PADDING)
        for place in range(columns)
    ]
    return "".join(
        "".join(cell.ljust(width) for cell, width in zip(row[:-1], widths, strict=False)) + row[-1] + "\n"
        for row in cells
    )


def write(text: str) -> None:
    """To stdout, at once. Raises BrokenPipeError as it is, other faults as Errors."""
    if sys.stdout is None:
        return
    try:
        sys.stdout.write(text)
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        from ..linux.files import translate

        raise translate(error, "write to", "the standard output") from error


def go_fields(value: object) -> dict[str, object]:
    """The fields of a struct of ours as `document` and templates take them: «size_before» as «SizeBefore»."""
    names: tuple[str, ...] = getattr(value, "__struct_fields__", ())
    return {shown: _go(getattr(value, name)) for shown, name in zip(_go_names(names), names, strict=True)}


@cache
def _go_names(names: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("".join(word.capitalize() for word in name.split("_")) for name in names)


def _go(value: object) -> object:
    if isinstance(value, (tuple, list)):
        return [_go(item) for item in value]
    return go_fields(value) if hasattr(value, "__struct_fields__") else value


def json_line(value: object) -> str:
    """One line of JSON, keys sorted as Go sorts those of a map."""
    import msgspec  # 20 ms that the plain lists are spared

    return _tame_json(msgspec.json.encode(value, order="sorted", enc_hook=str)) + "\n"


def json_text(value: object) -> str:
    """JSON for people: four spaces, as `docker inspect` indents."""
    import msgspec

    return _tame_json(msgspec.json.format(msgspec.json.encode(value, enc_hook=str), indent=4)) + "\n"


def _tame_json(raw: bytes) -> str:
    """JSON escapes the ASCII control characters only; terminals obey those from 80 to 9f hexadecimal as well."""
    text = raw.decode()
    return text if text.isascii() else text.translate({code: f"\\u{code:04x}" for code in range(0x80, 0xA0)})


def growth(size: int) -> str:
    """A difference of sizes with its sign: +120MB, -3kB, 0B."""
    return f"{'+' * (size > 0)}{'-' * (size < 0)}{human_size(abs(size))}"


def human_duration(seconds: float) -> str:
    """A length of time in Docker's words. Source: docker/go-units HumanDuration."""
    whole, minutes, hours = int(seconds), int(seconds / 60), int(seconds / 3600 + 0.5)
    if whole < 1:
        return "Less than a second"
    if whole < 60:
        return "1 second" if whole == 1 else f"{whole} seconds"
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    if hours < 24 * 7 * 2:
        return f"{hours // 24} days"
    if hours < 24 * 30 * 2:
        return f"{hours // 24 // 7} weeks"
    if hours < 24 * 365 * 2:
        return f"{hours // 24 // 30} months"
    return f"{int(seconds / 3600) // 24 // 365} years"


def age(stamp: str, *, now: float | None = None) -> str:
    """«2 hours ago» of an RFC 3339 time; N/A when there is none."""
    then = timestamp(stamp)
    if then is None:
        return "N/A"
    return f"{human_duration((time.time() if now is None else now) - then)} ago"


def local_time(stamp: str) -> str:
    """An RFC 3339 time as Docker prints CreatedAt: 2026-11-23 16:23:00 +0000 UTC."""
    then = timestamp(stamp)
    return "N/A" if then is None else time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(then))


def timestamp(stamp: str) -> float | None:
    """Seconds since the epoch of an RFC 3339 time; None when it is none (or Go's zero time).

    By hand: a list of a thousand images must not pay for the import of datetime.
    """
    try:
        year, month, day = int(stamp[0:4]), int(stamp[5:7]), int(stamp[8:10])
        clock = int(stamp[11:13]) * 3600 + int(stamp[14:16]) * 60 + int(stamp[17:19])
        zone = stamp[19:].lstrip(".0123456789")
        offset = 0
        if zone not in ("Z", "z"):
            offset = int(zone[1:3]) * 3600 + int(zone[4:6]) * 60
            offset = -offset if zone[0] == "-" else offset
    except (ValueError, IndexError):
        return None
    return None if year <= 1 else _days(year, month, day) * 86400.0 + clock - offset


def _days(year: int, month: int, day: int) -> int:
    """Days from 1970-01-01 in the proleptic Gregorian calendar; the year begins in March here."""
    year -= month <= 2
    day_of_year = (153 * ((month + 9) % 12) + 2) // 5 + day - 1
    return year * 365 + year // 4 - year // 100 + year // 400 + day_of_year - 719468


def short_id(digest: str) -> str:
    """The twelve digits that people see, of a digest or a plain id."""
    return digest.rpartition(":")[2][:12]


def ellipsis(text: str, width: int) -> str:
    """*text*, cut to *width* characters with «…» at the end, as Docker cuts commands."""
    return text if len(text) <= width else text[: max(width - 1, 0)] + "…"


def terminal_width(default: int = 80) -> int:
    """Columns of the terminal on stdout, *default* where there is none."""
    try:
        return os.get_terminal_size(1).columns or default
    except OSError:
        return default


def as_error(error: BaseException) -> Error:
    """Any exception as an Error: the system's own are translated, the rest is a fault of ours."""
    if isinstance(error, Error):
        return error
    if isinstance(error, FileNotFoundError) and error.filename is None and _is_nowhere():
        return NotFound("the current folder was removed", code="no-current-folder", hint="cd to another")
    if isinstance(error, OSError):
        from ..linux.files import translate

        return translate(error)
    if isinstance(error, UnicodeEncodeError):
        return InvalidInput("the terminal cannot show this text", code="encoding", hint="set LC_ALL=C.UTF-8")
    if isinstance(error, MemoryError):
        return Error("out of memory", code="out-of-memory")
    return Error(
        f"this is a fault in argosy: {type(error).__name__}: {error}",
        code="internal",
        hint="run it again with argosy --debug … and report what it prints",
    )


def _is_nowhere() -> bool:
    try:
        os.getcwd()
    except FileNotFoundError:
        return True
    return False


def draw(error: Error, *, colour: bool = False, word: str = "error") -> str:
    """An error as people see it: what failed, the facts, what to do."""
    red, dim, plain = ("\x1b[1;31m", "\x1b[2m", "\x1b[0m") if colour else ("", "", "")
    lines = [f"{red}{word}:{plain} {printable(error.message)} {dim}[{error.code}]{plain}"]
    lines += [f"  {printable(line)}" for line in error.context.splitlines()]
    if error.hint:
        first, *more = error.hint.splitlines()
        lines += [f"  {dim}hint:{plain} {printable(first)}", *(f"        {printable(line)}" for line in more)]
    return "\n".join(lines) + "\n"


def error(shown: Error) -> None:
    """Draw *shown* on stderr."""
    _to_stderr(draw(shown, colour=_stderr_has_colour()))


def warning(message: str) -> None:
    """Tell of something that the user can change; the same words once only."""
    if message not in _warned:
        _warned.add(message)
        yellow, plain = ("\x1b[1;33m", "\x1b[0m") if _stderr_has_colour() else ("", "")
        _to_stderr(f"{yellow}warning:{plain} {printable(message)}\n")


def note(line: str) -> None:
    """A line that --debug shows, on stderr."""
    _to_stderr(f"{printable(line)}\n")


def _to_stderr(text: str) -> None:
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError):
        pass  # nobody listens; the exit status still tells


_colour_wanted = True


def forbid_colour() -> None:
    """NO_COLOR is set (no-color.org); the Host calls this, it alone reads the environment."""
    global _colour_wanted
    _colour_wanted = False


def _stderr_has_colour() -> bool:
    return _colour_wanted and sys.stderr is not None and sys.stderr.isatty()


def printable(text: str, *, keep: str = "") -> str:
    """Text from outside without the characters that drive a terminal, those in *keep* aside."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or c in keep else repr(c)[1:-1] for c in text)


def for_terminal(rendered: str) -> str:
    """What a template made of an image's words: as it is for a pipe, tame for a terminal."""
    if sys.stdout is None or not sys.stdout.isatty():
        return rendered
    return printable(rendered, keep="\t\n")
