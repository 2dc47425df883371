"""Docker's --gpus, NVIDIA_VISIBLE_DEVICES and NVIDIA_DRIVER_CAPABILITIES as tables."""

from __future__ import annotations

import pytest

from argosy.errors import InvalidInput, NotFound, Unsupported
from argosy.gpu.inventory import Gpu
from argosy.gpu.select import ALL, GpuRequest, parse_capabilities

A = Gpu(index=0, minor=3, uuid="GPU-5a1b0000-aaaa", name="NVIDIA A100", bus_id="0000:3b:00.0")
B = Gpu(index=1, minor=0, uuid="GPU-5a1c0000-bbbb", name="NVIDIA A100", bus_id="0000:af:00.0")
C = Gpu(index=2, minor=1, uuid="GPU-77770000-cccc", name="NVIDIA H100", bus_id="0001:0a:00.0")
GPUS = (A, B, C)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("all", GpuRequest(count=ALL)),
        ("-1", GpuRequest(count=ALL)),
        ("2", GpuRequest(count=2)),
        ("0", GpuRequest(count=0)),
        ("count=all", GpuRequest(count=ALL)),
        ("device=1", GpuRequest(ids=("1",))),
        ('"device=0,2"', GpuRequest(ids=("0", "2"))),
        ('"device=0, 0,GPU-5a1b"', GpuRequest(ids=("0", "GPU-5a1b"))),
        ("driver=nvidia", GpuRequest(count=1)),
        ("capabilities=gpu", GpuRequest(count=1)),
        ('all,"capabilities=compute,utility,gpu"', GpuRequest(count=ALL, capabilities=("compute", "utility"))),
        ('"device=0",capabilities=utility', GpuRequest(ids=("0",), capabilities=("utility",))),
        ('all,"options=a=b,c=d"', GpuRequest(count=ALL, options={"a": "b", "c": "d"})),
    ],
)
def test_gpus_is_one_csv_record_as_docker_reads_it(text: str, expected: GpuRequest) -> None:
    assert GpuRequest.parse(text) == expected


@pytest.mark.parametrize(
    ("text", "context"),
    [
        ("", "it is empty"),
        ("all\n", "it is more than one line"),
        ("device=0,2", "a count and a list of devices exclude each other"),
        ("count=1,device=0", "a count and a list of devices exclude each other"),
        ("all,all", "count is there twice"),
        ("device=0,device=1", "device is there twice"),
        ("gpus=all", "unexpected key 'gpus'"),
        ("two", "'two' is neither «all» nor a number of GPUs"),
        ("-2", "'-2' is neither «all» nor a number of GPUs"),
        ("device=", "a device without a name"),
        ("driver=amd", "there is no driver 'amd'"),
        ('device="0,1"', "a quote inside a field that is not quoted"),
        ('"device=0', "a quoted field does not end with its quote"),
        ('"device=0"x', "a quoted field does not end with its quote"),
    ],
)
def test_what_docker_refuses_is_refused_with_its_reason(text: str, context: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        GpuRequest.parse(text)
    assert (caught.value.code, caught.value.context) == ("gpu-request-invalid", context)
    assert caught.value.message == f"not a GPU request: {text!r}"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        ("", None),
        (" , ", None),
        ("void", None),
        ("0,void", None),
        ("none", GpuRequest(driver_only=True)),
        ("all", GpuRequest(count=ALL)),
        ("0,all", GpuRequest(count=ALL)),
        ("none,all", GpuRequest(count=ALL)),
        ("0, 1,,0", GpuRequest(ids=("0", "1"))),
        ("GPU-5a1b0000-aaaa", GpuRequest(ids=("GPU-5a1b0000-aaaa",))),
    ],
)
def test_unset_empty_void_none_all_and_lists_differ(value: str | None, expected: GpuRequest | None) -> None:
    assert GpuRequest.from_visible_devices(value) == expected


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        pytest.param(GpuRequest(count=ALL), GPUS, id="all"),
        pytest.param(GpuRequest(ids=("all",)), GPUS, id="device=all"),
        pytest.param(GpuRequest(count=2), (A, B), id="the first two"),
        pytest.param(GpuRequest(count=0), (), id="none"),
        pytest.param(GpuRequest(driver_only=True), (), id="the driver alone"),
        pytest.param(GpuRequest(ids=("2", "0")), (C, A), id="indexes, in the order of the request"),
        pytest.param(GpuRequest(ids=("gpu-5A1B0000-AAAA",)), (A,), id="a UUID in any case"),
        pytest.param(GpuRequest(ids=("GPU-7",)), (C,), id="the beginning of a UUID"),
        pytest.param(GpuRequest(ids=("5a1c",)), (B,), id="without GPU-"),
        pytest.param(GpuRequest(ids=("00000001:0A:00.0",)), (C,), id="a PCI address as NVML writes it"),
        pytest.param(GpuRequest(ids=("0", "GPU-5a1b", "0000:3b:00.0")), (A,), id="three names of one GPU"),
    ],
)
def test_a_request_chooses_each_gpu_once(request_: GpuRequest, expected: tuple[Gpu, ...]) -> None:
    assert request_.select(GPUS) == expected


