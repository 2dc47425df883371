"""images, tag, rmi, history, inspect and check as a user types them, on a real store with real snapshots."""

from __future__ import annotations

import io
import json
import os
import shutil
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.cli import host, images, main, parser  # noqa: F401 (a child that is nobody may not import)
from argosy.linux.features import probe
from argosy.oci.image import Image
from argosy.ops.unpack import ensure_layers
from argosy.snapshots import choose
from argosy.store import gc
from argosy.store.blobs import BlobStore
from argosy.store.records import Container, ContainerStore
from argosy.store.refs import RefStore
from support.forked import become_nobody, in_child
from support.images import random_image
from support.stores import Program, argosy, load_image

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable

    from support.images import RandomImage

    Result = subprocess.CompletedProcess[bytes]


class Shelf:
    """A store with two unpacked images, and the program on it."""

    def __init__(self, folder: Path) -> None:
        self.root = folder / "store"
        self.old = random_image(folder / "old", seed=1, size=3000)
        self.new = random_image(folder / "new", seed=2, size=5000)
        load_image(self.root, self.old, "nvidia/cuda:13-base", "nvidia/cuda:13.0.0-base", "localhost:5000/cuda:13")
        load_image(self.root, self.new, "vectoradd:26.11")
        self.blobs, self.refs, self.containers = (kind(self.root) for kind in (BlobStore, RefStore, ContainerStore))
        features = probe(folder=str(self.root), path=os.environ["PATH"])
        self.snapshotter = choose(self.root, features)
        for image in (self.old, self.new):
            ensure_layers(Image(image.descriptor, self.blobs), snapshotter=self.snapshotter, blobs=self.blobs)

    def run(self, *words: str) -> Result:
        return argosy(self.root, *words)

    def out(self, *words: str) -> str:
        result = self.run(*words)
        assert (result.returncode, result.stderr.decode()) == (0, "")
        return result.stdout.decode()

    def refused(self, *words: str) -> str:
        """What is printed on stderr by a verb that must fail with 1."""
        result = self.run(*words)
        assert result.returncode == 1
        return result.stderr.decode()

    def use(self, image: RandomImage, name: str, status: str = "exited") -> None:
        record = Container(
            id="ab" * 32,
            name=name,
            image="vectoradd:26.11",
            manifest=image.descriptor,
            image_id=image.manifest.config.digest,
            created="2026-01-02T03:04:05Z",
            command=("nvcc", "--version"),
            status=status,  # type: ignore[arg-type]
            diff_ids=image.diff_ids,
            exit_code=3,
            labels={"team": "blue"},
        )
        self.containers.create(record)


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    return Shelf(tmp_path)


def short(image: RandomImage) -> str:
    return image.manifest.config.digest.short


def lines(text: str) -> list[list[str]]:
    """Cells of a table; columns are three spaces apart."""
    return [[cell.strip() for cell in line.split("   ") if cell.strip()] for line in text.splitlines()]


def test_images_has_dockers_columns(shelf: Shelf) -> None:
    years = lines(shelf.out("images"))[1][3]
    assert lines(shelf.out("images")) == [
        ["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"],
        ["localhost:5000/cuda", "13", short(shelf.old), years, "20.5kB"],
        ["nvidia/cuda", "13-base", short(shelf.old), years, "20.5kB"],
        ["nvidia/cuda", "13.0.0-base", short(shelf.old), years, "20.5kB"],
        ["vectoradd", "26.11", short(shelf.new), years, "20.5kB"],
    ]
    assert years.endswith(" ago")


OPTIONS: dict[tuple[str, ...], Callable[[Shelf], str]] = {
    ("-q", "vectoradd"): lambda shelf: f"{short(shelf.new)}\n",
    ("-q", "--no-trunc", "vectoradd"): lambda shelf: f"{shelf.new.manifest.config.digest}\n",
    ("--format", "{{.Repository}}:{{.Tag}}", "nvidia/*"): lambda shelf: (
        "nvidia/cuda:13-base\nnvidia/cuda:13.0.0-base\n"
    ),
    ("--format", "{{.Digest}}", "vectoradd"): lambda shelf: f"{shelf.new.descriptor.digest}\n",
    ("-q", "--filter", "dangling=true"): lambda shelf: "",
    ("-q", "--filter", "label=nothing"): lambda shelf: "",
    ("-a", "-q", "--filter", "reference=vector*:26.*"): lambda shelf: f"{short(shelf.new)}\n",
}


