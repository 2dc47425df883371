"""Images that go from one program to another: umoci, podman and skopeo on one side, argosy on the other."""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import tarfile
import tempfile
from typing import TYPE_CHECKING

import pytest

from argosy.linux.features import probe
from argosy.linux.files import remove_tree
from argosy.oci import descriptor as media
from argosy.oci.digest import Digest
from argosy.oci.manifest import Manifest, parse
from argosy.snapshots import choose
from support.busybox import busybox_image, tar_of
from support.layers import looking
from support.registry import RunningRegistry, running_registry
from support.stores import Program
from support.trees import Tree, describe

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Run = Callable[..., str]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners and devices of layers)")

#: cap_net_raw+ep, as setcap writes it (revision 2)
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")
LOWER = tar_of(
    {
        "d/": 0o755,
        "d/a": b"a",
        "d/b": b"b",
        "e/": 0o755,
        "e/x": b"x",
        "file": b"f",
        "link": "d",
        "g/": 0o755,
        "g/h": b"h",
        "k/": 0o700,
        "k/q": b"q",
        "m/": 0o755,
        "m/n": b"n",
        "o/": 0o755,
        "o/p": b"p",
        "opaque/": 0o755,
        "opaque/old": b"1",
        "opaque/sub/": 0o755,
        "opaque/sub/old": b"1",
    }
)
#: marks before and after what they concern, of nothing, and changes of kind without any
ODD_MARKS = tar_of(
    {
        ".wh.absent": b"",
        "d/.wh.a": b"",
        "d/a": b"new a",
        "e/made": b"e",
        "e/.wh.made": b"",
        "file/": 0o755,
        "file/inner": b"a folder now",
        "g": b"a file now",
        "link/": 0o755,
        "link/z": b"no link now",
        "k/r": b"in a folder that is not described",
        "m/.wh..wh..opq": b"",
        "m/new": b"m",
        "o/.wh.p": b"",
        "opaque/new": b"before the mark",
        "opaque/sub/new": b"also",
        "opaque/.wh..wh..opq": b"",
    }
)
DOCKERFILE = """
FROM scratch
COPY busybox /bin/busybox
COPY busybox /bin/second
ENV PATH=/bin A="b c"
LABEL made.by=podman
WORKDIR /srv/app
ENTRYPOINT []
CMD ["busybox", "echo", "made by podman"]
"""


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    with running_registry(tmp_path_factory.mktemp("interop") / "registry") as running:
        yield running


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


@pytest.fixture
def podman(tmp_path: Path) -> Iterator[Run]:
    """podman over storage of its own; it can run containers where it may set limits."""
    _need("podman")
    run_root = tempfile.mkdtemp(prefix="interop-")  # podman takes 50 characters at most here
    options = ("--root", tmp_path / "podman", "--runroot", run_root, "--storage-driver", "vfs", "--runtime", "runc")
    try:
        yield lambda *words: _run("podman", *options, "--cgroup-manager", "cgroupfs", *words)
    finally:
        remove_tree(run_root)
        remove_tree(tmp_path / "podman")


#: What a container does to the busybox image, and what it is called in the tree afterwards.
CHANGES = """
mkdir -p /new/deep && echo x > /new/deep/file && ln /new/deep/file /new/hard && ln -s nowhere /new/dangling
mkfifo /new/pipe && rm /opt/hello && rm -rf /home && mkdir -m 700 /home && echo y > /home/y
rm /bin/wc && mkdir /bin/wc && echo z > /bin/wc/z
rm -r /root && echo file > /root && rm /bin/vi && ln -s /etc/passwd /bin/vi
chmod 640 /etc/passwd && chown 1000:100 /tmp && mkdir /opt/sub && rm -r /opt/sub
"""


@pytest.fixture(scope="module")
def committed(tmp_path_factory: pytest.TempPathFactory, registry: RunningRegistry) -> tuple[Program, str]:
    """A store with an image that was committed, and its name in the registry, to which it is pushed."""
    here, folder = Program(tmp_path_factory.mktemp("committed") / "store"), tmp_path_factory.mktemp("box")
    name = f"{registry.address}/ours/committed:1"
    base = registry.push(busybox_image(folder), "ours/box")
    here("pull", "-q", base)
    here("run", "--name", "changed", base, "sh", "-e", "-c", CHANGES)
    upper = next((here.root / "containers").glob("*/upper"))
    os.setxattr(upper / "new/deep/file", "user.note", b"kept")
    os.setxattr(upper / "new/hard", "security.capability", NET_RAW)
    here("commit", "changed", name)
    here("push", name)
    return here, name


