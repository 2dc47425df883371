"""Streams of blobs over connections that break, against a source that is told how to misbehave."""

from __future__ import annotations

import io
from typing import TYPE_CHECKING

import pytest

from argosy.errors import Corrupt, Unavailable
from argosy.oci.descriptor import Descriptor
from argosy.remote.download import BlobReader
from argosy.remote.messages import HttpResponse
from argosy.remote.transport import RetryPolicy, Transport

if TYPE_CHECKING:
    from collections.abc import Sequence

DATA = bytes(range(256)) * 40
BLOB = Descriptor.of(DATA, "application/octet-stream")


class Breaking:
    """The bytes of a body, and then an end of the connection."""

    def __init__(self, data: bytes, *, lost: bool) -> None:
        self._stream = io.BytesIO(data)
        self._lost = lost

    def read(self, count: int, /) -> bytes:
        data = self._stream.read(count)
        if not data and self._lost:
            raise Unavailable("the connection broke", code="connection-lost")
        return data

    def close(self) -> None:
        pass


class Source:
    """Serves DATA; each answer ends after as many bytes as *cuts* says (None: not at all)."""

    def __init__(self, cuts: Sequence[int | None] = (), *, data: bytes = DATA, ranges: bool = True) -> None:
        self._cuts = list(cuts)
        self._data = data
        self._ranges = ranges
        self.lost = True
        self.asked: list[int] = []

    def fetch(self, position: int, end: int) -> HttpResponse:
        self.asked.append(position)
        start, stop = (position, end) if self._ranges else (0, len(self._data))
        stop = len(self._data) if position == 0 and end == BLOB.size else stop
        body = self._data[start:stop]
        cut = self._cuts.pop(0) if self._cuts else None
        stream = Breaking(body if cut is None else body[:cut], lost=cut is not None and self.lost)
        if start or stop < len(self._data):
            extent = f"bytes {start}-{stop - 1}/{len(self._data)}"
            return HttpResponse(206, {"Content-Range": extent}, stream)
        return HttpResponse(200, {"Content-Length": str(len(body))}, stream)


def reader_of(source: Source, offset: int = 0, end: int = len(DATA)) -> BlobReader:
    policy = RetryPolicy(attempts=3)
    return BlobReader(BLOB, offset, end, source.fetch, Transport({}, retries=policy, sleep=lambda s: None))


def read(source: Source, offset: int = 0, chunk: int = 1000, end: int = len(DATA)) -> bytes:
    with reader_of(source, offset, end) as reader:
        return b"".join(iter(lambda: reader.read(chunk), b""))


@pytest.mark.parametrize("chunk", [1, 999, 10**6, -1])
def test_a_blob_in_one_go(chunk: int) -> None:
    source = Source()
    assert (read(source, chunk=chunk), source.asked) == (DATA, [0])


@pytest.mark.parametrize("ranges", [True, False])
def test_a_broken_stream_goes_on_where_it_stopped(ranges: bool) -> None:
    source = Source([100, 4000 if ranges else 4100, None], ranges=ranges)
    assert (read(source), source.asked) == (DATA, [0, 100, 4100])


@pytest.mark.parametrize("ranges", [True, False])
def test_an_offset_gives_the_rest(ranges: bool) -> None:
    source = Source(ranges=ranges)
    assert (read(source, offset=5000), source.asked) == (DATA[5000:], [5000])


@pytest.mark.parametrize("chunk", [1, 999, -1])
@pytest.mark.parametrize("ranges", [True, False])
@pytest.mark.parametrize(("offset", "end"), [(0, 1), (0, 5000), (5000, 6000), (5000, len(DATA))])
def test_a_range_ends_where_it_was_to_end(offset: int, end: int, ranges: bool, chunk: int) -> None:
    source = Source(ranges=ranges)
    assert (read(source, offset, chunk, end), source.asked) == (DATA[offset:end], [offset])


