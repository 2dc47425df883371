"""What a start imports, since that is what a start costs. A list of imports, not a timed test.

Each case runs in a fresh isolated interpreter and reports the modules that it
loaded beyond those of an empty program.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import argosy
from argosy.store.version import check_version

_PROGRAM = """
import sys
before = set(sys.modules)
sys.path.insert(0, {source!r})
import os
os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
{body}
os.write(1, "\\n--\\n".encode() + " ".join(sorted(set(sys.modules) - before)).encode())
"""
_MAIN = "from argosy.cli import main\nmain({argv!r}, {{'ARGOSY_ROOT': {root!r}, 'PATH': '/usr/bin:/bin', 'HOME': '/'}})"

#: Costly, and never needed to list or to start a container.
HEAVY = frozenset(
    "urllib3 ssl http http.client asyncio rich dataclasses inspect subprocess logging tempfile typing_extensions "
    "concurrent concurrent.futures multiprocessing socket email xml yaml sqlite3 json tarfile zipfile uvicorn "
    "importlib.metadata importlib.resources unittest pkg_resources".split()
)


def loaded(body: str) -> set[str]:
    source = str(Path(argosy.__file__).parent.parent)
    program = _PROGRAM.format(source=source, body=body)
    done = subprocess.run([sys.executable, "-I", "-c", program], capture_output=True, text=True, timeout=60, check=True)
    return set(done.stdout.rpartition("\n--\n")[2].split()) - {"__future__"}


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """A store that exists: making one costs more, but once."""
    check_version(tmp_path / "store")
    return tmp_path / "store"


def loaded_by(argv: list[str], root: Path) -> set[str]:
    return loaded(_MAIN.format(argv=argv, root=str(root)))


def ours(modules: set[str]) -> set[str]:
    return {name.removeprefix("argosy.") for name in modules if name.startswith("argosy.")}


@pytest.mark.parametrize("argv", [["--help"], ["--version"], [], ["help"]])
def test_help_and_version_import_nothing_but_the_table(argv: list[str], store: Path) -> None:
    assert loaded_by(argv, store) == {
        "argosy",
        "argosy.cli",
        "argosy.cli.commands",
        "argosy.errors",
        "gc",
    }


def test_importing_the_package_imports_nothing_else() -> None:
    assert loaded("import argosy") == {"argosy"}


def test_public_names_are_resolved_on_first_use() -> None:
    modules = loaded("import argosy\nassert argosy.Reference.parse('a').tag == 'latest'")
    assert {"argosy.oci.reference"} <= modules
    assert not modules & HEAVY - {"inspect", "typing_extensions"}  # those are msgspec's, where they are installed


def test_every_public_name_exists() -> None:
    assert [name for name in argosy.__all__ if not hasattr(argosy, name)] == []
    assert set(argosy.__all__) <= set(dir(argosy))
    with pytest.raises(AttributeError, match="no attribute 'Nonsense'"):
        argosy.Nonsense  # noqa: B018


def test_images_loads_neither_models_nor_syscalls(store: Path) -> None:
    """The list of images is one text file; see store/listing.py."""
    modules = loaded_by(["images"], store)
    assert not modules & (HEAVY | {"msgspec", "ctypes", "typing", "datetime"})
    assert ours(modules) == {
        "cli",
        "cli.commands",
        "cli.host",
        "cli.images",
        "cli.output",
        "cli.parser",
        "errors",
        "ops",
        "ops.images",
        "sizes",
        "store",
        "store.derived",
        "store.listing",
        "store.version",
    }


def test_ps_loads_neither_models_nor_syscalls(store: Path) -> None:
    """The list of containers is one text file too; see store/roster.py."""
    modules = loaded_by(["ps"], store)
    assert not modules & (HEAVY | {"msgspec", "ctypes", "typing", "datetime"})
    assert ours(modules) == {
        "cli",
        "cli.commands",
        "cli.filters",
        "cli.host",
        "cli.output",
        "cli.parser",
        "cli.ps",
        "errors",
        "linux",
        "linux.lifetimes",
        "ops",
        "ops.supervisors",
        "sizes",
        "store",
        "store.derived",
        "store.roster",
        "store.version",
    }


@pytest.mark.parametrize(
    "argv", [["run"], ["run", "--help"], ["run", "--rm", "--pull", "never", "localhost/nothing:1"]]
)
def test_run_loads_no_client_and_no_drawing_before_the_image_is_found(argv: list[str], store: Path) -> None:
    modules = loaded_by(argv, store)
    assert not modules & HEAVY
    assert not {name for name in ours(modules) if name.split(".")[0] in ("remote", "gpu", "registry", "catalog")}


@pytest.mark.parametrize(
    "verb",
    "rm tag inspect history stack diff du info version completion pull tags search manifest".split(),
)
def test_help_of_a_verb_loads_no_client_and_no_drawing(verb: str, store: Path) -> None:
    assert not loaded_by([verb, "--help"], store) & HEAVY
