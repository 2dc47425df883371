"""Bad input, through the command line and end to end: one error in style, Docker's status, nothing harmed.

The tables are in `support/hostile.py` and `support/archives.py`. Here their images
arrive by pull from a registry, are run, and the disk, the machine and the store itself
turn against the program.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import pytest

from argosy.linux import mounts, processes

from ..support import archives, driver_roots, hostile
from ..support.archives import archive, file, symlink
from ..support.forked import in_child
from ..support.hostile import Liar, Said, assert_one_error, image_of, runnable, say
from ..support.layers import snapshotter_of
from ..support.registry import running_registry
from ..support.stores import argosy, load_image

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

    from ..support.registry import RunningRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "store") as running:
        yield running


class Store:
    """A store of one kind with an honest image, «good»; nothing that follows may change that."""

    def __init__(self, root: Path, kind: str, good: str) -> None:
        self.root, self.kind, self.good = root, kind, good
        assert self.say("pull", "-q", good) == (0, f"{good}\n", "")

    def say(self, *words: str) -> Said:
        return say(self.root, *words, ARGOSY_SNAPSHOTTER=self.kind)

    def run(self, *words: str, **environ: str) -> Said:
        done = argosy(self.root, *words, environ={"ARGOSY_SNAPSHOTTER": self.kind, **environ}, timeout_s=30)
        return Said(done.returncode, done.stdout.decode(), done.stderr.decode())

    def names(self) -> list[str]:
        return self.say("images", "--format", "{{.Repository}}:{{.Tag}}").output.split()

    def assert_sound(self, *others: str) -> None:
        """All of it verifies; «good» and *others* have names, nothing else; no work is left lying about."""
        checked = self.say("check")
        assert (checked.status, checked.error, "leftovers" in checked.output) == (0, "", False), checked
        assert sorted(self.names()) == sorted((self.good, *others))
        assert os.listdir(self.root / "tmp") == []


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> Callable[[str], Store]:
    """The store of a kind, made when it is first asked for."""

    @cache
    def made(kind: str) -> Store:
        folder = tmp_path_factory.mktemp(kind)
        snapshotter_of(kind, folder / "probe")  # skips what this kernel cannot do
        good = registry.push(image_of(folder / "good", archive(file(b"good"))), "good", "1")
        return Store(folder / "store", kind, good)

    return made


@pytest.fixture(params=["erofs", "unpacked"])
def store(request: pytest.FixtureRequest, stores: Callable[[str], Store]) -> Iterator[Store]:
    """The store with «good» in it and nothing else, whatever a test has left."""
    chosen = stores(request.param)
    yield chosen
    for name in {*chosen.names()} - {chosen.good}:
        chosen.say("rmi", "-f", name)


def by_turns(names: Iterable[str]) -> list[tuple[str, str]]:
    """(kind of snapshots, name): half of the cases with one kind, half with the other."""
    return [(("erofs", "unpacked")[number % 2], name) for number, name in enumerate(names)]


def push(registry: RunningRegistry, folder: Path, *tars: bytes, blobs: tuple[bytes, ...] = ()) -> str:
    return registry.push(image_of(folder / "image", *tars, blobs=blobs), "hostile", "1")


# ---- archives


@pytest.mark.parametrize("case", archives.HOSTILE, ids=[case.what for case in archives.HOSTILE])
def test_a_hostile_archive_is_refused(
    store: Store, registry: RunningRegistry, tmp_path: Path, case: archives.Hostile
) -> None:
    assert_one_error(store.say("pull", push(registry, tmp_path, case.tar)), 1, case.code)
    store.assert_sound()


@pytest.mark.parametrize("what", hostile.STREAMS)
def test_a_stream_that_is_not_what_it_seems(store: Store, registry: RunningRegistry, tmp_path: Path, what: str) -> None:
    tar, blob, code = hostile.STREAMS[what]
    name = push(registry, tmp_path, tar, blobs=(blob,))
    said = store.say("pull", "-q", name)
    if code:
        assert_one_error(said, 1, code)
        store.assert_sound()
    else:
        assert said == (0, f"{name}\n", "")
        store.assert_sound(name)


def test_a_bomb_takes_time_but_neither_memory_nor_room(store: Store, registry: RunningRegistry, tmp_path: Path) -> None:
    tar = archive(file(b"small", b"x"))
    name = push(registry, tmp_path, tar, blobs=(hostile.gzip_bomb_of(tar, 200),))
    assert_one_error(store.say("pull", name), 1, "digest-mismatch")
    store.assert_sound()


@pytest.mark.parametrize("what", archives.ESCAPES)
def test_nothing_is_written_outside_of_the_store(
    store: Store, registry: RunningRegistry, tmp_path: Path, what: str
) -> None:
    name = push(registry, tmp_path, archives.ESCAPES[what])
    assert store.say("pull", "-q", name) == (0, f"{name}\n", "")
    assert not Path("/etc/argosy-was-here").exists()
    store.assert_sound(name)


def test_very_many_entries(store: Store, registry: RunningRegistry, tmp_path: Path) -> None:
    """Unpacked they are as many files for the disk; fewer will do."""
    name = push(registry, tmp_path, archives.many(100_000 if store.kind == "erofs" else 20_000))
    assert store.say("pull", "-q", name) == (0, f"{name}\n", "")
    store.assert_sound(name)


def test_odd_names_and_links_stay_as_they_are(store: Store, registry: RunningRegistry, tmp_path: Path) -> None:
    """Control characters, bytes that are no text, duplicates, whiteout tricks: legal, and nobody's terminal obeys."""
    odd = archive(
        file(b"\x1b[31m\nx\xff\t", b"1"),
        file(b"-rf"),
        *(file(b"same", b"%d" % number) for number in range(200)),
        file(b"turns"),
        archives.folder(b"turns"),
        symlink(b"turns", b"/etc"),
        file(b"turns", b"last"),
        file(b"su", mode=0o6755),
        file(b".wh..wh..wh."),
        file(b".wh..wh.plnk/1"),
        archives.device(b"sda", b"4", 8, 0),
    )
    name = registry.push(runnable(tmp_path / "image", odd), "hostile", "1")
    assert store.say("pull", "-q", name) == (0, f"{name}\n", "")
    done = store.run("run", "--rm", name, "sh", "-c", "cat same turns; stat -c %a su; ls | grep -c wh")
    assert (done.status, done.output) == (1, "199last6755\n0\n")
    store.assert_sound(name)


