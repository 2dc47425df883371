"""argosy commit: a container's changes become an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.reference import Reference
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("container", metavar="CONTAINER", help="name, id or the start of an id")
    parser.add_argument("image", metavar="REPOSITORY[:TAG]", nargs="?", help="name of the new image")
    parser.add_argument("-a", "--author", metavar="TEXT", default="", help="who made it")
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="what was changed, for `history`")


def main(args: Namespace, host: Host) -> int:
    from ..ops.commit import commit

    reference = Reference.parse(args.image) if args.image else None
    if reference is not None and reference.digest is not None:
        raise InvalidInput(
            "cannot name an image by digest",
            code="reference-has-digest",
            context=f"{args.image}: the digest follows from the content",
        )
    host.reaped()
    host.enter()
    container = host.containers.get(args.container)
    image = commit(
        container,
        reference,
        folder=host.containers.folder(container.id),
        blobs=host.blobs,
        refs=host.refs,
        snapshotter=host.snapshotter,
        created=host.now(),
        author=args.author,
        message=args.message,
    )
    output.write(f"{image.id}\n")
    return 0
