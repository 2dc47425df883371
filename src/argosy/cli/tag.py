"""argosy tag: another name for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..oci.reference import Reference
from ..ops.tag import tag

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser


def add_arguments(parser: Parser) -> None:
    parser.add_argument("source", metavar="SOURCE[:TAG]", help="name or id of an image that is here")
    parser.add_argument("target", metavar="TARGET[:TAG]", help="the new name; latest when it has no tag")


def main(args: Namespace, host: Host) -> int:
    tag(args.source, Reference.parse(args.target), refs=host.refs, blobs=host.blobs)
    return 0