@pytest.mark.parametrize("words", OPTIONS, ids=" ".join)
def test_images_takes_dockers_options(shelf: Shelf, words: tuple[str, ...]) -> None:
    assert shelf.out("images", *words) == OPTIONS[words](shelf)


def test_images_shows_digests_when_asked(shelf: Shelf) -> None:
    heading, row = lines(shelf.out("images", "--digests", "vectoradd"))
    assert heading == ["REPOSITORY", "TAG", "DIGEST", "IMAGE ID", "CREATED", "SIZE"]
    assert row[2] == shelf.new.descriptor.digest


def test_images_of_a_store_that_does_not_exist_is_empty(tmp_path: Path) -> None:
    result = argosy(tmp_path / "no/store", "images")
    assert (result.returncode, lines(result.stdout.decode())) == (
        0,
        [["REPOSITORY", "TAG", "IMAGE ID", "CREATED", "SIZE"]],
    )


def test_images_answers_the_same_from_its_cache(shelf: Shelf) -> None:
    fresh = shelf.out("images")
    time.sleep(2.1)  # the age from which a listing may be cached, store/listing.py
    assert shelf.out("images") == fresh
    assert (shelf.root / "cache/refs.tsv").exists()
    assert shelf.out("images") == fresh
    shelf.out("tag", "vectoradd:26.11", "vectoradd:latest")
    assert shelf.out("images", "-q", "vectoradd") == f"{short(shelf.new)}\n" * 2


def test_tag_gives_another_name_to_the_same_image(shelf: Shelf) -> None:
    shelf.out("tag", short(shelf.new), "team/add")
    added = shelf.refs.lookup("team/add:latest")
    assert added.summary == shelf.refs.lookup("vectoradd:26.11").summary


def test_tag_of_an_unknown_image_suggests_the_near_ones(shelf: Shelf) -> None:
    assert shelf.refused("tag", "nvidia/cuda:13-bse", "x") == (
        "error: no such image: nvidia/cuda:13-bse [tag-unknown]\n"
        f"  4 named images are in {shelf.root}\n"
        "  hint: did you mean nvidia/cuda:13-base or nvidia/cuda:13.0.0-base?\n"
    )


def test_tag_to_a_digest_is_refused(shelf: Shelf) -> None:
    error = shelf.refused("tag", "vectoradd:26.11", f"x@{shelf.new.descriptor.digest}")
    assert "[reference-has-digest]" in error


def test_rmi_of_one_of_several_names_only_untags(shelf: Shelf) -> None:
    before = set(shelf.blobs.walk())
    assert shelf.out("rmi", "nvidia/cuda:13-base") == "Untagged: nvidia/cuda:13-base\n"
    assert set(shelf.blobs.walk()) == before


def test_rmi_of_the_last_name_frees_blobs_and_layers_at_once(shelf: Shelf) -> None:
    removed = shelf.out("rmi", "vectoradd:26.11").splitlines()
    image = shelf.new
    assert removed == [
        "Untagged: vectoradd:26.11",
        f"Untagged: vectoradd@{image.descriptor.digest}",
        f"Deleted: {image.manifest.config.digest}",
        *(f"Deleted: {diff_id}" for diff_id in sorted(image.diff_ids)),
    ]
    kept = gc.reachable([shelf.old.descriptor], shelf.blobs)
    assert (set(shelf.blobs.walk()), set(shelf.snapshotter.walk())) == (kept.blobs, kept.diff_ids)


def test_rmi_keeps_layers_that_another_name_needs(shelf: Shelf) -> None:
    shelf.out("tag", "vectoradd:26.11", "other:1")
    shelf.out("rmi", "vectoradd:26.11")
    assert set(shelf.new.diff_ids) <= set(shelf.snapshotter.walk())
    assert shelf.out("check").endswith("0 damaged\n")


def test_rmi_by_id_of_an_image_in_several_repositories_needs_force(shelf: Shelf) -> None:
    assert shelf.refused("rmi", short(shelf.old)).startswith(
        f"error: conflict: unable to delete {short(shelf.old)} (must be forced) - "
        "image is referenced in multiple repositories [image-in-use]\n"
    )
    forced = shelf.out("rmi", "-f", short(shelf.old)).splitlines()
    assert [line for line in forced if "@" not in line][:4] == [
        "Untagged: nvidia/cuda:13-base",
        "Untagged: nvidia/cuda:13.0.0-base",
        "Untagged: localhost:5000/cuda:13",
        f"Deleted: {shelf.old.manifest.config.digest}",
    ]
    assert shelf.out("images", "-q") == f"{short(shelf.new)}\n"


