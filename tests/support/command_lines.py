"""Command lines as pages and --help show them, and the parsers that must take them."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING

from argosy.cli import commands, load_verb
from argosy.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

_GLOBAL_WITH_VALUE = ("--root", "--driver-root")
_SHELL = frozenset(["|", "||", ">", "<", ";", "&", "&&"])


def parser_of(verb: str) -> Parser:
    parser = Parser(prog=f"argosy {verb}", description=commands.help_line(verb))
    load_verb(verb).add_arguments(parser)
    return parser


def every_parser() -> Iterator[tuple[str, argparse.ArgumentParser]]:
    """(«catalog build», its parser): every verb, and the subcommands that some have."""
    for verb in (*commands.VERBS, *commands.GROUPED):
        parser = parser_of(verb)
        yield verb, parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from ((f"{verb} {name}", child) for name, child in action.choices.items())


def argosy_lines(text: str) -> list[str]:
    """Each call of argosy in the lines of *text*, those within `$(…)` too.

    Continued lines are joined. Where some lines have a prompt, the others are output.
    """
    joined = re.sub(r"\\\n\s*", "", text)
    inner = re.findall(r"\$\((argosy .*?)\)", joined)
    lines = [line.strip() for line in re.sub(r"\$\(argosy .*?\)", "WORD", joined).splitlines()]
    if prompted := [line for line in lines if line.startswith("$ ")]:
        lines = [line.removeprefix("$ ") for line in prompted]
    return [*(line for line in lines if line.startswith("argosy ")), *inner]


def parse(line: str) -> argparse.Namespace:
    """What the verb's parser makes of a whole line. Raises UsageError."""
    words = shlex.split(line, comments=True)
    words = words[1 : next((place for place, word in enumerate(words) if word in _SHELL), None)]
    while words[0].startswith("-"):
        words = words[2:] if words[0] in _GLOBAL_WITH_VALUE else words[1:]
    verb, *rest = words
    if verb in commands.GROUPS:
        verb, *rest = commands.GROUPS[verb][rest[0]], *rest[1:]
    return parser_of(verb).parse_args(rest)
