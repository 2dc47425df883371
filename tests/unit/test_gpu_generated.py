"""The generated layer, over images that are folders: what it holds, and what hostile images cannot make it do."""

from __future__ import annotations

import os
import re
import stat
import subprocess
from typing import TYPE_CHECKING

import pytest

from argosy.errors import InvalidInput
from argosy.gpu.driver import Driver
from argosy.gpu.layout import ImageLayout
from argosy.gpu.roots import DriverRoots
from argosy.linux import ldcache, paths
from argosy.oci.edits import BindMount, ContainerEdits, GeneratedFile, Link
from argosy.ops.generated import Generated, build
from tests.support import driver_roots
from tests.support.driver_roots import TRIPLET, VERSION
from tests.support.elf import EM_ARM, shared_object

if TYPE_CHECKING:
    from pathlib import Path

MACHINE = os.uname().machine
FLAGS = ldcache.FLAGS[MACHINE, 64]
DRIVER_OPTIONS = ("ro", "nosuid", "nodev", "rbind", "rprivate")


class Case:
    """An image, a driver, and the layer made for the two."""

    def __init__(self, folder: Path) -> None:
        self.image = folder / "image"
        self.layer = folder / "layer"
        self.driver = folder / "driver"
        self.image.mkdir()

    def file(self, name: str, content: bytes = b"") -> Path:
        path = self.image / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    def link(self, name: str, target: str) -> None:
        path = self.image / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.symlink_to(target)

    def debian(self) -> None:
        """Debian with a merged /usr, two libraries and a cache for them."""
        self.file("etc/debian_version", b"12.9\n")
        self.file(f"usr/lib/{TRIPLET}/libc.so.6", shared_object("libc.so.6"))
        self.file(f"usr/lib/{TRIPLET}/libz.so.1.2.13", shared_object("libz.so.1"))
        self.link(f"usr/lib/{TRIPLET}/libz.so.1", "libz.so.1.2.13")
        self.link("lib", "usr/lib")
        self.file("etc/ld.so.conf", b"include /etc/ld.so.conf.d/*.conf\n")
        self.file(f"etc/ld.so.conf.d/{TRIPLET}.conf", f"# multiarch\n/lib/{TRIPLET}\n/usr/lib/{TRIPLET}\n".encode())
        names = ("libc.so.6", "libz.so.1")
        entries = (ldcache.Entry(name=name, path=f"/lib/{TRIPLET}/{name}", flags=FLAGS) for name in names)
        self.file("etc/ld.so.cache", ldcache.render(entries))

    def build(self, edits: ContainerEdits) -> Generated:
        image_fd = paths.open_root(self.image)
        try:
            return build(edits, image_root_fd=image_fd, folder=self.layer)
        finally:
            os.close(image_fd)

    def inject(self) -> Generated:
        """With the driver of a made-up Debian host."""
        found = Driver.find(DriverRoots.at(driver_roots.build(self.driver)))
        image_fd = paths.open_root(self.image)
        try:
            layout = ImageLayout.read(image_fd)
        finally:
            os.close(image_fd)
        return self.build(found.edits((), ("utility", "compute"), layout))

    def cached(self) -> list[tuple[str, str]]:
        entries = ldcache.parse((self.layer / "etc/ld.so.cache").read_bytes())
        return [(entry.name, entry.path) for entry in entries]

    def names(self) -> set[str]:
        """Everything in the layer that is no folder."""
        return {
            os.path.relpath(os.path.join(folder, name), self.layer)
            for folder, folders, files in os.walk(self.layer)
            for name in (*files, *(name for name in folders if os.path.islink(os.path.join(folder, name))))
        }


@pytest.fixture
def case(tmp_path: Path) -> Case:
    return Case(tmp_path)


def test_debian_gets_links_places_and_a_cache_that_keeps_its_own_libraries(case: Case) -> None:
    case.debian()
    made = case.inject()
    folder = f"/usr/lib/{TRIPLET}"
    assert os.readlink(case.layer / f"usr/lib/{TRIPLET}/libcuda.so.1") == f"libcuda.so.{VERSION}"
    assert (case.layer / f"usr/lib/{TRIPLET}/libcuda.so.{VERSION}").read_bytes() == b""
    assert f"{folder}/libcuda.so.{VERSION}" in made.mount_points
    assert {("libcuda.so.1", f"{folder}/libcuda.so.1"), ("libcuda.so", f"{folder}/libcuda.so")} <= set(case.cached())
    assert {("libc.so.6", f"/lib/{TRIPLET}/libc.so.6"), ("libz.so.1", f"/lib/{TRIPLET}/libz.so.1")} <= set(
        case.cached()
    )
    assert made.files == ("/etc/ld.so.cache",)  # its own ldconfig searches the folder anyway


