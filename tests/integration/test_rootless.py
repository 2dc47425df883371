"""The program for an ordinary user: real user namespaces, with one id and with a range of them."""

from __future__ import annotations

import io
import os
import pty
import re
import select
import shutil
import signal
import tarfile
import termios
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.linux import processes, userns
from argosy.oci.descriptor import OCI_MANIFEST

from ..support import driver_roots
from ..support.busybox import APPLETS, busybox_image
from ..support.driver_roots import GPUS
from ..support.images import MTIME, Layout, RandomImage, compress, config_json
from ..support.registry import START_S, running_registry
from ..support.stores import command
from ..support.users import FIRST_ID, UID, User, can_have_ranges, forbid_user_namespaces
from .test_run import leftovers, talk

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..support.registry import RunningRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
IMAGE = "box:1"
NO_RANGES = "no subordinate ids: newuidmap, newgidmap, /etc/subuid and /etc/subgid are needed"
RUNTIMES = tuple(path for name in ("crun", "runc") if (path := processes.find_program(name, path="")) is not None)


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder / "registry") as registry:
        registry.push(busybox_image(folder / "image"), "box", "1")
        yield registry


def make_user(folder: Path, registry: RunningRegistry, *, ranges: bool) -> User:
    """A user who has pulled the image."""
    if ranges and not can_have_ranges():
        pytest.skip(NO_RANGES)
    user = User.make(folder, ranges=ranges)
    source = f"{registry.address}/box:1"
    for words in (("pull", "-q", source), ("tag", source, IMAGE), ("run", "--rm", IMAGE, "true")):
        output(user, *words)
    return user


