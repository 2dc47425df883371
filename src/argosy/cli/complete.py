"""The hidden verb `__complete KIND`: names that the shell's completion offers. Quick, and silent about errors."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("kinds", nargs="+", metavar="KIND")


def main(args: Namespace, host: Host) -> int:
    try:
        names = [name for kind in args.kinds for name in _NAMES[kind](host)]
    except (Error, OSError, KeyError):
        return 1
    output.write("".join(f"{name}\n" for name in sorted(set(names))))
    return 0


def _images(host: Host) -> list[str]:
    from ..store.listing import read_listing

    return [row.familiar for row in read_listing(host.root) if not row.is_untagged]


def _containers(host: Host) -> list[str]:
    return [record.name for record in host.containers.list()]


_NAMES = {"images": _images, "containers": _containers}
