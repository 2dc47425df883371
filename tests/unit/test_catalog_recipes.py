"""Recipes: the shipped one is sound, names find what they should, mistakes are explained."""

from __future__ import annotations

import re
from importlib import resources

import pytest

from argosy.catalog import recipes
from argosy.catalog.recipes import Versions
from argosy.errors import InvalidInput, NotFound
from argosy.oci.reference import Reference

SHIPPED = recipes.load()
CUDA = recipes.find("nvidia/cuda", SHIPPED)
VERSIONS = Versions(
    version="13.5.0", of={"nvidia-cuda-runtime": "13.5.37", "nvidia-nccl-cu13": "2.3"}, machine="x86_64", driver="580"
)


def test_the_shipped_recipe_offers_the_three_platform_images() -> None:
    assert CUDA.tags() == ("13-base", "13-runtime", "13-devel")
    assert CUDA.stack("devel") == ("base", "runtime", "devel")
    assert CUDA.stack("base") == ("base",)


def test_recipes_name_packages_and_never_addresses() -> None:
    for file in resources.files("argosy.catalog").joinpath("recipes").iterdir():
        assert re.search(r"https?://|\d+\.\d+\.\d+\.\d+:\d+", file.read_text()) is None


@pytest.mark.parametrize(
    ("name", "version", "flavour", "os"),
    [
        ("nvidia/cuda:13-devel", "13", "devel", "debian12"),
        ("nvidia/cuda:13.5-runtime", "13.5", "runtime", "debian12"),
        ("nvidia/cuda:13.5.0-base-debian12", "13.5.0", "base", "debian12"),
    ],
)
def test_a_name_says_version_flavour_and_os(name: str, version: str, flavour: str, os: str) -> None:
    wanted = recipes.wanted(name, SHIPPED)
    assert (wanted.version, wanted.flavour, wanted.os, wanted.recipe) == (version, flavour, os, CUDA)


def test_tags_have_nvidias_form() -> None:
    tag = recipes.wanted("nvidia/cuda:13-devel", SHIPPED).full_tag("13.5.0", "devel")
    assert tag == "13.5.0-devel-debian12"
    assert Reference.parse(f"nvidia/cuda:{tag}").tag == tag


@pytest.mark.parametrize(
    ("name", "code", "near"),
    [
        ("nvidia/cude:13-devel", "recipe-unknown", "nvidia/cuda"),
        ("nvidia/cuda:13-devl", "recipe-tag-unknown", "nvidia/cuda:13-devel"),
        ("nvidia/cuda:12-devel", "recipe-tag-unknown", "nvidia/cuda:13-devel"),
        ("nvidia/cuda:130-devel", "recipe-tag-unknown", "nvidia/cuda:13-devel"),
        ("nvidia/cuda:13-devel-ubuntu2404", "recipe-tag-unknown", "nvidia/cuda:13-devel"),
        ("nvidia/cuda", "recipe-tag-unknown", "nvidia/cuda:13-base"),
        ("nvidia/cuda:latest", "recipe-tag-unknown", "nvidia/cuda:13-base"),
    ],
)
def test_an_unknown_name_suggests_near_ones(name: str, code: str, near: str) -> None:
    with pytest.raises(NotFound) as caught:
        recipes.wanted(name, SHIPPED)
    assert caught.value.code == code
    assert near in caught.value.hint


def test_placeholders_are_filled_in() -> None:
    assert VERSIONS.fill(CUDA.root) == "usr/local/cuda-13.5"
    assert VERSIONS.fill("cuda>={short} driver>={driver}") == "cuda>=13.5 driver>=580"
    assert (
        VERSIONS.fill("{of[nvidia-nccl-cu{major}]} on {target}, {triplet}") == "2.3 on x86_64-linux, x86_64-linux-gnu"
    )


def test_servers_with_arm_are_sbsa() -> None:
    arm = Versions(version="13.5.0", of={}, machine="aarch64")
    assert arm.fill("{nvarch} {target} {triplet}") == "sbsa sbsa-linux aarch64-linux-gnu"


@pytest.mark.parametrize(
    ("change", "fault"),
    [
        (("name =", "nam ="), "unknown field `nam`"),
        (('on = "base"', 'on = "bose"'), "stands on 'bose'"),
        (('default_os = "debian12"', 'default_os = "debian99"'), "no os 'debian99'"),
        (('take = "libraries"', 'take = "everything"'), "$.flavours[...].layers[0].take"),
        (("[os.debian12]", "[os.debian12"), "line"),
    ],
)
def test_a_bad_recipe_says_where_it_is_bad(change: tuple[str, str], fault: str) -> None:
    text = resources.files("argosy.catalog").joinpath("recipes/cuda.toml").read_text()
    assert change[0] in text
    with pytest.raises(InvalidInput) as caught:
        recipes.parse(text.replace(*change), "mine.toml")
    assert (caught.value.code, caught.value.message) == ("recipe-invalid", "recipe mine.toml is not valid")
    assert fault in caught.value.context
