"""NVIDIA_REQUIRE_*: an image writes what it likes, and any expression is satisfied, not satisfied or invalid."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from argosy.gpu.inventory import Gpu
from argosy.gpu.require import Facts, unmet

_PROPERTIES = st.sampled_from(["cuda", "driver", "arch", "brand", "CUDA", "memory", ""])
_SIGNS = st.sampled_from(["=", "!=", "<", "<=", ">", ">=", "!", "==", "=>", ""])
_VALUES = st.one_of(st.sampled_from(["12.2", "535", "8.0", "tesla", ".", "", "1..2", "0"]), st.text(max_size=5))
_TERMS = st.one_of(st.text(max_size=8), st.builds("{}{}{}".format, _PROPERTIES, _SIGNS, _VALUES))
EXPRESSIONS = st.lists(st.lists(_TERMS, max_size=3).map(",".join), max_size=4).map(" ".join)
HOST = Facts(driver="535.1", cuda="12.2", gpus=(Gpu(index=0, minor=0, compute_capability="8.0", brand="tesla"),))


def is_met(expression: str, facts: Facts, *, certain: bool = False) -> bool:
    return not unmet({"NVIDIA_REQUIRE_ANY": expression}, facts, certain=certain)


@given(EXPRESSIONS)
def test_any_expression_is_judged_and_explained(expression: str) -> None:
    for failure in unmet({"NVIDIA_REQUIRE_ANY": expression}, HOST):
        assert (failure.invalid is None) == bool(failure.clauses)
        assert failure.sentence


@given(EXPRESSIONS)
def test_whoever_knows_more_is_not_refused_less(expression: str) -> None:
    """With nothing known every valid expression holds, and certainty never satisfies what doubt does not."""
    assert is_met(expression, HOST) == is_met(expression, HOST, certain=True)
    if is_met(expression, Facts(), certain=True):
        assert is_met(expression, Facts())


@given(st.text("0123456789.", min_size=1, max_size=8), st.text("0123456789.", min_size=1, max_size=8))
def test_the_six_operators_agree_about_two_versions(have: str, want: str) -> None:
    facts = Facts(cuda=have)
    if unmet({"NVIDIA_REQUIRE_ANY": f"cuda={want}"}, facts) and is_met(f"cuda!={want}", facts) is False:
        return  # one of the two is no version
    less, equal, more = (is_met(f"cuda{sign}{want}", facts) for sign in "<=>")
    assert [less, equal, more].count(True) == 1
    assert is_met(f"cuda<={want}", facts) == (less or equal)
    assert is_met(f"cuda>={want}", facts) == (more or equal)
    assert is_met(f"cuda!={want}", facts) == (less or more)
