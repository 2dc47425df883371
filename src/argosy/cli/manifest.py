"""argosy manifest: look at manifests in registries, compose indexes of several platforms."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import Error, InvalidInput, NotFound
from ..oci.reference import Reference
from . import output
from .parser import UsageError

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable

    from ..remote.repository import Repository
    from .host import Host
    from .parser import Parser

_ABOUT = """\
An image for several platforms is an index: a list of manifests, one each. It
is composed here of images that are here or in any registry, and pushed whole.
"""
_EXAMPLES = """\
examples:
  argosy manifest inspect --format table nvidia/cuda:13-base
  argosy manifest create localhost:5000/lab/app:1 app:amd64 app:arm64
  argosy manifest push --purge localhost:5000/lab/app:1

'argosy manifest COMMAND --help' tells more.
"""
_INSPECT = """\
Show what a name means in its registry, without pulling it: a manifest, or the
list of an index, as Docker prints them. A list that is being composed here
comes first. With two names: one manifest of such a list.
"""
_INSPECT_EXAMPLES = """\
fields of --format:
  .Platform .Digest .Size .Layers .MediaType   (a row for each manifest)

examples:
  argosy manifest inspect debian:12
  argosy manifest inspect --format table debian:12
  argosy manifest inspect --format '{{.Platform}} {{.Digest}}' debian:12
  argosy manifest inspect --verbose localhost:5000/lab/app:1 app:arm64

environment:
  as argosy pull --help lists them
"""
_CREATE = """\
Compose a list of manifests, in the order given, to annotate and push. Each
is an image of this host, else of its registry. Nothing is sent, and no layer
is fetched. The list is kept until it is removed or pushed with --purge; layers
of local images are not kept for it.
"""
_CREATE_EXAMPLES = """\
examples:
  argosy manifest create localhost:5000/lab/app:1 app:amd64 app:arm64
  argosy manifest create --amend lab/app:1 lab/app@sha256:1234…
"""
_ANNOTATE = """\
Say for which platform a manifest of a list is, or add annotations. What is not
named stays as it is.
"""
_ANNOTATE_EXAMPLES = """\
examples:
  argosy manifest annotate --arch arm --variant v7 lab/app:1 app:arm
  argosy manifest annotate --annotation org.example.by=lab lab/app:1 app:arm
"""
_PUSH = """\
Push a list as an index under its own name, and first what the repository lacks
of its manifests: mounted from other repositories of the registry, copied from
this host and from other registries. The tag is set last. Prints the digest.
"""
_PUSH_EXAMPLES = """\
examples:
  argosy manifest push localhost:5000/lab/app:1
  argosy manifest push --purge --quiet localhost:5000/lab/app:1

environment:
  as argosy pull --help lists them
"""
_RM = """\
Forget lists that are being composed. What was pushed stays in its registry.
"""
_RM_EXAMPLES = """\
examples:
  argosy manifest rm lab/app:1 lab/app:2

exit status:
  0 all were removed; 1 some were not
