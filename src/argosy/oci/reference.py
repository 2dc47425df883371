"""Names of images: what people type, and what it means.

Grammar: distribution `reference`; familiar forms: Docker's (docker.io and
library/ are left out where people leave them out).
"""

from __future__ import annotations

import re

import msgspec

from ..errors import InvalidInput
from .digest import Digest

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
NAME_LIMIT = 255  # characters of registry/repository; distribution reference NameTotalLengthMax

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_TAG = re.compile(r"[\w][\w.-]{0,127}", re.ASCII)
_DOMAIN_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_REGISTRY = re.compile(rf"(?:\[[0-9a-fA-F:]+\]|{_DOMAIN_PART}(?:\.{_DOMAIN_PART})*)(?::[0-9]+)?")
_HEX64 = re.compile(r"[0-9a-f]{64}")


class Reference(msgspec.Struct, frozen=True, kw_only=True, order=True):
    """An image name in full: registry/repository[:tag][@digest].

    At least one of *tag* and *digest* is set; when the digest is set it decides
    and the tag is for people.
    """

    registry: str
    repository: str
    tag: str | None = None
    digest: Digest | None = None

    @classmethod
    def parse(cls, text: str) -> Reference:
        """What a user typed, docker.io, library/ and latest filled in.

        Raises InvalidInput (code reference-invalid) that points at the first bad part.
        """
        rest, digest = text, None
        if not text:
            raise _invalid(text, "it is empty")
        if "://" in text:
            scheme = text.partition("://")[0]
            raise _invalid(text, "names have no scheme", f"leave out {f'{scheme}://'!r}; --plain-http chooses http")
        if "@" in rest:
            rest, _, encoded = rest.partition("@")
            try:
                digest = Digest.parse(encoded)
            except InvalidInput as error:
                raise _invalid(text, error.message) from error
        tag = None
        colon = rest.rfind(":")
        if colon > rest.rfind("/"):
            rest, tag = rest[:colon], rest[colon + 1 :]
            if _TAG.fullmatch(tag) is None:
                raise _invalid(text, f"bad tag {tag!r}: letters, digits, «_», «.», «-», at most 128")
        registry, repository = split_registry(rest)
        if _HEX64.fullmatch(rest):
            raise _invalid(text, "64 hex digits are an image id, not a name")
        if not is_registry(registry):
            raise _invalid(text, f"bad registry {registry!r}")
        for component in repository.split("/"):
            if _COMPONENT.fullmatch(component) is None:
                if component.lower() != component and _COMPONENT.fullmatch(component.lower()):
                    raise _invalid(text, f"{component!r} must be lower case")
                raise _invalid(text, f"bad name component {component!r}")
        if registry == DEFAULT_REGISTRY and "/" not in repository:
            repository = f"library/{repository}"
        if len(registry) + 1 + len(repository) > NAME_LIMIT:
            raise _invalid(text, f"the name is longer than {NAME_LIMIT} characters")
        if tag is None and digest is None:
            tag = DEFAULT_TAG
        return cls(registry=registry, repository=repository, tag=tag, digest=digest)

    @property
    def name(self) -> str:
        """registry/repository, in full."""
        return f"{self.registry}/{self.repository}"

    @property
    def familiar_name(self) -> str:
        """The name as Docker prints it: docker.io/ and library/ left out, unless it would mean another then."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.repository.removeprefix("library/") if self.repository.count("/") == 1 else self.repository
        if split_registry(short) != (DEFAULT_REGISTRY, short) or _HEX64.fullmatch(short):
            return self.name
        return short

    def familiar(self) -> str:
        """What a user would type for this reference, tag and digest included."""
        return self.familiar_name + self._suffix()

    def __str__(self) -> str:
        return self.name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag is not None else "") + (f"@{self.digest}" if self.digest is not None else "")

    def with_tag(self, tag: str) -> Reference:
        """The same repository at *tag*, without a digest."""
        if _TAG.fullmatch(tag) is None:
            raise _invalid(tag, f"bad tag {tag!r}")
        return Reference(registry=self.registry, repository=self.repository, tag=tag)

    def with_digest(self, digest: Digest) -> Reference:
        """The same repository at *digest*, without a tag."""
        return Reference(registry=self.registry, repository=self.repository, digest=digest)


def is_repository(text: str) -> bool:
    """Whether *text* is a valid repository path (distribution-spec «name»)."""
    return 0 < len(text) <= NAME_LIMIT and all(_COMPONENT.fullmatch(part) for part in text.split("/"))


def is_registry(text: str) -> bool:
    """Whether *text* is a host with or without a port, as it begins a reference."""
    return _REGISTRY.fullmatch(text) is not None


def is_tag(text: str) -> bool:
    return _TAG.fullmatch(text) is not None


def split_registry(rest: str) -> tuple[str, str]:
    """Docker's rule: the first component is a registry if it has a dot or colon, is localhost, or has capitals."""
    first, slash, remainder = rest.partition("/")
    if slash and (first == "localhost" or any(c in first for c in ".:[") or first.lower() != first):
        return (DEFAULT_REGISTRY if first == "index.docker.io" else first), remainder
    return DEFAULT_REGISTRY, rest


def _invalid(text: str, why: str, hint: str = "") -> InvalidInput:
    return InvalidInput(
        f"not an image name: {text!r}",
        code="reference-invalid",
        context=why,
        hint=hint or "names look like [registry/]repository[:tag][@sha256:…], lower case",
    )
