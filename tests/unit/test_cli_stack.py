"""The stack: which layer is what, and the drawing as text, SVG and JSON."""

from __future__ import annotations

import json
import re
import time
from typing import TYPE_CHECKING
from xml.dom import minidom

import pytest

from argosy.cli import output, stack_svg, stack_text
from argosy.errors import InvalidInput
from argosy.gpu.roots import DriverRoots
from argosy.oci import descriptor as media
from argosy.oci.config import History, ImageConfig
from argosy.oci.image import Image
from argosy.oci.manifest import encode_manifest
from argosy.oci.platform import Platform
from argosy.ops import stack as ops
from argosy.ops.stack import Part, Slab, Stack
from support import driver_roots
from support.images import Layout

if TYPE_CHECKING:
    from pathlib import Path

CATALOG = [
    "argosy catalog: Debian 12 (bookworm), 91 packages",
    "argosy catalog: CUDA runtime: nvidia-cuda-runtime 13.5.1",
    "argosy catalog: CUDA libraries: nvidia-nvtx 13.5.1, nvidia-nvjpeg 13.5.1",
    "argosy catalog: CUDA runtime compilation: nvidia-cuda-nvrtc 13.5.1",
    "argosy catalog: cuBLAS: nvidia-cublas 13.5.1",
    "argosy catalog: host compiler: gcc, make of Debian 12 (bookworm), 30 packages",
    "argosy catalog: CUDA compiler: nvidia-cuda-nvcc 13.5.1",
    "argosy catalog: CUDA tools: nvidia-cuda-cupti 13.5.1",
    "argosy catalog: CUDA headers and static libraries: nvidia-cublas 13.5.1",
    "cp /work/vectorAdd /usr/local/bin/",
]
CATALOG_KINDS = ["os", "cuda-runtime", *["cuda-libraries"] * 3, *["cuda-toolkit"] * 4, "layers"]
NVIDIA = [  # shortened from nvidia/cuda:12.6.2-devel-ubuntu24.04
    "/bin/sh -c #(nop) ADD file:34dc4f3ab7a694ecde in / ",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c apt-get update && apt-get install -y gnupg2 curl ca-certificates # buildkit",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c apt-get update && apt-get install -y cuda-cudart-12-6=12.6.77-1 # buildkit",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c echo /usr/local/nvidia/lib >> /etc/ld.so.conf.d/nvidia.conf # buildkit",
    "COPY NGC-DL-CONTAINER-LICENSE / # buildkit",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c apt-get install -y cuda-libraries-12-6=12.6.2-1 libnpp-12-6 # buildkit",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c apt-mark hold libcublas-12-6 libnccl2 # buildkit",
    "RUN |1 TARGETARCH=amd64 /bin/sh -c apt-get install -y cuda-cudart-dev-12-6 cuda-nvcc-12-6 # buildkit",
    "RUN /bin/sh -c pip install torch # buildkit",
    "RUN /bin/sh -c nvcc -o /usr/bin/x x.cu # buildkit",
]
NVIDIA_KINDS = ["os", "os", *["cuda-runtime"] * 3, *["cuda-libraries"] * 2, "cuda-toolkit", "layers", "layers"]


@pytest.mark.parametrize(
    ("created_by", "kinds"),
    [
        (CATALOG, CATALOG_KINDS),
        (NVIDIA, NVIDIA_KINDS),
        ([], []),
        ([""], ["os"]),
        (["COPY /hello / # buildkit"], ["layers"]),
        (["# debian.sh --arch 'amd64' out/ 'bookworm' '@1'", "RUN /bin/sh -c make"], ["os", "layers"]),
        (["ADD x /", "RUN apt-get install -y curl", "WORKDIR /x"], ["os", "layers", "layers"]),
    ],
)
def test_each_layer_is_told_by_its_history(created_by: list[str], kinds: list[str]) -> None:
    assert ops.kinds_of(created_by) == kinds


@pytest.mark.parametrize(
    ("created_by", "name"),
    [
        ("argosy catalog: CUDA runtime: nvidia-cuda-runtime 13.5.1", "CUDA runtime"),
        ("argosy catalog: Debian 12 (bookworm), 91 packages", "Debian 12 (bookworm), 91 packages"),
        ('/bin/sh -c #(nop)  CMD ["bash"]', 'CMD ["bash"]'),
        ("/bin/sh -c apt-get update  &&   apt-get install", "apt-get update && apt-get install"),
        ("RUN |2 A=1 B=2 /bin/sh -c make all # buildkit", "make all"),
        ("COPY a b # buildkit", "COPY a b"),
        ("cp x y", "cp x y"),
        ("", "layer without a history"),
    ],
)
def test_a_layer_is_named_for_people(created_by: str, name: str) -> None:
    assert ops.layer_name(created_by) == name


