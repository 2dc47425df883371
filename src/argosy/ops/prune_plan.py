"""What a prune would remove, and what that would free: decided before anything is touched. Pure over an Inventory.

The order of what goes is that of its worth: leftovers of work that has ended, images
without a name, then images and interrupted downloads that were not used for longest.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from functools import partial
from typing import TYPE_CHECKING, Literal

import msgspec

from ..oci.digest import Digest
from ..store.gc import Part, Reached
from ..store.records import Container
from .compressed import Spare
from .leftovers import Leftover
from .selection import seconds
from .space import Held, Ledger, together

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .space import Inventory

Kind = Literal["container", "image", "content", "download", "leftover", "build cache", "compressed"]


#: how soon each sort of thing goes when not all must: rubbish, images without a name, what can be made
#: again from what stays, and last what somebody has used
_RUBBISH, _NAMELESS, _DERIVED, _USED = range(4)


class Line(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that goes, for people."""

    kind: Kind
    name: str
    #: bytes on the disk
    size: int


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """Everything that goes. *lines* say it to people, in the order of removal; their sizes add up to what is freed."""

    lines: tuple[Line, ...] = ()
    containers: tuple[Container, ...] = ()
    images: tuple[Held, ...] = ()
    blobs: frozenset[Digest] = frozenset()
    layers: frozenset[Digest] = frozenset()
    parts: tuple[Part, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    compressed: tuple[Spare, ...] = ()
    build_cache: bool = False
    #: blobs that were touched since then are somebody's work; see gc.py
    before_ns: int = 0

    @property
    def size(self) -> int:
        """Bytes that this frees."""
        return sum(line.size for line in self.lines)


class Supply(msgspec.Struct, frozen=True, kw_only=True):
    """What may go, as far as the user's flags and filters have it."""

    containers: tuple[Container, ...] = ()
    #: {container: bytes on the disk}
    container_sizes: Mapping[str, int] = {}
    #: without containers, or whose containers go too
    images: tuple[Held, ...] = ()
    #: content that nothing needs
    loose: Reached = Reached(blobs=frozenset(), diff_ids=frozenset())
    parts: tuple[Part, ...] = ()
    leftovers: tuple[Leftover, ...] = ()
    spares: tuple[Spare, ...] = ()
    #: bytes on the disk; 0 leaves it alone
    build_cache: int = 0


def everything(supply: Supply, inventory: Inventory) -> Plan:
    """All of *supply* goes."""
    plan = _Planner(supply, inventory)
    for candidate in _candidates(supply, inventory):
        candidate.take(plan)
    return plan.made()


def down_to(target: int, supply: Supply, inventory: Inventory, *, used: int) -> Plan:
    """As much of *supply* goes, what is worth least first, as brings *used* bytes down to *target*, if all can."""
    plan = _Planner(supply, inventory)
    for candidate in sorted(_candidates(supply, inventory), key=lambda each: (each.rank, each.last_used)):
        if used - plan.size <= target:
            break
        candidate.take(plan)
    return plan.made()


class _Candidate(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that may go; *rank* and *last_used* say before and after which others."""

    rank: int
    last_used: float = 0.0
    take: Callable[[_Planner], None]


def _candidates(supply: Supply, inventory: Inventory) -> list[_Candidate]:
    """In the order in which people read them: containers, images, and what nobody knows by name."""
    ended = {container.id: seconds(container.finished or container.created) or 0.0 for container in supply.containers}
    found = [
        _Candidate(rank=_USED, last_used=ended[each.id], take=partial(_Planner.take_container, container=each))
        for each in supply.containers
    ]
    for image in sorted(supply.images, key=lambda each: each.last_used):
        last_used = max((image.last_used, *(ended.get(each, 0.0) for each in image.containers)))
        rank = _NAMELESS if image.is_dangling and not image.containers else _USED
        found.append(_Candidate(rank=rank, last_used=last_used, take=partial(_Planner.take_image, image=image)))
    found.append(_Candidate(rank=_RUBBISH, take=_Planner.take_loose))
    found += [
        _Candidate(rank=_RUBBISH, take=partial(_Planner.take_leftover, leftover=each)) for each in supply.leftovers
    ]
    found += [
        _Candidate(rank=_USED, last_used=part.touched_ns / 1e9, take=partial(_Planner.take_part, part=part))
        for part in supply.parts
    ]
    if supply.build_cache:
        found.append(_Candidate(rank=_DERIVED, take=_Planner.take_build_cache))
    return found + [_Candidate(rank=_DERIVED, take=partial(_Planner.take_spare, spare=each)) for each in supply.spares]


class _Planner:
    """A plan that grows, and what each step frees after those before it."""

    def __init__(self, supply: Supply, inventory: Inventory) -> None:
        self._supply = supply
        self._inventory = inventory
        self._ledger = Ledger(inventory)
        self._lines: list[Line] = []
        self._containers: list[Container] = []
        self._images: list[Held] = []
        self._content = [Reached(blobs=frozenset(), diff_ids=frozenset())]
        self._parts: list[Part] = []
        self._leftovers: list[Leftover] = []
        self._compressed: dict[Digest, Spare] = {}
        self._build_cache = False
        self.size = 0

    def take_container(self, container: Container) -> None:
        self._containers.append(container)
        self._say("container", container.name or container.id[:12], self._supply.container_sizes[container.id])

    def take_image(self, image: Held) -> None:
        freed = self._ledger.give_up(image)
        self._images.append(image)
        self._content.append(freed)
        self._say("image", image.title, image.size + self._size_of(freed))

    def take_loose(self) -> None:
        loose = self._supply.loose
        if loose.blobs or loose.diff_ids:
            self._content.append(loose)
            text = f"{_count(loose.blobs, 'blob')} and {_count(loose.diff_ids, 'layer')} that no image needs"
            self._say("content", text, self._size_of(loose))

    def take_part(self, part: Part) -> None:
        self._parts.append(part)
        self._say("download", os.path.basename(part.path), part.size)

    def take_leftover(self, leftover: Leftover) -> None:
        self._leftovers.append(leftover)
        self._say("leftover", leftover.name, leftover.size)

    def take_build_cache(self) -> None:
        self._build_cache = True
        self._say("build cache", "downloads of argosy catalog build", self._supply.build_cache)

    def take_spare(self, spare: Spare) -> None:
        if any(spare.digest in content.blobs for content in self._content):
            return  # it goes with its image
        self._compressed[spare.digest] = spare
        self._say("compressed", spare.title, spare.size)

    def made(self) -> Plan:
        content = together(self._content)
        return Plan(
            lines=tuple(self._lines),
            containers=tuple(self._containers),
            images=tuple(self._images),
            blobs=content.blobs,
            layers=content.diff_ids,
            parts=tuple(self._parts),
            leftovers=tuple(self._leftovers),
            compressed=tuple(spare for digest, spare in self._compressed.items() if digest not in content.blobs),
            build_cache=self._build_cache,
            before_ns=self._inventory.before_ns,
        )

    def _size_of(self, content: Reached) -> int:
        given_up = sum(self._compressed[digest].size for digest in content.blobs if digest in self._compressed)
        return self._inventory.size_of(content) - given_up

    def _say(self, kind: Kind, name: str, size: int) -> None:
        self.size += size
        if self._lines and (self._lines[-1].kind, self._lines[-1].name) == (kind, name):  # layers of one image
            size += self._lines.pop().size
        self._lines.append(Line(kind=kind, name=name, size=size))


def _count(things: Iterable[object], word: str) -> str:
    number = len(tuple(things))
    return f"{number} {word}" + ("" if number == 1 else "s")
