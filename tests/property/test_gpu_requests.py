"""Words that people and images write about GPUs: each is understood or refused as InvalidInput."""

from __future__ import annotations

from contextlib import suppress

from hypothesis import example, given
from hypothesis import strategies as st

from argosy.errors import InvalidInput, NotFound, Unsupported
from argosy.gpu.inventory import Gpu
from argosy.gpu.select import GpuRequest, parse_capabilities

GPUS = tuple(Gpu(index=n, minor=n, uuid=f"GPU-{n}aaa", bus_id=f"0000:0{n}:00.0") for n in range(3))
PIECES = st.sampled_from(
    ["all", "device=", "count=", "0", "1", "9" * 5000, ",", '"', "=", "capabilities=", "GPU-", " ", "²"]
)
TEXTS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=8).map("".join))


@given(TEXTS)
@example("count=²")
def test_any_text_is_a_request_or_invalid(text: str) -> None:
    with suppress(InvalidInput):
        request = GpuRequest.parse(text)
        with suppress(NotFound, InvalidInput, Unsupported):
            chosen = request.select(GPUS)
            assert len(set(chosen)) == len(chosen)
            assert set(chosen) <= set(GPUS)


@given(TEXTS)
def test_any_value_of_visible_devices_is_nothing_or_a_request(text: str) -> None:
    request = GpuRequest.from_visible_devices(text)
    assert request is None or not request.is_empty


@given(TEXTS)
def test_any_value_of_driver_capabilities_is_words_we_know_or_invalid(text: str) -> None:
    with suppress(InvalidInput):
        words = parse_capabilities(text)
        assert parse_capabilities(",".join(words)) in (words, ("compute", "utility"))


@given(st.lists(st.sampled_from(["0", "1", "GPU-2aaa", "gpu-1AAA", "0000:02:00.0"]), min_size=1, unique=True))
def test_a_quoted_list_names_what_it_says(names: list[str]) -> None:
    assert GpuRequest.parse(f'"device={",".join(names)}"') == GpuRequest(ids=tuple(names))
