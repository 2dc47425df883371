"""Whether an image fits this host, judged by its config and manifest before its layers move.

Platform, driver (NVIDIA_REQUIRE_*), room on the disk. What does not fit is an Error
with the numbers; a caller who forces it gets warnings instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..errors import Error, Exhausted, NotFound, Unsupported
from ..oci.platform import Platform
from ..sizes import human_size
from .needs import Needs, Room, find_needs
from .progress import Noted, Warned

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    from _typeshed import StrPath

    from ..gpu.require import Facts, Failure
    from ..gpu.roots import DriverRoots
    from ..oci.config import ImageConfig
    from ..snapshots import Snapshotter
    from ..store.blobs import BlobStore
    from .needs import Tail
    from .progress import Progress
    from .pull import Found

_BRANCHES_SHOWN = 3  # alternatives of a condition; images of NVIDIA's have thirty
_OVERRIDES = ("NVIDIA_DISABLE_REQUIRE", "NVIDIA_DISABLE_REQUIRES")


class Judgement(msgspec.Struct, frozen=True, kw_only=True):
    """What speaks against an image on this host, the weightiest first; what else there is to say; and its needs."""

    problems: tuple[Error, ...]
    notes: tuple[str, ...]
    needs: Needs
    room: Room


class Fit:
    """This host as an image must fit it: a store, and what *roots* says about the driver.

    *environment* is the user's: NVIDIA_DISABLE_REQUIRE counts there as in the image.
    Without *roots* the driver is not judged.
    """

    def __init__(
        self,
        *,
        blobs: BlobStore,
        snapshotter: Snapshotter,
        roots: Callable[[], DriverRoots] | None = None,
        environment: Mapping[str, str] | None = None,
        force: bool = False,
    ) -> None:
        self._blobs = blobs
        self._snapshotter = snapshotter
        self._roots = roots
        self._environment = {name: (environment or {})[name] for name in _OVERRIDES if name in (environment or {})}
        self.force = force

    def judge(self, name: str, found: Found, tail: Tail) -> Judgement:
        """*tail* may be asked for the ends of blobs, when only they tell whether the disk is large enough."""
        room = Room.at(self._blobs.root)
        needs = find_needs(found.layers, rest=found.rest, blobs=self._blobs, snapshotter=self._snapshotter)
        if needs.is_guess and room.free is not None and needs.size_at_most > room.free:
            needs = needs.measured(tail)
        problems, notes = self._of_driver(name, found.config)
        problems += tuple(_lacks(name, self._blobs.root, needs, room))
        return Judgement(problems=problems, notes=notes, needs=needs, room=room)

    def check(self, name: str, found: Found, tail: Tail, progress: Progress) -> None:
        """As judge; the first problem is raised, or all are warned of when it is forced.

        Raises Unsupported (requirement-unsatisfied), Exhausted (disk-full).
        """
        judgement = self.judge(name, found, tail)
        for text in judgement.notes:
            progress(Noted(text))
        for problem in judgement.problems:
            if not self.force:
                raise problem
            progress(Warned(": ".join(filter(None, (problem.message, problem.context.replace("\n", "; "))))))

    def _of_driver(self, name: str, config: ImageConfig) -> tuple[tuple[Error, ...], tuple[str, ...]]:
        environment = {**config.environment, **self._environment}
        if self._roots is None or not Platform.host().matches(config.platform):
            return (), ()
        if not any(key.startswith(("NVIDIA_REQUIRE", "CUDA_VERSION")) for key in environment):
            return (), ()
        from ..gpu.facts import unmet_here
        from ..gpu.require import misspelt, requirements

        wanted = requirements(environment)
        facts, failures = unmet_here(environment, self._roots())
        notes = [f"{name}: {failure.requirement.variable} says nothing: {failure.sentence} {failure.invalid!r}"
                 for failure in failures if failure.invalid is not None]  # fmt: skip
        if facts is None and wanted:
            conditions = ", ".join(dict.fromkeys(each.condition for each in wanted if each.condition))
            notes.append(f"{name} requires {conditions}; there is no NVIDIA driver here to compare with")
        wrong = misspelt(environment)
        hint = f"the variable is NVIDIA_DISABLE_REQUIRE, not {wrong}" if wrong else ""
        problems = tuple(
            _refusal(name, failure, facts, hint) for failure in failures if failure.invalid is None and facts
        )
        return problems, tuple(notes)


def other_platform(name: str, found: Platform, wanted: Platform) -> NotFound:
    """The error of a pull that asked for *wanted*."""
    return NotFound(
        f"{name} is not for {wanted}",
        code="platform-not-in-index",
        context=f"it has one platform, {found}",
        hint=f"argosy pull --platform {found} {name}",
    )


def _refusal(name: str, failure: Failure, facts: Facts, hint: str) -> Unsupported:
    alternatives = [clause.alternative for clause in failure.clauses]
    shown = " or ".join(dict.fromkeys(alternatives[:_BRANCHES_SHOWN]))
    if len(alternatives) > _BRANCHES_SHOWN:
        shown += f" or {len(alternatives) - _BRANCHES_SHOWN} more"
    remedies = (
        hint,
        f"it takes {failure.remedy}" if failure.remedy else "",
        f"a tag for CUDA {facts.cuda} or older" if facts.cuda and failure.requirement.condition[:4] == "cuda" else "",
        f"argosy pull --force {name} fetches it all the same",
    )
    return Unsupported(
        f"{name}: {failure.sentence}",
        code="requirement-unsatisfied",
        context=f"{failure.requirement.variable} of the image: {shown}\nthis host: {_described(facts)}",
        hint="; ".join(filter(None, remedies)),
    )


def _described(facts: Facts) -> str:
    gpus = dict.fromkeys(" ".join(filter(None, (gpu.name or "a GPU", gpu.compute_capability))) for gpu in facts.gpus)
    cuda = f"CUDA up to {facts.cuda}" if facts.cuda else "its CUDA version is not known"
    return ", ".join((f"NVIDIA driver {facts.driver}", cuda, *gpus))


def _lacks(name: str, root: StrPath, needs: Needs, room: Room) -> Iterator[Exhausted]:
    hint = f"free space with argosy prune, or place the store elsewhere with --root; argosy pull --force {name} tries"
    if room.free is not None and needs.size > room.free:
        free = f"{human_size(room.free)} of {human_size(room.size)} are free in {root}"
        yield Exhausted(
            f"no room for {name}",
            code="disk-full",
            context=f"it needs {in_words(needs)}\n{free}",
            hint=hint,
        )
    if room.free_inodes is not None and needs.inodes > room.free_inodes:
        yield Exhausted(
            f"no room for the files of {name}",
            code="disk-full",
            context=f"it needs about {needs.inodes} inodes, {room.free_inodes} are free in {root}",
            hint=hint,
        )


def in_words(needs: Needs) -> str:
    """«about 31.2GB: 9.8GB to fetch, about 21.4GB for its layers»"""
    about = "about " if needs.is_guess else ""
    layers = f"{about}{human_size(needs.unpacked)} for its layers"
    return f"{about}{human_size(needs.size)}: {human_size(needs.to_fetch)} to fetch, {layers}"
