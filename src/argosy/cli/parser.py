"""The argument parser of one verb: argparse underneath, Docker's rules of reading on top.

argparse alone reads `run IMAGE sh -c …` and `rm a -f b` other than people who
know Docker expect, and differently in each Python. So this file sorts options
from words first (as pflag does), and argparse only sees `--name=value` tokens and
marked words. Imported when a verb is known, never for `--help`.
"""

from __future__ import annotations

import argparse

from ..errors import InvalidInput
from . import output

TYPE_CHECKING = False  # not typing's: its import takes 3 ms of every verb
if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from typing import Any, NoReturn

# argparse has its few words translated by gettext, which looks through the locale's folders: 2 ms of every start.
# Our own texts are English, so its are too.
vars(argparse)["_"] = lambda text: text  # a title or description may be None

_WORD = "\0"  # marks a word that is no option; no argument of a process can hold it
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # Go's strconv.ParseBool
_FALSE = frozenset({"0", "f", "F", "false", "FALSE", "False"})


class Finished(Exception):
    """The parser did all there was to do (it printed the help)."""

    def __init__(self, status: int) -> None:
        super().__init__(status)
        self.status = status


class UsageError(InvalidInput):
    """The command line itself is wrong; Docker exits 125 for options, 1 for words."""

    def __init__(self, message: str, *, hint: str = "", exit_status: int = 125, context: str = "") -> None:
        super().__init__(message, code="usage", context=context, hint=hint)
        self.exit_status = exit_status


class Parser(argparse.ArgumentParser):
    """Usage errors are Errors; options may stand among the words unless *interspersed* is False.

    A verb whose words are another program's command line (`run`, `exec`) sets
    `parser.interspersed = False` in its add_arguments: the first word ends the
    options, and a positional `nargs="*"` or REMAINDER takes the rest untouched.
    `--flag=false` undoes a flag, `-h` is `--help` unless the verb defines it.
    """

    def __init__(self, **options: Any) -> None:  # Any: argparse's own options, passed through
        options.setdefault("allow_abbrev", False)
        options.setdefault("formatter_class", _Formatter)
        super().__init__(**options, add_help=False)
        self.interspersed = True
        self._positionals.title = "arguments"
        self.add_argument("--help", action="help", help="print this help")

    def explain(self, about: str, after: str) -> None:
        """Paragraphs below the one line of help, and what follows the options: examples, exit status, variables."""
        self.description = "\n\n".join(filter(None, (self.description, about)))
        self.epilog = after

    def parse_known_args(  # type: ignore[override]  # argparse overloads on the namespace's type; we keep the plain one
        self, args: Sequence[str] | None = None, namespace: argparse.Namespace | None = None
    ) -> tuple[argparse.Namespace, list[str]]:
        given = list(args or ())
        if self._subparsers is None:
            options, words = self._sorted(given)
            given = [*(_WORD + word for word in words), *options]
        found, extra = super().parse_known_args(given, namespace)
        for name, value in vars(found).items():
            setattr(found, name, _unmarked(value))
        return found, [_unmarked(word) for word in extra]

    def error(self, message: str) -> NoReturn:
        message = message.replace(_WORD, "").replace(repr(_WORD)[1:-1], "")
        words = message.startswith(("the following arguments are required", "unrecognized arguments"))
        if message.startswith("unrecognized arguments: "):
            message = "too many arguments: " + message.removeprefix("unrecognized arguments: ")
        raise UsageError(f"{self.prog}: {message}", hint=self._see_help(), exit_status=1 if words else 125)

    def exit(self, status: int = 0, message: str | None = None) -> NoReturn:
        raise Finished(status)

    def _see_help(self) -> str:
        return f"{self.prog} --help shows how it is used"

    def _sorted(self, given: list[str]) -> tuple[list[str], list[str]]:
        """(options as single tokens, words) of a command line."""
        options: list[str] = []
        words: list[str] = []
        left = iter(given)
        for token in left:
            if token == "--":
                words.extend(left)
            elif token.startswith("--"):
                options.extend(self._long(token, left))
            elif token.startswith("-") and token != "-":
                options.extend(self._cluster(token, left))
            else:
                words.append(token)
                if not self.interspersed:
                    words.extend(left)
        return options, words

    def _long(self, token: str, left: Iterator[str]) -> list[str]:
        name, equals, value = token.partition("=")
        action = self._option_string_actions.get(name)
        if action is None:
            raise self._unknown(name)
        if action.nargs == 0 and equals:
            return [name] if self._truth(name, value) else []
        if equals or action.nargs in (0, "?"):
            return [f"{name}={_WORD}--" if value == "--" else token]
        return [f"{name}={self._value(name, left)}"]

    def _cluster(self, token: str, left: Iterator[str]) -> list[str]:
        """`-it`, `-eNAME=value`, `-n 5`: one token an option."""
        options = []
        for place, letter in enumerate(token[1:], start=1):
            name = f"-{letter}"
            action = self._option_string_actions.get(name)
            if action is None and name == "-h":
                return ["--help"]
            if action is None:
                raise self._unknown(name, within=token)
            if action.nargs == 0:
                options.append(name)
                continue
            rest = token[place + 1 :].removeprefix("=")
            value = self._value(name, iter((rest,)) if token[place + 1 :] else left)
            return [*options, *_joined(action, value)]
        return options

    def _value(self, name: str, left: Iterator[str]) -> str:
        for value in left:
            return _WORD + value if value == "--" else value  # which argparse would drop
        raise UsageError(f"{self.prog}: option {name} needs a value", hint=self._see_help())

    def _truth(self, name: str, value: str) -> bool:
        if value in _TRUE or value in _FALSE:
            return value in _TRUE
        raise UsageError(f"{self.prog}: option {name} takes true or false, not {value!r}", hint=self._see_help())

    def _unknown(self, name: str, *, within: str = "") -> UsageError:
        import difflib  # only on this failure

        near = difflib.get_close_matches(name, self._option_string_actions, 2, 0.7)
        hint = f"did you mean {' or '.join(near)}?" if near else self._see_help()
        inside = f" in {within}" if within not in ("", name) else ""
        return UsageError(f"{self.prog}: unknown option {name}{inside}", hint=hint)


