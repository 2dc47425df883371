"""Whatever happens to the store's files or processes: names that were set resolve, and a second run succeeds."""

from __future__ import annotations

import os
import random
import signal
import stat
import time
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.errors import Corrupt, Error, Exhausted, NotFound, Unauthorized
from argosy.linux import mounts
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.oci.image import Image
from argosy.oci.reference import Reference
from argosy.ops import prune
from argosy.ops.check import Store, check
from argosy.ops.repair import repair as repair_store
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.listing import read_listing
from argosy.store.lists import ListStore
from argosy.store.records import Container, ContainerStore
from argosy.store.refs import RefRecord, RefStore, Summary
from support.forked import become_nobody, in_child
from support.images import random_image
from support.stores import load_image, sweep

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from argosy.ops.check import Report
    from argosy.store.assembly import Assembly
    from support.images import RandomImage

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")


class NoLayers:
    """A store whose layers have not been unpacked (the contract of Snapshotter, with nothing in it)."""

    kind = "none"

    def has(self, diff_id: Digest) -> bool:
        return False

    def walk(self) -> Iterator[Digest]:
        return iter(())


@pytest.fixture
def image(tmp_path: Path) -> RandomImage:
    return random_image(tmp_path / "image", size=3000)


@pytest.fixture
def root(tmp_path: Path, image: RandomImage) -> Path:
    """A store with one image under two names, and a container."""
    load_image(tmp_path / "store", image, "a:1", "b:1")
    ContainerStore(tmp_path / "store").create(container(image, "one", 1))
    return tmp_path / "store"


def container(image: RandomImage, name: str, number: int) -> Container:
    return Container(
        id=f"{number:064x}",
        name=name,
        image="a:1",
        manifest=image.descriptor,
        image_id=image.manifest.config.digest,
        created="2026-01-02T03:04:05Z",
        command=("true",),
    )


def checked(root: Path, *, repair: bool = False) -> Report:
    store = Store(
        refs=RefStore(root),
        lists=ListStore(root),
        containers=ContainerStore(root),
        blobs=BlobStore(root),
        snapshotter=NoLayers(),  # type: ignore[arg-type]
    )
    report = check(store)
    return repair_store(report, store, connect=None) if repair else report


def read_whole(root: Path, name: str) -> int:
    """Bytes of all layers of the image behind *name*, every one verified."""
    blobs = BlobStore(root)
    image = Image(RefStore(root).lookup(name).manifest, blobs)
    total = 0
    for layer in image.layers:
        with layer.open() as stream:
            total += len(stream.read())
    return total


def overwrite(path: Path, data: bytes) -> None:
    path.chmod(stat.S_IMODE(path.stat().st_mode) | 0o200)
    path.write_bytes(data)


def durable_files(root: Path) -> list[Path]:
    return [path for path in sorted(root.rglob("*")) if path.is_file() and path.stat().st_size and path.name != "lock"]


def test_a_good_store_is_sound(root: Path) -> None:
    report = checked(root)
    assert (report.is_sound, report.blobs, report.tags, report.containers, report.rubbish) == (True, 4, 2, 1, ())


def test_every_damaged_blob_is_named_with_what_it_affects(root: Path, image: RandomImage) -> None:
    for blob in [image.descriptor, *image.manifest.children()]:
        path = BlobStore(root).path(blob.digest)
        good = path.read_bytes()
        middle = len(good) // 2
        for bad in (good[:middle] + bytes([good[middle] ^ 4]) + good[middle + 1 :], good[:-1], b"", good + b"x"):
            overwrite(path, bad)
            found = {finding.name: finding for finding in checked(root).findings}
            assert set(found) == {blob.digest}
            assert found[blob.digest].kind == "blob"
            assert found[blob.digest].affects == ("a:1", "b:1", "container one")
            assert found[blob.digest].remedy == "argosy check --repair; argosy pull a:1"
        overwrite(path, good)
    assert checked(root).is_sound


def test_repair_removes_damaged_blobs_and_the_next_pull_mends_the_image(root: Path, image: RandomImage) -> None:
    for blob in [image.descriptor, *image.manifest.children()]:
        path = BlobStore(root).path(blob.digest)
        overwrite(path, b"\0" * blob.size)
        assert checked(root, repair=True).repaired == (f"removed blob {blob.digest}",)
        assert not path.exists()
        assert [(finding.name, finding.problem) for finding in checked(root).findings] == [
            (str(blob.digest), "it is missing")
        ]
        load_image(root, image, "a:1")
        assert checked(root).is_sound


