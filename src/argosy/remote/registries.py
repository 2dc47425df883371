"""What is said about registries on this machine: mirrors, other places, who is blocked, who is met how.

Our own registries.toml comes first; what it says nothing of is looked up in the files
of podman, containerd and Docker, in this order. Files are read when somebody asks,
and only as far as needed: what our own file says of a registry spares the others.
"""

from __future__ import annotations

import os
from functools import cached_property
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import InvalidInput, Unauthorized
from ..oci.reference import Reference
from .hosts import Certificates, HostSettings, find_certificates, is_host, registry_at
from .proxies import is_loopback

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from typing import Protocol

    from .registries_conf import RegistriesConf

    class Said(Protocol):
        """What one program's files say."""

        def find(self, name: str) -> Rule | None:
            """The rule for a host or an image's full name. Raises InvalidInput for a file that is none."""

        def all(self) -> Iterator[Rule]:
            """Every rule, for people to look at."""


#: What a mirror is asked for: content-only ones never say what a tag means, and are asked first for the rest.
Serves = Literal["all", "digest-only", "tag-only", "content-only"]
_FILE_LIMIT = 4 * 2**20  # bytes


class Endpoint(msgspec.Struct, frozen=True, kw_only=True):
    """Where images can be had: a host, and a part of it."""

    #: host[:port][/path…]; takes the place of a rule's prefix in names
    location: str
    serves: Serves = "all"
    scheme: str = ""
    insecure: bool = False
    certificates: Certificates = Certificates()
    #: what stands before a repository in addresses
    api: str = "/v2"
    #: for caches of many registries: the one that is meant, sent as «ns»
    namespace: str = ""

    @property
    def host(self) -> str:
        return self.location.partition("/")[0]


class Rule(msgspec.Struct, frozen=True, kw_only=True):
    """What one file says of the names that begin with *prefix*."""

    prefix: str
    mirrors: tuple[Endpoint, ...] = ()
    origin: Endpoint
    blocked: bool = False
    file: str

    def rewritten(self, reference: Reference, endpoint: Endpoint) -> Reference:
        """The name of an image at *endpoint*. Raises InvalidInput when that is none."""
        text = str(reference)
        if self.prefix.startswith("*."):
            start = len(reference.registry) if endpoint.location else 0
        else:
            start = len(self.prefix)
        try:
            return Reference.parse(endpoint.location + text[start:])
        except InvalidInput as error:
            raise InvalidInput(
                f"{self.file} makes no image name of {text!r}",
                code="registries-invalid",
                context=f"{endpoint.location + text[start:]!r}: {error.context}",
            ) from error


class Folders(msgspec.Struct, frozen=True, kw_only=True):
    """Where files are looked for. A test's machine is a folder."""

    #: the user's configuration; empty when there is none
    user: str
    system: str = "/etc"
    #: ~/.docker
    docker: str = ""
    #: one file that is read in place of podman's
    containers_file: str = ""

    @classmethod
    def of(cls, environ: Mapping[str, str]) -> Folders:
        home, named = environ.get("HOME", ""), environ.get("XDG_CONFIG_HOME", "")
        user = named if named.startswith("/") else os.path.join(home, ".config") if home.startswith("/") else ""
        docker = environ.get("DOCKER_CONFIG") or (os.path.join(home, ".docker") if home.startswith("/") else "")
        return cls(user=user, docker=docker, containers_file=environ.get("CONTAINERS_REGISTRIES_CONF", ""))

    @property
    def own(self) -> tuple[str, ...]:
        """Ours, the user's before the system's."""
        return tuple(os.path.join(folder, "argosy/registries.toml") for folder in self._both)

    @property
    def certificates(self) -> tuple[str, ...]:
        """Folders of certificates, the first that knows a host wins."""
        user, system = ((self.user,) if self.user else ()), (self.system,)
        places = [(user, "argosy"), (user, "containers"), (system, "argosy"), (system, "containers")]
        places += [(system, "docker"), (user, "docker"), (user, "containerd"), (system, "containerd")]
        found = [os.path.join(folder, program, "certs.d") for folders, program in places for folder in folders]
        return (*found, *((os.path.join(self.docker, "certs.d"),) if self.docker else ()))

    @property
    def _both(self) -> tuple[str, ...]:
        return (self.user, self.system) if self.user else (self.system,)

    def each(self, path: str) -> tuple[str, ...]:
        """*path* in the user's and in the system's folder."""
        return tuple(os.path.join(folder, path) for folder in self._both)


