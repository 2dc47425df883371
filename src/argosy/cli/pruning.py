"""What the three prune verbs have in common: flags, the plan in words, the question, the result. No verb itself."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING

from ..errors import Cancelled, Exhausted, InvalidInput
from ..ops import df, prune_plan, space
from ..ops import prune as ops
from ..ops.compressed import Spares, find_spares
from ..ops.containers import remove_left_behind
from ..ops.selection import FILTERS, Selection
from . import filters, output
from .progress import reporter

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Sequence

    from ..ops.prune import Freed, Scope
    from ..ops.prune_plan import Plan
    from ..ops.space import Inventory
    from .host import Host
    from .parser import Parser

FILTER_HELP = """\
filters:
  until=24h|DATE|TIME  made before then: 1h30m ago, 2026-11-23, Unix seconds
  label=KEY[=VALUE]    with this label; of several all must hold
  label!=KEY[=VALUE]   without it
"""
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12, "p": 10**15}
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40, "p": 2**50}


def add_arguments(parser: Parser) -> None:
    """The flags that every prune has."""
    add = parser.add_argument
    add(
        "--compressed",
        action="store_true",
        help="also drop compressed blobs whose layers are unpacked, if they can be had again",
    )
    add("--dry-run", action="store_true", help="say what would go, and stop")
    add(
        "--filter",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="only what this holds of, see below; may be repeated",
    )
    add("-f", "--force", action="store_true", help="do not ask first")
    add(
        "--target",
        metavar="SIZE",
        help="as with -a, but only until the store takes SIZE (50GB, 20GiB), least recently used first",
    )


def prune(args: Namespace, host: Host, scope: Scope, warning: str, images: Sequence[str] = ()) -> int:
    """Plan, say it, ask with *warning*, remove. With *images* only their compressed blobs are dropped."""
    selection = Selection.parse(filters.parse(args.filter, known=FILTERS), now=time.time())
    target = None if args.target is None else parse_amount(args.target)
    if not args.dry_run:
        host.reaped()
    if scope.containers:
        host.enter_namespace()
    else:
        host.enter()  # unpacked layers hold files of users that exist only in our namespace
    inventory = space.look(refs=host.refs, containers=host.containers, blobs=host.blobs, snapshotter=host.snapshotter)
    spares = _spares(inventory, images, host) if args.compressed else Spares()
    supply = ops.supply(
        inventory,
        scope,
        selection,
        refs=host.refs,
        containers=host.containers,
        blobs=host.blobs,
        spares=spares.spares,
    )
    if target is None:
        planned, used = prune_plan.everything(supply, inventory), 0
    else:
        used = df.store_size(inventory, host.blobs)
        planned = prune_plan.down_to(target, supply, inventory, used=used)
    output.write(_plan_text(planned, spares))
    if args.dry_run and not planned.lines:
        output.write("Nothing to remove.\n")
    if not args.dry_run:
        _carry_out(planned, args, host, warning)
    if scope.leftovers and not args.dry_run and host.left_behind:
        remove_left_behind(host.containers, host.left_behind)
    if target is not None and used - planned.size > target:
        raise _out_of_reach(target, used - planned.size, planned, inventory, host)
    return 0


def parse_amount(text: str) -> int:
    """Bytes of «50GB» (decimal, as sizes are printed) or «20GiB». Raises InvalidInput (size-invalid)."""
    word = text.strip().lower().removesuffix("b")
    units = _BINARY if word.endswith("i") else _UNITS
    word = word.removesuffix("i")
    unit = word[-1:] if word[-1:] in units else ""
    try:
        value = float(word.removesuffix(unit))
        if 0 <= value < 2**60:
            return int(value * units[unit])
    except (ValueError, KeyError):
        pass
    raise InvalidInput(f"not a size: {text!r}", code="size-invalid", hint="sizes look like 50GB, 512MB, 20GiB")


def _spares(inventory: Inventory, names: Sequence[str], host: Host) -> Spares:
    chosen = {host.refs.lookup(name).image_id for name in names}
    held = [image for image in inventory.images if not chosen or image.image_id in chosen]
    with reporter(quiet=not host.stderr_is_terminal, host=host) as progress:
        return find_spares(
            inventory,
            held,
            blobs=host.blobs,
            snapshotter=host.snapshotter,
            connect=host.repository,
            progress=progress,
        )


def _carry_out(planned: Plan, args: Namespace, host: Host, warning: str) -> None:
    if planned.lines:
        if not args.force:
            _ask(warning)
        freed = ops.execute(
            planned,
            refs=host.refs,
            containers=host.containers,
            blobs=host.blobs,
            snapshotter=host.snapshotter,
            runtime=host.ready_runtime,
        )
        output.write(_result_text(freed))
        size = freed.size
    else:
        size = 0
    output.write(f"Total reclaimed space: {output.human_size(size)}\n")


def _plan_text(planned: Plan, spares: Spares) -> str:
    """A table and its sum."""
    text = ""
    if planned.lines:
        rows = [(line.kind, line.name, output.human_size(line.size)) for line in planned.lines]
        text = output.table(("TO REMOVE", "NAME", "FREES"), rows)
        text += f"Total: {output.human_size(planned.size)}\n\n"
    if spares.kept:
        text += (
            f"Kept: {len(spares.kept)} compressed blobs ({output.human_size(spares.kept_size)}), "
            "which no registry is known to have and which do not follow from their layers\n\n"
        )
    return text


def _result_text(freed: Freed) -> str:
    """Docker's sections and words."""
    sections = (
        ("Deleted Containers:", freed.containers),
        (
            "Deleted Images:",
            (
                *(f"untagged: {name}" for name in freed.untagged),
                *(f"deleted: {digest}" for digest in (*freed.images, *freed.layers)),
            ),
        ),
        ("Dropped Compressed Blobs:", freed.compressed),
        ("Deleted Leftovers:", freed.leftovers),
    )
    return "".join(
        f"{heading}\n" + "".join(f"{line}\n" for line in lines) + "\n" for heading, lines in sections if lines
    )


def _ask(warning: str) -> None:
    """Docker's question, asked of whoever is at the other end: `yes | argosy prune` answers it."""
    output.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    answer = sys.stdin.readline() if sys.stdin is not None else ""
    if not answer:
        raise InvalidInput(
            "prune asks before it removes anything, and nobody answers", code="not-confirmed", hint="argosy prune -f"
        )
    if answer.strip().lower() not in ("y", "yes"):
        raise Cancelled("nothing was removed", code="cancelled")


def _out_of_reach(target: int, left: int, planned: Plan, inventory: Inventory, host: Host) -> Exhausted:
    found = df.holders(inventory, planned, left, containers=host.containers, blobs=host.blobs)
    lines = [f"{output.human_size(left)} are left:", *(f"  {output.human_size(size):<8}{what}" for what, size in found)]
    return Exhausted(
        f"the store cannot be brought down to {output.human_size(target)}",
        code="target-out-of-reach",
        context="\n".join(lines),
        hint="argosy system prune takes stopped containers too; argosy df -v shows the sizes",
    )
