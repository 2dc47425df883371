"""Argosy: GPU containers in one Python package, no daemon, root not required."""

from __future__ import annotations

__version__ = "0.1.0"
