"""argosy save: images into an archive, with Docker's flags and podman's formats."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from ..errors import InvalidInput
from ..oci.platform import Platform
from .archive_output import archive_output, require_no_terminal

if TYPE_CHECKING:
    from argparse import Namespace

    from .host import Host
    from .parser import Parser

_FORMATS = ("docker-archive", "oci-archive", "oci-dir", "docker-dir")
_ABOUT = """\
The archive is Docker's and an OCI layout at once, so docker, podman, skopeo,
containerd and argosy load read it. Layers and manifests go out as they are
here, and every digest survives. A name without a tag means all tags that it
has; an id gives an image without a name.
"""
_EXAMPLES = """\
examples:
  argosy save -o cuda.tar nvidia/cuda:13-base
  argosy save lab/a:1 lab/b:1 | zstd > images.tar.zst
  argosy save lab/a:1 | ssh otherhost argosy load
  argosy save --format oci-dir -o layout lab/a:1
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    add = parser.add_argument
    add("images", metavar="IMAGE", nargs="+", help="name[:tag][@digest], image id or its start")
    add("-o", "--output", metavar="FILE", help="write to FILE, or make this folder (default: the standard output)")
    add(
        "--format",
        metavar="|".join(_FORMATS),
        default=_FORMATS[0],
        help="docker-archive is Docker's and OCI's in one tar (the default), oci-archive a layout alone, "
        "the others are folders",
    )
    add("--platform", metavar="OS/ARCH", help="save this platform's image alone (default: all that is here)")


def main(args: Namespace, host: Host) -> int:
    wanted = Platform.parse(args.platform) if args.platform else None
    if args.format not in _FORMATS:
        raise InvalidInput(
            f"no format {args.format!r}", code="format-unknown", hint=f"--format takes {', '.join(_FORMATS)}"
        )
    if args.format.endswith("-dir"):
        if args.output in (None, "-"):
            raise InvalidInput(f"{args.format} is a folder", code="usage", hint="name it with -o FOLDER")
    else:
        require_no_terminal(args.output, host)
    from ..linux.outputs import output_folder
    from ..ops.progress import silent
    from ..ops.save import save, select

    images = select(args.images, refs=host.refs, blobs=host.blobs, platform=wanted)
    content = host.whole(" ".join(args.images), silent)  # with what was dropped
    if args.format.endswith("-dir"):
        with output_folder(os.path.abspath(args.output)) as folder:
            save(images, args.format, blobs=host.blobs, place=folder, content=content)
    else:
        with archive_output(args.output, host) as out:
            save(images, args.format, blobs=host.blobs, place=out, content=content)
    return 0