@pytest.fixture(scope="module")
def single(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> User:
    return make_user(tmp_path_factory.mktemp("single"), registry, ranges=False)


@pytest.fixture(scope="module")
def ranged(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> User:
    return make_user(tmp_path_factory.mktemp("ranged"), registry, ranges=True)


@pytest.fixture(scope="module", params=["single", "ranged"])
def user(request: pytest.FixtureRequest) -> User:
    """Each of the two in turn."""
    found: User = request.getfixturevalue(request.param)
    return found


def output(user: User, *words: str) -> str:
    """Standard output of a verb that must succeed and has nothing to warn of."""
    done = user.argosy(*words)
    assert (done.returncode, done.stderr.decode()) == (0, ""), words
    return done.stdout.decode()


def run(user: User, *words: str) -> str:
    """Standard output of a run with --rm that must succeed."""
    return output(user, "run", "--rm", *words)


def failure(user: User, *words: str) -> tuple[int, str]:
    """Exit status and message of a verb that must fail."""
    done = user.argosy(*words)
    return done.returncode, done.stderr.decode()


def left(user: User) -> dict[str, list[str]]:
    """What nothing may leave behind: files of containers, cgroups, mounts, the runtime's state, processes."""
    state = user.home / "run/argosy"
    found = leftovers(user.root)
    return {
        **found,
        "cgroups": [path for path in found["cgroups"] if os.path.exists(path) and os.stat(path).st_uid == UID],
        "state": os.listdir(state) if state.exists() else [],
        "tmp": os.listdir(user.root / "tmp"),
        "processes": list(user.processes()),
    }


NOTHING: dict[str, list[str]] = {
    name: [] for name in ("containers", "names", "cgroups", "mounts", "state", "tmp", "processes")
}


# ---- run


def test_root_inside_is_the_user_outside(user: User) -> None:
    run(user, "-v", f"{user.home}/shared:/data", IMAGE, "sh", "-c", "id -u >/data/uid; id -g >/data/gid")
    files = sorted((user.home / "shared").iterdir())
    assert [(file.name, file.read_text(), file.stat().st_uid) for file in files] == [
        ("gid", "0\n", UID),
        ("uid", "0\n", UID),
    ]
    assert left(user) == NOTHING


@pytest.mark.parametrize(
    ("words", "status"),
    [
        (("sh", "-c", "exit 7"), 7),
        (("sh", "-c", "sh -c 'kill -9 $$'; exit $?"), 137),
        (("nothing-here",), 127),
        (("/home",), 126),
    ],
)
def test_the_exit_status_comes_back(user: User, words: tuple[str, ...], status: int) -> None:
    assert failure(user, "run", "--rm", IMAGE, *words)[0] == status
    assert left(user) == NOTHING


def test_signals_are_passed_on(user: User) -> None:
    script = "trap 'echo got; exit 5' TERM; echo ready; while :; do sleep 0.05; done"
    with user.start("run", "--rm", IMAGE, "sh", "-c", script) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        child.send_signal(signal.SIGTERM)
        assert (child.stdout.read(), child.wait(20)) == (b"got\n", 5)
    assert left(user) == NOTHING


def test_a_terminal_is_the_containers_own(user: User) -> None:
    pid, outer = pty.fork()
    if pid == 0:
        user.become()
        os.execve(command()[0], [*command("run", "--rm", "-it", IMAGE, "sh")], user.environment)
    try:
        termios.tcsetwinsize(outer, (33, 101))
        talk(outer, b"", b"# ")
        talk(outer, b"stty size\n", b"33 101\r\n")
        termios.tcsetwinsize(outer, (20, 50))
        talk(outer, b"sleep 0.2; stty size\n", b"20 50\r\n")
        said = talk(outer, b"tty; stat -c %a:%u:%G $(tty); echo $((6*7))\n", b"42\r\n")
        assert b"/dev/pts/0\r\n620:0:root\r\n" in said  # gid 5 (tty), as Docker has it, needs more than one's own id
        talk(outer, b"exit 9\n", b"")
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 9
    finally:
        os.close(outer)
    assert left(user) == NOTHING


def test_after_kill_9_the_next_verb_cleans_up(user: User) -> None:
    with user.start("run", "--name", "orphan", IMAGE, "sh", "-c", "echo ready; exec sleep 1000") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
    assert [line for line in user.processes() if "sleep 1000" in line]
    done = user.argosy("ps", "-a", "--format", "{{.Names}} {{.Status}}")
    assert done.stdout.startswith(b"orphan Exited (137)"), done.stderr
    assert done.stderr == b"warning: the argosy process of container orphan had died; the container was cleaned up\n"
    assert output(user, "rm", "orphan") == "orphan\n"
    assert left(user) == NOTHING


@pytest.mark.parametrize("verb", [("ps",), ("rmi", "no-such"), ("run", "--rm", IMAGE, "true")])
def test_processes_with_subordinate_ids_are_ended_by_the_next_verb_too(ranged: User, verb: tuple[str, ...]) -> None:
    """They can be signalled from outside of user namespaces only, and every verb knows that."""
    with ranged.start("run", "--rm", "-u", "ana", IMAGE, "sh", "-c", "echo ready; exec sleep 1000") as child:
        assert child.stdout is not None
        child.stdout.readline()
        child.kill()
    ranged.argosy(*verb)
    assert left(ranged) == NOTHING


@pytest.mark.parametrize("kept", [(), ("--rm",)])
def test_rm_f_ends_a_running_container_whatever_ids_it_has(ranged: User, kept: tuple[str, ...]) -> None:
    script = "echo ready; trap : TERM; while :; do sleep 0.1; done"
    with ranged.start("run", *kept, "--name", "busy", "-u", "ana", IMAGE, "sh", "-c", script) as child:
        assert child.stdout is not None
        child.stdout.readline()
        status, said = failure(ranged, "rm", "busy")
        assert (status, "container is running" in said) == (1, True)
        assert output(ranged, "rm", "-f", "busy") == "busy\n"
        assert child.wait(20) == 137
    assert left(ranged) == NOTHING


def test_the_kernels_file_systems_are_there(user: User) -> None:
    script = (
        "mount | cut -d' ' -f3,5; df -k /dev/shm | tail -1; ls -d /sys/class/net/lo; touch /dev/mqueue/x /dev/shm/y"
    )
    said = run(user, "--shm-size", "2m", IMAGE, "sh", "-c", script).splitlines()
    wanted = {"/proc proc", "/dev tmpfs", "/dev/pts devpts", "/sys sysfs", "/dev/mqueue mqueue", "/dev/shm tmpfs"}
    assert wanted <= set(said)
    assert said[-2].split()[1] == "2048"


def test_cgroups_of_the_host_cannot_be_written(user: User) -> None:
    """By the mount, so that it holds as well where a user owns some of them (systemd's delegation)."""
    status, said = failure(user, "run", "--rm", IMAGE, "mkdir", "/sys/fs/cgroup/x")
    assert (status, said) == (1, "mkdir: can't create directory '/sys/fs/cgroup/x': Read-only file system\n")
    assert run(user, "--network", "none", IMAGE, "find", "/sys/fs/cgroup") == "/sys/fs/cgroup\n"


def test_devices_are_the_hosts_few(user: User) -> None:
    script = (
        "for f in null zero full random urandom tty; do test -c /dev/$f || echo $f; done; echo x >/dev/null; ls /dev"
    )
    names = run(user, IMAGE, "sh", "-c", script).split()
    common = "fd full mqueue null ptmx pts random shm stderr stdin stdout tty urandom zero"
    assert [name for name in names if name not in ("core", "console")] == common.split()
    status, said = failure(user, "run", "--rm", IMAGE, "mknod", "/disk", "b", "254", "0")
    assert (status, "Operation not permitted" in said) == (1, True)


def test_docker_default_capabilities_and_seccomp_hold(user: User) -> None:
    status = run(user, IMAGE, "grep", "-E", "CapEff|CapBnd|Seccomp:", "/proc/self/status").split()
    assert status == ["CapEff:", "00000000a80425fb", "CapBnd:", "00000000a80425fb", "Seccomp:", "2"]
    assert b"Operation not permitted" in user.argosy("run", "--rm", IMAGE, "unshare", "-U", "true").stderr


def test_networks_host_and_none_and_the_hostname(user: User) -> None:
    name = os.uname().nodename
    links = "readlink /proc/self/ns/net; hostname; ip link | grep -c ^[0-9]"
    host = run(user, IMAGE, "sh", "-c", links).split()
    assert host[:2] == [os.readlink("/proc/self/ns/net"), name]
    none = run(user, "--network", "none", "--hostname", "box", IMAGE, "sh", "-c", links).split()
    assert (none[0] != host[0], none[1:]) == (True, ["box", "1"])
    assert run(user, "--hostname", "box", IMAGE, "hostname") == "box\n"
    assert os.uname().nodename == name


def test_read_only_with_a_tmpfs(user: User) -> None:
    words = ("--read-only", "--tmpfs", "/scratch:size=1m", IMAGE, "sh", "-c")
    assert "Read-only" in failure(user, "run", "--rm", *words, "touch /x")[1]
    assert run(user, *words, "touch /scratch/x && df -k /scratch | tail -1").split()[1] == "1024"


def test_read_only_volumes_and_places_without_access(user: User) -> None:
    (user.home / "given").mkdir(exist_ok=True)
    words = ("run", "--rm", "-v", f"{user.home}/given:/data:ro", IMAGE, "touch", "/data/x")
    assert "Read-only" in failure(user, *words)[1]
    status, said = failure(user, "run", "--rm", "-v", "/etc/shadow:/data", IMAGE, "cat", "/data")
    assert (status, "Permission denied" in said) == (1, True)


# ---- ids


def test_with_one_id_another_user_inside_is_refused_with_a_way_out(single: User) -> None:
    for name, shown in (("ana", "1000:100"), ("1000", "1000:100"), ("7:7", "7:7"), ("0:7", "0:7")):
        status, said = failure(single, "run", "--rm", "-u", name, IMAGE, "true")
        assert (status, said.splitlines()[:2]) == (
            125,
            [
                f"error: there is no user {shown} for a container of this user [id-not-mapped]",
                "  this user namespace has only user 0 and group 0",
            ],
        )
        assert "usermod --add-subuids" in said
    assert left(single) == NOTHING


def test_with_a_range_all_users_of_images_exist(ranged: User) -> None:
    assert run(ranged, "-u", "ana", IMAGE, "id") == "uid=1000(ana) gid=100(users) groups=44(video)\n"
    assert run(ranged, "-u", "65534:65534", IMAGE, "id") == "uid=65534 gid=65534\n"
    status, said = failure(ranged, "run", "--rm", "-u", "65537", IMAGE, "true")
    assert (status, said.splitlines()[1]) == (125, "  this user namespace has users 0 to 65536, groups 0 to 65536")


def special_image(folder: Path) -> RandomImage:
    """Owners, set-id bits, a capability, a device and an old attribute; root in several groups, as Alpine has it."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:

        def add(name: str, content: bytes = b"", **fields: object) -> None:
            info = tarfile.TarInfo(name)
            info.mtime, info.mode, info.size = MTIME, 0o755, len(content)
            for field, value in fields.items():
                setattr(info, field, value)
            archive.addfile(info, io.BytesIO(content))

        busybox = shutil.which("busybox")
        assert busybox is not None, "scripts/setup test installs busybox-static"
        add("bin/busybox", Path(busybox).read_bytes())
        for applet in APPLETS:
            add(f"bin/{applet}", type=tarfile.SYMTYPE, linkname="busybox")
        add("etc/passwd", b"root:x:0:0:root:/root:/bin/sh\nana:x:1000:100::/home/ana:/bin/sh\n")
        add("etc/group", b"root:x:0:\nusers:x:100:\nwheel:x:10:root\n")
        add("home/ana", type=tarfile.DIRTYPE, mode=0o700, uid=1000, gid=100)
        add("home/ana/file", b"mine", mode=0o600, uid=1000, gid=100)
        add("usr/bin/su", b"x", mode=0o4755)
        add("usr/bin/other", b"x", mode=0o4755, uid=1000, gid=100)
        capability = b"\x01\x00\x00\x02\x00\x20\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00"
        add("usr/bin/ping", b"x", pax_headers={"SCHILY.xattr.security.capability": capability.decode("latin-1")})
        add("dev/disk", type=tarfile.BLKTYPE, mode=0o600, devmajor=8, devminor=0)
    tars = (out.getvalue(),)
    layout = Layout(folder)
    from argosy.oci import descriptor as media
    from argosy.oci.manifest import encode_manifest
    from argosy.oci.platform import Platform

    blobs = tuple(layout.put(compress(tar, "gzip"), media.OCI_LAYER_GZIP) for tar in tars)
    config = config_json(tars, Platform.host(), Cmd=["sh"], Env=["PATH=/bin"])
    manifest = encode_manifest(layout.put(config, media.OCI_CONFIG), blobs)
    layout.put(manifest.raw, media.OCI_MANIFEST)
    return RandomImage(layout, manifest, tars)


@pytest.fixture(scope="module")
def special(registry: RunningRegistry, tmp_path_factory: pytest.TempPathFactory) -> str:
    return registry.push(special_image(tmp_path_factory.mktemp("special")), "special", "1")


def fetch(image: str, *users: User) -> None:
    for user in users:
        done = user.argosy("pull", "-q", image)
        assert done.returncode == 0, done.stderr.decode() if isinstance(done.stderr, bytes) else done.stderr


def test_what_cannot_be_kept_is_said_once(single: User, ranged: User, special: str) -> None:
    devices = "device nodes were left out: making them is not permitted here"
    owners = "owners were left as they are: their ids are not mapped here"
    for user, wanted in ((ranged, [devices]), (single, [devices, owners])):
        user.argosy("rmi", "-f", special)
        done = user.argosy("pull", special)
        assert done.returncode == 0
        assert [line for line in done.stderr.decode().splitlines() if "warning" in line] == [
            f"warning: {text}" for text in wanted
        ]
        assert output(user, "pull", "-q", special) == f"{special}\n", "the second time there is nothing to say"


def test_owners_set_id_bits_and_capabilities_of_an_image(single: User, ranged: User, special: str) -> None:
    """With one id everything is root's, and of set-id programs of others the bit alone is kept."""
    script = "stat -c '%n %u:%g %a' /home/ana /home/ana/file /usr/bin/su /usr/bin/other /usr/bin/ping"
    fetch(special, single, ranged)
    rows = {user: run(user, special, "sh", "-c", script).splitlines() for user in (single, ranged)}
    assert rows[ranged] == [
        "/home/ana 1000:100 700",
        "/home/ana/file 1000:100 600",
        "/usr/bin/su 0:0 4755",
        "/usr/bin/other 1000:100 4755",
        "/usr/bin/ping 0:0 755",
    ]
    assert rows[single] == [re.sub("1000:100", "0:0", row) for row in rows[ranged]]
    assert run(ranged, "-u", "ana", special, "cat", "/home/ana/file") == "mine"
    for user in (single, ranged):
        (ping,) = (user.root / "layers").glob("*/*/fs/usr/bin/ping")
        capability = os.getxattr(ping, "security.capability")
        assert int.from_bytes(capability[-4:], "little") == UID, "it holds below this user's namespaces alone"


def test_what_is_pushed_and_saved_is_what_was_pulled(user: User, special: str, registry: RunningRegistry) -> None:
    """Owners, set-id bits, capabilities and devices that are lost on the disk are in the blobs as they came."""
    fetch(special, user)
    name, tag = special.removeprefix(f"{registry.address}/").split(":")
    wanted = registry.request("GET", f"/v2/{name}/manifests/{tag}", accept=OCI_MANIFEST)
    digest = wanted.headers["docker-content-digest"]
    assert output(user, "images", "--digests", "--format", "{{.Digest}}", special) == f"{digest}\n"
    target = f"{name}-{user.home.parent.name}"
    output(user, "tag", special, f"{registry.address}/{target}:1")
    output(user, "push", "-q", f"{registry.address}/{target}:1")
    pushed = registry.request("GET", f"/v2/{target}/manifests/1", accept=OCI_MANIFEST)
    assert (pushed.body, pushed.headers["docker-content-digest"]) == (wanted.body, digest)
    saved = user.argosy("save", special)
    with tarfile.open(fileobj=io.BytesIO(saved.stdout)) as archive:
        names = set(archive.getnames())
    document = msgspec.json.decode(wanted.body)
    blobs = [digest, document["config"]["digest"], *(layer["digest"] for layer in document["layers"])]
    assert {f"blobs/sha256/{blob.partition(':')[2]}" for blob in blobs} <= names
    assert output(user, "check").endswith(" 0 damaged\n")
    output(user, "rmi", f"{registry.address}/{target}:1", special)


def test_groups_of_root_that_are_not_mapped_are_left_out(single: User, ranged: User, special: str) -> None:
    fetch(special, single, ranged)
    assert run(ranged, special, "id") == "uid=0(root) gid=0(root) groups=10(wheel)\n"
    assert run(single, special, "id") == "uid=0(root) gid=0(root)\n"


def test_info_says_which_ids_there_are_and_what_is_done_otherwise(single: User, ranged: User) -> None:
    for user, inside, owners in (
        (single, "only user 0 and group 0", 1),
        (ranged, "users 0 to 65536, groups 0 to 65536", 0),
    ):
        said = output(user, "info")
        assert f"  Ids inside: {inside}\n" in said
        assert [said.count(f"  {word}: ") for word in ("cgroups", "devices", "layers", "owners")] == [1, 1, 1, owners]


def test_what_the_users_groups_may_read_root_inside_may_read(user: User) -> None:
    file = user.home / "of-a-group"
    file.write_text("for the group\n")
    file.chmod(0o640)
    os.chown(file, 0, 4711)
    member = msgspec.structs.replace(user, groups=(4711,))
    assert run(member, "-v", f"{file}:/file", IMAGE, "cat", "/file") == "for the group\n"
    assert user.argosy("run", "--rm", "-v", f"{file}:/file", IMAGE, "cat", "/file").returncode == 1


def test_root_of_a_user_namespace_is_a_user_too(user: User) -> None:
    """Inside of `unshare -r`, or of a container with a user namespace."""

    def enter() -> None:
        userns.enter_user_namespace(path=user.environment["PATH"])

    is_single = "single" in str(user.home)
    script = "id -u; rm -r /home; mkdir /home; touch /x; chown 1000 /x; stat -c %u /x"
    done = user.argosy("run", "--name", "nested", IMAGE, "sh", "-c", script, prepare=enter)
    assert done.stdout.split() == [b"0", b"0" if is_single else b"1000"], done.stderr
    for words in (("commit", "nested", "nested:1"), ("rm", "nested"), ("check",), ("info",)):
        done = user.argosy(*words, prepare=enter)
        assert (words, done.returncode, done.stderr.decode()) == (words, 0, "")
    done = user.argosy("run", "--rm", "nested:1", "ls", "/home", prepare=enter)
    assert (done.stdout, done.stderr) == (b"", b"")
    output(user, "rmi", "nested:1")
    assert left(user) == NOTHING


# ---- images and containers


def members(registry: RunningRegistry, name: str, tag: str) -> dict[str, tuple[int, int, int]]:
    """{path: (owner, group, mode)} of the topmost layer of an image in the registry."""
    manifest = registry.request(
        "GET", f"/v2/{name}/manifests/{tag}", accept="application/vnd.oci.image.manifest.v1+json"
    )
    layer = msgspec.json.decode(manifest.body)["layers"][-1]["digest"]
    blob = registry.request("GET", f"/v2/{name}/blobs/{layer}").body
    with tarfile.open(fileobj=io.BytesIO(blob)) as archive:
        return {member.name: (member.uid, member.gid, member.mode) for member in archive}


def test_what_is_committed_and_pushed_has_the_containers_owners(user: User, registry: RunningRegistry) -> None:
    is_single = "single" in str(user.home)
    script = (
        "echo x >/root/x; chmod 4755 /root/x; mkdir /root/d; rm /opt/hello; rm -r /home; mkdir /home; "
        "chown 1000:100 /root/d || true"
    )
    assert user.argosy("run", "--name", "changed", IMAGE, "sh", "-c", script).returncode == 0
    name = f"made-{'single' if is_single else 'ranged'}"
    image = f"{registry.address}/{name}:1"
    output(user, "commit", "changed", image)
    assert output(user, "history", "-q", image).count("\n") == 4
    output(user, "push", "-q", image)
    owner = (0, 0) if is_single else (1000, 100)
    assert members(registry, name, "1") == {
        "home": (0, 0, 0o755),
        "home/.wh..wh..opq": (0, 0, 0),
        "opt": (0, 0, 0o755),
        "opt/.wh.hello": (0, 0, 0),
        "root": (0, 0, 0o700),
        "root/d": (*owner, 0o755),
        "root/x": (0, 0, 0o4755),
    }
    assert run(user, image, "sh", "-c", "cat /root/x; ls /opt /home") == "x\n/home:\n\n/opt:\n"
    output(user, "rm", "changed")
    assert output(user, "rmi", image).startswith(f"Untagged: {image}\n")
    assert left(user) == NOTHING


def test_check_rmi_and_prune_take_files_of_subordinate_ids(ranged: User, special: str) -> None:
    fetch(special, ranged)
    assert any(path.stat().st_uid >= FIRST_ID for path in (ranged.root / "layers").rglob("*"))
    ranged.argosy("run", "--name", "theirs", special, "sh", "-c", "mkdir -m 700 /new; touch /new/x; chown -R 7:7 /new")
    assert "0 damaged" in output(ranged, "check")
    assert output(ranged, "ps", "-as", "--format", "{{.Names}} {{.Size}}").startswith("theirs 0B (virtual")
    told = output(ranged, "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}").splitlines()
    assert told[0].startswith("Images ")
    assert told[0].split()[2] == "1"
    assert told[1].startswith("Containers 1 0 ")
    output(ranged, "rm", "theirs")
    output(ranged, "rmi", special)
    output(ranged, "prune", "-f")
    assert not any(path.stat().st_uid >= FIRST_ID for path in (ranged.root / "layers").rglob("*"))
    assert left(ranged) == NOTHING


def test_everything_but_run_works_without_a_runtime(user: User, registry: RunningRegistry) -> None:
    source = f"{registry.address}/box:1"
    output(user, "run", "--name", "kept", IMAGE, "touch", "/x")
    for words in (
        ("images",),
        ("ps", "-a"),
        ("ps", "-as"),
        ("pull", "-q", source),
        ("check",),
        ("commit", "kept", "other:1"),
        ("rmi", "other:1"),
        ("prune", "-f"),
        ("info",),
        ("rm", "kept"),
    ):
        done = user.argosy(*words, hidden=RUNTIMES)
        assert (words, done.returncode, done.stderr.decode()) == (words, 0, "")
    done = user.argosy("run", "--rm", IMAGE, "true", hidden=RUNTIMES)
    assert (done.returncode, done.stderr.decode().splitlines()[0]) == (
        125,
        "error: no container runtime found [no-runtime]",
    )
    assert left(user) == NOTHING


def test_the_catalog_says_before_any_download_that_it_needs_subordinate_ids(single: User) -> None:
    done = single.argosy("catalog", "build", "-q", "nvidia/cuda:13-base")
    first, reason, hint = done.stderr.decode().splitlines()
    assert done.returncode == 1
    assert first == "error: the OS layer cannot be made by this user: its files have many owners [no-subordinate-ids]"
    assert "grants no ids" in reason or "newuidmap" in reason
    assert "--add-subuids" in hint


def test_where_user_namespaces_are_forbidden_lists_work_and_the_rest_names_the_setting(
    single: User, registry: RunningRegistry
) -> None:
    for words in (
        ("images",),
        ("ps", "-a"),
        ("history", IMAGE),
        ("inspect", IMAGE),
        ("tag", IMAGE, f"{registry.address}/again:1"),
        ("push", "-q", f"{registry.address}/again:1"),
        ("stack", IMAGE),
        ("logout", registry.address),
        ("info",),
    ):
        done = single.argosy(*words, prepare=forbid_user_namespaces)
        assert (words, done.returncode, done.stderr.decode()) == (words, 0, "")
    for words, status in (
        (("run", "--rm", IMAGE, "true"), 125),
        (("pull", f"{registry.address}/box:1"), 1),
        (("check",), 1),
    ):
        done = single.argosy(*words, prepare=forbid_user_namespaces)
        assert (done.returncode, done.stderr.decode().splitlines()) == (
            status,
            [
                "error: cannot make a user namespace [no-user-namespace]",
                "  No space left on device (ENOSPC); the number of user namespaces is limited to none, as hardened "
                "RHEL systems set it (user.max_user_namespaces = 0)",
                "  hint: as administrator: sysctl -w user.max_user_namespaces=28633",
            ],
        )
    done = single.argosy("doctor", prepare=forbid_user_namespaces)
    assert b"user.max_user_namespaces" in done.stdout
    assert left(single) == NOTHING


def test_without_a_runtime_folder_tmp_serves_unless_somebody_else_was_there_first(single: User) -> None:
    """XDG_RUNTIME_DIR is missing under cron and su, and /tmp is everybody's."""
    folder = Path(f"/tmp/argosy-{UID}")
    nowhere = {"XDG_RUNTIME_DIR": ""}
    folder.mkdir(mode=0o700)
    try:
        os.chown(folder, UID, UID)
        done = single.argosy("run", "--rm", IMAGE, "true", environ=nowhere)
        assert (done.returncode, done.stderr.decode(), os.listdir(folder)) == (0, "", [])
        os.chown(folder, 0, 0)
        done = single.argosy("run", "--rm", IMAGE, "true", environ=nowhere)
        assert (done.returncode, done.stderr.decode().splitlines()[:2]) == (
            125,
            [
                f"error: {folder} is not a folder of this user alone [folder-not-ours]",
                "  another user owns it or may write to it (mode drwx------)",
            ],
        )
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    assert left(single) == NOTHING


def test_another_users_store_is_refused_in_words(single: User, ranged: User) -> None:
    for words, status in ((("images",), 1), (("run", "--rm", IMAGE, "true"), 125)):
        done = single.argosy("--root", "/etc", *words)
        assert (done.returncode, done.stderr.decode().count("error: ")) == (status, 1), done.stderr.decode()


# ---- GPUs, other runtimes, registry


def test_a_driver_of_a_made_up_host_is_inside(user: User) -> None:
    """Device nodes cannot be made here; the host's are bound."""
    root = driver_roots.build(user.home / "driver")
    script = "nvidia-smi -L; ls /dev/ | grep nvidia; test -s /etc/ld.so.cache && ls -l /dev/nvidia1"
    said = output(user, "--driver-root", str(root), "run", "--rm", "--gpus", "device=1", IMAGE, "sh", "-c", script)
    shutil.rmtree(root)
    assert f"UUID: {GPUS[1].uuid}" in said
    assert GPUS[0].uuid not in said


@pytest.mark.skipif(len(RUNTIMES) < 2, reason="no peer client: runc is not installed")
def test_runc_does_the_same(user: User) -> None:
    folder = user.root / "bin"
    folder.mkdir(exist_ok=True)
    shutil.copy(RUNTIMES[1], folder / "runc")
    try:
        assert "runc" in output(user, "info", "--format", "{{.Runtime.Path}}")
        test_the_exit_status_comes_back(user, ("sh", "-c", "exit 7"), 7)
        test_root_inside_is_the_user_outside(user)
        test_signals_are_passed_on(user)
        test_a_terminal_is_the_containers_own(user)
        test_after_kill_9_the_next_verb_cleans_up(user)
        test_the_kernels_file_systems_are_there(user)
        test_networks_host_and_none_and_the_hostname(user)
        test_docker_default_capabilities_and_seccomp_hold(user)
        if "ranged" in str(user.home):
            test_rm_f_ends_a_running_container_whatever_ids_it_has(user, ())
    finally:
        shutil.rmtree(folder)


def test_a_user_serves_a_registry(user: User) -> None:
    with user.start("registry", "serve", "--listen", "127.0.0.1:0") as child:
        assert child.stdout is not None
        ready, _, _ = select.select([child.stdout], [], [], START_S)
        assert ready, child.stderr
        address = child.stdout.readline().decode().strip()
        image = f"{address}/mine:1"
        output(user, "tag", IMAGE, image)
        output(user, "push", "-q", image)
        output(user, "rmi", image)
        assert output(user, "pull", "-q", image) == f"{image}\n"
        output(user, "rmi", image)
        child.terminate()
        assert child.wait(20) == 0
    assert user.processes() == ()