class Registries:
    """Everything that is said, asked by name. Used by several threads."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        #: names of the files that were read, in this order
        self.files: list[str] = []
        self._settings: dict[str, HostSettings] = {}

    @cached_property
    def _podman(self) -> RegistriesConf:
        from .registries_conf import containers_conf

        return containers_conf(self)

    @cached_property
    def _said(self) -> tuple[Said, ...]:
        from .registries_conf import own_conf

        said: list[Said] = [own_conf(self), self._podman]
        if any(map(os.path.isdir, self.folders.each("containerd/certs.d"))):
            from .containerd_hosts import ContainerdHosts

            said.append(ContainerdHosts(self))
        if any(map(os.path.exists, self.folders.each("docker/daemon.json"))):
            from .docker_daemon import DockerDaemon

            said.append(DockerDaemon(self))
        return tuple(said)

    def credential_helpers(self) -> tuple[str, ...]:
        """Programs that podman asks for logins, whatever the registry: docker-credential-NAME."""
        return self._podman.helpers()

    def rule(self, name: str) -> Rule | None:
        """What is said of a host, or of an image by its full name; None when nothing is."""
        for said in self._said:
            if (rule := said.find(name)) is not None:
                return rule
        return None

    def rules(self) -> tuple[Rule, ...]:
        """All that is said, the files that count more before the others."""
        return tuple(rule for said in self._said for rule in said.all())

    def allowed(self, reference: Reference) -> Rule | None:
        """As rule, for an image that is to be read or written. Raises Unauthorized (registry-blocked)."""
        rule = self.rule(str(reference))
        if rule is not None and rule.blocked:
            raise Unauthorized(
                f"{reference.familiar()} must not be used here",
                code="registry-blocked",
                context=f"{rule.file} blocks {rule.prefix}",
                hint="ask whoever wrote that file",
            )
        return rule

    def settings(self, host: str) -> HostSettings:
        """How a host is met: what is said of it as a registry, and its certificates."""
        if host not in self._settings:
            registry = registry_at(host)
            rule = self.rule(registry) if is_host(host) else None
            is_there = rule is not None and rule.origin.host in ("", registry)
            endpoint = rule.origin if rule is not None and is_there else Endpoint(location=registry)
            self._settings[host] = self.settings_of(endpoint, host)
        return self._settings[host]

    def settings_of(self, endpoint: Endpoint, host: str) -> HostSettings:
        """How the host of *endpoint* is met for it."""
        return HostSettings(
            scheme=endpoint.scheme,
            insecure=endpoint.insecure,
            certificates=endpoint.certificates + find_certificates(host, self.folders.certificates),
        )

    def read(self, path: str, *, own: bool = False) -> bytes | None:
        """A file's bytes; None when it is not there, or is another program's and not for this user to read."""
        from ..linux.files import reporting

        with reporting("read", path):
            try:
                with open(path, "rb") as file:
                    raw = file.read(_FILE_LIMIT)
            except (FileNotFoundError, NotADirectoryError):
                return None
            except PermissionError:
                if own:
                    raise
                return None
        self.files.append(path)
        return raw

    def invalid(self, path: str, why: str) -> InvalidInput:
        """The error for a file that is not what it should be; *why* names the key."""
        own = self.folders.own[0]
        return InvalidInput(
            f"cannot use {path}",
            code="registries-invalid",
            context=_key_first(why),
            hint="mend it, or move it away"
            if path in self.folders.own
            else f"mend it; a registry that {own} speaks of is not looked up there",
        )


def secured(host: str, *, insecure: bool) -> str:
    """The scheme of a host that is not called insecure; one on this machine may speak either, and is asked."""
    from .messages import split_url

    return "" if insecure or is_loopback(split_url(f"http://{host}").hostname or "") else "https"


def _key_first(why: str) -> str:
    """msgspec puts the place behind what is wrong there: «… - at `$.registry[0].insecure`»."""
    what, found, place = why.rpartition(" - at `$")
    return f"{place.strip('.`')}: {what}" if found else why
