"""How one host is met: plain or encrypted, whom its certificate must come from, who we are for it.

The certificates lie where docker, podman and containerd look for them: a folder
certs.d with a folder for each HOST or HOST:PORT, in it *.crt (CAs) and pairs
NAME.cert, NAME.key (what we show). Only names are read here; transport and TLS
library open the files. Source: containers-certs.d(5), Docker «Verify repository client».
"""

from __future__ import annotations

import os
import re

import msgspec

from ..errors import InvalidInput

_HOST = re.compile(r"(?:\[[0-9a-f:.]+\]|[a-z0-9](?:[a-z0-9._-]*[a-z0-9])?)(?::[0-9]{1,5})?")
#: {registry as named in references: host that serves it}
API_HOSTS = {"docker.io": "registry-1.docker.io"}
_NAMES = {host: registry for registry, host in API_HOSTS.items()}


class Certificates(msgspec.Struct, frozen=True, kw_only=True):
    """Names of PEM files."""

    #: trusted beside the system's
    ca_files: tuple[str, ...] = ()
    #: (certificate, key) for servers that ask who we are; no key when it is in the same file
    client_pairs: tuple[tuple[str, str], ...] = ()

    def __add__(self, other: Certificates) -> Certificates:
        return Certificates(
            ca_files=self.ca_files + other.ca_files, client_pairs=self.client_pairs + other.client_pairs
        )


class HostSettings(msgspec.Struct, frozen=True, kw_only=True):
    """What is not said is the default: TLS, and a certificate of a CA that the system trusts."""

    #: http or https where that is settled
    scheme: str = ""
    #: any certificate will do, and none where *scheme* is open
    insecure: bool = False
    certificates: Certificates = Certificates()


def is_host(text: str) -> bool:
    """Whether *text* is a host with or without a port, and so a safe name of a folder."""
    return _HOST.fullmatch(text.lower()) is not None and ".." not in text


def registry_at(host: str) -> str:
    """The registry that a host serves, as references and people's files name it."""
    return _NAMES.get(host, host)


def find_certificates(host: str, folders: tuple[str, ...]) -> Certificates:
    """What the first of the certs.d *folders* that knows *host* has for it.

    A folder that this user may not look into is passed over, as docker and podman
    do. Raises InvalidInput (certificates-invalid) when half of a pair is missing.
    """
    for name in dict.fromkeys((host, registry_at(host))) if is_host(host) else ():
        for folder in folders:
            try:
                found = sorted(os.listdir(os.path.join(folder, name)))
            except OSError:
                continue
            if certificates := _chosen(os.path.join(folder, name), found):
                return certificates
    return Certificates()


def _chosen(folder: str, names: list[str]) -> Certificates | None:
    authorities = tuple(os.path.join(folder, name) for name in names if name.endswith(".crt"))
    stems = {name.removesuffix(end) for name in names for end in (".cert", ".key") if name.endswith(end)}
    pairs = []
    for stem in sorted(stems):
        for end, other in ((".cert", ".key"), (".key", ".cert")):
            if stem + end not in names:
                raise InvalidInput(
                    f"{os.path.join(folder, stem + other)} has no {stem}{end} beside it",
                    code="certificates-invalid",
                    context="a client certificate is NAME.cert and its key NAME.key",
                    hint="a CA's certificate ends with .crt" if end == ".key" else "",
                )
        pairs.append((os.path.join(folder, f"{stem}.cert"), os.path.join(folder, f"{stem}.key")))
    return Certificates(ca_files=authorities, client_pairs=tuple(pairs)) if authorities or pairs else None
