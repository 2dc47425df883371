"""An NVML that we compile: one GPU, and answers that tests choose."""

from __future__ import annotations

import shutil
import subprocess
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pathlib import Path

#: NVML with one GPU, after nvml.h; INIT is what nvmlInit_v2 returns.
LIBRARY = r"""
#include <stdio.h>
#include <string.h>
int nvmlInit_v2(void) { puts("noise"); return INIT; }
int nvmlShutdown(void) { return 0; }
int nvmlDeviceGetCount_v2(unsigned *count) { *count = 1; return 0; }
int nvmlSystemGetDriverVersion(char *text, unsigned size) { strncpy(text, "550.54.15", size); return 0; }
int nvmlSystemGetCudaDriverVersion_v2(int *version) { *version = 12040; return 0; }
int nvmlDeviceGetHandleByIndex_v2(unsigned index, void **device) { *device = (void *)(long)(index + 7); return 0; }
int nvmlDeviceGetUUID(void *d, char *text, unsigned size) { strncpy(text, "GPU-1234", size); return d ? 0 : 2; }
int nvmlDeviceGetName(void *d, char *text, unsigned size) { strncpy(text, "NVIDIA A100", size); return d ? 0 : 2; }
int nvmlDeviceGetMinorNumber(void *d, unsigned *minor) { *minor = 3; return 0; }
int nvmlDeviceGetMemoryInfo(void *d, unsigned long long *m) { m[0] = 42949672960ull; m[1] = m[2] = 0; return 0; }
int nvmlDeviceGetCudaComputeCapability(void *d, int *major, int *minor) { *major = 8; *minor = 0; return 0; }
int nvmlDeviceGetBrand(void *d, unsigned *brand) { *brand = 14; return d ? 0 : 2; }
int nvmlDeviceGetMigMode(void *d, unsigned *now, unsigned *next) { return 3; }
struct pci { char old[16]; unsigned domain, bus, device, id, sub; char bus_id[32]; };
int nvmlDeviceGetPciInfo_v3(void *d, struct pci *p) {
    memset(p, 0, sizeof *p); strcpy(p->bus_id, "00000000:3B:00.0"); return 0; }
"""


def compiled(folder: Path, init: int = 0) -> str:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("no C compiler")
    source, library = folder / "nvml.c", folder / "libnvidia-ml.so.1"
    source.write_text(LIBRARY)
    subprocess.run((compiler, "-w", "-shared", "-fPIC", f"-DINIT={init}", "-o", library, source), check=True)
    return str(library)
