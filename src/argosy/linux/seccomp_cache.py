"""The seccomp filter of a container, ready: profile and compiled program from one file.

The profile's table and libseccomp are only loaded when the file is missing: reading
the table and building the profile takes 3 ms of every start, the file 0.2 ms.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import msgspec

from ..oci.digest import Digest
from . import files

if TYPE_CHECKING:
    from collections.abc import Iterable

_FORMAT = 1  # of the file; raise it when its fields change


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """`linux.seccomp` of config.json, and what crun takes instead of compiling it (None without libseccomp)."""

    profile: msgspec.Raw
    program: str | None


def filter_for(capabilities: Iterable[str], architecture: str, cache_folder: str) -> Filter:
    """The default filter for a process that holds *capabilities*; see seccomp.profile_for and compiled.

    The cache is derived and may be deleted; a damaged file is made again.
    """
    from . import __path__ as package

    # A profile that was changed (an update, a developer) has another time.
    changed = os.stat(os.path.join(package[0], "seccomp_profile.py")).st_mtime_ns
    key = Digest.of(repr((_FORMAT, changed, architecture, sorted(capabilities))).encode()).hex
    path = os.path.join(cache_folder, f"filter-{key[:40]}.json")
    found = _read(path)
    if found is None:
        found = _made(tuple(capabilities), architecture, cache_folder)
        body = msgspec.json.encode(found)
        os.makedirs(cache_folder, exist_ok=True)
        files.write_instead(path, Digest.of(body).encode() + b"\n" + body, sync=False)
    return found


def _read(path: str) -> Filter | None:
    try:
        with open(path, "rb", buffering=0) as file:
            checksum, _, body = file.read().partition(b"\n")
    except OSError:
        return None
    if checksum != Digest.of(body).encode():
        return None
    return msgspec.json.decode(body, type=Filter)


def _made(capabilities: tuple[str, ...], architecture: str, cache_folder: str) -> Filter:
    from . import seccomp

    profile = seccomp.profile_for(capabilities, architecture)
    return Filter(profile=msgspec.Raw(msgspec.json.encode(profile)), program=seccomp.compiled(profile, cache_folder))
