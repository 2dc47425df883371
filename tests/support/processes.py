"""Versions of the peers that a figure or a test was taken with."""

from __future__ import annotations

import shutil
import subprocess


def version_line(program: str) -> str:
    """«podman 4.3.1», or «podman is missing»."""
    path = shutil.which(program)
    if path is None:
        return f"{program} is missing"
    first = subprocess.run((path, "--version"), capture_output=True, text=True, check=False).stdout.partition("\n")[0]
    version = next((word.strip(",") for word in first.split() if word[:1].isdigit()), "")
    return f"{program} {version}".rstrip()
