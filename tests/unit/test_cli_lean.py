"""The short ways to msgspec and urllib3 work like the long ones, leave nothing behind, and give way when they must."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.support.web import Reply, serving

CHECK = """
import msgspec
class Point(msgspec.Struct, frozen=True, kw_only=True):
    x: int
    names: tuple[str, ...] = ()
assert msgspec.json.decode(b'{"x":1,"names":["a"]}', type=Point) == Point(x=1, names=("a",))
assert msgspec.json.encode(Point(x=2)) == b'{"x":2,"names":[]}'
try:
    msgspec.json.decode(b'{"x":"1"}', type=Point)
except msgspec.ValidationError as error:
    assert str(error) == "Expected `int`, got `str` - at `$.x`"
"""


def python(code: str) -> str:
    done = subprocess.run((sys.executable, "-c", code), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_values_work_as_ever() -> None:
    python("from argosy.cli.lean import import_msgspec; import_msgspec()" + CHECK)


def test_the_real_modules_are_there_for_whoever_wants_them() -> None:
    python(
        "from argosy.cli.lean import import_msgspec; import_msgspec()\n"
        "import sys, uuid, decimal, msgspec.inspect, msgspec.yaml, msgspec.msgpack\n"
        "assert uuid.uuid4().version == 4 and decimal.Decimal('1.5') * 2 == 3\n"
        "assert msgspec.inspect.type_info(int).ge is None and msgspec.msgpack.decode(b'\\x01') == 1\n"
        "assert all(getattr(module, '__file__', 1) for name, module in sys.modules.items() if 'msgspec' in name)"
    )


def test_it_is_left_alone_where_it_is_loaded_already() -> None:
    python(
        "import msgspec, sys; before = dict(sys.modules)\n"
        "from argosy.cli.lean import import_msgspec; import_msgspec()\n"
        "assert all(sys.modules[name] is module for name, module in before.items())"
    )


@pytest.mark.skipif(
    sys.version_info[:2] == (3, 12), reason="CPython 3.12.1 loads no extension anew whose first loading failed"
)
@pytest.mark.parametrize("missing", ["UUID", "SafeUUID"])
def test_a_msgspec_that_needs_more_is_imported_plainly(missing: str) -> None:
    python(
        "from argosy.cli import lean; import sys; made = lean._for_msgspec()\n"
        f"del vars(made['uuid'])['{missing}']; lean._for_msgspec = lambda: made\n"
        "lean.import_msgspec()\n" + CHECK + "assert sys.modules['uuid'].__file__ and msgspec.inspect.type_info"
    )


def test_urllib3_works_without_what_it_hardly_needs() -> None:
    with serving(lambda seen: Reply(body=b"content")) as site:
        said = python(
            "from argosy.cli.lean import import_urllib3; import_urllib3()\n"
            "import sys, urllib3; before = set(sys.modules)\n"
            f"print(urllib3.PoolManager().request('GET', 'http://{site.address}/file').data.decode())\n"
            "print(not before & {'importlib.metadata', 'zipfile', 'backports.zstd', 'csv'})\n"
            "import importlib.metadata; print(importlib.metadata.version('urllib3') == urllib3.__version__)"
        )
    assert said.split() == ["content", "True", "True"]


def test_a_urllib3_that_needs_more_is_imported_plainly() -> None:
    python(
        "import sys; from argosy.cli import lean\n"
        "lean._import('urllib3', {'importlib.metadata': type(sys)('importlib.metadata')})\n"
        "import urllib3.http2, importlib.metadata\n"
        "assert urllib3.http2.version is importlib.metadata.version"
    )
