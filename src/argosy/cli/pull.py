"""argosy pull: an image from a registry, with Docker's flags and lines."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

from ..errors import Error, Unauthorized, Unavailable
from ..oci.platform import Platform
from ..oci.reference import Reference
from . import output
from .parser import UsageError
from .progress import add_option, json_event, reporter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Callable

    from ..ops.fit import Fit
    from ..ops.pull import Pulled
    from ..remote.repository import Repository
    from ..store.refs import RefRecord
    from .host import Host
    from .parser import Parser

_ABOUT = """\
NAME is [REGISTRY/]REPOSITORY, from docker.io when no registry is given. Layers
that are here already are not fetched again, nor what an interrupted pull has
brought. Each is made ready to run as soon as it has arrived. The name is set
last: until then it means the image that it meant before.

Before layers move, the image is judged by its config: what it requires of the
NVIDIA driver (NVIDIA_REQUIRE_*), and the room that its layers will take. An
image that does not fit is refused; with --force it is fetched all the same.
"""
_EXAMPLES = """\
examples:
  argosy pull debian:12
  argosy pull nvcr.io/nvidia/cuda:12.6.2-base-ubuntu24.04
  argosy pull --dry-run nvcr.io/nvidia/pytorch:26.10-py3
  argosy pull --platform linux/arm64 alpine@sha256:1234…
  argosy pull --all-tags localhost:5000/lab/app
  argosy pull -q localhost:5000/nvidia/cuda:13-base

exit status:
  0 it worked; 1 anything failed, or would with --dry-run

environment:
  http_proxy, https_proxy, no_proxy   proxies; never used for loopback names
  SSL_CERT_FILE, SSL_CERT_DIR         CA certificates instead of the system's
  REGISTRY_AUTH_FILE, DOCKER_CONFIG   where logins are, see argosy login --help
  XDG_CONFIG_HOME                     for argosy/registries.toml (mirrors) and
                                      argosy/certs.d (default: ~/.config)
  NVIDIA_DISABLE_REQUIRE              1: the driver is not judged
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("image", metavar="NAME[:TAG|@DIGEST]", help="the image; the tag is latest when none is given")
    add("-a", "--all-tags", action="store_true", help="pull every tag of NAME, which has no tag then")
    add("--platform", metavar="OS/ARCH", help="fetch the image for this platform (default: this machine's)")
    add("--all-platforms", action="store_true", help="fetch the other platforms too, so that all can be pushed again")
    add("--force", action="store_true", help="fetch what does not fit this machine; say so as a warning")
    add("--dry-run", action="store_true", help="print what would be fetched, from where and how long it takes")
    add("--format", metavar="TEMPLATE", help="json, or a Go template, for --dry-run (default: text)")
    add("--plain-http", action="store_true", help="use plain http with any registry (default: loopback names only)")
    add_option(parser)
    add("-q", "--quiet", action="store_true", help="print the image's name only, no progress")


def main(args: Namespace, host: Host) -> int:
    reference = Reference.parse(args.image)
    has_tag = "@" in args.image or ":" in args.image.rpartition("/")[2]
    if args.format is not None and not args.dry_run:
        raise UsageError("--format is for --dry-run", hint="argosy pull --dry-run --format json …")
    if args.all_tags:
        if has_tag:
            raise UsageError(
                "--all-tags takes a name without a tag",
                context=f"given was {args.image!r}",
                hint=f"argosy pull --all-tags {reference.familiar_name}",
                exit_status=1,
            )
        return _pull_all_tags(reference, args, host)
    if not (has_tag or args.quiet or args.dry_run or args.progress == "json"):
        output.write(f"Using default tag: {reference.tag}\n")
    host.probe_ahead()
    return _pull_one(reference, host.repository(reference, plain_http=args.plain_http), args, host)


