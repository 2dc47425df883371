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

_ABOUT = """\
The new image has the layers of the container's image and one more: the files
that the container has changed, added or removed. What a launch brings
(volumes, the GPU driver) is not in it. Variables, user, working directory and
command of the container become the image's. A running one is not paused.
"""
_EXAMPLES = """\
examples:
  argosy commit work lab/mycuda:26.11
  argosy commit -a Ana -m 'vectorAdd compiled' work lab/vectoradd
  argosy commit -c 'ENV STAGE=test' -c 'CMD ["/srv/serve"]' work lab/serve
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("container", metavar="CONTAINER", help="a container: name, id or the start of an id")
    parser.add_argument(
        "image",
        metavar="REPOSITORY[:TAG]",
        nargs="?",
        help="name of the new image (default: none, it is listed as <none>)",
    )
    parser.add_argument("-a", "--author", metavar="TEXT", default="", help="who made the change")
    parser.add_argument(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="apply an instruction of a Dockerfile, as in 'CMD [\"sh\"]'; may be repeated",
    )
    parser.add_argument("-m", "--message", metavar="TEXT", default="", help="what was changed; argosy history shows it")


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
    host.enter_namespace()
    container = host.containers.get(args.container)
    image = commit(
        container,
        reference,
        folder=host.containers.folder(container.id),
        upper=f"{host.containers.writable(container)}/upper",
        blobs=host.blobs,
        refs=host.refs,
        snapshotter=host.snapshotter,
        created=host.now(),
        author=args.author,
        message=args.message,
        changes=args.change,
        rootless=host.rootless,
    )
    output.write(f"{image.id}\n")
    return 0