def test_folders_look_as_the_images_do(case: Case) -> None:
    case.debian()
    folder = case.image / "usr/lib"
    folder.chmod(0o750)
    os.utime(folder, ns=(1_000_000_001, 2_000_000_002))
    case.inject()
    made = (case.layer / "usr/lib").stat()
    assert (stat.S_IMODE(made.st_mode), made.st_mtime_ns) == (0o750, 2_000_000_002)
    assert stat.S_IMODE((case.layer / f"usr/lib/{TRIPLET}/gbm").stat().st_mode) == 0o755


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
def test_folders_belong_to_whom_the_image_says_and_keep_its_attributes(case: Case) -> None:
    case.debian()
    os.chown(case.image / "usr", 1000, 100)
    os.setxattr(case.image / "usr", "trusted.note", b"kept")
    case.inject()
    made = (case.layer / "usr").stat()
    assert (made.st_uid, made.st_gid) == (1000, 100)
    assert os.getxattr(case.layer / "usr", "trusted.note") == b"kept"


def test_building_again_replaces_what_was_there(case: Case) -> None:
    case.debian()
    first = case.inject()
    (case.layer / "usr/left-over").write_text("")
    assert case.inject() == first
    assert "usr/left-over" not in case.names()


def test_without_driver_only_missing_mount_points_are_made(case: Case, tmp_path: Path) -> None:
    case.debian()
    case.file("etc/hosts", b"127.0.0.1 localhost\n")
    (tmp_path / "file").write_text("")
    sources = {"/etc/hosts": "file", "/etc/resolv.conf": "file", "/data/in": ".", "/usr/lib": ".", "/dev/x": "file"}
    mounts = tuple(
        BindMount(host_path=str(tmp_path / source), container_path=path, options=("rbind",))
        for path, source in sources.items()
    )
    made = case.build(ContainerEdits(mounts=mounts, folders=("/run/lock", "/proc", "/proc/x")))
    assert made == Generated(
        folders=("/data", "/data/in", "/etc", "/proc", "/run", "/run/lock"), mount_points=("/etc/resolv.conf",)
    )
    assert case.names() == {"etc/resolv.conf"}


def test_a_volume_follows_the_images_link_and_a_driver_file_replaces_it(case: Case, tmp_path: Path) -> None:
    case.link("etc/resolv.conf", "../run/resolved/stub.conf")
    case.link("usr/bin/nvidia-smi", "/bin/busybox")
    case.file("bin/busybox")
    (tmp_path / "file").write_text("")
    made = case.build(
        ContainerEdits(
            mounts=(
                BindMount(host_path=str(tmp_path / "file"), container_path="/etc/resolv.conf", options=("rbind",)),
                BindMount(host_path=str(tmp_path / "file"), container_path="/usr/bin/nvidia-smi"),
            )
        )
    )
    assert made.mount_points == ("/run/resolved/stub.conf", "/usr/bin/nvidia-smi")
    assert not (case.layer / "usr/bin/nvidia-smi").is_symlink()


def test_a_linked_library_folder_is_not_replaced(case: Case) -> None:
    """Arch: /usr/lib64 is a link to lib; a folder of that name would hide it and all libraries."""
    case.link("usr/lib64", "lib")
    case.file("usr/lib/libc.so.6", shared_object("libc.so.6"))
    case.inject()
    assert not (case.layer / "usr/lib64").exists()
    assert (case.layer / f"usr/lib/libcuda.so.{VERSION}").exists()
    assert ("libcuda.so.1", "/usr/lib64/libcuda.so.1") in case.cached()


