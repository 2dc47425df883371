"""argosy stack: the stack of an image or container, drawn."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..errors import InvalidInput, NotFound
from ..oci.image import Image
from ..ops import stack as ops
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from ..store.records import Container
    from .host import Host
    from .parser import Parser

_ABOUT = """\
From the bottom up: GPUs and driver of this machine, what --gpus adds at
launch, OS layer, CUDA runtime, libraries and toolkit, your layers, and the
writable layer of a container. The image's history tells its layers apart.
"""
_EXAMPLES = """\
examples:
  argosy stack nvidia/cuda:13-devel
  argosy stack --format json work
  argosy stack --format svg lab/mycuda:26.11 > stack.svg
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument(
        "subject", metavar="IMAGE|CONTAINER", help="name, id or the start of an id; a container comes first"
    )
    parser.add_argument("--format", metavar="FORMAT", default="text", help="text, json or svg (default: text)")
    parser.add_argument("--ascii", action="store_true", help="draw with + - | instead of box characters")


def main(args: Namespace, host: Host) -> int:
    if args.format not in ("text", "json", "svg"):
        raise InvalidInput(f"no format {args.format!r}", code="format-unknown", hint="--format text, json or svg")
    drawn = build(args.subject, host)
    if args.format == "json":
        output.write(output.json_text(drawn))
    elif args.format == "svg":
        from . import stack_svg

        output.write(stack_svg.draw(drawn))
    else:
        from . import stack_text

        encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
        output.write(
            stack_text.draw(
                drawn, width=host.width, colour=host.colour, ascii_only=args.ascii or not encoding.startswith("utf")
            )
        )
    return 0


def build(subject: str, host: Host) -> ops.Stack:
    """The stack of *subject*. Raises NotFound, Corrupt."""
    container = _container(subject, host)
    below = ops.host_slabs(lambda: host.driver_roots)
    if container is not None:
        from ..ops.containers import writable_size

        image = Image(container.manifest, host.blobs)
        host.enter()  # without root, files of other users inside can only be seen from there
        writable = writable_size(host.containers, container)
        return ops.stack(
            image,
            container.image,
            usage=host.layer_size,
            host=below,
            container=container.name,
            writable=writable,
        )
    record = host.refs.lookup(subject)
    name = subject if record.is_untagged else record.reference.familiar()
    return ops.stack(Image(record.manifest, host.blobs), name, usage=host.layer_size, host=below)


def _container(subject: str, host: Host) -> Container | None:
    try:
        return host.containers.get(subject)
    except NotFound:
        return None
