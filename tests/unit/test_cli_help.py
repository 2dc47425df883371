"""--help of every command: complete, within 80 columns, and with examples that can be typed."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import pytest

from argosy.cli.completion import all_commands
from support.command_lines import argosy_lines, every_parser, parse

if TYPE_CHECKING:
    import argparse

#: Headings of what follows the options, in the order in which every command has them.
HEADINGS = ("filters:", "fields of --format:", "examples:", "exit status:", "environment:")


ALL: dict[str, argparse.ArgumentParser] = {f"argosy {command}": parser for command, parser in every_parser()}


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
    found = argosy_lines((ALL[prog].epilog or "").partition("examples:\n")[2].partition("\n\n")[0])
    assert found, "no example"
    for line in found:
        parse(line)


@pytest.mark.parametrize("name", ["--plain-http", "--filter", "--help"])
def test_an_option_is_explained_in_the_same_words_everywhere(name: str) -> None:
    told = {action.help for parser in ALL.values() for action in parser._actions if name in action.option_strings}
    assert len(told) == 1