def image(folder: Path, created_by: list[str], **execution: object) -> Image:
    layout = Layout(folder)
    blobs = tuple(layout.put(b"x" * 1000 * (n + 1), media.OCI_LAYER) for n in range(len(created_by)))
    config = ImageConfig.scratch(Platform.parse("linux/amd64")).with_(
        execution=execution,
        diff_ids=tuple(blob.digest for blob in blobs),
        history=tuple(History(created_by=text) for text in created_by),
    )
    layout.put(config.raw, media.OCI_CONFIG)
    return Image(layout.put(encode_manifest(config.descriptor, blobs).raw, media.OCI_MANIFEST), layout)


@pytest.mark.parametrize(
    "text", ["|1 " + "=" * 10**6, "apt " * 10**6, "apt install " + "cu" * 10**6, " " * 10**6 + "#"]
)
def test_a_hostile_history_takes_no_time(text: str) -> None:
    began = time.process_time()
    ops.kinds_of([text])
    ops.layer_name(text)
    assert time.process_time() - began < 2  # looking at all of it takes minutes


def test_layers_of_one_kind_are_one_slab_with_their_sizes(tmp_path: Path) -> None:
    made = image(tmp_path, [CATALOG[0], CATALOG[1], CATALOG[6], CATALOG[7], "make x"], Env=["CUDA_VERSION=13.5.1"])
    slabs = ops.layer_slabs(made, usage=lambda diff_id: None)
    assert [
        (slab.kind, slab.title, slab.note, slab.size, [part.name for part in slab.shown_parts]) for slab in slabs
    ] == [
        ("os", "OS layer", "Debian 12 (bookworm), 91 packages", 1000, []),
        ("cuda-runtime", "CUDA runtime", "13.5.1", 2000, []),
        ("cuda-toolkit", "CUDA toolkit", "13.5.1", 7000, ["CUDA compiler", "CUDA tools"]),
        ("layers", "Your layers", "", 5000, ["make x"]),
    ]
    assert [part.digest for slab in slabs for part in slab.parts] == list(made.config.diff_ids)


@pytest.mark.parametrize(
    ("lowest", "labels", "name"),
    [
        (
            "/bin/sh -c #(nop) ADD file:1 in / ",
            {"org.opencontainers.image.ref.name": "ubuntu", "org.opencontainers.image.version": "24.04"},
            "Ubuntu 24.04",
        ),
        ("# debian.sh --arch 'amd64' out/ 'bookworm' '@1'", {}, "Debian bookworm"),
        ("ADD alpine-minirootfs-3.22.1-x86_64.tar.gz / # buildkit", {}, "Alpine 3.22.1"),
        ("/bin/sh -c #(nop) ADD file:1 in / ", {}, ""),
        ("argosy catalog: Debian 12 (bookworm), 91 packages", {}, "Debian 12 (bookworm), 91 packages"),
    ],
)
def test_the_os_layer_is_named_from_what_the_image_tells(
    lowest: str, labels: dict[str, str], name: str, tmp_path: Path
) -> None:
    made = image(tmp_path, [lowest], Labels=labels)
    assert ops.layer_slabs(made, usage=lambda diff_id: None)[0].note == name


def test_a_container_has_a_writable_layer_on_top(tmp_path: Path) -> None:
    made = image(tmp_path, [CATALOG[0]])
    drawn = ops.stack(made, "cuda", usage=lambda d: 7, host=(), container="web", writable=3)
    assert drawn.slabs[-1] == Slab(kind="writable", title="Writable layer", note="of container web", size=3)
    assert (drawn.size, drawn.container) == (7, "web")


def test_a_host_with_a_driver_shows_what_is_added_at_launch(tmp_path: Path) -> None:
    roots = DriverRoots.at(driver_roots.build(tmp_path))
    gpus, driver, injected = ops.host_slabs(lambda: roots)
    assert [part.name for part in gpus.parts] == ["GPU 0  NVIDIA A100-SXM4-40GB", "GPU 1  NVIDIA A100-SXM4-40GB"]
    assert (driver.title, driver.note) == ("NVIDIA driver 999.88.77", "kernel module 999.88.77")
    assert injected.title == "Added at launch by --gpus"
    assert injected.parts[0].name.endswith(" driver libraries")
    assert "nvidia-smi" in injected.parts[1].name
    assert injected.parts[2].name.startswith("5 device nodes: nvidia0-1, nvidiactl")


def test_a_host_without_a_driver_says_so(tmp_path: Path) -> None:
    empty = driver_roots.build(tmp_path, libraries=False, module=False)
    gpus, driver, injected = ops.host_slabs(lambda: DriverRoots.at(empty))
    assert (gpus.note, driver.note) == ("none found", "no NVIDIA driver libraries")
    assert (injected.title, injected.note) == ("Added at launch by --gpus: nothing", "argosy doctor says why")


def test_a_driver_root_that_is_not_there_is_drawn_as_such() -> None:
    def missing() -> DriverRoots:
        raise InvalidInput("no folder '/x' to look for the driver in", code="driver-root-invalid")

    assert ops.host_slabs(missing)[1].note == "no folder '/x' to look for the driver in"