@pytest.mark.parametrize("damage", ["cut to nothing", "cut in half", "zeros", "noise"])
def test_damage_to_any_file_is_found_and_mended(root: Path, image: RandomImage, damage: str) -> None:
    """One file after the other is damaged: lists still work, check says so, repair and a second run make it good."""
    for path in durable_files(root):
        if not path.exists():  # an earlier repair set its container aside
            continue
        good = path.read_bytes()
        bad = {
            "cut to nothing": b"",
            "cut in half": good[: len(good) // 2],
            "zeros": b"\0" * len(good),
            "noise": random.Random(path.name).randbytes(len(good)),
        }[damage]
        overwrite(path, bad)
        RefStore(root).list()
        read_listing(root)
        ContainerStore(root).list()
        is_derived = path.parent.name in ("cache", "ingest", "names")
        assert checked(root, repair=True).is_sound == is_derived, path
        load_image(root, image, "a:1", "b:1")
        assert checked(root).is_sound, path
        assert read_whole(root, "a:1") == read_whole(root, "b:1") > 0


class Vanishing(RefStore):
    """Names that somebody removes, with their blobs, right after they were listed for the first time."""

    def list(self, *, strict: bool = False) -> tuple[RefRecord, ...]:
        records = super().list(strict=strict)
        for record in records:
            self.delete(record.reference)
        for digest in BlobStore(self.root).walk() if records else ():
            BlobStore(self.root).delete(digest)
        return records


def test_what_is_removed_beside_a_check_is_not_reported_as_missing(tmp_path: Path, image: RandomImage) -> None:
    root = tmp_path / "store"
    load_image(root, image, "a:1")
    store = Store(
        refs=Vanishing(root),
        lists=ListStore(root),
        containers=ContainerStore(root),
        blobs=BlobStore(root),
        snapshotter=NoLayers(),  # type: ignore[arg-type]
    )
    report = check(store)
    assert (report.tags, report.findings) == (1, ())


def test_a_removed_file_is_reported_and_comes_back(root: Path, image: RandomImage) -> None:
    for path in sorted((root / "blobs/sha256").iterdir()):
        path.unlink()
        assert [finding.problem for finding in checked(root).findings] == ["it is missing"]
        load_image(root, image, "a:1")
        assert checked(root).is_sound


def test_repair_never_removes_what_a_user_wrote(root: Path) -> None:
    folder = Path(ContainerStore(root).folder(f"{1:064x}"))
    (folder / "upper").mkdir()
    (folder / "upper/thesis").write_text("precious")
    overwrite(folder / "record.json", b"")
    report = checked(root, repair=True)
    assert report.repaired == (f"set aside container 000000000000 as {folder}.damaged",)
    assert (folder.parent / f"{folder.name}.damaged/upper/thesis").read_text() == "precious"


def test_rubbish_is_told_and_removed_but_is_no_damage(root: Path) -> None:
    blob = Descriptor.of(b"x" * 100, "application/x-test")
    store = BlobStore(root)
    with store.assemble(blob) as assembly:
        put(assembly, 0, b"x" * 60)
    store.rest()
    on_disk = sum(os.stat(path).st_blocks * 512 for path in (root / "ingest").glob("*.part*"))
    (root / "tmp/left").mkdir(parents=True)
    for path in (root / "tmp/left", *(root / "ingest").glob("*.part*")):
        os.utime(path, (1000, 1000))
    report = checked(root)
    assert (report.is_sound, report.rubbish) == (True, (f"ingest/sha256-{blob.digest.hex}.part", "tmp/left"))
    repaired = checked(root, repair=True)
    assert repaired.repaired == (
        f"removed 1 parts of interrupted transfers ({on_disk} bytes)",
        "removed tmp/left",
    )
    assert checked(root).rubbish == ()


def work_for_ever(root: Path, images: list[RandomImage]) -> None:
    """What pulls, tags, runs and rmis do to the store, over and over."""
    blobs, refs, containers = BlobStore(root), RefStore(root), ContainerStore(root)
    for number in range(1, 1_000_000):
        image = images[number % len(images)]
        load_image(root, image, "moving:1", f"fixed{number % len(images)}:1")
        record = container(image, f"box{number % 3}", number)
        if number % 3 == 0:
            for old in containers.list():
                containers.delete(old.id)
        try:
            containers.create(record)
            containers.update(record.id, status="exited", exit_code=number % 256)
        except Error:  # the name is taken by one of an earlier, killed run
            pass
        if number % 5 == 0:
            refs.delete(Reference.parse("moving:1"))
            sweep(blobs, lambda: gc.reachable(gc.roots(refs.list(), containers.list()), blobs))


def killed_after(seconds: float, action: Callable[[], None]) -> None:
    pid = os.fork()
    if pid == 0:
        try:
            action()
        finally:
            os._exit(1)
    time.sleep(seconds)
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_killed_at_any_moment_the_store_tells_no_lie(tmp_path: Path) -> None:
    root, dice = tmp_path / "store", random.Random(26)
    images = [random_image(tmp_path / f"image{n}", size=2000, seed=n) for n in range(3)]
    load_image(root, images[0], "fixed0:1")
    for _ in range(30):
        killed_after(dice.uniform(0.005, 0.08), lambda: work_for_ever(root, images))
        report = checked(root)
        lies = [finding for finding in report.findings if finding.problem != "it has no record.json"]
        assert lies == []
        for row in read_listing(root):
            assert read_whole(root, row.image_id) > 0
        assert read_whole(root, "fixed0:1") > 0
        names = [record.name for record in ContainerStore(root).list()]
        assert len(names) == len(set(names))
    load_image(root, images[1], "after:1")
    ContainerStore(root).create(container(images[1], "after", 7_000_000))
    checked(root, repair=True)
    assert checked(root).is_sound


def many(count: int, action: Callable[[int], object]) -> list[int]:
    """Exit statuses of *count* processes that begin *action* at the same time."""
    read_end, write_end = os.pipe()
    pids = []
    for number in range(count):
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                os.close(write_end)
                os.read(read_end, 1)  # the end of the pipe is the starting signal
                status = 0 if action(number) is None else 2
            finally:
                os._exit(status)
        pids.append(pid)
    os.close(read_end)
    os.close(write_end)
    return [os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) for pid in pids]


