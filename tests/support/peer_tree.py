"""Peers of another distribution: a folder with its whole root file system, entered without touching this machine.

mmdebstrap --variant=minbase --include=podman,docker.io,docker-cli,runc,ca-certificates trixie FOLDER
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

#: Where the given folder of this machine is, inside.
PLACE = "/mnt"
_ENTER = f"""
mount --rbind "$0" "$0" || exit 125  # podman wants its root to be a mount
for name in proc dev sys; do mount --rbind "/$name" "$0/$name" || exit 125; done
mount -t tmpfs none "$0/run" && mount --bind "$1" "$0{PLACE}" || exit 125
tree=$0; shift; exec chroot "$tree" "$@"
"""


def in_tree(tree: Path, folder: Path) -> tuple[str, ...]:
    """What to put before a command to run it in *tree*, with *folder* at PLACE; all mounts end with it."""
    return ("/usr/bin/unshare", "--mount", "--propagation", "private", "/bin/sh", "-c", _ENTER, str(tree), str(folder))
