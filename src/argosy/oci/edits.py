"""Container edits: what a GPU, a CDI device or Slurm adds to a container, as data.

Two kinds of addition. Device nodes, mounts, environment, hooks and groups go
into the runtime spec. Links and files go into a generated overlay layer between
image and writable layer, never as bind mounts over the image's files, so that the
image's own ldconfig and package manager keep working (architecture decision 7).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from collections.abc import Iterable


class DeviceNode(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A device at *path* in the container; *host_path* where the host has it.

    *kind* is c, b or p; *permissions* the cgroup rule («rwm»); *file_mode* permission bits.
    """

    path: str
    host_path: str
    kind: str = "c"
    major: int = 0
    minor: int = 0
    file_mode: int | None = None
    permissions: str = "rwm"
    uid: int | None = None
    gid: int | None = None


class BindMount(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True, rename="camel"):
    """A file or folder of the host inside the container."""

    host_path: str
    container_path: str
    options: tuple[str, ...] = ("ro", "nosuid", "nodev", "rbind", "rprivate")


class Link(msgspec.Struct, frozen=True, kw_only=True):
    """A symbolic link at *path* (absolute in the container) to *target* (as written)."""

    path: str
    target: str


class GeneratedFile(msgspec.Struct, frozen=True, kw_only=True):
    """A small file at *path* (absolute in the container)."""

    path: str
    content: bytes
    mode: int = 0o644


class Hook(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A host program run by the runtime at *stage*; its environment is exactly *env*, never the container's."""

    stage: str
    path: str
    args: tuple[str, ...] = ()
    env: tuple[str, ...] = ()


class ContainerEdits(msgspec.Struct, frozen=True, kw_only=True):
    """Everything one source adds. Merging keeps order; the later of two equal keys wins."""

    #: «NAME=value»
    env: tuple[str, ...] = ()
    device_nodes: tuple[DeviceNode, ...] = ()
    mounts: tuple[BindMount, ...] = ()
    links: tuple[Link, ...] = ()
    files: tuple[GeneratedFile, ...] = ()
    #: absolute paths of folders that must exist in the container (mount points of tmpfs and the like)
    folders: tuple[str, ...] = ()
    #: folders in the container that hold driver libraries; they go into ld.so.cache
    library_folders: tuple[str, ...] = ()
    hooks: tuple[Hook, ...] = ()
    additional_gids: tuple[int, ...] = ()

    def merge(self, *others: ContainerEdits) -> ContainerEdits:
        """These edits, then *others*. Devices, mounts, links and files are keyed by container path, env by name."""
        everything = (self, *others)
        return ContainerEdits(
            env=_last(entry for e in everything for entry in e.env),
            device_nodes=tuple({d.path: d for e in everything for d in e.device_nodes}.values()),
            mounts=tuple({m.container_path: m for e in everything for m in e.mounts}.values()),
            links=tuple({link.path: link for e in everything for link in e.links}.values()),
            files=tuple({f.path: f for e in everything for f in e.files}.values()),
            folders=tuple(dict.fromkeys(f for e in everything for f in e.folders)),
            library_folders=tuple(dict.fromkeys(f for e in everything for f in e.library_folders)),
            hooks=tuple(hook for e in everything for hook in e.hooks),
            additional_gids=tuple(dict.fromkeys(g for e in everything for g in e.additional_gids if g)),
        )


def _last(entries: Iterable[str]) -> tuple[str, ...]:
    return tuple({entry.partition("=")[0]: entry for entry in entries}.values())