DRAWN = Stack(
    name="vectoradd:26.11",
    id="sha256:0",
    platform="linux/amd64",
    size=1_027_000_000,
    container="web",
    slabs=(
        Slab(kind="gpus", title="GPUs of this host", parts=(Part(name="GPU 0  NVIDIA H200", size=141 * 10**9),)),
        Slab(kind="driver", title="NVIDIA driver 580.65.06", note="kernel module 580.65.06"),
        Slab(
            kind="injected",
            title="Added at launch by --gpus",
            note="the image stays as it is",
            parts=(Part(name="27 driver libraries", size=312_000_000), Part(name="14 links, ld.so.cache")),
        ),
        Slab(kind="os", title="OS layer", note="Debian 12 (bookworm)", size=120_000_000),
        Slab(
            kind="cuda-toolkit",
            title="CUDA toolkit",
            note="13.5.0",
            size=906_000_000,
            parts=(Part(name="host compiler", size=300_000_000), Part(name="CUDA compiler", size=606_000_000)),
        ),
        Slab(kind="layers", title="Your layers", size=1_000_000, parts=(Part(name="a <&> b " * 20, size=1_000_000),)),
        Slab(kind="writable", title="Writable layer", note="of container web", size=12_300),
    ),
)


def test_the_drawing_on_a_terminal_of_eighty_columns() -> None:
    assert (
        stack_text.draw(DRAWN)
        == """\
 container web of vectoradd:26.11                linux/amd64   4 layers, 1.03GB
╭──────────────────────────────────────────────────────────────────────────────╮
│ Writable layer  of container web                       ▏              12.3kB │
├╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌╌┤
│ Your layers                                            ▏                 1MB │
│   · a <&> b a <&> b a <&> b a <&> b a <&> b a <&> b a <&> b a <&> …      1MB │
├──────────────────────────────────────────────────────────────────────────────┤
│ CUDA toolkit  13.5.0                                   ████████████    906MB │
│   · host compiler                                                      300MB │
│   · CUDA compiler                                                      606MB │
├──────────────────────────────────────────────────────────────────────────────┤
│ OS layer  Debian 12 (bookworm)                         █▋              120MB │
╰──────────────────────────────────────────────────────────────────────────────╯
   ▲  Added at launch by --gpus; the image stays as it is
   │  27 driver libraries (312MB)
   │  14 links, ld.so.cache
╔══════════════════════════════════════════════════════════════════════════════╗
║ NVIDIA driver 580.65.06  kernel module 580.65.06                             ║
╟──────────────────────────────────────────────────────────────────────────────╢
║ GPUs of this host                                                            ║
║   · GPU 0  NVIDIA H200                                                 141GB ║
╚══════════════════════════════════════════════════════════════════════════════╝
"""
    )


@pytest.mark.parametrize("width", [1, 56, 60, 79, 80, 99, 100, 500])
@pytest.mark.parametrize("ascii_only", [True, False])
def test_every_box_has_one_width(width: int, ascii_only: bool) -> None:
    lines = stack_text.draw(DRAWN, width=width, ascii_only=ascii_only).splitlines()
    wanted = max(56, min(width, 100))
    assert {len(line) for line in lines if line[:1] in "╭│├╰╔║╟╚+|"} == {wanted}
    assert max(map(len, lines)) == wanted


def test_ascii_is_ascii() -> None:
    assert stack_text.draw(DRAWN, ascii_only=True).isascii()


def test_colours_change_nothing_but_the_colours() -> None:
    coloured = stack_text.draw(DRAWN, colour=True)
    assert "\x1b[1;36mCUDA toolkit\x1b[0m" in coloured
    assert re.sub(r"\x1b\[[0-9;]*m", "", coloured) == stack_text.draw(DRAWN)


def test_the_svg_is_well_formed_and_stands_alone() -> None:
    text = stack_svg.draw(DRAWN)
    document = minidom.parseString(text).documentElement
    assert document is not None
    words = " ".join(node.firstChild.data for node in document.getElementsByTagName("text") if node.firstChild)  # type: ignore[union-attr]
    for title in ("container web", "Writable layer", "CUDA toolkit", "OS layer", "NVIDIA driver 580.65.06", "a <&> b"):
        assert title in words
    assert "href" not in text
    assert "<script" not in text
    bottom = max(
        float(rect.getAttribute("y") or 0) + float(rect.getAttribute("height"))
        for rect in document.getElementsByTagName("rect")
    )
    assert bottom == float(document.getAttribute("height"))


def test_json_lists_the_slabs_from_the_bottom_up() -> None:
    document = json.loads(output.json_text(DRAWN))
    assert [slab["kind"] for slab in document["slabs"]] == [slab.kind for slab in DRAWN.slabs]
    assert document["slabs"][4]["parts"][1] == {"name": "CUDA compiler", "size": 606_000_000}
