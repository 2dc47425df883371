"""argosy images: the images of this host, in Docker's columns."""

from __future__ import annotations

from ..errors import NotFound
from ..ops import images
from ..store.listing import find_rows, read_listing
from ..store.version import check_version
from . import output

TYPE_CHECKING = False  # not typing's: its import takes 3 ms of every verb
if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Mapping, Sequence

    from ..store.listing import Row
    from .host import Host
    from .parser import Parser

_HEADERS = {
    "Repository": "REPOSITORY",
    "Tag": "TAG",
    "Digest": "DIGEST",
    "ID": "IMAGE ID",
    "CreatedSince": "CREATED",
    "CreatedAt": "CREATED AT",
    "Size": "SIZE",
    "Containers": "CONTAINERS",
    "SharedSize": "SHARED SIZE",
    "UniqueSize": "UNIQUE SIZE",
}

_SHARES = ("Containers", "SharedSize", "UniqueSize")
_ABOUT = """\
SIZE is the sum of the image's uncompressed layers; images share layers, so the
store is smaller than the sum of the column. The newest image comes first.
"""
_EXAMPLES = """\
filters:
  reference=PATTERN    name by pattern, as in reference=nvidia/*:13-*
  dangling=true|false  images without a name, or with one
  label=KEY[=VALUE]    label of the image; of several all must hold
  before=IMAGE, since=IMAGE, until=TIME    by date of creation

fields of --format:
  .Repository .Tag .Digest .ID .CreatedSince .CreatedAt .Size
  .SharedSize .UniqueSize .Containers (these read every image)

examples:
  argosy images
  argosy images 'localhost:5000/nvidia/*'
  argosy images -q --filter dangling=true
  argosy images --format 'table {{.Repository}}:{{.Tag}}\\t{{.Size}}'
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add(
        "pattern",
        metavar="REPOSITORY[:TAG]",
        nargs="?",
        default="",
        help="list these only; * and ? stand for any characters but /",
    )
    add("-a", "--all", action="store_true", help="accepted for Docker's scripts; no image is hidden")
    add("--digests", action="store_true", help="add a column with the digest under which it was pulled")
    add(
        "-f",
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only what this holds of, see below; may be repeated",
    )
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)")
    add("--no-trunc", action="store_true", help="do not shorten ids")
    add("-q", "--quiet", action="store_true", help="print ids only")


def main(args: Namespace, host: Host) -> int:
    check_version(host.root)  # not through host.refs: this verb starts without msgspec, see store/listing.py
    rows = read_listing(host.root)
    shown = images.select(
        rows,
        pattern=args.pattern,
        filters=args.filter,
        find=lambda text: _find(rows, text, host),
        labels=lambda row: _labels(row, host),
    )
    digest = ("Digest",) if args.digests else ()
    ages = {created: output.age(created) for created in {row.created for row in shown}}  # most tags share their images
    whole = args.format is not None
    known = _shares(host) if whole and any(name in args.format for name in (*_SHARES, "json")) else {}
    output.show(
        [_fields(row, ages[row.created], known, whole_id=args.no_trunc, all_fields=whole) for row in shown],
        columns=("Repository", "Tag", *digest, "ID", "CreatedSince", "Size"),
        headers=_HEADERS,
        template=args.format,
        quiet="ID" if args.quiet else None,
    )
    return 0


def _fields(
    row: Row, age: str, known: Mapping[str, Mapping[str, str]], *, whole_id: bool, all_fields: bool
) -> Mapping[str, str]:
    fields = {
        "Repository": row.repository,
        "Tag": row.tag or "<none>",
        "Digest": "<none>" if row.is_untagged else row.target,
        "ID": row.image_id if whole_id else output.short_id(row.image_id),
        "CreatedSince": age,
        "Size": output.human_size(row.size),
    }
    if all_fields:
        fields["CreatedAt"] = output.local_time(row.created)
        fields |= known.get(row.image_id, dict.fromkeys(_SHARES, "N/A"))
    return fields


def _shares(host: Host) -> dict[str, Mapping[str, str]]:
    """{image id: the fields that take a look at every image}; without those of damaged ones."""
    from ..ops.shares import shares

    found = shares(host.refs.list(), host.containers.list(), source=host.blobs, layer_size=host.layer_size)
    return {
        image_id: {
            "Containers": str(share.containers),
            "SharedSize": output.human_size(share.shared),
            "UniqueSize": output.human_size(share.unique),
        }
        for image_id, share in found.items()
    }


def _find(rows: Sequence[Row], text: str, host: Host) -> Row:
    found = find_rows(rows, text)
    if found:
        return found[0]
    record = host.refs.lookup(text)
    for row in rows:
        if row.reference == str(record.reference):
            return row
    raise NotFound(f"no such image: {text}", code="tag-unknown")


def _labels(row: Row, host: Host) -> Mapping[str, str]:
    from ..oci.image import Image

    record = host.refs.lookup(row.image_id)
    return Image(record.manifest, host.blobs).config.labels
