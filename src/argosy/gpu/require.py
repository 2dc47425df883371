"""What an image requires of the driver: the expressions in its NVIDIA_REQUIRE_* variables, evaluated. Pure.

A blank separates alternatives, of which one must hold; a comma separates terms, which
must all hold; a term is a property (cuda, driver, arch, brand), an operator and a
value. What is not known of this host counts as satisfied.
Source: libnvidia-container src/cli/dsl.c and configure.c; nvidia-container-toolkit internal/config/image.
"""

from __future__ import annotations

import operator
import re
from typing import TYPE_CHECKING

import msgspec

from .branches import branch_for
from .inventory import Gpu

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

_PREFIX = "NVIDIA_REQUIRE_"
_JETPACK = "NVIDIA_REQUIRE_JETPACK"  # files of Tegra hosts that the image wants, no condition
_DISABLE = "NVIDIA_DISABLE_REQUIRE"
_TRUE = frozenset({"1", "t", "T", "true", "TRUE", "True"})  # Go's strconv.ParseBool
_TERM = re.compile(r"([^<>=!]+)([<>=!]+)([^<>=!].*)", re.DOTALL)
_CUDA_VERSION = re.compile(r"v?([0-9]{1,4})(?:\.([0-9]{1,4}))?(?:[.+-].*)?")
_LONGEST = 18  # digits of one number of a version; beyond a machine word libnvidia-container gives up as well
#: What NVML numbers above 6 (vapps … titanrtx) is «unknown» to libnvidia-container, and to the images made for it.
_BRANDS_OF_OLD = frozenset({"quadro", "tesla", "nvs", "grid", "geforce", "titan", "unknown"})

