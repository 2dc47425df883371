"""argosy rm: remove containers; the images stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error, NotFound
from ..ops import containers as ops
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_ABOUT = """\
The changes that a container has made go with it, unless argosy commit has made
an image of them. Its image stays.
"""
_EXAMPLES = """\
examples:
  argosy rm work
  argosy rm -f work
  argosy rm $(argosy ps -aq --filter status=exited)

exit status:
  0 all went; 1 some did not, the others are gone
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument(
        "containers", metavar="CONTAINER", nargs="+", help="a container: name, id or the start of an id"
    )
    parser.add_argument(
        "-f", "--force", action="store_true", help="kill it first if it runs; one that is not there is no error"
    )
    parser.add_argument(
        "-v", "--volumes", action="store_true", help="accepted for Docker's scripts; there are no anonymous volumes"
    )


def main(args: Namespace, host: Host) -> int:
    host.reaped()
    ended = ops.end(args.containers, containers=host.containers, kill=host.kill) if args.force else frozenset()
    if host.rootless:
        host.enter_namespace()  # the container's files belong to users that exist only there
    failed = False
    for key in args.containers:
        try:
            ops.remove(key, containers=host.containers, runtime=host.ready_runtime, force=args.force)
        except Error as error:
            if key in ended and error.code == "container-unknown":  # one with --rm, which its own argosy has removed
                output.write(f"{key}\n")
                continue
            output.error(error)
            failed = failed or not (args.force and isinstance(error, NotFound) and error.code == "container-unknown")
        else:
            output.write(f"{key}\n")
    return 1 if failed else 0
