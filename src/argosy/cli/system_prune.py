"""argosy system prune: stopped containers, images that nothing uses then, and leftovers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from . import pruning

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from .host import Host
    from .parser import Parser

_ABOUT = """\
Removes stopped containers with what they have written, images without a name
(with --all every image that no container is left of), blobs and layers that
nothing needs, interrupted downloads and what dead processes left; with --all
the downloads of argosy catalog build too. The plan is printed first.
"""
_EXAMPLES = f"""\
{pruning.FILTER_HELP}
examples:
  argosy system prune
  argosy system prune -af --filter until=240h
  argosy system prune --dry-run
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("-a", "--all", action="store_true", help="images with names and the build cache too, if no container uses them")
    pruning.add_arguments(parser)
    add("--volumes", action="store_true", help="accepted for Docker's scripts; there are no volumes yet")


def main(args: Namespace, host: Host) -> int:
    from ..ops.prune import Scope

    if args.volumes and any(text.partition("=")[0].strip() == "until" for text in args.filter):
        raise InvalidInput('the "until" filter is not supported with "--volumes"', code="filter-invalid")
    every = args.all or args.target is not None
    scope = Scope(containers=True, all_images=every, leftovers=True, build_cache=args.all)
    return pruning.prune(args, host, scope, _warning(args, every))


def _warning(args: Namespace, every: bool) -> str:
    """Docker's words. Source: docker/cli cli/command/system/prune.go."""
    return "\n".join(
        ("WARNING! This will remove:", *(f"  - {line}" for line in _goes(args, every)), *_filtered(args), "")
    )


def _goes(args: Namespace, every: bool) -> Iterator[str]:
    yield "all stopped containers"
    yield "all networks not used by at least one container"
    if args.volumes:
        yield "all anonymous volumes not used by at least one container"
    yield "all images without at least one container associated to them" if every else "all dangling images"
    yield "all build cache" if args.all else "unused build cache"


def _filtered(args: Namespace) -> Iterator[str]:
    if args.filter:
        yield ""
        yield "  Items to be pruned will be filtered with:"
        yield from (f"  - {text}" for text in sorted(args.filter))
