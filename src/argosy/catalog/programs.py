"""Programs that the catalogue starts: apt, mmdebstrap, pip. What they say when they fail becomes our error."""

from __future__ import annotations

import re
import subprocess
from typing import TYPE_CHECKING

from ..errors import Error, Exhausted, RuntimeFailed, Unavailable, Unsupported
from ..linux.processes import command_line, describe_status, find_program

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import BinaryIO

_LAST_LINES = 12  # of a failed program's output; apt's and pip's reasons fit
_NO_NETWORK = re.compile(
    r"Temporary failure (resolving|in name resolution)|Could not (resolve|connect)|Name or service not known|"
    r"Network is unreachable|Connection (refused|timed out)|NewConnectionError|Max retries exceeded",
)
_NO_SPACE = re.compile(r"No space left on device|You don't have enough free space|Disk quota exceeded")


def require(name: str, *, package: str, environ: Mapping[str, str]) -> str:
    """Where the program is. Raises Unsupported (code program-missing), naming the package that brings it."""
    path = find_program(name, path=environ.get("PATH", ""))
    if path is None:
        raise Unsupported(
            f"{name} is not installed",
            code="program-missing",
            context=f"the catalogue needs it to build images; looked in PATH={environ.get('PATH', '')}",
            hint=f"apt-get install {package}",
        )
    return path


def run(
    argv: Sequence[str],
    *,
    doing: str,
    environ: Mapping[str, str],
    stdout: BinaryIO | None = None,
) -> str:
    """Run to the end and give its output as text (empty when it went to *stdout*).

    Raises Unavailable (no network), Exhausted (disk full) or RuntimeFailed, each
    with the program's last lines and the command to repeat.
    """
    try:
        done = subprocess.run(
            list(argv),
            env=dict(environ),
            stdin=subprocess.DEVNULL,
            stdout=stdout or subprocess.PIPE,
            stderr=subprocess.PIPE,
            check=False,
        )
    except OSError as error:
        raise RuntimeFailed(f"cannot start {argv[0]}", code="program-failed", context=str(error)) from error
    if done.returncode != 0:
        said = (done.stderr + (done.stdout or b"")).decode(errors="replace")
        raise _failed(doing, argv, done.returncode, said)
    return (done.stdout or b"").decode(errors="replace")


def _failed(doing: str, argv: Sequence[str], status: int, said: str) -> Error:
    lines = [line for line in said.replace("\r", "\n").splitlines() if line.strip()]
    status = 128 - status if status < 0 else status
    context = "\n".join(
        [*lines[-_LAST_LINES:], f"{argv[0]}: {describe_status(status)}", f"command: {command_line(argv)}"]
    )
    if _NO_SPACE.search(said):
        return Exhausted(f"{doing}: the disk is full", code="disk-full", context=context)
    if _NO_NETWORK.search(said):
        return Unavailable(
            f"{doing}: no connection",
            code="network-unavailable",
            context=context,
            hint="check the network and the proxy settings of apt and pip, then try again",
        )
    return RuntimeFailed(f"{doing} failed", code="program-failed", context=context, status=status, exit_status=1)
