"""What a build will be made of: the release, its wheels and Debian packages, each at one version."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import msgspec

from ..errors import Unsupported
from ..layer.compression import Compression
from ..oci.platform import Platform
from .debian import Deb
from .recipes import LayerRecipe, Versions, Wanted
from .records import Packages, Parts, Release
from .wheels import Wheel

if TYPE_CHECKING:
    from .debian import Debian
    from .records import Records
    from .wheels import Wheels

#: {OCI's architecture: (uname's machine, Debian's word)}
MACHINES = {"amd64": ("x86_64", "amd64"), "arm64": ("aarch64", "arm64")}


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """What decides a build besides the recipe."""

    platform: Platform
    #: with the large math libraries
    math: bool = True
    #: look up versions again, also when that was done today
    refresh: bool = False
    compression: Compression = "gzip"
    #: SOURCE_DATE_EPOCH, when the user has set it; else times come from the packages
    epoch: int | None = None


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """A build with nothing left open."""

    wanted: Wanted
    settings: Settings
    versions: Versions
    #: {project: its wheel}
    wheels: Mapping[str, Wheel]
    debs: tuple[Deb, ...]
    #: {flavour: all packages of its tree}, for flavours that bring packages
    flavour_debs: Mapping[str, tuple[Deb, ...]]
    #: no file of the Debian layers is newer; seconds of the epoch
    debian_epoch: int

    @property
    def flavours(self) -> tuple[str, ...]:
        """What is built, lowest first."""
        return self.wanted.recipe.stack(self.wanted.flavour)

    def layers(self, flavour: str) -> tuple[LayerRecipe, ...]:
        """The wheel layers of a flavour that these settings leave in."""
        return layers_of(self.wanted, flavour, self.settings)

    def wheels_of(self, layer: LayerRecipe) -> tuple[Wheel, ...]:
        return tuple(self.wheels[self.versions.fill(name)] for name in layer.wheels)

    def environment(self, flavour: str) -> dict[str, str]:
        """ENV of a flavour with everything below it."""
        env: dict[str, str] = {}
        for name in self.wanted.recipe.stack(flavour):
            recipe = self.wanted.recipe.flavours[name]
            env |= recipe.env
            if self.settings.math:
                env |= recipe.math_env
        return {name: self.versions.fill(value) for name, value in env.items()}


def machine_of(platform: Platform) -> tuple[str, str]:
    """(uname's machine, Debian's architecture). Raises Unsupported where NVIDIA has no wheels."""
    known = MACHINES.get(platform.architecture)
    if known is None:
        raise Unsupported(
            f"no CUDA images for {platform}",
            code="platform-unsupported",
            context="NVIDIA publishes its wheels for linux/amd64 and linux/arm64",
        )
    return known


def make_plan(wanted: Wanted, settings: Settings, *, debian: Debian, wheels: Wheels, records: Records) -> Plan:
    """Look everything up, or take what was found earlier today. Raises what pip and apt say (see programs.py)."""
    machine, _ = machine_of(settings.platform)
    release = _release(wanted, settings, machine, wheels, records)
    versions = Versions(version=release.version, of={}, machine=machine, driver=wanted.recipe.driver)
    parts = _parts(wanted, settings, versions, release, wheels, records)
    packages = _packages(wanted, settings, debian, records)
    return Plan(
        wanted=wanted,
        settings=settings,
        versions=msgspec.structs.replace(versions, of={wheel.project: wheel.version for wheel in parts.wheels}),
        wheels={wheel.project: wheel for wheel in parts.wheels},
        debs=packages.base,
        flavour_debs=packages.flavours,
        debian_epoch=packages.newest if settings.epoch is None else settings.epoch,
    )


def layers_of(wanted: Wanted, flavour: str, settings: Settings) -> tuple[LayerRecipe, ...]:
    return tuple(layer for layer in wanted.recipe.flavours[flavour].layers if settings.math or not layer.math)


def _release(wanted: Wanted, settings: Settings, machine: str, wheels: Wheels, records: Records) -> Release:
    recipe = wanted.recipe

    def find() -> Release:
        version, pins = wheels.requirements(recipe.toolkit, wanted.version, extra=recipe.extra, machine=machine)
        return Release(day=records.day, version=version, pins=pins)

    question = [recipe.toolkit, recipe.extra, wanted.version, machine]
    return records.today(Release, question, find, refresh=settings.refresh)


def _parts(
    wanted: Wanted, settings: Settings, versions: Versions, release: Release, wheels: Wheels, records: Records
) -> Parts:
    """The wheels of every flavour in the stack; those the release does not pin (NCCL) at their newest."""
    names = dict.fromkeys(
        versions.fill(name)
        for flavour in wanted.recipe.stack(wanted.flavour)
        for layer in layers_of(wanted, flavour, settings)
        for name in layer.wheels
    )
    requirements = [name + release.pins.get(name, "") for name in names]

    def find() -> Parts:
        return Parts(day=records.day, wheels=wheels.resolve(requirements))

    return records.today(Parts, [versions.machine, *requirements], find, refresh=settings.refresh)


def _packages(wanted: Wanted, settings: Settings, debian: Debian, records: Records) -> Packages:
    """All sets at once and from the same lists, so that a flavour's tree holds the very packages of the base."""
    release = wanted.recipe.os[wanted.os]
    extra = {name: flavour.packages for name, flavour in wanted.recipe.flavours.items() if flavour.packages}

    def find() -> Packages:
        debian.refresh(release)
        base = debian.resolve(release.packages)
        debian.fetch(base, release)
        flavours = {name: debian.resolve([*release.packages, *more]) for name, more in extra.items()}
        return Packages(day=records.day, base=base, flavours=flavours, newest=debian.newest(base))

    question = [release.codename, debian.architecture, release.packages, extra]
    return records.today(Packages, question, find, refresh=settings.refresh)
