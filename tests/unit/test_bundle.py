"""From config and options to the runtime spec: pure, so whole values are compared."""

from __future__ import annotations

import msgspec
import pytest

from argosy.bundle import defaults, spec, users
from argosy.bundle.options import RunOptions, Volume, parse_name, parse_size
from argosy.errors import InvalidInput, NotFound
from argosy.oci import wire
from argosy.oci.config import ImageConfig
from argosy.oci.edits import BindMount, ContainerEdits, DeviceNode, Hook
from argosy.oci.platform import Platform
from argosy.oci.runtime_spec import Device, DeviceRule, Mount

PLACE = spec.Place(container_id="c0ffee", rootfs="/r", hostname="box", cgroups_path="/argosy-c0ffee")
ROOT = users.Identity(uid=0, gid=0, home="/root")
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nana:x:1000:100:Ana:/home/ana:/bin/sh\nodd:x:7:bad::relative:\nshort\n"
GROUP = b"root:x:0:\nusers:x:100:\nvideo:x:44:ana,bo\nrender:x:105:ana\n"


def config(**execution: object) -> ImageConfig:
    return ImageConfig.scratch(Platform(os="linux", architecture="amd64")).with_(execution=execution)


def spec_of(options: RunOptions, edits: ContainerEdits | None = None, **execution: object) -> spec.Spec:
    return spec.spec_for(config(**execution), options, edits or ContainerEdits(), ROOT, PLACE)


@pytest.mark.parametrize(
    ("why", "image", "options", "expected"),
    [
        ("the image's command", {"Cmd": ["a", "b"]}, {}, ("a", "b")),
        ("entry point and command", {"Entrypoint": ["e"], "Cmd": ["c"]}, {}, ("e", "c")),
        (
            "the user's command replaces CMD",
            {"Entrypoint": ["e"], "Cmd": ["c"]},
            {"command": ("x", "-y")},
            ("e", "x", "-y"),
        ),
        ("--entrypoint drops CMD too", {"Entrypoint": ["e"], "Cmd": ["c"]}, {"entrypoint": ("n",)}, ("n",)),
        ("--entrypoint '' leaves the user's", {"Entrypoint": ["e"]}, {"entrypoint": (), "command": ("x",)}, ("x",)),
        ("an old image's shell line", {"Cmd": "echo hi"}, {}, ("/bin/sh", "-c", "echo hi")),
    ],
)
def test_command_line_follows_dockers_rule(
    why: str, image: dict[str, object], options: dict[str, object], expected: tuple[str, ...]
) -> None:
    assert spec.command_line(config(**image), RunOptions(**options)) == expected, why  # type: ignore[arg-type]


def test_no_command_is_an_error_that_says_what_to_type() -> None:
    with pytest.raises(InvalidInput) as caught:
        spec.command_line(config(), RunOptions())
    assert (caught.value.code, caught.value.hint) == (
        "no-command",
        "name one after the image: argosy run IMAGE COMMAND",
    )


def test_the_users_environment_wins_over_the_edits_and_the_images() -> None:
    edits = ContainerEdits(env=("NVIDIA_VISIBLE_DEVICES=void", "A=edits"))
    options = RunOptions(env=("A=user", "EMPTY="), terminal=True)
    image = config(Env=["PATH=/opt/bin", "A=image", "B=a=b"])
    assert spec.environment(image, options, edits, hostname="box", home="/root") == (
        "PATH=/opt/bin",
        "HOSTNAME=box",
        "TERM=xterm",
        "A=user",
        "B=a=b",
        "NVIDIA_VISIBLE_DEVICES=void",
        "EMPTY=",
        "HOME=/root",
    )


def test_a_spec_without_options_is_dockers_default() -> None:
    found = spec_of(RunOptions(command=("true",)))
    assert found.process.args == ("true",)
    assert found.process.cwd == "/"
    assert found.process.capabilities is not None
    assert set(found.process.capabilities.bounding) == set(defaults.CAPABILITIES)
    assert found.process.capabilities.effective == found.process.capabilities.bounding
    assert [namespace.type for namespace in found.linux.namespaces] == ["pid", "ipc", "uts", "mount"]
    assert [mount.destination for mount in found.mounts] == [
        "/proc",
        "/dev",
        "/dev/pts",
        "/sys",
        "/dev/mqueue",
        "/dev/shm",
    ]
    assert found.linux.resources is not None
    assert found.linux.resources.devices[0] == DeviceRule(allow=False, access="rwm")
    assert wire.encode(found).startswith(b'{"process":')
    assert b'"ociVersion":"1.0.2"' in wire.encode(found)


