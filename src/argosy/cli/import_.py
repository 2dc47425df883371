"""argosy import: the archive of a file system becomes an image, with Docker's flags."""

from __future__ import annotations

import os
from contextlib import contextmanager
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import InvalidInput
from ..oci.platform import Platform
from ..oci.reference import Reference
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from .host import Host
    from .parser import Parser

_ABOUT = """\
The file is a tar of a whole file system, plain or compressed with gzip, zstd,
bzip2 or xz, as argosy export and debootstrap make it. The image has one layer
and no command; -c sets what a Dockerfile could set.
"""
_EXAMPLES = """\
examples:
  argosy import rootfs.tar.gz lab/debian:12
  argosy export work | argosy import - lab/flat
  argosy import -c 'CMD ["sh"]' https://example.org/root.tar.xz lab/vendor:1

environment:
  as argosy pull --help lists them, for an address
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("source", metavar="FILE|URL|-", help="a file, an http or https address, or - for the standard input")
    add(
        "image", metavar="REPOSITORY[:TAG]", nargs="?", help="name of the image (default: none, it is listed as <none>)"
    )
    add(
        "-c",
        "--change",
        action="append",
        default=[],
        metavar="INSTRUCTION",
        help="apply an instruction of a Dockerfile, as in 'CMD [\"sh\"]'; may be repeated",
    )
    add("-m", "--message", metavar="TEXT", default="", help="what it is; argosy history shows it")
    add("--platform", metavar="OS/ARCH", help="what the files are for (default: this machine)")


def main(args: Namespace, host: Host) -> int:
    reference = Reference.parse(args.image) if args.image else None
    if reference is not None and reference.digest is not None:
        raise InvalidInput(
            "cannot name an image by digest",
            code="reference-has-digest",
            context=f"{args.image}: the digest follows from the content",
        )
    platform = Platform.parse(args.platform) if args.platform else Platform.host()
    if args.source == "-" and host.stdin_is_terminal:
        raise InvalidInput(
            "nothing to import: the standard input is a terminal", code="is-a-terminal", hint="argosy import FILE"
        )
    host.enter()  # unpacking needs the rights, and a user namespace is entered before there are threads
    from ..ops.import_ import holds_images, import_archive

    quiet = not host.stderr_is_terminal
    with reporter(quiet=quiet, host=host) as progress, _opened(args.source, host) as (stream, size):
        image = import_archive(
            stream,
            reference,
            source=args.source,
            blobs=host.blobs,
            refs=host.refs,
            snapshotter=host.snapshotter,
            platform=platform,
            created=host.now(),
            changes=args.change,
            message=args.message,
            size=size,
            progress=progress,
        )
    if holds_images(image, snapshotter=host.snapshotter, blobs=host.blobs):
        output.warning(f"{args.source} is an archive of images; argosy load -i takes those that it holds")
    output.write(f"{image.id}\n")
    return 0


@contextmanager
def _opened(source: str, host: Host) -> Iterator[tuple[BinaryIO, int | None]]:
    """(bytes, how many where that is known) of what the user named."""
    if source.lower().startswith(("http://", "https://")):
        from ..remote.fetch import fetch

        transport = host.transport(plain_http=source.lower().startswith("http://"))  # it was asked for
        try:
            with fetch(source, transport) as answer:
                yield cast("BinaryIO", answer), answer.size
        finally:
            transport.close()
        return
    if source == "-":
        with open(0, "rb", buffering=0, closefd=False) as stdin:
            yield cast("BinaryIO", stdin), None
        return
    from ..linux.files import reporting

    if os.path.isdir(source):
        raise InvalidInput(
            f"cannot import {source}: it is a folder",
            code="is-a-folder",
            hint=f"tar -C {source} -c . | argosy import - NAME",
        )
    if "://" in source and not os.path.exists(source):
        raise InvalidInput(
            f"cannot fetch {source}",
            code="address-invalid",
            context="http:// and https:// are known",
            hint="fetch it with another program: … | argosy import - NAME",
        )
    with reporting("read", source):
        file = open(source, "rb", buffering=0)
    with file:
        yield cast("BinaryIO", file), os.fstat(file.fileno()).st_size or None
