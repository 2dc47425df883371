"""containerd's certs.d/HOST/hosts.toml: mirrors of one registry, and how each is met.

Read are server, and of each host capabilities, ca, client, skip_verify, override_path.
Source: containerd docs/hosts.md.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..errors import InvalidInput
from ..oci.reference import DEFAULT_REGISTRY
from .hosts import Certificates, is_host
from .messages import split_url
from .registries import Endpoint, Registries, Rule, secured
from .registries_conf import parse_toml

if TYPE_CHECKING:
    from collections.abc import Iterator

_HUB = ("docker.io", "index.docker.io", "registry-1.docker.io")


class _Host(msgspec.Struct, frozen=True):
    capabilities: tuple[str, ...] = ("pull", "resolve")
    ca: str | list[str] = []
    client: str | list[str | list[str]] = []
    skip_verify: bool = False
    override_path: bool = False


class _Document(_Host, frozen=True):
    server: str = ""
    host: dict[str, _Host] = {}


class ContainerdHosts:
    """What containerd's folders say of a registry."""

    def __init__(self, registries: Registries) -> None:
        self._registries = registries
        self._found: dict[str, Rule | None] = {}

    def find(self, name: str) -> Rule | None:
        registry = name.partition("/")[0]
        if registry not in self._found:
            self._found[registry] = self._look_up(registry) if is_host(registry) else None
        return self._found[registry]

    def all(self) -> Iterator[Rule]:
        for folder in self._registries.folders.each("containerd/certs.d"):
            for name in _listed(folder):
                host = "_default" if name == "_default" else _registry_of(name)
                if (rule := self._read(os.path.join(folder, name), host)) is not None:
                    yield rule

    def _look_up(self, registry: str) -> Rule | None:
        for folder in self._registries.folders.each("containerd/certs.d"):
            for name in (_folder_of(registry), registry, "_default"):
                if os.path.isdir(os.path.join(folder, name)):
                    return self._read(os.path.join(folder, name), registry)
        return None

    def _read(self, folder: str, registry: str) -> Rule | None:
        path = os.path.join(folder, "hosts.toml")
        raw = self._registries.read(path)
        if not raw:
            return None
        try:
            wire = msgspec.convert(parse_toml(raw), _Document)
            mirrors = tuple(
                _endpoint(address, host, registry, folder)
                for address, host in wire.host.items()
                if "pull" in host.capabilities
            )
            origin = _endpoint(wire.server, wire, registry, folder)
            return Rule(prefix=registry, mirrors=mirrors, origin=origin, file=path)
        except InvalidInput as error:
            raise self._registries.invalid(path, error.message) from error
        except ValueError as error:
            raise self._registries.invalid(path, str(error)) from error


def endpoint_at(address: str, *, override_path: bool = False) -> Endpoint:
    """The endpoint behind an address: its path ends with /v2 unless it is to be taken as it stands.

    What follows /v2 is a part of the repositories' names there. Raises InvalidInput.
    """
    parts = split_url(address if "://" in address else f"https://{address}")
    if parts.scheme not in ("http", "https") or not is_host(parts.netloc):
        raise InvalidInput(f"{address!r} is not the address of a registry", code="address-invalid")
    path = parts.path.rstrip("/")
    if not override_path and not path.endswith("/v2"):
        path += "/v2"
    location = DEFAULT_REGISTRY if parts.netloc in _HUB else parts.netloc
    if path.startswith("/v2/") and override_path:
        return Endpoint(location=location + path.removeprefix("/v2"), scheme=parts.scheme)
    return Endpoint(location=location, scheme=parts.scheme, api=path)


def _endpoint(address: str, host: _Host, registry: str, folder: str) -> Endpoint:
    """*address* is empty for the registry itself."""
    if address:
        at = endpoint_at(address, override_path=host.override_path)
    else:
        at = Endpoint(location=registry, scheme=secured(registry, insecure=False))
    return msgspec.structs.replace(
        at,
        serves="all" if "resolve" in host.capabilities else "content-only",
        insecure=host.skip_verify,
        certificates=Certificates(ca_files=_files(host.ca, folder), client_pairs=_pairs(host.client, folder)),
        namespace="" if at.host == registry else registry,
    )


def _files(names: str | list[str], folder: str) -> tuple[str, ...]:
    return tuple(os.path.join(folder, name) for name in ([names] if isinstance(names, str) else names))


def _pairs(client: str | list[str | list[str]], folder: str) -> tuple[tuple[str, str], ...]:
    """A file that holds both, several of them, or (certificate, key). Raises ValueError."""
    pairs = []
    for entry in [client] if isinstance(client, str) else client:
        certificate, *key = [entry] if isinstance(entry, str) else entry
        if len(key) > 1:
            raise ValueError(f"client: {entry!r} is no certificate and its key")
        pairs.append((os.path.join(folder, certificate), os.path.join(folder, key[0]) if key and key[0] else ""))
    return tuple(pairs)


def _folder_of(registry: str) -> str:
    """«host_5000_» of «host:5000», for file systems that take no colon."""
    host, colon, port = registry.rpartition(":")
    return f"{host}_{port}_" if colon else registry


def _registry_of(folder: str) -> str:
    host, _, port = folder.removesuffix("_").rpartition("_")
    return f"{host}:{port}" if folder.endswith("_") and host else folder


def _listed(folder: str) -> list[str]:
    try:
        return sorted(os.listdir(folder))
    except OSError:
        return []
