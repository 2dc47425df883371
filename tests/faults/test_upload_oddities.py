"""An upload against every odd registry: it arrives whole, with as few bytes sent twice as that registry allows."""

from __future__ import annotations

import io
import os
import random
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, Error, Exhausted, Unavailable
from argosy.oci.descriptor import Descriptor
from argosy.oci.digest import Digest
from argosy.remote.delivery import ONE_PIECE, PIECE
from argosy.remote.outgoing import Watch
from argosy.remote.repository import Repository
from argosy.remote.transport import RetryPolicy, Transport
from argosy.remote.unfinished import Unfinished
from support.odd_registry import OddRegistry, odd_registry
from support.web import Reply, Seen, serving

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

DATA = random.Random("upload").randbytes(PIECE + 2 * ONE_PIECE)
BLOB = Descriptor.of(DATA, "application/octet-stream")
SMALL = Descriptor.of(DATA[:ONE_PIECE], "application/octet-stream")
HALF = 3_000_000


class Client(Watch):
    """A repository's client that waits for nothing, and what was heard of its transfers."""

    def __init__(self, odd: OddRegistry, transport: Transport, folder: str | None) -> None:
        self.odd = odd
        self.places: list[int] = []
        self.waiting: Callable[[], None] = lambda: None
        self.unfinished = Unfinished(folder)
        self.repository = Repository(transport, odd.site.address, "team/app")

    def push(self, blob: Descriptor = BLOB, data: bytes = DATA) -> str:
        def open_blob(offset: int) -> io.BytesIO:
            stream = io.BytesIO(data[: blob.size])
            stream.seek(offset)
            return stream

        return self.repository.push_blob(blob, open_blob, unfinished=self.unfinished, watch=self, remedy="mend it").how

    def stands(self, position: int) -> None:
        self.places.append(position)

    def waits(self) -> None:
        self.waiting()

    def fails(self, blob: Descriptor = BLOB, data: bytes = DATA) -> Error:
        with pytest.raises(Error) as caught:
            self.push(blob, data)
        return caught.value


@contextmanager
def client(odd: OddRegistry, folder: Path | None = None, attempts: int = 3) -> Iterator[Client]:
    transport = Transport(
        {}, plain_http=True, sleep=lambda s: None, retries=RetryPolicy(attempts=attempts), read_timeout_s=5
    )
    try:
        yield Client(odd, transport, str(folder) if folder is not None else None)
    finally:
        transport.close()


@pytest.fixture
def odd() -> Iterator[OddRegistry]:
    with odd_registry() as running:
        yield running


def test_a_small_blob_goes_in_one_request(odd: OddRegistry) -> None:
    with client(odd) as here:
        assert here.push(SMALL) == "sent"
    assert odd.lines == ["HEAD", "POST", "PUT"]
    assert odd.blobs == {SMALL.digest: DATA[:ONE_PIECE]}


def test_a_large_blob_goes_as_docker_sends_it(odd: OddRegistry) -> None:
    """One PATCH without a range: ghcr.io and Artifact Registry take no other."""
    with client(odd) as here:
        assert here.push() == "sent"
        assert (here.places[0], here.places[-1]) == (0, BLOB.size)
    assert odd.lines == ["HEAD", "POST", "PATCH", "PUT"]
    assert odd.blobs == {BLOB.digest: DATA}


def test_what_is_there_is_not_sent(odd: OddRegistry) -> None:
    odd.blobs[BLOB.digest] = DATA
    with client(odd) as here:
        assert here.push() == "present"
    assert odd.lines == ["HEAD"]


@pytest.mark.parametrize("kept", [2, 1000, HALF, BLOB.size - 1])
def test_an_upload_goes_on_where_the_registry_stands(odd: OddRegistry, kept: int) -> None:
    odd.breaks = [kept]
    with client(odd) as here:
        assert here.push() == "sent"
        assert here.places.index(kept, here.places.index(BLOB.size)) > 0
    assert odd.lines == ["HEAD", "POST", "PATCH", "GET", f"PATCH {kept}-{BLOB.size - 1}", "PUT"]
    assert odd.blobs == {BLOB.digest: DATA}


