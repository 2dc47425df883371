"""apt's sources of the building host: which of them serve the Debian release that an image begins with.

Images are built from wherever the host gets its own packages; a host that has no
Debian sources (Ubuntu) takes Debian's public ones. No address but that public
name is known here. Source: sources.list(5).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import msgspec

from ..errors import Unsupported

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

PUBLIC_ARCHIVE = "http://deb.debian.org/debian"
PUBLIC_SECURITY = "http://deb.debian.org/debian-security"
KEYRING = "/usr/share/keyrings/debian-archive-keyring.gpg"

_ONE_LINE = re.compile(r"deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>[^#]+)")


class Source(msgspec.Struct, frozen=True, kw_only=True):
    """One archive and suite. *options* are those of a one-line entry («signed-by=…»)."""

    uri: str
    suite: str
    components: tuple[str, ...] = ("main",)
    options: tuple[str, ...] = ()

    def line(self) -> str:
        options = f"[{' '.join(self.options)}] " if self.options else ""
        return f"deb {options}{self.uri} {self.suite} {' '.join(self.components)}"


def suites(codename: str) -> tuple[str, str, str]:
    """The release, its updates and its security updates."""
    return codename, f"{codename}-updates", f"{codename}-security"


def host_sources(codename: str, apt: Path) -> tuple[Source, ...]:
    """One or more sources for each suite of *codename*, from the files under *apt* (/etc/apt), else the public ones.

    Raises Unsupported (keyring-missing) when the public ones are needed and the keys to check them are not there.
    """
    mine = [source for source in _configured(apt) if source.suite in suites(codename) and "main" in source.components]
    served = {source.suite for source in mine}
    missing = [source for source in public_sources(codename) if source.suite not in served]
    if missing and not (apt.parent.parent / KEYRING.lstrip("/")).exists():
        raise Unsupported(
            "the keys of Debian's archive are not installed",
            code="keyring-missing",
            context=f"{KEYRING} is not there, and {apt} has no source for {', '.join(s.suite for s in missing)}",
            hint="apt-get install debian-archive-keyring",
        )
    signed = (f"signed-by={KEYRING}",)
    return tuple(mine) + tuple(msgspec.structs.replace(source, options=signed) for source in missing)


def public_sources(codename: str) -> tuple[Source, ...]:
    """What the image itself uses when it runs."""
    release, updates, security = suites(codename)
    return (
        Source(uri=PUBLIC_ARCHIVE, suite=release),
        Source(uri=PUBLIC_ARCHIVE, suite=updates),
        Source(uri=PUBLIC_SECURITY, suite=security),
    )


def image_sources(codename: str) -> str:
    """The image's own /etc/apt/sources.list.d/debian.sources."""
    release, updates, security = suites(codename)
    return "\n".join(
        f"Types: deb\nURIs: {uri}\nSuites: {names}\nComponents: main\nSigned-By: {KEYRING}\n"
        for uri, names in ((PUBLIC_ARCHIVE, f"{release} {updates}"), (PUBLIC_SECURITY, security))
    )


def _configured(apt: Path) -> Iterator[Source]:
    """Every source in sources.list and sources.list.d, in apt's order, one suite each."""
    folder = apt / "sources.list.d"
    more = sorted(folder.iterdir()) if folder.is_dir() else []
    for file in (apt / "sources.list", *more):
        if not file.is_file():
            continue
        text = file.read_text(encoding="utf-8", errors="replace")
        if file.suffix == ".list":
            yield from _one_line(text.splitlines())
        elif file.suffix == ".sources":
            yield from _deb822(text)


def _one_line(lines: Iterable[str]) -> Iterator[Source]:
    for line in lines:
        match = _ONE_LINE.match(line.strip())
        if match is not None:
            yield Source(
                uri=match["uri"].rstrip("/"),
                suite=match["suite"].rstrip("/"),
                components=tuple(match["components"].split()),
                options=_trusted((match["options"] or "").split()),
            )


def _deb822(text: str) -> Iterator[Source]:
    for paragraph in re.split(r"\n[ \t]*\n", text):
        fields = _fields(paragraph)
        if "deb" not in fields.get("types", "").split() or fields.get("enabled", "yes").lower() in ("no", "false"):
            continue
        options = [f"{option}={fields[option]}" for option in ("signed-by", "trusted") if fields.get(option)]
        for uri in fields.get("uris", "").split():
            for suite in fields.get("suites", "").split():
                yield Source(
                    uri=uri.rstrip("/"),
                    suite=suite.rstrip("/"),
                    components=tuple(fields.get("components", "").split()),
                    options=_trusted(options),
                )


def _fields(paragraph: str) -> dict[str, str]:
    """{name in lower case: value}; comments are dropped, continued lines joined."""
    fields: dict[str, str] = {}
    name = ""
    for line in paragraph.splitlines():
        if line.startswith("#") or not line.strip():
            continue
        if line[0] in " \t" and name:
            fields[name] += " " + line.strip()
        elif ":" in line:
            name, _, value = line.partition(":")
            name = name.strip().lower()
            fields[name] = value.strip()
    return fields


def _trusted(options: Iterable[str]) -> tuple[str, ...]:
    """What decides whether a source is believed; a key written into the file itself cannot stand on one line."""
    kept = (option for option in options if option.lower().startswith(("signed-by=", "trusted=")))
    return tuple(option for option in kept if "BEGIN PGP" not in option)
