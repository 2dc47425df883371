"""What an image's loader expects: where libraries belong in it, by facts of its files.

Driver libraries come from another distribution than the image's, so their place is
the image's, not the host's: Debian's loader looks in /usr/lib/<triplet>, the
others' in /usr/lib64, and each ignores the other's folder.
"""

from __future__ import annotations

import os

import msgspec

from ..linux import paths

_TRIPLETS = {
    ("x86_64", 64): "x86_64-linux-gnu",
    ("x86_64", 32): "i386-linux-gnu",
    ("aarch64", 64): "aarch64-linux-gnu",
    ("aarch64", 32): "arm-linux-gnueabihf",
    ("ppc64le", 64): "powerpc64le-linux-gnu",
}


class ImageLayout(msgspec.Struct, frozen=True, kw_only=True):
    """The facts that decide. *machine* is uname's word."""

    machine: str
    #: Debian's multi-arch folders
    multi_arch: bool = True
    #: Alpine's C library; the driver's libraries need glibc, but programs with a glibc of their own still find them
    musl: bool = False
    #: /usr/lib32 is there
    lib32: bool = False

    @classmethod
    def read(cls, root_fd: int, machine: str | None = None) -> ImageLayout:
        """Look at an image's files through a descriptor of its root; nothing of it is run."""
        machine = machine or os.uname().machine
        triplet = _TRIPLETS.get((machine, 64), f"{machine}-linux-gnu")
        musl = paths.exists(root_fd, "etc/alpine-release") or paths.exists(root_fd, f"lib/ld-musl-{machine}.so.1")
        debian = ("etc/debian_version", f"usr/lib/{triplet}", f"lib/{triplet}")
        return cls(
            machine=machine,
            multi_arch=not musl and any(paths.exists(root_fd, name) for name in debian),
            musl=musl,
            lib32=paths.exists(root_fd, "usr/lib32"),
        )

    def library_folder(self, bits: int = 64) -> str:
        """Where driver libraries go, without a slash at the end."""
        if self.multi_arch:
            return f"/usr/lib/{self.triplet(bits)}"
        if bits == 64:
            return "/usr/lib64"
        return "/usr/lib32" if self.lib32 else "/usr/lib"

    def triplet(self, bits: int = 64) -> str:
        return _TRIPLETS.get((self.machine, bits), f"{self.machine}-linux-gnu")

    def system_folders(self) -> tuple[str, ...]:
        """Folders that the loader searches without being told, first ones first."""
        if self.musl:
            return ("/lib", "/usr/local/lib", "/usr/lib")
        if self.multi_arch:
            return (f"/lib/{self.triplet()}", f"/usr/lib/{self.triplet()}", "/lib", "/usr/lib")
        return ("/lib64", "/usr/lib64", "/lib", "/usr/lib")
