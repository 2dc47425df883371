"""argosy push: an image to a registry, with Docker's flags and lines."""

from __future__ import annotations

import re
from contextlib import suppress
from typing import TYPE_CHECKING

from ..errors import Error, InvalidInput, NotFound
from ..oci.platform import Platform
from ..oci.reference import Reference
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace

    from ..remote.repository import Repository
    from .host import Host
    from .parser import Parser

_ID = re.compile(r"[0-9a-f]{1,64}")
_ABOUT = """\
The name says which registry. What the registry has already is not sent; layers
that it has in another repository are mounted from there. A transfer that broke
goes on where it stopped. The tag is set last.
"""
_EXAMPLES = """\
examples:
  argosy tag mycuda localhost:5000/lab/mycuda:26.11
  argosy push localhost:5000/lab/mycuda:26.11
  argosy push --all-tags registry.example.org/lab/mycuda

environment:
  as argosy pull --help lists them
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("image", metavar="NAME[:TAG]", help="the image to send, under this name; latest when it has no tag")
    add("-a", "--all-tags", action="store_true", help="push every tag that NAME has here; NAME has no tag then")
    add("--platform", metavar="OS/ARCH", help="push this platform's image alone (default: all that the name means)")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add("-q", "--quiet", action="store_true", help="print the image's name only, no progress")


def main(args: Namespace, host: Host) -> int:
    reference = Reference.parse(args.image)
    references = _all_tags(args.image, reference, host) if args.all_tags else (reference,)
    if not args.quiet:
        if not args.all_tags and _has_no_tag(args.image):
            output.write(f"Using default tag: {reference.tag}\n")
        output.write(f"The push refers to repository [{reference.name}]\n")
    repository = host.repository(reference, plain_http=args.plain_http, for_writing=True)  # one login for all tags
    try:
        for each in references:
            _push(each, repository, args, host)
    except NotFound as error:
        if error.code == "tag-unknown":
            _explain_id(args.image, error, host)
        raise
    return 0


def _explain_id(text: str, error: NotFound, host: Host) -> None:
    """Who named an image by its id is told that a push goes by name."""
    if _ID.fullmatch(text):
        with suppress(Error):
            host.refs.lookup(text)
            error.context = f"{text} is the id of an image; the name says where it goes"
            error.hint = f"argosy tag {text} REGISTRY/NAME:TAG, and push that name"


def _push(reference: Reference, repository: Repository, args: Namespace, host: Host) -> None:
    from ..ops.push import push

    with reporter(quiet=args.quiet, host=host, to_stdout=True) as progress:
        pushed = push(
            reference,
            repository=repository,
            blobs=host.blobs,
            refs=host.refs,
            platform=Platform.parse(args.platform) if args.platform else None,
            unfinished=host.unfinished_uploads,
            restore=host.whole(reference.familiar(), progress).restore,
            progress=progress,
        )
    if args.quiet:
        output.write(f"{reference}\n")
    else:
        output.write(f"{pushed.name}: digest: {pushed.descriptor.digest} size: {pushed.descriptor.size}\n")


def _all_tags(text: str, reference: Reference, host: Host) -> tuple[Reference, ...]:
    if not _has_no_tag(text):
        raise InvalidInput(
            "--all-tags takes a name without a tag",
            code="usage",
            context=f"given was {text!r}",
            hint=f"argosy push --all-tags {reference.familiar_name}",
        )
    found = [record.reference for record in host.refs.list() if record.reference.name == reference.name]
    if not found:
        host.refs.get(reference)  # raises, and suggests
    return tuple(name for name in found if name.tag is not None)


def _has_no_tag(text: str) -> bool:
    return ":" not in text.rpartition("/")[2] and "@" not in text
