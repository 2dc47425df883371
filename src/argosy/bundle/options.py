"""Everything that `run` accepts, as one typed value; the command line and any API build the same."""

from __future__ import annotations

import msgspec

from ..errors import InvalidInput

#: Words that may follow the second colon of -v; the last two are SELinux's, accepted and without effect elsewhere.
_VOLUME_WORDS = frozenset({"ro", "rw", "shared", "slave", "private", "rshared", "rslave", "rprivate", "z", "Z"})
_NAME_START = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")


class Volume(msgspec.Struct, frozen=True, kw_only=True):
    """`-v SOURCE:TARGET[:OPTIONS]`: a folder or file of the host at *target*, absolute in the container."""

    source: str
    target: str
    read_only: bool = False
    propagation: str = "rprivate"

    @classmethod
    def parse(cls, text: str) -> Volume:
        """Docker's short form with a host path. Raises InvalidInput (volume-invalid)."""
        parts = text.split(":")
        if len(parts) not in (2, 3):
            raise _bad_volume(text, "it needs one or two colons")
        source, target = parts[0], parts[1]
        words = [word for word in parts[2].split(",") if word] if len(parts) == 3 else []
        if unknown := [word for word in words if word not in _VOLUME_WORDS]:
            raise _bad_volume(text, f"unknown option {unknown[0]!r}")
        if {"ro", "rw"} <= set(words):
            raise _bad_volume(text, "both ro and rw")
        if not target.startswith("/") or target.strip("/") == "" or ".." in target.split("/"):
            raise _bad_volume(text, f"the place in the container must be an absolute path below /, not {target!r}")
        if not source.startswith(("/", ".", "~")):
            raise _bad_volume(text, f"named volumes ({source!r}) come with a later release; give a path of this host")
        propagation = next(
            (word for word in words if word.removeprefix("r") in ("shared", "slave", "private")), "rprivate"
        )
        return cls(source=source, target=target, read_only="ro" in words, propagation=propagation)


class RunOptions(msgspec.Struct, frozen=True, kw_only=True):
    """One `run`. Text that has a grammar is parsed before it gets here."""

    command: tuple[str, ...] = ()
    name: str | None = None
    #: None keeps the image's; an empty tuple removes it
    entrypoint: tuple[str, ...] | None = None
    #: «NAME=value», later wins
    env: tuple[str, ...] = ()
    volumes: tuple[Volume, ...] = ()
    #: {absolute path in the container: mount options}
    tmpfs: dict[str, str] = {}
    working_dir: str | None = None
    user: str | None = None
    hostname: str | None = None
    #: «name:address» lines for /etc/hosts
    extra_hosts: tuple[str, ...] = ()
    labels: dict[str, str] = {}
    network: str = "host"
    auto_remove: bool = False
    interactive: bool = False
    terminal: bool = False
    read_only: bool = False
    cap_add: tuple[str, ...] = ()
    cap_drop: tuple[str, ...] = ()
    shm_size: int = 64 * 2**20  # bytes; Docker's default
    stop_signal: str | None = None


def parse_name(text: str) -> str:
    """A container name by Docker's rule. Raises InvalidInput (name-invalid)."""
    if len(text) >= 2 and text[0] in _NAME_START and not text.strip("".join(_NAME_START) + "_.-"):
        return text
    raise InvalidInput(
        f"not a container name: {text!r}",
        code="name-invalid",
        context="two characters or more: a letter or digit, then letters, digits, «_», «.» and «-»",
    )


def parse_size(text: str) -> int:
    """`64m`, `1g`, `512k`, `1024`, `2gb`: bytes, powers of 1024 as Docker has it.

    Raises InvalidInput (size-invalid).
    """
    number = text.strip().lower().removesuffix("b").removesuffix("i")
    unit = number[-1:] if number[-1:] in ("k", "m", "g", "t", "p") else ""
    try:
        value = float(number.removesuffix(unit))
    except ValueError:
        value = -1
    if not 0 <= value < 2**60:
        raise InvalidInput(f"not a size: {text!r}", code="size-invalid", hint="sizes look like 512k, 64m, 1g")
    return int(value * 1024 ** " kmgtp".index(unit or " "))


def _bad_volume(text: str, why: str) -> InvalidInput:
    return InvalidInput(
        f"not a volume: {text!r}", code="volume-invalid", context=why, hint="-v /path/on/host:/path/in/container[:ro]"
    )
