"""Who may import whom, and which module is the one door to each outside thing.

Every file of the package is read with ast, imports inside functions and under
TYPE_CHECKING included. Each rule is also fed a snippet that breaks it.
"""

from __future__ import annotations

import ast
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import argosy

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(argosy.__file__).parent

#: From the ground up; a package imports from lower rows and itself, never from its own row.
ROWS = (
    {"errors", "sizes"},
    {"oci"},
    {"linux"},
    {"layer", "store", "remote", "gpu", "runtime", "bundle"},
    {"snapshots", "archives", "catalog", "build"},
    {"ops"},
    {"cli", "registry"},
)
#: What the registry is made of; nothing of the engine.
REGISTRY_MAY = {"store", "oci", "errors", "linux"}
#: A front end that another may start.
EXCEPTIONS = {("cli", "registry")}

#: {outside thing: the files (or folders) that may import or name it}
IMPORT_DOORS = {
    "ctypes": ("linux/syscalls.py", "linux/seccomp.py", "gpu/nvml.py"),
    "urllib3": ("remote/connections.py",),
    "ssl": ("remote/connections.py",),
    "subprocess": ("catalog/", "registry/"),
    "asyncio": ("registry/",),
    "uvicorn": ("registry/",),
    "uvloop": ("registry/",),
    "rich": ("cli/",),
    "argparse": ("cli/",),
    "yaml": ("gpu/cdi.py",),
    "sqlite3": (),
    "dataclasses": (),
}
NAME_DOORS = {
    "os.environ": ("cli/host.py", "__main__.py"),
    "os.environb": (),
    "os.getenv": (),
    "print": ("cli/",),
    "input": ("cli/",),
    "sys.exit": ("cli/__init__.py",),
    "exit": (),
    "os.system": (),
    "os.popen": (),
    "eval": (),
    "exec": (),
}


def sources() -> list[Path]:
    return sorted(ROOT.rglob("*.py"))


def package_of(path: str) -> str:
    """«store» of store/blobs.py, «errors» of errors.py."""
    return path.split("/", 1)[0].removesuffix(".py")


def row_of(package: str) -> int:
    return next((number for number, row in enumerate(ROWS) if package in row), -1)


def imported(tree: ast.AST, path: str) -> Iterator[tuple[int, str]]:
    """(line, module) of every import; modules of the package as «argosy.store.blobs»."""
    folder = ["argosy", *path.split("/")[:-1]]
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            start = ".".join(folder[: len(folder) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (start, node.module) if part)
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)


def dotted(node: ast.AST) -> str:
    if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
        return f"{node.value.id}.{node.attr}"
    return ""


