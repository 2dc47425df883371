"""The CUDA images for real: from Debian's archive and the Python index to a program that nvcc compiled.

One build serves all tests of this file; it takes about a minute on two cores and
downloads 350 MB. The big math libraries are left out.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.catalog.plan import Settings
from argosy.linux.files import remove_tree
from argosy.oci.image import Image
from argosy.oci.platform import Platform
from argosy.oci.reference import Reference
from argosy.ops import catalog
from argosy.ops.progress import Finished
from argosy.store.blobs import BlobStore
from argosy.store.refs import RefStore

if TYPE_CHECKING:
    from collections.abc import Iterator

    from argosy.store.refs import RefRecord

FLAVOURS = ("base", "runtime", "devel")
SETTINGS = Settings(platform=Platform.host(), math=False)
VECTOR_ADD = Path(__file__).parents[2] / "demo/vectorAdd.cu"


class Store:
    """A store that holds the three images, and the program to use them with."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = BlobStore(root)
        self.refs = RefStore(root)

    def argosy(self, *arguments: str, **options: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "argosy", "--root", str(self.root), *arguments]
        return subprocess.run(command, capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload,no-any-return]

    def record(self, tag: str) -> RefRecord:
        return self.refs.get(Reference.parse(f"localhost:5000/nvidia/cuda:{tag}"))

    def image(self, tag: str) -> Image:
        return Image(self.record(tag).manifest, self.blobs)

    def inside(self, tag: str, script: str, *options: str) -> str:
        """What a shell in the image prints."""
        name = f"localhost:5000/nvidia/cuda:{tag}"
        done = self.argosy("run", "--rm", "--entrypoint", "/bin/sh", *options, name, "-c", script)
        assert done.returncode == 0, done.stderr
        return done.stdout


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Store]:
    if os.geteuid() != 0 and not _has_subordinate_ids():
        pytest.skip("no subordinate ids: mmdebstrap cannot install as another user")
    store = Store(tmp_path_factory.mktemp("catalog"))
    done = store.argosy("catalog", "build", "--without-math", "--tag-prefix", "localhost:5000/", "nvidia/cuda:13-devel")
    assert done.returncode == 0, done.stderr
    yield store
    remove_tree(store.root)  # pytest would keep 1.5 GB for days


def _has_subordinate_ids() -> bool:
    import pwd

    name = pwd.getpwuid(os.geteuid()).pw_name
    return any(
        line.startswith((f"{name}:", f"{os.geteuid()}:")) for line in Path("/etc/subuid").read_text().splitlines()
    )


def build(store: Store, name: str, *, environ: dict[str, str], root: Path | None = None) -> list[Finished]:
    events: list[object] = []
    place = root or store.root
    catalog.build(
        name,
        SETTINGS,
        blobs=BlobStore(place),
        refs=RefStore(place),
        cache=place / "cache",
        apt=Path("/etc/apt"),
        environ=environ,
        prefix="localhost:5000/",
        progress=events.append,
    )
    return [event for event in events if isinstance(event, Finished)]


def test_three_images_share_their_layers_and_have_nvidias_tags(store: Store) -> None:
    base, runtime, devel = (store.image(f"13-{flavour}").manifest.layers for flavour in FLAVOURS)
    assert runtime[: len(base)] == base
    assert devel[: len(runtime)] == runtime
    version = store.image("13-base").config.environment["CUDA_VERSION"]
    for flavour in FLAVOURS:
        assert store.record(f"{version}-{flavour}-debian12").descriptor == store.record(f"13-{flavour}").descriptor


def test_settings_are_those_that_cuda_programs_rely_on(store: Store) -> None:
    config = store.image("13-devel").config
    env = config.environment
    assert env["PATH"].startswith("/usr/local/nvidia/bin:/usr/local/cuda/bin:")
    assert env["LD_LIBRARY_PATH"] == "/usr/local/nvidia/lib:/usr/local/nvidia/lib64"
    assert (env["NVIDIA_VISIBLE_DEVICES"], env["NVIDIA_DRIVER_CAPABILITIES"]) == ("all", "compute,utility")
    assert env["LIBRARY_PATH"] == "/usr/local/cuda/lib64/stubs"
    assert env["NVIDIA_REQUIRE_CUDA"] == f"cuda>={'.'.join(env['CUDA_VERSION'].split('.')[:2])} driver>=580"
    assert config.entrypoint == ("/opt/nvidia/nvidia_entrypoint.sh",)
    assert store.image("13-base").config.entrypoint == ()
    assert [step.created_by.startswith("argosy catalog: ") for step in config.history] == [True] * len(config.diff_ids)
    assert "nvidia-cuda-nvcc==" in config.labels["argosy.catalog.wheels"]
    assert "--hash=sha256:" in config.labels["argosy.catalog.wheels"]


def test_a_second_build_makes_nothing_and_starts_no_program(store: Store) -> None:
    before = store.record("13-devel")
    events = build(store, "nvidia/cuda:13-devel", environ={"PATH": "/nowhere"})
    assert {event.status for event in events} == {"Already built"}
    assert store.record("13-devel").descriptor == before.descriptor


def test_another_folder_gives_the_same_digests(store: Store, tmp_path: Path) -> None:
    """Indexes, packages and trees of its own; nothing is shared with the first build but the day."""
    root = tmp_path / "with a blank"
    events = build(store, "nvidia/cuda:13-base", environ=dict(os.environ), root=root)
    assert {event.status for event in events} == {"Built"}
    again = RefStore(root).get(Reference.parse("localhost:5000/nvidia/cuda:13-base"))
    assert msgspec.structs.replace(again, updated="") == msgspec.structs.replace(store.record("13-base"), updated="")


