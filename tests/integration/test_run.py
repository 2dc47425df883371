"""`argosy run` in real containers: a real kernel, a real runtime, the program as users start it."""

from __future__ import annotations

import json
import os
import pty
import re
import select
import shutil
import signal
import subprocess
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from ..support.busybox import busybox_image
from ..support.stores import argosy, command, environment, load_image

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
IMAGE = "box:1"


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    load_image(folder / "store", busybox_image(folder / "image"), IMAGE)
    return folder / "store"


def run(root: Path, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
    return argosy(root, "run", *words, stdin=stdin)


def output(root: Path, *words: str) -> str:
    """Standard output of a run with --rm that must succeed."""
    done = run(root, "--rm", *words)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode()


def cgroups() -> set[str]:
    """cgroups of containers in which nothing runs, and which stay so: others on this machine may come and go."""
    found = _empty_cgroups()
    deadline = time.monotonic() + 2
    while found and time.monotonic() < deadline:
        time.sleep(0.05)
        found &= _empty_cgroups()
    return found


def _empty_cgroups() -> set[str]:
    made = (path for pattern in ("argosy-*", "*/argosy-*") for path in Path("/sys/fs/cgroup").glob(pattern))
    empty = set()
    for path in made:
        with suppress(OSError):
            if not (path / "cgroup.procs").read_text():
                empty.add(str(path))
    return empty


def leftovers(root: Path) -> dict[str, list[str]]:
    """What a container must not leave: files in the store, cgroups, mounts."""
    return {
        "containers": os.listdir(root / "containers"),
        "names": [name for name in os.listdir(root / "names") if not name.startswith(".")],
        "cgroups": sorted(cgroups() - CGROUPS_BEFORE),
        "mounts": [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line],
    }


CGROUPS_BEFORE = cgroups()
NOTHING: dict[str, list[str]] = {"containers": [], "names": [], "cgroups": [], "mounts": []}


def test_the_programs_exit_status_is_ours_and_nothing_is_left(root: Path) -> None:
    assert run(root, "--rm", IMAGE, "sh", "-c", "exit 7").returncode == 7
    assert leftovers(root) == NOTHING


def test_output_goes_to_the_right_stream(root: Path) -> None:
    done = run(root, "--rm", IMAGE, "sh", "-c", "echo out; echo err >&2")
    assert (done.stdout, done.stderr) == (b"out\n", b"err\n")


def test_layers_lie_on_each_other_and_the_images_environment_holds(root: Path) -> None:
    assert output(root, IMAGE, "/opt/hello") == "hello from a layer\n"
    assert output(root, IMAGE, "sh", "-c", "echo $GREETING $PATH $HOME") == "hello /usr/bin:/bin /root\n"


def test_a_container_sees_its_own_processes_and_default_capabilities_only(root: Path) -> None:
    assert output(root, IMAGE, "sh", "-c", "echo /proc/[0-9]*").strip() == "/proc/1"
    status = output(root, IMAGE, "grep", "-E", "CapEff|Seccomp:", "/proc/self/status").split()
    assert status == ["CapEff:", "00000000a80425fb", "Seccomp:", "2"]


def test_what_dockers_seccomp_profile_refuses_is_refused(root: Path) -> None:
    done = run(root, "--rm", IMAGE, "unshare", "-U", "true")
    assert done.returncode != 0
    assert b"Operation not permitted" in done.stderr


#: Makes a node of the device /dev/loop-control (any root may open it) and opens it.
OPEN_DEVICE = "mknod /loop c 10 237 || exit 3; exec 5<>/loop && echo opened"


def test_a_device_of_the_host_can_be_made_but_not_opened(root: Path) -> None:
    done = run(root, "--rm", IMAGE, "sh", "-c", OPEN_DEVICE)
    assert (done.returncode not in (0, 3), done.stdout) == (True, b"")
    assert b"Operation not permitted" in done.stderr


def test_without_cgroups_a_device_of_the_host_cannot_even_be_made(root: Path) -> None:
    """As root of another engine's container, whose cgroups cannot be written to."""
    hide = 'mount -t tmpfs -o ro none /sys/fs/cgroup && exec "$@"'
    argv = command("run", "--rm", IMAGE, "sh", "-c", OPEN_DEVICE)
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", hide, "sh", *argv], env=environment(root), capture_output=True, check=False
    )
    assert (done.returncode, done.stdout) == (3, b"")


