"""`make fuzz`: each parser, or those named in FUZZ, for some minutes; what is new goes into its corpus.

    make fuzz                              all of them, 60 s each
    make fuzz FUZZ="tar manifest -s 600"   two of them, ten minutes each

What breaks a parser is left in tests/fuzz/corpus/NAME/crash-…; mended, it stays there, and
`make test` replays it for ever. The corpus is kept small: the smallest
files that led to new code, none larger than 4 kB.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

CORPUS = Path(__file__).parent / "corpus"
_LARGEST = 4096  # bytes of a kept file
_MOST = 40  # files of one parser that are kept


def main() -> int:
    from .parsers import PARSERS

    options = argparse.ArgumentParser(prog="tests.fuzz")
    options.add_argument("names", nargs="*", choices=[*PARSERS, []], help="parsers (default: all)")
    options.add_argument("-s", "--seconds", type=int, default=60, help="for each")
    args = options.parse_args()
    failed = [name for name in args.names or PARSERS if not _fuzz(name, args.seconds)]
    print(f"{len(args.names or PARSERS)} parsers, {len(failed)} broken: {' '.join(failed)}")
    return 1 if failed else 0


def _fuzz(name: str, seconds: int) -> bool:
    """Fuzz in a process of its own; what it found beyond the corpus is added to it."""
    kept = CORPUS / name
    kept.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as found:
        command = [sys.executable, "-m", "tests.fuzz.harness", name, f"-max_len={_LARGEST}", "-rss_limit_mb=2048"]
        print(f"--- {name}, {seconds} s", flush=True)
        options = [f"-max_total_time={seconds}", f"-artifact_prefix={kept}/", "-timeout=20", "-verbosity=0"]
        ended = subprocess.run([*command, *options, found, str(kept)], check=False)
        _keep(Path(found), kept)
    return ended.returncode == 0


def _keep(found: Path, kept: Path) -> None:
    """The smallest of what led to new code, as far as there is room."""
    room = _MOST - sum(1 for _ in kept.iterdir())
    for path in sorted(found.iterdir(), key=lambda path: path.stat().st_size)[: max(room, 0)]:
        (kept / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    sys.exit(main())
