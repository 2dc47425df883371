"""The program as a whole: verbs, global options, exit statuses, broken outputs."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import argosy
from argosy.cli import commands, load_verb, main

if TYPE_CHECKING:
    from pathlib import Path


def environ(root: Path) -> dict[str, str]:
    return {"ARGOSY_ROOT": str(root / "store"), "PATH": "/usr/bin:/bin", "HOME": str(root)}


@pytest.mark.parametrize("argv", [["--help"], ["-h"], [], ["help"], ["--debug", "--help"]])
def test_help_lists_every_verb(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv, environ(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert shown == commands.help_text()
    assert [verb for verb in commands.VERBS if f"\n  {verb} " not in shown] == []
    assert max(map(len, shown.splitlines())) <= 80


@pytest.mark.parametrize("argv", [["--version"], ["-v"], ["--root", "/x", "-v"]])
def test_the_version_is_printed(argv: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(argv, environ(tmp_path)) == 0
    assert capsys.readouterr().out == f"argosy version {argosy.__version__}\n"


@pytest.mark.parametrize("verb", [*commands.VERBS, *commands.GROUPED])
def test_every_verb_has_help_and_touches_nothing_for_it(
    verb: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*verb.split(), "--help"], environ(tmp_path)) == 0
    shown = capsys.readouterr().out
    assert shown.startswith(f"usage: argosy {verb} ")
    assert "--help" in shown
    assert list(tmp_path.iterdir()) == []


def test_help_of_a_verb_in_dockers_other_spelling(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    main(["help", "ps"], environ(tmp_path))
    first = capsys.readouterr().out
    main(["container", "ls", "--help"], environ(tmp_path))
    assert first == capsys.readouterr().out


def test_every_verb_of_a_group_exists() -> None:
    named = {verb for group in commands.GROUPS.values() for verb in group.values()}
    assert named <= {*commands.VERBS, *commands.GROUPED}
    assert not set(commands.GROUPS) & set(commands.VERBS)


@pytest.mark.parametrize("verb", [*commands.VERBS, *commands.GROUPED, *commands.HIDDEN])
def test_every_verb_offers_its_two_functions(verb: str) -> None:
    module = load_verb(verb)
    assert callable(module.add_arguments)
    assert callable(module.main)


@pytest.mark.parametrize(
    ("argv", "status", "drawn"),
    [
        (["pul"], 1, "error: 'pul' is not an argosy command [unknown-command]\n  hint: did you mean pull?\n"),
        (
            ["quux"],
            1,
            "error: 'quux' is not an argosy command [unknown-command]\n  hint: argosy --help lists the commands\n",
        ),
        (
            ["image", "pul"],
            1,
            "error: 'image pul' is not an argosy command [unknown-command]\n  hint: did you mean image pull?\n",
        ),
        (
            ["build", "."],
            1,
            "error: 'build' is not an argosy command [unknown-command]\n"
            "  hint: docker has it, this release has not; argosy --help lists the commands\n",
        ),
        (
            ["system", "frobnicate"],
            1,
            "error: 'system frobnicate' is not an argosy command [unknown-command]\n"
            "  hint: argosy system goes with df info prune\n",
        ),
        (
            ["container", "prune"],
            1,
            "error: 'container prune' is not an argosy command [unknown-command]\n"
            "  hint: argosy system prune, or argosy rm $(argosy ps -aq --filter status=exited)\n",
        ),
        (
            ["--nope"],
            125,
            "error: unknown option --nope [usage]\n  hint: argosy --help lists the options before a command\n",
        ),
        (["--root"], 125, "error: option --root needs a value [usage]\n"),
        (
            ["ps", "--al"],
            125,
            "error: argosy ps: unknown option --al [usage]\n  hint: did you mean --all?\n",
        ),
        (
            ["rm"],
            1,
            "error: argosy rm: the following arguments are required: CONTAINER [usage]\n"
            "  hint: argosy rm --help shows how it is used\n",
        ),
        (
            ["run"],
            125,
            "error: argosy run: the following arguments are required: IMAGE [usage]\n"
            "  hint: argosy run --help shows how it is used\n",
        ),
        (
            ["ps", "--filter", "colour=red"],
            1,
            "error: invalid filter 'colour' [filter-invalid]\n"
            "  hint: keys: ancestor, exited, id, label, name, status\n",
        ),
        (
            ["run", "Not/A Name"],
            125,
            "error: not an image name: 'Not/A Name' [reference-invalid]\n"
            "  bad name component 'A Name'\n"
            "  hint: names look like [registry/]repository[:tag][@sha256:…], lower case\n",
        ),
    ],
)
def test_errors_are_drawn_and_exit_as_dockers_do(
    argv: list[str], status: int, drawn: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(argv, environ(tmp_path)) == status
    assert capsys.readouterr() == ("", drawn)


def test_debug_shows_what_led_to_an_error(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--debug", "ps", "--filter", "x"], environ(tmp_path)) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("error: not a filter: 'x' [filter-invalid]\n")
    assert "Traceback (most recent call last):" in shown


def test_root_on_the_command_line_comes_before_the_environment(tmp_path: Path) -> None:
    assert main(["--root", str(tmp_path / "other"), "ps"], environ(tmp_path)) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["other"]


def run(shell: str, root: Path) -> subprocess.CompletedProcess[str]:
    """A shell command with $ARGOSY as the program, in a process of its own."""
    program = f"{sys.executable} -m argosy"
    env = {**environ(root), "PYTHONPATH": ":".join(sys.path), "ARGOSY": program}
    return subprocess.run(["bash", "-c", shell], env=env, capture_output=True, text=True, timeout=60, check=False)


@pytest.mark.parametrize(
    ("shell", "status", "stderr"),
    [
        ("$ARGOSY --version", 0, ""),
        ("$ARGOSY ps --help | true; exit ${PIPESTATUS[0]}", 141, ""),
        ("$ARGOSY ps >&-", 0, ""),
        ("$ARGOSY --help >&- 2>&-", 0, ""),
        ("$ARGOSY nope 2>&-", 1, ""),
        (
            "$ARGOSY ps >/dev/full",
            1,
            "error: cannot write to the standard output [disk-full]\n  No space left on device (ENOSPC)\n"
            "  hint: free space with argosy prune, or place the store elsewhere with --root\n",
        ),
    ],
)
def test_outputs_that_are_gone_or_full_make_no_noise(shell: str, status: int, stderr: str, tmp_path: Path) -> None:
    done = run(shell, tmp_path)
    assert (done.returncode, done.stderr) == (status, stderr)


def test_a_current_folder_that_is_gone_is_said(tmp_path: Path) -> None:
    done = run("mkdir $HOME/gone && cd $HOME/gone && rmdir $HOME/gone; $ARGOSY --root store images", tmp_path)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == "error: the current folder was removed [no-current-folder]\n  hint: cd to another\n"


def test_an_interrupt_exits_130_without_a_word(tmp_path: Path) -> None:
    script = (
        "import signal, sys, threading, os\n"
        "from argosy import cli\n"
        "from argosy.cli import ps\n"
        "ps.main = lambda args, host: signal.raise_signal(signal.SIGINT)\n"
        "sys.argv = ['argosy', 'ps']\n"
        "cli.entry()\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**environ(tmp_path), "PYTHONPATH": ":".join(sys.path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")
