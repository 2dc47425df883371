"""registries.conf, version 2: podman's form, and our own.

    [[registry]]
    prefix = "docker.io"
    [[registry.mirror]]
    location = "mirror.lan:5000/hub"

Source: containers-registries.conf(5), containers-registries.conf.d(5).
"""

from __future__ import annotations

import os
import re
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import msgspec

from .registries import Endpoint, Registries, Rule, secured

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

_HOST = re.compile(r"(?:localhost|\[[0-9a-fA-F:]+\]|[A-Za-z0-9-]+(?:\.[A-Za-z0-9-]+)+|[A-Za-z0-9-]+(?=:))(?::[0-9]+)?")
_WILDCARD = re.compile(r"\*(?:\.[A-Za-z0-9-]+)+")
#: What is looked for in a file before it is parsed: Debian's list of short names has 200 lines, and nothing for us.
_WORTH = re.compile(
    rb"""^\s* (?: \[\[?\s*["']?registry\b | ["']?registry["']?\s*=\s*\[ | ["']?credential-helpers["']?\s*= )""",
    re.MULTILINE | re.VERBOSE,
)
_PODMANS_FILES = "containers-auth.json"  # among credential helpers


class _Mirror(msgspec.Struct, frozen=True, rename="kebab"):
    location: str
    insecure: bool = False
    pull_from_mirror: Literal["", "all", "digest-only", "tag-only"] = ""


class _Registry(msgspec.Struct, frozen=True, rename="kebab"):
    prefix: str = ""
    location: str = ""
    insecure: bool = False
    blocked: bool = False
    mirror_by_digest_only: bool = False
    mirror: tuple[_Mirror, ...] = ()


class _Document(msgspec.Struct, frozen=True, rename="kebab"):
    registry: tuple[_Registry, ...] = ()
    credential_helpers: tuple[str, ...] | None = None


class RegistriesConf:
    """Rules of several files, *paths* from the one that counts least to the one that counts most."""

    def __init__(self, registries: Registries, paths: Callable[[], list[str]], *, own: bool) -> None:
        self._registries = registries
        self._paths = paths
        self._own = own
        self._helpers: tuple[str, ...] = ()

    def find(self, name: str) -> Rule | None:
        """The rule with the longest prefix of *name*."""
        fitting = [rule for rule in self._rules.values() if matched(name, rule.prefix)]
        return max(fitting, key=lambda rule: _narrowness(name, rule.prefix), default=None)

    def all(self) -> Iterator[Rule]:
        yield from self._rules.values()

    def helpers(self) -> tuple[str, ...]:
        """The credential programs that podman asks for every registry."""
        self._rules  # noqa: B018  # reads the files
        return tuple(name for name in self._helpers if name != _PODMANS_FILES)

    @cached_property
    def _rules(self) -> dict[str, Rule]:
        found: dict[str, Rule] = {}
        for path in self._paths():
            raw = self._registries.read(path, own=self._own)
            if raw is not None and (self._own or _WORTH.search(raw)):
                found |= {rule.prefix: rule for rule in reversed(self._parse(raw, path))}  # the first of a file wins
        return found

    def _parse(self, raw: bytes, path: str) -> list[Rule]:
        try:
            document = parse_toml(raw)
            if self._own:
                _refuse_strangers(document)
            wire = msgspec.convert(document, _Document)
            self._helpers = self._helpers if wire.credential_helpers is None else wire.credential_helpers
            return [_rule(registry, f"registry[{number}]", path) for number, registry in enumerate(wire.registry)]
        except ValueError as error:  # TOML's and msgspec's, and ours
            raise self._registries.invalid(path, str(error)) from error


def own_conf(registries: Registries) -> RegistriesConf:
    """argosy/registries.toml of the system and the user."""
    return RegistriesConf(registries, lambda: list(reversed(registries.folders.own)), own=True)


def containers_conf(registries: Registries) -> RegistriesConf:
    """podman's files: a user's own replaces the system's, and each folder's *.conf come after its file."""
    folders = registries.folders

    def paths() -> list[str]:
        *users, system = folders.each("containers/registries.conf")
        if folders.containers_file:
            return [folders.containers_file]
        if users and os.path.exists(users[0]):
            return [users[0], *_drop_ins(users[0])]
        return [system, *_drop_ins(system), *(path for user in users for path in _drop_ins(user))]

    return RegistriesConf(registries, paths, own=False)