# ---- documents


def test_documents_that_lie(store: Store, tmp_path: Path) -> None:
    liar = Liar()
    cases = list(hostile.lying_documents(image_of(tmp_path / "image", archive(file(b"a"))), liar))
    liar.tagged = {f"case/{number}": (raw, sent) for number, (_, raw, sent, _) in enumerate(cases)}
    accepted = []
    with liar.serving() as site:
        for number, (what, _, _, code) in enumerate(cases):
            name = f"{site.address}/case/{number}:t"
            said = store.say("pull", name)
            if code:
                assert_one_error(said, 1, code)
            else:
                assert (said.status, said.error) == (0, ""), (what, said)
                accepted.append(name)
    store.assert_sound(*accepted)
    for name in accepted:
        for words in (("history", "--no-trunc"), ("inspect",), ("stack",), ("stack", "--format", "svg")):
            shown = store.say(*words, name)
            assert (shown.status, shown.error, "\x1b" in shown.output) == (0, "", False), words


def test_an_unknown_tag_is_answered_with_the_near_ones(store: Store) -> None:
    with Liar().serving() as site:
        said = store.say("pull", f"{site.address}/cuda:13-devl")
    assert_one_error(said, 1, "tag-unknown")
    assert f"  hint: did you mean {site.address}/cuda:13-devel?\n" in said.error
    assert_one_error(store.say("inspect", store.good.replace(":1", ":2")), 1, "object-unknown")
    assert store.good in store.say("history", store.good.replace(":1", ":2")).error


