"""Reading command lines as Docker reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from argosy.cli.parser import Finished, Parser, UsageError

if TYPE_CHECKING:
    from argparse import Namespace


def list_parser() -> Parser:
    """Options among the words, as most verbs."""
    parser = Parser(prog="argosy list")
    parser.add_argument("names", nargs="*")
    parser.add_argument("-a", "--all", action="store_true")
    parser.add_argument("-f", "--filter", action="append", default=[])
    parser.add_argument("-n", "--last", type=int, default=-1)
    parser.add_argument("-x", default="")
    return parser


def run_parser() -> Parser:
    """The first word ends the options."""
    parser = Parser(prog="argosy run")
    parser.interspersed = False
    parser.add_argument("image")
    parser.add_argument("command", nargs="*", default=[])
    parser.add_argument("-i", "--interactive", action="store_true")
    parser.add_argument("-t", "--tty", action="store_true")
    parser.add_argument("-e", "--env", action="append", default=[])
    parser.add_argument("-h", "--hostname")
    parser.add_argument("--rm", action="store_true")
    return parser


def parsed(parser: Parser, *argv: str) -> dict[str, Any]:
    found: Namespace = parser.parse_args(list(argv))
    return vars(found)


LIST = {"names": [], "all": False, "filter": [], "last": -1, "x": ""}
RUN = {"image": "IMG", "command": [], "interactive": False, "tty": False, "env": [], "hostname": None, "rm": False}


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        ((), {}),
        (("a", "-a", "b"), {"names": ["a", "b"], "all": True}),
        (("-f", "x=1", "a", "--filter=y=2", "b"), {"names": ["a", "b"], "filter": ["x=1", "y=2"]}),
        (("-fx=1",), {"filter": ["x=1"]}),
        (("-f=x=1",), {"filter": ["x=1"]}),
        (("-n", "5"), {"last": 5}),
        (("-n5",), {"last": 5}),
        (("-n", "-1"), {"last": -1}),
        (("--last", "-7"), {"last": -7}),
        (("-f", "-dash"), {"filter": ["-dash"]}),
        (("-f", ""), {"filter": [""]}),
        (("-f", "--", "--filter", "--", "--filter=--", "-f--", "a"), {"filter": ["--"] * 4, "names": ["a"]}),
        (("-x", ""), {"x": ""}),
        (("-x", "v"), {"x": "v"}),
        (("-af", "v"), {"all": True, "filter": ["v"]}),
        (("-afv",), {"all": True, "filter": ["v"]}),
        (("--all=true",), {"all": True}),
        (("--all=false",), {"all": False}),
        (("--all", "--all=0"), {"all": True}),
        (("--", "-a", "--", "-b"), {"names": ["-a", "--", "-b"]}),
        (("-", "a"), {"names": ["-", "a"]}),
        (("",), {"names": [""]}),
    ],
)
def test_options_may_stand_among_the_words(argv: tuple[str, ...], changes: dict[str, Any]) -> None:
    assert parsed(list_parser(), *argv) == LIST | changes


@pytest.mark.parametrize(
    ("argv", "changes"),
    [
        (("IMG",), {}),
        (("-it", "IMG", "cmd", "-x"), {"interactive": True, "tty": True, "command": ["cmd", "-x"]}),
        (("IMG", "--rm"), {"command": ["--rm"]}),
        (
            ("--rm", "IMG", "sh", "-c", "echo -- $0", "--", "-e"),
            {"rm": True, "command": ["sh", "-c", "echo -- $0", "--", "-e"]},
        ),
        (("-e", "A=1", "--env", "B=-2", "-eC=3", "IMG"), {"env": ["A=1", "B=-2", "C=3"]}),
        (("--env=A", "IMG", "-e", "B"), {"env": ["A"], "command": ["-e", "B"]}),
        (("-h", "name", "IMG"), {"hostname": "name"}),
        (("-ite", "A=1", "IMG"), {"interactive": True, "tty": True, "env": ["A=1"]}),
        (("--", "IMG", "--rm"), {"command": ["--rm"]}),
        (("IMG", "--", "ls"), {"command": ["--", "ls"]}),
        (("IMG", "--help"), {"command": ["--help"]}),
        (("IMG", ""), {"command": [""]}),
    ],
)
def test_the_image_ends_the_options_of_run(argv: tuple[str, ...], changes: dict[str, Any]) -> None:
    assert parsed(run_parser(), *argv) == RUN | changes


@pytest.mark.parametrize(
    ("parser", "argv", "message", "hint", "status"),
    [
        (list_parser, ["--al"], "argosy list: unknown option --al", "did you mean --all?", 125),
        (list_parser, ["-z"], "argosy list: unknown option -z", "argosy list --help shows how it is used", 125),
        (list_parser, ["-az"], "argosy list: unknown option -z in -az", "argosy list --help shows how it is used", 125),
        (list_parser, ["-f"], "argosy list: option -f needs a value", "argosy list --help shows how it is used", 125),
        (
            list_parser,
            ["--last"],
            "argosy list: option --last needs a value",
            "argosy list --help shows how it is used",
            125,
        ),
        (
            list_parser,
            ["--last", "x"],
            "argosy list: argument -n/--last: invalid int value: 'x'",
            "argosy list --help shows how it is used",
            125,
        ),
        (
            list_parser,
            ["--all=maybe"],
            "argosy list: option --all takes true or false, not 'maybe'",
            "argosy list --help shows how it is used",
            125,
        ),
        (
            run_parser,
            ["--rm"],
            "argosy run: the following arguments are required: image",
            "argosy run --help shows how it is used",
            1,
        ),
    ],
)
def test_a_wrong_command_line_says_what_is_wrong(
    parser: Any, argv: list[str], message: str, hint: str, status: int
) -> None:
    with pytest.raises(UsageError) as caught:
        parser().parse_args(argv)
    error = caught.value
    assert (error.message, error.hint, error.code, error.exit_status) == (message, hint, "usage", status)


def test_too_many_words_are_named() -> None:
    parser = Parser(prog="argosy one")
    parser.add_argument("only")
    with pytest.raises(UsageError, match="argosy one: too many arguments: b -c"):
        parser.parse_args(["a", "b", "--", "-c"])


@pytest.mark.parametrize("argv", [["--help"], ["-h"], ["a", "--help"], ["-ah"]])
def test_help_is_printed_and_ends(argv: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(Finished) as caught:
        list_parser().parse_args(argv)
    assert caught.value.status == 0
    assert capsys.readouterr().out.startswith("usage: argosy list ")


def test_subcommands_read_their_own_options() -> None:
    parser = Parser(prog="argosy registry")
    serve = parser.add_subparsers(dest="verb").add_parser("serve")
    serve.add_argument("--listen", default="")
    serve.add_argument("folders", nargs="*")
    assert parsed(parser, "serve", "a", "--listen", "-x", "b") == {
        "verb": "serve",
        "listen": "-x",
        "folders": ["a", "b"],
    }
