"""What every container gets unless told otherwise: Docker's defaults, as data.

Source: moby `oci/defaults.go`, `oci/caps`.
"""

from __future__ import annotations

from ..errors import InvalidInput
from ..oci.runtime_spec import DeviceRule, Mount

PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

CAPABILITIES = (
    "CAP_CHOWN",
    "CAP_DAC_OVERRIDE",
    "CAP_FSETID",
    "CAP_FOWNER",
    "CAP_MKNOD",
    "CAP_NET_RAW",
    "CAP_SETGID",
    "CAP_SETUID",
    "CAP_SETFCAP",
    "CAP_SETPCAP",
    "CAP_NET_BIND_SERVICE",
    "CAP_SYS_CHROOT",
    "CAP_KILL",
    "CAP_AUDIT_WRITE",
)

#: Every capability of Linux 5.14, the oldest kernel that we support; runtimes drop what the host lacks.
ALL_CAPABILITIES = tuple(
    f"CAP_{name}"
    for name in (
        "CHOWN DAC_OVERRIDE DAC_READ_SEARCH FOWNER FSETID KILL SETGID SETUID SETPCAP LINUX_IMMUTABLE "
        "NET_BIND_SERVICE NET_BROADCAST NET_ADMIN NET_RAW IPC_LOCK IPC_OWNER SYS_MODULE SYS_RAWIO "
        "SYS_CHROOT SYS_PTRACE SYS_PACCT SYS_ADMIN SYS_BOOT SYS_NICE SYS_RESOURCE SYS_TIME "
        "SYS_TTY_CONFIG MKNOD LEASE AUDIT_WRITE AUDIT_CONTROL SETFCAP MAC_OVERRIDE MAC_ADMIN SYSLOG "
        "WAKE_ALARM BLOCK_SUSPEND AUDIT_READ PERFMON BPF CHECKPOINT_RESTORE"
    ).split()
)

MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)

READ_ONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

#: Nothing, then what every program needs: null, zero, full, random, urandom, tty, ptmx and pts.
#: Making a node is harmless; using it is what the rules decide.
DEVICE_RULES = (
    DeviceRule(allow=False, access="rwm"),
    DeviceRule(allow=True, type="c", access="m"),
    DeviceRule(allow=True, type="b", access="m"),
    DeviceRule(allow=True, type="c", major=1, minor=3, access="rwm"),
    DeviceRule(allow=True, type="c", major=1, minor=5, access="rwm"),
    DeviceRule(allow=True, type="c", major=1, minor=7, access="rwm"),
    DeviceRule(allow=True, type="c", major=1, minor=8, access="rwm"),
    DeviceRule(allow=True, type="c", major=1, minor=9, access="rwm"),
    DeviceRule(allow=True, type="c", major=5, minor=0, access="rwm"),
    DeviceRule(allow=True, type="c", major=5, minor=2, access="rwm"),
    DeviceRule(allow=True, type="c", major=136, access="rwm"),
)


def base_mounts(*, shm_size: int, rootless: bool, host_network: bool) -> tuple[Mount, ...]:
    """The kernel file systems of a container.

    Inside a user namespace devpts cannot take a foreign gid, and sysfs belongs to
    the network namespace's owner: with the host's network it is bound instead, read-only
    with all that is mounted in it (the cgroups that the user may own).
    """
    pts = ("nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620") + (() if rootless else ("gid=5",))
    sysfs = Mount(destination="/sys", type="sysfs", source="sysfs", options=("nosuid", "noexec", "nodev", "ro"))
    if rootless and host_network:
        sysfs = Mount(
            destination="/sys",
            type="none",
            source="/sys",
            options=("rbind", "nosuid", "noexec", "nodev", "ro", "rro", "rslave"),
        )
    return (
        Mount(destination="/proc", type="proc", source="proc", options=("nosuid", "noexec", "nodev")),
        Mount(
            destination="/dev",
            type="tmpfs",
            source="tmpfs",
            options=("nosuid", "strictatime", "mode=755", "size=65536k"),
        ),
        Mount(destination="/dev/pts", type="devpts", source="devpts", options=pts),
        sysfs,
        Mount(destination="/dev/mqueue", type="mqueue", source="mqueue", options=("nosuid", "noexec", "nodev")),
        Mount(
            destination="/dev/shm",
            type="tmpfs",
            source="shm",
            options=("nosuid", "noexec", "nodev", "mode=1777", f"size={shm_size}"),
        ),
    )


def capabilities(add: tuple[str, ...], drop: tuple[str, ...], *, device_rules: bool = True) -> tuple[str, ...]:
    """Docker's default set with --cap-add and --cap-drop; ALL is understood.

    Without *device_rules* CAP_MKNOD, which then opens every device of the host, must be
    asked for. Raises InvalidInput (capability-unknown).
    """
    added, dropped = _named(add), _named(drop)
    chosen = set(ALL_CAPABILITIES if "ALL" in added else () if "ALL" in dropped else CAPABILITIES)
    if not device_rules and "ALL" not in added:
        chosen.discard("CAP_MKNOD")
    chosen |= added - {"ALL"}
    chosen -= dropped - {"ALL"}
    return tuple(name for name in ALL_CAPABILITIES if name in chosen)


def _named(names: tuple[str, ...]) -> set[str]:
    found = set()
    for name in names:
        full = name.upper() if name.upper() == "ALL" else "CAP_" + name.upper().removeprefix("CAP_")
        if full != "ALL" and full not in ALL_CAPABILITIES:
            raise InvalidInput(
                f"unknown capability {name!r}", code="capability-unknown", hint="as in --cap-add SYS_PTRACE"
            )
        found.add(full)
    return found