def test_rmi_of_several_goes_on_after_one_that_fails(shelf: Shelf) -> None:
    result = shelf.run("rmi", "nothing:1", "vectoradd:26.11")
    assert result.returncode == 1
    assert result.stderr.decode().startswith("error: no such image: nothing:1 [tag-unknown]\n")
    assert result.stdout.decode().startswith("Untagged: vectoradd:26.11\n")


def test_rmi_of_an_image_in_use_needs_force_and_leaves_the_container_whole(shelf: Shelf) -> None:
    shelf.use(shelf.new, "builder")
    assert shelf.refused("rmi", "vectoradd:26.11") == (
        'error: conflict: unable to remove repository reference "vectoradd:26.11" (must force) - '
        f"stopped container abababababab is using its referenced image {short(shelf.new)} [image-in-use]\n"
        "  used by builder (abababababab)\n"
        "  hint: argosy rm builder, or argosy rmi -f vectoradd:26.11\n"
    )
    forced = shelf.out("rmi", "-f", "vectoradd:26.11").splitlines()
    assert forced == ["Untagged: vectoradd:26.11", f"Untagged: vectoradd@{shelf.new.descriptor.digest}"]
    needed = gc.reachable([shelf.new.descriptor], shelf.blobs)
    assert needed.blobs <= set(shelf.blobs.walk())
    assert needed.diff_ids <= set(shelf.snapshotter.walk())


def test_rmi_force_of_what_is_not_there_is_done(shelf: Shelf) -> None:
    assert shelf.out("rmi", "-f", "nothing:1") == ""


def test_prune_takes_images_without_a_name_and_with_all_the_unused_ones(shelf: Shelf) -> None:
    load_image(shelf.root, shelf.new, "localhost:5000/cuda:13", "nvidia/cuda:13-base", "nvidia/cuda:13.0.0-base")
    assert lines(shelf.out("images", "--filter", "dangling=true"))[1][:3] == ["<none>", "<none>", short(shelf.old)]
    pruned = shelf.out("prune", "--force").splitlines()
    layers = sorted(shelf.old.diff_ids)
    plan, total = lines("\n".join(pruned[:2])), pruned[2].removeprefix("Total: ")
    assert plan == [["TO REMOVE", "NAME", "FREES"], ["image", f"<none> ({short(shelf.old)})", total]]
    assert pruned[3:] == [
        "",
        "Deleted Images:",
        f"deleted: {shelf.old.manifest.config.digest}",
        *(f"deleted: {layer}" for layer in layers),
        "",
        f"Total reclaimed space: {total}",
    ]
    assert set(shelf.blobs.walk()) == gc.reachable([shelf.new.descriptor], shelf.blobs).blobs
    shelf.use(shelf.new, "builder")
    assert shelf.out("prune", "-af") == "Total reclaimed space: 0B\n"
    shelf.containers.delete("ab" * 32)
    shelf.out("prune", "-af")
    assert (list(shelf.blobs.walk()), list(shelf.snapshotter.walk())) == ([], [])


def test_prune_asks_first(shelf: Shelf) -> None:
    assert "[not-confirmed]" in shelf.refused("prune", "-a")
    assert len(lines(shelf.out("images"))) == 5


def test_history_has_dockers_columns_newest_first(shelf: Shelf) -> None:
    heading, first, second = lines(shelf.out("history", "vectoradd:26.11"))
    assert heading == ["IMAGE", "CREATED", "CREATED BY", "SIZE", "COMMENT"]
    assert (first[0], first[2:], second[0], second[2:]) == (
        short(shelf.new),
        ["layer 1", "10.2kB"],
        "<missing>",
        ["layer 0", "10.2kB"],
    )


def test_history_takes_dockers_options(shelf: Shelf) -> None:
    assert shelf.out("history", "-q", "vectoradd:26.11") == f"{short(shelf.new)}\n<missing>\n"
    assert shelf.out("history", "--no-trunc", "-q", "vectoradd:26.11").startswith("sha256:")
    plain = shelf.out("history", "--human=false", "--format", "{{.Size}} {{.CreatedSince}}", "vectoradd:26.11")
    assert plain == "10240 2026-01-02T03:04:05Z\n" * 2