def test_variables_working_folder_user_and_hostname(root: Path) -> None:
    words = ("-e", "A=1", "-e", "FROM_SHELL", "-w", "/made/here", "-u", "ana", "--hostname", "box")
    environ = {"FROM_SHELL": "yes"}
    script = "echo $A $FROM_SHELL; pwd; id -un; id -gn; hostname; stat -c %U /made/here"
    done = argosy(root, "run", "--rm", *words, IMAGE, "sh", "-c", script, environ=environ)
    assert done.stdout.decode().split() == ["1", "yes", "/made/here", "ana", "users", "box", "ana"]


def test_inspect_shows_what_a_container_was_told_over_what_its_image_says(root: Path, tmp_path: Path) -> None:
    words = ("--name", "told", "-e", "A=1", "-w", "/tmp", "-u", "ana", "-v", f"{tmp_path}:/data:ro", IMAGE, "true")
    assert run(root, *words).returncode == 0
    (found,) = json.loads(argosy(root, "inspect", "told").stdout)
    argosy(root, "rm", "told")
    config = found["Config"]
    assert (config["User"], config["WorkingDir"], config["Cmd"]) == ("ana", "/tmp", ["true"])
    assert config["Env"] == ["PATH=/usr/bin:/bin", "GREETING=hello", "A=1"]
    assert [(m["Source"], m["Destination"], m["RW"]) for m in found["Mounts"]] == [(str(tmp_path), "/data", False)]


def test_env_file_comments_and_bare_names(root: Path, tmp_path: Path) -> None:
    (tmp_path / "env").write_text("# comment\nA=from file\n\n  B=b=b\nSHELLS_OWN\nABSENT\n")
    done = argosy(
        root,
        "run",
        "--rm",
        "--env-file",
        str(tmp_path / "env"),
        "-e",
        "B=flag",
        IMAGE,
        "env",
        environ={"SHELLS_OWN": "value"},
    )
    lines = done.stdout.decode().splitlines()
    assert {"A=from file", "B=flag", "SHELLS_OWN=value"} <= set(lines)
    assert not [line for line in lines if line.startswith("ABSENT")]


def test_entrypoint_replaces_the_images_and_takes_the_arguments(root: Path) -> None:
    assert output(root, "--entrypoint", "echo", IMAGE, "a", "-n") == "a -n\n"


def test_options_after_the_image_belong_to_the_program(root: Path) -> None:
    assert output(root, IMAGE, "echo", "--rm", "-it", "--name", "x") == "--rm -it --name x\n"


