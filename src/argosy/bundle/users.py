"""Who a container's process is: `-u` or the image's USER, looked up in the image's own passwd and group.

Pure: takes the two files' bytes. Rules: Docker's (moby/sys `user`): a number need
not exist; a name must; supplementary groups come from the group file unless a
group was named.
"""

from __future__ import annotations

import msgspec

from ..errors import NotFound

_ID_LIMIT = 2**31 - 1  # largest id Docker accepts


class Identity(msgspec.Struct, frozen=True, kw_only=True):
    """What execve needs to know; *home* is the passwd entry's, or /."""

    uid: int
    gid: int
    additional_gids: tuple[int, ...] = ()
    home: str = "/"


def resolve(user: str, *, passwd: bytes, group: bytes) -> Identity:
    """`name`, `uid`, either with `:group`; an empty string is root. Raises NotFound (user-unknown, group-unknown)."""
    name, colon, group_name = user.partition(":")
    accounts, groups = _lines(passwd, 7), _lines(group, 4)
    entry = next((row for row in accounts if row[0] == (name or "root") or row[2] == (name or "0")), None)
    uid = _number(name) if name else 0
    if entry is not None:
        uid = _number(entry[2])
    if uid is None:
        raise NotFound(
            f"no user {name or 'root'!r} in this image",
            code="user-unknown",
            context="its /etc/passwd has no such name" if entry is None else f"its id there is {entry[2]!r}",
            hint="give a number, as in -u 1000:1000",
        )
    gid = (_number(entry[3]) if entry is not None else 0) or 0
    login = entry[0] if entry is not None else None
    additional: tuple[int, ...] = ()
    if colon:
        gid = _group_id(group_name, groups)
    elif login is not None:
        members = (_number(row[2]) for row in groups if login in row[3].split(","))
        additional = tuple(sorted({g for g in members if g is not None and g != gid}))
    home = entry[5] if entry is not None and entry[5].startswith("/") and "\0" not in entry[5] else "/"
    return Identity(uid=uid, gid=gid, additional_gids=additional, home=home)


def _group_id(name: str, groups: list[list[str]]) -> int:
    for row in groups:
        if name in (row[0], row[2]) and (gid := _number(row[2])) is not None:
            return gid
    gid = _number(name)
    if gid is None:
        raise NotFound(
            f"no group {name!r} in this image", code="group-unknown", context="its /etc/group has no such name"
        )
    return gid


def _lines(text: bytes, fields: int) -> list[list[str]]:
    rows = (line.split(":") for line in text.decode("utf-8", "replace").split("\n"))
    return [row + [""] * (fields - len(row)) for row in rows if len(row) >= 3]


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdigit() and int(text) <= _ID_LIMIT else None
