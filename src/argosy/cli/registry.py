"""argosy registry: serve images to others; list what a registry's folder holds."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import InvalidInput, NotFound
from . import output
from .parser import UsageError

if TYPE_CHECKING:
    import argparse

    from .host import Host
    from .parser import Parser

_ABOUT = """\
A registry of your own, from one folder of plain files.
"""
_EXAMPLES = """\
examples:
  argosy registry serve
  argosy registry ls

'argosy registry COMMAND --help' tells more.
"""
_SERVE = """\
Serve an OCI registry from a folder until SIGTERM or Ctrl-C.

Clients push and pull with argosy, docker, podman, skopeo or anything else that
speaks OCI distribution 1.1. Everything lies in plain files under one folder:
the bytes once each in blobs/, and small link files for each repository. To
back the folder up while the registry runs, copy repositories/ before blobs/.

The registry does not ask who its clients are, so it listens on this machine
alone unless told otherwise. Once it answers, the address is printed as one
line on standard output; port 0 takes a free port.
"""
_SERVE_EXAMPLES = """\
examples:
  argosy registry serve --root /srv/images
  argosy registry serve --listen 127.0.0.1:0 --workers 4 --access-log
  argosy registry serve --listen unix:/run/user/1000/registry.sock

  docker push localhost:5000/nvidia/cuda:13-devel
  podman push --tls-verify=false localhost:5000/nvidia/cuda:13-devel
"""
_LS = """\
List the repositories and tags in a registry's folder. The server need not run.
"""
_LS_EXAMPLES = """\
examples:
  argosy registry ls --root /srv/images
  argosy registry ls -q
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")
    serve = verbs.add_parser("serve", help="serve images to others", description=_SERVE, epilog=_SERVE_EXAMPLES)
    _add_root(serve)
    serve.add_argument(
        "--listen",
        metavar="ADDRESS",
        default="127.0.0.1:5000",
        help="HOST:PORT, [IPV6]:PORT or unix:/PATH (default: 127.0.0.1:5000)",
    )
    serve.add_argument(
        "--workers", metavar="N", type=int, default=1, help="processes that share the work, 1 to 256 (default: 1)"
    )
    serve.add_argument("--access-log", action="store_true", help="write one line a request to standard error")
    serve.add_argument(
        "--insecure-anonymous-write",
        action="store_true",
        help="listen beyond this machine although everybody there may then change every image",
    )
    listing = verbs.add_parser("ls", help="list repositories and tags", description=_LS, epilog=_LS_EXAMPLES)
    _add_root(listing)
    listing.add_argument("-q", "--quiet", action="store_true", help="print NAME:TAG only")


def main(args: argparse.Namespace, host: Host) -> int:
    if args.verb is None:
        raise UsageError("argosy registry: a command is missing", hint="argosy registry --help lists them")
    root = Path(args.root).absolute() if args.root else Path(host.root) / "registry"
    return _serve(args, root) if args.verb == "serve" else _ls(args, root)


def _add_root(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--root", metavar="DIR", help="the registry's folder (default: registry/ in the store)")


def _serve(args: argparse.Namespace, root: Path) -> int:
    from ..registry.serve import Address, address_of, listen, serve

    if not 1 <= args.workers <= 256:
        raise InvalidInput("--workers takes a number from 1 to 256", code="workers-invalid")
    listening = listen(Address.parse(args.listen), anonymous_write=args.insecure_anonymous_write)
    shown = address_of(listening)
    serve(
        root,
        listening,
        workers=args.workers,
        access_log=args.access_log,
        ready=lambda: output.write(f"{shown}\n"),
    )
    return 0


def _ls(args: argparse.Namespace, root: Path) -> int:
    from ..registry.storage import Storage

    if args.root and not root.is_dir():
        raise NotFound(
            f"no folder {root}",
            code="no-such-file",
            hint="name the folder of a registry; argosy registry serve makes one",
        )
    storage = Storage(root)
    rows = [
        (name, tag, output.short_id(descriptor.digest), descriptor.media_type)
        for name in storage.names()
        for tag in storage.repository(name).tags()
        if (descriptor := storage.repository(name).tag(tag)) is not None
    ]
    if args.quiet:
        output.write("".join(f"{name}:{tag}\n" for name, tag, *_ in rows))
    else:
        output.write(output.table(("REPOSITORY", "TAG", "DIGEST", "MEDIA TYPE"), rows))
    return 0
