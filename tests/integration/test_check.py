"""check and check --repair as users type them: what is damaged is found, fetched again, made again, or given up."""

from __future__ import annotations

import os
import random
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.oci import descriptor as media
from argosy.oci.manifest import encode_manifest

from ..support.hostile import runnable, say
from ..support.images import Layout, RandomImage, compress, random_image
from ..support.layers import snapshotter_of
from ..support.registry import running_registry
from ..support.stores import argosy, load_image
from ..support.web import Reply, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..support.hostile import Said
    from ..support.registry import RunningRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
NAME = "team/box"


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("registry") / "store", expected_stderr=None) as running:
        yield running


class Box:
    """A store with an image of two layers from a registry, and a container that has written a file."""

    def __init__(self, root: Path, kind: str, image: RandomImage, name: str) -> None:
        self.root, self.kind, self.image, self.name = root, kind, image, name
        assert self.say("pull", "-q", name).status == 0
        self.run("run", "--name", "kept", name, "sh", "-c", "echo precious > /thesis")

    def say(self, *words: str) -> Said:
        return say(self.root, *words, ARGOSY_SNAPSHOTTER=self.kind)

    def run(self, *words: str) -> str:
        done = argosy(self.root, *words, environ={"ARGOSY_SNAPSHOTTER": self.kind})
        assert done.returncode == 0, done.stderr.decode()
        return done.stdout.decode()

    def report(self, *words: str) -> dict[str, object]:
        return msgspec.json.decode(self.say("check", "--format", "json", *words).output)

    def repaired(self, *words: str) -> list[str]:
        return list(map(str, self.report("--repair", *words)["Repaired"]))  # type: ignore[call-overload]

    def blob(self, place: int) -> Path:
        """Of the manifest (0), the config (1), the layers."""
        digest = [self.image.descriptor, *self.image.manifest.children()][place].digest
        return self.root / "blobs/sha256" / digest.hex

    def layer(self, place: int) -> Path:
        return self.root / "layers/sha256" / self.image.diff_ids[place].hex

    def assert_good(self) -> None:
        assert self.say("check")[::2] == (0, ""), self.say("check")
        assert self.run("run", "--rm", self.name) == "ran\n"


@pytest.fixture(params=["erofs", "unpacked"])
def box(request: pytest.FixtureRequest, tmp_path: Path, registry: RunningRegistry) -> Box:
    snapshotter_of(request.param, tmp_path / "probe")
    image = runnable(tmp_path / "image", {"opt/": 0o755, "opt/a": random.Random(1).randbytes(9000), "opt/b": "a"})
    return Box(tmp_path / "store", request.param, image, registry.push(image, NAME, "1"))


def flip(path: Path, at: float = 0.5) -> None:
    data, mode = bytearray(path.read_bytes()), path.stat().st_mode
    data[int(len(data) * at)] ^= 1
    path.chmod(0o644)
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    path.chmod(mode)


@pytest.mark.parametrize("place", range(4))
def test_a_damaged_blob_is_fetched_again_by_its_digest(box: Box, place: int) -> None:
    flip(box.blob(place))
    digest = f"sha256:{box.blob(place).name}"
    assert box.repaired() == [f"removed blob {digest}", f"fetched blob {digest} from {box.name.removesuffix(':1')}"]
    box.assert_good()


@pytest.mark.parametrize("place", range(4))
def test_a_missing_blob_is_fetched_again(box: Box, place: int) -> None:
    box.blob(place).unlink()
    digest = f"sha256:{box.blob(place).name}"
    assert box.repaired() == [f"fetched blob {digest} from {box.name.removesuffix(':1')}"]
    box.assert_good()


def test_all_blobs_and_layers_at_once(box: Box) -> None:
    """What is found only after the manifest has come is fetched too."""
    shutil.rmtree(box.root / "blobs")
    for place in range(2):
        (box.layer(place) / "layer.json").write_bytes(b"{}")
    report = box.report("--repair")
    assert (len(list((box.root / "blobs/sha256").iterdir())), report["Remaining"]) == (4, [])
    box.assert_good()