def test_an_upload_whose_last_answer_was_lost_sends_nothing_more(odd: OddRegistry) -> None:
    odd.lost_answers = 1
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.lines == ["HEAD", "POST", "PATCH", "GET", "PUT"]


@pytest.mark.parametrize("kept", [0, 1])
def test_0_0_may_mean_a_byte_so_the_upload_begins_anew_and_in_pieces(odd: OddRegistry, kept: int) -> None:
    odd.breaks = [kept]
    with client(odd) as here:
        assert here.push() == "sent"
    pieces = [f"PATCH 0-{PIECE - 1}", f"PATCH {PIECE}-{BLOB.size - 1}"]
    assert odd.lines == ["HEAD", "POST", "PATCH", "GET", "HEAD", "POST", *pieces, "PUT"]
    assert odd.blobs == {BLOB.digest: DATA}


def test_progress_counts_however_often_it_breaks(odd: OddRegistry) -> None:
    """Three attempts are for standing still; each break here comes after some more bytes."""
    odd.breaks = [500_000] * 12
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("failure", [429, 500, 502, 503, 504])
def test_standing_still_ends_with_what_the_registry_said(odd: OddRegistry, failure: int) -> None:
    odd.breaks, odd.failure = [0] * 100, failure
    with client(odd) as here:
        error = here.fails()
    assert isinstance(error, Unavailable)
    assert (error.message, error.context) == (
        f"cannot push blob {BLOB.digest} to {odd.site.address}/team/app",
        f"{odd.site.address} answered with status {failure}",
    )
    assert len([line for line in odd.lines if line.startswith("PATCH")]) == 3


def test_a_signed_offset_is_used_once_and_a_broken_upload_begins_anew(odd: OddRegistry) -> None:
    """distribution up to 2.8 at least."""
    odd.signs_offset, odd.breaks = True, [HALF]
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.lines == ["HEAD", "POST", "PATCH", "GET", "HEAD", "POST", "PATCH", "PUT"]
    assert odd.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("ranges", ["append", "replace"])
@pytest.mark.parametrize("tells", ["honest", "stuck", "none"])
def test_whatever_becomes_of_ranges_the_blob_arrives(odd: OddRegistry, ranges: str, tells: str) -> None:
    odd.ranges, odd.tells, odd.breaks = ranges, tells, [HALF, 100_000]
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


def test_a_range_that_stands_still_costs_one_more_upload(odd: OddRegistry) -> None:
    """ECR: https://github.com/aws/containers-roadmap/issues/2831."""
    odd.tells, odd.limit, odd.breaks = "stuck", PIECE, []
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.received == BLOB.size
    assert odd.blobs == {BLOB.digest: DATA}


def test_a_registry_that_takes_small_ranges_only_gets_them(odd: OddRegistry) -> None:
    """ghcr.io: 416 for more than 4 MiB with Content-Range, anything without."""
    odd.range_limit, odd.breaks = PIECE, [1_000_000]
    with client(odd) as here:
        assert here.push() == "sent"
        assert here.push(*another()) == "sent"
    assert odd.received == 2 * BLOB.size
    assert odd.lines[-3:] == ["POST", "PATCH", "PUT"]


def test_a_proxy_that_limits_requests_gets_smaller_ones_of_all_blobs(odd: OddRegistry) -> None:
    odd.limit = ONE_PIECE
    with client(odd) as here:
        assert here.push() == "sent"
        asked = len(odd.lines)
        assert here.push(*another()) == "sent"
    pieces = [f"PATCH {start}-{start + ONE_PIECE - 1}" for start in range(0, BLOB.size, ONE_PIECE)]
    assert odd.lines[asked:] == ["HEAD", "POST", *pieces, "PUT"]


def test_a_small_blob_that_is_too_large_goes_in_pieces(odd: OddRegistry) -> None:
    odd.limit = 300_000
    with client(odd) as here:
        assert here.push(SMALL) == "sent"
    assert odd.blobs == {SMALL.digest: DATA[:ONE_PIECE]}