# ---- images that are run


class Case(NamedTuple):
    """An image that is run: its layers above busybox, options, command; what must come of it."""

    layers: tuple[bytes | Mapping[str, bytes | str | int], ...]
    options: tuple[str, ...] = ()
    command: tuple[str, ...] = ()
    status: int = 0
    #: code of the error, or the output
    result: str = "ran\n"
    execution: Mapping[str, object] = {}


def _device(name: bytes, kind: bytes = b"3", major: int = 1, minor: int = 3) -> bytes:
    return archive(archives.device(name, kind, major, minor))


ETC = {"etc/": 0o755}
RUN: Mapping[str, Case] = {
    "/dev is a link to the host": Case(({"dev": "{outside}"},)),
    "/dev is a dangling link": Case(({"dev": "/no/where"},)),
    "/dev is a link to itself": Case(({"dev": "dev"},)),
    "/dev is a file": Case(({"dev": b"x"},)),
    "/dev/null is a file and /dev/shm a link": Case(({"dev/": 0o755, "dev/null": b"x", "dev/shm": "{outside}"},)),
    "/proc is a link to the host": Case(({"proc": "{outside}"},)),
    "/sys is a link to itself": Case(({"sys": "sys"},)),
    "/sys is a file": Case(({"sys": b"x"},)),
    "/etc is a link to the host": Case(({"etc": "{outside}"},), (), ("sh", "-c", "echo x > /etc/new && echo ran")),
    "/etc climbs to the host": Case(({"etc": "../../../../../..{outside}"},)),
    "/etc is a magic link to the host": Case(
        ({"etc": "/proc/self/root{outside}"},), status=125, result="image-link-to-kernel"
    ),
    "/etc is a link to itself": Case(({"etc": "etc"},), status=125, result="image-link-loop"),
    "/etc is a file": Case(({"etc": b"x"},)),
    "/etc is a device": Case((_device(b"etc"),)),
    "/etc/hosts and its like are links to the host": Case(
        (
            ETC
            | {"etc/hosts": "{outside}/f", "etc/resolv.conf": "../../..{outside}/f", "etc/hostname": "/proc/1/root/x"},
        ),
        (),
        ("sh", "-c", "echo x > /etc/hosts; echo ran"),
    ),
    "/etc/hosts and its like are folders": Case((ETC | {"etc/hosts/": 0o755, "etc/resolv.conf/": 0o755},)),
    "/etc/hosts is a pipe": Case((ETC, _device(b"etc/hosts", b"6", 0, 0))),
    "/etc/passwd is a link to the host": Case(
        (ETC | {"etc/passwd": "/proc/self/root/etc/passwd"},), ("-u", "daemon"), status=125, result="user-unknown"
    ),
    "/etc/passwd is a link to itself": Case((ETC | {"etc/passwd": "passwd"},), status=125, result="too-many-links"),
    "/etc/passwd is a pipe": Case((ETC, _device(b"etc/passwd", b"6", 0, 0)), status=125, result="not-a-regular-file"),
    "/etc/passwd is endless": Case((ETC, _device(b"etc/passwd", b"3", 1, 5)), status=125, result="not-a-regular-file"),
    "/etc/passwd is rubbish": Case(
        (ETC | {"etc/passwd": b"\xff:\n:::::::\nroot:x:0:0::/\xff:\n"},), (), ("sh", "-c", "cd && echo ran"), 2, ""
    ),
    "/bin hides behind a whiteout": Case((archive(file(b".wh.bin")),), status=127, result="program-not-found"),
    "the program is a link to the host": Case(({"s": "/usr/bin/env"},), (), ("/s",), 127, "program-not-found"),
    "the program is a folder": Case(({"s/": 0o755},), (), ("/s",), 126, "program-not-executable"),
    "the program is a pipe": Case((_device(b"s", b"6", 0, 0),), (), ("/s",), 126, "program-not-executable"),
    "the program is half an ELF header": Case(({"s": b"\x7fELF\x02\x01"},), (), ("/s",), 126, "program-format"),
    "the program is for no machine": Case(
        ({"s": b"\x7fELF\x02\x01" + b"\xff" * 999},), (), ("/s",), 126, "program-format"
    ),
    "the program is empty": Case(({"s": b""},), (), ("/s",), 126, "program-format"),
    "the program is its own interpreter": Case(({"s": b"#!/s\n"},), (), ("/s",), 126, "program-format"),
    "the program's interpreter drives terminals": Case(
        ({"s": b"#!/\x1b[31m\n"},), (), ("/s",), 127, "interpreter-not-found"
    ),
    "the program's interpreter climbs": Case(({"s": b"#!/../../bin/sh\necho ran\n"},), (), ("/s",)),
    "a user whose name drives terminals": Case((), status=125, result="user-unknown", execution={"User": "\x1b[31m"}),
    "a variable of 200 kB": Case(
        (), status=126, result="arguments-too-long", execution={"Env": ["PATH=/bin", "A=" + "x" * 200_000]}
    ),
    "an argument of 200 kB": Case(
        (), status=126, result="arguments-too-long", execution={"Cmd": ["echo", "x" * 200_000]}
    ),
    "half a million arguments": Case(
        (), status=126, result="arguments-too-long", execution={"Cmd": ["true", *["x"] * 500_000]}
    ),
    "variables without names": Case((), execution={"Env": ["PATH=/bin", "", "=x", "\x1b=1"]}),
    "WORKDIR through a link to the host": Case(({"w": "{outside}"},), execution={"WorkingDir": "/w/made"}),
    "WORKDIR climbs": Case((), execution={"WorkingDir": "/../../{outside}/made"}),
    "WORKDIR is relative": Case((), (), ("pwd",), result="/a/b\n", execution={"WorkingDir": "a/./b"}),
    "WORKDIR is a file": Case(({"w": b"x"},), status=125, result="not-a-folder", execution={"WorkingDir": "/w/x"}),
    "WORKDIR is a link to itself": Case(
        ({"w": "w"},), status=125, result="too-many-links", execution={"WorkingDir": "/w"}
    ),
    "a volume at a link to the host": Case(({"v": "{outside}"},), ("-v", "{volume}:/v"), ("ls", "/v/"), result="own\n"),
    "a volume behind a link to the host": Case(
        ({"v": "{outside}"},), ("-v", "{volume}:/v/a/b"), ("ls", "/v/a/b"), result="own\n"
    ),
    "a volume behind a magic link": Case(
        ({"v": "/proc/self/root{outside}"},), ("-v", "{volume}:/v/a"), status=125, result="image-link-to-kernel"
    ),
    "a volume at a pipe": Case((_device(b"v", b"6", 0, 0),), ("-v", "{volume}/own:/v"), ("cat", "/v"), result="own"),
}


