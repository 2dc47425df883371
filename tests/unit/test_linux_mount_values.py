"""Mounts as values: what they say, how they are stored. Mounting itself is in integration."""

from __future__ import annotations

import msgspec

from argosy.linux import mounts, syscalls
from argosy.linux.mounts import Bind, Erofs, Kernel, MountPlan, Overlay, Tmpfs

PLAN = MountPlan(
    mounts=(
        Erofs(index="/s/i", devices=("/s/a.tar", "/s/b.tar"), target="/m/0"),
        Overlay(lowers=("/m/1", "/m/0"), upper="/c/upper", work="/c/work", target="/c/root", options=("volatile",)),
        Tmpfs(target="/t", size=1 << 20),
        Kernel(kind="proc", target="/t/proc"),
        Bind(source="/a", target="/b", read_only=True, flags=syscalls.MS_NODEV),
    )
)


def test_a_plan_describes_itself_as_commands() -> None:
    assert PLAN.describe() == (
        "mount -t erofs -o ro,device=/s/a.tar,device=/s/b.tar /s/i /m/0",
        "mount -t overlay -o lowerdir+=/m/1,lowerdir+=/m/0,upperdir=/c/upper,workdir=/c/work,volatile overlay /c/root",
        "mount -t tmpfs -o mode=755,size=1048576 -o nosuid,nodev tmpfs /t",
        "mount -t proc -o nosuid,nodev,noexec proc /t/proc",
        "mount --rbind -o ro,nodev /a /b",
    )


def test_a_plan_survives_json() -> None:
    assert msgspec.json.decode(msgspec.json.encode(PLAN), type=MountPlan) == PLAN


def test_the_flags_of_both_interfaces_agree() -> None:
    flags = syscalls.MS_RDONLY | syscalls.MS_NOSUID | syscalls.MS_NODEV | syscalls.MS_NOEXEC | syscalls.MS_NOATIME
    assert syscalls.mount_attributes(flags | syscalls.MS_BIND) == (
        syscalls.MOUNT_ATTR_RDONLY
        | syscalls.MOUNT_ATTR_NOSUID
        | syscalls.MOUNT_ATTR_NODEV
        | syscalls.MOUNT_ATTR_NOEXEC
        | syscalls.MOUNT_ATTR_NOATIME
    )


def test_mount_points_are_listed_beneath_a_prefix() -> None:
    points = mounts.mount_points("/proc")
    assert "/proc" in points
    assert all(point == "/proc" or point.startswith("/proc/") for point in points)


def test_names_of_capabilities_follow_the_kernels_numbers() -> None:
    assert syscalls.capability_names(1 | 1 << 21 | 1 << 40) == {
        "CAP_CHOWN",
        "CAP_SYS_ADMIN",
        "CAP_CHECKPOINT_RESTORE",
    }
    with open("/proc/self/status") as status:
        mask = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff"))
    assert syscalls.capget() == syscalls.capability_names(mask)
