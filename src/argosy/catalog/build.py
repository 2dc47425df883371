"""From a recipe to images in the store: a plan, its layers, and the manifests that tie them together."""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import Corrupt
from ..linux.files import remove_tree, reporting
from ..linux.locks import locked
from ..oci.config import History, ImageConfig
from ..oci.digest import Digest
from ..oci.manifest import Manifest, encode_manifest
from ..oci.wire import encode
from ..store.refs import Summary
from .layers import Layers
from .plan import make_plan
from .records import Made

if TYPE_CHECKING:
    from collections.abc import Iterator

    from ..store.blobs import BlobStore
    from .debian import Debian
    from .layers import Report
    from .plan import Plan, Settings
    from .recipes import Wanted
    from .records import Records
    from .wheels import Wheels

_WORK = "argosy-catalog-"  # how the names of work folders begin


class Built(msgspec.Struct, frozen=True, kw_only=True):
    """One image in the store, and the tags that it is to have, NVIDIA's own form first."""

    flavour: str
    tags: tuple[str, ...]
    manifest: Manifest
    config: ImageConfig
    layers: tuple[Made, ...]

    @property
    def summary(self) -> Summary:
        return Summary(
            manifest=self.manifest.descriptor,
            image_id=self.manifest.config.digest,
            created=self.config.created,
            size=sum(layer.size for layer in self.layers),
        )


def build(
    wanted: Wanted,
    settings: Settings,
    *,
    blobs: BlobStore,
    debian: Debian,
    wheels: Wheels,
    records: Records,
    cache: Path,
    report: Report,
) -> tuple[Built, ...]:
    """Make *wanted* and what it stands on, lowest first; all content is in the store then, nothing has a name yet.

    Only one build uses *cache* at a time, another one waits. Raises NotFound
    (release-unknown), Unsupported (program-missing, keyring-missing), Unavailable
    (network-unavailable), Exhausted (disk-full), Corrupt (digest-mismatch),
    RuntimeFailed (program-failed).
    """
    with reporting("build in", cache), _blaming(wheels.folder):
        os.makedirs(cache, exist_ok=True)
        with locked(cache / "lock", lasting=True), _work_folder(cache) as work:
            plan = make_plan(wanted, settings, debian=debian, wheels=wheels, records=records)
            layers = Layers(plan, blobs=blobs, debian=debian, wheels=wheels, records=records, work=work, report=report)
            with ThreadPoolExecutor(2) as pool:  # Debian installs in two processes while wheels are compressed here
                layers.start(pool)
                layers.begin_wheels()
                return _images(plan, layers, blobs)


@contextmanager
def _blaming(folder: Path) -> Iterator[None]:
    """Whoever opens a wheel does not know how to mend it."""
    try:
        yield
    except zipfile.BadZipFile as error:
        raise Corrupt(
            "a wheel is damaged",
            code="wheel-damaged",
            context=f"{error}, in {folder}",
            hint="remove that folder and run the command again",
        ) from error


def _images(plan: Plan, layers: Layers, blobs: BlobStore) -> tuple[Built, ...]:
    base = layers.os()
    stack = [base]
    built = []
    for flavour in plan.flavours:
        packages = layers.packages(flavour, base)
        if packages is not None:
            stack.append(packages)
        for layer in layers.wheel_layers(flavour, tuple(stack)):
            stack.append(layer)
        built.append(_image(plan, flavour, tuple(stack), blobs))
    return tuple(built)


def _image(plan: Plan, flavour: str, layers: tuple[Made, ...], blobs: BlobStore) -> Built:
    wanted = plan.wanted
    tag = wanted.full_tag(plan.versions.version, flavour)
    execution: dict[str, object] = {
        "Env": [f"{name}={value}" for name, value in plan.environment(flavour).items()],
        "Cmd": ["/bin/bash"],
        "Labels": _labels(plan, flavour, tag),
    }
    for name in wanted.recipe.stack(flavour):
        if wanted.recipe.flavours[name].entrypoint is not None:
            execution["Entrypoint"] = wanted.recipe.flavours[name].entrypoint
    config = ImageConfig.scratch(plan.settings.platform).with_(
        execution=execution,
        diff_ids=tuple(layer.diff_id for layer in layers),
        history=tuple(_history(layer) for layer in layers),
        created=_moment(max(layer.created for layer in layers)),
    )
    manifest = encode_manifest(
        blobs.put(config.raw, config.descriptor.media_type), tuple(layer.descriptor for layer in layers)
    )
    blobs.put(manifest.raw, manifest.descriptor.media_type)
    return Built(flavour=flavour, tags=_tags(plan, flavour, tag), manifest=manifest, config=config, layers=layers)


def _labels(plan: Plan, flavour: str, tag: str) -> dict[str, str]:
    """What the image is, and exactly which files it was made of: wheels as pip's requirements, Debian as one digest."""
    wheels = {
        wheel.project: wheel
        for name in plan.wanted.recipe.stack(flavour)
        for layer in plan.layers(name)
        for wheel in plan.wheels_of(layer)
    }
    debs = plan.debs
    for name in plan.wanted.recipe.stack(flavour):
        debs = plan.flavour_debs.get(name, debs)
    return {
        "maintainer": "the Argosy catalogue",
        "org.opencontainers.image.title": plan.wanted.recipe.name,
        "org.opencontainers.image.version": tag,
        "com.nvidia.cuda.version": plan.versions.version,
        "argosy.catalog.debian": f"{len(debs)} packages, {Digest.of(encode(debs))}",
        "argosy.catalog.wheels": "\n".join(
            f"{wheel.project}=={wheel.version} --hash=sha256:{wheel.sha256}" for wheel in wheels.values()
        ),
    }


def _tags(plan: Plan, flavour: str, full: str) -> tuple[str, ...]:
    """«13.5.0-devel-debian12», «13-devel», and what was typed when that is neither."""
    short = f"{plan.versions.major}-{flavour}"
    typed = (plan.wanted.tag,) if flavour == plan.wanted.flavour else ()
    return tuple(dict.fromkeys((full, short, *typed)))


def _history(layer: Made) -> History:
    return History(created=_moment(layer.created), created_by=layer.created_by)


def _moment(seconds: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(seconds))


@contextmanager
def _work_folder(cache: Path) -> Iterator[Path]:
    """A folder for unpacked trees on the way; the subordinate user that installs without root must pass through it.

    Root uses the store's disk; others /tmp (or TMPDIR), because home folders are often closed to
    everybody else. What a killed build left goes first: nobody else builds while we hold the lock.
    """
    for left in cache.glob(f"{_WORK}*"):
        remove_tree(left)
    path = Path(tempfile.mkdtemp(prefix=_WORK, dir=cache if os.geteuid() == 0 else None))
    try:
        os.chmod(path, 0o755)
        yield path
    finally:
        remove_tree(path)