@pytest.mark.parametrize(("store", "what"), by_turns(RUN), indirect=["store"])
def test_an_image_that_is_set_against_its_host(store: Store, tmp_path: Path, what: str) -> None:
    """Nothing is changed outside, nothing stays mounted, no container is left."""
    case, outside, volume = RUN[what], tmp_path / "outside", tmp_path / "volume"
    outside.mkdir()
    volume.mkdir()
    (outside / "f").write_text("host")
    (volume / "own").write_text("own")

    def placed(text: str) -> str:
        return text.replace("{outside}", str(outside)).replace("{volume}", str(volume))

    layers = [
        {name: placed(value) if isinstance(value, str) else value for name, value in layer.items()}
        if not isinstance(layer, bytes)
        else layer
        for layer in case.layers
    ]
    execution = {name: placed(value) if isinstance(value, str) else value for name, value in case.execution.items()}
    load_image(store.root, runnable(tmp_path / "image", *layers, **execution), "set:1")
    said = store.run("run", "--rm", *map(placed, case.options), "set:1", *case.command)
    if case.status:
        assert_one_error(said, case.status, case.result) if case.result else None
        assert said.status == case.status, said
    else:
        assert (said.status, said.output) == (0, case.result), said
    assert ({p.name for p in outside.rglob("*")}, (outside / "f").read_text()) == ({"f"}, "host")
    assert {p.name for p in volume.rglob("*")} == {"own"}
    assert os.listdir(store.root / "containers") == []
    store.assert_sound("set:1")