@pytest.mark.parametrize("compression", ["gzip", "zstd", "none"])
def test_history_tells_true_sizes_whatever_is_here(tmp_path: Path, compression: str) -> None:
    store = Program(tmp_path / "store")
    image = random_image(tmp_path / "image", layers=3, size=100_000, compression=compression)
    load_image(store.root, image, "x:1")

    def sizes() -> list[str]:
        return store("history", "--human=false", "--format", "{{.Size}}", "x:1").splitlines()

    true = [str(len(tar)) for tar in reversed(image.tars)]
    assert sizes() == true, "blobs alone"
    snapshotter = choose(store.root, probe(folder=str(store.root), path=os.environ["PATH"]))
    ensure_layers(Image(image.descriptor, BlobStore(store.root)), snapshotter=snapshotter, blobs=BlobStore(store.root))
    assert sizes() == true, "blobs and snapshots"
    layer = image.manifest.layers[1]
    BlobStore(store.root).delete(layer.digest)
    assert sizes() == true, "a snapshot without its blob"
    shutil.rmtree(store.root / "layers")
    assert sizes() == [true[0], "N/A", true[2]], "neither"
    assert store("history", "--format", "{{.Size}}", "x:1").splitlines()[1] == "N/A"


def test_history_has_dockers_times(tmp_path: Path) -> None:
    store = Program(tmp_path / "store")
    load_image(store.root, random_image(tmp_path / "image", layers=1), "x:1")
    words = ("history", "--format", "{{.CreatedAt}}", "x:1")
    assert store(*words) == "2026-01-02T03:04:05Z"
    there = argosy(store.root, *words, environ={"TZ": "Asia/Kolkata"})
    assert there.stdout == b"2026-01-02T08:34:05+05:30\n"
    [row] = [json.loads(line) for line in store("history", "--format", "json", "x:1").splitlines()]
    assert sorted(row) == ["Comment", "CreatedAt", "CreatedBy", "CreatedSince", "ID", "Size"]


def test_inspect_of_an_image_has_dockers_fields(shelf: Shelf) -> None:
    [found] = json.loads(shelf.out("inspect", "nvidia/cuda:13-base"))
    assert found["Id"] == shelf.old.manifest.config.digest
    assert found["RepoTags"] == ["localhost:5000/cuda:13", "nvidia/cuda:13-base", "nvidia/cuda:13.0.0-base"]
    assert found["RepoDigests"] == [
        f"{n}@{shelf.old.descriptor.digest}" for n in ("localhost:5000/cuda", "nvidia/cuda")
    ]
    assert (found["Os"], found["Architecture"], found["Size"]) == ("linux", "amd64", 20480)
    assert found["RootFS"] == {"Type": "layers", "Layers": list(shelf.old.diff_ids)}
    assert found["Config"]["Env"] == ["PATH=/usr/bin:/bin"]
    assert found["Created"] == "2026-01-02T03:04:05Z"


def test_inspect_prefers_containers_unless_told(shelf: Shelf) -> None:
    shelf.use(shelf.new, "vectoradd")
    shelf.out("tag", "vectoradd:26.11", "vectoradd")
    assert shelf.out("inspect", "-f", "{{.Name}} {{.State.ExitCode}}", "vectoradd") == "/vectoradd 3\n"
    assert shelf.out("inspect", "--type", "image", "-f", "{{.Id}}", "vectoradd").strip() == (
        shelf.new.manifest.config.digest
    )
    assert shelf.out("inspect", "-f", "{{json .Config.Labels}}", "abab") == '{"team":"blue"}\n'


def test_inspect_of_the_unknown_prints_an_empty_list_and_fails(shelf: Shelf) -> None:
    result = shelf.run("inspect", "nothing", "vectoradd:26.11")
    assert result.returncode == 1
    assert [found["RepoTags"] for found in json.loads(result.stdout)] == [["vectoradd:26.11"]]
    assert result.stderr.decode().startswith("error: no such object: nothing [object-unknown]\n")
    assert shelf.run("inspect", "nothing").stdout == b"[]\n"
    assert shelf.run("inspect", "--type", "container", "vectoradd:26.11").returncode == 1


def test_check_of_a_sound_store_says_how_much_it_looked_at(shelf: Shelf) -> None:
    assert shelf.out("check").startswith("8 blobs, 4 layers, 4 tags, 0 containers checked; ")
    assert shelf.out("check", "-q") == ""


