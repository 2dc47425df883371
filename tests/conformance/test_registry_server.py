"""The server as a program: starting, several workers, stopping, going on after a restart."""

from __future__ import annotations

import http.client
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from argosy.cli import main
from argosy.oci.digest import Digest
from support.images import random_image
from support.registry import SOURCE, running_registry

if TYPE_CHECKING:
    from support.registry import RunningRegistry

DATA = os.urandom(3_000_000)
DIGEST = Digest.of(DATA)


def begin(registry: RunningRegistry) -> str:
    return registry.request("POST", "/v2/a/blobs/uploads/").headers["location"]


def test_an_upload_goes_on_after_a_restart(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        place = begin(registry)
        assert registry.request("PATCH", place, DATA[:2_000_000]).status == 202
    with running_registry(tmp_path / "registry") as registry:
        answer = registry.request("GET", place)
        assert (answer.status, answer.headers["range"]) == (204, "0-1999999")
        assert registry.request("PATCH", place, DATA[2_000_000:], content_range="2000000-2999999").status == 202
        assert registry.request("PUT", f"{place}?digest={DIGEST}").status == 201
        assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == DATA


def test_running_requests_end_before_the_server_does(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        host, _, port = registry.address.rpartition(":")
        with socket.create_connection((host, int(port))) as slow:
            head = (
                f"POST /v2/a/blobs/uploads/?digest={DIGEST} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(DATA)}\r\n\r\n"
            )
            slow.sendall(head.encode() + DATA[:2_000_000])
            while not list(registry.root.glob("uploads/*")):
                time.sleep(0.01)
            registry.process.send_signal(signal.SIGTERM)
            time.sleep(0.3)
            slow.sendall(DATA[2_000_000:])
            assert slow.recv(1000).startswith(b"HTTP/1.1 201 ")
        assert registry.process.wait(10) == 0
    with running_registry(tmp_path / "registry") as registry:
        assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == DATA


def test_an_idle_client_does_not_hold_the_server_up(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry") as registry:
        connection = registry.connect()
        connection.request("GET", "/v2/")
        connection.getresponse().read()
        registry.process.send_signal(signal.SIGTERM)
        assert registry.process.wait(5) == 0
        connection.close()


def test_a_server_that_is_killed_leaves_a_store_that_the_next_one_takes(tmp_path: Path) -> None:
    image = random_image(tmp_path / "image")
    with running_registry(tmp_path / "registry") as registry:
        registry.push(image, "a", "v1")
        stop = threading.Event()

        def push_on() -> None:
            number = 0
            while not stop.is_set():
                number += 1
                try:
                    registry.push(image, "b", f"t{number}")
                except (OSError, http.client.HTTPException):
                    return

        pusher = threading.Thread(target=push_on)
        pusher.start()
        time.sleep(0.3)
        registry.process.kill()
        registry.process.wait()
        stop.set()
        pusher.join()
        registry.process.returncode = 0  # as wanted
    with running_registry(tmp_path / "registry") as registry:
        for name in registry.request("GET", "/v2/_catalog").json["repositories"]:  # type: ignore[index]
            for tag in registry.request("GET", f"/v2/{name}/tags/list").json["tags"]:  # type: ignore[index]
                assert registry.request("GET", f"/v2/{name}/manifests/{tag}").body == image.manifest.raw
                for child, data in image.blobs():
                    assert registry.request("GET", f"/v2/{name}/blobs/{child.digest}").body == data
        registry.push(image, "b", "again")


def test_workers_share_uploads_and_a_dead_one_is_replaced(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", "--workers", "2", expected_stderr=None) as registry:
        workers = children(registry.process.pid)
        assert len(workers) == 2
        for _ in range(10):  # each request on a connection of its own, so on either worker
            place, cut = begin(registry), 0
            for end in range(500_000, len(DATA) + 1, 500_000):
                answer = registry.request("PATCH", place, DATA[cut:end], content_range=f"{cut}-{end - 1}")
                assert answer.status == 202
                cut = end
            assert registry.request("PUT", f"{place}?digest={DIGEST}").status == 201
        os.kill(int(workers[0]), signal.SIGKILL)
        deadline = time.monotonic() + 10
        while len(found := children(registry.process.pid)) < 2 or workers[0] in found:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        assert registry.request("GET", f"/v2/a/blobs/{DIGEST}").body == DATA
    log = (tmp_path / "registry.stderr").read_text()
    assert f"worker {workers[0]} ended with -9; starting another" in log


def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", "--workers", "2", expected_stderr=None) as registry:
        registry.request("GET", "/v2/")
        registry.process.kill()
        registry.process.wait()
        deadline = time.monotonic() + 20
        while _answers(registry):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        registry.process.returncode = 0  # as wanted


def test_a_unix_socket_is_served_and_removed(tmp_path: Path) -> None:
    path = tmp_path / "socket"
    with running_registry(tmp_path / "registry", listen=f"unix:{path}") as registry:
        assert registry.address == f"unix:{path}"
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(str(path))
            client.sendall(b"GET /v2/ HTTP/1.1\r\nHost: x\r\n\r\n")
            assert client.recv(100).startswith(b"HTTP/1.1 200 OK")
    assert not path.exists()


def test_ipv6_is_served(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET6) as probe:
        try:
            probe.bind(("::1", 0))
        except OSError:
            pytest.skip("this kernel has no IPv6 on loopback")
    with running_registry(tmp_path / "registry", listen="[::1]:0") as registry:
        assert registry.request("GET", "/v2/").status == 200


def test_the_access_log_has_a_line_for_each_request(tmp_path: Path) -> None:
    with running_registry(tmp_path / "registry", "--access-log", expected_stderr=None) as registry:
        registry.push_blob("a", b"data")
        registry.request("GET", f"/v2/a/blobs/{Digest.of(b'data')}")
        registry.request("GET", "/v2/a/manifests/x%0Ay")
    lines = (tmp_path / "registry.stderr").read_text().splitlines()
    shown = [re.sub(r"^\S+ \S+ (.*) [0-9.]+ms$", r"\1", line) for line in lines]
    assert shown == [
        "127.0.0.1 POST '/v2/a/blobs/uploads/' 201 0",
        f"127.0.0.1 GET '/v2/a/blobs/{Digest.of(b'data')}' 200 4",
        "127.0.0.1 GET '/v2/a/manifests/x\\ny' 400 135",
    ]


@pytest.mark.parametrize(
    ("options", "code", "message"),
    [
        (["--listen", "127.0.0.1:0", "--root", __file__], 1, "test_registry_server.py is no folder [not-a-folder]"),
        (["--listen", "127.0.0.1:0", "--root", "/proc/none"], 1, "cannot make /proc/none [no-such-file]"),
        (["--listen", "0.0.0.0:0"], 1, "refused to listen on 0.0.0.0:0 [listen-not-loopback]"),
        (["--listen", "nowhere"], 1, "not an address to listen on: 'nowhere' [listen-invalid]"),
        (["--workers", "0"], 1, "--workers takes a number from 1 to 256 [workers-invalid]"),
    ],
)
def test_a_bad_option_is_one_error(tmp_path: Path, options: list[str], code: int, message: str) -> None:
    command = [sys.executable, "-m", "argosy", "registry", "serve", "--root", str(tmp_path / "registry"), *options]
    ended = subprocess.run(
        command, capture_output=True, text=True, check=False, env={**os.environ, "PYTHONPATH": str(SOURCE)}
    )
    assert (ended.returncode, ended.stdout) == (code, "")
    assert message in ended.stderr
    assert not (tmp_path / "registry").exists()


def test_ls_shows_what_the_folder_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = random_image(tmp_path / "image")
    with running_registry(tmp_path / "registry") as registry:
        for tag in ("v1", "v2"):
            registry.push(image, "nvidia/cuda", tag)
    assert main(["registry", "ls", "--root", str(tmp_path / "registry"), "-q"]) == 0
    assert capsys.readouterr().out == "nvidia/cuda:v1\nnvidia/cuda:v2\n"
    assert main(["registry", "ls", "--root", str(tmp_path / "registry")]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "REPOSITORY    TAG       DIGEST         MEDIA TYPE",
        f"nvidia/cuda   v1        {image.descriptor.digest.short}   {image.descriptor.media_type}",
        f"nvidia/cuda   v2        {image.descriptor.digest.short}   {image.descriptor.media_type}",
    ]


def children(pid: int) -> list[str]:
    return Path(f"/proc/{pid}/task/{pid}/children").read_text().split()


def _answers(registry: RunningRegistry) -> bool:
    try:
        return registry.request("GET", "/v2/").status == 200
    except OSError:
        return False
