"""What a terminal, a log and a program see while images move."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from support.flaky import flaky, none, stall_after
from support.images import random_image
from support.moving import AT_ONCE, SIZE, name
from support.registry import SOURCE, running_registry
from support.stores import argosy, command, environment
from support.terminal import running

if TYPE_CHECKING:
    from support.images import RandomImage
    from support.registry import RunningRegistry
    from support.terminal import Terminal

ROOT = Path(__file__).resolve().parents[2]


def moving(layers: int, stop: Path, mode: str = "auto") -> tuple[str, ...]:
    return (sys.executable, "-m", "tests.support.moving", str(layers), str(stop), mode)


def environ(**more: str) -> dict[str, str]:
    path = os.pathsep.join((str(SOURCE), str(ROOT), str(ROOT / "tests")))
    return {"PATH": os.environ["PATH"], "PYTHONPATH": path, "HOME": "/", "LANG": "C.UTF-8", **more}


def pushed(tmp_path: Path, registry: RunningRegistry, layers: int = 3) -> tuple[RandomImage, str]:
    image = random_image(tmp_path / "image", layers=layers)
    return image, registry.push(image, "team/app", "1")


def last(terminal: Terminal) -> str:
    """The lowest line in which something stands."""
    return next((line for line in reversed(terminal.screen) if line), "")


def test_a_terminal_shows_one_line_a_layer(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        image, reference = pushed(tmp_path, registry)
        more = {"TERM": "xterm", "HOME": str(tmp_path)}
        with running(command("pull", reference), environment(tmp_path / "store", more), columns=100) as terminal:
            assert terminal.wait() == 0
    assert terminal.screen[:-1] == [
        "1: Pulling from team/app",
        *(f"{layer.digest.short}: Pull complete" for layer in image.manifest.layers),
        f"Digest: {image.descriptor.digest}",
        f"Status: Downloaded newer image for {reference}",
        reference,
    ]


@pytest.mark.parametrize("layers", [3, 60])
@pytest.mark.parametrize(("columns", "rows"), [(40, 10), (80, 24), (200, 50)])
def test_a_terminal_of_any_size_shows_what_moves(tmp_path: Path, layers: int, columns: int, rows: int) -> None:
    stop = tmp_path / "stop"
    moves = min(layers, AT_ONCE)
    with running(moving(layers, stop), environ(TERM="xterm"), columns=columns, rows=rows) as terminal:
        terminal.until(lambda: last(terminal).startswith("Total:") and terminal.text.count("B/s") == moves + 1)
        drawn = [line for line in terminal.screen if line and "Pulling" not in line and "threads" not in line]
        stop.touch()
        assert terminal.wait() == 0
    assert [line[:13] for line in drawn[:moves]] == [f"{name(number)}:" for number in range(moves)]
    assert all("B/s" in line for line in drawn[:moves])
    assert max(map(len, drawn)) <= columns
    if layers > rows:
        hidden = layers - (rows - 3)
        assert drawn[-2] == f"... {hidden} more: {hidden} waiting"
    final = [line for line in (*terminal.history, *terminal.screen) if "complete" in line]
    assert final == [f"{name(number)}: Pull complete" for number in range(layers)]


def test_lines_follow_when_the_terminal_changes_its_size(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    with running(moving(60, stop), environ(TERM="xterm"), columns=120, rows=30) as terminal:
        for columns, rows in ((120, 30), (40, 12), (200, 40)):
            terminal.resize(columns, rows)
            terminal.frames.clear()
            terminal.until(lambda: len(terminal.frames) > 5 and last(terminal).startswith("Total:"))
            assert max(map(len, terminal.screen)) <= columns
            assert ("[" in last(terminal)) == (columns > 80)
            assert len(terminal.screen) <= rows
        stop.touch()
        assert terminal.wait() == 0


def test_no_thread_runs_before_the_first_byte_moves(tmp_path: Path) -> None:
    """A pull forks its workers there."""
    stop = tmp_path / "stop"
    stop.touch()
    with running(moving(3, stop), environ(TERM="xterm")) as terminal:
        assert terminal.wait() == 0
    assert "1 threads" in terminal.text


@pytest.mark.parametrize("more", [{"TERM": "dumb"}, {"NO_COLOR": "1"}])
def test_a_terminal_that_can_do_nothing_gets_plain_lines(tmp_path: Path, more: dict[str, str]) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    with running(moving(2, stop), environ(**more)) as terminal:
        assert terminal.wait() == 0
    assert b"\x1b" not in terminal.raw
    assert [line for line in terminal.screen if "complete" in line] == [f"{name(n)}: Pull complete" for n in range(2)]


@pytest.mark.parametrize("more", [{}, {"NO_COLOR": "1"}])
def test_what_is_drawn_has_no_colours(tmp_path: Path, more: dict[str, str]) -> None:
    stop = tmp_path / "stop"
    with running(moving(3, stop), environ(TERM="xterm-256color", **more)) as terminal:
        terminal.until(lambda: "Total:" in terminal.text)
        stop.touch()
        assert terminal.wait() == 0
    assert re.findall(rb"\x1b\[[0-9;]*m", terminal.raw) == []
    assert "warning: something can be changed" in terminal.text
    assert "note: something is good to know" in terminal.text


def test_a_log_gets_plain_lines_and_no_drawing_library(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        image, reference = pushed(tmp_path, registry)
        done = argosy(tmp_path / "store", "pull", reference)
    lines = done.stdout.decode().splitlines()
    names = [layer.digest.short for layer in image.manifest.layers]
    assert sorted(lines[1:-3]) == sorted(
        f"{each}: {status}" for each in names for status in ("Download complete", "Pull complete")
    )
    assert done.stderr == b""


def test_programs_get_an_object_a_line(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        image, reference = pushed(tmp_path, registry)
        done = argosy(tmp_path / "store", "pull", "--progress", "json", reference)
        again = argosy(tmp_path / "store", "pull", "--progress", "json", reference)
    events = [msgspec.json.decode(line) for line in done.stdout.splitlines()]
    assert all({"id", "status", "current", "total", "time"} <= set(event) for event in events)
    assert (events[0]["id"], events[0]["status"]) == ("1", "Pulling from team/app")
    assert (events[-1]["id"], events[-1]["status"], events[-1]["digest"]) == (
        reference,
        "Downloaded newer image",
        image.descriptor.digest,
    )
    for layer in image.manifest.layers:
        own = [event for event in events if event["id"] == layer.digest.short]
        assert {event["total"] for event in own} == {layer.size}
        assert [event["status"] for event in own][:1] == ["Waiting"]
        assert (own[-1]["status"], own[-1]["current"]) == ("Pull complete", layer.size)
        assert "Downloading" in {event["status"] for event in own}
    assert msgspec.json.decode(again.stdout.splitlines()[-1])["status"] == "Image is up to date"
    assert (done.returncode, done.stderr) == (0, b"")


def test_json_tells_of_moving_layers_a_few_times_a_second(tmp_path: Path) -> None:
    stop = tmp_path / "stop"
    stop.touch()
    done = subprocess.run(moving(2, stop, "json"), env=environ(), capture_output=True, check=True, timeout=60)
    events = [msgspec.json.decode(line) for line in done.stdout.splitlines()[1:-1]]
    assert [(event["id"], event["status"], event["current"], event["total"]) for event in events] == [
        (name(0), "Waiting", None, SIZE),
        (name(1), "Waiting", None, SIZE),
        (name(0), "Downloading", 0, SIZE),
        (name(1), "Downloading", 0, SIZE),
        ("", "Warning", None, None),
        ("", "Note", None, None),
        (name(0), "Pull complete", SIZE, SIZE),
        (name(1), "Pull complete", SIZE, SIZE),
    ]
    assert [event["text"] for event in events if "text" in event] == [
        "something can be changed",
        "something is good to know",
    ]


def test_a_layer_that_another_process_fetches_says_so(tmp_path: Path) -> None:
    """The first pull stalls in the middle of its layer; the second waits for it, and takes over when it is killed."""
    image = random_image(tmp_path / "image", layers=1, size=300_000)
    layer = image.manifest.layers[0].digest.short
    environ = environment(tmp_path / "store", {"TERM": "xterm"})
    with running_registry(tmp_path / "registry", expected_stderr=None) as registry, flaky(registry.address) as proxy:
        registry.push(image, "team/app", "1")
        words = command("pull", f"{proxy.address}/team/app:1")
        proxy.fault = stall_after(100_000)
        with running(words, environ) as one:
            one.until(lambda: f"{layer}: Downloading" in one.text)
            with running(words, environ) as other:
                other.until(lambda: f"{layer}: Waiting for another argosy" in other.text)
                proxy.fault = none
                one.kill()
                assert other.wait() == 0
    assert f"{layer}: Pull complete" in other.text


@pytest.mark.parametrize("words", [("-q",), ("-q", "--progress", "json"), ("-q", "--progress", "tty")])
def test_quiet_prints_the_name_alone(tmp_path: Path, words: tuple[str, ...]) -> None:
    with running_registry(tmp_path / "registry") as registry:
        _, reference = pushed(tmp_path, registry)
        done = argosy(tmp_path / "store", "pull", *words, reference)
    assert (done.returncode, done.stdout.decode(), done.stderr) == (0, f"{reference}\n", b"")


def test_no_progress_leaves_what_docker_prints_around_it(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        image, reference = pushed(tmp_path, registry)
        done = argosy(tmp_path / "store", "pull", "--progress", "none", reference)
    assert done.stdout.decode().splitlines() == [
        "1: Pulling from team/app",
        f"Digest: {image.descriptor.digest}",
        f"Status: Downloaded newer image for {reference}",
        reference,
    ]
