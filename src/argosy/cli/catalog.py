"""argosy catalog: build the CUDA platform images; list and describe what can be built."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from . import output
from .parser import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Mapping

    from ..ops.catalog import Description
    from .host import Host
    from .parser import Parser

_APT = Path("/etc/apt")

_ABOUT = """\
The images are made on this machine from public packages: Debian's through its
apt, NVIDIA's through pip. Nothing of either is in Argosy.
"""
_EXAMPLES = """\
examples:
  argosy catalog ls
  argosy catalog show nvidia/cuda:13-devel
  argosy catalog build --without-math nvidia/cuda:13-devel

'argosy catalog COMMAND --help' tells more.
"""
_BUILD = """\
Build a CUDA platform image, and the images that it stands on.

«13» is the newest release that the Python index has; versions are looked up
once a day (UTC). A layer whose parts did not change is not made again, and the
same parts give the same digests on any machine.
"""
_BUILD_EXAMPLES = """\
examples:
  argosy catalog build nvidia/cuda:13-devel
  argosy catalog build --without-math --tag-prefix localhost:5000/ \\
      nvidia/cuda:13-devel
  argosy catalog build --refresh nvidia/cuda:13.5.0-base-debian12

environment:
  PIP_INDEX_URL and the like   pip's own settings choose the Python index
  SOURCE_DATE_EPOCH            seconds since 1970, instead of packages' times
  TMPDIR                       where trees are put together without root
"""
_LS = """\
List the images that can be built, by short tag. Nothing is looked up.
"""
_LS_EXAMPLES = """\
examples:
  argosy catalog ls
  argosy catalog ls -q
"""
_SHOW = """\
Describe what an image is made of: Debian packages, wheels of each layer,
variables. Nothing is looked up, so no versions are told.
"""
_SHOW_EXAMPLES = """\
examples:
  argosy catalog show nvidia/cuda
  argosy catalog show --format json nvidia/cuda:13-devel
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    build = verbs.add_parser(
        "build", help="build an image and those it stands on", description=_BUILD, epilog=_BUILD_EXAMPLES
    )
    add = build.add_argument
    add("image", metavar="NAME:TAG", help="the image, as argosy catalog ls lists them, or a full tag")
    add(
        "--tag-prefix",
        metavar="PREFIX",
        default="",
        help="put PREFIX before every name, as in localhost:5000/ (default: none)",
    )
    add("--without-math", action="store_true", help="leave out cuBLAS, cuFFT, NCCL and their like: 1.7 GB to download")
    add("--cache", metavar="DIR", help="keep downloaded wheels in DIR (default: cache/wheels in the store)")
    add("--refresh", action="store_true", help="look up versions again, also when that was done today")
    add("-q", "--quiet", action="store_true", help="print the names only")
    listing = verbs.add_parser("ls", help="list the images that can be built", description=_LS, epilog=_LS_EXAMPLES)
    listing.add_argument(
        "--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a table)"
    )
    listing.add_argument("-q", "--quiet", action="store_true", help="print the names only")
    show = verbs.add_parser("show", help="describe what an image is made of", description=_SHOW, epilog=_SHOW_EXAMPLES)
    show.add_argument("image", metavar="NAME[:TAG]", help="an image, or all of one name")
    show.add_argument(
        "--format", metavar="FORMAT", default="text", choices=("text", "json"), help="text or json (default: text)"
    )


def main(args: argparse.Namespace, host: Host) -> int:
    if args.verb == "build":
        return _build(args, host)
    if args.verb == "ls":
        return _ls(args)
    if args.verb == "show":
        return _show(args)
    raise UsageError("argosy catalog needs a command", hint="argosy catalog --help")


def _build(args: argparse.Namespace, host: Host) -> int:
    from ..catalog.plan import Settings
    from ..oci.image import Image
    from ..oci.platform import Platform
    from ..ops.catalog import build
    from ..ops.unpack import ensure_layers
    from .progress import reporter

    settings = Settings(
        platform=Platform.host(), math=not args.without_math, refresh=args.refresh, epoch=_epoch(host.environ)
    )
    with reporter(quiet=args.quiet, host=host) as progress:
        records = build(
            args.image,
            settings,
            blobs=host.blobs,
            refs=host.refs,
            cache=Path(host.cache),
            apt=_APT,
            environ=host.environ,
            wheels=Path(args.cache).absolute() if args.cache else None,
            prefix=args.tag_prefix,
            progress=progress,
        )
    host.enter()  # mmdebstrap brings its own user namespace, so ours begins only here
    with reporter(quiet=args.quiet, host=host) as progress:
        for manifest in {record.manifest.digest: record.manifest for record in records}.values():
            ensure_layers(
                Image(manifest, host.blobs), snapshotter=host.snapshotter, blobs=host.blobs, progress=progress
            )
    if args.quiet:
        output.write("".join(f"{record.reference.familiar()}\n" for record in records))
    else:
        rows = [
            (record.reference.familiar(), output.short_id(record.image_id), output.human_size(record.size))
            for record in records
        ]
        output.write(output.table(("IMAGE", "IMAGE ID", "SIZE"), rows))
    return 0


def _ls(args: argparse.Namespace) -> int:
    from ..ops.catalog import offers

    output.show(
        [{"Name": offer.name, "Summary": offer.summary} for offer in offers()],
        columns=("Name", "Summary"),
        headers={"Name": "NAME", "Summary": "SUMMARY"},
        template=args.format,
        quiet="Name" if args.quiet else None,
    )
    return 0


def _show(args: argparse.Namespace) -> int:
    from ..ops.catalog import describe

    images = describe(args.image)
    output.write(output.json_text(images) if args.format == "json" else "\n".join(map(_text, images)))
    return 0


def _text(image: Description) -> str:
    lines = [image.name, f"  {image.summary}", f"  stands on  {image.on or image.os}"]
    if image.packages:
        lines.append(f"  Debian     {' '.join(image.packages)}")
    for title, wheels in image.layers:
        lines.append(f"  layer      {title}: {' '.join(wheels) or 'of all wheels below'}")
    for title, wheels in image.math_layers:
        lines.append(f"  math       {title}: {' '.join(wheels)}")
    lines += [f"  ENV        {name}={value}" for name, value in image.env.items()]
    return "\n".join(lines) + "\n"


def _epoch(environ: Mapping[str, str]) -> int | None:
    """SOURCE_DATE_EPOCH, when it is set. Source: reproducible-builds.org, «SOURCE_DATE_EPOCH»."""
    text = environ.get("SOURCE_DATE_EPOCH", "")
    if text and not text.isdecimal():
        raise InvalidInput(f"SOURCE_DATE_EPOCH is not a number of seconds: {text!r}", code="epoch-invalid")
    return int(text) if text else None
