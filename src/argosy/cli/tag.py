"""argosy tag: another name for an image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..oci.reference import Reference
from ..ops.tag import tag

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_EXAMPLES = """\
examples:
  argosy tag 4b5ac994804d lab/mycuda:26.11
  argosy tag lab/mycuda:26.11 registry.example.org/lab/mycuda
"""


def add_arguments(parser: Parser) -> None:
    parser.explain("", _EXAMPLES)
    parser.add_argument("source", metavar="SOURCE[:TAG]", help="an image that is here: name, id or the start of an id")
    parser.add_argument("target", metavar="TARGET[:TAG]", help="the new name; another image that has it loses it")


def main(args: Namespace, host: Host) -> int:
    tag(args.source, Reference.parse(args.target), refs=host.refs, blobs=host.blobs)
    return 0