def test_a_range_goes_on_where_it_broke() -> None:
    source = Source([100, 200, None])
    assert (read(source, 1000, end=3000), source.asked) == (DATA[1000:3000], [1000, 1100, 1300])


def test_a_server_without_ranges_shows_and_can_be_asked_for_the_rest() -> None:
    source = Source(ranges=False)
    with reader_of(source, 0, 4000) as reader:
        assert not reader.is_partial
        reader.extend(len(DATA))
        assert (reader.read(-1), source.asked) == (DATA, [0])
    with reader_of(Source(), 0, 4000) as reader:
        assert reader.is_partial


def test_a_part_that_goes_on_past_its_end_is_cut_there() -> None:
    def fetch(position: int, end: int) -> HttpResponse:
        return HttpResponse(206, {"Content-Range": f"bytes 5-{len(DATA) - 1}/{len(DATA)}"}, io.BytesIO(DATA[5:]))

    with BlobReader(BLOB, 5, 3000, fetch, Transport({})) as reader:
        assert (reader.is_partial, reader.read(-1)) == (False, DATA[5:3000])


def test_an_offset_at_the_end_asks_for_nothing() -> None:
    source = Source()
    assert (read(source, offset=len(DATA)), source.asked) == (b"", [])


def test_a_source_that_breaks_at_once_is_given_up() -> None:
    source = Source([0] * 9)
    with pytest.raises(Unavailable) as caught:
        read(source)
    assert (caught.value.code, source.asked) == ("connection-lost", [0, 0, 0])


def test_progress_starts_the_count_of_failures_anew() -> None:
    source = Source([1000] * 10)
    assert (read(source), len(source.asked)) == (DATA, 11)


def test_a_few_bytes_between_failures_are_no_progress() -> None:
    source = Source([10] * 1000)
    with pytest.raises(Unavailable):
        read(source)
    assert source.asked == [0, 10, 20]


def test_a_break_while_skipping_is_a_failure_like_others() -> None:
    source = Source([50, None], ranges=False)
    assert (read(source, offset=100), source.asked) == (DATA[100:], [100, 100])


def test_a_quiet_end_before_the_end_is_taken_up_and_at_last_corrupt() -> None:
    source = Source([6000, None])
    source.lost = False
    assert (read(source), source.asked) == (DATA, [0, 6000])
    source = Source([6000, 0, 0, 0, 0])
    source.lost = False
    with pytest.raises(Corrupt) as caught:
        read(source)
    assert (caught.value.code, caught.value.context) == ("size-mismatch", "ends after 6000 of 10240 bytes")


@pytest.mark.parametrize("data", [DATA[:-1], DATA + b"x"])
def test_a_blob_of_another_size_is_refused_before_its_bytes(data: bytes) -> None:
    with pytest.raises(Corrupt) as caught:
        read(Source(data=data))
    assert (caught.value.code, caught.value.context) == (
        "size-mismatch",
        f"the registry has {len(data)} bytes, 10240 are promised",
    )


def test_a_blob_that_does_not_end_is_refused() -> None:
    def fetch(position: int, end: int) -> HttpResponse:
        return HttpResponse(200, {}, io.BytesIO(DATA * 2))

    reader = BlobReader(BLOB, 0, len(DATA), fetch, Transport({}))
    with pytest.raises(Corrupt) as caught:
        reader.read(-1)
    assert caught.value.context == "longer than the 10240 bytes promised"


@pytest.mark.parametrize("extent", ["", "bytes */10240", "bytes 6-10239/10240", "items 5-10239/10240"])
def test_a_part_that_was_not_asked_for_is_refused(extent: str) -> None:
    def fetch(position: int, end: int) -> HttpResponse:
        return HttpResponse(206, {"Content-Range": extent}, io.BytesIO(DATA[6:]))

    with pytest.raises(Corrupt):
        BlobReader(BLOB, 5, len(DATA), fetch, Transport({}))