@pytest.mark.parametrize(
    ("request_", "kind", "code", "message"),
    [
        (GpuRequest(count=4), NotFound, "not-enough-gpus", "4 GPUs asked for, 3 here"),
        (GpuRequest(ids=("3",)), NotFound, "gpu-unknown", "no GPU '3'"),
        (GpuRequest(ids=("7777",)), NotFound, "gpu-unknown", "no GPU '7777'"),
        (GpuRequest(ids=("GPU-9",)), NotFound, "gpu-unknown", "no GPU 'GPU-9'"),
        (GpuRequest(ids=("GPU-",)), NotFound, "gpu-unknown", "no GPU 'GPU-'"),
        (GpuRequest(ids=("GPU-5a1",)), InvalidInput, "gpu-ambiguous", "'GPU-5a1' is the beginning of 2 GPUs' names"),
        (GpuRequest(ids=("0:1",)), Unsupported, "mig-unsupported", "MIG device '0:1' cannot be given yet"),
        (GpuRequest(ids=("MIG-1",)), Unsupported, "mig-unsupported", "MIG device 'MIG-1' cannot be given yet"),
    ],
)
def test_what_cannot_be_given_is_an_error(request_: GpuRequest, kind: type[Exception], code: str, message: str) -> None:
    with pytest.raises(kind) as caught:
        request_.select(GPUS)
    assert (caught.value.code, caught.value.message) == (code, message)  # type: ignore[attr-defined]


def test_an_unknown_gpu_is_answered_with_those_that_exist() -> None:
    with pytest.raises(NotFound) as caught:
        GpuRequest(ids=("9",)).select((A, C))
    assert caught.value.context == (
        "0  NVIDIA A100  GPU-5a1b0000-aaaa  0000:3b:00.0\n2  NVIDIA H100  GPU-77770000-cccc  0001:0a:00.0"
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (None, ("utility", "compute")),
        ("", ("utility", "compute")),
        ("utility", ("utility",)),
        ("utility, compute,utility", ("compute", "utility")),
        ("all", ("compute", "utility", "graphics", "video", "display", "ngx")),
        ("all,compat32", ("compute", "utility", "graphics", "video", "display", "ngx", "compat32")),
    ],
)
def test_capabilities_have_a_default_and_an_all(text: str | None, expected: tuple[str, ...]) -> None:
    assert parse_capabilities(text) == expected


def test_an_unknown_capability_lists_the_valid_ones() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_capabilities("compute,vidoe")
    assert (caught.value.code, caught.value.message) == ("capability-unknown", "unknown driver capability 'vidoe'")
    assert caught.value.context == (
        "capabilities are compute, utility, graphics, video, display, ngx, compat32 and all"
    )
