"""argosy pull --dry-run: what would move, for people and for programs."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..oci.platform import Platform
from ..ops.fit import Fit, in_words
from . import output
from .board import short_time

if TYPE_CHECKING:
    from argparse import Namespace
    from collections.abc import Iterator

    from ..errors import Error
    from ..oci.reference import Reference
    from ..ops.plan import Plan, PlannedLayer
    from ..remote.repository import Repository
    from .host import Host

_COLUMNS = ("LAYER", "SIZE", "STATE")
_NAMES_SHOWN = 2  # of images that share a layer


def show_plan(reference: Reference, repository: Repository, args: Namespace, host: Host) -> int:
    """Print the plan; 1 when a pull would be refused. Nothing is written but the cache."""
    from ..ops.plan import make_plan
    from ..ops.progress import silent
    from ..ops.pull import find
    from ..snapshots import choose
    from ..store.speeds import Speeds
    from .progress import reporter

    kind = host.environ.get("ARGOSY_SNAPSHOTTER") or None
    snapshotter = choose(host.root, host.features, kind, record=False)
    with reporter(quiet=args.quiet, host=host, mode="none") as progress:
        found = find(
            reference,
            repository=repository,
            blobs=host.blobs,
            refs=host.refs,
            snapshotter=snapshotter,
            platform=Platform.parse(args.platform) if args.platform else None,
            all_platforms=args.all_platforms,
            force=args.force,
            progress=silent if args.format else progress,
        )
    fit = Fit(
        blobs=host.blobs,
        snapshotter=snapshotter,
        roots=lambda: host.driver_roots,
        environment=host.environ,
        force=args.force,
    )
    plan = make_plan(
        reference, found, repository=repository, blobs=host.blobs, refs=host.refs, fit=fit, speeds=Speeds(host.root)
    )
    if args.quiet and args.format is None:
        output.write(f"{reference}\n")
    else:
        output.document(_facts(plan, host.root), args.format, _text(plan, host.root))
    return 1 if plan.judgement.problems and not fit.force else 0


def _text(plan: Plan, root: str) -> str:
    rows = [(layer.digest.short, output.human_size(layer.size), _state(layer, plan.source)) for layer in plan.layers]
    return output.table(_COLUMNS, rows) + "".join(f"{line}\n" for line in _lines(plan, root))


def _lines(plan: Plan, root: str) -> Iterator[str]:
    needs, judgement = plan.judgement.needs, plan.judgement
    yield f"Digest: {plan.descriptor.digest} ({plan.platform})"
    missing = sum(layer.to_fetch > 0 for layer in plan.layers)
    if missing:
        whole = output.human_size(sum(layer.size for layer in plan.layers))
        amount = f"{output.human_size(needs.to_fetch)} of {whole}, {missing} of {len(plan.layers)} layers"
        yield f"Fetch:  {amount}, from {plan.source}"
        yield f"Time:   {_time(plan)}"
    else:
        yield "Fetch:  nothing, all layers are here"
    if needs.size:
        yield f"Disk:   {in_words(needs)}"
    yield f"        {_free(plan, root)}"
    yield from (f"Note:   {note}" for note in judgement.notes)
    if not judgement.problems:
        yield "Fits:   yes"
    for problem in judgement.problems:
        first, *more = output.draw(problem, word="Fits:   no").rstrip("\n").splitlines()
        yield from (first.replace("Fits:   no:", "Fits:   no,"), *(f"      {line}" for line in more))


def _state(layer: PlannedLayer, source: str) -> str:
    if layer.state == "missing":
        return f"would be fetched from {source}"
    if layer.state == "begun":
        return f"would be fetched from {source}, {output.human_size(layer.size - layer.to_fetch)} are here already"
    if layer.state == "shared":
        more = len(layer.shared_with) - _NAMES_SHOWN
        names = ", ".join(layer.shared_with[:_NAMES_SHOWN])
        return f"shared with {names}" + (f" and {more} more" if more > 0 else "")
    return "here already"


def _time(plan: Plan) -> str:
    if plan.seconds is None or plan.speed is None:
        return f"unknown, nothing large was fetched from {plan.source} yet"
    speed = output.human_size(int(plan.speed.bytes_per_s))
    return f"about {short_time(plan.seconds)}, at {speed}/s as pulls from {plan.source} had before"


def _free(plan: Plan, root: str) -> str:
    room, after = plan.judgement.room, plan.free_after
    if room.free is None or after is None:
        return f"how much is free in {root} is unknown"
    about = "about " if plan.judgement.needs.is_guess else ""
    return f"{output.human_size(room.free)} are free in {root}, {about}{output.human_size(after)} afterwards"


def _facts(plan: Plan, root: str) -> dict[str, object]:
    needs, room = plan.judgement.needs, plan.judgement.room
    return {
        "Name": str(plan.reference),
        "Digest": plan.descriptor.digest,
        "Platform": str(plan.platform),
        "Source": plan.source,
        "Layers": [
            {
                "Digest": layer.digest,
                "Size": layer.size,
                "ToFetch": layer.to_fetch,
                "Unpacked": layer.unpacked,
                "State": layer.state,
                "SharedWith": list(layer.shared_with),
            }
            for layer in plan.layers
        ],
        "ToFetch": needs.to_fetch,
        "BytesPerSecond": None if plan.speed is None else int(plan.speed.bytes_per_s),
        "Seconds": plan.seconds,
        "Disk": {
            "Root": root,
            "Needed": needs.size,
            "Estimated": needs.is_guess,
            "Free": room.free,
            "FreeAfter": plan.free_after,
        },
        "Fits": not plan.judgement.problems,
        "Problems": [_problem(problem) for problem in plan.judgement.problems],
        "Notes": list(plan.judgement.notes),
    }


def _problem(error: Error) -> dict[str, str]:
    return {"Code": error.code, "Message": error.message, "Context": error.context, "Hint": error.hint}
