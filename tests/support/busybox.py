"""A real, runnable image of 1 MB in three layers: busybox, accounts, and one file of «your own»."""

from __future__ import annotations

import io
import shutil
import tarfile
from pathlib import Path
from typing import TYPE_CHECKING

from .images import MTIME, RandomImage, image_of

if TYPE_CHECKING:
    from collections.abc import Mapping

APPLETS = (
    "cat chmod chown cp cut date dd df echo env false find grep head hostname id ip kill ln ls mkdir mknod mount mv nc "
    "ping printf ps pwd readlink rm rmdir sed seq sh sleep sort stat stty tail tar tee test touch tr true tty uname "
    "unshare vi wc whoami"
).split()
PASSWD = "root:x:0:0:root:/root:/bin/sh\nana:x:1000:100:Ana:/home/ana:/bin/sh\n"
GROUP = "root:x:0:\nusers:x:100:\nvideo:x:44:ana\n"


def busybox_image(folder: Path, *, tag: str = "latest", **execution: object) -> RandomImage:
    """The image as an OCI layout in *folder*; *execution* fills its config (Cmd=…, Env=…, User=…)."""
    program = shutil.which("busybox")
    assert program is not None, "scripts/setup test installs busybox-static"
    tars = (
        tar_of(
            {
                "bin/": 0o755,
                "root/": 0o700,
                "tmp/": 0o1777,
                "etc/": 0o755,
                "bin/busybox": Path(program).read_bytes(),
                **{f"bin/{applet}": "busybox" for applet in APPLETS},
            }
        ),
        tar_of(
            {
                "etc/": 0o755,
                "etc/passwd": PASSWD.encode(),
                "etc/group": GROUP.encode(),
                "home/": 0o755,
                "home/ana/": 0o750,
            }
        ),
        tar_of({"opt/": 0o755, "opt/hello": b"#!/bin/sh\necho hello from a layer\n"}),
    )
    execution = {"Cmd": ["sh"], "Env": ["PATH=/usr/bin:/bin", "GREETING=hello"], **execution}
    return image_of(folder, tars, tag=tag, **execution)


def tar_of(members: Mapping[str, bytes | str | int]) -> bytes:
    """A tar: bytes are an executable file, text is a link's target, a number the mode of a folder."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members.items():
            info = tarfile.TarInfo(name.rstrip("/"))
            info.mtime, info.mode = MTIME, 0o755
            if isinstance(content, int):
                info.type, info.mode = tarfile.DIRTYPE, content
            elif isinstance(content, str):
                info.type, info.linkname = tarfile.SYMTYPE, content
            else:
                info.size = len(content)
            archive.addfile(info, io.BytesIO(content) if isinstance(content, bytes) else None)
    return out.getvalue()