def test_a_registry_that_takes_next_to_nothing_is_said(odd: OddRegistry) -> None:
    odd.limit = 1000
    with client(odd) as here:
        error = here.fails()
    assert (type(error), error.code) == (Exhausted, "too-large-for-registry")


def test_a_piece_is_as_large_as_the_registry_wants(odd: OddRegistry) -> None:
    odd.least, odd.breaks = PIECE + 1, [0]
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.lines[-3:-1] == [f"PATCH 0-{PIECE}", f"PATCH {PIECE + 1}-{BLOB.size - 1}"]


def test_a_registry_that_wants_more_at_once_than_it_takes_is_said(odd: OddRegistry) -> None:
    odd.least, odd.limit = PIECE + 1, PIECE
    with client(odd) as here:
        error = here.fails()
    assert (type(error), error.code) == (Exhausted, "too-large-for-registry")


def test_a_registry_without_patch_gets_all_in_one_put(odd: OddRegistry) -> None:
    odd.methods.discard("PATCH")
    with client(odd) as here:
        assert here.push() == "sent"
        assert here.push(*another()) == "sent"
    assert odd.lines == ["HEAD", "POST", "PATCH", "HEAD", "POST", "PUT", "HEAD", "POST", "PUT"]
    assert odd.received == 2 * BLOB.size


def test_without_patch_a_break_begins_anew(odd: OddRegistry) -> None:
    odd.methods.discard("PATCH")
    odd.breaks = [HALF]
    with client(odd) as here:
        assert here.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize("origin", ["", "//{address}", "http://{address}", "http://{other}"])
def test_an_upload_may_be_led_anywhere(odd: OddRegistry, origin: str) -> None:
    with serving(odd.answer) as other:
        odd.origin = origin.format(address=odd.site.address, other=other.address)
        odd.breaks = [HALF]
        with client(odd) as here:
            assert here.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


def test_an_upload_without_an_address_is_said() -> None:
    with serving(lambda seen: Reply(status=202 if seen.method == "POST" else 404)) as site:
        odd = OddRegistry()
        odd.site = site
        with client(odd) as here:
            error = here.fails()
    assert (type(error), error.code, error.context) == (
        Corrupt,
        "protocol-error",
        "the registry named no upload address",
    )


def test_another_digest_than_was_sent_is_found_out(odd: OddRegistry) -> None:
    odd.stores_another = True
    with client(odd) as here:
        error = here.fails()
    assert (type(error), error.code) == (Corrupt, "digest-mismatch")
    assert error.context == f"the registry stored {Digest.of(b'another')}"


@pytest.mark.parametrize("place", [0, HALF, BLOB.size - 1])
@pytest.mark.parametrize("breaks", [[], [HALF]])
def test_a_damaged_blob_is_never_sent_to_its_end(
    odd: OddRegistry, tmp_path: Path, place: int, breaks: list[int]
) -> None:
    """The error names it, the registry lacks it, and what was sent of it is not gone on with."""
    damaged = bytearray(DATA)
    damaged[place] ^= 1
    odd.breaks = breaks
    with client(odd, tmp_path) as here:
        error = here.fails(data=bytes(damaged))
        assert (type(error), error.code) == (Corrupt, "digest-mismatch")
        assert (error.message, error.hint) == (f"blob {BLOB.digest} is damaged", "mend it")
        assert (odd.blobs, list(tmp_path.iterdir()), "PUT" in odd.lines) == ({}, [], False)
        assert here.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


def test_a_damaged_small_blob_is_not_sent_to_its_end_either(odd: OddRegistry) -> None:
    with client(odd) as here:
        error = here.fails(SMALL, bytes(ONE_PIECE))
    assert (error.code, odd.blobs, odd.received < ONE_PIECE) == ("digest-mismatch", {}, True)


@pytest.mark.parametrize("size", [0, BLOB.size - 1])
def test_a_blob_that_ends_early_is_damaged(odd: OddRegistry, size: int) -> None:
    with client(odd) as here:
        error = here.fails(data=DATA[:size])
    assert (error.code, error.context) == ("size-mismatch", f"it ends after {size} of {BLOB.size} bytes")