def test_a_commit_marks_only_what_it_hides(committed: tuple[Program, str], registry: RunningRegistry) -> None:
    """overlayfs calls each new folder opaque; in an image that would only cost other programs time."""
    here, name = committed
    layer = manifest_of(registry, name).layers[-1]
    with tarfile.open(here.root / "blobs/sha256" / layer.digest.hex) as archive:
        marks = [member.name for member in archive if "/.wh." in member.name]
    assert marks == ["home/.wh..wh..opq", "opt/.wh.hello"]


def test_umoci_unpacks_a_commit_to_the_files_that_our_containers_see(
    committed: tuple[Program, str], tmp_path: Path
) -> None:
    _need("umoci")
    here, name = committed
    _run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"oci:{tmp_path}/layout:1")
    _run("umoci", "unpack", "--image", f"{tmp_path}/layout:1", tmp_path / "bundle")
    assert without_folder_times(describe(tmp_path / "bundle/rootfs")) == without_folder_times(
        tree_of(here, name, tmp_path / "scratch")
    )


def test_skopeo_keeps_the_digest_of_a_commit(
    committed: tuple[Program, str], registry: RunningRegistry, tmp_path: Path
) -> None:
    here, name = committed
    inspected = _run("skopeo", "inspect", "--tls-verify=false", "--format", "{{.Digest}}", f"docker://{name}")
    assert inspected.strip() == here.digest(name)
    options = ("--preserve-digests", "--src-tls-verify=false", "--dest-tls-verify=false")
    _run("skopeo", "copy", *options, f"docker://{name}", f"docker://{registry.address}/ours/copied:1")
    _run("skopeo", "copy", *options, f"docker://{registry.address}/ours/copied:1", f"dir:{tmp_path}/copied")
    assert Digest.of((tmp_path / "copied/manifest.json").read_bytes()) == here.digest(name)


def test_podman_runs_a_commit(committed: tuple[Program, str], podman: Run) -> None:
    _, name = committed
    podman("pull", "-q", "--tls-verify=false", name)
    script = "cat /new/hard /home/y /root /bin/wc/z; test ! -e /opt/hello; ls /home; stat -c %u:%g /tmp"
    limits = ("--ulimit", "nofile=1024:1024", "--ulimit", "nproc=4096:4096")  # CAP_SYS_RESOURCE may be missing
    words = podman("run", "--rm", *limits, "--network", "host", name, "sh", "-e", "-c", script).split()
    assert words == ["x", "y", "file", "z", "y", "1000:100"]


def test_a_commit_on_an_image_of_dockers_is_wholly_ocis(
    registry: RunningRegistry, here: Program, podman: Run, tmp_path: Path
) -> None:
    """podman takes it as it is, and skopeo, which knows no mixtures, converts it."""
    base, name = f"{registry.address}/docker-made/box:1", f"{registry.address}/ours/on-docker:1"
    source = busybox_image(tmp_path / "image")
    _run(
        "skopeo",
        "copy",
        "--format",
        "v2s2",
        "--dest-tls-verify=false",
        f"oci:{source.folder}:latest",
        f"docker://{base}",
    )
    here("pull", "-q", base)
    here("run", "--name", "changed", base, "touch", "/made")
    here("commit", "changed", name)
    here("push", name)
    manifest = manifest_of(registry, name)
    assert [layer.media_type for layer in manifest.layers] == [media.OCI_LAYER_GZIP] * 4
    assert manifest.layers[:3] == tuple(layer.in_oci_terms for layer in manifest_of(registry, base).layers)
    assert f"sha256:{podman('pull', '-q', '--tls-verify=false', name).strip()}" == manifest.config.digest
    _run("skopeo", "copy", "--src-tls-verify=false", f"docker://{name}", f"docker-archive:{tmp_path}/archive.tar")