def test_an_ordinary_user_starts_without_capabilities_in_force() -> None:
    identity = users.Identity(uid=1000, gid=1000)
    found = spec.spec_for(config(Cmd=["true"]), RunOptions(), ContainerEdits(), identity, PLACE)
    assert found.process.capabilities is not None
    assert found.process.capabilities.effective == ()
    assert found.process.capabilities.permitted == ()
    assert set(found.process.capabilities.bounding) == set(defaults.CAPABILITIES)


def test_without_device_rules_roots_containers_make_no_devices_unless_told_to() -> None:
    def bounding(rootless: bool, *add: str) -> set[str]:
        place = msgspec.structs.replace(PLACE, device_cgroup=False, rootless=rootless)
        options = RunOptions(command=("true",), cap_add=add)
        found = spec.spec_for(config(), options, ContainerEdits(), users.Identity(uid=0, gid=0), place)
        assert found.process.capabilities is not None
        return set(found.process.capabilities.bounding)

    assert set(defaults.CAPABILITIES) - bounding(rootless=False) == {"CAP_MKNOD"}
    assert bounding(False, "MKNOD") == bounding(True) == set(defaults.CAPABILITIES)
    assert "CAP_MKNOD" in bounding(False, "ALL")


def test_network_none_gets_a_namespace_of_its_own() -> None:
    found = spec_of(RunOptions(command=("true",), network="none"))
    assert "network" in [namespace.type for namespace in found.linux.namespaces]


def test_edits_become_devices_rules_mounts_and_hooks_with_an_empty_environment() -> None:
    edits = ContainerEdits(
        device_nodes=(DeviceNode(path="/dev/nvidia0", host_path="/dev/nvidia0", major=195, minor=0),),
        mounts=(BindMount(host_path="/usr/lib/libcuda.so.1", container_path="/usr/lib/libcuda.so.1"),),
        hooks=(Hook(stage="createRuntime", path="/bin/hook"),),
        additional_gids=(44,),
    )
    found = spec_of(RunOptions(command=("true",)), edits)
    assert found.linux.devices == (
        Device(path="/dev/nvidia0", type="c", major=195, minor=0, file_mode=0o666, uid=0, gid=0),
    )
    assert found.linux.resources is not None
    assert found.linux.resources.devices[-1] == DeviceRule(allow=True, type="c", major=195, minor=0, access="rwm")
    assert found.mounts[-1] == Mount(
        destination="/usr/lib/libcuda.so.1",
        type="bind",
        source="/usr/lib/libcuda.so.1",
        options=("ro", "nosuid", "nodev", "rbind", "rprivate"),
    )
    assert found.process.user.additional_gids == (44,)
    assert b'"createRuntime":[{"path":"/bin/hook","env":[]}]' in wire.encode(found)


def test_without_root_device_nodes_are_bound_from_where_the_host_has_them() -> None:
    edits = ContainerEdits(device_nodes=(DeviceNode(path="/dev/nvidia0", host_path="/fake/dev/nvidia0", major=195),))
    place = spec.Place(container_id="c", rootfs="/r", hostname="h", cgroups_path="", rootless=True, device_cgroup=False)
    found = spec.spec_for(config(Cmd=["x"]), RunOptions(), edits, ROOT, place)
    assert found.linux.devices == ()
    assert found.linux.resources is None
    assert found.mounts[-1] == Mount(
        destination="/dev/nvidia0",
        type="bind",
        source="/fake/dev/nvidia0",
        options=("rbind", "nosuid", "noexec", "rprivate"),
    )


def test_a_volume_over_a_kernel_mount_replaces_it_and_parents_come_first() -> None:
    binds = (
        BindMount(host_path="/h/deep", container_path="/a/b/c", options=("rbind",)),
        BindMount(host_path="/h", container_path="/a", options=("rbind",)),
        BindMount(host_path="/shm", container_path="/dev/shm", options=("rbind",)),
    )
    found = spec.spec_for(config(Cmd=["x"]), RunOptions(), ContainerEdits(mounts=binds), ROOT, PLACE)
    assert [(mount.destination, mount.source) for mount in found.mounts[-3:]] == [
        ("/a", "/h"),
        ("/dev/shm", "/shm"),
        ("/a/b/c", "/h/deep"),
    ]
    assert [mount.destination for mount in found.mounts].count("/dev/shm") == 1


