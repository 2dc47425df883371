"""NVIDIA_REQUIRE_*: expressions as libnvidia-container evaluates them."""

from __future__ import annotations

import pytest

from argosy.gpu.branches import CUDA_BY_BRANCH, branch_for, cuda_of
from argosy.gpu.inventory import Gpu
from argosy.gpu.require import Clause, Facts, Failure, Requirement, misspelt, requirements, unmet, version

A100 = Gpu(index=0, minor=0, name="NVIDIA A100", compute_capability="8.0", brand="tesla")
RTX3090 = Gpu(index=1, minor=1, name="NVIDIA GeForce RTX 3090", compute_capability="8.6", brand="geforcertx")
HOST = Facts(driver="535.129.03", cuda="12.2", gpus=(A100,))

#: Of nvidia/cuda:12.4.1-base: any driver that supports 12.4, or an older branch under data-centre and other GPUs.
CUDA_12_4 = (
    "cuda>=12.4 brand=tesla,driver>=470,driver<471 brand=unknown,driver>=470,driver<471 "
    "brand=tesla,driver>=525,driver<526 brand=unknown,driver>=525,driver<526 brand=nvidia,driver>=525,driver<526 "
    "brand=tesla,driver>=535,driver<536 brand=unknown,driver>=535,driver<536"
)


def holds(expression: str, facts: Facts = HOST, *, certain: bool = False) -> bool | str:
    """True or False, or the term that is no expression."""
    failures = unmet({"NVIDIA_REQUIRE_TEST": expression}, facts, certain=certain)
    if failures and failures[0].invalid is not None:
        return failures[0].invalid
    return not failures


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("cuda>=12.2", True),
        ("cuda>=12.10", False),  # numbers, not text
        ("cuda>=9.0", True),
        ("cuda=12.2", True),
        ("cuda=12.2.0", True),
        ("cuda=12", False),
        ("cuda!=12.2", False),
        ("cuda!12.3", True),  # as NVIDIA's own comparison of operators has it
        ("cuda<12.2.1", True),
        ("cuda<=12.2", True),
        ("cuda>12.2", False),
        ("cuda>12", True),
        ("CUDA>=12.2", True),  # an image of NVIDIA's has it so
        ("driver>=535,driver<536", True),
        ("driver>=535.129.3", True),
        ("driver>=535.129.04", False),
        ("arch>=8.0,arch<9", True),
        ("arch>=8.6", False),
        ("brand=tesla", True),
        ("brand=TESLA", True),
        ("brand!=tesla", False),
        ("brand=geforce", False),
        (CUDA_12_4, True),
        ("cuda>=12.4  ,cuda>=12.0,", True),  # empty alternatives and terms say nothing
        ("", True),
        (" ", True),
        (",", True),
        ("cuda>=13 ,", False),
        ("cuda>=13 cuda>=12,brand=geforce cuda>=12,brand=tesla", True),
    ],
)
def test_an_expression_is_an_or_of_ands(expression: str, expected: bool) -> None:
    assert holds(expression) is expected


@pytest.mark.parametrize(
    ("expression", "term"),
    [
        ("cuda", "cuda"),
        ("cuda>=", "cuda>="),
        (">=12", ">=12"),
        ("cuda==12.2", "cuda==12.2"),
        ("cuda=>12.2", "cuda=>12.2"),
        ("cuda>=12.2-beta", "cuda>=12.2-beta"),
        ("cuda>=.5", "cuda>=.5"),
        ("cuda>=1٢", "cuda>=1٢"),
        ("cuda>=" + "9" * 5000, "cuda>=" + "9" * 5000),
        ("brand>tesla", "brand>tesla"),
        ("memory>=80", "memory>=80"),
        ("cuda>=13,memory>=80 nonsense", "nonsense"),  # a term that fails ends its alternative
        ("cuda>=12.4\tcuda>=11", "cuda>=12.4\tcuda>=11"),  # a tab separates nothing
    ],
)
def test_what_is_no_expression_is_named(expression: str, term: str) -> None:
    assert holds(expression) == term


def test_what_stands_behind_an_alternative_that_holds_is_not_read() -> None:
    assert holds("cuda>=11 nonsense") is True


@pytest.mark.parametrize("expression", ["cuda>=99", "arch>=99", "brand=geforce", "driver<1"])
def test_what_is_not_known_counts_as_satisfied_until_it_matters(expression: str) -> None:
    nothing = Facts(gpus=(Gpu(index=0, minor=0),))
    assert holds(expression, nothing) is True
    assert holds(expression, nothing, certain=True) is False


def test_a_property_that_does_not_exist_is_invalid_also_where_nothing_is_known() -> None:
    assert holds("memory>=80", Facts()) == "memory>=80"


def test_newer_brands_are_unknown_ones_to_older_images() -> None:
    facts = Facts(driver="470.57.02", cuda="11.4", gpus=(RTX3090,))
    assert holds("brand=unknown,driver>=470,driver<471", facts) is True
    assert holds("brand!=unknown", facts) is False
    assert holds("brand=unknown", HOST) is False


def test_one_gpu_that_meets_every_requirement_is_enough() -> None:
    facts = Facts(driver="535.1", cuda="12.2", gpus=(A100, RTX3090))
    assert unmet({"NVIDIA_REQUIRE_ARCH": "arch>=8.6"}, facts) == ()
    assert unmet({"NVIDIA_REQUIRE_ARCH": "arch>=8.6", "NVIDIA_REQUIRE_BRAND": "brand=tesla"}, facts) != ()


