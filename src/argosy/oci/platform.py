"""Platforms: what an image is for, what this machine is, and which of several fits best."""

from __future__ import annotations

import os

import msgspec

from ..errors import InvalidInput

#: {what uname, apt or people say: (architecture, variant) in Go's words}
_ALIASES = {
    "x86_64": ("amd64", ""),
    "x86-64": ("amd64", ""),
    "aarch64": ("arm64", ""),
    "armhf": ("arm", "v7"),
    "armel": ("arm", "v6"),
    "armv7l": ("arm", "v7"),
    "i386": ("386", ""),
    "i686": ("386", ""),
}


class Platform(
    msgspec.Struct,
    frozen=True,
    kw_only=True,
    omit_defaults=True,
    rename={"os_version": "os.version", "os_features": "os.features"},
):
    """os/architecture[/variant], in Go's words. Source: image-spec «image-index.md»."""

    os: str
    architecture: str
    variant: str = ""
    os_version: str = ""
    os_features: tuple[str, ...] = ()

    @classmethod
    def parse(cls, text: str) -> Platform:
        """`linux/amd64`, `arm64`, `linux/arm/v7`, uname's words too. Raises InvalidInput."""
        parts = text.lower().split("/")
        if len(parts) == 1:
            parts = ["linux", parts[0]]
        if len(parts) > 3 or not all(part.replace("-", "").replace("_", "").isalnum() for part in parts):
            raise InvalidInput(
                f"not a platform: {text!r}",
                code="platform-invalid",
                hint="platforms look like linux/amd64 or linux/arm64/v8",
            )
        architecture, variant = _ALIASES.get(parts[1], (parts[1], ""))
        return cls(os=parts[0], architecture=architecture, variant=parts[2] if len(parts) == 3 else variant)

    @classmethod
    def host(cls) -> Platform:
        """This machine's platform (uname, nothing else)."""
        return cls.parse(f"linux/{os.uname().machine.lower()}")

    def normalised(self) -> Platform:
        """arm64/v8 is arm64; arm without a variant is v7."""
        variant = self.variant
        if self.architecture == "arm64" and variant == "v8":
            variant = ""
        if self.architecture == "arm" and not variant:
            variant = "v7"
        return Platform(os=self.os, architecture=self.architecture, variant=variant)

    def rank(self, offered: Platform) -> int | None:
        """How well *offered* serves this platform: 0 exactly, larger is worse, None not at all."""
        want, have = self.normalised(), offered.normalised()
        if (want.os, want.architecture) != (have.os, have.architecture):
            return None
        if want.variant == have.variant:
            return 0
        if want.architecture == "arm" and "v5" <= have.variant < want.variant:
            return ord(want.variant[1:2] or "9") - ord(have.variant[1])
        if want.architecture == "amd64" and have.variant < want.variant:
            return 1
        return None if have.variant else 1

    def matches(self, offered: Platform) -> bool:
        return self.rank(offered) is not None

    def __str__(self) -> str:
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)