def test_the_environment_of_an_image_reaches_no_program_of_the_host(store: Store, tmp_path: Path) -> None:
    variables = ["PATH=/bin", "LD_PRELOAD=/evil.so", "LD_LIBRARY_PATH=/evil", "PYTHONPATH=/evil", "BASH_ENV=/evil"]
    load_image(store.root, runnable(tmp_path / "image", Env=variables), "set:1")
    spy = store.root / "bin/crun"
    spy.parent.mkdir(exist_ok=True)
    spy.write_text(f"#!/bin/sh\nenv >> {tmp_path}/seen\n")
    spy.chmod(0o755)
    try:
        assert store.run("run", "--rm", "set:1", LD_PRELOAD="").status == 0
    finally:
        shutil.rmtree(spy.parent)
    assert "evil" not in (tmp_path / "seen").read_text()
    assert set(variables) <= set(store.run("run", "--rm", "set:1", "env").output.splitlines())


GPU_IMAGES: Mapping[str, tuple[Mapping[str, bytes | str | int], int, str]] = {
    "/etc is a link to the host": ({"etc": "{outside}"}, 0, "5"),
    "/usr climbs to the host": ({"usr": "../../../../../..{outside}"}, 0, "5"),
    "/usr is a magic link": ({"usr": "/proc/self/root{outside}"}, 125, "image-link-to-kernel"),
    "/etc/ld.so.cache is a link": (ETC | {"etc/ld.so.cache": "{outside}/f", "etc/ld.so.conf": "{outside}/f"}, 0, "5"),
    "/etc/ld.so.conf.d is a file": (ETC | {"etc/ld.so.conf.d": b"x"}, 0, "5"),
    "/run is a link to itself": ({"run": "run"}, 125, "image-link-loop"),
}


@pytest.mark.parametrize(("store", "what"), by_turns(GPU_IMAGES), indirect=["store"])
def test_gpus_come_into_images_that_are_set_against_their_host(store: Store, tmp_path: Path, what: str) -> None:
    members, status, result = GPU_IMAGES[what]
    outside, driver = tmp_path / "outside", driver_roots.build(tmp_path / "driver")
    outside.mkdir()
    (outside / "f").write_text("host")
    placed = {n: v.replace("{outside}", str(outside)) if isinstance(v, str) else v for n, v in members.items()}
    load_image(store.root, runnable(tmp_path / "image", placed), "set:1")
    said = store.run("--driver-root", str(driver), "run", "--rm", "--gpus", "all", "set:1", "sh", "-c", COUNT_NODES)
    if status:
        assert_one_error(said, status, result)
    else:
        assert (said.status, said.output.strip()) == (0, result), said
    assert [(p.name, p.read_text()) for p in outside.rglob("*")] == [("f", "host")]


COUNT_NODES = "ls /dev | grep -c nvidia"


def _replaced(path: Path, make: Callable[[Path], object]) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
    make(path)


def _terabyte(path: Path) -> None:
    path.touch()
    os.truncate(path, 1 << 40)


