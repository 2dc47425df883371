"""Our own registry in a child process, on a free loopback port, over a temporary store.

    with running_registry(tmp_path / "registry") as registry:
        registry.address            # "127.0.0.1:40123", for references and for skopeo
        registry.request("GET", "/v2/").status

Leaving the block stops it with SIGTERM and fails the test when it does not end,
ends badly, or wrote to stderr what was not expected.
"""

from __future__ import annotations

import http.client
import os
import select
import signal
import subprocess
import sys
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from argosy.oci.digest import Digest

if TYPE_CHECKING:
    from collections.abc import Iterator

    from argosy.oci.descriptor import Descriptor

    from .images import RandomImage

START_S = 30.0  # seconds; a loaded machine with a cold disk needs a few
STOP_S = 20.0  # seconds; idle it needs 0.3
SOURCE = Path(__file__).resolve().parents[2] / "src"


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """A whole HTTP response; header names are lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> object:
        return msgspec.json.decode(self.body)

    @property
    def codes(self) -> list[str]:
        """The OCI codes of an error answer."""
        document = msgspec.json.decode(self.body, type=dict[str, list[dict[str, object]]])
        return [str(entry["code"]) for entry in document["errors"]]


class RunningRegistry:
    """A registry that answers, and the few requests that most tests need."""

    def __init__(self, root: Path, process: subprocess.Popen[str], address: str) -> None:
        self.root = root
        self.process = process
        #: host:port
        self.address = address

    def connect(self, timeout_s: float = 30) -> http.client.HTTPConnection:
        return http.client.HTTPConnection(self.address, timeout=timeout_s)

    def request(self, method: str, path: str, body: bytes | Iterator[bytes] | None = None, **headers: str) -> Answer:
        """One request on a connection of its own; `content_type=…` becomes Content-Type."""
        connection = self.connect()
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            connection.request(method, path, body, named, encode_chunked=not isinstance(body, bytes | None))
            response = connection.getresponse()
            found = {name.lower(): value for name, value in response.getheaders()}
            return Answer(status=response.status, headers=found, body=response.read())
        finally:
            connection.close()

    def push_blob(self, name: str, data: bytes) -> Digest:
        digest = Digest.of(data)
        answer = self.request("POST", f"/v2/{name}/blobs/uploads/?digest={digest}", data)
        assert answer.status == 201, answer
        return digest

    def push_manifest(self, name: str, reference: str, descriptor: Descriptor, raw: bytes) -> Answer:
        path = f"/v2/{name}/manifests/{reference}"
        return self.request("PUT", path, raw, content_type=descriptor.media_type)

    def push(self, image: RandomImage, name: str, tag: str = "latest") -> str:
        """Everything of *image*; gives its reference «address/name:tag»."""
        for _, data in image.blobs():
            self.push_blob(name, data)
        answer = self.push_manifest(name, tag, image.descriptor, image.manifest.raw)
        assert answer.status == 201, answer
        return f"{self.address}/{name}:{tag}"


@contextmanager
def running_registry(
    root: Path, *options: str, listen: str = "127.0.0.1:0", expected_stderr: str | None = ""
) -> Iterator[RunningRegistry]:
    """Start `argosy registry serve --root ROOT OPTIONS…` and wait until it answers.

    *expected_stderr* is what its standard error must be at the end; None does not look.
    """
    log = root.with_name(f"{root.name}.stderr")
    root.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "argosy", "registry", "serve", "--root", str(root), "--listen", listen, *options]
    with log.open("w") as stderr:
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=stderr, text=True, env={**os.environ, "PYTHONPATH": str(SOURCE)}
        )
    try:
        yield RunningRegistry(root, process, _read_address(process, log))
        _stop(process, log)
        written = log.read_text()
        assert expected_stderr in (written, None), written
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _read_address(process: subprocess.Popen[str], log: Path) -> str:
    assert process.stdout is not None
    ready, _, _ = select.select([process.stdout], [], [], START_S)
    line = process.stdout.readline().strip() if ready else ""
    assert line, f"the registry did not start (waited {START_S:.0f} s at most):\n{log.read_text()}"
    return line


def _stop(process: subprocess.Popen[str], log: Path) -> None:
    process.send_signal(signal.SIGTERM)
    try:
        status = process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        raise AssertionError(f"the registry did not end within {STOP_S:.0f} s of SIGTERM:\n{log.read_text()}") from None
    assert status == 0, f"the registry ended with {status}:\n{log.read_text()}"