def test_volumes_read_write_and_read_only(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data/in").write_text("from the host")
    output(root, "-v", f"{tmp_path}/data:/deep/er", IMAGE, "sh", "-c", "cp /deep/er/in /deep/er/out")
    assert (tmp_path / "data/out").read_text() == "from the host"
    done = run(root, "--rm", "-v", f"{tmp_path}/data:/data:ro", IMAGE, "touch", "/data/x")
    assert b"Read-only file system" in done.stderr
    output(root, "-v", f"{tmp_path}/data/in:/etc/one:ro", IMAGE, "grep", "-q", "host", "/etc/one")


@pytest.mark.parametrize(
    "words",
    [
        ("-v", "{tool}:/tool", IMAGE, "/tool"),
        ("-v", "{folder}:/deep/er", IMAGE, "/deep/er/tool"),
        ("-v", "{folder}:/deep/er", "-w", "/deep/er", IMAGE, "./tool"),
        ("-v", "{folder}:/deep/er", "-e", "PATH=/nosuch:/deep/er", IMAGE, "tool"),
        ("-v", "{tool}:/opt/hello", IMAGE, "/opt/hello"),
        ("-v", "{tool}:/root/tool", IMAGE, "/proc/self/root/../root/tool"),
        ("-v", "{folder}/script:/script", "-v", "{tool}:/interpreter", IMAGE, "/script"),
    ],
)
def test_a_program_may_come_with_a_volume(root: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "tool").write_text("#!/bin/sh\necho from a volume\n")
    (tmp_path / "script").write_text("#!/interpreter\n")
    for name in ("tool", "script"):
        (tmp_path / name).chmod(0o755)
    places = {"tool": tmp_path / "tool", "folder": tmp_path}
    assert output(root, *(word.format(**places) for word in words)) == "from a volume\n"


def test_a_program_that_a_volume_lacks_has_dockers_statuses(root: Path, tmp_path: Path) -> None:
    (tmp_path / "data").write_text("no program")
    for name, status in (("nosuch", 127), ("data", 126)):
        assert run(root, "--rm", "-v", f"{tmp_path}:/deep/er", IMAGE, f"/deep/er/{name}").returncode == status
    assert leftovers(root) == NOTHING


def test_a_volumes_missing_folder_is_made_as_docker_does(root: Path, tmp_path: Path) -> None:
    output(root, "-v", f"{tmp_path}/new/folder:/data", IMAGE, "touch", "/data/x")
    assert (tmp_path / "new/folder/x").exists()


def test_read_only_root_with_a_tmpfs(root: Path) -> None:
    words = ("--read-only", "--tmpfs", "/scratch:size=1m", IMAGE, "sh", "-c")
    assert b"Read-only" in run(root, "--rm", *words, "touch /x").stderr
    assert output(root, *words, "touch /scratch/x && df -k /scratch | tail -1").split()[1] == "1024"


def test_network_none_has_loopback_alone_and_host_the_hosts(root: Path) -> None:
    assert re.findall(r"^\d+: (\w+)", output(root, "--network", "none", IMAGE, "ip", "link"), re.MULTILINE) == ["lo"]
    inside = output(root, "--network", "host", IMAGE, "readlink", "/proc/self/ns/net").strip()
    assert inside == os.readlink("/proc/self/ns/net")


@pytest.mark.parametrize(
    ("redirection", "said"), [("<&-", b"0 1 2 3 out"), (">&-", b""), ("2>&-", b"0 1 2 3 out"), ("<&- >&- 2>&-", b"")]
)
def test_descriptors_that_the_caller_closed_are_none_of_ours_inside(root: Path, redirection: str, said: bytes) -> None:
    argv = command("run", "--rm", "-i", IMAGE, "sh", "-c", "cat && echo $(cd /proc/self/fd && echo *) out")
    done = subprocess.run(
        ["sh", "-c", f'"$@" {redirection}', "sh", *argv], env=environment(root), stdout=subprocess.PIPE, check=False
    )
    assert (done.returncode, done.stdout.strip()) == (0, said)


def test_no_umask_lets_others_write_to_the_store_or_keeps_users_out_of_an_image(tmp_path: Path) -> None:
    script = 'umask "$1"; shift; exec "$@"'
    for umask in ("000", "077"):
        store = tmp_path / umask
        load_image(store, busybox_image(tmp_path / f"image{umask}"), IMAGE)
        inside = "umask; touch a && cat /etc/hosts >a && ls -A"
        words = ("-q", "-u", "1000", "-w", "/made/here", IMAGE, "sh", "-c", inside)
        done = subprocess.run(
            ["sh", "-c", script, "sh", umask, *command("run", *words)],
            env=environment(store),
            capture_output=True,
            check=False,
        )
        assert (done.returncode, done.stdout, done.stderr.decode()) == (0, b"0022\na\n", "")
        found = [path for path in store.rglob("*") if not path.is_symlink() and path.stat().st_mode & 0o022]
        assert [str(path) for path in found if "layers" not in path.parts and "upper" not in path.parts] == []


def test_only_the_runtime_asks_for_sys(root: Path) -> None:
    argv = command("run", "--rm", IMAGE, "echo", "hi")
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", 'mount -t tmpfs none /sys && exec "$@"', "sh", *argv],
        env=environment(root),
        capture_output=True,
        check=False,
    )
    assert (done.returncode, b"[start-failed]" in done.stderr) == (125, True)


