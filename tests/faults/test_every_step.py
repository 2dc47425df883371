"""Each step that a verb takes on the store fails, or is the last before a kill -9; then the store tells no lie.

A step is a system call that changes a file of the store (support/steps.py). Without
`--whole` a few of them, spread evenly; `make faults` takes every one.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

import pytest

from support.hostile import Said, assert_one_error
from support.places import KINDS, Places
from support.registry import running_registry
from support.steps import READING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from support.places import Place
    from support.registry import RunningRegistry
    from support.steps import Watched

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SAMPLE = 4  # steps of each lane without --whole


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "store", expected_stderr=None) as running:
        yield running


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> Places:
    return Places(tmp_path_factory.mktemp("places"), registry)


class Lane(NamedTuple):
    """A verb, the store that it begins with, and what it leads to."""

    words: tuple[str, ...]
    begin: Callable[[Places, str], Place]
    #: of the second run, which nothing disturbs
    done: Callable[[Place], bool]
    #: what «app» may be after a first run that was disturbed
    versions: tuple[str, ...] = ("old",)
    #: statuses of a run that nothing disturbs
    statuses: tuple[int, ...] = (0,)


def used(places: Places, kind: str) -> Place:
    return places.used(kind)


LANES = {
    "first pull": Lane(
        ("pull", "-q", "{app}"), lambda places, kind: places.absent(kind), lambda p: p.version() == "new", ("", "new")
    ),
    "pull": Lane(("pull", "-q", "{app}"), used, lambda p: p.version() == "new", ("old", "new")),
    "unpack": Lane(("du", "{app}"), lambda places, kind: places.bare(kind), lambda p: p.version() == "old"),
    "run": Lane(("run", "--rm", "{app}", "sh", "-c", "echo x > /x"), used, lambda p: p.version() == "old"),
    "commit": Lane(("commit", "kept", "made:1"), used, lambda p: "made:1" in p.names()),
    "tag": Lane(("tag", "{app}", "made:1"), used, lambda p: "made:1" in p.names()),
    "rmi": Lane(("rmi", "-f", "{app}"), used, lambda p: p.app not in p.names(), ("old", ""), (0, 1)),
    "rm": Lane(("rm", "kept"), used, lambda p: p.say("ps", "-aq").output == "", ("old",), (0, 1)),
    "prune": Lane(("prune", "-af"), used, lambda p: p.names() == {p.fixed}, ("old", "")),
    "drop": Lane(
        ("image", "prune", "-f", "--compressed", "{fixed}"), used, lambda p: bool(os.listdir(p.root / "dropped/sha256"))
    ),
    "restore": Lane(
        ("save", "-o", "{scratch}/saved.tar", "{fixed}"), lambda places, kind: places.dropped(kind), lambda p: True
    ),
    "push": Lane(("push", "-q", "{fixed}"), used, lambda p: True),
    "load": Lane(("load", "-q", "-i", "{archive}"), used, lambda p: "loaded:1" in p.names()),
    "import": Lane(("import", "{archive}", "made:1"), used, lambda p: "made:1" in p.names()),
    "save": Lane(("save", "-o", "{scratch}/saved.tar", "{fixed}"), used, lambda p: True),
    "export": Lane(("export", "-o", "{scratch}/files.tar", "kept"), used, lambda p: True),
    "check --repair": Lane(
        ("check", "--repair"),
        lambda places, kind: places.damaged(kind),
        lambda p: p.version() == "old",
        ("old",),
        (0, 1),
    ),
    "mend": Lane(
        ("check", "--repair"),
        lambda places, kind: places.broken(kind),
        lambda p: p.version() == "old" and p.run("run", "--rm", p.fixed, "cat", "/opt/fixed").output == "fixed",
        ("old",),
        (0, 1),
    ),
    "manifest create": Lane(
        ("manifest", "create", "list:1", "{app}"),
        used,
        lambda p: "schema" in p.say("manifest", "inspect", "list:1").output,
        ("old",),
        (0, 1),
    ),
}


def spread(count: int, whole: bool, start: int) -> list[int]:
    """Numbers of steps, from 1: all of them, or SAMPLE of them, other ones for each *start*."""
    if whole or count <= SAMPLE:
        return list(range(1, count + 1))
    return sorted({1 + (place * count // SAMPLE + start) % count for place in range(SAMPLE)})


@pytest.mark.parametrize("fate", ["ENOSPC", "EIO", "KILL", "EIO at reading"])
@pytest.mark.parametrize("lane", LANES)
def test_whatever_step_goes_wrong(
    places: Places, tmp_path: Path, lane: str, fate: str, pytestconfig: pytest.Config
) -> None:
    """Old names stand, a second run succeeds, check is clean, and only known rubbish lies about."""
    whole = pytestconfig.getoption("--whole")
    number = [*LANES].index(lane) + len(fate)
    wrong: list[str] = []
    for kind in KINDS if whole else (KINDS[number % 2],):
        source = LANES[lane].begin(places, kind)
        named = {"app": source.app, "fixed": source.fixed, "archive": places.archive, "scratch": tmp_path}
        words = tuple(word.format(**named) for word in LANES[lane].words)
        fault = {"calls": READING} if fate.endswith("reading") else {}
        calm = source.copied(tmp_path / "store").watched(words, tmp_path, **fault)
        assert calm.status in LANES[lane].statuses, calm
        assert calm.steps or lane in ("save", "export", "push"), calm  # which only read, and write elsewhere
        for at in spread(len(calm.steps), whole, number):
            place = source.copied(tmp_path / "store")
            ended = place.watched(words, tmp_path, at=at, fate=fate[:6].split()[0], **fault)
            try:
                assert_no_lie(place, LANES[lane], ended)
                assert_mended(place, LANES[lane], place.run(*words))
            except AssertionError as error:
                facts = f"{ended.failed}: {ended.status} {ended.output!r} {ended.error!r}"
                wrong.append(f"{kind}, {fate} at step {at} of {len(calm.steps)}, {facts}\n{error}")
    assert not wrong, "\n\n".join(wrong)


def assert_mended(place: Place, lane: Lane, again: Said) -> None:
    """After the second run, that nothing disturbs."""
    assert again.status in lane.statuses, again
    assert lane.done(place), again
    assert place.report()["Findings"] == []
    assert_nothing_strange(place)


def assert_no_lie(place: Place, lane: Lane, ended: Watched) -> None:
    """After the disturbed run: it has said what happened, what has a name is whole."""
    if ended.status not in (0, -9, *lane.statuses) and ended.failed is not None:
        said = Said(ended.status, ended.output, ended.error)
        assert_one_error(said, 125 if lane.words[0] == "run" else 1, said.code)
        assert said.code != "internal", said
    assert "Traceback" not in ended.error
    if lane.words[0] != "check":
        assert place.report()["Findings"] == []
    assert {place.fixed} - {""} <= place.names()
    if lane.words[0] != "check":
        assert place.version() in lane.versions


#: every path that a store may hold
KNOWN = re.compile(
    r"version\.json|blobs/sha256/[0-9a-f]{64}|dropped/sha256/[0-9a-f]{64}|refs/[^.].*\.json|manifests/[^.].*\.json"
    r"|ingest/(collector\.lock|publication|[0-9a-f]{16}\.maker|.*\.part(\.journal)?)|unsettled/[0-9a-f]{16}\.json"
    r"|layers/kind|layers/sha256/[0-9a-f]{64}/(layer\.json|layer\.tar|index\.erofs|room|fs/.*)|cache/[^.].*"
    r"|containers/\.id|containers/[0-9a-f]{64}/(record\.json|lock|pid|(upper|work|mounts)/.*)"
    r"|names/[a-z_]+|(names|manifests)/\.lock"
)


def assert_nothing_strange(place: Place) -> None:
    rubbish = list(map(str, place.report()["Rubbish"]))
    for folder, _, files in os.walk(place.root):
        for name in files:
            path = os.path.relpath(os.path.join(folder, name), place.root)
            assert KNOWN.fullmatch(path) or path.startswith(tuple(rubbish)), (path, rubbish)
