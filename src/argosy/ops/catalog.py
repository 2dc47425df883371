"""The catalogue's verbs: build images from recipes and name them, list what there is, describe one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..catalog import recipes
from ..catalog.build import build as build_images
from ..catalog.debian import Debian
from ..catalog.plan import Settings, machine_of
from ..catalog.records import Records
from ..catalog.wheels import Wheels
from ..oci.reference import Reference
from .progress import Finished, Started, Warned, silent

if TYPE_CHECKING:
    from pathlib import Path

    from ..catalog.build import Built
    from ..catalog.recipes import Recipe
    from ..catalog.records import Made
    from ..store.blobs import BlobStore
    from ..store.refs import RefRecord, RefStore
    from .progress import Progress


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """One image that the catalogue can build."""

    name: str
    summary: str


class Description(msgspec.Struct, frozen=True, kw_only=True):
    """What an image will be made of, before any version is looked up."""

    name: str
    summary: str
    os: str
    on: str | None
    #: of the distribution, beyond those of the OS layer
    packages: tuple[str, ...]
    #: (title, wheels); those above *math* only with the math libraries
    layers: tuple[tuple[str, tuple[str, ...]], ...]
    math_layers: tuple[tuple[str, tuple[str, ...]], ...]
    env: Mapping[str, str]


def build(
    name: str,
    settings: Settings,
    *,
    blobs: BlobStore,
    refs: RefStore,
    cache: Path,
    apt: Path,
    environ: Mapping[str, str],
    wheels: Path | None = None,
    prefix: str = "",
    folder: Path | None = None,
    progress: Progress = silent,
) -> tuple[RefRecord, ...]:
    """Build what «nvidia/cuda:13-devel» names and all it stands on, and tag each; names in the order of the stack.

    *cache* is the store's folder of derived files; *wheels* another place for
    downloads; *prefix* goes before every name («localhost:5000/»); *apt* is the
    host's /etc/apt; *folder* holds recipes to use instead of ours. Names are set
    last, when every image is complete. Raises what catalog.build raises, and NotFound
    (recipe-unknown, recipe-tag-unknown) with near names.
    """
    wanted = recipes.wanted(name, recipes.load(folder))
    _, architecture = machine_of(settings.platform)
    Reference.parse(f"{prefix}{name}")  # a bad prefix is found before an hour of work

    def report(title: str, layer: Made | None, made: bool) -> None:
        if layer is None:
            progress(Started(title, None, "Building"))
        else:
            progress(Finished(title, "Built" if made else "Already built"))

    built = build_images(
        wanted,
        settings,
        blobs=blobs,
        debian=Debian(cache / "apt", architecture=architecture, environ=environ, apt=apt),
        wheels=Wheels(wheels or cache / "wheels", environ=environ),
        records=Records(cache / "catalog", warn=lambda text: progress(Warned(text))),
        cache=cache / "catalog",
        report=report,
    )
    return tuple(record for image in built for record in _name(image, f"{prefix}{wanted.recipe.name}", refs))


def offers(folder: Path | None = None) -> tuple[Offer, ...]:
    """Every image under its short tag."""
    return tuple(
        Offer(name=f"{recipe.name}:{tag}", summary=_summary(recipe, tag.partition("-")[2]))
        for recipe in recipes.load(folder)
        for tag in recipe.tags()
    )


def describe(name: str, *, folder: Path | None = None) -> tuple[Description, ...]:
    """The image *name*, or every image of a recipe named without a tag. Raises NotFound with near names."""
    known = recipes.load(folder)
    if ":" in name:
        wanted = recipes.wanted(name, known)
        return (_described(wanted.recipe, name.partition(":")[2], wanted.flavour, wanted.os),)
    recipe = recipes.find(name, known)
    return tuple(_described(recipe, tag, tag.partition("-")[2], recipe.default_os) for tag in recipe.tags())


def _described(recipe: Recipe, tag: str, flavour: str, os: str) -> Description:
    parts = recipe.flavours[flavour]
    return Description(
        name=f"{recipe.name}:{tag}",
        summary=_summary(recipe, flavour),
        os=recipe.os[os].title,
        on=parts.on,
        packages=parts.packages,
        layers=tuple((layer.title, layer.wheels) for layer in parts.layers if not layer.math),
        math_layers=tuple((layer.title, layer.wheels) for layer in parts.layers if layer.math),
        env=dict(parts.env) | dict(parts.math_env),
    )


def _summary(recipe: Recipe, flavour: str) -> str:
    """A flavour is described by what it adds, so the whole is said from the bottom up."""
    return ", ".join(recipe.flavours[name].summary for name in recipe.stack(flavour))


def _name(image: Built, repository: str, refs: RefStore) -> list[RefRecord]:
    descriptor = image.manifest.descriptor
    return [refs.set(Reference.parse(f"{repository}:{tag}"), descriptor, summary=image.summary) for tag in image.tags]