def test_standard_input_is_closed_without_i_and_open_with_it(root: Path) -> None:
    assert run(root, "--rm", IMAGE, "cat", stdin=b"unseen").stdout == b""
    assert run(root, "--rm", "-i", IMAGE, "cat", stdin=b"seen").stdout == b"seen"


@pytest.mark.parametrize(
    ("words", "status", "said"),
    [
        (("nosuch",), 127, "no program 'nosuch' in this image"),
        (("/no/such",), 127, "there is no such file"),
        (("/etc/passwd-",), 127, "no program"),
        (("/opt",), 126, "permission denied"),
        (("sh", "-c", "nosuch"), 127, "not found"),
    ],
)
def test_programs_that_cannot_start_have_dockers_statuses(
    root: Path, words: tuple[str, ...], status: int, said: str
) -> None:
    done = run(root, "--rm", IMAGE, *words)
    assert (done.returncode, said in done.stderr.decode()) == (status, True), done.stderr.decode()
    assert leftovers(root) == NOTHING


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--network", "bridge", IMAGE), "network-unknown"),
        (("-v", "nonsense", IMAGE), "volume-invalid"),
        (("--name", "-x-", IMAGE), "name-invalid"),
        (("-u", "nobody-here", IMAGE, "true"), "user-unknown"),
        (("--cap-add", "NOPE", IMAGE, "true"), "capability-unknown"),
        (("--nonsense", IMAGE), "usage"),
        (("UPPER/Case", "true"), "reference-invalid"),
        (("--pull", "never", "not/here", "true"), "image-unknown"),
    ],
)
def test_bad_requests_exit_125_with_one_error_and_leave_nothing(root: Path, words: tuple[str, ...], code: str) -> None:
    done = run(root, *words)
    assert done.returncode == 125, done.stderr.decode()
    assert f"[{code}]" in done.stderr.decode().splitlines()[0]
    assert leftovers(root) == NOTHING


def test_root_runs_no_runtime_that_another_user_put_into_the_store(root: Path) -> None:
    program = root / "bin/crun"
    program.parent.mkdir()
    try:
        for path, owner, mode in ((program, 1, 0o755), (program.parent, 1, 0o755), (program, 0, 0o777)):
            program.write_text("#!/bin/sh\necho mine\n")
            program.chmod(mode)
            os.chown(path, owner, owner)
            done = run(root, "--rm", IMAGE, "true")
            assert (done.returncode, done.stdout) == (125, b"")
            assert f"error: {path} is not this user's alone [not-ours]\n" in done.stderr.decode()
            os.chown(path, 0, 0)
    finally:
        shutil.rmtree(program.parent)


@pytest.mark.parametrize("name", ["co:lon, blank\\n'\n", "x" * 200 + "/" + "y" * 200])
def test_a_store_may_have_any_name(tmp_path: Path, name: str) -> None:
    for kind in ("", "unpacked"):
        store = tmp_path / name / f"store of {kind}"
        load_image(store, busybox_image(tmp_path / f"image of {kind}"), IMAGE)
        done = argosy(store, "run", "-q", IMAGE, "echo", "hi", environ={"ARGOSY_SNAPSHOTTER": kind})
        assert (done.returncode, done.stdout, done.stderr) == (0, b"hi\n", b"")


def test_a_store_whose_name_is_no_text_is_named(tmp_path: Path) -> None:
    store = tmp_path / "\udcff"
    load_image(store, busybox_image(tmp_path / "image"), IMAGE)
    done = argosy(store, "run", "-q", IMAGE, "true")
    assert (done.returncode, done.stdout) == (125, b"")
    assert b"error: no container can use a path that is not UTF-8 [not-utf8]\n" in done.stderr