@pytest.mark.parametrize("place", ["a folder", "a link to itself", "a dangling link"])
def test_something_else_in_the_place_of_a_blob(box: Box, place: str) -> None:
    box.blob(2).unlink()
    {
        "a folder": lambda path: (path / "deep").mkdir(parents=True),
        "a link to itself": lambda path: path.symlink_to(path.name),
        "a dangling link": lambda path: path.symlink_to("/no/where"),
    }[place](box.blob(2))
    said = box.say("check")
    assert (said.status, said.error) == (1, "")
    box.repaired()
    box.assert_good()


def layer_damages(box: Box) -> dict[str, Path]:
    if box.kind == "erofs":
        return {name: box.layer(1) / name for name in ("layer.tar", "index.erofs")}
    return {"fs/opt/a": box.layer(1) / "fs/opt/a"}


def test_a_damaged_layer_is_made_again_of_its_blob(box: Box) -> None:
    for path in layer_damages(box).values():
        flip(path)
        said = box.say("check")
        assert (said.status, "layer" in said.output) == (1, True), said
        assert box.repaired() == [
            f"removed layer sha256:{box.layer(1).name}",
            f"made layer sha256:{box.layer(1).name} again",
        ]
        box.assert_good()


@pytest.mark.parametrize(
    "change",
    [
        lambda fs: (fs / "opt/a").chmod(0o777),
        lambda fs: os.utime(fs / "opt/a", (1, 1)),
        lambda fs: (fs / "opt/new").touch(),
        lambda fs: (fs / "opt/a").unlink(),
        lambda fs: ((fs / "opt/b").unlink(), (fs / "opt/b").symlink_to("/etc/passwd")),
        lambda fs: os.chown(fs / "opt", 7, 7),
        lambda fs: os.setxattr(fs / "opt/a", "user.x", b"y"),
    ],
)
def test_each_change_of_an_unpacked_layer_is_found(box: Box, change: object) -> None:
    if box.kind == "erofs":
        return
    change(box.layer(1) / "fs")  # type: ignore[operator]
    assert "opt" in box.say("check").output
    box.repaired()
    box.assert_good()


def test_without_the_registry_nothing_is_given_up(box: Box) -> None:
    box.blob(2).unlink()
    said = box.say("check", "--repair", "--offline")
    assert (said.status, f"now type: argosy pull {box.name}\n" in said.output) == (1, True)
    assert box.say("images", "--format", "{{.Repository}}").output.startswith("127.0.0.1")
    assert box.repaired() == [f"fetched blob sha256:{box.blob(2).name} from {box.name.removesuffix(':1')}"]
    box.assert_good()


def test_a_registry_that_fails_gives_nothing_up(box: Box) -> None:
    """5xx may pass: name and container stay, the reason is told."""
    with serving(lambda seen: Reply(status=503)) as site:
        load_image(box.root, box.image, f"{site.address}/other:1")
        box.run("rm", "kept")  # it knows where its image came from, too
        assert box.say("rmi", box.name).status == 0
        box.blob(2).unlink()
        shutil.rmtree(box.layer(0))
        lines = box.report("--repair")
    assert f"could not fetch blob sha256:{box.blob(2).name}" in str(lines["Repaired"])
    assert "removed tag" not in str(lines["Repaired"])
    assert [found["Problem"] for found in lines["Remaining"]] == ["it is missing"]  # type: ignore[union-attr,call-overload,index,attr-defined]


def test_what_nobody_has_any_more_is_given_up_and_the_container_set_aside(
    box: Box, tmp_path: Path, registry: RunningRegistry
) -> None:
    other = random_image(tmp_path / "other", seed=9)
    good = registry.push(other, "team/other", "1")
    assert box.say("pull", "-q", good).status == 0
    with serving(lambda seen: Reply(status=404)) as site:
        name = f"{site.address}/gone:1"
        load_image(box.root, box.image, name)
        box.say("rmi", box.name)
        record = next((box.root / "containers").glob("*/record.json"))
        record.write_text(record.read_text().replace(box.name, name))
        box.blob(2).unlink()
        shutil.rmtree(box.layer(0))
        lines = box.repaired()
    assert [line for line in lines if line.startswith("removed tag")] == [
        f"removed tag {name}: blob sha256:{box.blob(2).name} is lost, "
        f"blob sha256:{box.blob(2).name} is not in {name.removesuffix(':1')}"
    ]
    [aside] = (box.root / "containers").glob("*.damaged*")
    assert (aside / "upper/thesis").read_text() == "precious\n"
    assert box.say("check").status == 0
    assert box.say("images", "--format", "{{.Repository}}:{{.Tag}}").output == f"{good}\n"