LIBCUDA = f"usr/lib/{driver_roots.TRIPLET}/libcuda.so.{driver_roots.VERSION}"
#: {what: (file of the root, what takes its place, code of the error; "" when it does no harm)}
DRIVERS: Mapping[str, tuple[str, Callable[[Path], object], str]] = {
    "a library is a link to the host": (LIBCUDA, lambda p: p.symlink_to("/etc/shadow"), "driver-library-missing"),
    "a library climbs": (LIBCUDA, lambda p: p.symlink_to("../" * 12 + "etc/shadow"), "driver-library-missing"),
    "a library is a link to itself": (LIBCUDA, lambda p: p.symlink_to(p.name), "driver-library-missing"),
    "a library is a pipe": (LIBCUDA, os.mkfifo, "driver-library-missing"),
    "a library is rubbish": (LIBCUDA, lambda p: p.write_bytes(b"\x7fELF" + b"\xff" * 3000), ""),
    "a library is a terabyte": (LIBCUDA, _terabyte, ""),
    "the cache is rubbish": ("etc/ld.so.cache", lambda p: p.write_bytes(b"\xff" * 9999), ""),
    "the cache is a pipe": ("etc/ld.so.cache", os.mkfifo, ""),
    "the version is a pipe": ("proc/driver/nvidia/version", os.mkfifo, ""),
    "the version drives terminals": (
        "proc/driver/nvidia/version",
        lambda p: p.write_text(f"NVRM version: NVIDIA UNIX x86_64 Kernel Module  {driver_roots.VERSION}\x1b[31m  x\n"),
        "",
    ),
    "a node is a link to the host": ("dev/nvidia0", lambda p: p.symlink_to("/dev/null"), "device-node-missing"),
    "a node is a pipe": ("dev/nvidia0", os.mkfifo, "device-node-missing"),
    "all nodes are the host's": ("dev", lambda p: p.symlink_to("/dev"), "no-nvidia-gpu"),
    "the root is a file": (".", lambda p: p.write_text("x"), "driver-root-invalid"),
}


def test_a_driver_root_that_is_set_against_its_user(stores: Callable[[str], Store], tmp_path: Path) -> None:
    store = stores("unpacked")
    load_image(store.root, runnable(tmp_path / "image"), "set:1")
    for number, (name, make, code) in enumerate(DRIVERS.values()):
        driver = driver_roots.build(tmp_path / f"driver-{number}")
        _replaced(driver / name, make)
        words = ("--driver-root", str(driver), "run", "--rm", "--gpus", "all", "set:1", "sh", "-c", COUNT_NODES)
        said = store.run(*words)
        if code:
            assert_one_error(said, 125, code)
        else:
            assert (said.status, said.output) == (0, "5\n"), said
        told = store.say("--driver-root", str(driver), "stack", "set:1")
        assert "\x1b" not in told.output + told.error
    store.say("rmi", "set:1")


# ---- the store itself is damaged


VERBS = (
    ("images", "--digests"),
    ("ps", "-a"),
    ("inspect", "{good}", "kept"),
    ("history", "{good}"),
    ("tag", "{good}", "another:1"),
    ("prune", "-f"),
    ("rmi", "another:1"),
    ("rm", "kept"),
)


