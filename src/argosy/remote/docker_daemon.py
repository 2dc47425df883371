"""Docker's daemon.json: mirrors of Docker Hub, and registries that are called insecure.

A network among these (10.0.0.0/8) holds for registries that are named by address;
names are not resolved. Source: Docker «dockerd», registry-mirrors, insecure-registries.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from ..oci.reference import DEFAULT_REGISTRY
from .containerd_hosts import endpoint_at
from .proxies import is_in_network
from .registries import Endpoint, Registries, Rule

if TYPE_CHECKING:
    from collections.abc import Iterator


class _Document(msgspec.Struct, frozen=True, rename="kebab"):
    registry_mirrors: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()


class DockerDaemon:
    """A user's own daemon.json replaces the system's."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries

    def find(self, name: str) -> Rule | None:
        registry = name.partition("/")[0]
        mirrors = self._mirrors if registry == DEFAULT_REGISTRY else ()
        insecure = self._is_insecure(registry)
        if not mirrors and not insecure:
            return None
        origin = Endpoint(location=registry, insecure=insecure)
        return Rule(prefix=registry, mirrors=mirrors, origin=origin, file=self._file[0])

    def all(self) -> Iterator[Rule]:
        for name in (DEFAULT_REGISTRY, *self._file[1].insecure_registries):
            if (rule := self.find(name)) is not None:
                yield rule

    @cached_property
    def _file(self) -> tuple[str, _Document]:
        for path in self._registries.folders.each("docker/daemon.json"):
            if os.path.exists(path):
                raw = self._registries.read(path)
                try:
                    return path, msgspec.json.decode(raw, type=_Document) if raw else _Document()
                except (msgspec.MsgspecError, UnicodeDecodeError) as error:
                    raise self._registries.invalid(path, str(error)) from error
        return "", _Document()

    @cached_property
    def _mirrors(self) -> tuple[Endpoint, ...]:
        path, document = self._file
        try:
            found = [endpoint_at(address) for address in document.registry_mirrors]
        except InvalidInput as error:
            raise self._registries.invalid(path, f"registry-mirrors: {error.message}") from error
        return tuple(msgspec.structs.replace(at, insecure=self._is_insecure(at.host)) for at in found)

    def _is_insecure(self, registry: str) -> bool:
        host = registry.rpartition(":")[0] or registry
        return any(
            is_in_network(host.strip("[]"), entry) if "/" in entry else entry == registry
            for entry in self._file[1].insecure_registries
        )