@pytest.mark.parametrize(
    ("add", "drop", "changed"),
    [
        (("SYS_PTRACE",), (), {"CAP_SYS_PTRACE"}),
        (("cap_sys_ptrace",), (), {"CAP_SYS_PTRACE"}),
        ((), ("chown",), {"CAP_CHOWN"}),
    ],
)
def test_capabilities_are_added_and_dropped(add: tuple[str, ...], drop: tuple[str, ...], changed: set[str]) -> None:
    assert set(defaults.capabilities(add, drop)) ^ set(defaults.CAPABILITIES) == changed


def test_capability_all_is_understood_both_ways() -> None:
    assert defaults.capabilities(("ALL",), ()) == defaults.ALL_CAPABILITIES
    assert defaults.capabilities(("CHOWN",), ("ALL",)) == ("CAP_CHOWN",)
    assert "CAP_MKNOD" not in defaults.capabilities(("ALL",), ("MKNOD",))


def test_an_unknown_capability_is_refused() -> None:
    with pytest.raises(InvalidInput) as caught:
        defaults.capabilities(("TIME_TRAVEL",), ())
    assert caught.value.code == "capability-unknown"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", users.Identity(uid=0, gid=0, home="/root")),
        ("0", users.Identity(uid=0, gid=0, home="/root")),
        ("ana", users.Identity(uid=1000, gid=100, additional_gids=(44, 105), home="/home/ana")),
        ("1000", users.Identity(uid=1000, gid=100, additional_gids=(44, 105), home="/home/ana")),
        ("ana:video", users.Identity(uid=1000, gid=44, home="/home/ana")),
        ("4321", users.Identity(uid=4321, gid=0)),
        ("4321:9", users.Identity(uid=4321, gid=9)),
        ("odd", users.Identity(uid=7, gid=0)),
    ],
)
def test_users_are_looked_up_as_docker_does(text: str, expected: users.Identity) -> None:
    assert users.resolve(text, passwd=PASSWD, group=GROUP) == expected


@pytest.mark.parametrize(
    ("text", "code"),
    [("bob", "user-unknown"), ("ana:staff", "group-unknown"), ("-1", "user-unknown"), ("9" * 30, "user-unknown")],
)
def test_unknown_users_and_groups_are_named(text: str, code: str) -> None:
    with pytest.raises(NotFound) as caught:
        users.resolve(text, passwd=PASSWD, group=GROUP)
    assert caught.value.code == code


def test_an_image_without_passwd_still_has_root() -> None:
    assert users.resolve("", passwd=b"", group=b"") == users.Identity(uid=0, gid=0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/h:/c", Volume(source="/h", target="/c")),
        ("./d:/c/x:ro", Volume(source="./d", target="/c/x", read_only=True)),
        ("/h:/c:rw,rslave", Volume(source="/h", target="/c", propagation="rslave")),
        ("/h:/c:z", Volume(source="/h", target="/c")),
    ],
)
def test_volumes_parse(text: str, expected: Volume) -> None:
    assert Volume.parse(text) == expected


@pytest.mark.parametrize(
    "text", ["", "/only", "/h:relative", "/h:/", "/h:/c:rx", "/h:/c:ro,rw", "/h:/../x", "a:b:c:d", "name:/c"]
)
def test_bad_volumes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        Volume.parse(text)
    assert caught.value.code == "volume-invalid"


def test_names_follow_dockers_rule() -> None:
    assert parse_name("a0_.-") == "a0_.-"
    for bad in ("a", "-a", "a b", "", "ä1", "a/b"):
        with pytest.raises(InvalidInput):
            parse_name(bad)


@pytest.mark.parametrize(
    ("text", "expected"),
    [("64m", 64 * 2**20), ("1g", 2**30), ("2GB", 2**31), ("0.5k", 512), ("1024", 1024), ("8MiB", 8 * 2**20)],
)
def test_sizes_parse(text: str, expected: int) -> None:
    assert parse_size(text) == expected


@pytest.mark.parametrize("text", ["", "m", "-1", "1x", "nan", "inf", "1e30"])
def test_bad_sizes_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        parse_size(text)