@pytest.mark.parametrize(("kind", "how"), by_turns(hostile.DAMAGES))
def test_each_file_of_a_store_is_damaged_in_turn(
    registry: RunningRegistry, tmp_path: Path, kind: str, how: str
) -> None:
    """Every verb works or gives one error that says what helps; check --repair and a pull mend it."""
    name = registry.push(runnable(tmp_path / "image", {"opt/": 0o755}), "box", "1")
    snapshotter_of(kind, tmp_path / "probe")
    sound = Store(tmp_path / "sound", kind, name)
    assert sound.run("run", "--name", "kept", name, "touch", "/new").status == 0
    files = [path.relative_to(sound.root) for path in sorted(sound.root.rglob("*")) if path.is_file()]
    for place in files:
        if "fs" in place.parts or place.name == "version.json":
            continue  # unpacked files are what they are; for the version see below
        hurt = tmp_path / "hurt"
        shutil.rmtree(hurt, ignore_errors=True)
        shutil.copytree(sound.root, hurt, symlinks=True)
        hostile.damage(hurt / place, how)
        for words in VERBS:
            said = say(hurt, *(word.replace("{good}", name) for word in words), ARGOSY_SNAPSHOTTER=kind)
            if said.status:
                assert_one_error(said, 1, said.code)
                assert "  hint: " in said.error, (place, words, said)
            assert "\x1b" not in said.output + said.error, (place, words)
        say(hurt, "check", "--repair", ARGOSY_SNAPSHOTTER=kind)
        assert say(hurt, "pull", "-q", name, ARGOSY_SNAPSHOTTER=kind)[:2] == (0, f"{name}\n"), place
        assert say(hurt, "check", ARGOSY_SNAPSHOTTER=kind).status == 0, place
        if place.parts[0] in ("layers", "cache"):
            run = argosy(hurt, "run", "--rm", name, environ={"ARGOSY_SNAPSHOTTER": kind})
            assert (run.returncode, run.stdout) == (0, b"ran\n"), (place, run.stderr)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (b'{"format":99,"minimum":99,"writer":"argosy 9\\u001b[31m"}', "store-too-new"),
        (b'{"format":0,"minimum":0}', "store-too-old"),
        (b'{"format":1e999}', "store-version"),
        (b"[]", "store-version"),
        (b"", "store-version"),
        (b"\xff\x1b[31m", "store-version"),
    ],
)
def test_a_store_of_another_version_is_left_alone(tmp_path: Path, text: bytes, code: str) -> None:
    (tmp_path / "version.json").write_bytes(text)
    for words in (("images",), ("pull", "localhost:1/a:1"), ("prune", "-f"), ("rm", "a1")):
        assert_one_error(say(tmp_path, *words), 1, code)
    assert_one_error(say(tmp_path, "run", "a:1"), 125, code)
    assert (tmp_path / "version.json").read_bytes() == text
    assert {path.name for path in tmp_path.iterdir()} <= {"version.json", ".migration.lock"}


def test_a_folder_that_is_no_store_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    for words in (("images",), ("pull", "localhost:1/a:1"), ("prune", "-af")):
        assert_one_error(say(tmp_path, *words), 1, "store-foreign")
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.tex"]
    assert_one_error(say(tmp_path / "thesis.tex", "images"), 1, "not-a-folder")


# ---- the machine is against us


def in_memory(tmp_path: Path, megabytes: float, action: Callable[[Path], None]) -> None:
    """*action* with a store folder on a disk of that size, in a mount namespace that ends with it."""

    def inside() -> None:
        mounts.private_namespace()
        mounts.Tmpfs(target=str(tmp_path), size=int(megabytes * 2**20)).execute()
        action(tmp_path / "store")

    in_child(inside)


def said_by(root: Path, *words: str, **environ: str) -> Said:
    done = argosy(root, *words, environ=environ)
    return Said(done.returncode, done.stdout.decode(), done.stderr.decode())


