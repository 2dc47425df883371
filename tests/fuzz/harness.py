"""One parser under atheris: `python -m tests.fuzz.harness NAME [libFuzzer's options] FOLDER…`."""

from __future__ import annotations

import sys

import atheris

with atheris.instrument_imports(include=["argosy"]):
    from . import parsers


def main() -> None:
    name = sys.argv.pop(1)
    atheris.Setup(sys.argv, lambda data: parsers.parse(name, data))
    atheris.Fuzz()


if __name__ == "__main__":
    main()
