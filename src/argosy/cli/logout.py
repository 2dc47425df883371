"""argosy logout: forget a registry's password."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.login import parse_registry
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("registry", nargs="?", metavar="REGISTRY", help="which registry (default: docker.io)")


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
