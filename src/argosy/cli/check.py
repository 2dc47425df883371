"""argosy check: verify everything in the store; --repair removes what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.check import check
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace

    from ..ops.check import Finding, Report
    from .host import Host
    from .parser import Parser

_COLUMNS = ("KIND", "NAME", "PROBLEM", "AFFECTS")
_ABOUT = """\
Reads every blob, layer, name and container record and compares each with what
it should be. --repair removes what is damaged, so that a pull brings it back;
changes that containers have made are never removed, only set aside.
"""
_EXAMPLES = """\
examples:
  argosy check
  argosy check --quiet || mail -s 'store damaged' root < /dev/null
  argosy check --repair

exit status:
  0 all is well; 1 something was damaged, even if it has just been repaired
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("--format", metavar="TEMPLATE", help="json, or a Go template for the report (default: text)")
    add("-q", "--quiet", action="store_true", help="print nothing when all is well")
    add("--repair", action="store_true", help="remove what is damaged, and leftovers of interrupted work")


def main(args: Namespace, host: Host) -> int:
    """1 when something is damaged, also when it was repaired just now."""
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    with reporter(quiet=args.quiet or not host.stderr_is_terminal, host=host, keep=False) as progress:
        report = check(
            refs=host.refs,
            containers=host.containers,
            blobs=host.blobs,
            snapshotter=host.snapshotter,
            repair=args.repair,
            progress=progress,
        )
    if not (args.quiet and report.is_sound):
        output.document(_facts(report), args.format, _text(report))
    return 0 if report.is_sound else 1


def _text(report: Report) -> str:
    parts = []
    if report.findings:
        parts.append(output.table(_COLUMNS, [_row(finding) for finding in report.findings]))
        remedies = dict.fromkeys(finding.remedy for finding in report.findings)
        parts.append("".join(f"to mend: {remedy}\n" for remedy in remedies) if not report.repaired else "")
    elif report.rubbish and not report.repaired:
        parts.append(f"{len(report.rubbish)} leftovers of interrupted work; argosy check --repair removes them\n")
    parts += [f"{line}\n" for line in report.repaired]
    if report.findings and report.repaired:
        again = sorted({name for finding in report.findings for name in finding.affects if ":" in name})
        parts += [f"now type: argosy pull {name}\n" for name in again]
    dropped = f"{report.dropped} blobs dropped, their layers are here; " if report.dropped else ""
    parts.append(
        f"{report.blobs} blobs, {report.layers} layers, {report.tags} tags, {report.containers} containers checked; "
        f"{dropped}{output.human_size(report.size)} read; {len(report.findings)} damaged\n"
    )
    return "".join(parts)


def _row(finding: Finding) -> tuple[str, ...]:
    name = finding.name if finding.kind == "tag" else output.short_id(finding.name)
    return finding.kind, name, finding.problem, ", ".join(finding.affects) or "nothing"


def _facts(report: Report) -> dict[str, object]:
    return {
        "Blobs": report.blobs,
        "Layers": report.layers,
        "Tags": report.tags,
        "Containers": report.containers,
        "Dropped": report.dropped,
        "Size": report.size,
        "Rubbish": list(report.rubbish),
        "Repaired": list(report.repaired),
        "Findings": [
            {
                "Kind": finding.kind,
                "Name": finding.name,
                "Problem": finding.problem,
                "Affects": list(finding.affects),
                "Remedy": finding.remedy,
            }
            for finding in report.findings
        ],
    }
