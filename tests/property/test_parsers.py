"""Every parser of tests/fuzz: what it was broken by, or led to new code by, stays harmless; so do any bytes."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.fuzz.parsers import PARSERS, parse

CORPUS = Path(__file__).parents[1] / "fuzz/corpus"


def kept(name: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / name).iterdir())]


def test_every_parser_has_a_corpus_and_every_corpus_a_parser() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(PARSERS)


@pytest.mark.parametrize("name", PARSERS)
def test_what_fuzzing_has_found_is_harmless(name: str) -> None:
    for data in kept(name):
        parse(name, data)


@pytest.mark.parametrize("name", PARSERS)
def test_damage_to_what_fuzzing_has_found_is_harmless(name: str) -> None:
    """Bytes replaced, pieces cut out, put in twice, or from another file of the corpus."""
    samples = st.sampled_from(kept(name))
    places = st.tuples(st.integers(0, 4096), st.integers(0, 64), st.binary(max_size=16) | samples.map(lambda s: s[:64]))

    @settings(max_examples=40, deadline=None)
    @given(samples, st.lists(places, min_size=1, max_size=4))
    def any_damage(data: bytes, damage: list[tuple[int, int, bytes]]) -> None:
        for at, length, filling in damage:
            at %= len(data) + 1
            data = data[:at] + filling + data[at + length :]
        parse(name, data)

    any_damage()


@pytest.mark.parametrize("name", PARSERS)
def test_any_bytes_are_harmless(name: str) -> None:
    @settings(max_examples=30, deadline=None)
    @given(st.binary(max_size=600))
    def any_bytes(data: bytes) -> None:
        parse(name, data)

    any_bytes()
