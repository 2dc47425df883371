"""Completion scripts: what bash offers after real words; the others by their syntax where the shell is here."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.cli import commands, completion, completion_scripts, main
from argosy.store.version import check_version
from support.images import random_image
from support.stores import load_image

if TYPE_CHECKING:
    from pathlib import Path

_ASK = """
source {script}
argosy() {{ printf '%s\\n' localhost:5000/cuda:13 vectoradd:26.11 web; }}
COMP_WORDS=({words}) COMP_CWORD=$(( ${{#COMP_WORDS[@]}} - 1 ))
_argosy
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


@pytest.fixture(scope="module")
def found() -> list[completion.Command]:
    return completion.all_commands()


@pytest.fixture(scope="module")
def bash_script(found: list[completion.Command], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("completion") / "argosy"
    path.write_text(completion_scripts.bash(found))
    return path


def offered(script: Path, words: str) -> list[str]:
    done = subprocess.run(
        ["bash", "-c", _ASK.format(script=script, words=words)], capture_output=True, text=True, timeout=30, check=False
    )
    assert done.stderr == ""
    return done.stdout.split()


def test_every_verb_is_described_from_its_parser(found: list[completion.Command]) -> None:
    described = {command.path: command for command in found}
    grouped = {tuple(verb.split()) for verb in commands.GROUPED}
    assert {path[0] for path in described if path not in grouped} == set(commands.VERBS)
    assert grouped < set(described)
    ps = described["ps",]
    assert ps.help == "List containers"
    assert (
        completion.Option(("-a", "--all"), "", "list those that have ended as well (default: running ones)")
        in ps.options
    )
    assert described["rm",].words == ("containers",)
    assert described["stack",].words == ("images", "containers")
    assert described["completion",].words == ("bash", "zsh", "fish")
    assert ("registry", "serve") in described


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("argosy hist", ["history"]),
        ("argosy --roo", ["--root"]),
        ("argosy ps --no", ["--no-trunc"]),
        ("argosy --debug ps --la", ["--last", "--latest"]),
        ("argosy --root /x rm we", ["web"]),
        ("argosy rmi vec", ["vectoradd:26.11"]),
        ("argosy completion z", ["zsh"]),
        ("argosy registry se", ["serve"]),
        ("argosy system prune --vol", ["--volumes"]),
        ("argosy run --netw", ["--network"]),
        ("argosy run --network n", ["none"]),
    ],
)
def test_bash_offers_what_fits(words: str, expected: list[str], bash_script: Path) -> None:
    assert offered(bash_script, words) == expected


def test_bash_offers_every_verb(bash_script: Path) -> None:
    assert set(commands.VERBS) <= set(offered(bash_script, "argosy ''"))


@pytest.mark.parametrize("shell", completion.SHELLS)
def test_the_script_is_printed(shell: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", shell], {"ARGOSY_ROOT": str(tmp_path / "store")}) == 0
    script = capsys.readouterr().out
    assert [verb for verb in commands.VERBS if verb not in script] == []
    assert "@" not in script.replace('"$@"', "").replace("[@]", "")
    if shutil.which(shell):
        subprocess.run([shell, "-n"], input=script, text=True, timeout=30, check=True)


def test_an_unknown_shell_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["completion", "tcsh"], {"ARGOSY_ROOT": str(tmp_path / "store")}) == 1
    assert (
        capsys.readouterr().err == "error: no completion for 'tcsh' [shell-unknown]\n  hint: one of bash, zsh, fish\n"
    )


def test_names_of_images_are_found_for_the_shell(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = tmp_path / "store"
    check_version(root)
    load_image(root, random_image(tmp_path / "image"), "vectoradd:26.11", "localhost:5000/cuda:13")
    assert main(["__complete", "images", "containers"], {"ARGOSY_ROOT": str(root)}) == 0
    assert capsys.readouterr().out == "localhost:5000/cuda:13\nvectoradd:26.11\n"


def test_nothing_is_said_when_names_cannot_be_found(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "foreign").touch()
    assert main(["__complete", "containers"], {"ARGOSY_ROOT": str(tmp_path)}) == 1
    assert capsys.readouterr() == ("", "")
