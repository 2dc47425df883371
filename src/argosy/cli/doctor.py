"""argosy doctor: the chain from kernel module to GPU, the first missing link, and what this host offers.

Exit status 0 when the chain to a GPU is whole, 1 when a link is missing; the checks
of the host do not change it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import msgspec

from ..gpu.driver import DriverRoots
from ..ops.doctor import Diagnosis, examine
from . import output

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from ..ops.doctor import Check
    from .host import Host
    from .parser import Parser

_INDENT = 33  # characters before a fact: status and name in columns
_ABOUT = """\
The first part is a chain: kernel module, device nodes, driver libraries, NVML,
GPUs. Each needs the one before; the first that is missing is named with what
to type. The second part says what else this machine offers to containers.
"""
_EXAMPLES = """\
examples:
  argosy doctor
  argosy doctor --format '{{.FirstMissing}}'
  argosy doctor --driver-root /run/nvidia/driver

exit status:
  0 the chain to a GPU is whole; 1 a link is missing

environment:
  ARGOSY_DRIVER_ROOT   the default of --driver-root
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    parser.add_argument("--driver-root", metavar="DIR", help="look for the NVIDIA driver below DIR (default: /)")
    parser.add_argument("-f", "--format", metavar="TEMPLATE", help="json, or a Go template (default: text)")


def main(args: Namespace, host: Host) -> int:
    from pathlib import Path

    roots = DriverRoots.under(Path(args.driver_root).absolute()) if args.driver_root else host.driver_roots
    diagnosis = examine(roots, find_runtime=lambda: host.runtime, probe_features=host.probe, store=Path(host.root))
    output.document(_facts(diagnosis), args.format, "".join(f"{line}\n" for line in _lines(diagnosis)))
    return 1 if diagnosis.first_missing else 0


def _facts(diagnosis: Diagnosis) -> dict[str, Any]:
    """What --format sees, in Docker's way of writing keys. Any: texts and lists of maps."""
    missing = diagnosis.first_missing
    return {
        "Ok": missing is None,
        "FirstMissing": "" if missing is None else missing.name,
        "Gpu": [_check(check) for check in diagnosis.gpu],
        "Host": [_check(check) for check in diagnosis.host],
    }


def _check(check: Check) -> dict[str, str]:
    return {
        name.capitalize(): value for name, value in msgspec.structs.asdict(check).items() if value or name != "hint"
    }


def _lines(diagnosis: Diagnosis) -> Iterator[str]:
    yield "GPU, each line needs the one before:"
    for check in diagnosis.gpu:
        yield from _check_lines(check)
    yield "This host:"
    for check in diagnosis.host:
        yield from _check_lines(check)
    missing = diagnosis.first_missing
    if missing is None:
        yield "The chain is whole: run --gpus works."
        return
    yield f"First missing link: {missing.name}."
    yield f"  {missing.fact}"
    if missing.hint:
        yield f"  hint: {missing.hint}"


def _check_lines(check: Check) -> Iterator[str]:
    facts = [line.strip() for part in check.fact.split("; ") for line in part.splitlines()] or [""]
    yield f"  {check.status:<12}{check.name:<{_INDENT - 14}}{facts[0]}".rstrip()
    for fact in facts[1:]:
        yield " " * _INDENT + fact
    if check.hint and check.status != "failed":
        yield " " * _INDENT + f"to have it: {check.hint}"