def test_eight_processes_assemble_the_same_blob_and_it_is_written_once(tmp_path: Path) -> None:
    data = random.Random(1).randbytes(3_000_000)
    blob = Descriptor.of(data, "application/x-test")
    store = BlobStore(tmp_path)

    def fetch(number: int) -> None:
        with store.assemble(blob) as assembly:
            for start, end in assembly.missing() if not assembly.complete else ():
                (tmp_path / f"wrote{number}").touch()
                put(assembly, start, data[start:end])
            assembly.commit()

    assert many(8, fetch) == [0] * 8
    assert store.path(blob.digest).read_bytes() == data
    assert (len(list(tmp_path.glob("wrote*"))), gc.unfinished(store)) == (1, [])


def put(assembly: Assembly, start: int, data: bytes) -> None:
    writer = assembly.writer(start)
    try:
        for at in range(0, len(data), 100_000):
            writer.write(data[at : at + 100_000])
    finally:
        writer.close()


def test_eight_processes_name_images_at_the_same_time(tmp_path: Path) -> None:
    refs = RefStore(tmp_path)

    def name(number: int) -> None:
        for turn in range(20):
            manifest = Descriptor.of(b"%d" % number, "application/vnd.oci.image.manifest.v1+json")
            summary = Summary(manifest=manifest, image_id=Digest.of(b"c%d" % number), created="", size=number)
            for text in (f"own{number}:{turn}", "shared:1"):
                refs.set(Reference.parse(text), manifest, summary=summary)
            assert len(read_listing(tmp_path)) >= turn + 1

    assert many(8, name) == [0] * 8
    named = [record.reference.familiar() for record in refs.list() if not record.is_untagged]
    assert named == sorted([*(f"own{n}:{t}" for n in range(8) for t in range(20)), "shared:1"])
    assert refs.damaged() == ()


def test_of_eight_containers_with_one_name_one_is_made(tmp_path: Path, image: RandomImage) -> None:
    store = ContainerStore(tmp_path / "store")

    def create(number: int) -> object:
        try:
            store.create(container(image, "one", number + 1))
        except Error as error:
            return error.code
        return None

    assert sorted(many(8, create)) == [0] + [2] * 7
    [record] = store.list()
    assert store.get("one") == record
    assert len(os.listdir(tmp_path / "store/containers")) == 1


def test_eight_processes_update_one_record_and_none_is_lost(tmp_path: Path, image: RandomImage) -> None:
    store = ContainerStore(tmp_path / "store")
    store.create(container(image, "one", 1))

    def count(number: int) -> None:
        for _ in range(10):
            store.change(f"{1:064x}", lambda old: container_with_exit(old, (old.exit_code or 0) + 1))

    assert many(8, count) == [0] * 8
    assert store.get("one").exit_code == 80


def container_with_exit(old: Container, code: int) -> Container:
    return msgspec.structs.replace(old, exit_code=code)


def on_small_disk(folder: Path, size: int, action: Callable[[], None]) -> None:
    """Run *action* in a child for which *folder* is an empty file system of *size* bytes."""

    def inside() -> None:
        mounts.private_namespace()
        mounts.Tmpfs(target=str(folder), size=size).execute()
        action()

    in_child(inside)


