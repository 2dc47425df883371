"""Each file of a store is damaged in turn: verbs say so or do without it, check --repair and a pull make it good.

Without `--whole` one file in four meets one kind of damage, each the next; `make
faults` tries all kinds on all files.
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux.lifetimes import boot_id
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.store import unsettled
from argosy.store.blobs import BlobStore
from support.hostile import assert_one_error
from support.places import KINDS, Places
from support.registry import running_registry

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from support.places import Place
    from support.registry import RunningRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
SHARES = 2  # tests that the files are dealt to
VERBS = (
    ("images", "-a"),
    ("ps", "-a"),
    ("inspect", "{app}"),
    ("history", "{app}"),
    ("du", "{app}"),
    ("diff", "{app}", "{fixed}"),
    ("manifest", "inspect", "list:1"),
    ("tag", "{fixed}", "another:1"),
    ("prune", "-f"),
    ("rmi", "another:1"),
    ("save", "-o", "{archive}", "{fixed}"),
)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "store", expected_stderr=None) as running:
        yield running


@pytest.fixture(scope="module")
def places(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> Places:
    return Places(tmp_path_factory.mktemp("places"), registry)


def _bytes(change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        data, mode = path.read_bytes(), path.stat().st_mode & 0o7777
        path.unlink()  # a link to another file's content must not take that along
        path.write_bytes(change(data))
        path.chmod(mode)

    return damage


def _flipped(at: float) -> Callable[[bytes], bytes]:
    def change(data: bytes) -> bytes:
        place = int(len(data) * at)
        return data[:place] + bytes(byte ^ 1 for byte in data[place : place + 1]) + data[place + 1 :]

    return change


def _replaced(make: Callable[[Path], object]) -> Callable[[Path], None]:
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


DAMAGES: Mapping[str, Callable[[Path], None]] = {
    "a bit in the middle": _bytes(_flipped(0.5)),
    "a bit at the start": _bytes(_flipped(0)),
    "a bit near the end": _bytes(_flipped(0.95)),
    "cut in half": _bytes(lambda data: data[: len(data) // 2]),
    "one byte short": _bytes(lambda data: data[:-1]),
    "one byte more": _bytes(lambda data: data + b"x"),
    "empty": _bytes(lambda data: b""),
    "zeros": _bytes(lambda data: bytes(len(data))),
    "a block of zeros": _bytes(
        lambda data: data[: len(data) // 3] + bytes(min(4096, len(data))) + data[len(data) // 3 :]
    ),
    "gone": Path.unlink,
    "a folder": _replaced(lambda path: (path / "deep").mkdir(parents=True)),
    "a dangling link": _replaced(lambda path: path.symlink_to("/no/where")),
    "a link to itself": _replaced(lambda path: path.symlink_to(path.name)),
    "a link to another file": _replaced(lambda path: path.symlink_to("/etc/hostname")),
}


@pytest.fixture(scope="module")
def full(places: Places, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Place]:
    """A store with one of everything: a list, a mark, half a transfer with its journal."""
    made: dict[str, Place] = {}

    def place_of(kind: str) -> Place:
        if kind not in made:
            place = made[kind] = places.used(kind).copied(tmp_path_factory.mktemp("full") / kind)
            assert place.say("manifest", "create", "list:1", place.fixed).status == 0
            blob = Descriptor.of(b"x" * 9000, "application/x-test")
            with BlobStore(place.root).assemble(blob) as assembly:
                writer = assembly.writer(0)
                writer.write(b"x" * 5000)
                writer.close()
            unsettled.begin(place.root, unsettled.Mark(boot=boot_id(), blobs=(Digest.of(b"gone"),)))
        return made[kind]

    return place_of


def damageable(place: Place) -> list[Path]:
    """All but locks, which hold nothing, and what a container has written, which is what it is."""
    files = [path.relative_to(place.root) for path in sorted(place.root.rglob("*")) if path.is_file()]
    others = ("version.json", "lock", ".lock", "collector.lock")
    return [file for file in files if file.name not in others and not {"upper", "mounts", "bin"} & set(file.parts)]


@pytest.mark.parametrize("part", range(SHARES))
@pytest.mark.parametrize("kind", KINDS)
def test_each_file_in_turn(
    full: Callable[[str], Place], tmp_path: Path, kind: str, part: int, pytestconfig: pytest.Config
) -> None:
    source, wrong = full(kind), []
    for number, file in list(enumerate(damageable(source)))[part::SHARES]:
        turn = number // SHARES
        if turn % 4 and not pytestconfig.getoption("--whole"):
            continue
        names = chosen(turn * 5 + part + KINDS.index(kind), pytestconfig)
        wrong += [f"{file}: {name}: {error}" for name, error in damaged_in_turn(source, file, names, tmp_path)]
    assert not wrong, "\n\n".join(wrong)


@pytest.mark.parametrize("kind", KINDS)
def test_each_file_that_stands_for_a_dropped_blob(
    places: Places, tmp_path: Path, kind: str, pytestconfig: pytest.Config
) -> None:
    source, wrong = places.dropped(kind), []
    files = [file for file in damageable(source) if file.parts[0] in ("dropped", "layers")]
    for number, file in enumerate(files):
        names = chosen(number * 5 + KINDS.index(kind), pytestconfig)
        wrong += [f"{file}: {name}: {error}" for name, error in damaged_in_turn(source, file, names, tmp_path)]
    assert not wrong, "\n\n".join(wrong)


def chosen(turn: int, config: pytest.Config) -> list[str]:
    """One damage for a turn, all of them with --whole."""
    names = [*DAMAGES]
    return names if config.getoption("--whole") else [names[turn % len(names)]]


def damaged_in_turn(source: Place, file: Path, names: list[str], scratch: Path) -> Iterator[tuple[str, Exception]]:
    """(damage, what was not as it should be after it)"""
    for name in names:
        place = source.copied(scratch / "store")
        DAMAGES[name](place.root / file)
        try:
            assert_borne_and_mended(place)
        except Exception as error:
            yield name, error


def assert_borne_and_mended(place: Place) -> None:
    archive = place.root.parent / "saved.tar"
    for words in VERBS:
        said = place.say(*(word.format(app=place.app, fixed=place.fixed, archive=archive) for word in words))
        if said.status:
            assert_one_error(said, 1, said.code)
            assert said.code != "internal", (words, said)
        assert "\x1b" not in said.output + said.error, words
    repaired = place.say("check", "--repair")
    assert repaired.status in (0, 1), repaired
    for name in (place.app, place.fixed):
        assert place.say("pull", "-q", name)[:2] == (0, f"{name}\n"), place.say("pull", name)
    report = place.report()
    assert report["Findings"] == []
    assert place.version() == "new"
    ran = place.run("run", "--rm", place.fixed, "cat", "/opt/fixed")
    assert ran == (0, "fixed", ""), ran


def test_a_store_whose_folders_are_gone_is_made_again(full: Callable[[str], Place], tmp_path: Path) -> None:
    for folder in ("blobs", "refs", "layers", "cache", "names"):
        place = full("erofs").copied(tmp_path / "store")
        shutil.rmtree(place.root / folder, ignore_errors=True)
        assert_borne_and_mended(place)
