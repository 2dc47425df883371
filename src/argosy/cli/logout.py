"""argosy logout: forget a registry's password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.login import parse_registry
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_ABOUT = """\
Only what argosy login has written is removed. A login of docker or podman for
the same registry stays, and a warning names its file.
"""
_EXAMPLES = """\
examples:
  argosy logout
  argosy logout nvcr.io
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument(
        "registry", nargs="?", metavar="REGISTRY", help="the registry, with its port if it has one (default: docker.io)"
    )


def main(args: Namespace, host: Host) -> int:
    registry = parse_registry(args.registry)
    forgotten = host.credentials.delete(registry)
    left = host.credentials.find(registry)
    if forgotten:
        output.write(f"Removing login credentials for {registry}\n")
    elif left is None:
        output.write(f"Not logged in to {registry}\n")
    if left is not None:
        output.warning(f"{left.source} still has a login for {registry}; the program that wrote it removes it")
    return 0
