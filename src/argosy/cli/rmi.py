"""argosy rmi: remove names of images, and images that have none left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error
from ..ops.rmi import rmi
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from ..ops.rmi import Removed
    from .host import Host
    from .parser import Parser

_ABOUT = """\
Takes a name from an image. With its last name an image goes, and with it the
layers that no other image and no container needs. An id takes all its names.
"""
_EXAMPLES = """\
examples:
  argosy rmi lab/mycuda:26.11
  argosy rmi -f 4b5ac994804d
  argosy rmi $(argosy images -q --filter dangling=true)

exit status:
  0 all went; 1 some did not, the others are gone
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="an image: name, id or the start of an id")
    add("-f", "--force", action="store_true", help="also if containers use it, or several repositories name it")
    add("--no-prune", action="store_true", help="accepted for Docker's scripts; there are no untagged parents")


def main(args: Namespace, host: Host) -> int:
    """Every name is tried; the exit status tells whether all went."""
    host.reaped()
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    status = 0
    for name in args.images:
        try:
            removed = rmi(
                name,
                force=args.force,
                refs=host.refs,
                containers=host.containers,
                blobs=host.blobs,
                snapshotter=host.snapshotter,
            )
        except Error as error:
            if args.force and error.code == "tag-unknown":
                continue  # as Docker: -f and not there is done
            if error.code == "tag-unknown" and error.hint.startswith("argosy pull"):
                error.hint = "argosy images lists those that are here"
            output.error(error)
            status = 1
            continue
        output.write(_lines(removed))
    return status


def _lines(removed: Removed) -> str:
    untagged = "".join(f"Untagged: {name}\n" for name in removed.untagged)
    return untagged + "".join(f"Deleted: {digest}\n" for digest in removed.deleted)