#: «!» alone is taken for «!=», as libnvidia-container compares no more than there is
_OPERATORS: dict[str, Callable[[tuple[int, ...], tuple[int, ...]], bool]] = {
    "=": operator.eq,
    "!=": operator.ne,
    "!": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
PROPERTIES = ("cuda", "driver", "arch", "brand")


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of a host; None is «not known». Of the GPUs compute_capability and brand count."""

    driver: str | None = None
    #: the newest CUDA that the driver supports
    cuda: str | None = None
    gpus: tuple[Gpu, ...] = ()


class Requirement(msgspec.Struct, frozen=True, kw_only=True):
    """One expression, and the variable that it comes from."""

    variable: str
    expression: str

    @property
    def condition(self) -> str:
        """The first alternative: what NVIDIA's own tools name when none holds."""
        return self.expression.strip(" ").partition(" ")[0]


class Clause(msgspec.Struct, frozen=True, kw_only=True):
    """One alternative that does not hold: the term that failed, and what was found in its place."""

    alternative: str
    term: str
    found: str


class Failure(msgspec.Struct, frozen=True, kw_only=True):
    """A requirement that this host does not meet (*clauses*), or that says nothing (*invalid* is the term)."""

    requirement: Requirement
    clauses: tuple[Clause, ...] = ()
    invalid: str | None = None

    @property
    def sentence(self) -> str:
        """The words of nvidia-container-cli, for which people search."""
        if self.invalid is not None:
            return "invalid expression"
        condition = self.requirement.condition
        sentence = f"unsatisfied condition: {condition}"
        if condition.startswith("cuda>="):
            sentence += ", please update your driver to a newer version, or use an earlier cuda container"
        return sentence

    @property
    def remedy(self) -> str:
        """The driver that would satisfy the condition; empty where that is not what is missing."""
        match = _TERM.fullmatch(self.requirement.condition.partition(",")[0])
        if match is None or match[2] not in (">=", ">", "=") or match[1].lower() not in ("cuda", "driver"):
            return ""
        if match[1].lower() == "driver":
            return f"NVIDIA driver {match[3]}" + ("" if match[2] == "=" else " or newer")
        branch = branch_for(version(match[3]) or ())
        if branch is None:
            return f"an NVIDIA driver that supports CUDA {match[3]}"
        return f"NVIDIA driver {branch} or newer, which supports CUDA {match[3]}"


class _Invalid(Exception):
    """A term that libnvidia-container refuses as «invalid expression»."""

    def __init__(self, term: str) -> None:
        super().__init__(term)
        self.term = term


def requirements(environment: Mapping[str, str]) -> tuple[Requirement, ...]:
    """What a container's variables require, in their order; nothing when NVIDIA_DISABLE_REQUIRE is true.

    An image with CUDA_VERSION and without NVIDIA_REQUIRE_CUDA is of the first
    generation: it requires that version of CUDA.
    """
    if environment.get(_DISABLE, "") in _TRUE:
        return ()
    named = [
        Requirement(variable=name, expression=value)
        for name, value in environment.items()
        if name.startswith(_PREFIX) and not name.startswith(_JETPACK)
    ]
    match = _CUDA_VERSION.fullmatch(environment.get("CUDA_VERSION", ""))
    if match and not environment.get("NVIDIA_REQUIRE_CUDA"):
        named.append(Requirement(variable="CUDA_VERSION", expression=f"cuda>={match[1]}.{match[2] or 0}"))
    return tuple(named)


def misspelt(environment: Mapping[str, str]) -> str | None:
    """A variable that was meant to be NVIDIA_DISABLE_REQUIRE; advice on the net often has it wrong."""
    wrong = (f"{_DISABLE}S", f"{_DISABLE}D", "NVIDIA_DISABLE_REQUIREMENTS", "NVIDIA_REQUIRE_DISABLE")
    return next((name for name in wrong if name in environment), None)


def unmet(environment: Mapping[str, str], facts: Facts, *, certain: bool = False) -> tuple[Failure, ...]:
    """The requirements that this host does not meet, each with the reasons; none when one of its GPUs meets all.

    NVIDIA's tools judge every GPU that a container is to get; before one is chosen, one
    that fits is enough. Without GPUs the driver alone is judged. With *certain* what is
    not known counts as not satisfied, to find out whether it matters.
    """
    wanted = requirements(environment)
    found: list[tuple[Failure, ...]] = []
    for gpu in facts.gpus or (None,):
        failures = (_failure(requirement, facts, gpu, unknown=not certain) for requirement in wanted)
        found.append(tuple(failure for failure in failures if failure is not None))
    return min(found, key=len)


def _failure(requirement: Requirement, facts: Facts, gpu: Gpu | None, *, unknown: bool) -> Failure | None:
    try:
        clauses = _failed_clauses(requirement.expression, facts, gpu, unknown)
    except _Invalid as invalid:
        return Failure(requirement=requirement, invalid=invalid.term)
    return Failure(requirement=requirement, clauses=clauses) if clauses else None


def _failed_clauses(expression: str, facts: Facts, gpu: Gpu | None, unknown: bool) -> tuple[Clause, ...]:
    """One for each alternative; none as soon as one holds (what comes after it is not read), or when there are none."""
    failed = []
    for alternative in filter(None, expression.split(" ")):
        terms = [term for term in alternative.split(",") if term]
        wrong = next((clause for term in terms if (clause := _wrong(term, alternative, facts, gpu, unknown))), None)
        if wrong is None and terms:
            return ()
        failed += [wrong] if wrong else []
    return tuple(failed)


def _wrong(term: str, alternative: str, facts: Facts, gpu: Gpu | None, unknown: bool) -> Clause | None:
    """None when *term* holds. Raises _Invalid."""
    match = _TERM.fullmatch(term)
    if match is None or match[2] not in _OPERATORS or match[1].lower() not in PROPERTIES:
        raise _Invalid(term)
    name, sign, value = match[1].lower(), match[2], match[3]
    found = _known(facts, gpu)[name]
    if found is None:
        holds = unknown
    elif name == "brand":
        holds = _brand_holds(found, sign, value, term)
    else:
        have, want = version(found), version(value)
        if have is None or want is None:
            raise _Invalid(term)
        holds = _OPERATORS[sign](have, want)
    return None if holds else Clause(alternative=alternative, term=term, found=found or "not known")


def _known(facts: Facts, gpu: Gpu | None) -> dict[str, str | None]:
    known = {"cuda": facts.cuda, "driver": facts.driver, "arch": None, "brand": None}
    return known if gpu is None else known | {"arch": gpu.compute_capability, "brand": gpu.brand}


def _brand_holds(found: str, sign: str, value: str, term: str) -> bool:
    names = {found.lower()} if found.lower() in _BRANDS_OF_OLD else {found.lower(), "unknown"}
    if sign == "=":
        return value.lower() in names
    if sign in ("!=", "!"):
        return value.lower() not in names
    raise _Invalid(term)


def version(text: str) -> tuple[int, ...] | None:
    """Numbers of a version without the zeros at its end: 12.0 is 12. None when it is none."""
    if text.strip("0123456789.") or not text[:1].isdecimal():
        return None
    parts = [part for part in text.split(".") if part]
    if any(len(part) > _LONGEST for part in parts):
        return None
    numbers = [int(part) for part in parts]
    while numbers and numbers[-1] == 0:
        numbers.pop()
    return tuple(numbers)
