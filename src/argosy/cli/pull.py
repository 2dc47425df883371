"""argosy pull: an image from a registry, with Docker's flags and lines."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..oci.platform import Platform
from ..oci.reference import Reference
from . import output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace

    from ..ops.pull import Pulled
    from ..store.refs import RefRecord
    from .host import Host
    from .parser import Parser


def add_arguments(parser: Parser) -> None:
    add = parser.add_argument
    add("image", metavar="NAME[:TAG|@DIGEST]", help="which image")
    add("--platform", metavar="OS/ARCH", help="the image for this platform instead of this machine's")
    add("--all-platforms", action="store_true", help="also fetch the content of the other platforms (to push it again)")
    add("--plain-http", action="store_true", help="speak plain http with any registry, not only loopback ones")
    add("-q", "--quiet", action="store_true", help="print the image's name only")


def main(args: Namespace, host: Host) -> int:
    reference = Reference.parse(args.image)
    if not args.quiet and reference.tag is not None and ":" not in args.image.rpartition("/")[2]:
        output.write(f"Using default tag: {reference.tag}\n")
    if not args.quiet:
        tag = reference.digest or reference.tag
        output.write(f"{tag}: Pulling from {reference.familiar_name.removeprefix(f'{reference.registry}/')}\n")
    pulled = _pull(
        reference,
        host,
        platform=args.platform,
        all_platforms=args.all_platforms,
        plain_http=args.plain_http,
        quiet=args.quiet,
        to_stdout=True,
    )
    if not args.quiet:
        status = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
        output.write(f"Digest: {pulled.record.descriptor.digest}\nStatus: {status} {reference.familiar()}\n")
    output.write(f"{reference}\n")
    return 0


def pull_image(reference: Reference, host: Host, *, platform: str | None, plain_http: bool, quiet: bool) -> RefRecord:
    """Pull for another verb, with the progress on stderr."""
    return _pull(reference, host, platform=platform, plain_http=plain_http, quiet=quiet).record


def _pull(
    reference: Reference,
    host: Host,
    *,
    platform: str | None,
    plain_http: bool,
    quiet: bool,
    all_platforms: bool = False,
    to_stdout: bool = False,
) -> Pulled:
    wanted = Platform.parse(platform) if platform else None
    host.enter()  # unpacking needs the rights, and a user namespace is entered before there are threads
    from ..ops.pull import pull

    with reporter(quiet=quiet, host=host, to_stdout=to_stdout) as progress:
        return pull(
            reference,
            repository=host.repository(reference, plain_http=plain_http),
            blobs=host.blobs,
            refs=host.refs,
            snapshotter=host.snapshotter,
            platform=wanted,
            all_platforms=all_platforms,
            progress=progress,
        )
