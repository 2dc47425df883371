"""However an upload is cut, and whoever continues it, the blob is the same."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given, settings
from hypothesis import strategies as some

from argosy.oci.digest import Digest
from argosy.registry.sessions import Uploads
from argosy.registry.storage import Storage

#: (bytes of one append, which process makes it, whether it takes its last bytes back first)
STEPS = some.lists(some.tuples(some.binary(max_size=50), some.integers(0, 2), some.booleans()), max_size=12)


@settings(max_examples=60, deadline=None)
@given(steps=STEPS, algorithm=some.sampled_from(["sha256", "sha512"]), last=some.integers(0, 2))
def test_any_cutting_among_any_processes_gives_the_same_blob(
    steps: list[tuple[bytes, int, bool]], algorithm: str, last: int
) -> None:
    with TemporaryDirectory() as folder:
        root = Path(folder)
        processes = [Uploads(root) for _ in range(3)]
        session = processes[0].create("a")
        whole = b""
        for data, process, rewind in steps:
            upload = processes[process].open("a", session)
            if rewind:
                whole = whole[: len(whole) // 2]
                upload.rewind(len(whole))
            upload.append([data[:7], data[7:]])
            whole += data
            assert upload.offset == len(whole)
            upload.close()
        digest = Digest.of(whole, algorithm)
        processes[last].open("a", session).commit(Storage(root).blobs, digest)
        assert Storage(root).blobs.path(digest).read_bytes() == whole
