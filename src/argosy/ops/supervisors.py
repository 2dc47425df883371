"""Whether somebody still watches over a container: its record names the argosy process that does.

Nothing is imported that `ps` could do without.
"""

from __future__ import annotations

import os

from ..linux import lifetimes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol

    class Supervised(Protocol):
        """The part of Container that is needed here."""

        @property
        def status(self) -> str: ...
        @property
        def pid(self) -> int | None: ...
        @property
        def start_time(self) -> int | None: ...
        @property
        def boot(self) -> str: ...
        @property
        def space(self) -> int: ...
        @property
        def host(self) -> str: ...


def is_abandoned(container: Supervised) -> bool:
    """Whether its supervisor died before it recorded the end; false where only another machine can know.

    A machine is known by its name, which it keeps when it starts again.
    """
    if container.status == "exited" or container.pid is None or container.start_time is None:
        return False
    if is_elsewhere(container):
        return False
    if container.boot and container.boot != lifetimes.boot_id():
        return True
    if container.space and container.space != lifetimes.pid_space():
        return False
    return not lifetimes.is_alive(container.pid, container.start_time)


def is_elsewhere(container: Supervised) -> bool:
    """Whether it runs, or ran, on another machine that shares the store."""
    return bool(container.host) and container.host != os.uname().nodename
