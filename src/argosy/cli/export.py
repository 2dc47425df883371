"""argosy export: a container's files as a tar, with Docker's flags."""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Error, NotFound
from .archive_output import archive_output, require_no_terminal

if TYPE_CHECKING:
    from argparse import Namespace

    from ..store.records import Container
    from .host import Host
    from .parser import Parser

_ABOUT = """\
The tar holds the image's files and the container's changes as one tree.
Volumes, the GPU driver and the mount points of a launch are not in it, nor are
the image's settings: argosy commit keeps those. The container may be running.
"""
_EXAMPLES = """\
examples:
  argosy export -o work.tar work
  argosy export work | tar -xC rootfs
  argosy export work | argosy import -c 'CMD ["bash"]' - lab/flat
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("container", metavar="CONTAINER", help="a container: name, id or the start of an id")
    parser.add_argument("-o", "--output", metavar="FILE", help="write to FILE (default: the standard output)")


def main(args: Namespace, host: Host) -> int:
    require_no_terminal(args.output, host)
    from ..ops.export import export
    from ..ops.progress import silent

    host.reaped()
    host.enter_namespace()
    container = _find(args.container, host)
    with archive_output(args.output, host) as out:
        export(
            container,
            out,
            folder=host.containers.folder(container.id),
            upper=f"{host.containers.writable(container)}/upper",
            blobs=host.blobs,
            snapshotter=host.snapshotter,
            rootless=host.rootless,
            content=host.whole(container.image, silent),  # with what was dropped
        )
    return 0


def _find(name: str, host: Host) -> Container:
    """The container *name*. Raises NotFound, which tells somebody who named an image of `save`."""
    try:
        return host.containers.get(name)
    except NotFound as error:
        with suppress(Error):
            host.refs.lookup(name)
            error.context = f"{name} is an image"
            error.hint = f"argosy save -o FILE {name} writes images"
        raise
