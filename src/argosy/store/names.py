"""Names of containers: which are allowed, and one to give when the user gives none."""

from __future__ import annotations

import os

_FIRST = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789")
_REST = _FIRST | frozenset("_.-")
NAME_LIMIT = 200  # characters; a name is a file's name, written aside with a suffix

_MOODS = (
    "able agile amber azure bold brave breezy bright brisk calm candid cheery clever copper coral "
    "daring deft dusky eager early fair fleet frosty gentle gilded glad golden hardy hasty honest "
    "indigo jaunty jolly keen kind lively loyal lucky mellow merry mighty misty nimble noble patient "
    "placid plucky polite proud quick quiet rapid ready roving ruddy serene sharp silent silver sleek "
    "smart snug steady stout sturdy sunny swift tidy tireless trusty vivid wandering warm wise witty zesty"
)
_SHIPS = (
    "anchor argo astrolabe barge bark beacon binnacle bosun bowsprit brig buoy caravel clipper cog compass corvette "
    "cutter dhow dinghy dory ferry foresail frigate galleon galley gunwale halyard harbour helm hull islander "
    "jib junk keel ketch lagoon lantern lateen lighter lugger mainsail mast mizzen oar outrigger packet pilot "
    "pinnace prow quay raft rudder sampan schooner sextant skiff skipper sloop spar spinnaker tender tide "
    "tiller topsail trawler trireme tug voyager wherry windlass xebec yawl"
)


def is_name(text: str) -> bool:
    """Docker's rule: [a-zA-Z0-9][a-zA-Z0-9_.-]+"""
    return 2 <= len(text) <= NAME_LIMIT and text[0] in _FIRST and all(char in _REST for char in text)


def random_name(attempt: int = 0) -> str:
    """`mood_ship`; from the fourth attempt on with a number, for hosts where most are taken."""
    moods, ships = _MOODS.split(), _SHIPS.split()
    number = int.from_bytes(os.urandom(8), "big")
    number, mood = divmod(number, len(moods))
    number, ship = divmod(number, len(ships))
    name = f"{moods[mood]}_{ships[ship]}"
    return name if attempt < 3 else f"{name}{number % 10 ** (attempt // 3)}"