def test_check_names_what_is_damaged_and_repair_lets_a_pull_mend_it(shelf: Shelf) -> None:
    layer = shelf.new.manifest.layers[0]
    path = shelf.blobs.path(layer.digest)
    path.chmod(0o644)
    path.write_bytes(bytes(layer.size))
    result = shelf.run("check")
    assert result.returncode == 1
    heading, row, remedy, _ = lines(result.stdout.decode())
    assert heading == ["KIND", "NAME", "PROBLEM", "AFFECTS"]
    assert (row[:2], row[-1]) == (["blob", layer.digest.short], "vectoradd:26.11")
    assert remedy == ["to mend: argosy check --repair; argosy pull vectoradd:26.11"]
    repaired = shelf.run("check", "--repair")
    assert repaired.returncode == 1
    assert f"removed blob {layer.digest}\n" in repaired.stdout.decode()
    assert "now type: argosy pull vectoradd:26.11\n" in repaired.stdout.decode()
    load_image(shelf.root, shelf.new, "vectoradd:26.11")
    assert shelf.out("check").endswith("0 damaged\n")


def test_check_finds_a_damaged_layer_and_repair_makes_it_again(shelf: Shelf) -> None:
    if shelf.snapshotter.kind != "erofs":
        pytest.skip("this kernel mounts no EROFS from a file; unpacked layers are test_check.py's")
    diff_id = shelf.new.diff_ids[1]
    for name in ("layer.tar", "index.erofs"):
        [path] = shelf.root.glob(f"layers/sha256/{diff_id.hex}/{name}")
        good = path.read_bytes()
        path.write_bytes(good[:2000] + bytes([good[2000] ^ 1]) + good[2001:])
        found = json.loads(shelf.run("check", "--format", "json").stdout)["Findings"]
        assert [(one["Kind"], one["Name"], one["Affects"]) for one in found] == [
            ("layer", diff_id, ["vectoradd:26.11"])
        ]
        assert shelf.run("check", "--repair").returncode == 1
        assert shelf.snapshotter.has(diff_id)
        assert shelf.out("check", "-q") == ""


def test_layers_are_a_cache_that_nobody_misses(shelf: Shelf) -> None:
    shelf.use(shelf.new, "builder")
    before = shelf.out("ps", "-a", "-s", "--format", "{{.Names}} {{.Size}}")
    for diff_id in shelf.new.diff_ids:
        shelf.snapshotter.remove(diff_id)
    assert shelf.out("ps", "-a", "-s", "--format", "{{.Names}} {{.Size}}") != before
    for words in (("history", "vectoradd:26.11"), ("stack", "builder"), ("images",), ("check", "-q")):
        shelf.out(*words)


def test_a_damaged_layer_is_pruned_like_any_other(shelf: Shelf) -> None:
    for diff_id in shelf.new.diff_ids:
        [path] = shelf.root.glob(f"layers/sha256/{diff_id.hex}/layer.json")
        path.write_bytes(b"{")
    shelf.out("rmi", "-f", "vectoradd:26.11")
    assert [diff_id for diff_id in shelf.new.diff_ids[1:] if shelf.snapshotter.has(diff_id)] == []


def test_check_survives_records_that_are_rubbish(shelf: Shelf) -> None:
    shelf.use(shelf.new, "builder")
    (Path(shelf.containers.folder("ab" * 32)) / "record.json").write_bytes(b"{")
    (shelf.root / "refs/docker.io%2Flibrary%2Fvectoradd%3A26.11.json").write_bytes(b"")
    assert shelf.run("ps").returncode == 0
    assert shelf.run("images").returncode == 0
    result = shelf.run("check")
    assert (result.returncode, [row[0] for row in lines(result.stdout.decode())[1:3]]) == (1, ["tag", "container"])
    shelf.run("check", "--repair")
    assert shelf.out("check", "-q") == ""


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_another_user_may_list_the_images_of_a_store_that_is_open_to_read(shelf: Shelf) -> None:
    for folder in (shelf.root, *list(shelf.root.parents)[:4]):
        folder.chmod(0o755)

    def listing() -> tuple[int, str]:
        become_nobody()
        sys.stdout = io.StringIO()
        return main(["--root", str(shelf.root), "images", "-q", "vectoradd"], {}), sys.stdout.getvalue()

    assert in_child(listing) == (0, f"{short(shelf.new)}\n")


def test_a_store_of_a_newer_program_is_refused(shelf: Shelf) -> None:
    (shelf.root / "version.json").write_text('{"format":2,"minimum":2,"writer":"argosy 9.9"}')
    for verb in (["images"], ["rmi", "x"], ["check"], ["inspect", "x"]):
        error = shelf.refused(*verb)
        assert "is too new for this argosy [store-too-new]\n" in error
        assert "argosy 9.9 wrote it in format 2" in error
