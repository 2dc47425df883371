"""--help of every command: complete, within 80 columns, and with examples that can be typed."""

from __future__ import annotations

import argparse
import re
import shlex
from typing import TYPE_CHECKING

import pytest

from argosy.cli import commands, load
from argosy.cli.completion import all_commands
from argosy.cli.parser import Parser

if TYPE_CHECKING:
    from collections.abc import Iterator

#: Headings of what follows the options, in the order in which every command has them.
HEADINGS = ("filters:", "fields of --format:", "examples:", "exit status:", "environment:")


def parser_of(verb: str) -> Parser:
    parser = Parser(prog=f"argosy {verb}", description=commands.help_line(verb))
    load(verb).add_arguments(parser)
    return parser


def parsers() -> Iterator[argparse.ArgumentParser]:
    """Every verb's, and those of the subcommands that have them."""
    for verb in commands.VERBS:
        parser = parser_of(verb)
        yield parser
        for action in parser._actions:
            if isinstance(action, argparse._SubParsersAction):
                yield from action.choices.values()


ALL = {parser.prog: parser for parser in parsers()}


def examples(parser: argparse.ArgumentParser) -> list[list[str]]:
    """The words of each command line below «examples:»: continued lines joined, `$(…)` as a line of its own."""
    text = (parser.epilog or "").partition("examples:\n")[2].partition("\n\n")[0].replace("\\\n", " ")
    inner = re.findall(r"\$\((.*?)\)", text)
    return [shlex.split(line) for line in (*re.sub(r"\$\(.*?\)", "WORD", text).splitlines(), *inner)]


def test_all_commands_are_looked_at() -> None:
    assert {f"argosy {' '.join(command.path)}" for command in all_commands()} == set(ALL)


@pytest.mark.parametrize("prog", ALL)
def test_help_fits_80_columns(prog: str) -> None:
    """argparse wraps the options by itself; paragraphs and examples are laid out by hand."""
    text = f"{ALL[prog].description}\n{ALL[prog].epilog}"
    assert [line for line in text.splitlines() if len(line) > 79] == []


@pytest.mark.parametrize("prog", ALL)
def test_help_explains_every_option_and_word(prog: str) -> None:
    bare = [action.dest for action in ALL[prog]._actions if not action.help and action.dest != "verb"]
    assert bare == []
    assert "None" not in ALL[prog].format_help()


@pytest.mark.parametrize("prog", ALL)
def test_sections_after_the_options_have_one_order(prog: str) -> None:
    found = [line for line in (ALL[prog].epilog or "").splitlines() if re.fullmatch(r"\w.*:", line)]
    assert found == [heading for heading in HEADINGS if heading in found]
    assert "examples:" in found


@pytest.mark.parametrize("prog", ALL)
def test_examples_can_be_parsed(prog: str) -> None:
    own = [words for words in examples(ALL[prog]) if words[0] == "argosy"]
    assert own, f"{prog} --help shows no example of it"
    for words in own:
        words = words[1 : next((place for place, word in enumerate(words) if word in ("|", "||", ">", "<")), None)]
        parser_of(words[0]).parse_args(words[1:])


@pytest.mark.parametrize("name", ["--plain-http", "--filter", "--help"])
def test_an_option_is_explained_in_the_same_words_everywhere(name: str) -> None:
    told = {action.help for parser in ALL.values() for action in parser._actions if name in action.option_strings}
    assert len(told) == 1
