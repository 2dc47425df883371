"""argosy prune: give back the space of what no name and no container needs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import pruning
from .image_prune import warning

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_ABOUT = """\
Forgets images that have no name and are under no container, and deletes blobs
and layers that nothing needs, interrupted downloads and what dead processes
left. What running argosy processes are at work with stays. Containers are
never removed; see argosy system prune. The plan is printed first.
"""
_EXAMPLES = f"""\
{pruning.FILTER_HELP}
examples:
  argosy prune
  argosy prune --all --force
  argosy prune --dry-run --target 50GB
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("-a", "--all", action="store_true", help="images with names too, if no container uses them")
    pruning.add_arguments(parser)


def main(args: Namespace, host: Host) -> int:
    from ..ops.prune import Scope

    every = args.all or args.target is not None
    return pruning.prune(args, host, Scope(all_images=every, leftovers=True), warning(every))
