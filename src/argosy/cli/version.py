"""argosy version: what to write into a report."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..ops import info as ops
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_EXAMPLES = """\
examples:
  argosy version
  argosy version --format '{{.Client.Version}}'
"""


def add_arguments(parser: Parser) -> None:
    parser.explain("", _EXAMPLES)
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="json, or a Go template (default: text)")


def main(args: Namespace, host: Host) -> int:
    from .. import __version__

    python = ".".join(map(str, sys.version_info[:3]))
    facts = {**ops.versions(__version__, python=python, executable=sys.executable)}
    facts["Runtime"] = ops.describe_runtime(lambda: host.runtime)
    client, runtime = facts["Client"], facts["Runtime"]
    shown = f"{runtime['Version']} ({runtime['Path']})" if runtime["Path"] else runtime["Problem"]
    output.document(
        facts,
        args.format,
        f"argosy {client['Version']}\n"
        f" Python:   {client['Python']} ({client['Executable']})\n"
        f" Runtime:  {shown}\n"
        f" Kernel:   {client['KernelVersion']}\n"
        f" Platform: {client['Os']}/{client['Arch']}\n",
    )
    return 0