def test_an_image_without_a_cache_gets_one_that_lists_its_libraries_too(case: Case) -> None:
    """Distroless: no shell, no ldconfig, no cache."""
    case.file("etc/debian_version")
    case.file(f"lib/{TRIPLET}/libc.so.6", shared_object("libc.so.6"))
    case.file(f"usr/lib/{TRIPLET}/libssl.so.3.0", shared_object("libssl.so.3"))
    case.link(f"usr/lib/{TRIPLET}/libssl.so.3", "libssl.so.3.0")
    case.file(f"usr/lib/{TRIPLET}/libscript.so", b"INPUT(libc.so.6)")
    case.file(f"usr/lib/{TRIPLET}/libarm.so.1", shared_object("libarm.so.1", bits=32, machine=EM_ARM))
    case.link(f"usr/lib/{TRIPLET}/libgone.so.1", "/nowhere")
    case.inject()
    ours = [(name, path) for name, path in case.cached() if "cuda" not in name and "nvidia" not in name]
    assert ours == [
        ("libssl.so.3", f"/usr/lib/{TRIPLET}/libssl.so.3"),
        ("libc.so.6", f"/lib/{TRIPLET}/libc.so.6"),
    ]
    assert (case.layer / "etc/ld.so.conf").read_text() == "include /etc/ld.so.conf.d/*.conf\n"
    assert (case.layer / "etc/ld.so.conf.d/00-nvidia-argosy.conf").read_text() == f"/usr/lib/{TRIPLET}\n"


@pytest.mark.parametrize("data", [b"", b"rubbish", b"glibc-ld.so.cache1.1" + b"\xff" * 99])
def test_a_damaged_cache_counts_as_none(case: Case, data: bytes) -> None:
    case.debian()
    case.file("etc/ld.so.cache", data)
    case.inject()
    assert {("libcuda.so.1", f"/usr/lib/{TRIPLET}/libcuda.so.1"), ("libc.so.6", f"/lib/{TRIPLET}/libc.so.6")} <= set(
        case.cached()
    )


def test_red_hat_gets_lib64(case: Case) -> None:
    case.file("usr/lib64/libc.so.6", shared_object("libc.so.6"))
    case.link("lib64", "usr/lib64")
    entry = ldcache.Entry(name="libc.so.6", path="/lib64/libc.so.6", flags=FLAGS)
    case.file("etc/ld.so.cache", ldcache.render([entry]))
    made = case.inject()
    assert ("libcuda.so.1", "/usr/lib64/libcuda.so.1") in case.cached()
    assert made.files == ("/etc/ld.so.cache",)


def test_musl_gets_its_list_of_folders(case: Case) -> None:
    case.file("etc/alpine-release", b"3.22.0\n")
    made = case.inject()
    assert (case.layer / f"etc/ld-musl-{MACHINE}.path").read_text() == "/lib\n/usr/local/lib\n/usr/lib\n/usr/lib64\n"
    assert f"/usr/lib64/libcuda.so.{VERSION}" in made.mount_points


def test_a_driver_baked_into_the_image_gives_way(case: Case) -> None:
    case.debian()
    case.file(f"usr/lib/{TRIPLET}/libcuda.so.470.1.2", shared_object("libcuda.so.1"))
    case.link(f"usr/lib/{TRIPLET}/libcuda.so.1", "libcuda.so.470.1.2")
    case.file(f"usr/lib/{TRIPLET}/libnvidia-ml.so.{VERSION}", b"")  # left by another engine
    made = case.inject()
    assert os.readlink(case.layer / f"usr/lib/{TRIPLET}/libcuda.so.1") == f"libcuda.so.{VERSION}"
    assert f"/usr/lib/{TRIPLET}/libnvidia-ml.so.{VERSION}" not in made.mount_points


def test_soname_links_that_edits_lack_are_made_as_ldconfig_would(case: Case, tmp_path: Path) -> None:
    case.debian()
    (tmp_path / "libfoo.so.1.2").write_bytes(shared_object("libfoo.so.1"))
    mount = BindMount(host_path=str(tmp_path / "libfoo.so.1.2"), container_path="/opt/foo/libfoo.so.1.2")
    case.build(ContainerEdits(mounts=(mount,), library_folders=("/opt/foo",)))
    assert os.readlink(case.layer / "opt/foo/libfoo.so.1") == "libfoo.so.1.2"
    assert case.cached()[1] == ("libfoo.so.1", "/opt/foo/libfoo.so.1")
    assert (case.layer / "etc/ld.so.conf.d/00-nvidia-argosy.conf").read_text() == "/opt/foo\n"
    assert not (case.layer / "etc/ld.so.conf").exists()  # the image's includes the folder


