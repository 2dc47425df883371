"""Each kind of layer of the catalogue, made from the parts of a plan and stored."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

from ..layer.compression import decompressed
from ..oci.digest import Digest
from ..oci.wire import encode
from . import tree
from .debian import LEFT_OUT
from .layout import CudaLayout, newest_member, versions_file
from .records import Made
from .sources import image_sources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from concurrent.futures import Future, ThreadPoolExecutor
    from pathlib import Path

    from ..store.blobs import BlobStore
    from .debian import Deb, Debian
    from .plan import Plan
    from .recipes import LayerRecipe
    from .records import Records
    from .tree import Member, Tree
    from .wheels import Wheel, Wheels

    Report = Callable[[str, Made | None, bool], None]

_LOADER_CACHE = b"etc/ld.so.cache"
#: No service starts by itself in a container. Source: Debian policy, 9.3.3.1 and invoke-rc.d(8).
_POLICY = "#!/bin/sh\nexit 101\n"
#: What is downloaded does not stay in layers that are made on top.
_APT = (
    'DPkg::Post-Invoke { "rm -f /var/cache/apt/archives/*.deb /var/cache/apt/archives/partial/*.deb || true"; };\n'
    'Dir::Cache::pkgcache "";\nDir::Cache::srcpkgcache "";\n'
    'Acquire::Languages "none";\nAcquire::GzipIndexes "true";\n'
)


class Layers:
    """Makes the layers of one plan, or finds those that are made already.

    *report* is called with (title, None, True) before a layer is made and with
    (title, layer, whether it was made) after.
    """

    def __init__(
        self,
        plan: Plan,
        *,
        blobs: BlobStore,
        debian: Debian,
        wheels: Wheels,
        records: Records,
        work: Path,
        report: Report,
    ) -> None:
        self._plan = plan
        self._blobs = blobs
        self._debian = debian
        self._wheels = wheels
        self._records = records
        self._work = work
        self._report = report
        self._layout = CudaLayout(plan.wanted.recipe, plan.versions)
        self._os = plan.wanted.recipe.os[plan.wanted.os]
        #: {flavour, "" for the base: the installed tree as a tar}, for those that are being made
        self._trees: dict[str, Future[Path]] = {}
        #: {encoded key: layer}, for those that this build has already
        self._made: dict[bytes, Made] = {}

    def start(self, pool: ThreadPoolExecutor) -> None:
        """Begin to install the Debian trees that will be needed; they take longest, so they go first."""
        for flavour, debs in [("", self._plan.debs), *self._plan.flavour_debs.items()]:
            needed = flavour in ("", *self._plan.flavours)
            if needed and self._records.find_layer(self._debian_key(debs), self._blobs) is None:
                self._trees[flavour] = pool.submit(self._assemble, flavour, debs)

    def begin_wheels(self) -> None:
        """Make the CUDA layers that need to know nothing of those below, while Debian installs."""
        for flavour in self._plan.flavours:
            recipes = self._plan.layers(flavour)
            for number, recipe in enumerate(recipes[:-1]):
                if recipe.take != "development":
                    self._wheel_layer(flavour, recipe, [], number == 0, False)

    def os(self) -> Made:
        """The lowest layer: Debian."""
        return self._layer(self._os.title, self._debian_key(self._plan.debs), self._make_os)

    def packages(self, flavour: str, os: Made) -> Made | None:
        """The distribution's packages of a flavour, as the difference to *os*; None when it brings none."""
        debs = self._plan.flavour_debs.get(flavour)
        if debs is None:
            return None
        title = f"host compiler ({self._names(flavour)})"
        return self._layer(title, self._debian_key(debs), lambda: self._make_packages(flavour, debs, os))

    def wheel_layers(self, flavour: str, below: Sequence[Made]) -> Iterator[Made]:
        """The CUDA layers of a flavour, lowest first, on top of *below*."""
        made = list(below)
        recipes = self._plan.layers(flavour)
        for number, recipe in enumerate(recipes):
            layer = self._wheel_layer(flavour, recipe, made, number == 0, number == len(recipes) - 1)
            made.append(layer)
            yield layer

    def _layer(self, title: str, key: object, make: Callable[[], Made]) -> Made:
        name = encode(key, order="sorted")
        if name in self._made:
            return self._made[name]
        made = self._records.find_layer(key, self._blobs)
        if made is not None:
            self._report(title, made, False)
        else:
            self._report(title, None, True)
            made = make()
            self._records.keep_layer(key, made)
            self._report(title, made, True)
        self._made[name] = made
        return made

    # -- Debian

    def _debian_key(self, debs: Sequence[Deb]) -> object:
        plan = self._plan
        files = [member.data for member in self._own_files(0) if isinstance(member.data, bytes)]
        return [
            "debian",
            self._os.codename,
            self._debian.architecture,
            LEFT_OUT,
            str(Digest.of(b"\0".join(files))),
            plan.debian_epoch,
            plan.settings.compression,
            [str(Digest.of(encode(part))) for part in (plan.debs, debs)],
        ]

    def _assemble(self, flavour: str, debs: Sequence[Deb]) -> Path:
        self._debian.fetch(debs, self._os)
        name = flavour or "base"
        work = self._work / name
        work.mkdir(mode=0o755)
        target = self._work / f"{name}.tar"
        self._debian.assemble(debs, self._os, epoch=self._plan.debian_epoch, work=work, target=target)
        return target

    def _tree(self, flavour: str, debs: Sequence[Deb]) -> dict[bytes, Member]:
        """The cleaned tree with our own files in it."""
        pending = self._trees.get(flavour)
        tar = pending.result() if pending is not None else self._assemble(flavour, debs)
        epoch = self._plan.debian_epoch
        return tree.cleaned(tree.read(tar), self._own_files(epoch), epoch=epoch)

    def _own_files(self, epoch: int) -> Iterator[Member]:
        """What mmdebstrap took from the building host, made neutral, and Debian's own settings for containers.

        The three empty files are where a runtime mounts its own; without them every
        container would leave new ones in its layer.
        """
        for path in ("etc/hostname", "etc/hosts", "etc/resolv.conf"):
            yield tree.file(path, b"", epoch=epoch)
        yield tree.file("etc/apt/sources.list.d/debian.sources", image_sources(self._os.codename), epoch=epoch)
        yield tree.file("etc/apt/apt.conf.d/90container", _APT, epoch=epoch)
        yield tree.file("usr/sbin/policy-rc.d", _POLICY, epoch=epoch, mode=0o755)

    def _make_os(self) -> Made:
        plan = self._plan
        content = self._tree("", plan.debs)
        return self._store(
            content,
            title=self._os.title,
            created=plan.debian_epoch,
            created_by=f"{self._os.title}, {len(plan.debs)} packages",
            loader_cache=_bytes_of(content[_LOADER_CACHE]),
        )

    def _make_packages(self, flavour: str, debs: Sequence[Deb], os: Made) -> Made:
        content = self._tree(flavour, debs)
        loader_cache = _bytes_of(content.pop(_LOADER_CACHE))
        with decompressed(self._blobs.open(os.descriptor)) as stream:
            lower = tree.fingerprints(stream)
        lower.pop(_LOADER_CACHE, None)  # the flavour's last layer brings one that lists everything
        more = sorted({deb.file for deb in debs} - {deb.file for deb in self._plan.debs})
        newest = self._debian.newest(debs)
        return self._store(
            tree.difference(lower, content),
            title="host compiler",
            created=newest if self._plan.settings.epoch is None else self._plan.settings.epoch,
            created_by=f"host compiler: {self._names(flavour)} of {self._os.title}, {len(more)} packages",
            loader_cache=loader_cache,
        )

    # -- CUDA

    def _wheel_layer(self, flavour: str, recipe: LayerRecipe, below: list[Made], first: bool, last: bool) -> Made:
        plan = self._plan
        wheels = self._development_wheels() if recipe.take == "development" else plan.wheels_of(recipe)
        key = [
            "wheels",
            msgspec.structs.asdict(recipe),
            plan.wanted.recipe.root,
            plan.wanted.recipe.layout,
            plan.versions.version,
            plan.versions.machine,
            [(wheel.file, wheel.sha256) for wheel in wheels],
            first,
            # The last layer of a flavour knows everything below it.
            [str(layer.diff_id) for layer in below] if last or recipe.take == "development" else [],
            plan.settings.epoch,
            plan.settings.compression,
        ]
        return self._layer(
            recipe.title, key, lambda: self._make_wheel_layer(flavour, recipe, wheels, below, first, last)
        )

    def _make_wheel_layer(
        self, flavour: str, recipe: LayerRecipe, wheels: Sequence[Wheel], below: list[Made], first: bool, last: bool
    ) -> Made:
        plan, layout = self._plan, self._layout
        self._wheels.ensure(wheels)
        paths = [self._wheels.path(wheel) for wheel in wheels]
        epoch = plan.settings.epoch if plan.settings.epoch is not None else max(map(newest_member, paths))
        libraries_below = [path for layer in below for path in layer.libraries]
        members = [member for path in paths for member in layout.members(path, recipe.take)]
        flavour_recipe = plan.wanted.recipe.flavours[flavour]
        if first and flavour_recipe.on is None:
            members += layout.foundation(layout.licence(paths[0]), epoch=epoch)
        if first and flavour_recipe.entrypoint is not None:
            members += layout.entrypoint(epoch=epoch)
        if recipe.take != "development":  # then the libraries' layer has it
            members += layout.licences(wheels, paths, epoch=epoch)
        else:
            members += layout.development(libraries_below, self._header, epoch=epoch)
        libraries = [path for member in members if layout.is_library(path := member.entry.path.decode())]
        if last:
            members += self._closing(flavour, [*libraries_below, *libraries], below, epoch)
        described = ", ".join(f"{wheel.project} {wheel.version}" for wheel in wheels)
        return self._store(
            tree.tree_of(members, epoch=epoch),
            title=recipe.title,
            created=epoch,
            created_by=f"{recipe.title}: {described}",
            libraries=tuple(libraries),
        )

    def _closing(self, flavour: str, libraries: Iterable[str], below: list[Made], epoch: int) -> Iterator[Member]:
        """What describes the image as a whole: the loader's list of libraries, version.json."""
        layout, plan = self._layout, self._plan
        debian = next(layer.loader_cache for layer in reversed(below) if layer.loader_cache)
        yield tree.file(_LOADER_CACHE.decode(), layout.loader_cache(debian, libraries), epoch=epoch)
        here = {
            wheel.project: wheel.version
            for name in plan.wanted.recipe.stack(flavour)
            for layer in plan.layers(name)
            for wheel in plan.wheels_of(layer)
        }
        yield tree.file(f"{layout.root}/version.json", versions_file(plan.versions, here), epoch=epoch)

    def _development_wheels(self) -> tuple[Wheel, ...]:
        """Every wheel of which a lower layer took the libraries only."""
        return tuple(
            wheel
            for flavour in self._plan.flavours
            for layer in self._plan.layers(flavour)
            if layer.take == "libraries"
            for wheel in self._plan.wheels_of(layer)
        )

    def _header(self, name: str) -> str | None:
        """A header of the toolkit, from whichever wheel of the plan has it."""
        for wheel in self._plan.wheels.values():
            self._wheels.ensure([wheel])
            if (text := self._layout.header(self._wheels.path(wheel), name)) is not None:
                return text
        return None

    def _names(self, flavour: str) -> str:
        return ", ".join(self._plan.wanted.recipe.flavours[flavour].packages)

    def _store(
        self,
        content: Tree,
        *,
        title: str,
        created: int,
        created_by: str,
        libraries: tuple[str, ...] = (),
        loader_cache: bytes = b"",
    ) -> Made:
        descriptor, digests = tree.write(content, self._blobs, compression=self._plan.settings.compression)
        return Made(
            title=title,
            descriptor=descriptor,
            diff_id=digests.diff_id,
            size=digests.uncompressed_size,
            created=created,
            created_by=f"argosy catalog: {created_by}",
            libraries=libraries,
            loader_cache=loader_cache,
        )


def _bytes_of(member: Member) -> bytes:
    with member.open() as stream:
        return stream.read()
