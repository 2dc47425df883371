"""argosy tags: the tags of a repository in its registry, printed while they arrive."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.reference import Reference
from . import output
from .rows import LazyRow

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterable

    from .host import Host
    from .parser import Parser

_HEADERS = {"Name": "NAME", "Tag": "TAG", "Digest": "DIGEST"}
_COLUMNS = ("Name", "Tag")
_ABOUT = """\
The registry is asked page by page, and each tag is printed as soon as it is
known. The order is the registry's, unless --sort reads all of them first:
with «version», numbers count as numbers (24.05 before 24.12, 12.9.1 before
12.10.0, 2.0-rc1 before 2.0), and words come before versions. «-version» puts
the newest release first.
"""
_EXAMPLES = """\
filters:
  PATTERN              tag by pattern, as in 13-*; of several any may hold
  reference=PATTERN    the same, in the words of argosy images

fields of --format:
  .Name .Tag .Digest   (.Digest asks the registry once more for each tag)

examples:
  argosy tags nvidia/cuda
  argosy tags --filter '*-base-ubuntu*' --sort -version --limit 5 nvidia/cuda
  argosy tags -q localhost:5000/lab/cuda
  argosy tags --format '{{.Tag}} {{.Digest}}' localhost:5000/lab/cuda

environment:
  as argosy pull --help lists them
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("name", metavar="NAME", help="the repository, without a tag")
    add(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="PATTERN",
        help="only what this holds of, see below; may be repeated",
    )
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add("--limit", type=int, metavar="N", help="stop after N tags (default: all)")
    add("--sort", default="", metavar="ORDER", help="name, version, -name or -version (default: as they come)")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add("-q", "--quiet", action="store_true", help="print the tags only")


def main(args: Namespace, host: Host) -> int:
    reference = repository_name(args.name)
    show_tags(
        reference,
        host,
        patterns=[_pattern(text) for text in args.filter],
        order=args.sort,
        limit=args.limit,
        plain_http=args.plain_http,
        template=args.format,
        quiet=args.quiet,
    )
    return 0


def _pattern(text: str) -> str:
    """PATTERN of «PATTERN» or «reference=PATTERN». Raises InvalidInput for another key: no tag has a «=»."""
    key, equals, value = text.partition("=")
    if equals and key != "reference":
        raise InvalidInput(f"invalid filter {key!r}", code="filter-invalid", hint="--filter PATTERN, as in 13-*")
    return value if equals else text


def repository_name(text: str) -> Reference:
    """The repository that a user typed; its tag is not one. Raises InvalidInput."""
    if "@" in text or ":" in text.rpartition("/")[2]:
        raise InvalidInput(f"not a repository: {text!r}", code="name-has-tag", hint="leave out what follows «:» or «@»")
    return Reference.parse(text)


def show_tags(
    reference: Reference,
    host: Host,
    *,
    patterns: Iterable[str] = (),
    order: str = "",
    limit: int | None = None,
    plain_http: bool = False,
    template: str | None = None,
    quiet: bool = False,
) -> None:
    """List the tags of *reference*'s repository; search --list-tags does so too."""
    from ..ops.tags import list_tags

    repository = host.repository(reference, plain_http=plain_http)
    name = reference.familiar_name
    tags = list_tags(
        reference,
        repository=repository,
        patterns=tuple(patterns),
        order=order,
        limit=limit,
        skipped=lambda count: output.warning(f"{name}: {count} entries of the list are no tags and are left out"),
    )
    rows = (LazyRow(Name=name, Tag=tag, Digest=partial(repository.digest_of, tag)) for tag in tags)
    output.stream(rows, columns=_COLUMNS, headers=_HEADERS, template=template, quiet="Tag" if quiet else None)