"""


def add_arguments(parser: Parser) -> None:
    parser.explain(_ABOUT, _EXAMPLES)
    verbs = parser.add_subparsers(dest="verb", metavar="COMMAND", title="commands")

    def command(name: str, line: str, about: str, examples: str) -> argparse.ArgumentParser:
        return verbs.add_parser(name, help=line, description=about, epilog=examples)

    _add_inspect(command("inspect", "show a manifest or an index", _INSPECT, _INSPECT_EXAMPLES))
    _add_create(command("create", "compose a list of manifests", _CREATE, _CREATE_EXAMPLES))
    _add_annotate(command("annotate", "say more of a manifest in a list", _ANNOTATE, _ANNOTATE_EXAMPLES))
    _add_push(command("push", "push a list as an index", _PUSH, _PUSH_EXAMPLES))
    rm = command("rm", "forget lists", _RM, _RM_EXAMPLES)
    rm.add_argument("lists", metavar="LIST", nargs="+", help="names of lists that are being composed here")


def _add_inspect(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("names", metavar="[LIST] NAME", nargs="+", help="an image; or a list composed here, and a manifest in it")
    add("--format", metavar="TEMPLATE", help="json, a Go template, or 'table TEMPLATE' (default: a document)")
    _add_plain_http(parser)
    add("-v", "--verbose", action="store_true", help="show the manifests of an index too, and descriptors")


def _add_create(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("list", metavar="LIST", help="the name that the index will have; latest when it has no tag")
    add("names", metavar="MANIFEST", nargs="+", help="an image for one platform, here or in a registry")
    add("-a", "--amend", action="store_true", help="add to the list when there is one already")
    _add_plain_http(parser)


def _add_annotate(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("list", metavar="LIST", help="a list that is being composed here")
    add("name", metavar="MANIFEST", help="a manifest in it, by the name it was given or by digest")
    add(
        "--annotation",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="annotate it in the list; may be repeated",
    )
    add("--arch", default="", metavar="ARCH", help="the processor, as in amd64 or arm64")
    add("--os", default="", metavar="OS", help="the operating system, as in linux")
    add("--os-features", action="append", default=[], metavar="NAME", help="what it needs of it; may be repeated")
    add("--os-version", default="", metavar="VERSION", help="the version of it, for Windows")
    add("--variant", default="", metavar="VARIANT", help="the kind of processor, as in v7 of arm")


def _add_push(parser: argparse.ArgumentParser) -> None:
    add = parser.add_argument
    add("list", metavar="LIST", help="a list that is being composed here")
    _add_plain_http(parser)
    add("-p", "--purge", action="store_true", help="forget the list once it is pushed")
    add("-q", "--quiet", action="store_true", help="print the digest only, no progress")


def _add_plain_http(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plain-http",
        "--insecure",
        action="store_true",
        help="use plain http with any registry (default: loopback names only)",
    )


def main(args: argparse.Namespace, host: Host) -> int:
    if args.verb is None:
        raise UsageError("argosy manifest: a command is missing", hint="argosy manifest --help lists them")
    return _VERBS[args.verb](args, host)


def _inspect(args: argparse.Namespace, host: Host) -> int:
    from ..ops import manifest as ops
    from . import manifest_text as texts

    if len(args.names) > 2:
        raise UsageError("argosy manifest inspect: too many arguments", exit_status=1)
    if args.format is not None and args.verbose:
        raise InvalidInput("--verbose has no --format", code="usage", hint="leave one of them out")
    reference = Reference.parse(args.names[0])
    found: ops.Member | ops.Members
    if len(args.names) == 2:
        found = ops.look_up_entry(reference, args.names[1], lists=host.lists)
    else:
        found = ops.look_up(
            reference, lists=host.lists, repository=host.repository(reference, plain_http=args.plain_http)
        )
        _tell_what_is_gone(reference, host)
    if args.format is not None:
        texts.show_rows(found, args.format)
    else:
        output.write(output.for_terminal(texts.document(found, verbose=args.verbose)))
    return 0


def _tell_what_is_gone(reference: Reference, host: Host) -> None:
    """Layers of local images are not kept for a list, so whoever looks at it hears when they have gone."""
    from ..ops.push_list import require_content

    own = host.lists.find(reference)
    for entry in own.entries if own is not None else ():
        try:
            require_content(entry, reference, host.blobs)
        except NotFound as error:
            output.warning(f"{error.message}: {error.context}")


def _create(args: argparse.Namespace, host: Host) -> int:
    from ..ops.manifest_list import create

    reference = Reference.parse(args.list)
    create(
        reference,
        [Reference.parse(name) for name in args.names],
        lists=host.lists,
        refs=host.refs,
        blobs=host.blobs,
        connect=_connector(args, host),
        amend=args.amend,
    )
    output.write(f"Created manifest list {reference}\n")
    return 0


def _annotate(args: argparse.Namespace, host: Host) -> int:
    from ..ops.manifest_list import Changes, annotate

    features = [feature for text in args.os_features for feature in text.split(",") if feature]
    changes = Changes(
        os=args.os,
        architecture=args.arch,
        variant=args.variant,
        os_version=args.os_version,
        os_features=tuple(features),
        annotations=dict(map(_annotation, args.annotation)),
    )
    annotate(Reference.parse(args.list), args.name, changes, lists=host.lists)
    return 0


def _annotation(text: str) -> tuple[str, str]:
    key, equals, value = text.partition("=")
    if not key or not equals:
        raise InvalidInput(f"not an annotation: {text!r}", code="annotation-invalid", hint="--annotation KEY=VALUE")
    return key, value


def _push(args: argparse.Namespace, host: Host) -> int:
    from ..ops.push_list import push_list
    from .progress import reporter

    reference = Reference.parse(args.list)
    own = host.lists.get(reference)
    with reporter(quiet=args.quiet, host=host) as progress:
        pushed = push_list(
            own,
            blobs=host.blobs,
            connect=_connector(args, host),
            unfinished=host.unfinished_uploads,
            restore=host.whole(reference.familiar(), progress).restore,
            progress=progress,
        )
    if args.purge:
        host.lists.delete(reference)
    if not args.quiet:
        output.write("".join(f"Pushed ref {name} with digest: {name.digest}\n" for name in pushed.manifests))
    output.write(f"{pushed.digest}\n")
    return 0


def _rm(args: argparse.Namespace, host: Host) -> int:
    """What can be removed is, although others cannot."""
    failures = 0
    for name in args.lists:
        try:
            host.lists.delete(Reference.parse(name))
        except Error as error:
            failures += 1
            output.error(error)
    return 1 if failures else 0


def _connector(args: argparse.Namespace, host: Host) -> Callable[[Reference], Repository]:
    return lambda reference: host.repository(reference, plain_http=args.plain_http)


_VERBS: dict[str, Callable[[argparse.Namespace, Host], int]] = {
    "inspect": _inspect,
    "create": _create,
    "annotate": _annotate,
    "push": _push,
    "rm": _rm,
}
