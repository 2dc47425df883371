"""save, load, import and export for an ordinary user, with one id and with a range: owners stay what they are."""

from __future__ import annotations

import io
import os
import tarfile
from typing import TYPE_CHECKING

import pytest

from argosy.oci.digest import Digest

from ..support.busybox import busybox_image
from ..support.image_archives import layout_members, tar_of
from ..support.images import compress, config_json
from ..support.users import UID, User, can_have_ranges
from .test_rootless import NO_RANGES

if TYPE_CHECKING:
    from pathlib import Path

    from ..support.images import RandomImage

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become another user")
OWNED = {"data/mail": (8, 12), "data/web": (33, 33), "data/own": (0, 0)}


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> RandomImage:
    """busybox, and a layer on top with files of several users."""
    return with_owners(tmp_path_factory.mktemp("image"))


def with_owners(folder: Path) -> RandomImage:
    from argosy.oci import descriptor as media
    from argosy.oci.manifest import encode_manifest
    from argosy.oci.platform import Platform

    from ..support.images import RandomImage

    base = busybox_image(folder)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, (uid, gid) in OWNED.items():
            member = tarfile.TarInfo(name)
            member.uid, member.gid, member.mode, member.size = uid, gid, 0o644, len(name)
            archive.addfile(member, io.BytesIO(name.encode()))
    tars = (*base.tars, out.getvalue())
    layer = base.layout.put(compress(out.getvalue(), "gzip"), media.OCI_LAYER_GZIP)
    config = base.layout.put(config_json(tars, Platform.host(), Cmd=["sh"]), media.OCI_CONFIG)
    manifest = encode_manifest(config, (*base.manifest.layers, layer))
    base.layout.put(manifest.raw, media.OCI_MANIFEST)
    base.layout.publish(manifest.descriptor, "localhost/box:1")
    return RandomImage(base.layout, manifest, tars)


@pytest.fixture(params=["single", "ranged"])
def user(request: pytest.FixtureRequest, tmp_path: Path, image: RandomImage) -> User:
    """A user with one id or with many, who has loaded the image."""
    ranges = request.param == "ranged"
    if ranges and not can_have_ranges():
        pytest.skip(NO_RANGES)
    made = User.make(tmp_path, ranges=ranges)
    done = made.argosy("load", "-q", stdin=tar_of(layout_members(image.layout)))
    assert (done.returncode, done.stdout) == (0, b"Loaded image: localhost/box:1\n"), done.stderr
    return made


def succeeds(user: User, *words: str, stdin: bytes = b"") -> bytes:
    done = user.argosy(*words, stdin=stdin)
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout


def owners(archive: bytes) -> dict[str, tuple[int, int]]:
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        return {each.name: (each.uid, each.gid) for each in found}


def test_what_was_loaded_is_saved_with_its_digest(user: User, image: RandomImage) -> None:
    archive = succeeds(user, "save", "localhost/box:1")
    with tarfile.open(fileobj=io.BytesIO(archive)) as found:
        names = found.getnames()
        layer = found.extractfile(f"blobs/sha256/{image.manifest.layers[-1].digest.hex}")
        assert layer is not None
        assert Digest.of(layer.read()) == image.manifest.layers[-1].digest
    assert f"blobs/sha256/{image.descriptor.digest.hex}" in names
    succeeds(user, "save", "-o", f"{user.home}/saved.tar", "localhost/box:1")
    assert (user.home / "saved.tar").read_bytes() == archive
    assert (user.home / "saved.tar").stat().st_uid == UID


def test_folders_are_saved_and_loaded(user: User) -> None:
    succeeds(user, "save", "--format", "oci-dir", "-o", f"{user.home}/layout", "localhost/box:1")
    assert succeeds(user, "load", "-q", "-i", f"{user.home}/layout") == b"Loaded image: localhost/box:1\n"


def test_export_has_the_owners_of_the_image(user: User) -> None:
    """With one id the unpacked files are all the user's; the layers know better."""
    script = "echo mine > /made && echo changed > /data/own && rm /data/web"
    succeeds(user, "run", "--name", "work", "localhost/box:1", "sh", "-e", "-c", script)
    found = owners(succeeds(user, "export", "work"))
    assert {name: found.get(name) for name in (*OWNED, "made", "home/ana", "bin/busybox")} == {
        "data/mail": (8, 12),
        "data/own": (0, 0),
        "data/web": None,
        "made": (0, 0),
        "home/ana": (0, 0),
        "bin/busybox": (0, 0),
    }
    succeeds(user, "export", "-o", f"{user.home}/work.tar", "work")
    assert (user.home / "work.tar").stat().st_uid == UID


@pytest.mark.parametrize("user", ["ranged"], indirect=True)  # with one id there is nobody else to give a file to
def test_export_has_the_owners_that_a_container_gave(user: User) -> None:
    script = "touch /made && chown 1000:100 /made && chown 33:33 /data/mail"
    succeeds(user, "run", "--name", "work", "localhost/box:1", "sh", "-e", "-c", script)
    found = owners(succeeds(user, "export", "work"))
    assert (found["made"], found["data/mail"], found["data/web"]) == ((1000, 100), (33, 33), (33, 33))


def test_what_is_exported_is_imported_and_runs(user: User) -> None:
    succeeds(user, "run", "--name", "work", "localhost/box:1", "sh", "-c", "echo mine > /made")
    archive = succeeds(user, "export", "work")
    image_id = succeeds(user, "import", "-c", 'CMD ["cat", "/made"]', "-", "flat:1", stdin=archive)
    assert succeeds(user, "inspect", "--format", "{{.Id}}", "flat:1") == image_id
    assert succeeds(user, "run", "--rm", "flat:1") == b"mine\n"
    assert owners(succeeds(user, "save", "flat:1"))["oci-layout"] == (0, 0)


def test_commit_takes_changes(user: User) -> None:
    succeeds(user, "run", "--name", "work", "localhost/box:1", "sh", "-c", "echo mine > /made")
    succeeds(user, "commit", "-c", 'CMD ["cat", "/made"]', "work", "made:1")
    assert succeeds(user, "run", "--rm", "made:1") == b"mine\n"
