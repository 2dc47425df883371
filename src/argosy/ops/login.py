"""Log in to a registry: the registry itself says whether the credentials are good before they are kept."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.reference import DEFAULT_REGISTRY, Reference
from ..remote.auth import Auth
from ..remote.repository import Repository

if TYPE_CHECKING:
    from ..remote.credentials import Credential, Credentials
    from ..remote.transport import Transport


def login(registry: str, credential: Credential, *, transport: Transport, credentials: Credentials) -> str:
    """Try *credential*, then keep it; says where. Raises Unauthorized (login-refused), Unavailable."""
    verify(registry, credential, transport=transport)
    return credentials.save(registry, credential)


def verify(registry: str, credential: Credential, *, transport: Transport) -> None:
    """Raises Unauthorized when the registry refuses; one that asks nobody for a login accepts everything."""
    Repository(transport, registry, "", Auth(registry, lambda: credential)).check_login()


def parse_registry(text: str | None) -> str:
    """The registry that a user named: a host, or an address that was copied from a browser. Raises InvalidInput."""
    if not text:
        return DEFAULT_REGISTRY
    host = text.partition("://")[2] or text
    host = host.partition("/")[0]
    if host in ("index.docker.io", "registry-1.docker.io"):
        return DEFAULT_REGISTRY
    try:
        found = Reference.parse(f"{host}/name/name").registry
    except InvalidInput as error:
        raise InvalidInput(f"not a registry: {text!r}", code="registry-invalid", context=error.context) from error
    if found != host:
        raise InvalidInput(
            f"not a registry: {text!r}",
            code="registry-invalid",
            context="a registry's name has a dot or a port, or is localhost",
            hint="argosy login nvcr.io",
        )
    return host
