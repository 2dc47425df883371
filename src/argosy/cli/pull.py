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

_ABOUT = """\
NAME is [REGISTRY/]REPOSITORY, from docker.io when no registry is given. Layers
that are here already are not fetched again, nor what an interrupted pull has
brought. Each is made ready to run as soon as it has arrived. The name is set
last: until then it means the image that it meant before.
"""
_EXAMPLES = """\
examples:
  argosy pull debian:12
  argosy pull nvcr.io/nvidia/cuda:12.6.2-base-ubuntu24.04
  argosy pull --platform linux/arm64 alpine@sha256:1234…
  argosy pull -q localhost:5000/nvidia/cuda:13-base

environment:
  http_proxy, https_proxy, no_proxy   proxies; never used for loopback names
  SSL_CERT_FILE, SSL_CERT_DIR         CA certificates instead of the system's
  REGISTRY_AUTH_FILE, DOCKER_CONFIG   where logins are, see argosy login --help
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("image", metavar="NAME[:TAG|@DIGEST]", help="the image; the tag is latest when none is given")
    add("--platform", metavar="OS/ARCH", help="fetch the image for this platform (default: this machine's)")
    add("--all-platforms", action="store_true", help="fetch the other platforms too, so that all can be pushed again")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add("-q", "--quiet", action="store_true", help="print the image's name only, no progress")


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
