"""The runtime spec (config.json), as much of it as we write.

Structs in the spec's own camelCase; unknown fields are never read back, since
only we write these files. Source: runtime-spec 1.1 «config.md», «config-linux.md».
"""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

OCI_VERSION = "1.0.2"  # the newest that runc 1.1 and crun 1.8 (Debian 12) both accept


class _Wire(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Base of the spec's objects: camelCase, defaults left out."""


class User(_Wire, frozen=True, kw_only=True):
    uid: int
    gid: int
    umask: int | None = None
    additional_gids: tuple[int, ...] = ()


class ConsoleSize(_Wire, frozen=True, kw_only=True):
    height: int
    width: int


class Rlimit(_Wire, frozen=True, kw_only=True):
    type: str
    soft: int
    hard: int


class Capabilities(_Wire, frozen=True, kw_only=True):
    bounding: tuple[str, ...] = ()
    effective: tuple[str, ...] = ()
    inheritable: tuple[str, ...] = ()
    permitted: tuple[str, ...] = ()
    ambient: tuple[str, ...] = ()


class Process(_Wire, frozen=True, kw_only=True):
    user: User
    args: tuple[str, ...]
    cwd: str
    env: tuple[str, ...] = ()
    terminal: bool = False
    console_size: ConsoleSize | None = None
    capabilities: Capabilities | None = None
    rlimits: tuple[Rlimit, ...] = ()
    no_new_privileges: bool = False
    apparmor_profile: str | None = None
    selinux_label: str | None = None
    oom_score_adj: int | None = None


class RootFs(_Wire, frozen=True, kw_only=True):
    path: str
    readonly: bool = False


class Mount(_Wire, frozen=True, kw_only=True):
    destination: str
    type: str | None = None
    source: str | None = None
    options: tuple[str, ...] = ()


class Hook(_Wire, frozen=True, kw_only=True):
    path: str
    args: tuple[str, ...] = ()
    #: always written: a runtime may take an absent list as «inherit»
    env: tuple[str, ...]
    timeout: int | None = None


class Namespace(_Wire, frozen=True, kw_only=True):
    type: str
    path: str | None = None


class IdMapping(_Wire, frozen=True, kw_only=True):
    container_id: int = msgspec.field(name="containerID")
    host_id: int = msgspec.field(name="hostID")
    size: int


class Device(_Wire, frozen=True, kw_only=True):
    type: str
    path: str
    major: int | None = None
    minor: int | None = None
    file_mode: int | None = None
    uid: int | None = None
    gid: int | None = None


class DeviceRule(_Wire, frozen=True, kw_only=True):
    allow: bool
    type: str | None = None
    major: int | None = None
    minor: int | None = None
    access: str | None = None


class Resources(_Wire, frozen=True, kw_only=True):
    devices: tuple[DeviceRule, ...] = ()


class Linux(_Wire, frozen=True, kw_only=True):
    namespaces: tuple[Namespace, ...]
    uid_mappings: tuple[IdMapping, ...] = ()
    gid_mappings: tuple[IdMapping, ...] = ()
    devices: tuple[Device, ...] = ()
    cgroups_path: str | None = None
    resources: Resources | None = None
    rootfs_propagation: str | None = None
    #: the profile as JSON, as linux/seccomp_cache.py gives it
    seccomp: msgspec.Raw | None = None
    masked_paths: tuple[str, ...] = ()
    readonly_paths: tuple[str, ...] = ()


class Spec(_Wire, frozen=True, kw_only=True):
    """One container, ready for crun or runc."""

    process: Process
    root: RootFs
    linux: Linux
    oci_version: str
    hostname: str | None = None
    mounts: tuple[Mount, ...] = ()
    hooks: Mapping[str, tuple[Hook, ...]] | None = None
    annotations: Mapping[str, str] | None = None
