"""The pages agree with the program: flags, verbs, links, the layout of the sources."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import argosy
from argosy.cli import commands
from support.command_lines import argosy_lines, every_parser, parse

if TYPE_CHECKING:
    import argparse

SOURCES = Path(argosy.__file__).parent
ROOT = SOURCES.parent.parent
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", ROOT / "CHANGELOG.md", *sorted(DOCS.rglob("*.md"))]


def without_code_blocks(text: str) -> str:
    return re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)


def without_code(text: str) -> str:
    """*text* without code blocks and code spans, whose brackets are no links."""
    return re.sub(r"`[^`\n]*`", "", without_code_blocks(text))


def anchors(page: Path) -> set[str]:
    """What links may name in *page*: its headings, as GitHub writes them."""
    headings = re.findall(r"^#+ (.*)$", without_code_blocks(page.read_text("utf-8")), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def flags(parser: argparse.ArgumentParser) -> list[str]:
    """«-f/--force» of every option but --help, as docker.md writes them."""
    options = [action.option_strings for action in parser._actions if action.option_strings]
    return sorted("/".join(names) for names in options if "--help" not in names)


def told_flags() -> dict[str, list[str]]:
    """{command: flags} of the tables in docker.md."""
    rows = re.findall(r"^\| `([a-z ]+)` \| (?:`([^`]*)`)? ?\|", (DOCS / "docker.md").read_text("utf-8"), re.MULTILINE)
    return {command: sorted(told.split()) for command, told in rows}


def layout() -> set[str]:
    """Paths of all .py files that the layout in architecture.md names, relative to src/argosy."""
    block = (DOCS / "architecture.md").read_text("utf-8").partition("\nsrc/argosy/\n")[2].partition("```")[0]
    named, folder = set(), ""
    for line in block.splitlines():
        if match := re.match(r"  (\w+/)", line):
            folder = match[1]
        indent = len(line) - len(line.lstrip())
        where = folder if indent > 2 else ""
        leading = re.match(r" *((?:\w+\.py ?)*)", line)
        named |= {where + name for name in (leading[1] if leading else "").split()}
    return named


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s]+)\)", without_code(page.read_text("utf-8")))
    inside = [target.partition("#")[0] for target in targets if not re.match(r"[a-z]+:|#", target)]
    assert [target for target in inside if not (page.parent / target).exists()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_into_pages_lead_to_headings(page: Path) -> None:
    targets = re.findall(r"\]\(([^)\s:]*)#([^)\s]+)\)", without_code(page.read_text("utf-8")))
    found = {file: anchors(page.parent / file if file else page) for file, _ in targets}
    assert [f"{file}#{anchor}" for file, anchor in targets if anchor not in found[file]] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.relative_to(ROOT).as_posix())
def test_command_lines_can_be_typed(page: Path) -> None:
    for block in re.findall(r"^```\n(.*?)^```", page.read_text("utf-8"), flags=re.DOTALL | re.MULTILINE):
        for line in argosy_lines(block):
            parse(line)


def test_every_page_is_in_the_index() -> None:
    index = (DOCS / "README.md").read_text("utf-8")
    assert [page.name for page in DOCS.glob("*.md") if f"({page.name})" not in index and page.name != "README.md"] == []


def test_compatibility_table_has_the_flags_of_every_command() -> None:
    assert told_flags() == {command: flags(parser) for command, parser in every_parser()}


def test_every_verb_is_on_the_page_of_the_command_line() -> None:
    text = (DOCS / "cli.md").read_text("utf-8")
    assert [
        verb
        for verb in (*commands.VERBS, *commands.GROUPED)
        if not re.search(rf"`(argosy )?{verb}\b|^argosy {verb}\b", text, re.M)
    ] == []


def test_verbs_that_come_later_are_those_that_the_program_knows() -> None:
    text = (DOCS / "docker.md").read_text("utf-8")
    [listed] = re.findall(r"^`([a-z ]+)`\ncome with later releases", text, re.MULTILINE)
    assert set(listed.split()) == commands.LATER
    assert not commands.LATER & set(commands.VERBS)


def test_every_verb_is_in_the_readme() -> None:
    text = (ROOT / "README.md").read_text("utf-8")
    assert [verb for verb in (*commands.VERBS, *commands.GROUPED) if f"`{verb}`" not in text] == []


def test_layout_on_the_page_is_that_of_the_sources() -> None:
    files = {path.relative_to(SOURCES).as_posix() for path in SOURCES.rglob("*.py")}
    empty = {path for path in files if path.endswith("/__init__.py") and path != "cli/__init__.py"}
    assert layout() == files - empty


def test_pages_name_no_place_of_one_machine() -> None:
    homes = re.compile(r"/(home/(?!kubernetes)|root/(?!note|x)|Users/)|\bPIP_INDEX_URL=")
    assert [page.name for page in PAGES if homes.search(page.read_text("utf-8"))] == []
