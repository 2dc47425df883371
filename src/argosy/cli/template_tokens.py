"""A template cut into literal text and the tokens of its actions; used by template.py alone.

Trim markers are applied and comments dropped here, so that the parser sees
words only. Source: pkg.go.dev/text/template, «Text and spaces».
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidInput

if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import NoReturn

_SPACE = " \t\r\n"
_NUMBER = r"0[xX][0-9a-fA-F_]+ | 0[bBoO][0-7_]+ | [0-9][0-9_]*(?:\.[0-9]*)?(?:[eE][+-]?[0-9]+)? | \.[0-9]+"
_TOKEN = re.compile(
    rf"""(?P<trim>[ \t\r\n]+-\}}\}}) | (?P<end>\}}\}}) | (?P<space>[ \t\r\n]+)
      | (?P<string>"(?:\\.|[^"\\\n])*" | `[^`]*`) | (?P<char>'(?:\\.|[^'\\\n])+') | (?P<number>[+-]?(?:{_NUMBER}))
      | (?P<field>\.[^\W\d]\w*) | (?P<dot>\.) | (?P<variable>\$\w*) | (?P<word>[^\W\d]\w*)
      | (?P<sign>:= | [=|(),])""",
    re.VERBOSE,
)
_COMMENT = re.compile(r"[ \t\r\n]*/\*.*?\*/", re.DOTALL)


class Token(NamedTuple):
    """A word of an action and where it stands in the template."""

    kind: str
    text: str
    start: int

    @property
    def end(self) -> int:
        return self.start + len(self.text)


def scan(text: str) -> Iterator[str | list[Token]]:
    """Literal text and the tokens of actions, in turn. Raises InvalidInput (template-invalid)."""
    at, trim = 0, False
    while True:
        start = text.find("{{", at)
        literal = text[at:] if start < 0 else text[at:start]
        if trim:
            literal = literal.lstrip(_SPACE)
        if start < 0:
            yield literal
            return
        at = start + 2
        if text[at : at + 1] == "-" and text[at + 1 : at + 2] in tuple(_SPACE):
            literal, at = literal.rstrip(_SPACE), at + 1
        yield literal
        tokens, at, trim = _action(text, at, start)
        if tokens:
            yield tokens


def _action(text: str, at: int, start: int) -> tuple[list[Token], int, bool]:
    """(tokens of the action that begins at *at*, where it ends, whether it trims what follows)."""
    comment = _COMMENT.match(text, at)
    if comment is not None:
        at = comment.end()
    tokens: list[Token] = []
    while True:
        match = _TOKEN.match(text, at)
        if match is None and at >= len(text):
            fail(text, "this {{ is never closed", start)
        if match is None:
            fail(text, f"unexpected {text[at]!r}", at)
        kind = match.lastgroup or ""
        at = match.end()
        if kind in ("end", "trim"):
            if not tokens and comment is None:
                fail(text, "the action is empty", start)
            return tokens, at, kind == "trim"
        if kind != "space" and comment is not None:
            fail(text, "a comment stands alone in its action", match.start())
        if kind != "space":
            tokens.append(Token(kind, match.group(), match.start()))


def fail(text: str, why: str, at: int) -> NoReturn:
    """Raise InvalidInput that shows the line of *text* and points at character *at*."""
    line_start = text.rfind("\n", 0, at) + 1
    line = text[line_start:].split("\n", 1)[0]
    raise InvalidInput(
        f"bad template for --format: {why}",
        code="template-invalid",
        context=f"{line}\n{' ' * (at - line_start)}^",
        hint="fields look like {{.Name}}; --format json shows them all",
    )