def test_the_next_process_goes_on(odd: OddRegistry, tmp_path: Path) -> None:
    odd.breaks = [HALF] + [0] * 9
    with client(odd, tmp_path) as first:
        first.fails()
    odd.breaks = []
    (record,) = tmp_path.iterdir()
    assert (record.stat().st_mode & 0o777, tmp_path.stat().st_mode & 0o077) == (0o600, 0)
    asked = len(odd.lines)
    with client(odd, tmp_path) as second:
        assert second.push() == "sent"
    assert odd.lines[asked:] == ["HEAD", "GET", f"PATCH {HALF}-{BLOB.size - 1}", "PUT"]
    assert (odd.received, list(tmp_path.iterdir())) == (BLOB.size, [])


@pytest.mark.parametrize("signs_offset", [False, True])
def test_an_upload_that_expired_is_begun_anew_without_a_word(
    odd: OddRegistry, tmp_path: Path, signs_offset: bool
) -> None:
    odd.breaks, odd.signs_offset = [HALF] + [0] * 9, signs_offset
    with client(odd, tmp_path) as first:
        first.fails()
    odd.breaks = []
    odd.sessions.clear()
    with client(odd, tmp_path) as second:
        assert second.push() == "sent"
    assert odd.blobs == {BLOB.digest: DATA}


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b'{"blob":"elsewhere","location":"http://127.0.0.1:1/x"}',
        b'{"blob":"BLOB","location":"http://127.0.0.1:1/x"}',
        b'{"blob":"BLOB","location":"http://example.test:70000/x"}',
        b'{"blob":"BLOB","location":"ftp://example.test/x"}',
        b'{"blob":"BLOB","location":"/v2/"}',
        b'{"blob":"BLOB","location":"HERE/v2/team/app/blobs/uploads/99"}',
    ],
)
def test_a_record_that_leads_nowhere_costs_nothing_but_time(odd: OddRegistry, tmp_path: Path, content: bytes) -> None:
    with client(odd, tmp_path) as here:
        name = f"{odd.site.address}/team/app"
        with here.unfinished.take(name, BLOB.digest) as place:
            place.keep("x")
        (record,) = tmp_path.iterdir()
        blob = f"{name}@{BLOB.digest}".encode()
        record.write_bytes(content.replace(b"BLOB", blob).replace(b"HERE", odd.site.url.encode()))
        assert here.push() == "sent"
    assert (odd.blobs, list(tmp_path.iterdir())) == ({BLOB.digest: DATA}, [])


def test_two_processes_send_a_blob_once(odd: OddRegistry, tmp_path: Path) -> None:
    """The second waits for the first, and then finds the blob there."""
    ready, done = threading.Event(), threading.Event()

    def slow(seen: Seen) -> Reply:
        if seen.method == "PATCH":
            ready.set()
            assert done.wait(30)
        return odd.answer(seen)

    found: list[str] = []
    with serving(slow) as odd.site, client(odd, tmp_path) as first, client(odd, tmp_path) as second:
        threads = [threading.Thread(target=lambda each=each: found.append(each.push())) for each in (first, second)]
        threads[0].start()
        assert ready.wait(30)
        second.waiting = done.set
        threads[1].start()
        for thread in threads:
            thread.join()
    assert (sorted(found), odd.received, list(tmp_path.iterdir())) == (["present", "sent"], BLOB.size, [])


def test_old_records_are_swept(tmp_path: Path) -> None:
    unfinished = Unfinished(str(tmp_path))
    for number in range(2):
        with unfinished.take(f"registry/{number}", BLOB.digest) as place:
            place.keep("http://127.0.0.1/x")
    old, young = sorted(tmp_path.iterdir())
    os.utime(old, (0, 0))
    unfinished.sweep()
    assert list(tmp_path.iterdir()) == [young]
    Unfinished(str(tmp_path / "nowhere")).sweep()


def another() -> tuple[Descriptor, bytes]:
    data = DATA[::-1]
    return Descriptor.of(data, BLOB.media_type), data
