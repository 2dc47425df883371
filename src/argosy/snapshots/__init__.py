"""Layers in the form in which this host can mount them; a cache that blobs can always fill again."""

from .choose import choose
from .contract import Snapshotter

__all__ = ["Snapshotter", "choose"]
