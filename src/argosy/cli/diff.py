"""argosy diff: what is different in another image, or what a container's program has changed."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error, InvalidInput, NotFound
from ..oci.image import Image
from . import output
from .parser import UsageError

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from ..ops.diff import Difference, PackageChange, PathChange
    from ..store.records import Container
    from .host import Host
    from .parser import Parser

_ABOUT = """\
Of two images: the packages (Debian's, Python wheels), paths and layers that
came, went and changed in the second, with sizes. Layers that both have are
not read. Files count as equal when size, time, mode and owner are; --contents
compares the bytes of files of equal size instead.

Of a container: paths that its program added, changed and deleted (A, C, D).
"""
_EXAMPLES = """\
fields of --format:
  .Before .After .Layers .Packages .Paths .Totals .Assumed .Unread
  of .Paths       .Kind .Path .Type .Before .After .Growth .LayerBefore
                  .LayerAfter .Aspects
  of .Packages    .Kind .Name .Before .After .SizeBefore .SizeAfter .Growth
  of a container  .Kind .Path, once a path

examples:
  argosy diff lab/train:26.10 lab/train:26.11
  argosy diff --packages nvidia/cuda:13-base nvidia/cuda:13-devel
  argosy diff --paths --contents debian:12 mine:1
  argosy diff --format '{{range .Packages}}{{println .Name .After}}{{end}}' a b
  argosy diff work
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("first", metavar="IMAGE|CONTAINER", help="an image that is here, or with nothing to compare a container")
    add("second", metavar="IMAGE", nargs="?", help="the image to compare with the first")
    add("--contents", action="store_true", help="compare the bytes of files of equal size, whatever their times")
    add(
        "--depth",
        type=int,
        metavar="N",
        help="group paths by N parts, and list all groups",
    )
    add("--format", metavar="TEMPLATE", help="json, or a Go template for the whole difference (default: text)")
    add("--packages", action="store_true", help="show packages only, all of them")
    add("--paths", action="store_true", help="list every path instead of groups")


def main(args: Namespace, host: Host) -> int:
    if args.depth is not None and args.depth < 1:
        raise UsageError("--depth takes 1 and more", hint="argosy diff --help shows how it is used")
    if args.second is None:
        return _container(args, host)
    from ..ops.diff import diff
    from . import diff_text
    from .run import ensure_unpacked

    records = [host.refs.lookup(name) for name in (args.first, args.second)]
    before, after = (Image(record.manifest, host.blobs) for record in records)
    host.enter()  # unpacked layers hold files of users that exist only in our namespace
    for image in (before, after):
        ensure_unpacked(image, args.first, host, quiet=False)
    found = diff(
        before,
        after,
        (args.first, args.second),
        snapshotter=host.snapshotter,
        blobs=host.blobs,
        contents=args.contents,
    )
    if args.format is None:
        text = diff_text.draw(found, depth=args.depth, paths=args.paths, only_packages=args.packages)
        output.document({}, None, text)
    else:
        output.document(_facts(found, only_packages=args.packages), args.format, "")
    return 0


def _facts(found: Difference, *, only_packages: bool) -> dict[str, object]:
    facts: dict[str, object] = {
        "Before": output.go_fields(found.before),
        "After": output.go_fields(found.after),
        "Packages": _grown(found.packages),
    }
    if not only_packages:
        kinds = [change.kind for change in found.paths]
        facts |= {
            "Layers": [output.go_fields(layer) for layer in found.layers],
            "Paths": _grown(found.paths),
            "Totals": {
                "Came": kinds.count("A"),
                "Gone": kinds.count("D"),
                "Changed": kinds.count("C"),
                "Growth": found.growth,
            },
            "Assumed": found.assumed,
            "Unread": list(found.unread),
        }
    return facts


def _grown(changes: Sequence[PathChange | PackageChange]) -> list[dict[str, object]]:
    return [{**output.go_fields(change), "Growth": change.growth} for change in changes]


# ---- of a container


def _container(args: Namespace, host: Host) -> int:
    from ..ops.changes import changes
    from .run import ensure_unpacked

    record = _find(args.first, host)
    given = [name for name in ("contents", "depth", "packages", "paths") if getattr(args, name)]
    if given:
        raise UsageError(f"--{given[0]} is for two images", hint=f"argosy diff {args.first}")
    image = Image(record.manifest, host.blobs)
    host.enter()
    ensure_unpacked(image, record.image, host, quiet=False)
    found = changes(image, host.containers.writable(record), snapshotter=host.snapshotter, blobs=host.blobs)
    rows = [{"Kind": change.kind, "Path": change.path} for change in found]
    if args.format is None:
        output.write("".join(f"{row['Kind']} {output.printable(row['Path'])}\n" for row in rows))
    else:
        output.show(rows, columns=("Kind", "Path"), headers={"Kind": "CHANGE", "Path": "PATH"}, template=args.format)
    return 0


def _find(name: str, host: Host) -> Container:
    """The container *name*. Raises NotFound, InvalidInput for an image that is alone."""
    try:
        return host.containers.get(name)
    except NotFound as error:
        missing = error
    try:
        host.refs.lookup(name)
    except Error:
        raise NotFound(
            f"no such container: {name}",
            code=missing.code,
            context="nor is there an image of this name",
            hint="argosy ps -a and argosy images list them",
        ) from None
    raise InvalidInput(
        f"{name} is an image, and there is no second one to compare it with",
        code="usage",
        hint=f"argosy diff {name} OTHER_IMAGE",
    )