def matched(name: str, prefix: str) -> int:
    """How many characters of *name* the prefix of a rule covers; 0 when it does not fit. Pure.

    «*.example.com» fits any host below that domain. A prefix ends where a part of the
    name ends: at a slash, and within a repository also before a tag or digest.
    """
    if prefix.startswith("*."):
        host = name.partition("/")[0]
        return len(host) if host.partition(":")[0].endswith(prefix[1:]) else 0
    if not name.startswith(prefix):
        return 0
    following = name[len(prefix) : len(prefix) + 1]
    return len(prefix) if following in ("", "/") or ("/" in prefix and following in (":", "@")) else 0


def _narrowness(name: str, prefix: str) -> tuple[int, bool, int]:
    return matched(name, prefix), not prefix.startswith("*."), len(prefix)


def parse_toml(raw: bytes) -> dict[str, Any]:
    """Raises ValueError."""
    import tomllib

    try:
        return tomllib.loads(raw.decode())
    except RecursionError:
        raise ValueError("nested too deeply") from None


def _drop_ins(path: str) -> list[str]:
    folder = f"{path}.d"
    try:
        return [os.path.join(folder, name) for name in sorted(os.listdir(folder)) if name.endswith(".conf")]
    except OSError:
        return []


def _rule(registry: _Registry, key: str, path: str) -> Rule:
    location = _location(registry.location or registry.prefix, f"{key}.location")
    prefix = registry.prefix.rstrip("/") or location
    if prefix.startswith("*."):
        if _WILDCARD.fullmatch(prefix) is None:
            raise ValueError(f"{key}.prefix: {prefix!r} has more than a domain after «*.»")
        location = location if registry.location else ""
    else:
        _location(prefix, f"{key}.prefix")
    origin = _endpoint(location, insecure=registry.insecure)
    if registry.mirror_by_digest_only and any(mirror.pull_from_mirror for mirror in registry.mirror):
        raise ValueError(f"{key}: mirror-by-digest-only and pull-from-mirror exclude each other")
    mirrors = tuple(
        msgspec.structs.replace(
            _endpoint(_location(mirror.location, f"{key}.mirror[{number}].location"), insecure=mirror.insecure),
            serves="digest-only" if registry.mirror_by_digest_only else mirror.pull_from_mirror or "all",
        )
        for number, mirror in enumerate(registry.mirror)
    )
    return Rule(prefix=prefix, mirrors=mirrors, origin=origin, blocked=registry.blocked, file=path)


def _endpoint(location: str, *, insecure: bool) -> Endpoint:
    host = location.partition("/")[0]
    return Endpoint(location=location, insecure=insecure, scheme=secured(host, insecure=insecure) if host else "")


def _location(text: str, key: str) -> str:
    """host[:port][/path] without a slash at the end; a wildcard passes. Raises ValueError."""
    trimmed = text.rstrip("/")
    if not trimmed:
        raise ValueError(f"{key}: it is empty")
    if "://" in trimmed:
        raise ValueError(f"{key}: {text!r} has a scheme; write the host alone, with insecure = true for plain http")
    host = trimmed.partition("/")[0]
    if not trimmed.startswith("*.") and _HOST.fullmatch(host) is None:
        raise ValueError(f"{key}: {host!r} is no registry; its name has a dot or a port, or is localhost")
    return trimmed


def _refuse_strangers(document: dict[str, Any]) -> None:
    """A key that we do not know is a mistake in a file of ours. Raises ValueError."""
    _check_keys(document, ("registry",), "")
    tables = document.get("registry")
    for number, table in enumerate(tables if isinstance(tables, list) else ()):
        _check_keys(table, _Registry.__struct_encode_fields__, f"registry[{number}].")
        mirrors = table.get("mirror") if isinstance(table, dict) else None
        for inner, mirror in enumerate(mirrors if isinstance(mirrors, list) else ()):
            _check_keys(mirror, _Mirror.__struct_encode_fields__, f"registry[{number}].mirror[{inner}].")


def _check_keys(table: object, known: tuple[str, ...], place: str) -> None:
    for key in table if isinstance(table, dict) else ():
        if key not in known:
            raise ValueError(f"{place}{key}: unknown; known are {', '.join(known)}")