def test_a_second_run_with_the_same_name_is_refused_until_rm(root: Path) -> None:
    assert run(root, "--name", "twin", IMAGE, "touch", "/mine").returncode == 0
    done = run(root, "--name", "twin", IMAGE, "true")
    assert done.returncode == 125
    assert 'the container name "/twin" is already in use by container' in done.stderr.decode()
    listed = argosy(root, "ps", "-a", "--format", "{{.Names}} {{.Image}} {{.Status}}").stdout.decode()
    assert re.fullmatch(rf"twin {IMAGE} Exited \(0\) .*\n", listed)
    assert argosy(root, "rm", "twin").returncode == 0
    assert leftovers(root) == NOTHING


def test_the_writable_layer_holds_the_containers_changes_and_nothing_else(root: Path, tmp_path: Path) -> None:
    words = ("--name", "writer", "-v", f"{tmp_path}:/mnt/point", "--tmpfs", "/scratch", IMAGE, "sh", "-c")
    assert run(root, *words, "echo x > /root/mine; rm /opt/hello").returncode == 0
    (upper,) = (root / "containers").glob("*/upper")
    found = sorted(str(path.relative_to(upper)) for path in upper.rglob("*"))
    argosy(root, "rm", "writer")
    assert found == ["opt", "opt/hello", "root", "root/mine"]


def test_signals_are_passed_on_and_the_status_comes_back(root: Path) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with started(root, "--rm", IMAGE, "sh", "-c", script) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert (child.stdout.read(), child.wait(20)) == (b"got\n", 5)
    assert leftovers(root) == NOTHING


def test_a_signal_that_nohup_takes_away_does_not_reach_the_container(root: Path) -> None:
    script = "trap 'echo hangup; exit 5' HUP; trap 'echo got; exit 6' TERM; echo ready; while :; do sleep 0.05; done"
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)
    try:
        with started(root, "--rm", IMAGE, "sh", "-c", script) as process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
            process.send_signal(signal.SIGHUP)
            time.sleep(0.2)
            process.send_signal(signal.SIGTERM)
            assert (process.stdout.read(), process.wait(20)) == (b"got\n", 6)
    finally:
        signal.signal(signal.SIGHUP, before)
    assert leftovers(root) == NOTHING


def test_after_kill_9_the_next_verb_cleans_up(root: Path) -> None:
    with started(root, "--name", "orphan", IMAGE, "sh", "-c", "echo ready; exec sleep 1000") as child:
        assert child.stdout is not None
        child.stdout.readline()
        inside = container_pid(root)
        child.kill()
        child.wait(20)
    assert Path(f"/proc/{inside}").exists()
    listed = argosy(root, "ps", "-a", "--format", "{{.Names}} {{.Status}}")
    assert listed.stdout.decode().startswith("orphan Exited (137)"), listed.stderr.decode()
    wait_gone(inside)
    assert argosy(root, "rm", "orphan").returncode == 0
    assert leftovers(root) == NOTHING


def test_after_kill_9_a_container_with_rm_is_gone_after_the_next_verb(root: Path) -> None:
    with started(root, "--rm", IMAGE, "sh", "-c", "echo ready; exec sleep 1000") as child:
        assert child.stdout is not None
        child.stdout.readline()
        inside = container_pid(root)
        child.kill()
        child.wait(20)
    assert argosy(root, "ps", "-aq").stdout == b""
    wait_gone(inside)
    assert leftovers(root) == NOTHING


