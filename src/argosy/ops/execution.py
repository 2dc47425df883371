"""What a container was told to run: its image's config with the user's options over it, in Docker's words.

`commit` writes it into the new image, `inspect` shows it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ..oci.config import ImageConfig
    from ..store.records import Container


def execution_of(container: Container, base: ImageConfig) -> dict[str, Any]:  # Any: JSON
    """Fields of Docker's `config` object; None for what neither image nor user gave."""
    options = container.options
    entrypoint = options.get("entrypoint")
    environment = dict(entry.partition("=")[::2] for entry in (*base.env, *options.get("env", ())))
    return {
        "Env": [f"{name}={value}" for name, value in environment.items()] or None,
        "Entrypoint": list(base.entrypoint if entrypoint is None else entrypoint) or None,
        "Cmd": list(options.get("command") or (base.cmd if entrypoint is None else ())) or None,
        "User": options.get("user") or base.user or None,
        "WorkingDir": options.get("working_dir") or base.working_dir or None,
        "Labels": dict(container.labels) or None,
    }