@pytest.mark.parametrize("form", ["oci", "docker"])
def test_what_podman_builds_is_pulled_with_its_digest_and_runs(
    registry: RunningRegistry, here: Program, podman: Run, tmp_path: Path, form: str
) -> None:
    context = tmp_path / "context"
    context.mkdir()
    shutil.copy(shutil.which("busybox") or "", context / "busybox")
    (context / "Dockerfile").write_text(DOCKERFILE)
    name = f"{registry.address}/podman/built:{form}"
    podman("build", "-q", "--format", form, "--layers", "-t", name, context)
    podman("push", "-q", "--tls-verify=false", "--digestfile", tmp_path / "digest", name)
    here("pull", "-q", name)
    assert here.digest(name) == (tmp_path / "digest").read_text()
    assert here("run", "--rm", name) == "made by podman"
    assert here("run", "--rm", name, "busybox", "pwd") == "/srv/app"


def test_what_umoci_makes_has_the_files_that_umoci_sees(
    registry: RunningRegistry, here: Program, tmp_path: Path
) -> None:
    """Layers by its own diff and, with marks in odd places, by hand."""
    _need("umoci")
    image, bundle = f"{tmp_path}/layout:1", tmp_path / "bundle"
    _run("umoci", "init", "--layout", tmp_path / "layout")
    _run("umoci", "new", "--image", image)
    for number, tar in enumerate((busybox_image(tmp_path / "box").tars[0], LOWER, ODD_MARKS)):
        (tmp_path / f"{number}.tar").write_bytes(tar)
        _run("umoci", "raw", "add-layer", "--image", image, tmp_path / f"{number}.tar")
    _run("umoci", "unpack", "--image", image, bundle)
    change_bundle(bundle / "rootfs")
    _run("umoci", "repack", "--image", image, bundle)
    name = f"{registry.address}/umoci/made:1"
    _run("skopeo", "copy", "--preserve-digests", "--dest-tls-verify=false", f"oci:{image}", f"docker://{name}")
    here("pull", "-q", name)
    assert here.digest(name) == manifest_of(registry, name).descriptor.digest
    _run("umoci", "unpack", "--image", image, tmp_path / "again")
    assert without_folder_times(tree_of(here, name, tmp_path / "scratch")) == without_folder_times(
        describe(tmp_path / "again/rootfs")
    )
    assert here("run", "--rm", name, "/bin/cat", "/d/a") == "new a"


def change_bundle(root: Path) -> None:
    """What an editor of umoci's unpacked files may do."""
    (root / "d/b").unlink()
    shutil.rmtree(root / "k")
    (root / "k").write_text("a file now")
    (root / "file/inner").unlink()
    (root / "file").rmdir()
    (root / "file").symlink_to("d")
    (root / "made").mkdir(0o711)
    os.mknod(root / "made/null", 0o666 | stat.S_IFCHR, os.makedev(1, 3))
    os.setxattr(root / "d/a", "user.note", b"kept")
    os.chown(root / "d/a", 70_000, 70_001)


def manifest_of(registry: RunningRegistry, reference: str) -> Manifest:
    repository, _, tag = reference.removeprefix(f"{registry.address}/").rpartition(":")
    answer = registry.request("GET", f"/v2/{repository}/manifests/{tag}")
    found = parse(answer.body, answer.headers["content-type"])
    assert isinstance(found, Manifest), answer
    return found


def tree_of(here: Program, reference: str, scratch: Path) -> Tree:
    """The image's files as its containers see them."""
    found = json.loads(here("inspect", "--format", "{{json .RootFS.Layers}}", reference))
    snapshotter = choose(here.root, probe(folder=str(here.root), path=os.environ["PATH"]))
    return looking(snapshotter, tuple(map(Digest.parse, found)), scratch, describe)


def without_folder_times(tree: Tree) -> Tree:
    """Programs differ in whether making a file in a folder touches it, and a file's other names may be hidden."""
    return {
        name: (row[0], row[1], None if str(row[0]).startswith("d") else row[2], *row[3:5]) for name, row in tree.items()
    }


def _need(program: str) -> None:
    if shutil.which(program) is None:
        pytest.skip(f"no peer client {program}")


def _run(*command: object) -> str:
    words = [str(word) for word in command]
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=False)
    assert ended.returncode == 0, f"{' '.join(words)}\n{ended.stderr}"
    return ended.stdout