def test_a_terminal_has_its_size_echo_and_mode_and_the_outer_mode_comes_back(root: Path) -> None:
    import termios

    pid, outer = pty.fork()
    if pid == 0:
        os.execve(
            command()[0], [*command("run", "--rm", "-it", IMAGE, "sh")], environment(root)
        )  # pragma: no cover - the child is another program now
    try:
        termios.tcsetwinsize(outer, (33, 101))
        said = talk(outer, b"", b"# ")
        before = termios.tcgetattr(outer)
        said = talk(outer, b"stty size; tty\n", b"/dev/pts/0\r\n")
        assert b"33 101" in said
        termios.tcsetwinsize(outer, (20, 50))
        os.kill(pid, signal.SIGWINCH)
        assert b"20 50" in talk(outer, b"sleep 0.2; stty size\n", b"20 50")
        assert before[3] & termios.ECHO == 0, "the outer terminal is raw while the container has the keys"
        talk(outer, b"exit 9\n", b"")
        _, status = os.waitpid(pid, 0)
        assert os.waitstatus_to_exitcode(status) == 9
        assert termios.tcgetattr(outer)[3] & termios.ECHO, "the outer terminal echoes again"
    finally:
        os.close(outer)
    assert leftovers(root) == NOTHING


def test_a_terminal_that_others_made_non_blocking_loses_nothing(root: Path) -> None:
    size = 600_000  # more than a pipe holds
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    argv = command(
        "run", "--rm", "-t", IMAGE, "sh", "-c", f"dd if=/dev/zero bs={size} count=1 2>/dev/null | tr '\\0' a"
    )
    with subprocess.Popen(argv, env=environment(root), stdin=subprocess.DEVNULL, stdout=writer) as child:
        os.close(writer)
        heard = b""
        while piece := os.read(reader, 1 << 14):
            heard += piece
            time.sleep(0.001)
        os.close(reader)
        assert (child.wait(20), heard.count(b"a"), len(heard)) == (0, size, size)
    assert leftovers(root) == NOTHING


def test_t_without_a_terminal_is_refused_with_i(root: Path) -> None:
    done = run(root, "--rm", "-it", IMAGE, "true")
    assert done.returncode == 125
    assert "the input is not a terminal" in done.stderr.decode()


@contextmanager
def started(root: Path, *words: str) -> Iterator[subprocess.Popen[bytes]]:
    """A run beside us, killed at the end if it still goes."""
    child = subprocess.Popen(
        command("run", *words), env=environment(root), stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    with child:
        try:
            yield child
        finally:
            child.kill()


def container_pid(root: Path) -> int:
    """The first process of the only container, as the host numbers it."""
    deadline = time.monotonic() + 10
    while True:
        for written in (root / "containers").glob("*/pid"):
            if text := written.read_text():
                return int(text)
        assert time.monotonic() < deadline, "the runtime wrote no pid"
        time.sleep(0.01)


def wait_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline, f"process {pid} of a container is still there"
        time.sleep(0.02)


def talk(fd: int, keys: bytes, until: bytes, timeout_s: float = 20) -> bytes:
    """Type *keys*, read until *until* has appeared; what was read."""
    os.write(fd, keys)
    heard = b""
    deadline = time.monotonic() + timeout_s
    while until not in heard:
        left = deadline - time.monotonic()
        assert left > 0, f"waited for {until!r}, heard {heard!r}"
        if select.select([fd], [], [], left)[0]:
            heard += os.read(fd, 4096)
    return heard


def test_committing_a_container_that_writes_gives_a_whole_image_or_the_reason(root: Path) -> None:
    script = (
        "echo going; i=0; while :; do i=$((i + 1)); echo $i > /root/f$((i % 9)); rm -f /root/f$(((i + 4) % 9)); done"
    )
    with started(root, "--name", "writing", IMAGE, "sh", "-c", script) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"going\n"
        reasons = {
            (done.stderr.splitlines() or [b""])[0]
            for done in (argosy(root, "commit", "writing", "written:1") for _ in range(8))
        }
        assert argosy(root, "rm", "-f", "writing").returncode == 0
    assert reasons <= {b"", b"error: the container's program changed files while they were read [file-changed]"}
    argosy(root, "rmi", "-f", "written:1")
    assert leftovers(root) == NOTHING
