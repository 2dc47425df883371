"""Argosy: GPU containers in one Python package, no daemon, root not required.

The public names are resolved on first use (PEP 562), so `import argosy` costs nothing.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .errors import Error as Error
    from .oci.digest import Digest as Digest
    from .oci.image import Image as Image
    from .oci.platform import Platform as Platform
    from .oci.reference import Reference as Reference
    from .ops.commit import commit as commit
    from .ops.pull import pull as pull
    from .ops.push import push as push
    from .ops.run import run as run

#: {public name: module that defines it}
_PUBLIC = {
    "Digest": "oci.digest",
    "Error": "errors",
    "Image": "oci.image",
    "Platform": "oci.platform",
    "Reference": "oci.reference",
    "commit": "ops.commit",
    "pull": "ops.pull",
    "push": "ops.push",
    "run": "ops.run",
}

__all__ = ["Digest", "Error", "Image", "Platform", "Reference", "__version__", "commit", "pull", "push", "run"]


def __getattr__(name: str) -> object:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = __import__(f"{__name__}.{_PUBLIC[name]}", fromlist=(name,))
    return getattr(module, name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
