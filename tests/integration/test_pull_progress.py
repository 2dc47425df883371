"""What a terminal shows while an image is pulled."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import struct
import termios
from typing import TYPE_CHECKING

from support.images import random_image
from support.registry import running_registry
from support.stores import command, environment

if TYPE_CHECKING:
    from pathlib import Path

_ESCAPES = re.compile(rb"\x1b\[[0-9;?]*[A-Za-z]")


def on_terminal(words: tuple[str, ...], environ: dict[str, str]) -> tuple[int, list[str]]:
    """Exit status and every line that was drawn, in order and without colours."""
    pid, fd = pty.fork()
    if pid == 0:
        os.execve(words[0], words, environ)
    fcntl.ioctl(fd, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 100, 0, 0))
    written = b""
    while part := _read(fd):
        written += part
    os.close(fd)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    lines = _ESCAPES.sub(b"", written).decode().replace("\r", "\n").split("\n")
    return status, [line.rstrip() for line in lines if line.strip()]


def _read(fd: int) -> bytes:
    try:
        return os.read(fd, 65536)
    except OSError:  # the last process on the other side has closed it
        return b""


def test_a_terminal_shows_one_line_a_layer(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", layers=3)
    with running_registry(tmp_path / "registry") as registry:
        name = registry.push(image, "team/app", "1")
        environ = environment(tmp_path / "store", {"TERM": "xterm", "HOME": str(tmp_path)})
        status, lines = on_terminal(command("pull", name), environ)
    assert status == 0
    assert lines[0] == "1: Pulling from team/app"
    assert sorted(lines[-6:-3]) == sorted(f"{layer.digest.short}: Pull complete" for layer in image.manifest.layers)
    assert lines[-3:] == [
        f"Digest: {image.descriptor.digest}",
        f"Status: Downloaded newer image for {name}",
        name,
    ]