def pull_image(
    reference: Reference, host: Host, *, platform: str | None, plain_http: bool, quiet: bool, gpus: bool
) -> RefRecord:
    """Pull for another verb, with the progress on stderr. What is to run without *gpus* requires no driver."""
    repository = host.repository(reference, plain_http=plain_http)
    fit = partial(_fit, host, gpus=gpus)
    return _pull(reference, repository, host, platform=platform, fit=fit, quiet=quiet).record


def _pull_all_tags(reference: Reference, args: Namespace, host: Host) -> int:
    """Each tag for itself; what went wrong with some is told at the end. A registry that is gone ends it."""
    repository = host.repository(reference, plain_http=args.plain_http)
    tags, status = sorted(repository.tags()), 0
    failed: list[tuple[Reference, Error]] = []
    for each in map(reference.with_tag, tags):
        try:
            status = max(status, _pull_one(each, repository, args, host))
        except (Unavailable, Unauthorized):
            _tell_failures(failed)
            raise
        except Error as error:
            failed.append((each, error))
    _tell_failures(failed)
    return 1 if failed else status


def _tell_failures(failed: list[tuple[Reference, Error]]) -> None:
    for reference, error in failed:
        name = reference.familiar()
        message = error.message if name in error.message else f"{name}: {error.message}"
        output.error(Error(message, code=error.code, context=error.context, hint=error.hint))


def _pull_one(reference: Reference, repository: Repository, args: Namespace, host: Host) -> int:
    if args.dry_run:
        from .pull_plan import show_plan

        return show_plan(reference, repository, args, host)
    is_json, name = args.progress == "json" and not args.quiet, reference.familiar()
    place = reference.familiar_name.removeprefix(f"{reference.registry}/")
    tag = reference.digest or reference.tag or ""
    if is_json:
        output.write(json_event(host.now(), tag, f"Pulling from {place}"))
    elif not args.quiet:
        output.write(f"{tag}: Pulling from {place}\n")
    pulled = _pull(
        reference,
        repository,
        host,
        platform=args.platform,
        fit=partial(_fit, host, force=args.force),
        force=args.force,
        quiet=args.quiet,
        all_platforms=args.all_platforms,
        to_stdout=True,
        mode=args.progress,
    )
    digest = pulled.record.descriptor.digest
    if is_json:
        status = "Downloaded newer image" if pulled.is_new else "Image is up to date"
        output.write(json_event(host.now(), str(reference), status, digest=digest))
        return 0
    if not args.quiet:
        status = "Downloaded newer image for" if pulled.is_new else "Image is up to date for"
        output.write(f"Digest: {digest}\nStatus: {status} {name}\n")
    output.write(f"{reference}\n")
    return 0


def _fit(host: Host, *, force: bool = False, gpus: bool = True) -> Fit:
    from ..ops.fit import Fit

    roots = (lambda: host.driver_roots) if gpus else None
    return Fit(blobs=host.blobs, snapshotter=host.snapshotter, roots=roots, environment=host.environ, force=force)


def _pull(
    reference: Reference,
    repository: Repository,
    host: Host,
    *,
    platform: str | None,
    fit: Callable[[], Fit],
    quiet: bool,
    force: bool = False,
    all_platforms: bool = False,
    to_stdout: bool = False,
    mode: str = "auto",
) -> Pulled:
    wanted = Platform.parse(platform) if platform else None
    host.enter()  # unpacking needs the rights, and a user namespace is entered before there are threads
    from ..ops.progress import Meter
    from ..ops.pull import pull

    with reporter(quiet=quiet, host=host, to_stdout=to_stdout, mode=mode) as progress:
        meter = Meter(progress)
        pulled = pull(
            reference,
            repository=repository,
            blobs=host.blobs,
            refs=host.refs,
            snapshotter=host.snapshotter,
            platform=wanted,
            all_platforms=all_platforms,
            fit=fit,
            force=force,
            progress=meter,
        )
    if meter.size:
        from ..store.speeds import Speeds

        Speeds(host.root).note(repository.source.partition("/")[0], meter.size, meter.seconds)
    return pulled
