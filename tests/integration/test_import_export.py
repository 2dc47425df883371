"""`import` and `export`: a file system's archive becomes an image, a container's files become an archive."""

from __future__ import annotations

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import tarfile
import time
from typing import TYPE_CHECKING

import pytest

from argosy.oci.digest import Digest
from support.archives import END, folder, header
from support.archives import file as tar_file
from support.busybox import busybox_image, tar_of
from support.images import compress
from support.stores import Program, argosy, command, environment, load_image
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root (owners of layers)")
ROOT = tar_of({"bin/": 0o755, "bin/tool": b"#!/bin/sh\n", "etc/": 0o755, "etc/link": "../bin/tool"})
NET_RAW = bytes.fromhex("0100000200200000000000000000000000000000")  # cap_net_raw+ep, as setcap writes it


@pytest.fixture
def here(tmp_path: Path) -> Program:
    return Program(tmp_path / "store")


def imported(here: Program, *words: str, stdin: bytes = b"") -> str:
    done = argosy(here.root, "import", *words, stdin=stdin)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout.decode().strip()


def inspected(here: Program, name: str) -> dict[str, object]:
    found = json.loads(here("inspect", name))[0]
    assert isinstance(found, dict)
    return found


# ---- import


@pytest.mark.parametrize(
    "squeeze",
    [bytes, gzip.compress, bz2.compress, lzma.compress, lambda data: compress(data, "zstd")],
    ids=["plain", "gzip", "bzip2", "xz", "zstd"],
)
def test_an_archive_becomes_an_image_of_one_layer(here: Program, squeeze: Callable[[bytes], bytes]) -> None:
    image_id = imported(here, "-", "lab/root:1", stdin=squeeze(ROOT))
    found = inspected(here, "lab/root:1")
    assert found["Id"] == image_id
    assert found["RootFS"] == {"Type": "layers", "Layers": [Digest.of(ROOT)]}
    assert (found["Os"], found["Comment"]) == ("linux", "Imported from -")
    assert here("check", "-q") == ""


def test_a_compressed_archive_is_the_layer_as_it_is(here: Program) -> None:
    archive = gzip.compress(ROOT, 9)
    imported(here, "-", stdin=archive)
    assert (here.root / "blobs/sha256" / Digest.of(archive).hex).read_bytes() == archive
    assert here("images", "--format", "{{.Repository}}") == "<none>"


def test_changes_message_and_platform_are_in_the_image(here: Program, tmp_path: Path) -> None:
    (tmp_path / "root.tar").write_bytes(ROOT)
    words = (
        "-c",
        'CMD ["/bin/tool"]',
        "--change",
        "ENV A=1 B=2",
        "-m",
        "from the vendor",
        "--platform",
        "linux/arm64/v8",
    )
    imported(here, *words, str(tmp_path / "root.tar"), "lab/root")
    found = inspected(here, "lab/root:latest")
    config = found["Config"]
    assert isinstance(config, dict)
    assert (config["Cmd"], config["Env"]) == (["/bin/tool"], ["A=1", "B=2"])
    assert (found["Architecture"], found["Variant"], found["Comment"]) == ("arm64", "v8", "from the vendor")


def test_an_address_is_fetched(here: Program) -> None:
    def answer(seen: Seen) -> Reply:
        if seen.path == "/moved":
            return Reply(status=302, headers={"Location": "/root.tar.gz?token=secret"})
        return Reply(body=gzip.compress(ROOT)) if seen.path.startswith("/root.tar.gz") else Reply(status=404)

    with serving(answer) as site:
        imported(here, f"http://{site.address}/moved", "lab/root:1")
        assert inspected(here, "lab/root:1")["Comment"] == f"Imported from http://{site.address}/moved"
        assert "answered with status 404" in here.refusal("import", f"http://{site.address}/nothing", "lab/none:1")