def test_all_variables_must_hold_and_each_failure_is_explained() -> None:
    environment = {
        "NVIDIA_REQUIRE_CUDA": "cuda>=12.4 brand=geforce",
        "NVIDIA_REQUIRE_ARCH": "arch>=9",
        "PATH": "cuda>=99",
    }
    assert unmet(environment, HOST) == (
        Failure(
            requirement=Requirement(variable="NVIDIA_REQUIRE_CUDA", expression="cuda>=12.4 brand=geforce"),
            clauses=(
                Clause(alternative="cuda>=12.4", term="cuda>=12.4", found="12.2"),
                Clause(alternative="brand=geforce", term="brand=geforce", found="tesla"),
            ),
        ),
        Failure(
            requirement=Requirement(variable="NVIDIA_REQUIRE_ARCH", expression="arch>=9"),
            clauses=(Clause(alternative="arch>=9", term="arch>=9", found="8.0"),),
        ),
    )


@pytest.mark.parametrize(
    ("expression", "sentence", "remedy"),
    [
        (
            CUDA_12_4.replace("535", "999").replace("536", "1000"),
            "unsatisfied condition: cuda>=12.4, please update your driver to a newer version, "
            "or use an earlier cuda container",
            "NVIDIA driver 550 or newer, which supports CUDA 12.4",
        ),
        (
            " cuda>=77.1",
            "unsatisfied condition: cuda>=77.1, please update your driver to a newer version, "
            "or use an earlier cuda container",
            "an NVIDIA driver that supports CUDA 77.1",
        ),
        ("driver>=570,driver<571", "unsatisfied condition: driver>=570,driver<571", "NVIDIA driver 570 or newer"),
        ("arch>=9.0", "unsatisfied condition: arch>=9.0", ""),
        ("cuda<12", "unsatisfied condition: cuda<12", ""),
        ("nonsense", "invalid expression", ""),
    ],
)
def test_a_failure_is_told_in_the_words_that_people_know(expression: str, sentence: str, remedy: str) -> None:
    (failure,) = unmet({"NVIDIA_REQUIRE_CUDA": expression}, HOST)
    assert (failure.sentence, failure.remedy) == (sentence, remedy)


@pytest.mark.parametrize(
    ("environment", "expected"),
    [
        ({}, {}),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=11"}, {"NVIDIA_REQUIRE_CUDA": "cuda>=11"}),
        ({"NVIDIA_REQUIRE_JETPACK": "csv-mounts=all", "NVIDIA_REQUIRE_JETPACK_HOST_MOUNTS": "x"}, {}),
        ({"CUDA_VERSION": "10.1.243"}, {"CUDA_VERSION": "cuda>=10.1"}),
        ({"CUDA_VERSION": "11"}, {"CUDA_VERSION": "cuda>=11.0"}),
        (
            {"CUDA_VERSION": "10.1", "NVIDIA_REQUIRE_CUDA": ""},
            {"NVIDIA_REQUIRE_CUDA": "", "CUDA_VERSION": "cuda>=10.1"},
        ),
        ({"CUDA_VERSION": "10.1", "NVIDIA_REQUIRE_CUDA": "cuda>=9"}, {"NVIDIA_REQUIRE_CUDA": "cuda>=9"}),
        ({"CUDA_VERSION": "cu118"}, {}),  # somebody else's variable
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=11", "NVIDIA_DISABLE_REQUIRE": "1"}, {}),
        ({"CUDA_VERSION": "11.0", "NVIDIA_DISABLE_REQUIRE": "true"}, {}),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=11", "NVIDIA_DISABLE_REQUIRE": "false"}, {"NVIDIA_REQUIRE_CUDA": "cuda>=11"}),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=11", "NVIDIA_DISABLE_REQUIRE": "yes"}, {"NVIDIA_REQUIRE_CUDA": "cuda>=11"}),
        ({"NVIDIA_REQUIRE_CUDA": "cuda>=11", "NVIDIA_DISABLE_REQUIRES": "1"}, {"NVIDIA_REQUIRE_CUDA": "cuda>=11"}),
    ],
)
def test_which_variables_require_something(environment: dict[str, str], expected: dict[str, str]) -> None:
    assert {each.variable: each.expression for each in requirements(environment)} == expected


def test_the_usual_misspelling_is_noticed() -> None:
    assert misspelt({"NVIDIA_DISABLE_REQUIRES": "1"}) == "NVIDIA_DISABLE_REQUIRES"
    assert misspelt({"NVIDIA_DISABLE_REQUIRE": "1"}) is None


@pytest.mark.parametrize(
    ("driver", "cuda"),
    [
        ("535.129.03", "12.2"),
        ("545.23.06", "12.3"),
        ("418.87", "10.1"),
        ("580.65.06", "13.0"),
        ("594.1", "13.1"),
        ("999.88.77", None),  # newer than what this release knows
        ("304.137", None),
        ("nonsense", None),
        ("", None),
    ],
)
def test_the_branch_of_a_driver_says_which_cuda_it_supports(driver: str, cuda: str | None) -> None:
    assert cuda_of(driver) == cuda


def test_the_first_branch_for_a_cuda_is_found_again() -> None:
    for branch, cuda in CUDA_BY_BRANCH.items():
        assert branch_for(version(cuda) or ()) == branch
    assert branch_for((12, 4, 1)) == 550
    assert branch_for((99,)) is None
