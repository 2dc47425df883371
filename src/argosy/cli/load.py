"""argosy load: images from an archive, with Docker's flags and lines."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import Corrupt, InvalidInput
from ..oci.platform import Platform
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from .host import Host
    from .parser import Parser

#: Codes of errors that do not say by themselves which archive they are about.
_OF_THE_WHOLE = frozenset({"archive-damaged", "archive-truncated", "compression-damaged", "not-an-image-archive"})

_ABOUT = """\
The archive may be Docker's (docker save, podman save, skopeo, buildx) or an
OCI layout, as a tar, compressed or not, or as a folder. Images keep their ids,
and their digests where the archive holds manifests. An archive that is damaged
anywhere gives no image a name.
"""
_EXAMPLES = """\
examples:
  argosy load -i images.tar
  docker save debian:12 | argosy load
  argosy load -i layout/ --platform linux/arm64
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("-i", "--input", metavar="FILE", default="-", help="read FILE, a folder or - (default: the standard input)")
    add("--platform", metavar="OS/ARCH", help="load the images for this platform alone (default: all there are)")
    add("-q", "--quiet", action="store_true", help="show no progress, only what was loaded")


def main(args: Namespace, host: Host) -> int:
    if args.input == "-" and host.stdin_is_terminal:
        raise InvalidInput(
            "nothing to load: the standard input is a terminal",
            code="is-a-terminal",
            hint="argosy load -i FILE, or docker save IMAGE | argosy load",
        )
    wanted = Platform.parse(args.platform) if args.platform else None
    host.enter()  # unpacking needs the rights, and a user namespace is entered before there are threads
    from ..archives.opening import opened
    from ..ops.load import Watch, load

    source = "the standard input" if args.input == "-" else args.input
    with (
        _named(source),
        reporter(quiet=args.quiet, host=host) as progress,
        opened(args.input, blobs=host.blobs, observer=Watch(progress)) as files,
    ):
        loaded = load(
            files,
            blobs=host.blobs,
            refs=host.refs,
            snapshotter=host.snapshotter,
            platform=wanted,
            progress=progress,
        )
    for each in loaded:
        named = f"image: {each.reference.familiar()}" if each.reference else f"image ID: {each.image_id}"
        output.write(f"Loaded {named}\n")
    return 0


@contextmanager
def _named(source: str) -> Iterator[None]:
    """What is wrong with an archive names it."""
    try:
        yield
    except (InvalidInput, Corrupt) as error:
        if error.code in _OF_THE_WHOLE:
            error.context = f"{source}: {error.context}"
        if isinstance(error, Corrupt) and not error.hint:
            error.hint = "is it whole, and an archive that docker save, podman save or argosy save has written?"
        raise
