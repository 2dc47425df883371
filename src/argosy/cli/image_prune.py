"""argosy image prune: images that nothing uses; or only the compressed form of some that stay."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from . import pruning

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_ABOUT = """\
Removes images without a name that are under no container, with --all also
those with names, and what only they need. The plan is printed first.

--compressed drops the compressed blobs of layers that are unpacked: images run
as before and take half the space. Only what can be had again is dropped: a
registry was asked and has it, or the layer, compressed once more, gives the
same bytes. Pushing and saving bring it back. With IMAGE nothing else goes.
"""
_EXAMPLES = f"""\
{pruning.FILTER_HELP}
examples:
  argosy image prune
  argosy image prune -a --filter until=240h
  argosy image prune --compressed nvidia/cuda:13-devel
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("images", metavar="IMAGE", nargs="*", help="with --compressed: of these images only")
    parser.add_argument("-a", "--all", action="store_true", help="images with names too, if no container uses them")
    pruning.add_arguments(parser)


def main(args: Namespace, host: Host) -> int:
    from ..ops.prune import Scope

    if args.images:
        if not args.compressed or args.all or args.target:
            raise InvalidInput(
                "image prune takes the names of images with --compressed alone",
                code="usage",
                hint=f"argosy image prune --compressed {args.images[0]}, or argosy rmi {args.images[0]}",
            )
        warning_text = "WARNING! This will remove the compressed form of these images' layers."
        return pruning.prune(args, host, Scope(images=False), warning_text, args.images)
    every = args.all or args.target is not None
    return pruning.prune(args, host, Scope(all_images=every), warning(every))


def warning(every: bool) -> str:
    """Docker's words."""
    what = "images without at least one container associated to them" if every else "dangling images"
    return f"WARNING! This will remove all {what}."
