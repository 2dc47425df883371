"""argosy search: Docker Hub, or the repositories of a registry, in Docker's columns."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import filters, output

if TYPE_CHECKING:
    from argparse import Namespace

    from ..remote.catalogue import Found
    from .host import Host
    from .parser import Parser

_HEADERS = {"Name": "NAME", "Description": "DESCRIPTION", "StarCount": "STARS", "IsOfficial": "OFFICIAL"}
_WIDTH = 45  # characters of a description; docker CLI, registry/formatter_search.go
_ABOUT = """\
TERM is part of a name. Alone, it is searched on Docker Hub. With a registry
before it, the names that hold it are picked from that registry's catalogue;
«REGISTRY/» lists all. Many public registries have no catalogue.
"""
_EXAMPLES = """\
filters:
  is-official=true|false   official images of Docker Hub, or the others
  stars=N                  with N stars or more

fields of --format:
  .Name .Description .StarCount .IsOfficial   (with --list-tags: .Name .Tag)

examples:
  argosy search --filter stars=10 cuda
  argosy search --limit 100 --no-trunc localhost:5000/
  argosy search --list-tags nvcr.io/nvidia/cuda

environment:
  as argosy pull --help lists them
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("term", metavar="TERM", help="part of a name, [REGISTRY/]NAME; the whole name for --list-tags")
    add(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only what this holds of, see below; may be repeated",
    )
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add(
        "--limit",
        type=int,
        default=0,
        metavar="N",
        help="list N results at most; Docker Hub gives up to 100 (default: 25)",
    )
    add("--list-tags", action="store_true", help="list the tags of the repository TERM, see argosy tags")
    add("--no-trunc", action="store_true", help="do not shorten descriptions")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")


def main(args: Namespace, host: Host) -> int:
    from ..ops import search

    limit = args.limit or search.DEFAULT_LIMIT
    if args.list_tags:
        return _list_tags(args, host, limit)
    query = search.Query.parse(args.term)
    found = search.search(
        query,
        catalogue=host.catalogue(query.registry, plain_http=args.plain_http),
        filters=filters.parse(args.filter, known=search.FILTERS),
        limit=limit,
    )
    words = ("true", "false") if args.format == "json" else ("[OK]", "")
    output.show(
        [_fields(each, whole=args.no_trunc, words=words) for each in found],
        columns=tuple(_HEADERS),
        headers=_HEADERS,
        template=args.format,
    )
    return 0


def _list_tags(args: Namespace, host: Host, limit: int) -> int:
    from ..errors import InvalidInput
    from .tags import repository_name, show_tags

    if args.filter:
        raise InvalidInput("--filter is not for tags here", code="usage", hint="argosy tags --filter PATTERN NAME")
    show_tags(repository_name(args.term), host, limit=limit, plain_http=args.plain_http, template=args.format)
    return 0


def _fields(found: Found, *, whole: bool, words: tuple[str, str]) -> dict[str, str]:
    return {
        "Name": found.name,
        "Description": found.description if whole else output.ellipsis(found.description, _WIDTH),
        "StarCount": str(found.stars),
        "IsOfficial": words[0] if found.is_official else words[1],
    }
