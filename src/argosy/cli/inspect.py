"""argosy inspect: everything about images and containers, as JSON or through a template."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import Corrupt, Error, InvalidInput, NotFound
from ..oci.config import ImageConfig
from ..oci.image import Image
from ..oci.platform import Platform
from ..ops.inspect import describe_container, describe_image
from . import output

if TYPE_CHECKING:
    from argparse import Namespace

    from ..store.records import Container
    from .host import Host
    from .parser import Parser

_KINDS = ("container", "image")
_UNKNOWN = frozenset({"tag-unknown", "container-unknown", "reference-invalid"})
_ABOUT = """\
Prints an array of JSON objects in Docker's form, or what a template makes of
each object.
"""
_EXAMPLES = """\
examples:
  argosy inspect debian:12
  argosy inspect --format '{{.Architecture}} {{json .Config.Env}}' debian:12
  argosy inspect --type container --format '{{.State.ExitCode}}' work

exit status:
  0 all were found; 1 some were not, the others are printed
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("names", metavar="NAME|ID", nargs="+", help="images and containers by name or id; a container comes first")
    add("-f", "--format", metavar="TEMPLATE", help="a Go template for each, or json: one line each (default: an array)")
    add("-s", "--size", action="store_true", help="accepted for Docker's scripts; sizes are always there")
    add("--type", metavar="container|image", help="look for these only (default: both)")


def main(args: Namespace, host: Host) -> int:
    """What was found is shown although others were not; the exit status tells."""
    if args.type is not None and args.type not in _KINDS:
        raise InvalidInput(f"not a type of object: {args.type!r}", code="type-unknown", hint="container or image")
    found: list[dict[str, Any]] = []  # Any: JSON
    failures: list[Error] = []
    for name in args.names:
        try:
            found.append(_describe(name, args.type, host))
        except Error as error:
            failures.append(error)
    output.write(_drawn(found, args.format))
    for failure in failures:
        output.error(failure)
    return 1 if failures else 0


def _describe(name: str, kind: str | None, host: Host) -> dict[str, Any]:  # Any: JSON
    if kind != "image":
        try:
            record = host.containers.get(name)
        except NotFound as error:
            if kind == "container":
                raise _no_such(name) from error
        else:
            return describe_container(
                record, record.local or host.containers.folder(record.id), _config_of(record, host)
            )
    try:
        records = host.refs.resolve(host.refs.lookup(name).image_id)
    except Error as error:
        if error.code in _UNKNOWN:
            raise _no_such(name, error.hint) from error
        raise
    return describe_image(records, Image(records[0].manifest, host.blobs))


def _config_of(record: Container, host: Host) -> ImageConfig:
    """The config of a container's image; an empty one where that is damaged or gone, for the record says enough."""
    try:
        return Image(record.manifest, host.blobs).config
    except (NotFound, Corrupt):
        return ImageConfig.scratch(Platform.host())


def _drawn(found: list[dict[str, Any]], template: str | None) -> str:  # Any: JSON
    if template is None:
        return output.json_text(found) if found else "[]\n"
    if template == "json":
        return "".join(output.json_line(item) for item in found)
    from .template import Template, unescaped

    parsed = Template(unescaped(template))
    return "".join(f"{output.for_terminal(parsed.render(item))}\n" for item in found)


def _no_such(name: str, hint: str = "") -> NotFound:
    return NotFound(f"no such object: {name}", code="object-unknown", hint=hint)