def test_an_answer_that_breaks_off_makes_no_image(here: Program) -> None:
    with serving(lambda seen: Reply(body=gzip.compress(ROOT), cut=60)) as site:
        message = here.refusal("import", f"http://{site.address}/root.tar.gz", "lab/root:1")
    assert "[connection-lost]" in message or "[size-mismatch]" in message
    assert here("images", "-q") == ""


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"", "archive-empty"),
        (b"no tar\n", "archive-truncated"),
        (b"x" * 5000 + bytes(1000), "archive-damaged"),
        (ROOT[:1500], "archive-truncated"),
        (ROOT[: ROOT.rindex(b"etc/link") + 512], "archive-truncated"),  # at the end of its last member
        (gzip.compress(ROOT)[:-5], "compression-truncated"),
        (gzip.compress(ROOT) + b"more", "compression-damaged"),
        (bz2.compress(ROOT)[:-5], "compression-truncated"),
        (lzma.compress(ROOT)[:-5], "compression-truncated"),
        (tar_file(b"../outside", b"x") + END, "archive-path-escapes"),
        (folder(b"d/") + header(b"d/hard", b"1", link=b"/etc/passwd") + END, "archive-link-missing"),
    ],
)
def test_what_is_no_archive_of_files_makes_no_image(here: Program, content: bytes, code: str) -> None:
    done = argosy(here.root, "import", "-", "lab/root:1", stdin=content)
    assert done.returncode == 1
    assert f"[{code}]" in done.stderr.decode()
    assert here("images", "-aq") == ""
    imported(here, "-", "lab/root:1", stdin=ROOT)


def test_an_archive_of_images_is_taken_with_a_warning(here: Program, tmp_path: Path) -> None:
    root = tmp_path / "root.tar"
    root.write_bytes(ROOT)
    here("import", str(root), "lab/root:1")
    here("save", "-o", str(tmp_path / "images.tar"), "lab/root:1")
    done = argosy(here.root, "import", str(tmp_path / "images.tar"))
    assert (done.returncode, done.stderr.decode()) == (
        0,
        f"warning: {tmp_path}/images.tar is an archive of images; argosy load -i takes those that it holds\n",
    )


def test_what_cannot_be_read_says_how_it_can_be(here: Program, tmp_path: Path) -> None:
    assert here.refusal("import", str(tmp_path)) == (
        f"error: cannot import {tmp_path}: it is a folder [is-a-folder]\n"
        f"  hint: tar -C {tmp_path} -c . | argosy import - NAME"
    )
    assert "[address-invalid]" in here.refusal("import", "ftp://example.org/root.tar")


def test_a_wrong_change_is_refused_before_anything_is_read(here: Program) -> None:
    with subprocess.Popen(
        command("import", "-c", "RUN x", "-"),
        env=environment(here.root),
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
    ) as child:
        assert child.wait(60) == 1  # though its input is still open
        assert child.stderr is not None
        assert b"RUN is not a valid change command [change-invalid]" in child.stderr.read()


def test_an_image_cannot_be_named_by_digest(here: Program) -> None:
    assert "[reference-has-digest]" in here.refusal("import", "-", f"lab/root@{Digest.of(b'')}")


# ---- export

CHANGES = """
echo changed > /opt/hello && rm /bin/vi && mkdir -m 700 /srv && echo mine > /srv/file && ln /srv/file /srv/hard
ln -s /nowhere /srv/link && chown 1000:100 /srv/file && mkfifo /srv/pipe && rm -r /home && mkdir /home && touch /data/x
"""


@pytest.fixture(scope="module")
def changed(tmp_path_factory: pytest.TempPathFactory) -> Program:
    """A store with a stopped container that has changed its image's files, and a volume."""
    folder = tmp_path_factory.mktemp("export")
    here = Program(folder / "store")
    load_image(here.root, busybox_image(folder / "image"), "box:1")
    here(
        "run",
        "--name",
        "work",
        "-v",
        f"{folder}/volume:/data",
        "--tmpfs",
        "/scratch",
        "box:1",
        "sh",
        "-e",
        "-c",
        CHANGES,
    )
    upper = next((here.root / "containers").glob("*/upper"))
    os.setxattr(upper / "srv/file", "user.note", b"kept")
    os.setxattr(upper / "opt/hello", "security.capability", NET_RAW)
    return here


def exported(here: Program, *words: str) -> bytes:
    done = argosy(here.root, "export", *words)
    assert (done.returncode, done.stderr.decode()) == (0, "")
    return done.stdout