def named(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """(line, name) of what is used: «os.environ», and the plain names that are called."""
    for node in ast.walk(tree):
        if name := dotted(node):
            yield node.lineno, name  # type: ignore[attr-defined]  # expressions have one
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            yield node.lineno, node.func.id
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            yield from ((node.lineno, f"{node.module}.{alias.name}") for alias in node.names)


def is_open(path: str, doors: tuple[str, ...]) -> bool:
    return any(path == door or (door.endswith("/") and path.startswith(door)) for door in doors)


def arrow_fault(path: str, target: str) -> str:
    """What is wrong with *path* importing the module *target* of the package; nothing when all is well."""
    own, other = package_of(path), package_of("/".join(target.split(".")[1:]))
    if own == other or other in ("__version__", "") or own in ("__init__", "__main__"):
        return ""
    if row_of(other) < 0:
        return f"{other} stands in no row"
    if own == "registry" and other not in REGISTRY_MAY:
        return f"registry imports {other}"
    if row_of(other) >= row_of(own) and (own, other) not in EXCEPTIONS:
        return f"{own} imports {other}"
    return ""


def faults(path: str, source: str) -> list[str]:
    """Every breach of a rule in one file, as «path:line: what»."""
    tree = ast.parse(source)
    found: list[tuple[int, str]] = []
    for line, module in imported(tree, path):
        if module.split(".")[0] == "argosy":
            found.append((line, arrow_fault(path, module)))
        if module.endswith(".*"):
            found.append((line, f"star import of {module[:-2]}"))
        door = module.split(".")[0]
        if door in IMPORT_DOORS and not is_open(path, IMPORT_DOORS[door]):
            found.append((line, f"{door} is imported"))
    for line, name in named(tree):
        if name in NAME_DOORS and not is_open(path, NAME_DOORS[name]):
            found.append((line, f"{name} is used"))
    return [f"{path}:{line}: {what}" for line, what in sorted(set(found)) if what]


def test_every_file_keeps_to_its_row_and_to_the_doors() -> None:
    found = [
        fault for path in sources() for fault in faults(path.relative_to(ROOT).as_posix(), path.read_text("utf-8"))
    ]
    assert found == []


def test_every_package_stands_in_a_row() -> None:
    packages = {package_of(path.relative_to(ROOT).as_posix()) for path in sources()} - {"__init__", "__main__"}
    assert {package for package in packages if row_of(package) < 0} == set()


def test_every_file_begins_with_a_docstring_and_future_annotations() -> None:
    missing = []
    for path in sources():
        tree = ast.parse(path.read_text("utf-8"))
        future = any(isinstance(node, ast.ImportFrom) and node.module == "__future__" for node in tree.body)
        defines = any(isinstance(node, ast.FunctionDef | ast.ClassDef) for node in tree.body)
        if ast.get_docstring(tree) is None or (defines and not future):
            missing.append(path.relative_to(ROOT).as_posix())
    assert missing == []


@pytest.mark.parametrize(
    ("path", "source", "fault"),
    [
        ("oci/a.py", "from ..store import blobs", "oci imports store"),
        ("store/a.py", "from ..layer.archive import entries", "store imports layer"),
        ("store/a.py", "def f():\n    from ..snapshots import choose", "store imports snapshots"),
        ("gpu/a.py", "from argosy.runtime.oci_runtime import find", "gpu imports runtime"),
        ("ops/a.py", "import argosy.cli.output", "ops imports cli"),
        ("errors.py", "from .oci import digest", "errors imports oci"),
        ("registry/a.py", "from ..ops.pull import pull", "registry imports ops"),
        ("registry/a.py", "if TYPE_CHECKING:\n    from ..gpu.driver import Driver", "registry imports gpu"),
        ("ops/a.py", "from ..nowhere import thing", "nowhere stands in no row"),
        ("ops/a.py", "from ..store.blobs import *", "star import of argosy.store.blobs"),
        ("linux/mounts.py", "import ctypes", "ctypes is imported"),
        ("linux/mounts.py", "from ctypes import util", "ctypes is imported"),
        ("remote/auth.py", "import urllib3.exceptions", "urllib3 is imported"),
        ("ops/pull.py", "def f():\n    import ssl", "ssl is imported"),
        ("ops/run.py", "import subprocess", "subprocess is imported"),
        ("store/refs.py", "import sqlite3", "sqlite3 is imported"),
        ("ops/pull.py", "from rich import progress", "rich is imported"),
        ("ops/pull.py", "import asyncio", "asyncio is imported"),
        ("oci/a.py", "import dataclasses", "dataclasses is imported"),
        ("cli/run.py", "import os\nos.environ['HOME']", "os.environ is used"),
        ("remote/auth.py", "from os import environ", "os.environ is used"),
        ("remote/auth.py", "import os\nos.getenv('HOME')", "os.getenv is used"),
        ("ops/pull.py", "print('x')", "print is used"),
        ("cli/run.py", "import sys\nsys.exit(1)", "sys.exit is used"),
        ("ops/run.py", "import os\nos.system('true')", "os.system is used"),
        ("layer/a.py", "eval('1')", "eval is used"),
    ],
)
def test_each_rule_can_fail(path: str, source: str, fault: str) -> None:
    line = source.count("\n") + 1 if not source.startswith("import os\n") else 2
    assert faults(path, source) == [f"{path}:{line}: {fault}"]


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("ops/a.py", "from ..store.blobs import BlobStore\nfrom ..runtime import oci_runtime"),
        ("store/a.py", "from .. import __version__\nfrom ..oci.digest import Digest\nfrom ..linux import files"),
        ("cli/registry.py", "from ..registry.server import serve"),
        ("snapshots/a.py", "from ..layer.apply import apply"),
        ("remote/connections.py", "def f():\n    import ssl, urllib3"),
        ("cli/host.py", "import os\nos.environ"),
    ],
)
def test_what_is_allowed_is_not_refused(path: str, source: str) -> None:
    assert faults(path, source) == []
