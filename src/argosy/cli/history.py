"""argosy history: the layers of an image and how each was made."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.image import Image
from ..ops.history import MISSING, history
from . import output

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping

    from ..ops.history import Step
    from .host import Host
    from .parser import Parser

_HEADERS = {
    "ID": "IMAGE",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "CreatedBy": "CREATED BY",
    "Size": "SIZE",
    "Comment": "COMMENT",
}
_COMMAND_WIDTH = 45  # characters, Docker's
_UNKNOWN = "N/A"
_ABOUT = """\
The newest step comes first. Sizes are those of the uncompressed layers, 0B for
a step without one, N/A where the layer is not here. The catalogue of Argosy
writes what each of its layers holds.
"""
_EXAMPLES = """\
fields of --format:
  .ID .CreatedSince .CreatedAt .CreatedBy .Size .Comment

examples:
  argosy history debian:12
  argosy history --no-trunc --human=false lab/mycuda:26.11
  argosy history --format '{{.Size}}\\t{{.CreatedBy}}' debian:12
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("image", metavar="IMAGE", help="an image that is here: name, id or the start of an id")
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add(
        "--human",
        metavar="BOOL",
        nargs="?",
        const="true",
        default="true",
        help="sizes and ages for people; false: bytes and dates (default: true)",
    )
    add("-H", dest="human", action="store_const", const="true", help="as --human=true")
    add("--no-trunc", action="store_true", help="do not shorten ids and commands")
    add("-q", "--quiet", action="store_true", help="print ids only")


def main(args: Namespace, host: Host) -> int:
    image = Image(host.refs.lookup(args.image).manifest, host.blobs)
    human = _truth(args.human)
    output.show(
        [_fields(step, human=human, whole=args.no_trunc) for step in history(image, usage=host.layer_size)],
        columns=("ID", "CreatedSince" if human else "CreatedAt", "CreatedBy", "Size", "Comment"),
        headers=_HEADERS,
        template=args.format,
        quiet="ID" if args.quiet else None,
    )
    return 0


def _truth(text: str) -> bool:
    """Go's strconv.ParseBool, which Docker's flags go by."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    raise InvalidInput(f"--human takes true or false, not {text!r}", code="usage")


def _local(stamp: str) -> str:
    """Go's time.RFC3339 in this machine's zone, to the second: what Docker prints."""
    then = output.timestamp(stamp)
    if then is None:
        return _UNKNOWN
    zone = time.strftime("%z", time.localtime(then))
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.localtime(then)) + (
        "Z" if zone == "+0000" else f"{zone[:3]}:{zone[3:]}"
    )


def _fields(step: Step, *, human: bool, whole: bool) -> Mapping[str, str]:
    created = _local(step.created)
    command = " ".join(step.created_by.split())  # tabs and line ends would break the table
    return {
        "ID": step.id if whole or step.id == MISSING else output.short_id(step.id),
        "CreatedSince": output.age(step.created) if human else created,
        "CreatedAt": created,
        "CreatedBy": command if whole else output.ellipsis(command, _COMMAND_WIDTH),
        "Size": _UNKNOWN if step.size is None else output.human_size(step.size) if human else str(step.size),
        "Comment": step.comment,
    }