@needs_root
def test_a_full_disk_is_one_error_and_the_store_is_unharmed(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image", size=20_000)
    large = random.Random(2).randbytes(600_000)
    blob = Descriptor.of(large, "application/x-test")
    root = tmp_path / "disk"
    root.mkdir()

    def scene() -> None:
        load_image(root, image, "a:1")
        store = BlobStore(root)
        with pytest.raises(Exhausted) as early:
            store.ingest(blob)
        with store.ingest() as part, pytest.raises(Exhausted) as late:
            part.write(large)
        for caught in (early.value, late.value):
            assert caught.code == "disk-full"
            assert "more bytes are needed, " in caught.context
            assert caught.context.endswith(f" are free in {root}")
            assert caught.hint.startswith("free space with ")
        fill(root)
        with pytest.raises(Exhausted):
            load_image(root, image, "b:1")
        os.unlink(root / "filler")
        assert [row.familiar for row in read_listing(root)] == ["a:1"]
        assert read_whole(root, "a:1") > 0
        load_image(root, image, "b:1")
        assert checked(root).is_sound

    on_small_disk(root, 400_000, scene)


@needs_root
def test_a_blob_that_did_not_fit_is_continued_when_there_is_room(tmp_path: Path) -> None:
    data = random.Random(3).randbytes(300_000)
    blob = Descriptor.of(data, "application/x-test")
    root = tmp_path / "disk"
    root.mkdir()

    def scene() -> None:
        store = BlobStore(root)
        with store.assemble(blob) as assembly:
            (root / "filler").write_bytes(b"x" * 200_000)
            with pytest.raises(Exhausted):
                put(assembly, 0, data)
        os.unlink(root / "filler")
        with store.assemble(blob) as assembly:
            [(start, end)] = assembly.missing()
            assert (start > 0, end) == (True, len(data))
            put(assembly, start, data[start:])
            assembly.commit()
        assert store.path(blob.digest).read_bytes() == data

    on_small_disk(root, 400_000, scene)


def fill(root: Path) -> None:
    with open(root / "filler", "wb", buffering=0) as file:
        try:
            while file.write(b"x" * 4096):
                pass
        except OSError:
            return


@needs_root
def test_a_store_of_somebody_else_can_be_read_but_not_changed(root: Path, image: RandomImage) -> None:
    for folder in (root, *root.parents):
        if folder.owner() == "root" and folder.is_relative_to(root.parent.parent.parent):
            folder.chmod(0o755)

    def scene() -> None:
        become_nobody()
        assert [row.familiar for row in read_listing(root)] == ["a:1", "b:1"]
        assert read_whole(root, "a:1") > 0
        blob = Descriptor.of(b"new", "application/x-test")
        changes: list[Callable[[], object]] = [
            lambda: BlobStore(root).put(b"new", blob.media_type),
            lambda: RefStore(root).delete(Reference.parse("a:1")),
            lambda: load_image(root, image, "c:1"),
            lambda: ContainerStore(root).create(container(image, "two", 2)),
            lambda: BlobStore(root).delete(image.descriptor.digest),
        ]
        for change in changes:
            with pytest.raises(Unauthorized) as caught:
                change()
            assert caught.value.code in ("permission-denied", "not-permitted")
            assert str(root) in caught.value.message

    in_child(scene)
    assert checked(root).is_sound


def test_errors_of_a_damaged_image_name_the_blob(root: Path, image: RandomImage) -> None:
    layer = image.manifest.layers[1]
    overwrite(BlobStore(root).path(layer.digest), b"\0" * layer.size)
    with pytest.raises(Corrupt) as caught:
        read_whole(root, "a:1")
    assert caught.value.message == f"blob {layer.digest} is damaged"
    BlobStore(root).delete(layer.digest)
    with pytest.raises(NotFound) as missing:
        read_whole(root, "a:1")
    assert missing.value.message == f"blob {layer.digest} is not in the store"


@pytest.mark.parametrize("place", ["refs", "containers"])
def test_nothing_is_removed_while_a_record_cannot_be_read(root: Path, place: str) -> None:
    """What it keeps is unknown then."""
    record = next(path for path in sorted((root / place).rglob("*.json")))
    record.unlink()
    record.mkdir()
    (record / "deep").touch()
    with pytest.raises(Corrupt) as caught:
        prune.needed(RefStore(root), ContainerStore(root), BlobStore(root))
    assert caught.value.code in ("ref-damaged", "record-damaged")
    [finding] = checked(root, repair=True).findings
    assert finding.kind == ("tag" if place == "refs" else "container")
    assert len(list((root / "blobs/sha256").iterdir())) == 4
    prune.needed(RefStore(root), ContainerStore(root), BlobStore(root))


def test_a_folder_that_a_killed_creation_left_is_rubbish(root: Path) -> None:
    husk = root / "containers" / f"{9:064x}"
    husk.mkdir()
    (husk / ".record.json.77.0123abcd").write_bytes(b"{")
    report = checked(root)
    assert (report.is_sound, f"containers/{husk.name}" in report.rubbish) == (True, True)
    assert f"removed containers/{husk.name}" in checked(root, repair=True).repaired
    assert not husk.exists()
