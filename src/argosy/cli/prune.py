"""argosy prune: give back the space of what no name and no container needs."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import Cancelled, InvalidInput
from ..ops.containers import remove_left_behind
from ..ops.prune import prune
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_QUESTION = "This removes {what}, and leftovers of interrupted work. Continue? [y/N] "
_ABOUT = """\
Forgets images that have no name and are under no container, and deletes blobs
and layers that nothing needs. What was touched in the last 24 hours stays,
because somebody may be at work with it. Containers are never removed.
"""
_EXAMPLES = """\
examples:
  argosy prune
  argosy prune --all --force
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument(
        "-a", "--all", action="store_true", help="forget images with names too, if no container uses them"
    )
    parser.add_argument("-f", "--force", action="store_true", help="do not ask first")


def main(args: Namespace, host: Host) -> int:
    if not args.force:
        _ask("all images that no container uses" if args.all else "images without a name", host)
    host.reaped()
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    freed = prune(
        refs=host.refs,
        containers=host.containers,
        blobs=host.blobs,
        snapshotter=host.snapshotter,
        unused=args.all,
        told=lambda name: output.write(f"Untagged: {name}\n"),
    )
    if host.left_behind:
        remove_left_behind(host.containers, host.left_behind)
    output.write("".join(f"Deleted: {digest}\n" for digest in (*freed.images, *freed.layers)))
    output.write(f"Total reclaimed space: {output.human_size(freed.size)}\n")
    return 0


def _ask(what: str, host: Host) -> None:
    if not host.stdin_is_terminal:
        raise InvalidInput(
            "prune asks before it removes anything, and nobody can answer", code="not-confirmed", hint="argosy prune -f"
        )
    output.write(_QUESTION.format(what=what))
    if sys.stdin.readline().strip().lower() not in ("y", "yes"):
        raise Cancelled("nothing was removed", code="cancelled")
