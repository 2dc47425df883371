"""argosy image du: where the bytes of an image are."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..oci.image import Image
from . import output
from .parser import UsageError

if TYPE_CHECKING:
    from argparse import Namespace

    from ..ops.du import ImageUse
    from .host import Host
    from .parser import Parser

DEPTH, TOP = 3, 15
DEEPEST = 100  # parts; JSON is not nested without end
_ABOUT = """\
Counts the files of an image by folder, layer and package, and those that
nobody sees: a layer has them, and a higher one replaces or removes them. A
file with several names counts once, holes do not.
"""
_EXAMPLES = """\
fields of --format:
  .Name .Id .Platform .Size .HiddenSize .Root .Layers .Packages .Hidden .Unread
  .Root and all in its .Entries    .Path .Type .Size .Files .Entries

examples:
  argosy image du nvidia/cuda:13-devel
  argosy du --depth 6 --top 40 lab/train:26.11
  argosy du --format '{{range .Packages}}{{println .Size .Name}}{{end}}' app:1
  argosy du --format json lab/train:26.11
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("image", metavar="IMAGE", help="an image that is here: name, id or the start of an id")
    add(
        "--depth",
        type=int,
        default=DEPTH,
        metavar="N",
        help=f"list folders N parts deep (default: {DEPTH})",
    )
    add("--format", metavar="TEMPLATE", help="json, or a Go template for the whole count (default: a drawing)")
    add("--top", type=int, default=TOP, metavar="N", help=f"draw the N largest of each kind, 0: all (default: {TOP})")


def main(args: Namespace, host: Host) -> int:
    if not 1 <= args.depth <= DEEPEST or args.top < 0:
        raise UsageError(
            f"--depth takes 1 to {DEEPEST}, --top 0 and more", hint="argosy du --help shows how it is used"
        )
    from ..ops.du import image_use
    from . import du_text
    from .run import ensure_unpacked

    record = host.refs.lookup(args.image)
    image = Image(record.manifest, host.blobs)
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    ensure_unpacked(image, args.image, host, quiet=False)
    use = image_use(image, args.image, snapshotter=host.snapshotter, blobs=host.blobs, depth=args.depth)
    if args.format is not None:
        output.document(_facts(use), args.format, "")
        return 0
    encoding = (sys.stdout.encoding or "ascii").lower().replace("-", "")
    text = du_text.draw(use, top=args.top, width=host.width, ascii_only=not encoding.startswith("utf"))
    output.document({}, None, text)
    return 0


def _facts(use: ImageUse) -> dict[str, object]:
    return {**output.go_fields(use), "Size": use.size, "HiddenSize": use.hidden_size}
