"""Which CUDA a branch of the driver supports: a fact of the branch, so that no library need be asked.

The number before the first point of a driver's version is its branch. Source: CUDA
toolkit release notes, «CUDA Toolkit and Corresponding Driver Versions».
"""

from __future__ import annotations

#: {branch: the newest CUDA that it supports}, oldest first. A branch between two of them is as the one before.
CUDA_BY_BRANCH = {
    346: "7.0",
    352: "7.5",
    367: "8.0",
    384: "9.0",
    387: "9.1",
    396: "9.2",
    410: "10.0",
    418: "10.1",
    440: "10.2",
    450: "11.0",
    455: "11.1",
    460: "11.2",
    465: "11.3",
    470: "11.4",
    495: "11.5",
    510: "11.6",
    515: "11.7",
    520: "11.8",
    525: "12.0",
    530: "12.1",
    535: "12.2",
    545: "12.3",
    550: "12.4",
    555: "12.5",
    560: "12.6",
    565: "12.7",
    570: "12.8",
    575: "12.9",
    580: "13.0",
    590: "13.1",
}
_NEWEST = max(CUDA_BY_BRANCH)


def cuda_of(driver_version: str) -> str | None:
    """The newest CUDA that a driver supports; None when it is older or newer than the table."""
    branch = driver_version.partition(".")[0]
    if not (branch.isascii() and branch.isdecimal()) or len(branch) > 6 or int(branch) >= _NEWEST + 5:
        return None
    older = [cuda for first, cuda in CUDA_BY_BRANCH.items() if first <= int(branch)]
    return older[-1] if older else None


def branch_for(cuda: tuple[int, ...]) -> int | None:
    """The first branch that supports a version of CUDA, as numbers; None when it is newer than the table."""
    for branch, supported in CUDA_BY_BRANCH.items():
        if tuple(map(int, supported.split("."))) >= cuda[:2]:
            return branch
    return None