def test_nothing_is_left_of_the_build(store: Store) -> None:
    left = "find /var/log /var/cache/apt /var/lib/apt/lists /tmp /var/tmp /etc/machine-id -type f 2>/dev/null; true"
    assert store.inside("13-devel", left) == ""
    assert (
        store.inside("13-devel", "dpkg --audit; find / -xdev -xtype l -not -path '/proc/*' -not -path '/dev/*'") == ""
    )
    writable = "find / -xdev -perm -0002 -not -perm -1000 -not -type l -not -path '/proc/*' -not -path '/dev/*'"
    assert store.inside("13-devel", writable) == ""


def test_the_loader_finds_cuda_and_ldconfig_agrees_with_our_cache(store: Store) -> None:
    for flavour in FLAVOURS:
        assert "libcudart.so.13" in store.inside(f"13-{flavour}", "ldconfig -p")
    names = "ldconfig -p | grep -v '^Cache generated' | sort"
    ours, theirs = store.inside("13-devel", f"{names}; echo ---; ldconfig; {names}").split("---\n")
    assert [line for line in ours.splitlines() if "=>" in line] == [
        line for line in theirs.splitlines() if "=>" in line
    ]


def test_nvcc_compiles_links_and_the_tools_start(store: Store, tmp_path: Path) -> None:
    (tmp_path / "vectorAdd.cu").write_bytes(VECTOR_ADD.read_bytes())
    (tmp_path / "driver.cu").write_text(
        "#include <cuda.h>\n#include <nvml.h>\n#include <cuda/std/utility>\n"
        "int main() { return cuInit(0) + nvmlInit(); }\n"
    )
    script = """
        set -e; cd /work
        nvcc -o static vectorAdd.cu
        nvcc -cudart shared -o shared vectorAdd.cu
        nvcc -o driver driver.cu -lcuda -lnvidia-ml
        ldd shared | grep -o 'libcudart.so.13 => [^ ]*'
        env LD_LIBRARY_PATH= ldd shared | grep -o 'libcudart.so.13 => [^ ]*'
        ldd driver | grep -o 'libcuda.so.1 => not found'
        ./static || echo "static $?"
        for tool in nvcc cuobjdump nvdisasm ptxas compute-sanitizer; do $tool --version >/dev/null; done
    """
    assert store.inside("13-devel", script, "-v", f"{tmp_path}:/work").splitlines() == [
        "libcudart.so.13 => /usr/local/cuda/targets/x86_64-linux/lib/libcudart.so.13",
        "libcudart.so.13 => /usr/local/cuda/targets/x86_64-linux/lib/libcudart.so.13",
        "libcuda.so.1 => not found",
        "static 1",
    ]


def test_the_entrypoint_warns_without_a_driver_and_runs_the_command(store: Store) -> None:
    done = store.argosy("run", "--rm", "localhost:5000/nvidia/cuda:13-runtime", "sh", "-c", "echo $NVIDIA_CPU_ONLY")
    assert (done.returncode, done.stdout) == (0, "1\n")
    assert "The NVIDIA Driver was not detected." in done.stderr


def test_an_unknown_image_is_one_error(store: Store) -> None:
    done = store.argosy("catalog", "build", "nvidia/cuda:13-devl")
    assert done.returncode == 1
    assert (
        done.stderr.splitlines()[0]
        == "error: the catalogue has no recipe for 'nvidia/cuda:13-devl' [recipe-tag-unknown]"
    )


def test_a_difference_names_the_packages_that_dpkg_names(store: Store) -> None:
    """Of base and devel, from what lies in the layers, against what dpkg says in a container of each."""

    def installed(tag: str) -> dict[str, str]:
        text = store.inside(tag, "dpkg-query -W -f '${db:Status-Abbrev} ${Package} ${Version}\\n'")
        return dict(line.split()[1:] for line in text.splitlines() if line.startswith("ii "))

    names = [f"localhost:5000/nvidia/cuda:{tag}" for tag in ("13-base", "13-devel")]
    done = store.argosy("diff", "--format", "json", *names)
    assert done.returncode == 0, done.stderr
    found = {row["Name"]: row for row in json.loads(done.stdout)["Packages"] if row["Kind"] == "deb"}
    was, now = installed("13-base"), installed("13-devel")
    assert {name: (row["Before"], row["After"]) for name, row in found.items()} == {
        name: (was.get(name, ""), now.get(name, ""))
        for name in was.keys() | now.keys()
        if was.get(name) != now.get(name)
    }
    assert found["gcc-12"]["Growth"] > 50_000_000


def test_the_use_of_an_image_is_what_a_container_finds(store: Store) -> None:
    done = store.argosy("du", "--format", "json", "localhost:5000/nvidia/cuda:13-devel")
    assert done.returncode == 0, done.stderr
    use = json.loads(done.stdout)
    names = {row["Name"] for row in use["Packages"] if row["Kind"] == "deb"}
    assert names == set(store.inside("13-devel", "dpkg-query -W -f '${Package}\\n'").split())
    script = "find /usr -xdev -type f -printf '%D %i %s\\n' | sort -u | awk '{ s += $3 } END { printf \"%d\", s }'"
    [usr] = [row["Size"] for row in use["Root"]["Entries"] if row["Path"] == "/usr"]
    assert usr == int(store.inside("13-devel", script))
