"""Import msgspec and urllib3 without what we never ask of them.

msgspec: 12 of the 21 ms that it adds to a start. It loads typing_extensions where that is
installed (for what typing has had since 3.11), uuid (which loads platform), decimal, and
its own parts for schemas, TOML, YAML and MessagePack. None of our values has a UUID or a
Decimal. While msgspec loads, stand-ins take their places; afterwards they are gone, and
whoever wants the real modules gets them. Processor time over `python -I -c pass`, Python 3.11, two Zen 4
cores, 2026-11: 13.5 ms plainly, 9.4 ms here; with typing_extensions installed 21 ms.

urllib3: 8 of 33 ms, and 20 files less from a cold disk. It loads importlib.metadata, which
loads zipfile, csv, tempfile and more, to ask for the version of h2, should somebody turn
HTTP/2 on; and zstd for answers in that coding, which we never ask for.

Only the command line does this. Should a later version need more than the stand-ins
have, it is imported plainly.
"""

from __future__ import annotations

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_PARTS = ("inspect", "_json_schema", "msgpack", "toml", "yaml")


def import_msgspec() -> None:
    """Have msgspec in sys.modules, by the short way where that works."""
    if "msgspec" not in sys.modules:
        loaded = _import("msgspec", _for_msgspec())
        for part in _PARTS:
            if f"msgspec.{part}" not in sys.modules:
                vars(loaded).pop(part, None)  # so that `import msgspec.inspect` finds the real one


def import_urllib3() -> None:
    """Have urllib3 in sys.modules, by the short way where that works."""
    if "urllib3" not in sys.modules:
        metadata = type(sys)("importlib.metadata")
        vars(metadata)["version"] = None
        _import("urllib3", {"importlib.metadata": metadata, "backports.zstd": None})


def _import(name: str, wanted: dict[str, Any]) -> Any:
    """The module *name*; while it loads, *wanted* stand in for modules that are not loaded already."""
    stand_ins = {module: stand_in for module, stand_in in wanted.items() if module not in sys.modules}
    before = set(sys.modules)
    sys.modules.update(stand_ins)
    try:
        return __import__(name)
    except (ImportError, AttributeError):
        for module in set(sys.modules) - before:
            if module.partition(".")[0] == name:
                del sys.modules[module]
    finally:
        for module, stand_in in stand_ins.items():
            if sys.modules.get(module) is stand_in:
                del sys.modules[module]
    return __import__(name)


def _for_msgspec() -> dict[str, Any]:
    """{module: what stands for it}; None is how Python spells «not there»."""
    module = type(sys)
    made: dict[str, Any] = {f"msgspec.{part}": module(f"msgspec.{part}") for part in _PARTS}
    vars(made["msgspec._json_schema"]).update(schema=None, schema_components=None)
    made["uuid"] = module("uuid")
    vars(made["uuid"]).update(UUID=type("UUID", (), {}), SafeUUID=type("SafeUUID", (), {"unknown": None}))
    made["decimal"] = module("decimal")
    vars(made["decimal"]).update(Decimal=type("Decimal", (), {}))
    made["typing_extensions"] = None
    return made