class _Formatter(argparse.HelpFormatter):
    """Options start at one column, and metavars are not repeated for the short form."""

    def __init__(self, prog: str) -> None:
        # argparse makes a formatter for each argument, and without a width imports shutil for it: 3 ms of every verb.
        super().__init__(prog, max_help_position=32, width=output.terminal_width() - 2)

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        """Text of several lines was laid out by whoever wrote it: paragraphs, examples."""
        if "\n" not in text:
            return super()._fill_text(text, width, indent)
        return "".join(f"{indent}{line}" for line in text.splitlines(keepends=True))

    def _format_action_invocation(self, action: argparse.Action) -> str:
        if not action.option_strings:
            return super()._format_action_invocation(action)
        short = [name for name in action.option_strings if not name.startswith("--")]
        names = ", ".join(action.option_strings)
        if not short:
            names = f"    {names}"
        if action.nargs == 0:
            return names
        return f"{names} {self._format_args(action, self._get_default_metavar_for_optional(action))}"


def _joined(action: argparse.Action, value: str) -> list[str]:
    """Option and value as one token, so that a value may begin with a dash; an empty one needs the long form."""
    name = next((name for name in action.option_strings if name.startswith("--")), None)
    if name is not None:
        return [f"{name}={value}"]
    return [action.option_strings[0] + value] if value else [action.option_strings[0], value]


def _unmarked(value: Any) -> Any:  # Any: whatever an argparse action stores
    if isinstance(value, str):
        return value.removeprefix(_WORD)
    if isinstance(value, list):
        return [_unmarked(item) for item in value]
    return value
