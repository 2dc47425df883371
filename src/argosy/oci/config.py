"""Image configs: environment, entry point, diff-ids and history, with the bytes kept.

A change is a new document made from the old one's JSON, so fields that we do
not know survive (Docker's `OnBuild`, `Healthcheck`, a vendor's own).
Source: image-spec «config.md»; Docker's additions from moby `docker-image`.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from ..errors import Corrupt, InvalidInput
from .descriptor import OCI_CONFIG, Descriptor
from .digest import Digest
from .platform import Platform
from .wire import decode, encode


class History(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """How one layer came to be; *empty_layer* steps changed only the config."""

    created: str = ""
    created_by: str = ""
    author: str = ""
    comment: str = ""
    empty_layer: bool = False


class Healthcheck(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """Docker's HEALTHCHECK; times in nanoseconds."""

    test: tuple[str, ...] | None = None
    interval: int = 0
    timeout: int = 0
    start_period: int = 0
    start_interval: int = 0
    retries: int = 0


class _Execution(msgspec.Struct, frozen=True, kw_only=True, rename="pascal"):
    user: str | None = None
    #: Any, not object: msgspec would ask wire's hook, which knows no rule for the empty maps that stand here
    exposed_ports: Mapping[str, Any] | None = None
    env: tuple[str, ...] | None = None
    entrypoint: tuple[str, ...] | str | None = None
    cmd: tuple[str, ...] | str | None = None
    volumes: Mapping[str, Any] | None = None
    working_dir: str | None = None
    labels: Mapping[str, str] | None = None
    stop_signal: str | None = None
    shell: tuple[str, ...] | None = None
    on_build: tuple[str, ...] | None = None
    healthcheck: Healthcheck | None = None


class _RootFs(msgspec.Struct, frozen=True, kw_only=True):
    diff_ids: tuple[Digest, ...] | None = None
    type: str = "layers"


class _Document(msgspec.Struct, frozen=True, kw_only=True):
    architecture: str = ""
    os: str = ""
    variant: str = ""
    created: str | None = None
    author: str | None = None
    config: _Execution | None = None
    rootfs: _RootFs | None = None
    history: tuple[History, ...] | None = None


class ImageConfig(msgspec.Struct, frozen=True, kw_only=True):
    """What an image says about how to run it, and which layers it is made of."""

    raw: bytes
    platform: Platform
    created: str
    author: str
    #: «NAME=value», in order
    env: tuple[str, ...]
    entrypoint: tuple[str, ...]
    cmd: tuple[str, ...]
    user: str
    working_dir: str
    labels: Mapping[str, str]
    exposed_ports: tuple[str, ...]
    volumes: tuple[str, ...]
    stop_signal: str
    shell: tuple[str, ...]
    on_build: tuple[str, ...]
    healthcheck: Healthcheck | None
    #: digests of the uncompressed layers, lowest first
    diff_ids: tuple[Digest, ...]
    history: tuple[History, ...]

    @classmethod
    def parse(cls, raw: bytes) -> ImageConfig:
        """Raises Corrupt (config-invalid) with the JSON path of the first fault."""
        try:
            view = decode(raw, _Document)
        except InvalidInput as error:
            raise Corrupt("image config holds a bad diff-id", code="config-invalid", context=error.message) from error
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Corrupt("not a valid image config", code="config-invalid", context=str(error)) from error
        run = view.config or _Execution()
        if b"\\u0000" in raw:
            _refuse_nul(run)
        return cls(
            raw=raw,
            platform=Platform(os=view.os, architecture=view.architecture, variant=view.variant),
            created=view.created or "",
            author=view.author or "",
            env=run.env or (),
            entrypoint=_words(run.entrypoint),
            cmd=_words(run.cmd),
            user=run.user or "",
            working_dir=run.working_dir or "",
            labels=run.labels or {},
            exposed_ports=tuple(run.exposed_ports or ()),
            volumes=tuple(run.volumes or ()),
            stop_signal=run.stop_signal or "",
            shell=run.shell or (),
            on_build=run.on_build or (),
            healthcheck=run.healthcheck,
            diff_ids=view.rootfs.diff_ids or () if view.rootfs else (),
            history=view.history or (),
        )

    @classmethod
    def scratch(cls, platform: Platform) -> ImageConfig:
        """An image without layers, the start of every new one."""
        document = {"architecture": platform.architecture, "os": platform.os}
        if platform.variant:
            document["variant"] = platform.variant
        return cls.parse(encode(document | {"config": {}, "rootfs": {"type": "layers", "diff_ids": []}}))

    @property
    def descriptor(self) -> Descriptor:
        return Descriptor.of(self.raw, OCI_CONFIG)

    @property
    def environment(self) -> dict[str, str]:
        """{name: value}; the last of equal names wins, as in execve."""
        return dict(entry.partition("=")[::2] for entry in self.env)

    def with_(
        self,
        *,
        execution: Mapping[str, object] | None = None,
        diff_ids: tuple[Digest, ...] | None = None,
        history: tuple[History, ...] | None = None,
        created: str | None = None,
        author: str | None = None,
    ) -> ImageConfig:
        """A new config: *execution* replaces fields of Docker's `config` object (None deletes one); the rest is kept.

        Keys of *execution* are the document's own (`Env`, `Cmd`, `WorkingDir`, …).
        Equal inputs give equal bytes: keys are sorted. Raises Corrupt (config-invalid) where a
        member that `parse` passes over is no JSON that could be kept.
        """
        try:
            document = msgspec.json.decode(self.raw)
        except (msgspec.MsgspecError, RecursionError, UnicodeDecodeError) as error:
            raise Corrupt("not a valid image config", code="config-invalid", context=str(error)) from error
        assert isinstance(document, dict)
        if execution is not None:
            run = dict(document.get("config") or {}) | dict(execution)
            document["config"] = {key: value for key, value in run.items() if value is not None}
        if diff_ids is not None:
            document["rootfs"] = {"type": "layers", "diff_ids": list(diff_ids)}
        if history is not None:
            document["history"] = list(history)
        if created is not None:
            document["created"] = created
        if author is not None:
            document["author"] = author
        return ImageConfig.parse(encode(document, order="sorted"))


def _words(value: tuple[str, ...] | str | None) -> tuple[str, ...]:
    """Very old images hold a shell line where the list belongs."""
    if isinstance(value, str):
        return ("/bin/sh", "-c", value) if value else ()
    return value or ()


def _refuse_nul(run: _Execution) -> None:
    """The kernel ends words at a NUL: what is run would not be what is shown."""
    words = {
        "Env": run.env,
        "Entrypoint": run.entrypoint,
        "Cmd": run.cmd,
        "User": run.user,
        "WorkingDir": run.working_dir,
        "Shell": run.shell,
    }
    for name, value in words.items():
        if any("\0" in word for word in value or ()):
            raise Corrupt(
                "not a valid image config", code="config-invalid", context=f"a NUL character - at `$.config.{name}`"
            )
