"""ps and rm over real records; reap after supervisors that died."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from argosy.cli import main, ps
from argosy.errors import Conflict, NotFound
from argosy.linux import lifetimes
from argosy.oci import descriptor as media
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.ops import containers as ops
from argosy.runtime.oci_runtime import OciRuntime
from argosy.store.records import Container, ContainerStore
from argosy.store.roster import Entry
from argosy.store.version import check_version

IMAGE_ID = Digest.of(b"image")
DEAD = {"pid": 2**22 + 1, "start_time": 1}  # above the kernel's largest pid
NOW = 1795450980.0  # 2026-11-23T16:23:00Z


def record(number: int, **fields: Any) -> Container:
    known: dict[str, Any] = {
        "id": f"{number:064x}",
        "name": f"name-{number}",
        "image": "nvidia/cuda:13-devel",
        "manifest": Descriptor.of(b"manifest", media.OCI_MANIFEST),
        "image_id": IMAGE_ID,
        "created": f"2026-11-23T16:{number:02d}:00Z",
        "command": ("sh", "-c", "echo hello world"),
        "status": "exited",
        "started": f"2026-11-23T16:{number:02d}:01Z",
        "finished": f"2026-11-23T16:{number:02d}:02Z",
        "exit_code": 0,
    }
    return Container(**(known | fields))


def added(store: ContainerStore, container: Container) -> Container:
    store.create(container)
    return container


def alive() -> dict[str, int | None]:
    return {"pid": os.getpid(), "start_time": lifetimes.start_time(os.getpid())}


@pytest.fixture
def store(tmp_path: Path) -> ContainerStore:
    check_version(tmp_path / "store")
    return ContainerStore(tmp_path / "store")


@pytest.fixture
def runtime(tmp_path: Path) -> OciRuntime:
    """A runtime that only writes down what it is asked."""
    program = tmp_path / "runc"
    program.write_text(f'#!/bin/sh\necho "$@" >> {tmp_path}/asked\n')
    program.chmod(0o755)
    return OciRuntime(path=str(program), root=str(tmp_path / "state"))


def asked(tmp_path: Path) -> list[str]:
    path = tmp_path / "asked"
    return [" ".join(line.split()[2:]) for line in path.read_text().splitlines()] if path.exists() else []


def shown(store: ContainerStore, capsys: pytest.CaptureFixture[str], *argv: str) -> str:
    assert main(["ps", *argv], {"ARGOSY_ROOT": str(store.root), "PATH": "/usr/bin:/bin"}) == 0
    return capsys.readouterr().out


def test_ps_shows_dockers_columns_of_running_containers(
    store: ContainerStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.create(record(1, status="running", **alive()))
    store.create(record(2))
    lines = shown(store, capsys).splitlines()
    headings = [text for text in lines[0].split("  ") if text]
    assert [text.strip() for text in headings] == [
        "CONTAINER ID",
        "IMAGE",
        "COMMAND",
        "CREATED",
        "STATUS",
        "PORTS",
        "NAMES",
    ]
    assert [lines[1].split()[0], lines[1].split()[-1]] == ["000000000000", "name-1"]
    assert '"sh -c \'echo hello w…"' in lines[1]
    assert len(lines) == 2


@pytest.mark.parametrize(
    ("argv", "names"),
    [
        ([], ["name-1"]),
        (["-a"], ["name-3", "name-2", "name-1"]),
        (["-n", "2"], ["name-3", "name-2"]),
        (["-n", "0"], []),
        (["-l"], ["name-3"]),
        (["-f", "status=exited"], ["name-3", "name-2"]),
        (["-f", "exited=3"], ["name-3"]),
        (["-a", "-f", "name=2"], ["name-2"]),
        (["-a", "-f", "name=^name-[13]$"], ["name-3", "name-1"]),
        (["-a", "-f", "name=1", "-f", "name=2"], ["name-2", "name-1"]),
        (["-a", "-f", f"id={1:064x}"], ["name-1"]),
        (["-a", "-f", "label=tier"], ["name-3", "name-2"]),
        (["-a", "-f", "label=tier=web"], ["name-2"]),
        (["-a", "-f", "label=tier", "-f", "label=gpu"], ["name-3"]),
        (["-a", "-f", "ancestor=ubuntu"], ["name-3"]),
        (["-a", "-f", "ancestor=docker.io/library/ubuntu:latest"], ["name-3"]),
        (["-a", "-f", f"ancestor={IMAGE_ID.short}"], ["name-3", "name-2", "name-1"]),
        (["-a", "-f", "ancestor=nothing"], []),
    ],
)
def test_ps_shows_what_is_asked_for(
    argv: list[str], names: list[str], store: ContainerStore, capsys: pytest.CaptureFixture[str]
) -> None:
    store.create(record(1, status="running", exit_code=None, **alive()))
    store.create(record(2, labels={"tier": "web"}))
    store.create(record(3, labels={"tier": "db", "gpu": ""}, exit_code=3, image="ubuntu"))
    assert shown(store, capsys, *argv, "--format", "{{.Names}}").split() == names


def test_a_row_has_every_field_of_dockers(store: ContainerStore) -> None:
    made = record(1, labels={"b": "2", "a": "1"}, options={"network": "host", "volumes": [{"source": "/data"}]})
    row = ps.row(Entry.of(made), tuple(ps.FIELDS), no_trunc=True)
    label = row.pop("Label")
    assert callable(label)
    assert (label("a"), label("c")) == ("1", "")
    assert set(row) == set(ps.HEADERS)
    assert {name: row[name] for name in ("ID", "Command", "Labels", "Mounts", "Networks", "State", "Names")} == {
        "ID": f"{1:064x}",
        "Command": "\"sh -c 'echo hello world'\"",
        "Labels": "a=1,b=2",
        "Mounts": "/data",
        "Networks": "host",
        "State": "exited",
        "Names": "name-1",
    }


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"status": "created"}, "Created"),
        ({"status": "running", "started": "2026-11-23T14:23:00.5Z"}, "Up 2 hours"),
        ({"status": "running", "started": ""}, "Up"),
        ({"status": "exited", "exit_code": 137, "finished": "2026-11-23T16:22:00Z"}, "Exited (137) About a minute ago"),
    ],
)
def test_the_status_is_in_dockers_words(fields: dict[str, Any], text: str) -> None:
    assert ps.status_text(record(1, **fields), now=NOW) == text


@pytest.mark.parametrize(
    ("text", "quoted"),
    [
        ("a b", '"a b"'),
        ('say "hi"', '"say \\"hi\\""'),
        ("a\\b", '"a\\\\b"'),
        ("a\nb\tc", '"a\\nb\\tc"'),
        ("\x1b", '"\\x1b"'),
    ],
)
def test_commands_are_quoted_as_go_quotes(text: str, quoted: str) -> None:
    assert ps.quoted(text) == quoted


def test_quiet_shows_ids_and_no_trunc_whole_ones(store: ContainerStore, capsys: pytest.CaptureFixture[str]) -> None:
    store.create(record(10**14))
    assert shown(store, capsys, "-aq") == f"{10**14:064x}"[:12] + "\n"
    assert shown(store, capsys, "-aq", "--no-trunc") == f"{10**14:064x}\n"


def test_a_living_supervisor_is_left_alone(store: ContainerStore, runtime: OciRuntime, tmp_path: Path) -> None:
    made = added(store, record(1, status="running", exit_code=None, **alive()))
    assert ops.reap(store, lambda: runtime) == ops.Reaped(containers=(made,))
    assert asked(tmp_path) == []


def test_a_container_whose_supervisor_died_is_ended_and_recorded(
    store: ContainerStore, runtime: OciRuntime, tmp_path: Path
) -> None:
    store.create(record(1, status="running", exit_code=None, finished="", **DEAD))
    done = ops.reap(store, lambda: runtime)
    after = store.get("name-1")
    assert (after.status, after.exit_code, after.pid, bool(after.finished)) == ("exited", 137, None, True)
    assert ([c.name for c in done.cleaned], done.containers, done.problems) == (["name-1"], (after,), ())
    assert asked(tmp_path) == [f"delete --force {1:064x}"]


@pytest.mark.parametrize("fields", [{"auto_remove": True, "status": "running"}, {"status": "created"}])
def test_what_nobody_wants_to_keep_is_removed(
    fields: dict[str, Any], store: ContainerStore, runtime: OciRuntime
) -> None:
    made = added(store, record(1, **{**DEAD, "exit_code": None, **fields}))
    assert ops.reap(store, lambda: runtime).containers == ()
    assert not Path(store.folder(made.id)).exists()
    store.create(record(2, name=made.name))  # the name is free again


def test_a_second_reap_has_nothing_to_do(store: ContainerStore, runtime: OciRuntime, tmp_path: Path) -> None:
    store.create(record(1, status="running", exit_code=None, **DEAD))
    ops.reap(store, lambda: runtime)
    (tmp_path / "asked").unlink()
    assert ops.reap(store, lambda: runtime).cleaned == ()
    assert asked(tmp_path) == []


def test_a_pid_that_came_round_again_is_not_the_supervisor(store: ContainerStore, runtime: OciRuntime) -> None:
    store.create(record(1, status="running", exit_code=None, pid=os.getpid(), start_time=1))
    assert [c.name for c in ops.reap(store, lambda: runtime).cleaned] == ["name-1"]


def test_after_a_restart_of_the_machine_no_pid_speaks_for_a_container(
    store: ContainerStore, runtime: OciRuntime
) -> None:
    store.create(record(1, status="running", exit_code=None, boot=lifetimes.boot_id(), **alive()))
    store.create(record(2, status="running", exit_code=None, boot="another", **alive()))
    assert [c.name for c in ops.reap(store, lambda: runtime).cleaned] == ["name-2"]


def test_without_a_runtime_the_container_is_left_for_later(store: ContainerStore) -> None:
    made = added(store, record(1, status="running", exit_code=None, **DEAD))

    def missing() -> OciRuntime:
        raise NotFound("no container runtime found", code="no-runtime")

    done = ops.reap(store, missing)
    assert [(c.name, error.code) for c, error in done.problems] == [("name-1", "no-runtime")]
    assert store.get("name-1") == made


def test_a_running_container_is_removed_by_force_only(store: ContainerStore, runtime: OciRuntime) -> None:
    store.create(record(1, status="running", exit_code=None, **alive()))
    with pytest.raises(Conflict) as caught:
        ops.remove("name-1", containers=store, runtime=lambda: runtime)
    assert caught.value.message == (
        'cannot remove container "/name-1": container is running: stop the container before removing or force remove'
    )
    ops.remove("name-1", containers=store, runtime=lambda: runtime, force=True)
    assert store.list() == ()


def test_force_waits_for_the_supervisor_to_record_the_end(
    store: ContainerStore, runtime: OciRuntime, tmp_path: Path
) -> None:
    """The runtime ends the container; its supervisor then ends too, and only then the files go."""
    pid = os.posix_spawn("/bin/sleep", ["sleep", "60"], {})
    killer = tmp_path / "runc"
    killer.write_text(f"#!/bin/sh\nkill {pid}\n")
    made = added(store, record(1, status="running", exit_code=None, pid=pid, start_time=lifetimes.start_time(pid)))
    try:
        ops.remove(made.id[:63], containers=store, runtime=lambda: runtime, force=True)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    assert store.list() == ()


def test_exited_containers_are_removed_without_a_runtime(store: ContainerStore) -> None:
    store.create(record(1))

    def never() -> OciRuntime:
        raise AssertionError("not needed")

    assert ops.remove("name-1", containers=store, runtime=never).name == "name-1"
    assert store.list() == ()


def test_the_writable_layer_is_measured_without_following_links(store: ContainerStore, tmp_path: Path) -> None:
    made = added(store, record(1))
    upper = Path(store.folder(made.id)) / "upper"
    (upper / "a/b").mkdir(parents=True)
    (upper / "file").write_bytes(b"12345")
    (upper / "a/b/file").write_bytes(b"123")
    (upper / "link").symlink_to("/usr")
    assert ops.writable_size(store, made) == 8
    assert ops.writable_size(store, record(2)) == 0