def test_an_image_whose_layer_stands_keeps_its_name_without_the_blob(box: Box) -> None:
    """It runs; only who pushes it needs the blob."""
    with serving(lambda seen: Reply(status=404)) as site:
        name = f"{site.address}/gone:1"
        load_image(box.root, box.image, name)
        box.run("rm", "kept")
        box.say("rmi", box.name)
        box.blob(2).unlink()
        assert not any(line.startswith("removed tag") for line in box.repaired())
    assert box.run("run", "--rm", name) == "ran\n"


def test_a_record_that_contradicts_its_image_is_corrected(box: Box) -> None:
    record = next((box.root / "refs").iterdir())
    image_id = box.image.manifest.config.digest
    record.write_text(record.read_text().replace(f'"image_id":"{image_id}"', f'"image_id":"sha256:{7:064x}"'))
    assert box.repaired() == [f"corrected the record of {box.name}"]
    box.assert_good()


def test_what_interrupted_work_leaves_is_known_and_goes(box: Box) -> None:
    left = {
        f"ingest/sha256-{1:064x}.part.journal": b"x" * 24,
        "refs/.x.json.77.0123abcd": b"{",
        "cache/refs.tsv.77.0123abcd": b"",
        f"layers/sha256/{2:064x}/layer.tar": b"x",
        "tmp/left": b"x",
    }
    for name, data in left.items():
        path = box.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        os.utime(path, (1000, 1000))
    report = box.report()
    expected = [name.removesuffix("/layer.tar") for name in left]
    assert (sorted(report["Rubbish"]), report["Findings"]) == (sorted(expected), [])  # type: ignore[call-overload]
    box.repaired()
    assert box.report()["Rubbish"] == []
    box.assert_good()


@pytest.mark.parametrize("torn", [Path.mkdir, Path.touch, lambda path: path.symlink_to(path.name)])
def test_a_torn_mark_is_nothing(box: Box, torn: Callable[[Path], None]) -> None:
    """What was to be told by it had not begun."""
    torn(box.root / "unsettled/torn.json")
    assert "went down" in box.say("check").error
    assert os.listdir(box.root / "unsettled") != ["torn.json"]
    box.assert_good()


@pytest.mark.parametrize("raw", [b"", b"{}", b'{"reference":1}'])
def test_a_damaged_manifest_list_is_found_and_removed(box: Box, raw: bytes) -> None:
    assert box.say("manifest", "create", "a:1", box.name).status == 0
    [path] = (box.root / "manifests").glob("*.json")
    path.write_bytes(raw)
    [found] = box.report()["Findings"]  # type: ignore[misc]
    assert (found["Kind"], found["Affects"]) == ("list", ["docker.io/library/a:1"])
    assert box.repaired() == [f"removed manifest list {path.name}"]
    box.assert_good()


# ---- layers that stand for dropped blobs


@pytest.fixture
def thin(box: Box) -> Box:
    """Its compressed blobs are dropped."""
    box.run("image", "prune", "-f", "--compressed")
    assert not box.blob(2).exists()
    assert not box.blob(3).exists()
    return box


def recompressed(image: RandomImage, folder: Path) -> RandomImage:
    """Another image of the same layers, as other blobs."""
    layout = Layout(folder)
    blobs = tuple(layout.put(compress(tar, "zstd"), media.OCI_LAYER_ZSTD) for tar in image.tars)
    config = layout.put(image.layout.read(image.manifest.config.digest) + b"\n", media.OCI_CONFIG)
    return RandomImage(layout, encode_manifest(config, blobs), image.tars)


