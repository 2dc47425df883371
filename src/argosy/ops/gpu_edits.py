"""What --gpus adds to a container, from requests and the container's environment to edits.

Policy: only --gpus injects. NVIDIA_VISIBLE_DEVICES of an image is a wish of whoever
made the image, and is not granted by itself; NVIDIA_DRIVER_CAPABILITIES, of the
image or by -e, chooses which parts of the driver come along.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..gpu.driver import Driver
from ..gpu.evidence import no_gpu
from ..gpu.inventory import visible_gpus
from ..gpu.layout import ImageLayout
from ..gpu.select import parse_capabilities
from ..oci.edits import ContainerEdits

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from ..gpu.driver import DriverRoots
    from ..gpu.inventory import Gpu
    from ..gpu.select import GpuRequest


class Injection:
    """GPUs that were chosen and the driver that goes with them; `edits` places it in an image."""

    def __init__(self, driver: Driver, gpus: tuple[Gpu, ...], capabilities: tuple[str, ...]) -> None:
        self.driver = driver
        self.gpus = gpus
        self.capabilities = capabilities

    def edits(self, layout: ImageLayout | None = None) -> ContainerEdits:
        """The edits for an image of this layout. Raises what Driver.edits raises."""
        return self.driver.edits(self.gpus, self.capabilities, layout)

    def edits_in(self, image_root_fd: int) -> ContainerEdits:
        """The edits for the image behind a descriptor of its root."""
        return self.edits(ImageLayout.read(image_root_fd))


def choose(requests: Sequence[GpuRequest], *, roots: DriverRoots, environment: Mapping[str, str]) -> Injection | None:
    """Look at the host and choose; None when nothing is asked for (no request, `--gpus 0`).

    *environment* is the container's: the image's variables under those of -e. Raises
    NotFound (codes "no-nvidia-gpu", "gpu-unknown", "not-enough-gpus",
    "no-nvidia-driver"), Unsupported ("driver-version-mismatch"), InvalidInput.
    """
    requests = [request for request in requests if not request.is_empty]
    if not requests:
        return None
    gpus = visible_gpus(roots)
    if not gpus and not all(request.driver_only for request in requests):
        raise no_gpu(roots)
    chosen = dict.fromkeys(gpu for request in requests for gpu in request.select(gpus))
    named = dict.fromkeys(word for request in requests for word in request.capabilities)
    capabilities = tuple(named) or parse_capabilities(environment.get("NVIDIA_DRIVER_CAPABILITIES"))
    driver = Driver.find(roots)
    driver.check_versions()
    return Injection(driver, tuple(chosen), capabilities)


def edits_for(
    requests: Sequence[GpuRequest],
    *,
    roots: DriverRoots,
    environment: Mapping[str, str],
    layout: ImageLayout | None = None,
) -> ContainerEdits:
    """The edits for these requests; none for none. Without *layout* files keep the host's paths."""
    injection = choose(requests, roots=roots, environment=environment)
    return ContainerEdits() if injection is None else injection.edits(layout)
