"""argosy check: verify everything in the store; --repair mends what is damaged."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..ops.check import Store, check
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace

    from ..oci.reference import Reference
    from ..ops.check import Finding, Report
    from ..ops.progress import Progress
    from ..remote.repository import Repository
    from .host import Host
    from .parser import Parser

_COLUMNS = ("KIND", "NAME", "PROBLEM", "AFFECTS")
_ABOUT = """\
Reads every blob, layer, name, manifest list and container record and compares
each with what it should be, on all cores. --repair fetches damaged and missing
blobs again from where their image came, by digest, and makes damaged layers
again. What nobody has any more is removed, with the names that would lead to
it; changes that containers have made are never removed, only set aside.
"""
_EXAMPLES = """\
examples:
  argosy check
  argosy check --quiet || mail -s 'store damaged' root < /dev/null
  argosy check --repair
  argosy check --repair --offline

exit status:
  0 all is well; 1 something was damaged, even if it has just been repaired
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("--format", metavar="TEMPLATE", help="json, or a Go template for the report (default: text)")
    add("--offline", action="store_true", help="repair without asking any registry")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add("-q", "--quiet", action="store_true", help="print nothing when all is well")
    add("--repair", action="store_true", help="mend what is damaged, remove what cannot be mended, and leftovers")


def main(args: Namespace, host: Host) -> int:
    """1 when something is damaged, also when it was repaired just now."""
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    store = Store(
        refs=host.refs,
        lists=host.lists,
        containers=host.containers,
        blobs=host.blobs,
        snapshotter=host.snapshotter,
    )
    with reporter(quiet=args.quiet or not host.stderr_is_terminal, host=host, keep=False) as progress:
        report = check(store, progress=progress)
        if args.repair:
            report = _repaired(report, store, args, host, progress)
    if not (args.quiet and report.is_sound):
        output.document(_facts(report), args.format, _text(report))
    return 0 if report.is_sound else 1


def _repaired(report: Report, store: Store, args: Namespace, host: Host, progress: Progress) -> Report:
    from ..ops.repair import repair

    def connect(reference: Reference) -> Repository:
        return host.repository(reference, plain_http=args.plain_http)

    return repair(report, store, connect=None if args.offline else connect, progress=progress)


def _text(report: Report) -> str:
    parts = []
    if report.findings:
        parts.append(output.table(_COLUMNS, [_row(finding) for finding in report.findings]))
        remedies = dict.fromkeys(finding.remedy for finding in report.findings)
        parts.append("".join(f"to mend: {remedy}\n" for remedy in remedies) if not report.repaired else "")
    elif report.rubbish and not report.repaired:
        parts.append(f"{len(report.rubbish)} leftovers of interrupted work; argosy check --repair removes them\n")
    parts += [f"{line}\n" for line in report.repaired]
    again = sorted({name for finding in report.remaining for name in finding.affects if ":" in name})
    parts += [f"now type: argosy pull {name}\n" for name in again]
    dropped = f"{report.dropped} blobs dropped, their layers are here; " if report.dropped else ""
    parts.append(
        f"{report.blobs} blobs, {report.layers} layers, {report.tags} tags, {report.containers} containers checked; "
        f"{dropped}{output.human_size(report.size)} read; {len(report.findings)} damaged\n"
    )
    return "".join(parts)


def _row(finding: Finding) -> tuple[str, ...]:
    name = finding.name if finding.kind in ("tag", "list") else output.short_id(finding.name)
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
        "Findings": [_finding(finding) for finding in report.findings],
        "Remaining": [_finding(finding) for finding in report.remaining],
    }


def _finding(finding: Finding) -> dict[str, object]:
    return {
        "Kind": finding.kind,
        "Name": finding.name,
        "Problem": finding.problem,
        "Affects": list(finding.affects),
        "Remedy": finding.remedy,
    }