def ruin(box: Box) -> None:
    """Damage that is seen without the blob, and that nothing in the store makes good."""
    if box.kind == "erofs":
        flip(box.layer(1) / "layer.tar")
    else:
        shutil.rmtree(box.layer(1) / "fs")


def test_a_damaged_layer_of_a_dropped_blob_is_fetched(thin: Box) -> None:
    ruin(thin)
    diff_id, digest = f"sha256:{thin.layer(1).name}", f"sha256:{thin.blob(3).name}"
    assert thin.repaired() == [
        f"fetched blob {digest} from {thin.name.removesuffix(':1')}",
        f"made layer {diff_id} again",
    ]
    assert not thin.blob(2).exists()
    thin.assert_good()


def test_a_damaged_layer_of_a_dropped_blob_stays_until_a_registry_answers(thin: Box) -> None:
    ruin(thin)
    said = thin.say("check", "--repair", "--offline")
    assert (said.status, f"now type: argosy pull {thin.name}\n" in said.output) == (1, True)
    assert (thin.layer(1) / "layer.json").exists()
    [found] = thin.report()["Findings"]  # type: ignore[misc]
    assert (found["Kind"], found["Name"]) == ("layer", f"sha256:{thin.layer(1).name}")
    thin.repaired()
    thin.assert_good()


@pytest.mark.parametrize("damage", [flip, Path.unlink, lambda path: (path.unlink(), path.mkdir())])
@pytest.mark.parametrize("name", ["index.erofs", "layer.json"])
def test_the_tar_of_a_dropped_blob_brings_back_the_rest_of_its_layer(
    thin: Box, name: str, damage: Callable[[Path], object]
) -> None:
    """No registry is asked, and nothing is fetched."""
    if thin.kind != "erofs":
        return
    damage(thin.layer(1) / name)
    assert thin.say("check").status == 1
    assert thin.repaired("--offline") == [f"made layer sha256:{thin.layer(1).name} again of its tar"]
    assert not thin.blob(3).exists()
    thin.assert_good()


def test_facts_of_an_unpacked_layer_of_a_dropped_blob_need_the_registry(thin: Box) -> None:
    if thin.kind == "erofs":
        return
    (thin.layer(1) / "layer.json").unlink()
    assert not any("removed" in line for line in thin.repaired("--offline"))
    assert thin.report()["Remaining"] == []
    thin.repaired()
    thin.assert_good()


def test_a_damaged_layer_of_which_nothing_else_is_left_is_kept(box: Box, tmp_path: Path) -> None:
    """An image of one's own: its layer is the last copy, and half of it is more than nothing."""
    if box.kind != "erofs":
        return  # nothing is dropped there that no registry has
    own = random_image(tmp_path / "own", seed=3, size=60_000)
    load_image(box.root, own, "own:1")
    box.run("du", "own:1")  # which unpacks it
    box.run("image", "prune", "-f", "--compressed", "own:1")
    layer = box.root / "layers/sha256" / own.diff_ids[0].hex
    flip(layer / "layer.tar")
    report = box.report("--repair", "--offline")
    assert report["Repaired"] == []
    [found] = report["Remaining"]  # type: ignore[misc]
    assert (found["Name"], found["Affects"]) == (f"sha256:{layer.name}", ["own:1"])
    assert (layer / "layer.tar").exists()
    assert box.say("rmi", "-f", "own:1").status == 0
    box.assert_good()


def test_a_damaged_layer_is_made_of_another_blob_of_it_that_is_here(box: Box, tmp_path: Path) -> None:
    """Two images have the layer in two forms: one was dropped, the other is whole."""
    again = recompressed(box.image, tmp_path / "again")
    load_image(box.root, again, "other:1")
    box.run("image", "prune", "-f", "--compressed", box.name)
    assert not box.blob(3).exists()
    ruin(box)
    diff_id = f"sha256:{box.layer(1).name}"
    assert box.repaired("--offline") == [f"removed layer {diff_id}", f"made layer {diff_id} again"]
    box.assert_good()
