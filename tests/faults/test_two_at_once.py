"""Two verbs on one store at the same time, each failing or killed at some step: no name lies, both succeed later."""

from __future__ import annotations

import os
import random
from functools import partial
from typing import TYPE_CHECKING

import pytest

from support.forked import side_by_side
from support.places import KINDS, Places
from support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from support.places import Place
    from support.registry import RunningRegistry
    from support.steps import Watched

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
FATES = ("KILL", "ENOSPC", "EIO")
FURTHEST = 150  # steps; a pull of these images takes about 200, a tag 30
PAIRS = {
    "two pulls of one image": (("pull", "-q", "{app}"), ("pull", "-q", "{app}")),
    "a pull and a prune": (("pull", "-q", "{app}"), ("prune", "-af")),
    "a pull and an rmi": (("pull", "-q", "{app}"), ("rmi", "-f", "{app}")),
    "a pull and a repair": (("pull", "-q", "{app}"), ("check", "--repair")),
    "a load and a prune": (("load", "-q", "-i", "{archive}"), ("prune", "-af")),
    "a tag and an rmi": (("tag", "{app}", "made:1"), ("rmi", "-f", "{app}")),
    "a commit and an rm": (("commit", "kept", "made:1"), ("rm", "kept")),
    "a run and a prune": (("run", "--rm", "{app}", "true"), ("prune", "-af")),
}


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Places]:
    registry: RunningRegistry
    with running_registry(tmp_path_factory.mktemp("registry") / "store", expected_stderr=None) as registry:
        yield Places(tmp_path_factory.mktemp("places"), registry)


@pytest.mark.parametrize("pair", PAIRS)
def test_two_that_fail(places: Places, tmp_path: Path, pair: str, pytestconfig: pytest.Config) -> None:
    dice = random.Random(pair)
    wrong = []
    for turn in range(60 if pytestconfig.getoption("--whole") else 4):
        place = places.used(KINDS[turn % 2]).copied(tmp_path / "store")
        faults = [(dice.randrange(1, FURTHEST), dice.choice(FATES)) for _ in range(2)]
        ended = side_by_side(
            *(partial(disturbed, places, place, pair, side, *faults[side], tmp_path) for side in (0, 1))
        )
        try:
            assert_no_lie(place)
            for side in (0, 1):
                place.run(*words_of(places, place, pair, side))  # the second may find its work done
            assert place.report()["Findings"] == []
            assert place.say("pull", "-q", place.app).status == 0
            assert place.version() == "new"
            assert place.report()["Findings"] == []
        except AssertionError as error:
            told = "\n".join(f"{each.failed}: {each.status} {each.output!r} {each.error!r}" for each in ended)
            wrong.append(f"turn {turn}, {place.kind}:\n{told}\n{error}")
    assert not wrong, "\n\n".join(wrong)


def words_of(places: Places, place: Place, pair: str, side: int) -> tuple[str, ...]:
    named = {"app": place.app, "fixed": place.fixed, "archive": places.archive}
    return tuple(word.format(**named) for word in PAIRS[pair][side])


def disturbed(places: Places, place: Place, pair: str, side: int, at: int, fate: str, tmp_path: Path) -> Watched:
    scratch = tmp_path / f"side-{side}"
    scratch.mkdir(exist_ok=True)
    ended = place.watched(words_of(places, place, pair, side), scratch, at=at, fate=fate)
    return ended._replace(steps=())


def assert_no_lie(place: Place) -> None:
    assert place.report()["Findings"] == []
    for name in place.names():
        assert place.say("history", name)[::2] == (0, ""), name
    assert place.version() in ("old", "new", "")
