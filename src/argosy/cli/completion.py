"""argosy completion: a script for bash, zsh or fish, made from the parsers of all verbs.

The script is static, so TAB costs nothing; only names of images and containers
are asked for (`argosy __complete images`).
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, NamedTuple

from ..errors import InvalidInput
from . import commands, output

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from .host import Host
    from .parser import Parser

SHELLS = ("bash", "zsh", "fish")
_ABOUT = """\
The script knows every command and option; only names of images and containers
are asked for while you type. Make it anew after an update of Argosy.
"""
_EXAMPLES = """\
examples:
  argosy completion bash > ~/.local/share/bash-completion/completions/argosy
  argosy completion zsh > "${fpath[1]}/_argosy"
  argosy completion fish > ~/.config/fish/completions/argosy.fish
"""


class Option(NamedTuple):
    """One option of a command: its names, what its value is ("" without one), its help."""

    names: tuple[str, ...]
    #: "", "files", or words to choose from, with blanks between
    value: str
    help: str


class Command(NamedTuple):
    """A verb, or a subcommand of one."""

    #: ("registry", "serve")
    path: tuple[str, ...]
    help: str
    options: tuple[Option, ...]
    #: what its words are: "images", "containers", "files", subcommands or choices
    words: tuple[str, ...]


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("shell", metavar="|".join(SHELLS), help="the shell to write for")


def main(args: Namespace, host: Host) -> int:
    from . import completion_scripts

    if args.shell not in SHELLS:
        raise InvalidInput(
            f"no completion for {args.shell!r}", code="shell-unknown", hint=f"one of {', '.join(SHELLS)}"
        )
    output.write(completion_scripts.SCRIPTS[args.shell](all_commands()))
    return 0


def all_commands() -> list[Command]:
    """Every verb with its options, subcommands after their verb."""
    from . import load_verb
    from .parser import Parser

    found: list[Command] = []
    for verb in (*commands.VERBS, *commands.GROUPED):
        parser = Parser(prog=f"argosy {verb}")
        load_verb(verb).add_arguments(parser)
        found.extend(_described(parser, tuple(verb.split()), commands.help_line(verb)))
    return found


def _described(parser: argparse.ArgumentParser, path: tuple[str, ...], line: str) -> Iterator[Command]:
    actions = parser._actions  # argparse has no public list of them
    nested = [action for action in actions if isinstance(action, argparse._SubParsersAction)]
    options = tuple(
        Option(tuple(action.option_strings), _value(action), _plain(action.help))
        for action in actions
        if action.option_strings and action.help != argparse.SUPPRESS
    )
    words = tuple(word for action in actions if not action.option_strings for word in _words(action))
    yield Command(path, line, options, tuple(dict.fromkeys(words)))
    for action in nested:
        helps = {choice.dest: _plain(choice.help) for choice in action._choices_actions}
        for name, child in action.choices.items():
            yield from _described(child, (*path, name), helps.get(name, ""))


def _value(action: argparse.Action) -> str:
    if action.nargs == 0:
        return ""
    if action.choices:
        return " ".join(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    return metavar.replace("|", " ") if "|" in metavar and metavar.islower() else "files"


def _words(action: argparse.Action) -> tuple[str, ...]:
    if action.choices:
        return tuple(map(str, action.choices))
    metavar = action.metavar if isinstance(action.metavar, str) else ""
    kinds = (("IMAGE", "images"), ("CONTAINER", "containers"))
    known = tuple(kind for word, kind in kinds if word in metavar)
    if known:
        return known
    return tuple(metavar.split("|")) if "|" in metavar and metavar.islower() else ("files",)


def _plain(text: str | None) -> str:
    return " ".join((text or "").replace("%%", "%").split())
