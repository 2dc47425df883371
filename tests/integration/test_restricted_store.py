"""The program on a store without attributes, owners and locks, as on NFS; and on one that several machines share."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
from typing import TYPE_CHECKING

import msgspec
import pytest

from argosy.linux import mounts, syscalls
from argosy.oci.descriptor import OCI_MANIFEST
from argosy.store.records import ContainerStore
from tests.support.busybox import busybox_image
from tests.support.registry import running_registry
from tests.support.restricted import Limits, restricted
from tests.support.stores import command, environment
from tests.support.users import UID, User, can_have_ranges

from .test_rootless import NO_RANGES

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tests.support.registry import RunningRegistry

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="needs root")
_CLONE_NEWUTS = 0x04000000


class Machine:
    """One of the machines that have a store; *name* is its host name."""

    def __init__(
        self, root: Path, local: Path | None, name: str = "node1", kind: str = "", var_tmp: Path | None = None
    ) -> None:
        self.root, self.local, self.name = root, local, name
        self._kind, self._var_tmp = kind, var_tmp

    def __call__(self, *words: str) -> str:
        """Standard output of a verb that must succeed and has nothing to warn of."""
        done = self.run(*words)
        assert (done.returncode, done.stderr.decode()) == (0, ""), words
        return done.stdout.decode().strip()

    def run(self, *words: str) -> subprocess.CompletedProcess[bytes]:
        return subprocess.run(
            command(*words),
            env=self.environment,
            capture_output=True,
            timeout=120,
            check=False,
            stdin=subprocess.DEVNULL,
            preexec_fn=self.become,
        )

    def start(self, *words: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen(command(*words), env=self.environment, stdout=subprocess.PIPE, preexec_fn=self.become)

    @property
    def environment(self) -> dict[str, str]:
        chosen = {"ARGOSY_SNAPSHOTTER": self._kind, "ARGOSY_LOCAL": str(self.local or "")}
        return environment(self.root, {name: value for name, value in chosen.items() if value})

    def become(self) -> None:
        syscalls.unshare(_CLONE_NEWUTS)
        socket.sethostname(self.name)
        if self._var_tmp is not None:
            mounts.private_namespace()
            mounts.Bind(source=str(self._var_tmp), target="/var/tmp").execute()


@pytest.fixture(scope="module")
def registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningRegistry]:
    folder = tmp_path_factory.mktemp("registry")
    with running_registry(folder / "registry") as registry:
        registry.push(busybox_image(folder / "image"), "box", "1")
        yield registry


def no_lease_left(root: Path) -> bool:
    return [path for path in root.rglob("*") if ".lease" in path.name] == []


@pytest.mark.parametrize("kind", ["erofs", "unpacked"])
@pytest.mark.parametrize("locks", ["refused", "local"])
def test_every_verb_works(tmp_path: Path, registry: RunningRegistry, kind: str, locks: str) -> None:
    limits = Limits(locks=locks)  # type: ignore[arg-type]
    with restricted(tmp_path / "disk", tmp_path / "store", limits) as store:
        argosy = Machine(store / "argosy", tmp_path / "local", kind=kind)
        image = f"{registry.address}/box:1"
        done = argosy.run("pull", "-q", image)
        if b"do not work here" in done.stderr:
            pytest.skip("this kernel cannot mount EROFS from a file")
        assert (done.returncode, done.stdout.decode()) == (0, f"{image}\n"), done.stderr
        argosy("tag", image, "box:1")
        assert argosy("run", "--rm", "box:1", "cat", "/opt/hello") == "#!/bin/sh\necho hello from a layer"
        script = "echo more >>/opt/hello; rm /etc/passwd; mkdir /new; chown 1000:100 /new; rm -r /home; mkdir /home"
        argosy("run", "--name", "changed", "box:1", "sh", "-c", script)
        assert argosy("ps", "-a", "--format", "{{.Names}} {{.State}}") == "changed exited"
        argosy("commit", "changed", "mine:1")
        shown = "tail -1 /opt/hello; ls /home; ls /etc/passwd; stat -c %u:%g /new"
        done = argosy.run("run", "--rm", "mine:1", "sh", "-c", shown)
        assert done.stdout.decode().split() == ["more", "1000:100" if kind == "erofs" else "0:0"]
        assert done.stderr == b"ls: /etc/passwd: No such file or directory\n"
        argosy("tag", "mine:1", f"{registry.address}/mine:{kind}-{locks}")
        argosy("push", "-q", f"{registry.address}/mine:{kind}-{locks}")
        assert argosy("check").endswith(" 0 damaged")
        facts = msgspec.json.decode(argosy("info", "--format", "json"))
        assert (facts["Snapshots"], facts["WritableLayers"]) == (kind, str(tmp_path / "local"))
        argosy("rm", "changed")
        argosy("rmi", "-f", "mine:1", "box:1")
        argosy("prune", "-af")
        assert argosy("check").startswith("0 blobs, 0 layers, 0 tags, 0 containers checked")
        assert no_lease_left(store)
        assert [path for path in (tmp_path / "local").rglob("*") if path.name == "upper"] == []


@pytest.mark.parametrize("ranges", [False, True], ids=["single", "ranged"])
@pytest.mark.parametrize("locks", ["refused", "local"])
def test_every_verb_works_for_an_ordinary_user(
    tmp_path: Path, registry: RunningRegistry, locks: str, ranges: bool
) -> None:
    """A home on NFS: unpacked layers without marks, owners as the server has them, containers on a disk here."""
    if ranges and not can_have_ranges():
        pytest.skip(NO_RANGES)
    user = User.make(tmp_path / "user", ranges=ranges)
    local = user.home / "local"
    limits = Limits(owner=(UID, UID), locks=locks)  # type: ignore[arg-type]
    with restricted(tmp_path / "disk", user.home / "net", limits) as store:
        given = {"ARGOSY_ROOT": str(store / "argosy"), "ARGOSY_LOCAL": str(local)}

        def argosy(*words: str) -> str:
            done = user.argosy(*words, environ=given)
            assert done.returncode == 0, (words, done.stderr)
            return done.stdout.decode().strip()

        image, name = f"{registry.address}/box:1", f"{registry.address}/{locks}-{'many' if ranges else 'one'}:1"
        argosy("pull", "-q", image)
        script = "echo more >>/opt/hello; rm /etc/passwd; mkdir /new; rm -r /home; mkdir /home"
        argosy("run", "--name", "changed", image, "sh", "-c", script)
        argosy("commit", "changed", name)
        shown = argosy("run", "--rm", name, "sh", "-c", "tail -1 /opt/hello; ls -A /home /etc/passwd; stat -c %u /new")
        assert shown.split() == ["more", "/home:", "0"]
        argosy("push", "-q", name)
        digest = argosy("images", "--digests", "--format", "{{.Digest}}", name)
        answer = registry.request("GET", f"/v2/{name.partition('/')[2][:-2]}/manifests/1", accept=OCI_MANIFEST)
        assert answer.headers["docker-content-digest"] == digest
        assert argosy("check").endswith(" 0 damaged")
        facts = msgspec.json.decode(argosy("info", "--format", "json"))
        assert (facts["Snapshots"], facts["WritableLayers"]) == ("unpacked", str(local))
        argosy("rm", "changed")
        argosy("rmi", "-f", name, image)
        argosy("prune", "-af")
        assert argosy("check").startswith("0 blobs, 0 layers, 0 tags, 0 containers checked")
        assert no_lease_left(store)
        assert list(local.rglob("upper")) == []


def test_by_default_writable_layers_are_where_they_can_be(tmp_path: Path, registry: RunningRegistry) -> None:
    """In the store, or where no overlay can write to that, in /var/tmp."""
    image = f"{registry.address}/box:1"
    (tmp_path / "var-tmp").mkdir(mode=0o1777)
    (tmp_path / "var-tmp").chmod(0o1777)
    with restricted(tmp_path / "disk", tmp_path / "store") as store:
        for root, place in ((tmp_path / "plain", "plain/containers"), (store / "argosy", "var-tmp/argosy-0")):
            argosy = Machine(root, None, var_tmp=tmp_path / "var-tmp")
            argosy("pull", "-q", image)
            argosy("run", image, "touch", "/made")
            [made] = tmp_path.glob(f"{place}/**/upper/made")
            assert made.is_file()
            shown = msgspec.json.decode(argosy("info", "--format", "json"))["WritableLayers"]
            assert shown == (str(root / "containers") if root.name == "plain" else "/var/tmp/argosy-0")
            argosy("rm", argosy("ps", "-aq"))
            assert not made.exists()


def test_another_machine_sees_containers_and_leaves_them_alone(tmp_path: Path, registry: RunningRegistry) -> None:
    """A start time or a pid of another machine means nothing here, and its disk cannot be reached."""
    one = Machine(tmp_path / "store", tmp_path / "local1", "node1")
    two = Machine(tmp_path / "store", tmp_path / "local2", "node2")
    image = f"{registry.address}/box:1"
    one("pull", "-q", image)
    script = "trap 'exit 0' TERM; echo ready >/new; echo ready; while :; do sleep 0.05; done"
    with one.start("run", "--name", "busy", image, "sh", "-c", script) as child:
        assert child.stdout is not None
        child.stdout.readline()
        forged_for_another_boot(tmp_path / "store")
        assert two("ps", "--format", "{{.Names}} {{.State}}") == "busy running"
        assert two("ps", "--format", "{{.Status}}").endswith(" on node1")
        refused = two.run("rm", "busy").stderr.decode()
        assert 'cannot remove container "/busy": container is running on node1 [container-running]' in refused
        refused = two.run("commit", "busy", "mine:1").stderr.decode()
        assert "the files of container busy are on node1 [container-elsewhere]" in refused
        assert two("ps", "-as", "--format", "{{.Size}}").startswith("0B ")
        assert two("check").endswith(" 0 damaged")
        assert two("rm", "-f", "busy") == "busy"
        assert child.poll() is None
        one("prune", "-f")  # it still runs: its files stay
        [folder] = writable(tmp_path / "local1")
        child.terminate()
        assert child.wait(20) == 0
    one("prune", "-f")
    assert not folder.exists()


def forged_for_another_boot(root: Path) -> None:
    """The record as a machine with another kernel would have written it."""
    store = ContainerStore(root)
    [record] = store.list()
    store.update(record.id, boot="another")


def writable(local: Path) -> list[Path]:
    return [path.parent for path in local.rglob("upper")]


def test_files_of_a_container_that_are_gone_are_a_finding(tmp_path: Path, registry: RunningRegistry) -> None:
    """systemd-tmpfiles removes from /var/tmp what nobody has touched for a month."""
    argosy = Machine(tmp_path / "store", tmp_path / "local")
    image = f"{registry.address}/box:1"
    argosy("pull", "-q", image)
    argosy("run", "--name", "old", image, "touch", "/x")
    [folder] = writable(tmp_path / "local")
    shutil.rmtree(folder)
    for words in (("diff", "old"), ("commit", "old", "a:1"), ("export", "-o", str(tmp_path / "a.tar"), "old")):
        refused = argosy.run(*words)
        assert refused.returncode == 1
        assert "the files of container old are gone [container-files-gone]" in refused.stderr.decode()
    assert argosy("ps", "-asq") != ""
    assert not folder.exists()
    done = argosy.run("check")
    assert done.returncode == 1
    assert f"its files in {folder} are gone" in done.stdout.decode()
    assert "to mend: argosy rm old" in done.stdout.decode()
    argosy.run("check", "--repair")
    assert argosy("ps", "-aq") != ""
    argosy("rm", "old")
    assert argosy("check").endswith(" 0 damaged")


def test_a_place_that_cannot_have_writable_layers_is_said(tmp_path: Path, registry: RunningRegistry) -> None:
    with restricted(tmp_path / "disk", tmp_path / "place") as place:
        argosy = Machine(tmp_path / "store", place / "local")
        image = f"{registry.address}/box:1"
        argosy("pull", "-q", image)
        done = argosy.run("run", "--rm", image, "true")
        assert done.returncode == 125
        assert "ARGOSY_LOCAL names a folder on another disk" in done.stderr.decode()
        assert writable(place) == []
