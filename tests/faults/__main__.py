"""The long loops: `python -m tests.faults NAME --help`. As root, in a mount namespace of its own."""

from __future__ import annotations

import importlib
import sys

from argosy.linux import mounts, syscalls

NAMES = ("two_nodes",)

if __name__ == "__main__":
    if len(sys.argv) < 2 or sys.argv[1] not in NAMES:
        sys.exit(f"usage: python -m tests.faults {{{','.join(NAMES)}}} …")
    mounts.private_namespace(propagation=syscalls.MS_PRIVATE)
    sys.exit(importlib.import_module(f"tests.faults.{sys.argv[1]}").main(sys.argv[2:]))