@pytest.mark.parametrize(
    "target",
    [
        pytest.param("{outside}", id="an absolute link to the host"),
        pytest.param("../../../../../../../../..{outside}", id="a relative one"),
        pytest.param("nowhere", id="a dangling one"),
    ],
)
@pytest.mark.parametrize("name", ["etc", "usr", "usr/lib", f"usr/lib/{TRIPLET}", "etc/ld.so.conf.d", "lib", "run"])
def test_no_link_of_an_image_leads_out_of_it(case: Case, tmp_path: Path, name: str, target: str) -> None:
    """Nothing is written outside of the layer, and what is written is where the link means inside the image."""
    outside = tmp_path / "outside"
    outside.mkdir()
    case.link(name, target.format(outside=outside))
    case.inject()
    assert os.listdir(outside) == []
    assert not (case.layer / name).exists()  # the image's link stays what it is
    assert any(path.endswith("libcuda.so.1") for path in case.names())


@pytest.mark.parametrize("name", ["etc", "usr", "lib", "run"])
def test_a_link_into_the_kernels_file_systems_is_refused(case: Case, tmp_path: Path, name: str) -> None:
    """They are not mounted yet; the runtime would refuse too, and not say why."""
    outside = tmp_path / "outside"
    outside.mkdir()
    case.link(name, f"/proc/self/root{outside}")
    with pytest.raises(InvalidInput, match="nothing can be mounted at") as caught:
        case.inject()
    assert (caught.value.code, os.listdir(outside)) == ("image-link-to-kernel", [])


@pytest.mark.parametrize("name", ["dev", "proc", "sys"])
def test_a_kernel_folder_that_is_a_link_becomes_a_folder(case: Case, tmp_path: Path, name: str) -> None:
    """crun 1.8 follows such a link to the host when it makes devices."""
    case.link(name, str(tmp_path))
    made = case.build(ContainerEdits(folders=(f"/{name}",)))
    assert made.folders == (f"/{name}",)
    assert (case.layer / name).is_dir()


def test_a_file_whose_link_leads_into_proc_takes_the_links_place(case: Case, tmp_path: Path) -> None:
    """/etc/resolv.conf → /proc/net/pnp is what images for network boot have."""
    (tmp_path / "resolv.conf").touch()
    case.link("etc/resolv.conf", "/proc/net/pnp")
    mount = BindMount(host_path=str(tmp_path / "resolv.conf"), container_path="/etc/resolv.conf")
    assert case.build(ContainerEdits(mounts=(mount,))).mount_points == ("/etc/resolv.conf",)


def test_links_in_a_circle_are_refused(case: Case) -> None:
    case.link("usr", "/usr2")
    case.link("usr2", "usr")
    with pytest.raises(InvalidInput) as caught:
        case.build(ContainerEdits(links=(Link(path="/usr/lib/x", target="y"),)))
    assert caught.value.code == "image-link-loop"


def test_special_files_of_an_image_are_never_opened(case: Case) -> None:
    """A pipe in the place of the cache would block whoever opens it."""
    case.debian()
    (case.image / "etc/ld.so.cache").unlink()
    os.mkfifo(case.image / "etc/ld.so.cache")
    os.mkfifo(case.image / "etc/ld.so.conf.d/pipe.conf")
    os.mkfifo(case.image / f"usr/lib/{TRIPLET}/libpipe.so.1")
    case.inject()
    assert ("libc.so.6", f"/lib/{TRIPLET}/libc.so.6") in case.cached()


def test_files_and_links_replace_the_images(case: Case, tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("keep")
    case.link("etc/app.conf", str(tmp_path / "precious"))
    case.file("opt/tool")
    case.link("opt/same", "tool")
    made = case.build(
        ContainerEdits(
            files=(GeneratedFile(path="/etc/app.conf", content=b"new", mode=0o600),),
            links=(Link(path="/opt/tool", target="same"), Link(path="/opt/same", target="tool")),
        )
    )
    assert (case.layer / "etc/app.conf").read_text() == "new"
    assert stat.S_IMODE((case.layer / "etc/app.conf").stat().st_mode) == 0o600
    assert (tmp_path / "precious").read_text() == "keep"
    assert (made.files, made.links) == (("/etc/app.conf",), ("/opt/tool",))


def test_ldconfig_agrees_with_the_cache(case: Case) -> None:
    case.debian()
    case.inject()
    ldconfig = next(path for path in ("/sbin/ldconfig.real", "/sbin/ldconfig") if os.path.exists(path))
    done = subprocess.run((ldconfig, "-p", "-C", str(case.layer / "etc/ld.so.cache")), capture_output=True, text=True)
    assert re.findall(r"^\t(\S+) \(.*\) => (.*)$", done.stdout, re.MULTILINE) == case.cached()
