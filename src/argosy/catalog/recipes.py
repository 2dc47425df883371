"""Recipes: what an image of the catalogue is made of, as data.

A recipe names packages, never addresses. This module reads them, finds the one
that a user asks for, and fills in versions; it fetches nothing.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping
from importlib import resources
from typing import TYPE_CHECKING, Literal

import msgspec

from ..errors import Error, InvalidInput, NotFound

if TYPE_CHECKING:
    from pathlib import Path

Take = Literal["libraries", "development", "all"]

_TAG = re.compile(r"(?P<version>\d+(?:\.\d+){0,2})(?:-(?P<flavour>[a-z]+))?(?:-(?P<os>[a-z]+\d+))?")


class LayerRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One layer of wheels. *take* «libraries» leaves out what only a compiler needs; «development» is the rest."""

    title: str
    wheels: tuple[str, ...] = ()
    take: Take = "all"
    #: one of the large math libraries, which --without-math leaves out
    math: bool = False


class Flavour(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One image of a family: layers and settings on top of the flavour *on*."""

    summary: str
    on: str | None = None
    #: packages of the distribution, a layer of their own below this flavour's wheels
    packages: tuple[str, ...] = ()
    layers: tuple[LayerRecipe, ...] = ()
    env: Mapping[str, str] = {}
    math_env: Mapping[str, str] = {}
    entrypoint: tuple[str, ...] | None = None


class OsRecipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The lowest layer: a Debian release and the packages (names and apt patterns) that it begins with."""

    title: str
    codename: str
    packages: tuple[str, ...]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A family of images that share layers."""

    name: str
    summary: str
    toolkit: str
    extra: str
    series: tuple[str, ...]
    driver: str
    default_os: str
    root: str
    layout: Mapping[str, str]
    os: Mapping[str, OsRecipe]
    flavours: Mapping[str, Flavour]

    def stack(self, flavour: str) -> tuple[str, ...]:
        """Names of the flavours that *flavour* stands on, lowest first, itself last."""
        names: list[str] = []
        step: str | None = flavour
        while step is not None:
            names.append(step)
            step = self.flavours[step].on
        return tuple(reversed(names))

    def tags(self) -> tuple[str, ...]:
        """The short tags on offer, in the order of the recipe."""
        return tuple(f"{series}-{flavour}" for series in self.series for flavour in self.flavours)


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """What a user asked for: a flavour of a recipe, at a version that may leave parts open («13»)."""

    recipe: Recipe
    version: str
    flavour: str
    os: str
    #: the tag as typed
    tag: str

    def full_tag(self, version: str, flavour: str) -> str:
        """NVIDIA's form: 13.5.0-devel-debian12."""
        return f"{version}-{flavour}-{self.os}"


class Versions(msgspec.Struct, frozen=True, kw_only=True):
    """One release, resolved: what {…} in a recipe stands for."""

    version: str
    #: {project on the Python index: version}
    of: Mapping[str, str]
    machine: str
    driver: str = ""

    @property
    def short(self) -> str:
        return ".".join(self.version.split(".")[:2])

    @property
    def major(self) -> str:
        return self.version.partition(".")[0]

    @property
    def target(self) -> str:
        """NVIDIA's name of the folder under targets/; servers with ARM are «sbsa»."""
        return "x86_64-linux" if self.machine == "x86_64" else "sbsa-linux"

    def fill(self, text: str, **more: str) -> str:
        """*text* with each {…} replaced; a package's own name may hold {major}."""
        plain = text.replace("{major}", self.major)
        return plain.format(
            version=self.version,
            short=self.short,
            driver=self.driver,
            target=self.target,
            triplet=f"{self.machine}-linux-gnu",
            nvarch="x86_64" if self.machine == "x86_64" else "sbsa",
            of=self.of,
            **more,
        )


def load(folder: Path | None = None) -> tuple[Recipe, ...]:
    """All recipes by name: those of the package, or those of *folder*. Raises InvalidInput (recipe-invalid)."""
    place = resources.files(__package__).joinpath("recipes") if folder is None else folder
    files = sorted((f for f in place.iterdir() if f.name.endswith(".toml")), key=lambda file: file.name)
    return tuple(parse(file.read_text(encoding="utf-8"), file.name) for file in files)


def parse(text: str, name: str) -> Recipe:
    """The recipe in a file called *name*. Raises InvalidInput (recipe-invalid) with the path of the first fault."""
    try:
        recipe = msgspec.convert(tomllib.loads(text), Recipe)
    except (tomllib.TOMLDecodeError, msgspec.ValidationError) as error:
        raise InvalidInput(f"recipe {name} is not valid", code="recipe-invalid", context=str(error)) from error
    for title, flavour in recipe.flavours.items():
        if flavour.on is not None and flavour.on not in recipe.flavours:
            raise InvalidInput(
                f"recipe {name} is not valid",
                code="recipe-invalid",
                context=f"flavour {title!r} stands on {flavour.on!r}, which does not exist",
            )
    if recipe.default_os not in recipe.os:
        raise InvalidInput(
            f"recipe {name} is not valid", code="recipe-invalid", context=f"no os {recipe.default_os!r} in it"
        )
    return recipe


def find(name: str, recipes: tuple[Recipe, ...]) -> Recipe:
    """The recipe called *name*, without a tag. Raises NotFound (recipe-unknown) with near names."""
    for recipe in recipes:
        if recipe.name == name:
            return recipe
    raise _unknown(f"the catalogue has no recipe {name!r}", name, [recipe.name for recipe in recipes], "recipe-unknown")


def wanted(name: str, recipes: tuple[Recipe, ...]) -> Wanted:
    """What «nvidia/cuda:13-devel» asks for. Raises NotFound (recipe-unknown, recipe-tag-unknown) with near names."""
    repository, colon, tag = name.partition(":")
    recipe = find(repository, recipes)
    match = _TAG.fullmatch(tag) if colon else None
    offered = [f"{recipe.name}:{tag}" for tag in recipe.tags()]
    if match is None or not _offers(recipe, match):
        raise _unknown(f"the catalogue has no recipe for {name!r}", name, offered, "recipe-tag-unknown")
    return Wanted(
        recipe=recipe, version=match["version"], flavour=match["flavour"], os=match["os"] or recipe.default_os, tag=tag
    )


def _offers(recipe: Recipe, match: re.Match[str]) -> bool:
    series = any(f"{match['version']}.".startswith(f"{series}.") for series in recipe.series)
    return series and match["flavour"] in recipe.flavours and (match["os"] or recipe.default_os) in recipe.os


def _unknown(message: str, name: str, offered: list[str], code: str) -> Error:
    import difflib

    near = difflib.get_close_matches(name, offered, 3, 0.4)
    return NotFound(
        message,
        code=code,
        context=f"it has {', '.join(offered)}" if offered else "it is empty",
        hint=f"did you mean {' or '.join(near)}?" if near else "argosy catalog ls",
    )
