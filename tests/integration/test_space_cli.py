"""df and the prunes as a user types them; what they free is what the disk gets back."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.linux import mounts, room
from argosy.oci.descriptor import Descriptor
from argosy.oci.image import Image
from argosy.ops.unpack import ensure_layers
from argosy.snapshots.erofs import ErofsSnapshotter
from argosy.snapshots.unpacked import UnpackedSnapshotter
from argosy.store import uses
from argosy.store.blobs import BlobStore
from argosy.store.records import Container, ContainerStore
from argosy.store.refs import RefStore
from support.forked import in_child
from support.images import random_image
from support.stores import argosy, load_image

if TYPE_CHECKING:
    from argosy.store.assembly import Assembly
    from support.images import RandomImage

KIND = "unpacked" if os.geteuid() == 0 else "unpacked-user"
MB = 10**6
BLOB = Descriptor.of(b"x" * 50_000, "application/x-test")


class Shelf:
    """A store with three images: one under two names and a container, one that lost its name, one unused."""

    def __init__(self, folder: Path, *, kind: str = KIND, size: int = 40_000) -> None:
        self.root, self.kind = folder / "store", kind
        self.images = [random_image(folder / f"image{seed}", seed=seed, size=size * seed) for seed in (1, 2, 3)]
        used, nameless, unused = self.images
        load_image(self.root, used, "lab/used:1", "lab/used:2")
        load_image(self.root, nameless, "lab/unused:1")
        load_image(self.root, unused, "lab/unused:1")
        self.blobs, self.refs, self.containers = (made(self.root) for made in (BlobStore, RefStore, ContainerStore))
        snapshotter = (
            ErofsSnapshotter(self.root)
            if kind == "erofs"
            else UnpackedSnapshotter(self.root, user=kind == "unpacked-user")
        )
        for image in self.images:
            ensure_layers(Image(image.descriptor, self.blobs), snapshotter=snapshotter, blobs=self.blobs)

    def contain(self, image: RandomImage, name: str, **fields: object) -> str:
        """Add a stopped container that has written 100 kB; gives its id."""
        container_id = name.encode().hex().ljust(64, "0")
        record = Container(
            id=container_id,
            name=name,
            image="lab/used:1",
            manifest=image.descriptor,
            image_id=image.manifest.config.digest,
            created="2026-01-02T03:04:05Z",
            finished="2026-01-02T03:04:06Z",
            command=("nvcc", "--version"),
            status="exited",
            exit_code=0,
            diff_ids=image.diff_ids,
            **fields,  # type: ignore[arg-type]
        )
        upper = Path(self.containers.create(record)) / "upper"
        upper.mkdir()
        (upper / "written").write_bytes(os.urandom(100_000))
        return container_id

    def run(self, *words: str, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        return argosy(self.root, *words, stdin=stdin, environ={"ARGOSY_SNAPSHOTTER": self.kind})

    def out(self, *words: str, stdin: bytes = b"") -> str:
        done = self.run(*words, stdin=stdin)
        assert (done.returncode, done.stderr.decode()) == (0, "")
        return done.stdout.decode()

    def sorts(self) -> dict[str, dict[str, str]]:
        rows = [json.loads(line) for line in self.out("df", "--format", "json").splitlines()]
        return {row["Type"]: row for row in rows}


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def begin(assembly: Assembly) -> None:
    """The first bytes of BLOB have arrived."""
    writer = assembly.writer(0)
    writer.write(b"x" * 20_000)
    writer.close()


def lines(text: str) -> list[list[str]]:
    """Cells of a table; columns are three spaces apart."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]


def in_bytes(text: str) -> float:
    """Of «1.23MB»."""
    number, unit = re.fullmatch(r"([\d.]+)([kMG]?)B", text).groups()  # type: ignore[union-attr]
    return float(number) * {"": 1, "k": 1e3, "M": 1e6, "G": 1e9}[unit]


def reclaimed(said: str) -> float:
    """What the last line says, in bytes."""
    return in_bytes(said.splitlines()[-1].removeprefix("Total reclaimed space: "))


def planned(said: str) -> float:
    [total] = [line.removeprefix("Total: ") for line in said.splitlines() if line.startswith("Total: ")]
    return in_bytes(total)


# ---- df


