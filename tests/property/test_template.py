"""Any text is a template or an InvalidInput; rendering is no worse."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import given
from hypothesis import strategies as st

from argosy.cli.template import Template
from argosy.errors import InvalidInput

ROW = {"ID": "1f2e3d", "Names": "web", "Labels": {"a": "1"}, "Ports": ["x", "y"], "Count": 3, "Nothing": None}

#: Pieces of templates, so that chance comes past the first character.
PIECES = st.sampled_from(
    "{{ }} {{- -}} .ID .Names .Labels .Ports .Count .Nothing . $ $x := = | ( ) , if else end range with eq and or not "
    "len index slice print printf println json join split upper title truncate pad `a` \"b\" '%' '%d' 0 1 -1 9 1.5 "
    "true nil /* */ \\ \" ' ` % %s %5d %-3v text é".split(" ")
)
TEMPLATES = st.one_of(
    st.text(),
    st.lists(PIECES, max_size=25).map(" ".join),
    st.lists(PIECES, max_size=25).map("".join),
    st.lists(PIECES, max_size=12).map(lambda words: "{{" + " ".join(words) + "}}"),
)


@given(TEMPLATES)
def test_any_text_renders_or_is_invalid_input(text: str) -> None:
    with suppress(InvalidInput):
        assert isinstance(Template(text).render(ROW), str)


@given(st.text().filter(lambda text: "{{" not in text))
def test_text_without_actions_is_left_alone(text: str) -> None:
    assert Template(text).render(ROW) == text


@given(st.text(), st.text())
def test_a_quoted_string_comes_back_as_it_was(text: str, before: str) -> None:
    before = before.replace("{", "")
    quoted = "".join(f"\\U{ord(c):08x}" for c in text if not 0xD800 <= ord(c) < 0xE000)
    plain = "".join(c for c in text if not 0xD800 <= ord(c) < 0xE000)
    assert Template(f'{before}{{{{"{quoted}"}}}}').render(ROW) == before + plain