@pytest.fixture(scope="module")
def box(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> str:
    return registry.push(runnable(tmp_path_factory.mktemp("box") / "image"), "box", "1")


@pytest.mark.parametrize("megabytes", [0.25, 1.5])
def test_a_pull_onto_a_full_disk_names_nothing(box: str, tmp_path: Path, megabytes: float) -> None:
    def full(root: Path) -> None:
        assert_one_error(said_by(root, "pull", box), 1, "disk-full")
        assert said_by(root, "images", "-q") == (0, "", "")
        assert said_by(root, "check").status == 0
        assert os.listdir(root / "tmp") == []

    in_memory(tmp_path, megabytes, full)


def test_a_container_that_fills_the_disk_keeps_its_files_and_its_status(box: str, tmp_path: Path) -> None:
    def full(root: Path) -> None:
        assert said_by(root, "pull", "-q", box).status == 0
        fill = "dd if=/dev/zero of=/big bs=64k; dd if=/dev/zero of=/rest bs=1; exit 3"
        ended = said_by(root, "run", "--name", "filler", box, "sh", "-c", f"({fill}) 2>/dev/null")
        assert (ended.status, "error: " in ended.error) == (3, False), ended
        assert_one_error(said_by(root, "commit", "filler", "big:1"), 1, "disk-full")
        subprocess.run(["dd", "if=/dev/zero", f"of={tmp_path}/rest", "bs=1k"], check=False, capture_output=True)
        assert_one_error(said_by(root, "tag", box, "other:1"), 1, "disk-full")
        assert_one_error(said_by(root, "run", "--rm", box), 125, "disk-full")
        assert said_by(root, "images", "--format", "{{.Repository}}:{{.Tag}}").output == f"{box}\n"
        assert said_by(root, "doctor").output.startswith("GPU")
        assert said_by(root, "rm", "filler").output == "filler\n"
        assert said_by(root, "run", "--rm", box) == (0, "ran\n", "")

    in_memory(tmp_path, 8, full)


def test_a_read_only_store_can_be_read(box: str, tmp_path: Path) -> None:
    def frozen(root: Path) -> None:
        assert said_by(root, "pull", "-q", box).status == 0
        assert said_by(root, "run", "--name", "kept", box).status == 0
        subprocess.run(["mount", "-o", "remount,ro", str(tmp_path)], check=True)
        for words in (
            ("images",),
            ("ps", "-a"),
            ("inspect", box),
            ("history", box),
            ("stack", box),
            ("info",),
        ):
            assert (said_by(root, *words)[::2]) == (0, ""), words
        checked = said_by(root, "check")
        assert checked.status == 0
        unread = checked.error.splitlines()  # unpacked layers are unpacked once more for it, where that can be
        assert all("could not be compared with its blob: cannot write" in line for line in unread)
        for line in (f"pull {box}", f"tag {box} other:1", "rm kept", "commit kept other:1"):
            assert_one_error(said_by(root, *line.split()), 1, "read-only-file-system")
        assert_one_error(said_by(root, "run", "--rm", box), 125, "read-only-file-system")

    in_memory(tmp_path, 20, frozen)


def test_without_a_runtime_the_packages_are_named_and_lists_work(box: str, tmp_path: Path) -> None:
    def bare(root: Path) -> None:
        assert said_by(root, "pull", "-q", box).status == 0
        (tmp_path / "nothing").touch(mode=0o644)
        for name in ("crun", "runc"):
            while (found := processes.find_program(name, path=os.environ["PATH"])) is not None:
                mounts.Bind(source=str(tmp_path / "nothing"), target=found).execute()
        missing = said_by(root, "run", "--name", "none", box)
        assert_one_error(missing, 125, "no-runtime")
        assert f"copy a static one to {root}/bin" in missing.error
        assert "no container runtime found" in said_by(root, "doctor").output
        assert said_by(root, "ps", "-aq") == (0, "", "")
        (root / "bin").mkdir()
        (root / "bin/crun").write_text("no program")
        (root / "bin/crun").chmod(0o755)
        assert_one_error(said_by(root, "run", "--rm", box), 125, "program-not-executable")
        assert os.listdir(root / "containers") == []

    in_memory(tmp_path, 20, bare)


def test_words_that_are_no_text_are_refused_before_anything_is_made(store: Store) -> None:
    for words in ((store.good, "\udcff"), ("-e", "A=\udcff", store.good), ("-w", "/\udcff", store.good)):
        assert_one_error(store.run("run", "--rm", *words), 125, "not-utf8")
    assert not os.path.exists(store.root / "containers") or os.listdir(store.root / "containers") == []