def members(archive: bytes) -> dict[str, tarfile.TarInfo]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return {each.name: each for each in found}


def test_the_archive_has_the_images_files_and_the_containers_own(changed: Program) -> None:
    found = members(exported(changed, "work"))
    assert found["bin/cat"].linkname == "busybox"
    assert found["etc/passwd"].size == 67
    assert (found["srv/file"].uid, found["srv/file"].gid, found["srv/file"].size) == (1000, 100, 5)
    assert (found["srv/hard"].islnk(), found["srv/hard"].linkname) == (True, "srv/file")
    assert (found["srv/link"].issym(), found["srv/pipe"].isfifo(), found["srv"].mode) == (True, True, 0o700)
    assert found["srv/file"].pax_headers["SCHILY.xattr.user.note"] == "kept"
    assert "SCHILY.xattr.security.capability" in found["opt/hello"].pax_headers
    assert not {"bin/vi", "home/ana"} & set(found)


def test_what_the_launch_brought_is_not_in_it(changed: Program) -> None:
    """Docker's has empty files where it mounted its own, and .dockerenv."""
    found = members(exported(changed, "work"))
    generated = {"data", "scratch", "dev", "proc", "sys", "etc/hosts", "etc/resolv.conf", ".dockerenv", "data/x"}
    assert not generated & set(found)


def test_equal_files_give_equal_bytes_in_the_order_of_names(changed: Program, tmp_path: Path) -> None:
    first = exported(changed, "work")
    assert exported(changed, "-o", str(tmp_path / "a.tar"), "work") == b""
    assert (tmp_path / "a.tar").read_bytes() == first
    assert stat.S_IMODE((tmp_path / "a.tar").stat().st_mode) == 0o600
    folders = [name for name, each in members(first).items() if each.isdir()]
    assert folders == sorted(folders)


def test_what_was_exported_is_imported_and_runs(changed: Program, tmp_path: Path) -> None:
    back = Program(tmp_path / "back")
    imported(
        back,
        "-c",
        "CMD cat /srv/hard /opt/hello; stat -c %u:%g /srv/file",
        "-",
        "flat:1",
        stdin=exported(changed, "work"),
    )
    assert back("run", "--rm", "flat:1") == "mine\nchanged\n1000:100"


def test_a_running_container_is_exported_as_it_is(changed: Program) -> None:
    script = "trap 'exit 0' TERM; echo begun > /begun; while :; do echo more >> /growing; touch /now; rm /now; done"
    words = ("run", "--rm", "--name", "busy", "box:1", "sh", "-c", script)
    with subprocess.Popen(command(*words), env=environment(changed.root)) as child:
        try:
            deadline = time.monotonic() + 20
            while not list((changed.root / "containers").glob("*/upper/growing")) and time.monotonic() < deadline:
                time.sleep(0.02)
            for _ in range(10):
                done = argosy(changed.root, "export", "busy")
                if done.returncode == 0:
                    break
                assert b"[file-changed]" in done.stderr
            found = members(done.stdout)
            assert {"begun", "growing", "bin/busybox"} <= set(found)
        finally:
            child.terminate()
            child.wait(30)


def test_a_container_that_is_not_there_leaves_no_file(changed: Program, tmp_path: Path) -> None:
    assert "[container-unknown]" in changed.refusal("export", "-o", str(tmp_path / "a.tar"), "nothing")
    assert list(tmp_path.iterdir()) == []
    assert "hint: argosy save -o FILE box:1 writes images" in changed.refusal("export", "-o", "a.tar", "box:1")


def test_commit_takes_changes_too(changed: Program) -> None:
    changed("commit", "-c", 'CMD ["cat", "/srv/file"]', "--change", "LABEL a=b", "work", "made:1")
    assert changed("run", "--rm", "made:1") == "mine"
    assert changed("inspect", "--format", "{{json .Config.Labels}}", "made:1") == '{"a":"b"}'
    assert "[change-invalid]" in changed.refusal("commit", "-c", "COPY a b", "work", "made:2")
    assert "made:2" not in changed("images", "--format", "{{.Repository}}:{{.Tag}}")