def test_df_has_dockers_columns_and_rows(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    heading, *rows = lines(shelf.out("system", "df"))
    assert heading == ["TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"]
    assert [row[:3] for row in rows] == [
        ["Images", "3", "1"],
        ["Containers", "1", "0"],
        ["Local Volumes", "0", "0"],
        ["Build Cache", "0", "0"],
        ["Interrupted Downloads", "0", "0"],
        ["Leftovers", "0", "0"],
    ]
    assert rows[2][3:] == ["0B", "0B"]
    assert re.fullmatch(r"[\d.]+kB \(\d+%\)", rows[0][4])
    assert rows[1][4] == f"{rows[1][3]} (100%)"


def test_df_tells_what_the_disk_has(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    sorts = shelf.sorts()
    on_disk = sum(room.of_tree(shelf.root / place) for place in ("blobs", "layers", "refs"))
    assert in_bytes(sorts["Images"]["Size"]) == pytest.approx(on_disk, rel=0.1)  # folders are not the images'
    assert in_bytes(sorts["Containers"]["Size"]) == pytest.approx(room.of_tree(shelf.root / "containers"), rel=0.1)
    store = json.loads(shelf.out("df", "-v", "--format", "json"))["Store"]
    assert in_bytes(store["Size"]) == pytest.approx(room.of_tree(shelf.root), rel=0.01)


def test_df_counts_what_docker_hides(shelf: Shelf) -> None:
    with shelf.blobs.assemble(BLOB) as assembly:
        begin(assembly)
        assert shelf.sorts()["Interrupted Downloads"]["Active"] == "1"
    shelf.blobs.put(b"nobody needs this", "application/x-test")
    shelf.blobs.rest()
    (shelf.root / "tmp/layer-abc").mkdir(parents=True)
    (shelf.root / "tmp/layer-abc/layer.tar").write_bytes(b"x" * 9_000)
    (shelf.root / f"containers/{'ab' * 32}.damaged").mkdir(parents=True)
    sorts = shelf.sorts()
    assert [sorts["Interrupted Downloads"][name] for name in ("TotalCount", "Active")] == ["1", "0"]
    assert sorts["Interrupted Downloads"]["Reclaimable"].endswith(" (100%)")
    assert [sorts["Leftovers"][name] for name in ("TotalCount", "Active")] == ["3", "1"]
    names = {row["Name"] for row in json.loads(shelf.out("df", "-v", "--format", "json"))["Leftovers"]}
    assert {"tmp/layer-abc", f"containers/{'ab' * 32}.damaged", f"sha256-{BLOB.digest.hex}.part"} < names


def test_df_verbose_has_dockers_tables(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    uses.note(shelf.root, shelf.images[0].manifest.config.digest)
    said = shelf.out("df", "-v")
    headings = [line for line in said.splitlines() if line.isupper() or line.endswith("usage:")]
    assert [re.sub(" {3,}", "|", heading.strip()) for heading in headings] == [
        "Images space usage:",
        "REPOSITORY|TAG|IMAGE ID|CREATED|SIZE|SHARED SIZE|UNIQUE SIZE|CONTAINERS|ON DISK|FREES|LAST USED",
        "Containers space usage:",
        "CONTAINER ID|IMAGE|COMMAND|LOCAL VOLUMES|SIZE|CREATED|STATUS|NAMES",
        "Local Volumes space usage:",
        "VOLUME NAME|LINKS|SIZE",
        "Leftovers space usage:",
        "NAME|SIZE",
    ]
    rows = {(row[0], row[1]): row for row in lines(said) if len(row) == 11 and row[0] != "REPOSITORY"}
    assert rows["lab/used", "1"][2:] == rows["lab/used", "2"][2:]
    assert rows["lab/used", "1"][7:10:2] == ["1", "0B"]
    assert rows["<none>", "<none>"][7] == "0"
    unused = sum(in_bytes(row[9]) for row in rows.values() if row[7] == "0")
    [together] = re.findall(r"^Removing the 2 images without a container together frees (.*)\.$", said, re.MULTILINE)
    assert in_bytes(together) == pytest.approx(unused, rel=0.01)


def test_df_of_a_damaged_image_says_so_and_calls_nothing_reclaimable_that_it_may_need(shelf: Shelf) -> None:
    path = shelf.blobs.path(shelf.images[2].descriptor.digest)
    path.chmod(0o644)
    path.write_bytes(b"{" + path.read_bytes()[1:-1] + b"x")
    done = shelf.run("df", "--format", "{{.Type}} {{.Reclaimable}}")
    assert (done.returncode, done.stderr.decode()) == (
        0,
        "warning: lab/unused:1 is damaged: what it needs is not known (argosy check)\n",
    )
    assert "Leftovers 0B (0%)" in done.stdout.decode().splitlines()


@pytest.mark.parametrize("words", [("df",), ("df", "-v"), ("system", "prune", "--dry-run"), ("prune", "-f")])
def test_an_empty_store_is_no_trouble(words: tuple[str, ...], tmp_path: Path) -> None:
    done = argosy(tmp_path / "new", *words)
    assert (done.returncode, done.stderr) == (0, b"")
    assert ("--dry-run" in words) == (done.stdout == b"Nothing to remove.\n")


def test_images_shows_what_is_shared_when_it_is_asked(tmp_path: Path) -> None:
    """Two images of one layer, and one of its own."""
    from argosy.oci.descriptor import OCI_CONFIG, OCI_MANIFEST
    from argosy.oci.manifest import encode_manifest
    from argosy.oci.platform import Platform
    from support.images import Layout, RandomImage, config_json

    base = random_image(tmp_path / "base", layers=2, size=20_000)
    layout = Layout(tmp_path / "base")
    tars = base.tars[:1]
    config = layout.put(config_json(tars, Platform(os="linux", architecture="amd64"), User="u"), OCI_CONFIG)
    manifest = encode_manifest(config, base.manifest.layers[:1])
    layout.put(manifest.raw, OCI_MANIFEST)
    root = tmp_path / "store"
    load_image(root, base, "both:1")
    load_image(root, RandomImage(layout, manifest, tars), "one:1")
    load_image(root, random_image(tmp_path / "alone", seed=9, size=3000), "alone:1")
    template = "{{.Repository}} {{.SharedSize}} {{.UniqueSize}} {{.Containers}}"
    before = argosy(root, "images", "--format", template).stdout.decode().split("\n")
    assert sorted(before)[1:] == ["alone 0B 20.5kB 0", "both 0B 61.4kB 0", "one 0B 30.7kB 0"]  # nothing is unpacked
    for image in (base,):
        snapshotter = UnpackedSnapshotter(root, user=KIND == "unpacked-user")
        ensure_layers(Image(image.descriptor, BlobStore(root)), snapshotter=snapshotter, blobs=BlobStore(root))
    (root / "layers/kind").write_text(KIND)
    done = argosy(root, "images", "--format", template, environ={"ARGOSY_SNAPSHOTTER": KIND})
    assert sorted(done.stdout.decode().split("\n"))[1:] == [
        "alone 0B 20.5kB 0",
        "both 30.7kB 30.7kB 0",
        "one 30.7kB 0B 0",
    ]
    rows = argosy(root, "images", "--format", "json", environ={"ARGOSY_SNAPSHOTTER": KIND}).stdout.splitlines()
    assert {json.loads(row)["SharedSize"] for row in rows} == {"0B", "30.7kB"}


# ---- prune


def test_system_prune_asks_in_dockers_words_and_takes_yes_from_a_pipe(shelf: Shelf) -> None:
    container_id = shelf.contain(shelf.images[0], "builder")
    said = shelf.out("system", "prune", stdin=b"y\n")
    asked = (
        "WARNING! This will remove:\n"
        "  - all stopped containers\n"
        "  - all networks not used by at least one container\n"
        "  - all dangling images\n"
        "  - unused build cache\n"
        "\n"
        "Are you sure you want to continue? [y/N] "
    )
    plan, question, result = said.partition(asked)
    assert question
    assert [row[:2] for row in lines(plan)[:3]] == [
        ["TO REMOVE", "NAME"],
        ["container", "builder"],
        ["image", f"<none> ({shelf.images[1].manifest.config.digest.short})"],
    ]
    assert result.startswith(f"Deleted Containers:\n{container_id}\n\nDeleted Images:\ndeleted: ")
    assert planned(said) == reclaimed(said)
    assert (shelf.containers.list(), len(shelf.refs.list())) == ((), 3)


def test_system_prune_with_all_and_a_filter_says_so(shelf: Shelf) -> None:
    done = shelf.run("system", "prune", "-a", "--filter", "label=a", "--filter", "until=24h", stdin=b"n\n")
    assert (done.returncode, done.stdout) == (0, b"Total reclaimed space: 0B\n")  # nothing has that label
    shelf.contain(shelf.images[0], "builder", labels={"a": "b"})
    done = shelf.run("system", "prune", "-a", "--filter", "until=24h", "--filter", "label=a", stdin=b"n\n")
    assert (
        "  - all images without at least one container associated to them\n"
        "  - all build cache\n"
        "\n"
        "  Items to be pruned will be filtered with:\n"
        "  - label=a\n"
        "  - until=24h\n"
        "\n"
        "Are you sure"
    ) in done.stdout.decode()
    assert (done.returncode, done.stderr.decode()) == (130, "error: nothing was removed [cancelled]\n")
    assert len(shelf.containers.list()) == 1


def test_nobody_who_answers_is_no_yes(shelf: Shelf) -> None:
    done = shelf.run("prune", "-a")
    assert (done.returncode, len(shelf.refs.list())) == (1, 4)
    assert "[not-confirmed]" in done.stderr.decode()


def test_image_prune_takes_images_and_leaves_containers_and_downloads(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    with shelf.blobs.assemble(BLOB) as assembly:
        begin(assembly)
    shelf.blobs.rest()
    said = shelf.out("image", "prune", "-af")
    assert "untagged: lab/unused:1\n" in said
    assert {record.reference.familiar() for record in shelf.refs.list()} == {"lab/used:1", "lab/used:2"}
    assert len(list((shelf.root / "ingest").glob("*.part"))) == 1
    shelf.out("prune", "-f")
    assert list((shelf.root / "ingest").glob("*.part")) == []
    assert len(shelf.containers.list()) == 1


def test_a_dry_run_prints_the_plan_and_removes_nothing(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    before = {path for path in shelf.root.rglob("*") if path.suffix != ".maker"}
    said = shelf.out("system", "prune", "-a", "--dry-run")
    assert before <= set(shelf.root.rglob("*"))
    assert [row[0] for row in lines(said)[1:4]] == ["container", "image", "image"]
    assert planned(said) == reclaimed(shelf.out("system", "prune", "-af"))


def test_filters_choose_images_and_containers(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "old")
    shelf.contain(shelf.images[0], "new", labels={"keep": ""})
    assert shelf.out("prune", "-af", "--filter", "until=2026-01-01").endswith("Total reclaimed space: 0B\n")
    assert shelf.out("prune", "-af", "--filter", "label=team").endswith("Total reclaimed space: 0B\n")
    shelf.out("system", "prune", "-f", "--filter", "label!=keep", "--filter", "until=1s")
    assert [container.name for container in shelf.containers.list()] == ["new"]
    shelf.out("image", "prune", "-af", "--filter", "until=24h")
    assert {record.reference.familiar() for record in shelf.refs.list()} == {"lab/used:1", "lab/used:2"}
    refused = shelf.run("system", "prune", "-f", "--volumes", "--filter", "until=1h").stderr.decode()
    assert refused.startswith('error: the "until" filter is not supported with "--volumes" [filter-invalid]\n')
    assert "[filter-invalid]" in shelf.run("prune", "-f", "--filter", "dangling=true").stderr.decode()


def test_the_build_cache_goes_with_all_alone(shelf: Shelf) -> None:
    wheels = shelf.root / "cache/wheels"
    wheels.mkdir(parents=True)
    (shelf.root / "cache/catalog").mkdir()
    (wheels / "nvidia.whl").write_bytes(b"x" * 500_000)
    row = shelf.sorts()["Build Cache"]
    assert (row["TotalCount"], row["Size"], row["Reclaimable"]) == ("1", "500kB", "500kB") or row["Size"] == "504kB"
    shelf.out("system", "prune", "-f")
    assert (wheels / "nvidia.whl").exists()
    assert "build cache" in shelf.out("system", "prune", "-af")
    assert not (wheels / "nvidia.whl").exists()


def test_a_target_takes_what_was_not_used_for_longest(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    root = shelf.root
    ids = {
        "lab/unused:1": shelf.images[2].manifest.config.digest,
        "lab/used:1, lab/used:2": shelf.images[0].manifest.config.digest,
    }
    sizes = [room.of_tree(root)]
    for number, seed in enumerate((4, 5, 6)):
        image = random_image(tmp_path / f"more{seed}", seed=seed, size=300_000)
        load_image(root, image, f"lab/more:{seed}")
        uses.note(root, image.manifest.config.digest)
        moment = 4 * 10**9 - number  # the last is the oldest
        os.utime(root / "cache/used/sha256" / image.manifest.config.digest.hex, (moment, moment))
        sizes.append(room.of_tree(root))
    target = room.of_tree(root) - sizes[0] + 1000  # what was there before, and a bit of the last
    said = shelf.out("prune", "-f", "--target", f"{target}B")
    assert [row[1] for row in lines(said)[1:5]] == [
        f"<none> ({shelf.images[1].manifest.config.digest.short})",
        *sorted(["lab/unused:1", "lab/used:1, lab/used:2"], key=lambda name: ids[name]),
        "lab/more:6",
    ]
    assert room.of_tree(root) <= target
    assert {record.reference.familiar() for record in shelf.refs.list()} == {"lab/more:4", "lab/more:5"}


def test_a_target_that_is_reached_removes_nothing(shelf: Shelf) -> None:
    assert shelf.out("prune", "-f", "--target", "50GB") == "Total reclaimed space: 0B\n"


def test_a_target_out_of_reach_says_what_holds_the_rest(shelf: Shelf) -> None:
    shelf.contain(shelf.images[0], "builder")
    done = shelf.run("prune", "-f", "--target", "0")
    said = done.stderr.decode()
    assert (done.returncode, said.splitlines()[0]) == (
        1,
        "error: the store cannot be brought down to 0B [target-out-of-reach]",
    )
    left = {line.split("  ")[-1].strip() for line in said.splitlines()[2:-1]}
    assert {"images that containers use", "containers"} <= left
    assert {record.reference.familiar() for record in shelf.refs.list()} == {"lab/used:1", "lab/used:2"}
    assert "[size-invalid]" in shelf.run("prune", "-f", "--target", "much").stderr.decode()


# ---- what is freed, by the disk's own word


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
@pytest.mark.parametrize("file_system", ["tmpfs", "ext4"])
def test_the_file_system_gets_back_what_the_plan_says(tmp_path: Path, file_system: str) -> None:
    """Within one per cent, by statvfs."""

    def inside() -> tuple[float, float, float]:
        place = tmp_path / "disk"
        place.mkdir()
        mounted(file_system, place, tmp_path / "disk.img")
        kind = "erofs" if file_system == "ext4" and erofs_works(place) else "unpacked"
        shelf = Shelf(place, kind=kind, size=1_500_000)
        for image in shelf.images:
            shutil.rmtree(image.folder)
        shelf.contain(shelf.images[0], "builder")
        before = free(place)
        said = shelf.out("system", "prune", "-af")
        return planned(said), reclaimed(said), free(place) - before

    plan, told, freed = in_child(inside)
    assert plan == told > 20 * MB
    assert freed == pytest.approx(plan, rel=0.01)


def mounted(file_system: str, place: Path, image: Path) -> None:
    """In a namespace of our own, so that it goes with this process."""
    mounts.private_namespace()
    if file_system == "tmpfs":
        mounts.Tmpfs(target=str(place), size=200 * MB).execute()
        return
    with image.open("wb") as file:
        file.truncate(200 * MB)
    subprocess.run(["mkfs.ext4", "-q", image], check=True, capture_output=True)
    done = subprocess.run(["mount", "-o", "loop", image, place], check=False, capture_output=True)
    if done.returncode:
        pytest.skip(f"this kernel mounts no loop device: {done.stderr.decode()}")


def erofs_works(place: Path) -> bool:
    from argosy.linux.features import probe

    return probe(folder=str(place), path=os.environ["PATH"]).erofs_file.available


def free(place: Path) -> int:
    os.sync()
    status = os.statvfs(place)
    return status.f_bfree * status.f_frsize


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root to mount a small file system")
def test_a_full_disk_is_mended_at_once(tmp_path: Path) -> None:
    """What a killed pull left goes without any waiting, on a disk that has no block left."""

    def inside() -> tuple[bool, int]:
        place = tmp_path / "disk"
        place.mkdir()
        mounted("tmpfs", place, tmp_path / "unused")
        root = place / "store"
        argosy(root, "df", environ={"ARGOSY_SNAPSHOTTER": "unpacked"})  # a store as it is after its first verb
        pid = os.fork()
        if pid == 0:  # a maker that is killed with a blob that is complete and one that is not
            blobs = BlobStore(root)
            blobs.put(os.urandom(50 * MB), "application/x-test")
            with blobs.assemble(BLOB) as assembly:
                begin(assembly)
                os.kill(os.getpid(), 9)
        os.waitpid(pid, 0)
        filler = os.open(place / "filler", os.O_WRONLY | os.O_CREAT)
        with suppress(OSError):
            while os.write(filler, bytes(MB)):
                pass
        os.close(filler)
        full = os.statvfs(place).f_bfree == 0
        done = argosy(root, "prune", "-f", environ={"ARGOSY_SNAPSHOTTER": "unpacked"})
        assert done.returncode == 0, done.stderr
        return full, free(place)

    full, freed = in_child(inside)
    assert full
    assert freed > 49 * MB
